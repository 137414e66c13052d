"""Where gates can be judged: tests that ask for gates, and which gate applies to which of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tokenbudget import registry
from pytest_tokenbudget.collection.eval_fixtures import uses
from pytest_tokenbudget.common.messages import nearest
from pytest_tokenbudget.common.names import DISABLED, OFF
from pytest_tokenbudget.core.answers import matches
from pytest_tokenbudget.gates.table import CONFORMANCE, SATURATION, Gate

if TYPE_CHECKING:
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session

# Who asks for one of these looks at answers, and not at the saturation point only.
ANSWERS = {"budget", "cliff_budget", "study", "curve", "cuts", "traces"}


@dataclass(frozen=True)
class GateTarget:
    """A test that can judge gates, for one model.

    Attributes:
        test: Its node id.
        judged: What is judged there: a name of ``registry.judged``.
        evals: What the eval may be called: its file's name, and its markers.
        model: The model's name.
        source: What it is.
        task: The task's name.
        budget: The budget under test; None where the test has none.
        largest: Whether that is the largest one of the model.
        modes: What the mode may be called.
        by_mode: The mode whose budget is under test, if the budget is that of one.
        mode: The mode under test, empty where the test has none.
        answers: Whether it judges answers.
        saturation: Whether it judges the saturation point.
    """

    test: str
    judged: str
    evals: tuple[str, ...]
    model: str
    source: str
    task: str
    budget: int | None = None
    largest: bool = False
    modes: tuple[str, ...] = ()
    by_mode: tuple[str, ...] = ()
    mode: str = ""
    answers: bool = True
    saturation: bool = False


def target_of(item: pytest.Item, session: Session) -> GateTarget | None:
    """The target that a test is; None where it judges nothing."""
    from pytest_tokenbudget.collection.selection import gate_subject, mode_of, model_under_test

    spec, judged = model_under_test(item), gate_subject(item)
    if judged is None or spec is None:
        return None
    budget, modes, by_mode = _budget(item, session, spec, judged)
    task, recorded = recorded_as(session, spec)
    asked = set(item._fixtureinfo.argnames)  # type: ignore[attr-defined]
    saturation = "saturation" in asked and uses(item, "saturation")
    return GateTarget(
        test=item.nodeid,
        judged=judged.fixture,
        evals=evals_of(item),
        model=spec.alias,
        source=spec.source,
        task=task or session.task.name,
        budget=budget,
        largest=budget is not None and budget == _largest(session, spec, judged),
        modes=(recorded,) if recorded and modes else (*modes, *by_mode),
        by_mode=by_mode,
        mode=mode_of(item) or "",
        answers=not judged.metric and (not saturation or bool(asked & ANSWERS)),
        saturation=saturation,
    )


def recorded_as(session: Session, spec: ModelSpec) -> tuple[str, str]:
    """The task and the mode of what was recorded of a model; empty where nothing was.

    Raises:
        SetupError: If no study can be made of it.
    """
    if session.recordings is None:
        return "", ""
    study = session.recordings.any_study(spec)
    return study.task.name, study.mode


def evals_of(item: pytest.Item) -> tuple[str, ...]:
    """What a test's eval may be called."""
    found = [marker.name for marker in item.iter_markers() if marker.name in registry.markers()]
    return (item.path.stem.removeprefix("test_"), *dict.fromkeys(found))


def _budget(
    item: pytest.Item, session: Session, spec: ModelSpec, judged: registry.GateSubject
) -> tuple[int | None, tuple[str, ...], tuple[str, ...]]:
    from pytest_tokenbudget.collection.selection import mode_of

    params: dict[str, Any] = item.callspec.params  # type: ignore[attr-defined]
    asked = next(
        (params[name] for name in registry.judged_parameters(judged) if name in params), None
    )
    if judged.metric:
        return None, (), ()
    if judged.modes:
        named = (asked,) if isinstance(asked, str) else ()
        modes = (judged.mode, *judged.modes)
        return (asked if isinstance(asked, int) else None), modes, named
    # A value of another type is a parameter of somebody's own.
    budget = asked if isinstance(asked, int) else None
    mode = mode_of(item)
    thinks = session.settings_of(spec).thinking if mode is None else mode not in (OFF, DISABLED)
    switched = thinks and spec.thinking is not None
    always = spec.thinking is not None and spec.thinking.switch is None
    name = "thinking" if switched or always else "plain"
    return budget, (name,) if mode is None else (mode, name), ()


def _largest(session: Session, spec: ModelSpec, judged: registry.GateSubject) -> int | None:
    if judged.budgets is None:
        return None
    budgets = registry.load(judged.budgets)(session, spec)
    return max((b for b in budgets if isinstance(b, int)), default=None)


# Which gate applies where


def goes_with(gate: Gate, target: GateTarget) -> bool:
    """Whether all that a gate names goes with a target; its budget aside."""
    return not _elsewhere(gate, target)


def judges(gate: Gate, target: GateTarget) -> bool:
    """Whether the test at a target judges a gate, as far as can be known before it runs."""
    return goes_with(gate, target) and _measures(gate, target)


def applies(gate: Gate, target: GateTarget, budget: int, largest: int) -> bool:
    """Whether a gate on answers applies to those at a budget.

    Args:
        gate: The gate.
        target: Where it is judged.
        budget: The budget.
        largest: The largest one that the model's context has room for.
    """
    if gate.metric in (CONFORMANCE, SATURATION) or not goes_with(gate, target):
        return False
    if target.by_mode:
        # Its budget has a test of its own as well, where that is one of the budgets.
        asked = bool(set(gate.modes) & set(target.by_mode))
        return asked and (not gate.budgets or budget in gate.budgets)
    return gate.every or budget in (gate.budgets or (largest,))


def _elsewhere(gate: Gate, target: GateTarget) -> str:
    """The first of a gate's selectors that does not go with a target; empty if all do."""
    if gate.option and not registry.judged()[target.judged].by_option:
        return "eval"
    if gate.evals and not set(gate.evals) & set(target.evals):
        return "eval"
    if not matches(gate.models, (target.model, target.source)):
        return "model"
    if not matches(gate.tasks, (target.task,)):
        return "task"
    if gate.modes and not set(gate.modes) & set(target.modes):
        return "mode"
    return ""


def _measures(gate: Gate, target: GateTarget) -> bool:
    if gate.metric in (CONFORMANCE, SATURATION) or not target.answers:
        return _measures_at_all(gate, target)
    if target.by_mode:
        return bool(set(gate.modes) & set(target.by_mode))
    if target.budget is None:
        return True  # a test of one's own, which may ask for any budget
    return gate.every or (target.budget in gate.budgets if gate.budgets else target.largest)


def why_nowhere(gate: Gate, targets: Sequence[GateTarget], known: KnownNames) -> str:
    """Why no selected test judges a gate, with the nearest name of what there is."""
    models = [target.model for target in targets]
    sources = [target.source for target in targets]
    for selector, given, present, also, more in (
        ("eval", gate.evals, [n for t in targets for n in t.evals], [], known.evals),
        ("model", gate.models, models, sources, known.models),
        ("task", gate.tasks, [t.task for t in targets], [], known.tasks),
        ("mode", gate.modes, [n for t in targets for n in t.modes], [], known.modes),
    ):
        exact = selector in ("eval", "mode")
        meant = set(given) & set(present) if exact else matches(given, [*present, *also])
        if given and not meant:
            return _no_such(selector, given, present, more)
    return _not_measured(gate, [p for p in targets if goes_with(gate, p)])


@dataclass(frozen=True)
class KnownNames:
    """Names that gates may have, whether or not they are part of a run."""

    evals: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()


def misspelt(gate: Gate, targets: Sequence[GateTarget], known: KnownNames) -> bool:
    """Whether a gate names something that is in no run."""
    return not (
        set(gate.evals) <= {*known.evals, *(n for p in targets for n in p.evals)}
        and set(gate.modes) <= {*known.modes, *(n for p in targets for n in p.modes)}
        and all(
            matches([p], (*known.models, *(n for x in targets for n in (x.model, x.source))))
            for p in gate.models
        )
        and all(matches([p], (*known.tasks, *(x.task for x in targets))) for p in gate.tasks)
    )


def _no_such(
    selector: str, given: Sequence[str], present: Sequence[str], more: Sequence[str]
) -> str:
    there = list(dict.fromkeys(present))
    shown = ", ".join(there) or "none"
    close = nearest(given[0], list(dict.fromkeys([*there, *more])), count=1)
    hint = f"; did you mean {close[0]!r}?" if close and close[0] not in given else ""
    return f"no selected test is of {selector} {' or '.join(given)}; of this run: {shown}{hint}"


def _not_measured(gate: Gate, targets: Sequence[GateTarget]) -> str:
    if not any(_measures_at_all(gate, p) for p in targets):
        return f"no selected test judges it; {how_to_judge(gate.metric)}"
    budgets = sorted({p.budget for p in targets if p.budget is not None})
    if not gate.budgets:
        return "no selected test looks at the largest budget; there are " + _numbers(budgets)
    wanted = gate.budgets[0]
    near = min(budgets, key=lambda b: abs(b - wanted), default=None)
    hint = "" if near is None else f"; the nearest is {near:,}"
    return f"no selected test looks at {_numbers(gate.budgets)} tokens{hint}"


def how_to_judge(metric: str) -> str:
    """What to do so that a gate on a metric is judged."""
    marker = next((m for m, each in registry.judged_by_marker() if each.metric == metric), "phase1")
    call = "gates.check_saturation(saturation)" if metric == SATURATION else "gates.check(point)"
    if metric == CONFORMANCE:
        call = "gates.check(conformance.whole())"
    return f"call `{call}` in a test, or run `pytest --pyargs pytest_tokenbudget.evals -m {marker}`"


def _measures_at_all(gate: Gate, target: GateTarget) -> bool:
    if gate.metric == CONFORMANCE:
        return registry.judged()[target.judged].metric == gate.metric
    if gate.metric == SATURATION:
        return target.saturation
    return target.answers


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(f"{v:,}" for v in values) or "none"
