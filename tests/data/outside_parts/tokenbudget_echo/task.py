"""A task whose questions have their answers in them."""

from pytest_tokenbudget.tasks.problem import Problem, content_id
from pytest_tokenbudget.tasks.ruled import NUMBER, GivenTask


class CopyingTask(GivenTask):
    def __init__(self):
        super().__init__("copying", NUMBER, tuple(map(make_problem, range(20))))


def make_problem(number):
    question, answer = f"Repeat this line:\n#### {number}", str(number)
    messages = ({"role": "user", "content": question},)
    return Problem(content_id("copying", messages, answer), question, answer, "", messages)
