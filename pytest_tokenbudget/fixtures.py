"""What an eval may ask for.

Every pytest session loads this module: imports stand in the fixtures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from pytest_tokenbudget.common.names import RECORDS
from pytest_tokenbudget.pytest_session.activation import activate

if TYPE_CHECKING:
    from pytest_tokenbudget.baselines.checks import BaselineGates
    from pytest_tokenbudget.baselines.comparison import Comparison
    from pytest_tokenbudget.core.curve import Curve
    from pytest_tokenbudget.core.saturation import Saturation
    from pytest_tokenbudget.core.scoring import Judged
    from pytest_tokenbudget.core.study import Study
    from pytest_tokenbudget.core.trace import Trace
    from pytest_tokenbudget.gates import Gates
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.studies.allocation.analysis import AllocationReport
    from pytest_tokenbudget.studies.cliff.report import CliffStudy
    from pytest_tokenbudget.studies.errors.analysis import ErrorReport
    from pytest_tokenbudget.studies.errors.annotations import Prepared
    from pytest_tokenbudget.studies.scenarios.analysis import ScenarioReport
    from pytest_tokenbudget.studies.stochastic.analysis import Stochastic
    from pytest_tokenbudget.studies.structure.report import StructureStudy
    from pytest_tokenbudget.studies.thinking.analysis import ThinkingReport
    from pytest_tokenbudget.studies.thinking.modes import ThinkingMode
    from pytest_tokenbudget.studies.thinking.study import ThinkingStudy
    from pytest_tokenbudget.tasks.base import Task


@pytest.fixture(scope="session")
def tokenbudget(pytestconfig: pytest.Config) -> Session:
    """The state of this session: settings, store, models."""
    return activate(pytestconfig)


@pytest.fixture(scope="session")
def model(request: pytest.FixtureRequest) -> ModelSpec:
    """The model under test; one run of the test for each ``--model``."""
    from pytest_tokenbudget.models.resolution import ModelSpec

    specs = activate(request.config).specs
    # Tests that pytest cannot parametrise, such as methods of unittest classes, have no param.
    spec = getattr(request, "param", specs[0] if len(specs) == 1 else None)
    if isinstance(spec, ModelSpec):
        return spec
    if spec is None:
        what = f"there are {len(specs)} models, and this test cannot run once for each of them"
        way = "let a test function ask for 'model' among its arguments, or name one model"
    else:
        what, way = f"{spec!r} cannot be given to the fixture 'model'", "name it with --model"
    raise pytest.fail.Exception(f"{what}; {way}", pytrace=False)


@pytest.fixture(scope="session")
def task(request: pytest.FixtureRequest, tokenbudget: Session) -> Task:
    """The task that ``--task`` names."""
    # Studies ask for it too, so that one that a project put in its place is noticed.
    if hasattr(request, "param"):
        what = f"{request.param!r} cannot be given to the fixture 'task'"
        raise pytest.fail.Exception(f"{what}; name it with --task", pytrace=False)
    return tokenbudget.task


@pytest.fixture(scope="session")
def mode(
    request: pytest.FixtureRequest, tokenbudget: Session, model: ModelSpec, task: Task
) -> ThinkingMode:
    """The mode under test: its name, switch and thinking budget; one run for each of ``--modes``.

    ``study`` and all that is built on it are then the answers in that mode. Modes that the model
    does not have are skipped.
    """
    __tracebackhide__ = True
    return _mode(tokenbudget, model, getattr(request, "param", None))


def _mode(session: Session, spec: ModelSpec, name: str | None) -> ThinkingMode:
    from pytest_tokenbudget.engines.planning import SetupError
    from pytest_tokenbudget.studies.thinking.modes import mode_for
    from pytest_tokenbudget.studies.thinking.plan import NoThinkingError

    if not isinstance(name, str):
        raise pytest.fail.Exception(
            f"the fixture 'mode' cannot be given {name!r}: name modes with --modes, and let a "
            "test function ask for 'mode' among its arguments",
            pytrace=False,
        )
    try:
        return mode_for(session, spec, name)
    except NoThinkingError as error:
        pytest.skip(str(error))
    except SetupError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture(scope="session")
def study(
    request: pytest.FixtureRequest, tokenbudget: Session, model: ModelSpec, task: Task
) -> Study:
    """Problems, traces, judged cuts and curve of the model on the task.

    Missing traces are generated first, together with every other worker that needs them. In a test
    that asks for ``mode`` too, it holds the answers in that mode.
    """
    __tracebackhide__ = True
    if (name := getattr(request, "param", None)) is not None:
        from pytest_tokenbudget.studies.thinking.modes import study_in_mode

        chosen = _mode(tokenbudget, model, name)
        return _made(lambda: study_in_mode(tokenbudget, model, chosen))
    return _study(tokenbudget, model, "main")


@pytest.fixture(scope="session")
def stochastic_study(tokenbudget: Session, model: ModelSpec, task: Task) -> Study:
    """The same with several samples a problem: ``--samples`` at ``--sample-budgets``."""
    __tracebackhide__ = True
    return _study(tokenbudget, model, "stochastic")


def _study(session: Session, spec: ModelSpec, kind: str) -> Study:
    # Not hidden: pytest would speak of hidden entries where it has none to show.
    from pytest_tokenbudget.engines.planning import Kind

    return _made(lambda: session.study(spec, Kind(kind)))


def _made(make: Callable[[], Study]) -> Study:
    from pytest_tokenbudget.engines.planning import SetupError

    try:
        return make()
    except SetupError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture(scope="session")
def traces(study: Study) -> Mapping[tuple[str, int], Trace]:
    """Every trace of the model on the task, by problem id and sample."""
    return study.traces


@pytest.fixture(scope="session")
def cuts(study: Study) -> Callable[[int], tuple[Judged, ...]]:
    """A function from a budget to the judged cuts of all traces at that budget."""
    return study.judged


@pytest.fixture(scope="session")
def curve(study: Study) -> Curve:
    """Accuracy, truncation and tokens used at every budget."""
    return study.curve


@pytest.fixture(scope="session")
def saturation(study: Study) -> Saturation:
    """The smallest budget that is not worse than the largest, with its evidence."""
    return study.saturation


@pytest.fixture(scope="session")
def compared(tokenbudget: Session, study: Study) -> Comparison:
    """The study against the stored run that ``--tokenbudget-compare`` names.

    Its tests are skipped where nothing is named, and fail where the two cannot be compared.
    """
    __tracebackhide__ = True
    from pytest_tokenbudget.baselines.run import BaselineError
    from pytest_tokenbudget.baselines.study_comparison import comparison_of

    if tokenbudget.baseline is None:
        pytest.skip("no --tokenbudget-compare was given")
    try:
        return comparison_of(study, tokenbudget.baseline)
    except BaselineError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture(scope="session")
def baseline_gates(tokenbudget: Session, study: Study, compared: Comparison) -> BaselineGates:
    """What ``--tokenbudget-compare-fail`` tolerates."""
    from pytest_tokenbudget.baselines.study_comparison import gates_of

    return gates_of(tokenbudget, study)


@pytest.fixture(scope="session")
def stochastic(stochastic_study: Study) -> Stochastic:
    """What several samples a problem say at the budgets of phase 1b."""
    from pytest_tokenbudget.studies.stochastic.report import analyse_stochastic

    return analyse_stochastic(stochastic_study)


@pytest.fixture(scope="session")
def prepared(tokenbudget: Session, model: ModelSpec, study: Study) -> Prepared:
    """The tables for annotators: errors and right answers picked at each budget.

    Samples of phase 1b that are there already say whether another try would have been right.
    """
    __tracebackhide__ = True
    from pytest_tokenbudget.engines.planning import Kind
    from pytest_tokenbudget.studies.errors.annotation_file import AnnotationError
    from pytest_tokenbudget.studies.errors.annotations import annotations_folder, prepare

    study.others = tokenbudget.stored(model, Kind.STOCHASTIC)
    settings = tokenbudget.settings
    try:
        return prepare(
            study,
            annotations_folder(settings.reports, study.task.name),
            dict(settings.error_samples),
            settings.controls,
            seed=settings.seed,
            others=study.others,
        )
    except AnnotationError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture(scope="session")
def errors(tokenbudget: Session, study: Study, prepared: Prepared) -> ErrorReport:
    """The errors that were picked for annotation, and what annotators said about them."""
    from pytest_tokenbudget.studies.errors.report import errors_of

    settings = tokenbudget.settings
    return errors_of(study, settings.annotations, settings.error_samples, settings.reports)


@pytest.fixture(scope="session")
def cliff(study: Study) -> CliffStudy:
    """Where accuracy rises most steeply, with its evidence."""
    from pytest_tokenbudget.studies.cliff.report import analyse_cliff

    return analyse_cliff(study)


@pytest.fixture(scope="session")
def structure(study: Study) -> StructureStudy:
    """What solutions consist of, and which parts fit within each budget."""
    from pytest_tokenbudget.studies.structure.report import analyse_structure

    return analyse_structure(study)


@pytest.fixture(scope="session")
def scenarios(tokenbudget: Session, study: Study) -> ScenarioReport:
    """Answers, tokens needed and limits by game, framing and category.

    Tests of tasks whose problems are all of one kind are skipped.
    """
    from pytest_tokenbudget.studies.scenarios.analysis import NoScenariosError, analyse_scenarios

    settings = tokenbudget.settings
    try:
        return analyse_scenarios(study, settings.target_truncation, settings.generation_config)
    except NoScenariosError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def thinking_study(tokenbudget: Session, model: ModelSpec, task: Task) -> ThinkingStudy:
    """What the model does with its thinking: cut, ended by force, left alone, switched off.

    Tests of models that are not known to think are skipped.
    """
    __tracebackhide__ = True
    from pytest_tokenbudget.engines.planning import SetupError
    from pytest_tokenbudget.studies.thinking.plan import NoThinkingError

    try:
        return tokenbudget.thinking(model)
    except NoThinkingError as error:
        pytest.skip(str(error))
    except SetupError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture(scope="session")
def thinking(thinking_study: ThinkingStudy) -> ThinkingReport:
    """What that amounts to: points, where answers settle, recommended limits."""
    from pytest_tokenbudget.studies.thinking.analysis import analyse_thinking

    return analyse_thinking(thinking_study)


@pytest.fixture(scope="session")
def allocation(model: ModelSpec, thinking_study: ThinkingStudy) -> AllocationReport:
    """Which thinking budget the model gets in each mode, and ways to allocate that are better."""
    from pytest_tokenbudget.studies.allocation.analysis import analyse_allocation, attach_model

    attach_model(thinking_study, model)
    return analyse_allocation(thinking_study)


@pytest.fixture
def thinking_budget(request: pytest.FixtureRequest, thinking_study: ThinkingStudy) -> int:
    """The thinking budget under test; one run of the test for each of ``--thinking-budgets``."""
    asked: int = request.param
    if asked not in thinking_study.budgets:
        pytest.skip(
            f"thinking budget {asked:,} is left out: {thinking_study.alias}'s context has no room "
            f"for it and an answer of {thinking_study.forcing.answer_tokens:,} tokens"
        )
    return asked


@pytest.fixture
def thinking_gates(
    request: pytest.FixtureRequest, model: ModelSpec, thinking_study: ThinkingStudy
) -> Gates:
    """The run's gates as they apply to forced answers, or to those of the mode under test."""
    from pytest_tokenbudget.gates import Gates, judging

    gates, place, kept = judging.of(request, model)
    mode = request.getfixturevalue("mode") if place.mode else None
    sources = judging.thinking_answers(thinking_study, mode)
    return Gates(gates, place, kept, thinking_study.budgets[-1], sources)


@pytest.fixture
def budget(request: pytest.FixtureRequest, study: Study) -> int:
    """The budget under test, in output tokens; one run of the test for each of ``--budgets``."""
    return _fitting(request.param, study)


@pytest.fixture
def sample_budget(request: pytest.FixtureRequest, stochastic_study: Study) -> int:
    """The budget under test; one run of the test for each of ``--sample-budgets``."""
    return _fitting(request.param, stochastic_study)


@pytest.fixture
def cliff_budget(request: pytest.FixtureRequest, study: Study) -> int:
    """The budget under test; one run of the test for each of ``--cliff-budgets``."""
    value: int = request.param
    if value > study.cliff_study.reach:
        _left_out(value, study)
    return value


def _fitting(budget: int, study: Study) -> int:
    if budget in study.left_out:
        _left_out(budget, study)
    return budget


def _left_out(budget: int, study: Study) -> NoReturn:
    pytest.skip(f"budget {budget:,} is left out: {study.alias}'s context has no room for it")


@pytest.fixture
def gates(
    request: pytest.FixtureRequest, tokenbudget: Session, model: ModelSpec, study: Study
) -> Gates:
    """The run's gates, as they apply to answers of phase 1."""
    return _gates(request, tokenbudget, model, study, "main")


@pytest.fixture
def stochastic_gates(
    request: pytest.FixtureRequest,
    tokenbudget: Session,
    model: ModelSpec,
    stochastic_study: Study,
) -> Gates:
    """The same for several samples a problem."""
    return _gates(request, tokenbudget, model, stochastic_study, "stochastic")


def _gates(
    request: pytest.FixtureRequest, session: Session, spec: ModelSpec, study: Study, kind: str
) -> Gates:
    from pytest_tokenbudget.engines.planning import Kind
    from pytest_tokenbudget.gates import Gates, judging

    usable = [b for b in session.budgets(spec, Kind(kind)) if b not in study.left_out]
    largest = max(usable, default=study.largest)
    gates, place, kept = judging.of(request, spec)
    return Gates(gates, place, kept, largest, {"": judging.main_answers(study)})


@pytest.fixture
def record_metrics(request: pytest.FixtureRequest) -> Callable[..., None]:
    """A function that keeps what a test measured for the reports.

    It takes a dataclass (a point of the curve, a saturation) or a mapping, and further values by
    keyword. Plain numbers also become properties of the test, which ``--junitxml`` writes where
    ``junit_family`` is ``xunit1``.
    """
    from pytest_tokenbudget.report.files import to_record

    config = request.config
    activate(config)
    # pytest writes them in xunit2 too, where the schema does not allow them, and warns.
    in_schema = not config.getoption("xmlpath", None) or config.getini("junit_family") != "xunit2"
    properties = request.node.user_properties if in_schema else []

    def record(metrics: object = None, /, **further: object) -> None:
        values: dict[str, Any] = {}
        for part in (metrics, further):
            values.update({} if part is None else to_record(part, "record_metrics"))
        request.node.stash.setdefault(RECORDS, []).append(values)
        for name, value in values.items():
            if isinstance(value, dict) and isinstance(value.get("value"), int | float):
                properties.append((name, value["value"]))
            elif isinstance(value, int | float | str):
                properties.append((name, value))

    return record
