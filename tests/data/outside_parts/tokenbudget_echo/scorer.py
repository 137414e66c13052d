"""A scorer: right if the text is the expected answer, letter by letter."""

from pytest_tokenbudget.tasks.base import Verdict
from pytest_tokenbudget.tasks.ruled import Rule


def judge_exact(expected, text, truncated):
    return Verdict(text, "exact", text == expected and not truncated)


# The name has a version: results say which one judged them.
EXACT = Rule("exact/1", judge_exact)
