"""What is known about a study's errors: outcomes, suggestions, annotations, agreement."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pytest_tokenbudget.common.text_layout import plural
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.engines.planning import Kind
from pytest_tokenbudget.studies.errors.annotation_tables import (
    Annotation,
    AnnotationError,
    Annotations,
    read_annotations,
)
from pytest_tokenbudget.studies.errors.annotations import annotations_folder
from pytest_tokenbudget.studies.errors.statistics import (
    NOT_ANNOTATED,
    SOLVED,
    ErrorStep,
    Share,
    SourceAgreement,
    Unit,
    agreement,
    evolution,
    shares,
    step,
)
from pytest_tokenbudget.studies.errors.taxonomy import (
    Verdicts,
    errors_at,
    label,
    suggestion,
    trace_mark,
)

if TYPE_CHECKING:
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
from pytest_tokenbudget.studies.errors.taxonomy import ERROR_TYPES, RECOVERABLE, RULES

DEFAULT_SAMPLES = {128: 30, 256: 30, 512: 50, 1024: 50}
NO_SUGGESTION = "none"
SUGGESTED = ("arithmetic", "incomplete", "format", NO_SUGGESTION)

_Row = tuple[int, Unit]
"""A budget, and an answer of it."""


@dataclass(frozen=True)
class BudgetErrors:
    """The errors at one budget.

    Attributes:
        budget: The budget.
        answers: Answers that were judged; engine errors are none.
        errors: How many of them are not right.
        outcomes: What the errors are, by outcome.
        suggested: What the rules suggest for all errors: never an annotation.
        picked: Errors that are in the first annotator's table.
        annotated: How many of these have a type.
        types: Share of each type among the annotated; empty where nothing is annotated.
        recoverable: What the annotator says about recovery.
        measured: What longer cuts say about recovery, of all errors.
        controls: Right answers in the table.
        controls_with_type: How many of these the annotator gave a type all the same.
        of_other_texts: Annotated rows about texts that the study does not hold any more; they
            count nowhere.
    """

    budget: int
    answers: int
    errors: int
    outcomes: Mapping[str, int]
    suggested: Mapping[str, Share]
    picked: int
    annotated: int
    types: Mapping[str, Share]
    recoverable: Mapping[str, int]
    measured: Mapping[str, int]
    controls: int
    controls_with_type: int
    of_other_texts: int


@dataclass(frozen=True)
class Evolution:
    """How errors go from one budget to the next: rows before, columns after.

    Attributes:
        budget: The smaller budget.
        next: The larger one.
        annotated: By annotated type; errors without one are ``not annotated``.
        suggested: By suggested type, all answers.
    """

    budget: int
    next: int
    annotated: Mapping[str, Mapping[str, int]]
    suggested: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class ErrorReport:
    """The errors of one model, as far as they are known.

    Attributes:
        model: The model, as in the tables.
        rules: Version of the rules for suggestions.
        faults: What is wrong with the annotated tables; they then count as not annotated.
        annotators: Directories that were read, the first annotator's first.
        budgets: What there is at each budget.
        left_out: Budgets that the traces do not reach.
        steps: What became of errors from each budget to the next.
        evolution: The same by type.
        agreement: How far annotators, rules and measurement say the same.
    """

    model: str
    rules: str
    faults: tuple[str, ...]
    annotators: tuple[str, ...]
    budgets: tuple[BudgetErrors, ...]
    left_out: tuple[int, ...]
    steps: tuple[ErrorStep, ...]
    evolution: tuple[Evolution, ...]
    agreement: tuple[SourceAgreement, ...]

    @property
    def annotated(self) -> int:
        """Errors with an annotated type, over all budgets."""
        return sum(budget.annotated for budget in self.budgets)

    @property
    def picked(self) -> int:
        """Errors in the tables, over all budgets."""
        return sum(budget.picked for budget in self.budgets)

    def sentence(self) -> str:
        """How far annotation is."""
        if self.faults:
            return f"annotations cannot be used: {plural(len(self.faults), 'fault')}"
        if not self.picked:
            return "no error is laid out for annotation"
        if not self.annotated:
            return f"none of {plural(self.picked, 'picked error')} is annotated yet"
        rest = "" if self.annotated == self.picked else "; these are analysed"
        return f"{self.annotated:,} of {plural(self.picked, 'picked error')} annotated{rest}"


def attach_samples(session: Session, spec: ModelSpec, study: Study) -> None:
    """Let stored samples of phase 1b say whether another try would have been right."""
    study.sample_study = session.stored_study(spec, Kind.STOCHASTIC)


def errors_of(
    study: Study, folders: Sequence[Path], samples: Sequence[tuple[int, int]], directory: Path
) -> ErrorReport:
    """What is known about a study's errors; computed once for the arguments.

    Args:
        study: The study.
        folders: The annotators' directories; none means the task's below ``directory``.
        samples: How many errors are picked, by budget; none means the default.
        directory: The reports directory.
    """
    # Everything that could differ the next time is an argument, in a form that can be hashed.
    read = [Path(folder) for folder in folders] or [annotations_folder(directory, study.task.name)]
    budgets = dict(samples) or DEFAULT_SAMPLES
    return study.cached(analyse_errors, study, tuple(read), tuple(budgets), study.sample_study)


def analyse_errors(
    study: Study,
    annotations: Sequence[Path],
    budgets: Iterable[int] = tuple(DEFAULT_SAMPLES),
    others: Study | None = None,
) -> ErrorReport:
    """Bring together what is known about a study's errors.

    Args:
        study: The study.
        annotations: Directories with annotated tables; the shares are of the first, the others
            are compared with it.
        budgets: The budgets to look at.
        others: A study of the same task with further samples.

    Returns:
        The report. Tables that cannot be read do not raise: `ErrorReport.faults` names what is
        wrong, and the report holds what is known without them.
    """
    wanted = tuple(sorted(set(budgets)))
    usable = tuple(budget for budget in wanted if _reaches(study, budget))
    read: list[Annotations] = []
    faults: list[str] = []
    for directory in annotations:
        try:
            read.append(read_annotations(directory, label(study), usable))
        except AnnotationError as error:
            faults += error.problems
    if faults:
        read = []
    verdicts = Verdicts(study, others)
    views = [_View(study, budget, read, verdicts) for budget in usable]
    pairs = list(itertools.pairwise(views))
    return ErrorReport(
        model=label(study),
        rules=RULES,
        faults=tuple(faults),
        annotators=tuple(_names(annotations)),
        budgets=tuple(view.summary() for view in views),
        left_out=tuple(budget for budget in wanted if budget not in usable),
        steps=tuple(step((a.budget, b.budget), a.right, b.right, a.types()) for a, b in pairs),
        evolution=tuple(_evolution(a, b) for a, b in pairs),
        agreement=tuple(_agreements(views, _names(annotations) if read else [])),
    )


def _reaches(study: Study, budget: int) -> bool:
    try:
        return bool(study.judged(budget))
    except ValueError:
        return False


def _names(directories: Sequence[Path]) -> list[str]:
    names = [directory.name for directory in directories]
    if len(set(names)) == len(names):
        return names
    return [str(directory) for directory in directories]


class _View:
    """The errors at one budget, with what everybody says about them."""

    def __init__(
        self, study: Study, budget: int, read: Sequence[Annotations], verdicts: Verdicts
    ) -> None:
        self.budget = budget
        self.judged = {
            (j.problem.id, j.cut.trace.sample): j
            for j in study.judged(budget)
            if j.outcome is not Outcome.ERROR
        }
        self.right = {unit: j.correct for unit, j in self.judged.items()}
        self.wrong = {(j.problem.id, j.cut.trace.sample): j for j in errors_at(study, budget)}
        self.suggested = {
            unit: suggestion(j).type or NO_SUGGESTION for unit, j in self.wrong.items()
        }
        self.measured = {unit: verdicts.recovery(j).by_tokens for unit, j in self.wrong.items()}
        self.rows = [self._matching(one.by_budget.get(budget, {})) for one in read]
        self.of_other_texts = 0
        if read:
            rows = read[0].by_budget.get(budget, {}).values()
            filled = sum(a.type is not None for several in rows for a in several)
            self.of_other_texts = filled - sum(a.type is not None for a in self.rows[0].values())

    def _matching(self, rows: Mapping[Unit, tuple[Annotation, ...]]) -> dict[Unit, Annotation]:
        """For each answer the row that is about its text."""
        return {
            unit: annotation
            for unit, several in rows.items()
            for annotation in several
            if unit in self.judged
            and annotation.trace in ("", trace_mark(self.judged[unit].cut.text))
        }

    def types(self, annotator: int = 0) -> dict[Unit, str]:
        """Annotated types of errors."""
        rows = self.rows[annotator] if annotator < len(self.rows) else {}
        return {u: a.type for u, a in rows.items() if a.type is not None and u in self.wrong}

    def recoverable(self, annotator: int = 0) -> dict[Unit, str]:
        """What an annotator says about the recovery of errors."""
        rows = self.rows[annotator] if annotator < len(self.rows) else {}
        return {
            u: a.recoverable
            for u, a in rows.items()
            if a.recoverable is not None and u in self.wrong
        }

    def states(self) -> dict[Unit, str]:
        types = self.types()
        return {
            unit: SOLVED if right else types.get(unit, NOT_ANNOTATED)
            for unit, right in self.right.items()
        }

    def suggested_states(self) -> dict[Unit, str]:
        return {u: SOLVED if right else self.suggested[u] for u, right in self.right.items()}

    def summary(self) -> BudgetErrors:
        rows = self.rows[0] if self.rows else {}
        types = self.types()
        recoverable = Counter(self.recoverable().values())
        measured: Counter[str] = Counter(self.measured.values())
        return BudgetErrors(
            budget=self.budget,
            answers=len(self.judged),
            errors=len(self.wrong),
            outcomes=dict(sorted(Counter(j.outcome.value for j in self.wrong.values()).items())),
            suggested=shares(self.suggested, SUGGESTED),
            picked=sum(unit in self.wrong for unit in rows),
            annotated=len(types),
            types=shares(types, ERROR_TYPES) if types else {},
            recoverable={value: recoverable[value] for value in RECOVERABLE},
            measured={value: measured[value] for value in RECOVERABLE},
            controls=sum(unit not in self.wrong for unit in rows),
            controls_with_type=sum(
                a.type is not None for unit, a in rows.items() if unit not in self.wrong
            ),
            of_other_texts=self.of_other_texts,
        )


def _evolution(before: _View, after: _View) -> Evolution:
    return Evolution(
        before.budget,
        after.budget,
        evolution(before.states(), after.states(), (*ERROR_TYPES, NOT_ANNOTATED, SOLVED)),
        evolution(before.suggested_states(), after.suggested_states(), (*SUGGESTED, SOLVED)),
    )


def _agreements(views: Sequence[_View], names: Sequence[str]) -> list[SourceAgreement]:
    """Annotators with each other, and the first with rules and measurement."""

    def over(part: Mapping[int, Mapping[Unit, str]]) -> dict[Hashable, str]:
        return {
            (budget, unit): kind for budget, kinds in part.items() for unit, kind in kinds.items()
        }

    def compare(
        first: str, second: str, one: Mapping[Hashable, str], other: Mapping[Hashable, str]
    ) -> SourceAgreement:
        # One text is judged at several budgets and samples: the problem is the evidence.
        return agreement(
            (first, second), one, other, problem_of=lambda key: cast("_Row", key)[1][0]
        )

    types = [over({v.budget: v.types(at) for v in views}) for at in range(len(names))]
    recover = [over({v.budget: v.recoverable(at) for v in views}) for at in range(len(names))]
    found = []
    for a, b in itertools.combinations(range(len(names)), 2):
        found.append(compare(f"types by {names[a]}", f"by {names[b]}", types[a], types[b]))
        found.append(
            compare(f"recoverable by {names[a]}", f"by {names[b]}", recover[a], recover[b])
        )
    if names and types[0]:
        rules = over(
            {v.budget: {u: s for u, s in v.suggested.items() if s != NO_SUGGESTION} for v in views}
        )
        found.append(compare("suggested types", f"types by {names[0]}", rules, types[0]))
    if names and recover[0]:
        measured = over({v.budget: cast("dict[Unit, str]", v.measured) for v in views})
        found.append(
            compare("measured recovery", f"recoverable by {names[0]}", measured, recover[0])
        )
    return found
