"""Fixtures for whole runs, for modules that say pytest_plugins = ["run_fixtures"]."""

import pytest
from runs import QUIET, SUITE, WORKER_VARIABLES, Engines
from studies import make_study

from pytest_tokenbudget.core.engine import Decoding, Request
from pytest_tokenbudget.report.files import write_bytes


@pytest.fixture
def no_worker(monkeypatch):
    """What runs inside is no worker, also where this runs in one."""
    for name in WORKER_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def warm(tmp_path_factory):
    """What a run imports, imported here: pytester forgets modules that were new in a run."""
    from pytest_tokenbudget import registry
    from pytest_tokenbudget.engines.transformers.engine import TransformersEngine
    from pytest_tokenbudget.models.resolution import load_catalogue, resolve_model
    from pytest_tokenbudget.pytest_session import hooks
    from pytest_tokenbudget.studies.saturation.figure import saturation_figure

    assert hooks.register
    for section in registry.sections():
        assert registry.load(section.write)
    spec = resolve_model("nano-reasoner", load_catalogue())
    engine = TransformersEngine(spec, device="cpu", dtype="float32")
    assert list(engine.generate([Request("k", (5, 6), 2)], Decoding()))
    study = make_study(4, (16, 32))
    assert study.saturation.sentence()
    assert saturation_figure(study, tmp_path_factory.mktemp("warm"))


@pytest.fixture
def quick_figures(monkeypatch):
    """Files with the right names: drawing them takes longer than all the rest."""

    def save(draw, path, title):
        return [write_bytes(path.with_name(path.name + end), b"") for end in (".png", ".svg")]

    for module in ("report.drawing", "studies.saturation.figure", "studies.conformance.figure"):
        monkeypatch.setattr(f"pytest_tokenbudget.{module}.save_figure", save)


@pytest.fixture
def run(pytester, no_worker, warm):
    """A function that runs the suite, with a fake engine unless told otherwise."""

    def suite(*arguments, engines=None, base=SUITE, budgets="16,32", problems=3, **options):
        return pytester.runpytest_inprocess(
            *base,
            f"--num-samples={problems}",
            f"--budgets={budgets}",
            *arguments,
            plugins=[engines or Engines()],
            **options,
        )

    return suite


@pytest.fixture
def own(run):
    """The same for a user's own test file."""

    def mine(*arguments, **options):
        return run(*arguments, base=QUIET, **options)

    return mine
