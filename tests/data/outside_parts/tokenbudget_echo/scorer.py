"""A scorer: right if the text is the expected answer, letter by letter."""

from pytest_tokenbudget.tasks.base import AnswerVerdict
from pytest_tokenbudget.tasks.ruled import JudgingRule


def judge_exact(expected, text, truncated):
    return AnswerVerdict(text, "exact", text == expected and not truncated)


# The name has a version: results say which one judged them.
EXACT = JudgingRule("exact/1", judge_exact)
