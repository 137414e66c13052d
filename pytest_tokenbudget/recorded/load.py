"""From recorded generations to a study, without a model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pytest_tokenbudget.core.trace import Outcome, StopReason, Trace
from pytest_tokenbudget.models.thinking_formats import Formats
from pytest_tokenbudget.recorded.records import Recording, RecordingError, Runs, expected
from pytest_tokenbudget.recorded.study import RecordedStudy
from pytest_tokenbudget.recorded.traces import (
    UNKNOWN_ID,
    Count,
    Measured,
    measure,
    thinking_of,
)
from pytest_tokenbudget.tasks.base import AnswerVerdict, Task
from pytest_tokenbudget.tasks.numbers import parse_number
from pytest_tokenbudget.tasks.problem import Problem
from pytest_tokenbudget.tasks.ruled import ANSWER, NUMBER, GivenTask, Stretch, merge_stretches

SMALLEST_CUT = 32


class RecordedTask(GivenTask):
    """The problems of a recording, judged by number where all answers are, else by text.

    A scorer of the record, if one is named, gives the verdicts instead.
    """

    def __init__(self, recording: Recording, scorer: str = "") -> None:
        answers = (a for problem in recording.problems for a in _answers(problem))
        numbers = all(parse_number(answer) is not None for answer in answers)
        super().__init__(recording.task, NUMBER if numbers else ANSWER, recording.problems)
        self._scorer = scorer

    @property
    def extractor(self) -> str:
        return f"recorded {self._scorer}" if self._scorer else super().extractor

    def judge_text(self, problem: Problem, text: str, truncated: bool) -> AnswerVerdict:
        """Right where it is one of the expected answers."""
        verdicts = [self.rule.judge(answer, text, truncated) for answer in _answers(problem)]
        return next((verdict for verdict in verdicts if verdict.correct), verdicts[0])

    def verdict_changes(self, problem: Problem, text: str) -> Sequence[Stretch]:
        """Where the verdict by any of the expected answers can change."""
        return merge_stretches(
            each for a in _answers(problem) for each in self.rule.verdict_changes(a, text)
        )


def _answers(problem: Problem) -> list[str]:
    answers = problem.metadata.get("answers")
    return [str(answer) for answer in answers] if isinstance(answers, list) else [problem.answer]


def recorded_study(
    recording: Recording,
    *,
    budgets: Sequence[int] | None = None,
    task: Task | None = None,
    margin: float = 0.02,
    count: Count | None = None,
    tokenizer: str = "",
    formats: Formats | None = None,
) -> RecordedStudy:
    """Make a study of a recording.

    Args:
        recording: The recording.
        budgets: The budgets to judge at. None means the recorded ones; where there is only one
            and a tokenizer, also the powers of two below it from 32.
        task: Whose problems these are; its judge is used then. None judges by the recorded
            answers.
        margin: Loss of accuracy that saturation tolerates.
        count: Counts tokens; None where no tokenizer was given.
        tokenizer: What ``count`` is called in results.
        formats: The user's own thinking formats, beside those of this package.

    Raises:
        RecordingError: If tokens or truncation can be known in no way, a budget was not recorded
            and cannot be cut, the task has not the same problems, or nothing is left to judge.
    """
    thinking = thinking_of(recording, formats or {})
    traces = measure(recording, count, thinking)
    if None in traces:
        # The largest count is a budget that every text which ended by itself has kept.
        most = max((len(one.trace.output_ids) for one in traces[None]), default=0)
        measured = {max(most, 1): _by_key(traces[None])}
    else:
        measured = {b: _by_key(ones) for b, ones in traces.items() if b is not None}
    cuttable = count is not None and recording.runs is not Runs.INDEPENDENT
    name = (tokenizer or str(getattr(count, "name", "a tokenizer"))) if count else ""
    chosen, problems = _task(recording, task)
    scorer = _foreign_scorer(recording) if task is None else ""
    if scorer:
        chosen = RecordedTask(recording, scorer)
    study = RecordedStudy(
        alias=recording.alias,
        identity={**recording.identity, **({"tokenizer": name} if name else {})},
        task=chosen,
        problems=problems,
        traces={
            key: _reaching(one.trace, max(measured)) for key, one in measured[max(measured)].items()
        },
        samples=recording.samples,
        thinking=thinking,
        mode=recording.mode,
        budgets=_budgets(recording, tuple(sorted(measured)), budgets, cuttable),
        margin=margin,
        decoding=recording.decoding,
        kind=recording.kind,
        recording=recording,
        measured=measured,
        tokenizer=name,
        scorer=scorer,
        longest_is_cap=None in traces,
    )
    if recording.cliff is not None:
        study.cliff_series = recorded_study(
            replace(recording.cliff, alias=recording.alias),
            task=task,
            margin=margin,
            count=count,
            tokenizer=tokenizer,
            formats=formats,
        )
    if not scorer and task is None and (scorer := _judges_better(study)):
        study = replace(study, task=RecordedTask(recording, scorer), scorer=scorer)
    if not study.complete:
        raise RecordingError(
            f"{recording.alias} on {recording.task}: no problem has {study.samples} samples at "
            f"each of the budgets {', '.join(map(str, study.budgets))}; nothing can be compared"
        )
    return study


# Scorers that compare the text with the expected answer, as this suite does.
_COMPARING = re.compile(
    r"(exact|match|include|pattern|answer|choice|f1|recorded|strict|flexible|none|extract)", re.I
)


def _foreign_scorer(recording: Recording) -> str:
    """The record's scorer where all of its scorers run code or ask a model; empty otherwise."""
    names = {name for record in recording.all_records() for name in record.verdicts}
    if any(_COMPARING.search(name) and not _ASKS.search(name) for name in names):
        return ""
    return min(names, default="")


_ASKS = re.compile(r"model_graded|judge|llm", re.I)


def _judges_better(study: RecordedStudy) -> str:
    """A scorer of the record that calls whole answers right where this suite calls none right."""
    right: Counter[str] = Counter()
    for budget in set(study.budgets) & set(study.measured) if study.complete else ():
        for judged in study.judged(budget):
            if judged.correct:
                return ""
            if judged.outcome in (Outcome.WRONG, Outcome.NO_ANSWER):
                key = judged.problem.id, judged.cut.trace.sample
                verdicts = study.measured[budget][key].record.verdicts
                right.update(name for name, verdict in verdicts.items() if verdict)
    return max(right, key=lambda name: right[name]) if right else ""


def _reaching(trace: Trace, budget: int) -> Trace:
    """The trace; one that another limit cut before the budget gets tokens without text."""
    lacking = budget - len(trace.output_ids)
    if trace.stop_reason is not StopReason.LENGTH or lacking <= 0:
        return trace
    return replace(
        trace,
        cap=budget,
        output_ids=trace.output_ids + (UNKNOWN_ID,) * lacking,
        offsets=trace.offsets + (len(trace.text),) * lacking,
    )


def _by_key(ones: Sequence[Measured]) -> dict[tuple[str, int], Measured]:
    return {one.record.key: one for one in ones}


def _budgets(
    recording: Recording,
    recorded: tuple[int, ...],
    wanted: Sequence[int] | None,
    cuttable: bool,
) -> tuple[int, ...]:
    largest = recorded[-1]
    if wanted is None:
        if not cuttable or len(recorded) > 1:
            return tuple(budget for budget in recorded if budget not in recording.extra)
        ladder, budget = [largest], SMALLEST_CUT
        while budget < largest:
            ladder.append(budget)
            budget *= 2
        return tuple(sorted(ladder))
    for budget in wanted:
        if budget not in recorded and (not cuttable or not 1 <= budget <= largest):
            there = ", ".join(map(str, recorded))
            raise RecordingError(
                f"{recording.alias} on {recording.task}: budget {budget} was not recorded; there "
                f"{'is' if len(recorded) == 1 else 'are'} {there}{_why_no_cut(recording, cuttable)}"
            )
    return tuple(sorted(set(wanted)))


def _why_no_cut(recording: Recording, cuttable: bool) -> str:
    if cuttable:
        return ", and nothing beyond the largest can be cut"
    if recording.runs is Runs.INDEPENDENT:
        return "; they were generated independently, so no other budget can be cut from them"
    return "; with --tokenizer NAME|PATH smaller ones can be cut from the largest"


def _task(recording: Recording, task: Task | None) -> tuple[Task, tuple[Problem, ...]]:
    """The task, and the recorded problems as it knows them."""
    if task is None:
        return RecordedTask(recording), recording.problems
    # A generated task goes on beyond its size, any other gives what there is.
    theirs = task.problems(max(task.size, len(recording.problems)))
    by_id = {problem.id: problem for problem in theirs}
    by_question = {_plain(problem.question): problem for problem in theirs}
    found = []
    for problem in recording.problems:
        known = by_id.get(problem.id) or by_question.get(_plain(problem.question))
        if known is None:
            shown = " ".join(problem.question.split())[:60]
            raise RecordingError(
                f"task {task.name} has no problem with the id {problem.id!r} or the question "
                f"{shown!r}, which {recording.alias} has; leave --task out to judge by the "
                "recorded answers"
            )
        if not any(_same(known.answer, answer) for answer in _answers(problem)):
            raise RecordingError(
                f"problem {problem.id!r}: the answer is {known.answer!r} in task {task.name}, but "
                f"{problem.answer!r} in the recording of {recording.alias}"
            )
        # The record's id stays, since its traces are known by it.
        found.append(replace(known, id=problem.id))
    return task, tuple(found)


def _plain(question: str) -> str:
    return " ".join(question.split())


def _same(one: str, other: str) -> bool:
    numbers = parse_number(expected(one)), parse_number(other)
    if None in numbers:
        return _plain(expected(one)) == _plain(other)
    return numbers[0] == numbers[1]
