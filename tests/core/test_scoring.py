"""From traces to outcomes: every outcome, at every cut, and no answer from open thinking."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tokenbudget.core.scoring import judge
from pytest_tokenbudget.core.trace import Outcome, StopReason, ThinkingFormat, Trace
from pytest_tokenbudget.tasks.registry import load_task

TASK = load_task("word-problems")
PROBLEM = TASK.problems(1)[0]
RIGHT = PROBLEM.answer
WRONG = str(int(RIGHT) + 1)
THINKING = ThinkingFormat()


def trace(text, stop=StopReason.EOS, opened_by_prompt=False):
    """One token a character, and an end-of-sequence token where the model ended."""
    ended = stop is StopReason.EOS
    offsets = (*range(1, len(text) + 1), *([len(text)] if ended else []))
    return Trace(
        problem_id=PROBLEM.id,
        sample=0,
        prompt_ids=(1,),
        output_ids=tuple(range(len(offsets))),
        stop_reason=stop,
        cap=len(offsets) if stop is StopReason.LENGTH else 10_000,
        text=text,
        offsets=offsets,
        opened_by_prompt=opened_by_prompt,
    )


def outcome(text, stop=StopReason.EOS, opened_by_prompt=False):
    one = trace(text, stop, opened_by_prompt)
    return judge(TASK, PROBLEM, one.cut(10_000 if one.covers(10_000) else one.cap, THINKING))


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        (f"So\n#### {RIGHT}", StopReason.EOS, Outcome.CORRECT),
        (f"So\n#### {RIGHT}", StopReason.STOP, Outcome.CORRECT),
        (f"So {RIGHT}", StopReason.EOS, Outcome.CORRECT),
        (f"So\n#### {WRONG}", StopReason.EOS, Outcome.WRONG),
        ("I do not know.", StopReason.EOS, Outcome.NO_ANSWER),
        ("", StopReason.EOS, Outcome.EMPTY),
        (" \n", StopReason.EOS, Outcome.EMPTY),
        (f"<think>{RIGHT}</think>\n", StopReason.EOS, Outcome.EMPTY),
        (f"<think>#### {RIGHT}\n", StopReason.EOS, Outcome.NO_ANSWER),
        (f"<think>#### {RIGHT}\n", StopReason.LENGTH, Outcome.TRUNCATED_IN_THINKING),
        (f"<think>#### {RIGHT}\n</think>So", StopReason.LENGTH, Outcome.TRUNCATED_IN_ANSWER),
        (f"#### {RIGHT}\n", StopReason.LENGTH, Outcome.CORRECT),
        (f"#### {RIGHT}", StopReason.LENGTH, Outcome.TRUNCATED_IN_ANSWER),
        (f"#### {WRONG}\n", StopReason.LENGTH, Outcome.TRUNCATED_IN_ANSWER),
        (f"So {RIGHT} apples", StopReason.LENGTH, Outcome.TRUNCATED_IN_ANSWER),
        (f"#### {RIGHT}", StopReason.ERROR, Outcome.ERROR),
        ("", StopReason.ERROR, Outcome.ERROR),
    ],
)
def test_outcomes(text, stop, expected):
    judged = outcome(text, stop)
    assert judged.outcome is expected
    assert judged.correct is (expected is Outcome.CORRECT)


def test_thinking_opened_by_the_prompt():
    open_text = f"I add. #### {RIGHT}\n"
    assert outcome(open_text, StopReason.LENGTH, True).outcome is Outcome.TRUNCATED_IN_THINKING
    assert outcome(open_text, StopReason.EOS, True).outcome is Outcome.NO_ANSWER
    assert outcome(f"{open_text}</think>#### {RIGHT}", StopReason.EOS, True).correct


def test_prediction_and_branch_are_kept():
    wrong = outcome(f"#### {WRONG}")
    assert (wrong.predicted, wrong.branch) == (WRONG, "hash")
    kept = outcome(f"#### {WRONG}\n", StopReason.LENGTH)
    assert (kept.predicted, kept.outcome) == (WRONG, Outcome.TRUNCATED_IN_ANSWER)
    thought = outcome(f"<think>{RIGHT}", StopReason.LENGTH)
    assert (thought.predicted, thought.branch) == (None, None)


def test_every_budget_of_one_trace():
    text = f"<think>\nIs it {RIGHT}?\n</think>\n\nIt is {RIGHT}.\n#### {RIGHT}"
    one = trace(text)
    found = [judge(TASK, PROBLEM, one.cut(b, THINKING)).outcome for b in range(1, len(text) + 2)]
    closed, end = text.index("</think>") + len("</think>"), len(text)
    assert set(found[len("<think>") - 1 : closed - 1]) == {Outcome.TRUNCATED_IN_THINKING}
    # Only the end-of-sequence token settles the number.
    assert set(found[closed - 1 : end]) == {Outcome.TRUNCATED_IN_ANSWER}
    assert found[end] is Outcome.CORRECT


pieces = st.sampled_from(["<think>", "</think>", "#### ", RIGHT, WRONG, "\n", " ", "so ", "1", "."])


@given(st.lists(pieces, max_size=12).map("".join), st.booleans(), st.booleans())
def test_every_cut_has_one_outcome_that_fits(text, ended, opened):
    one = trace(text or "x", StopReason.EOS if ended else StopReason.LENGTH, opened)
    for budget in range(1, one.cap + 1 if one.capped else len(one.output_ids) + 1):
        cut = one.cut(budget, THINKING)
        judged = judge(TASK, PROBLEM, cut)
        if cut.in_thinking:
            assert judged.predicted is None
            assert not judged.correct
        if cut.truncated:
            assert judged.outcome in (
                Outcome.CORRECT,
                Outcome.TRUNCATED_IN_THINKING,
                Outcome.TRUNCATED_IN_ANSWER,
            )
        else:
            assert judged.outcome in (
                Outcome.CORRECT,
                Outcome.WRONG,
                Outcome.NO_ANSWER,
                Outcome.EMPTY,
            )
        assert (judged.predicted is None) == (judged.branch is None)
