"""Whether a command line selects shipped evals."""

from __future__ import annotations

import re

import pytest

from pytest_tokenbudget import registry
from pytest_tokenbudget.common.package_files import suite


def evals_named(config: pytest.Config) -> bool:
    """Whether the command selects shipped evals, by a marker or by their place."""
    expression = str(config.getoption("markexpr", default="") or "")
    if any(re.search(rf"\b{name}\b", expression) for name in registry.eval_markers()):
        return True
    for argument in config.args:
        name = argument.split("::")[0]
        if name.startswith("pytest_tokenbudget.evals"):
            return True
        path = config.invocation_params.dir / name
        if path.exists() and path.resolve().is_relative_to(suite().resolve()):
            return True
    return False
