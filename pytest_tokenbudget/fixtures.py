"""What an eval may ask for.

Every pytest session loads this module: imports stand in the fixtures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tokenbudget import registry
from pytest_tokenbudget.collection.fixture_helpers import (
    fitting_budget,
    made_or_fail,
    mode_under_test,
)
from pytest_tokenbudget.common.names import RECORDS
from pytest_tokenbudget.pytest_session.activation import activate

if TYPE_CHECKING:
    from pytest_tokenbudget.core.curve import Curve
    from pytest_tokenbudget.core.scoring import JudgedCut
    from pytest_tokenbudget.core.study import Study
    from pytest_tokenbudget.core.trace import Trace
    from pytest_tokenbudget.engines.token_counter import TokenCounter
    from pytest_tokenbudget.gates import Gates, VerdictGates
    from pytest_tokenbudget.llm.language_model import LanguageModel
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
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
def study(
    request: pytest.FixtureRequest, tokenbudget: Session, model: ModelSpec, task: Task
) -> Study:
    """Problems, traces, judged cuts and curve of the model on the task.

    Missing traces are generated first, together with every other worker that needs them. In a test
    that asks for ``mode`` too, it holds the answers in that mode.
    """
    if (name := getattr(request, "param", None)) is not None:
        modes = registry.modes()
        assert modes is not None  # nothing else gives this fixture a parameter
        chosen = mode_under_test(tokenbudget, model, name)
        return made_or_fail(lambda: modes.study_in_mode(tokenbudget, model, chosen))
    return made_or_fail(lambda: tokenbudget.study(model))


@pytest.fixture(scope="session")
def traces(study: Study) -> Mapping[tuple[str, int], Trace]:
    """Every trace of the model on the task, by problem id and sample."""
    return study.traces


@pytest.fixture(scope="session")
def cuts(study: Study) -> Callable[[int], tuple[JudgedCut, ...]]:
    """A function from a budget to the judged cuts of all traces at that budget."""
    return study.judged


@pytest.fixture(scope="session")
def curve(study: Study) -> Curve:
    """Accuracy, truncation and tokens used at every budget."""
    return study.curve


@pytest.fixture
def budget(request: pytest.FixtureRequest, study: Study) -> int:
    """The budget under test, in output tokens; one run of the test for each of ``--budgets``."""
    return fitting_budget(request.param, study)


@pytest.fixture(scope="session")
def llm(tokenbudget: Session, model: ModelSpec) -> LanguageModel:
    """The model under test, to generate with: ``llm.generate(prompt, max_new_tokens=256).answer``.

    It is loaded on first use, and its answers are stored: the same call again generates nothing.
    Recorded generations cannot answer new prompts: its tests are skipped under ``--recorded``.
    """
    if tokenbudget.recordings is not None:
        pytest.skip(
            "--recorded: recorded generations cannot answer new prompts; leave --recorded out and "
            "name the model with --model"
        )
    from pytest_tokenbudget.llm.language_model import LanguageModel

    return LanguageModel(tokenbudget, model)


@pytest.fixture(scope="session")
def count_tokens(tokenbudget: Session, model: ModelSpec) -> Iterator[TokenCounter]:
    """A function from chat messages to the tokens of their prompt, exact before it is sent.

    Special tokens and the generation prompt are counted, and thinking is as ``--thinking`` says.
    Its tests are skipped where nothing can count.
    """
    __tracebackhide__ = True
    from pytest_tokenbudget.core.engine import EngineError
    from pytest_tokenbudget.core.store import StoreError
    from pytest_tokenbudget.engines.token_counter import NoTokenizerError
    from pytest_tokenbudget.models.resolution import ModelError

    try:
        counter = tokenbudget.counter(model)
    except NoTokenizerError as error:
        pytest.skip(str(error))
    except (EngineError, ModelError, StoreError) as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    with counter:
        yield counter


@pytest.fixture
def gates(
    request: pytest.FixtureRequest, tokenbudget: Session, model: ModelSpec
) -> Gates | VerdictGates:
    """The run's gates, as they apply to what the test's eval measures.

    Those of a test without a study of its own apply to the answers of ``study``.
    """
    from pytest_tokenbudget.gates.judging import gates_of_test

    return gates_of_test(request, tokenbudget, model)


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
