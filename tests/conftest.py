import functools
import gc
import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from hypothesis import settings

# Workers of pytest-xdist share the cores; threads of torch that wait for each other are far slower.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# These tests start hundreds of sessions. Without kept bytecode, each of them compiles the package
# and rewrites the evals again, which takes a third of the time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# What passes must pass again: the examples are the same in every run. HYPOTHESIS_PROFILE=default
# looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_configure(config: pytest.Config) -> None:
    """Take no snapshot for unused where tests are only listed."""
    if config.option.collectonly:
        config.option.disable_unused_snapshots = True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests that are marked ``slow`` to ``-m slow``, unless one is named on its own."""
    if config.option.markexpr or any("::" in argument for argument in config.args):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """One worker more than cores for the quick tests, some of which wait for servers and leases."""
    return None if config.option.markexpr else (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """Spare later collections of garbage the walk through all that was imported and collected."""
    gc.freeze()


INSTALLED = tuple(path for path in sys.path if path.endswith("site-packages"))

# Packages that tests install.
collect_ignore = ["data"]


@pytest.fixture(scope="session", autouse=True)
def known_distributions() -> Iterator[None]:
    """Read once what is installed: each session that a test starts in this process looks for it.

    Packages that tests install are in folders of their own, and are read again.
    """

    def once(read: Callable[[PathDistribution], object]) -> property:
        known: dict[str, object] = {}

        @functools.wraps(read)
        def reads(distribution: PathDistribution) -> object:
            path = str(distribution._path)
            if not path.startswith(INSTALLED):
                return read(distribution)
            if path not in known:
                known[path] = read(distribution)
            return known[path]

        return property(reads)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("entry_points", "files", "metadata"):
            patch.setattr(PathDistribution, name, once(getattr(PathDistribution, name).fget))
        yield


@pytest.fixture(scope="session", autouse=True)
def coarse_figures() -> Iterator[None]:
    """Figures of few pixels: to compress those for print takes as long as to draw them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pytest_tokenbudget.report.style.DPI", 60)
        yield


SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def gsm8k_path() -> Path:
    """The GSM8K test split, which does not lie in the repository."""
    path = Path(os.environ.get("TOKENBUDGET_SHARED_DATA", SHARED_DATA)) / "gsm8k" / "test.jsonl"
    if not path.is_file():
        pytest.skip(f"GSM8K is not at {path}; set TOKENBUDGET_SHARED_DATA to the folder of gsm8k/")
    return path
