"""Which tests run for which model and budget, in which order, and what they need."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pytest

from pytest_tokenbudget import registry
from pytest_tokenbudget.collection.eval_fixtures import is_own, used_fixtures, uses
from pytest_tokenbudget.common.package_files import suite
from pytest_tokenbudget.common.xdist import visible_gpus
from pytest_tokenbudget.core.answers import AnswersByBudget, study_answers
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.engines.planning import Kind, Need
from pytest_tokenbudget.models.resolution import ModelSpec
from pytest_tokenbudget.registry import SESSION
from pytest_tokenbudget.session import Session
from pytest_tokenbudget.settings.option_flags import working_names
from pytest_tokenbudget.settings.option_values import MODES
from pytest_tokenbudget.settings.options import Settings


def runs_no_test(config: pytest.Config) -> bool:
    """Whether this session only shows something: nothing is generated, judged or saved."""
    settings = config.stash[SESSION].settings
    only_shows = ("collectonly", "setuponly", "show_fixtures_per_test", "showfixtures")
    return (
        settings.dry_run
        or settings.list_gates
        or any(config.getoption(name, default=False) for name in only_shows)
    )


def skip_in_setup_only(fixture: pytest.FixtureDef[Any], config: pytest.Config) -> None:
    """Skip tests whose set-up would generate where ``--setup-only`` asks for set-ups alone.

    ``--setup-plan`` sets up nothing.
    """
    if not config.getoption("setuponly", default=False) or config.getoption("setupplan"):
        return
    if is_own(fixture) and "model" in fixture.argnames:
        pytest.skip("--setup-only generates nothing")


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Run tests once for each model, and for each budget, that they ask for.

    Only where ``model`` and the budgets mean this plugin's fixtures: other projects have fixtures
    and parameters of these names too.

    Raises:
        pytest.Collector.CollectError: If a name that was given means nothing.
    """
    if not _uses_own(metafunc, "model"):
        return
    try:
        _parametrize(metafunc)
        _follow_mode(metafunc)
    except pytest.UsageError as error:
        # What only a look at the data shows comes too late for a usage error.
        message = working_names(metafunc.config, str(error))
        raise pytest.Collector.CollectError(message) from None


def _parametrize(metafunc: pytest.Metafunc) -> None:
    session = metafunc.config.stash[SESSION]
    parameters = registry.parameters()
    names = [name for name in parameters if _uses_own(metafunc, name)]
    if not names:
        metafunc.parametrize(
            "model",
            session.specs,
            ids=[spec.alias for spec in session.specs],
            indirect=True,
            scope="session",
        )
        return
    rows: list[tuple[Any, ...]] = [
        (spec, *chosen)
        for spec in session.specs
        for chosen in product(
            *(registry.load(parameters[name].values)(session, spec) for name in names)
        )
    ]
    ids = ["-".join([row[0].alias, *map(str, row[1:])]) for row in rows]
    metafunc.parametrize(("model", *names), rows, ids=ids, indirect=True)


def _follow_mode(metafunc: pytest.Metafunc) -> None:
    """Let the study of a test, and all that is built on it, be that of the mode under test.

    Raises:
        pytest.UsageError: If a marker names no mode, or the test asks for what has no modes.
    """
    definition = metafunc.definition
    calls: list[Any] = [call for call in metafunc._calls if "mode" in call.params]
    modes = registry.modes()
    if not calls or modes is None:
        return
    study = _uses_own(metafunc, "study") or gate_subject(definition) == registry.judged()["study"]
    if not uses(definition, "mode"):
        if study and any(call.params["mode"] in MODES for call in calls):
            raise pytest.UsageError(
                f"{definition.nodeid}: @pytest.mark.parametrize('mode', ...) needs indirect=True: "
                "without it 'study' and what is built on it stay the same in every mode"
            )
        return
    # What exists once, with the thinking that --thinking chooses.
    without_modes = [each.fixture for each in registry.studies().values() if not each.modes]
    without_modes += [name for one in registry.declarations() for name in one.without_modes]
    if same := [name for name in without_modes if uses(definition, name)]:
        raise pytest.UsageError(
            f"{definition.nodeid}: {same[0]!r} is the same in every mode, because --thinking "
            "decides whether its answers think: ask for 'mode' in another test"
        )
    session = metafunc.config.stash[SESSION]
    for call in calls:
        own = modes.modes_under_test(session.settings_of(call.params["model"]))
        allowed = [*MODES, *(name for name in own if name not in MODES)]
        if call.params["mode"] not in (NO_THINKING, *allowed):
            raise pytest.UsageError(
                f"{definition.nodeid}: there is no mode {call.params['mode']!r}; allowed: "
                f"{', '.join(allowed)}"
            )
        if study:
            # pytest has no public way to let one parameter follow another.
            call.params["study"] = call.params["mode"]
            call.indices["study"] = call.indices["mode"]
            call._arg2scope["study"] = call._arg2scope["mode"]


def main_budgets(session: Session, spec: ModelSpec) -> tuple[int, ...]:
    """Budgets in output tokens that tests run for."""
    return session.budgets(spec, Kind.MAIN)


def sample_budgets(session: Session, spec: ModelSpec) -> tuple[int, ...]:
    """Budgets that tests of several samples a problem run for."""
    return session.budgets(spec, Kind.STOCHASTIC)


# One test that says why it is skipped, not one for each budget or mode.
NO_THINKING = "no thinking"


def _uses_own(metafunc: pytest.Metafunc, name: str) -> bool:
    # pytest has no public way to ask what is parametrised already.
    return uses(metafunc.definition, name) and not any(
        name in call.params for call in metafunc._calls
    )


def order_suite(
    items: list[pytest.Item], collected: Sequence[pytest.Item], markers: Sequence[str]
) -> None:
    """Put the shipped evals into order: model by model, and the phases of each as they follow.

    Models need not be loaded twice then, and later phases can look at what earlier ones generated.
    All other tests stay in their places. ``collected`` are all tests as they were collected,
    ``items`` those that are left, and ``markers`` stand in the order of the phases.
    """
    places = [place for place, item in enumerate(items) if item.path.parent == suite()]
    if not places:
        return
    before = {item: place for place, item in enumerate(collected)}
    models: dict[object, int] = {}
    for item in collected:
        models.setdefault(model_under_test(item), len(models))

    def key(item: pytest.Item) -> tuple[int, int, int]:
        phases = [n for n, name in enumerate(markers) if item.get_closest_marker(name)]
        return models[model_under_test(item)], min(phases, default=len(markers)), before[item]

    for place, item in zip(places, sorted((items[p] for p in places), key=key), strict=True):
        items[place] = item


def skip_without_gpu(items: Sequence[pytest.Item], meaning: str) -> None:
    """Skip tests with the marker ``gpu`` where the run has no GPU.

    A project that registers a marker of this name itself keeps its own meaning: ``meaning`` is how
    this plugin registers it.
    """
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    config = marked[0].config
    registered = [line for line in config.getini("markers") if re.match(r"gpu\b", line)]
    if any(line != f"gpu: {meaning}" for line in registered):
        return
    if reason := no_gpu(config.stash[SESSION].settings):
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=f"needs a GPU: {reason}"))


def no_gpu(settings: Settings) -> str:
    """Why models of this run are on no GPU; empty where they are on one."""
    if settings.device == "cpu":
        return "--device is cpu"
    if settings.device == "mps" or visible_gpus():
        return ""
    return "no CUDA device is visible"


def note_needs(session: Session, items: list[pytest.Item]) -> None:
    """Learn from the selected tests which fixtures, budgets and parts of studies they need."""
    for item in items:
        used = used_fixtures(item)
        session.fixtures_in_use.update(used)
        params: dict[str, Any] = dict(item.callspec.params) if hasattr(item, "callspec") else {}
        for name in registry.parameters().keys() & params.keys() & set(used):
            session.values_in_use.setdefault(name, set()).add(params[name])
        spec = model_of(item)
        if spec is not None:
            for kind in kinds_of(item):
                _note_need(session, spec, kind, item, params)


def _note_need(
    session: Session, spec: ModelSpec, kind: Kind, item: pytest.Item, params: Mapping[str, Any]
) -> None:
    need = session.needs.setdefault((spec.alias, kind), Need())
    for name, parameter in registry.parameters().items():
        if kind in parameter.parts_of:
            named = params.get(name)
            parts = [named] if named else registry.load(parameter.values)(session, spec)
            need.parts.setdefault(name, set()).update(parts)
        if kind in parameter.budgets_of:
            asked = params.get(name)
            if isinstance(asked, int):
                need.budgets.add(asked)
            else:
                need.all_budgets = True
    if kind in registry.parameters()["budget"].budgets_of:
        for one in registry.declarations():
            for name, target in one.reach.items():
                if uses(item, name):
                    need.reach = max(need.reach, registry.load(target)(session, spec))


def kinds_of(item: pytest.Item) -> list[Kind]:
    """The kinds of studies that a test needs.

    Which one a mode needs depends on how the model thinks. Until that is looked up, these are all
    that it could be.
    """
    needed_by_gates = gate_subject(item)
    kinds = [
        Kind(kind)
        for kind, one in registry.studies().items()
        if uses(item, one.fixture)
        or (needed_by_gates is not None and needed_by_gates.fixture == one.fixture)
    ]
    mode, spec, modes = mode_of(item), model_under_test(item), registry.modes()
    if mode is None or spec is None or Kind.MAIN not in kinds or modes is None:
        return kinds
    kinds.remove(Kind.MAIN)
    session = item.config.stash[SESSION]
    known = session.known_spec(spec)
    if known is None and spec.thinking is None and spec.detect:
        return [*dict.fromkeys((*kinds, Kind.MAIN, Kind.SWITCHED, Kind.THINKING))]
    needed = modes.study_kind(mode, known or spec, session.settings_of(spec))
    return [*kinds, *([Kind(needed)] if needed is not None and needed not in kinds else [])]


def gate_subject(item: pytest.Item) -> registry.GateSubject | None:
    """What gates judge in a test; None if it asks for no gates.

    A test that asks for ``gates`` and for no study is judged by the study that evals share.
    """
    if not any(uses(item, name) for name in registry.gates_fixtures()):
        return None
    known = registry.judged()
    former = (each for each in known.values() if each.former and uses(item, each.former))
    asked = next(former, None) or next((o for name, o in known.items() if uses(item, name)), None)
    return asked or next(iter(known.values()))


def mode_of(item: pytest.Item) -> str | None:
    callspec = getattr(item, "callspec", None)
    if callspec is None or not uses(item, "mode"):
        return None
    mode = callspec.params.get("mode")
    return mode if isinstance(mode, str) else None


def model_of(item: pytest.Item) -> ModelSpec | None:
    """The model whose studies a test needs, if it needs one."""
    return model_under_test(item) if kinds_of(item) else None


def model_under_test(item: pytest.Item) -> ModelSpec | None:
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return None

    spec = callspec.params.get("model")
    return spec if isinstance(spec, ModelSpec) else None


def main_answers(session: Session, spec: ModelSpec, study: Study, mode: object) -> AnswersByBudget:
    """The answers of the study that most evals share."""
    return cut_answers(session, spec, study, Kind.MAIN)


def sample_answers(
    session: Session, spec: ModelSpec, study: Study, mode: object
) -> AnswersByBudget:
    return cut_answers(session, spec, study, Kind.STOCHASTIC)


def cut_answers(session: Session, spec: ModelSpec, study: Study, kind: Kind) -> AnswersByBudget:
    """The answers of a study, with the largest budget that the model has room for."""
    usable = [b for b in session.budgets(spec, kind) if b not in study.left_out]
    return AnswersByBudget(max(usable, default=study.largest), {"": study_answers(study)})
