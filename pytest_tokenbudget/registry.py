"""Evals: what each one declares, and the one list of them.

An eval is an object of :class:`Eval` that an entry point of the group ``pytest_tokenbudget.evals``
names. The evals of this package are registered in the same way. Markers, fixtures, parameters,
plans, sections of the report, the dry run and gates follow from what is declared here. The file is
long since all that an eval can declare stands in one place.

Every pytest session loads this module and the declarations, so both import little: what an eval
runs is named as ``"package.module:function"`` and imported when it is needed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import pytest

from pytest_tokenbudget.common.extensions import fault, imported, is_own, points
from pytest_tokenbudget.settings.option_fields import option_names
from pytest_tokenbudget.settings.options import Settings

if TYPE_CHECKING:
    from pytest_tokenbudget.core.study import Study
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session

# Markers that no eval declares.
OTHER_MARKERS: Final = {
    "gpu": "needs a GPU",
    "tokenbudget": "an eval that uses fixtures of pytest-tokenbudget",
}

# The state of a pytest session.
SESSION: Final[pytest.StashKey[Session]] = pytest.StashKey()

# A function, or where it is: ``"package.module:function"``.
Target = str | Callable[..., Any]


def load(target: Target) -> Callable[..., Any]:
    """The function that a target is or names."""
    if callable(target):
        return target
    function: Callable[..., Any] = imported(target)
    return function


@dataclass(frozen=True)
class Parameter:
    """A fixture whose values tests are run for, one by one.

    Attributes:
        values: ``(session, spec) -> sequence``: the values for a model.
        option: The option that sets them; empty if none does.
        budgets_of: Kinds of studies whose budgets, in output tokens, they are.
        parts_of: Kinds of studies of which they choose a part.
        judged: The fixture of the study that gates judge at these budgets; see
            :class:`GateSubject`.
    """

    values: Target
    option: str = ""
    budgets_of: tuple[str, ...] = ()
    parts_of: tuple[str, ...] = ()
    judged: str = ""


@dataclass(frozen=True)
class StudyKind:
    """A kind of study: traces that a fixture stands for.

    Attributes:
        kind: Its name; plans in the trace store carry it.
        fixture: The fixture that gives it.
        make: ``(session, spec) -> study``: generates what is missing first. None for a study
            whose budgets are cuts of its traces: ``session.study`` makes it.
        load: ``(session, spec, plan, plans) -> (study, tokens)``: from the store alone, with the
            tokens that this run generated for it. None as above.
        dry_run: ``(book) -> parts``: what would be generated. None as above.
        modes: Whether it follows the fixture ``mode``.
        recorded: Whether recorded generations can give it.
    """

    kind: str
    fixture: str
    make: Target | None = None
    load: Target | None = None
    dry_run: Target | None = None
    modes: bool = True
    recorded: bool = False


@dataclass(frozen=True)
class Section:
    """One part of the report.

    Attributes:
        fixture: It is reported where a test asked for this fixture; empty for always.
        kind: The kind of study, or of report from records, that it is made from.
        write: ``(study, run, directory) -> files``: writes its ``results`` and ``figures`` below
            the reports directory, each file whole or not at all. Problems whose traces are not all
            there are left out and counted.
        lines: ``(study, run, width) -> lines``: what it shows on the terminal, in at most
            ``width`` columns.
        name: What the manifest of the reports folder calls it; the fixture by default.
        prepare: ``(session, spec, study)``: gives the study what it does not know of itself.
        budgets: ``(study) -> budgets``: those that it covers, if not the study's own.
    """

    fixture: str
    kind: str
    write: Target
    lines: Target
    name: str = ""
    prepare: Target | None = None
    budgets: Target | None = None

    @property
    def title(self) -> str:
        return self.name or self.fixture


@dataclass(frozen=True)
class Records:
    """Reports that are put together from what tests recorded under ``key``, without a study.

    ``reports`` is ``(records) -> reports``: from all records of a run to reports, each of a model.
    """

    key: str
    reports: Target


@dataclass(frozen=True)
class ModelsTogether:
    """What is said about all models of a run together.

    Attributes:
        name: What the manifest of the reports folder calls it.
        kind: The kind of study, or of report from records, that it is made from.
        make: ``(studies) -> findings``, None if there is nothing to say.
        write: ``(findings, directory) -> files``.
        lines: ``(findings, width, verbose) -> lines``.
    """

    name: str
    kind: str
    make: Target
    write: Target
    lines: Target


@dataclass(frozen=True)
class GateSubject:
    """What gates judge in a test that asks for the fixture ``gates``.

    Attributes:
        fixture: Tests that use this fixture, directly or through others, are judged so.
        answers: ``(session, spec, study, mode) -> core.answers.AnswersByBudget``.
        parameters: Fixtures whose value is the budget or the mode under test.
        budgets: ``(session, spec) -> budgets``: those that it could have, known before the run.
        mode: The mode that all its answers have, for gates that name it; empty if that differs.
        modes: Further modes of answers that a gate may name, beside the one under test.
        former: The former name of ``gates`` in its tests.
        by_option: Whether gates that are options apply, such as ``--min-accuracy``.
        metric: The one metric of gates that judge a finding instead of answers.
        verdicts: ``(thresholds, finding) -> [(threshold, fault, evidence)]`` for that metric; the
            fault is empty if the threshold is kept.
    """

    fixture: str
    answers: Target | None = None
    parameters: tuple[str, ...] = ()
    budgets: Target | None = None
    mode: str = ""
    modes: tuple[str, ...] = ()
    former: str = ""
    by_option: bool = True
    metric: str = ""
    verdicts: Target | None = None


@dataclass(frozen=True)
class Eval:
    """What an eval declares.

    Attributes:
        name: Its name.
        order: Evals are run and reported in this order.
        marker: The marker of its tests, for ``-m``.
        meaning: What the marker means, for ``pytest --markers``.
        options: The dataclass that declares its options, with the help of
            ``settings.option_fields``; ``settings.of_eval`` gives it back filled. None if it has
            none of its own.
        fixtures: The module with its fixtures; empty if it has none.
        distinctive: Names of its fixtures that nobody asks for by accident: a test that does is an
            eval.
        parameters: Fixtures that its tests are run for, by name.
        studies: Kinds of studies that it generates itself.
        unplanned: Fixtures that generate without a study, each with ``(book) -> sentence`` for the
            dry run.
        reach: Fixtures whose tests need longer traces than their budgets say, each with
            ``(session, spec) -> tokens``.
        without_modes: Fixtures beside its studies that stay the same in every mode of thinking.
        sections: Its parts of the report.
        records: What is put together from its tests' records.
        across: What it says about several models.
        judged: What gates judge in its tests, if that is not the shared study.
        gated: Fixtures that must stay the plugin's own in a test that asks for ``gates``.
        page: A page of tests that is collected only ...
        collected: ... where ``(session) -> bool`` says so, or where it is named itself.
        modes: The module that knows modes of thinking; see :class:`Modes`.
        check: ``(session)``: checks its settings before anything is loaded; raises
            ``pytest.UsageError``.
    """

    name: str
    order: int
    marker: str = ""
    meaning: str = ""
    options: type | None = None
    fixtures: str = ""
    distinctive: tuple[str, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    studies: tuple[StudyKind, ...] = ()
    unplanned: Mapping[str, Target] = field(default_factory=dict)
    reach: Mapping[str, Target] = field(default_factory=dict)
    without_modes: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    records: Records | None = None
    across: ModelsTogether | None = None
    judged: GateSubject | None = None
    gated: tuple[str, ...] = ()
    page: str = ""
    collected: Target | None = None
    modes: str = ""
    check: Target | None = None


class Modes(Protocol):
    """What a module that knows modes of thinking offers."""

    def modes_under_test(self, settings: Settings) -> tuple[str, ...]:
        """The modes that a test runs for, if it asks for them."""

    def study_kind(self, name: str, spec: ModelSpec, settings: Settings) -> str | None:
        """The kind of study that holds a mode's answers; None if the model has none."""

    def mode_for(self, session: Session, spec: ModelSpec, name: str) -> object:
        """A mode as it applies to a model."""

    def study_in_mode(self, session: Session, spec: ModelSpec, mode: object) -> Study:
        """The study of a model in a mode: its missing traces are generated first."""


# What any eval may use. It is no eval, has no marker, and comes first.
SHARED: Final = Eval(
    name="",
    order=0,
    fixtures="pytest_tokenbudget.fixtures",
    distinctive=tuple("count_tokens curve gates llm record_metrics study tokenbudget".split()),
    parameters={
        "budget": Parameter(
            "pytest_tokenbudget.collection.selection:main_budgets",
            option="--budgets",
            budgets_of=("main", "switched", "thinking"),
        )
    },
    studies=(StudyKind(kind="main", fixture="study", recorded=True),),
    unplanned={"llm": "pytest_tokenbudget.dry_run.dry_run:llm_note"},
    judged=GateSubject(
        fixture="study",
        answers="pytest_tokenbudget.collection.selection:main_answers",
        parameters=("budget",),
        budgets="pytest_tokenbudget.collection.selection:main_budgets",
    ),
    gated=("study", "curve"),
)


@dataclass(frozen=True)
class Registered:
    """The evals that are registered.

    Attributes:
        evals: In their order.
        faults: A sentence for each entry point that cannot be used.
        homes: Folders of other packages that declare evals, by their names: pages lie in them.
    """

    evals: tuple[Eval, ...]
    faults: tuple[str, ...]
    homes: Mapping[str, Path]


@cache
def registered() -> Registered:
    """All evals, those of other packages among them. A broken one is left out, with a sentence."""
    found: dict[str, Eval] = {}
    faults: list[str] = []
    homes: dict[str, Path] = {}
    for point in points("evals"):
        try:
            one = point.load()
            reason = _unusable(one, (SHARED, *found.values()))
            if not reason and one.fixtures and not is_own(point):
                importlib.import_module(one.fixtures)
        except Exception as error:  # whatever a module of others raises when it is imported
            faults.append(fault("eval", point, error))
        else:
            if reason:
                faults.append(fault("eval", point, f"{point.value} {reason}"))
            else:
                found[one.name] = one
                if not is_own(point) and hasattr(sys.modules[point.module], "__path__"):
                    homes[point.module] = Path(sys.modules[point.module].__path__[0])
    ordered = sorted(found.values(), key=lambda e: (e.order, e.name))
    return Registered(tuple(ordered), tuple(faults), homes)


def _unusable(declared: object, known: Sequence[Eval]) -> str:
    """Why what an entry point names cannot be an eval beside others; empty if it can."""
    if not isinstance(declared, Eval):
        return "is no registry.Eval"
    if declared.name in {other.name for other in known}:
        return f"is the second eval of the name {declared.name!r}"
    if taken := {name for other in known for name in other.parameters} & set(declared.parameters):
        return f"declares the parameter {min(taken)!r}, which another eval has"
    kinds = {each.kind for other in known for each in other.studies}
    if taken := kinds & {each.kind for each in declared.studies}:
        return f"declares the kind of study {min(taken)!r}, which another eval has"
    if declared.options is not None:
        groups = (
            Settings,
            *(other.options for other in known if other.options is not None),
        )
        flags = {name for group in groups for name in option_names(group)}
        if taken := flags & option_names(declared.options):
            return f"declares the option {min(taken, key=len)}, which is there already"
    return ""


def declarations() -> tuple[Eval, ...]:
    """What is shared, and then every eval."""
    return (SHARED, *registered().evals)


def option_groups() -> tuple[type, ...]:
    """The dataclasses that declare options: the settings of all evals, then those of each."""
    return (Settings, *(one.options for one in registered().evals if one.options is not None))


@cache
def markers() -> dict[str, str]:
    """Every marker with its meaning, in the order of the evals."""
    found: dict[str, str] = {}
    for one in registered().evals:
        if one.marker:
            found.setdefault(one.marker, one.meaning)
    return {**found, **OTHER_MARKERS}


@cache
def eval_markers() -> frozenset[str]:
    """Markers that make a test an eval. Other projects mark tests as needing a GPU too."""
    return frozenset(markers()) - {"gpu"}


@cache
def distinctive() -> frozenset[str]:
    return frozenset(name for one in declarations() for name in one.distinctive)


@cache
def fixture_modules() -> tuple[str, ...]:
    return tuple(one.fixtures for one in declarations() if one.fixtures)


@cache
def parameters() -> dict[str, Parameter]:
    return {name: each for one in declarations() for name, each in one.parameters.items()}


@cache
def studies() -> dict[str, StudyKind]:
    return {each.kind: each for one in declarations() for each in one.studies}


@cache
def unplanned() -> dict[str, Target]:
    return {name: target for one in declarations() for name, target in one.unplanned.items()}


@cache
def sections() -> tuple[Section, ...]:
    return tuple(section for one in registered().evals for section in one.sections)


@cache
def gates_fixtures() -> tuple[str, ...]:
    """The fixture ``gates``, and its former names."""
    return ("gates", *(each.former for each in judged().values() if each.former))


@cache
def judged() -> dict[str, GateSubject]:
    """What gates can judge, by the fixture that tests use; what is shared comes first."""
    found = (one.judged for one in declarations() if one.judged is not None)
    return {each.fixture: each for each in found}


def judged_parameters(subject: GateSubject) -> tuple[str, ...]:
    """Fixtures whose value is the budget or the mode at which gates judge a study."""
    others = (name for name, each in parameters().items() if each.judged == subject.fixture)
    return (*subject.parameters, *others)


def judged_by_marker() -> Iterator[tuple[str, GateSubject]]:
    """What gates can judge, with the marker of the eval that declares it."""
    return ((one.marker, one.judged) for one in registered().evals if one.judged is not None)


def records() -> Iterator[Records]:
    return (one.records for one in registered().evals if one.records is not None)


def across() -> Iterator[ModelsTogether]:
    return (one.across for one in registered().evals if one.across is not None)


def modes() -> Modes | None:
    """The module that knows modes of thinking; None if no eval has one."""
    name = next((one.modes for one in registered().evals if one.modes), "")
    # A module with these functions is one.
    return cast("Modes", importlib.import_module(name)) if name else None
