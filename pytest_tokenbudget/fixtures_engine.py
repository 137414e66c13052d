"""What evals about contexts, tokenizers and engines may ask for.

Every pytest session loads this module: imports stand in the fixtures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_tokenbudget.engines.token_counter import TokenCounter
    from pytest_tokenbudget.gates import ConformanceGates
    from pytest_tokenbudget.llm.language_model import LanguageModel
    from pytest_tokenbudget.models.resolution import ModelSpec
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.studies.conformance.run import Conformance
    from pytest_tokenbudget.studies.context.analysis import ContextReport
    from pytest_tokenbudget.studies.context.study import ContextStudy
    from pytest_tokenbudget.studies.tokenizers.run import Tokenization
    from pytest_tokenbudget.tasks.base import Task


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
def context_study(tokenbudget: Session, model: ModelSpec, task: Task) -> ContextStudy:
    """Conversations posed whole and truncated, and the model's answers.

    What was recorded cannot be posed again: its tests are skipped.
    """
    __tracebackhide__ = True
    from pytest_tokenbudget.engines.planning import SetupError

    if tokenbudget.recordings is not None:
        pytest.skip("what was recorded cannot be posed again: name the model or its server")
    try:
        return tokenbudget.context(model)
    except SetupError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture(scope="session")
def context(context_study: ContextStudy) -> ContextReport:
    """What that amounts to: a point for each arm, strategy and limit, and what is recommended.

    Fails where no conversation has all its answers.
    """
    __tracebackhide__ = True
    from pytest_tokenbudget.studies.context.analysis import analyse_context

    try:
        return analyse_context(context_study)
    except ValueError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture
def context_arm(request: pytest.FixtureRequest, context_study: ContextStudy) -> str:
    """What the conversations ask for: ``recall``, ``multi-hop`` or, unless it is one, ``task``."""
    arm: str = request.param
    if all(each.arm != arm for each in context_study.posed):
        pytest.skip(
            f"no conversation of {arm} fits: {context_study.alias} has room for "
            f"{context_study.windowing.room:,} tokens of a prompt"
        )
    return arm


@pytest.fixture
def truncation(request: pytest.FixtureRequest) -> str:
    """The truncation strategy under test; one run of the test for each of ``--truncation``."""
    name: str = request.param
    return name


@pytest.fixture
def context_limit(request: pytest.FixtureRequest) -> str:
    """The context limit under test; one run of the test for each of ``--context-limits``.

    The whole conversation, ``100%``, is always among them.
    """
    limit: str = request.param
    return limit


@pytest.fixture(scope="session")
def conformance(
    request: pytest.FixtureRequest,
    tokenbudget: Session,
    model: ModelSpec,
    tmp_path_factory: pytest.TempPathFactory,
) -> Conformance:
    """Probes of the limits and thinking budgets of the model's engine, each made once.

    What was recorded cannot be probed: its tests are skipped.
    """
    if tokenbudget.recordings is not None:
        pytest.skip("what was recorded cannot be probed: name the model or its server")
    from pytest_tokenbudget.common import xdist
    from pytest_tokenbudget.report.reporter import progress_shown
    from pytest_tokenbudget.studies.conformance.run import Conformance, selected_probes

    base = tmp_path_factory.getbasetemp()
    return Conformance(
        tokenbudget,
        model,
        (base.parent if xdist.worker_id() else base) / "tokenbudget",
        selected_probes(request.session.items, model),
        lambda: progress_shown(request.config),
    )


@pytest.fixture
def conformance_gates(request: pytest.FixtureRequest, model: ModelSpec) -> ConformanceGates:
    """What the run's gates demand of the engine."""
    from pytest_tokenbudget.gates import ConformanceGates, judging

    return ConformanceGates(*judging.of(request, model))


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


@pytest.fixture(scope="session")
def tokenization(tokenbudget: Session, count_tokens: TokenCounter) -> Tokenization:
    """What the model's tokenizer makes of texts, and what its chat template costs."""
    from pytest_tokenbudget.studies.tokenizers.run import Tokenization

    return Tokenization(tokenbudget, count_tokens)
