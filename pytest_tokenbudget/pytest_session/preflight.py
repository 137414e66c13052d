"""What is checked before the first test starts, and whether a test's study is whole after it.

A missing package, a server that does not answer and a hub that cannot be reached end the run with
one sentence; otherwise every test would fail with it. An engine's error is missing data: it is in
no rate, and it is no wrong answer. But a run that lacks answers shall not look like one that has
them all, so its tests fail once they have recorded what there is.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Mapping

import pytest

from pytest_tokenbudget import registry
from pytest_tokenbudget.collection.eval_fixtures import evals_named, replaced, uses
from pytest_tokenbudget.collection.selection import (
    kinds_of,
    model_of,
    model_under_test,
    runs_no_test,
)
from pytest_tokenbudget.common import xdist
from pytest_tokenbudget.common.text_layout import plural
from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.core.store import StoreError
from pytest_tokenbudget.core.trace import Trace
from pytest_tokenbudget.engines.planning import gpus_of
from pytest_tokenbudget.gates.partial_runs import on_command_line
from pytest_tokenbudget.gates.plugin import NAME as GATES
from pytest_tokenbudget.gates.plugin import GatesPlugin, tolerates_errors
from pytest_tokenbudget.models.choice import engine_of
from pytest_tokenbudget.models.resolution import ModelError, ModelSpec, resolve_model
from pytest_tokenbudget.registry import SESSION
from pytest_tokenbudget.report.outcomes import STOPPED_BY
from pytest_tokenbudget.session import Session
from pytest_tokenbudget.settings.config_file import ConfigError

# Fixtures that need the tokenizer alone; their tests are skipped without one.
COUNTING = ("count_tokens",)


def check_selected(session: pytest.Session) -> None:
    """Check what the selected tests need, in the process that has collected them.

    Workers of pytest-xdist check nothing: a usage error of theirs would be an internal error.
    """
    config = session.config
    if hasattr(config, "workerinput") or _has_workers(config) or runs_no_test(config):
        return
    if session.testsfailed and not config.option.continue_on_collection_errors:
        return
    gates = config.pluginmanager.get_plugin(GATES)
    if isinstance(gates, GatesPlugin):
        gates.refuse_unknown_budgets(session.items)
    needed: dict[ModelSpec, bool] = {}
    for item in session.items:
        spec = model_under_test(item)
        if spec is not None and _uses_the_model(item):
            needed[spec] = needed.get(spec, False) or _generates(item)
    _check_models(config.stash[SESSION], needed)


def check_named(config: pytest.Config) -> None:
    """Check the models of a run with pytest-xdist before its workers start.

    The controller does not know the tests that workers collect, so it checks where the command
    itself selects evals or names a model.
    """
    if not _has_workers(config) or runs_no_test(config):
        return
    flags = ("--model", "--base-url", "--engine")
    # A settings file alone may be for other tests than those of this command.
    if evals_named(config) or any(on_command_line(config, flag) for flag in flags):
        state = config.stash[SESSION]
        _check_models(state, dict.fromkeys(state.specs, True))


def check_tokenizer(config: pytest.Config) -> None:
    """Check the tokenizer of recorded texts, which collecting the tests already needs."""
    session = config.stash[SESSION]
    name = session.settings.tokenizer
    if session.recordings is None or name is None:
        return
    if not (evals_named(config) or on_command_line(config, "--recorded")):
        return
    try:
        spec = resolve_model(name, session.catalogue)
    except (ModelError, ConfigError) as error:
        raise pytest.UsageError(f"--tokenizer: {error}") from None
    if reason := _not_to_be_had(spec):
        raise pytest.UsageError(f"--tokenizer: {reason}")


def _not_to_be_had(spec: ModelSpec) -> str:
    """Why a model of the hub cannot be loaded; empty where it can."""
    from pytest_tokenbudget.models import hub

    if spec.kind != "hub" or hub.is_cached(spec) or not hub.unreachable():
        return ""
    return f"model {spec.alias}: {hub.missing_model(spec)}"


def _has_workers(config: pytest.Config) -> bool:
    return bool(config.getoption("dist", default="no") != "no")


def _check_models(session: Session, specs: Mapping[ModelSpec, bool]) -> None:
    if session.recordings is None:
        for spec, generates in specs.items():
            check_model(session, spec, generates)


def _uses_the_model(item: pytest.Item) -> bool:
    from pytest_tokenbudget.report.item_hooks import is_skipped

    used = _generates(item) or any(uses(item, name) for name in COUNTING)
    return bool(used) and not is_skipped(item) and not replaced(item)


def _generates(item: pytest.Item) -> bool:
    return bool(kinds_of(item)) or any(uses(item, name) for name in registry.unplanned())


def check_model(session: Session, spec: ModelSpec, generates: bool = True) -> None:
    """Check that what runs a model is there.

    ``generates`` says whether it has to generate, for which prompts are tokenized.

    Raises:
        pytest.UsageError: If it is not, and no stored traces make up for that.
    """
    try:
        if spec.endpoint is not None:
            known = session.ask_servers(spec)
            if generates:
                _check_tokenizer_of(known)
        elif session.runs_own_engines:
            _check_engine(session, spec)
    except (EngineError, StoreError, ModelError) as error:
        raise pytest.UsageError(str(error)) from None


def _check_tokenizer_of(spec: ModelSpec) -> None:
    """Raise an EngineError if neither a model's servers nor a tokenizer here tokenize prompts."""
    from pytest_tokenbudget.engines.server.tokens import choose_tokens

    assert spec.endpoint is not None
    facts = spec.endpoint.facts
    if reason := _not_to_be_had(spec):
        raise EngineError(reason)
    if spec.kind == "server" and facts is not None and not facts.tokenizes:
        choose_tokens(spec, facts)  # It raises the error that says what to do.


def _check_engine(session: Session, spec: ModelSpec) -> None:
    """Check what runs a model in this process: vLLM, the model's files, enough GPUs."""
    if reason := _not_to_be_had(spec):
        raise EngineError(reason)
    if engine_of(session.settings, spec) != "vllm":
        return
    if importlib.util.find_spec("vllm") is None:
        from pytest_tokenbudget.engines.vllm.process import NOT_INSTALLED

        # Stored traces are judged without the engine that made them.
        if not session.has_traces(spec):
            raise EngineError(NOT_INSTALLED)
    elif session.settings.device != "cpu" and (gpus := xdist.visible_gpus()):
        xdist.enough_groups(gpus, gpus_of(session.settings))


AGAIN = "run the same command again: it goes on with those only"


def fail_if_incomplete(item: pytest.Item) -> None:
    """Fail the running test where the engine failed on some of what the test stands on."""
    __tracebackhide__ = True
    session = item.config.stash[SESSION]
    spec = model_of(item)
    if spec is None or session.recordings is not None:
        return
    for kind in kinds_of(item):
        study = session.cached_study(spec, kind)
        if study is not None and study.errors and not tolerates_errors(item, kind):
            said = missing_traces_sentence(spec.alias, study.errors, len(study.problems))
            item.stash[STOPPED_BY] = said
            pytest.fail(said, pytrace=False)


def missing_traces_sentence(alias: str, errors: tuple[Trace, ...], problems: int) -> str:
    """What is missing of ``problems`` that were posed, and why, for people."""
    reasons = Counter(trace.error or "no reason given" for trace in errors)
    reason, times = reasons.most_common(1)[0]
    hit = len({trace.problem_id for trace in errors})
    often = ""
    if len(reasons) > 1:
        often = f" ({times:,} times; {plural(len(reasons) - 1, 'other reason')})"
    return (
        f"{plural(len(errors), 'trace is', 'traces are')} missing for {alias}, of {hit:,} of "
        f"{problems:,} problems: {reason.rstrip('.')}{often}; {AGAIN}"
    )
