"""A plugin that puts hand-made probes and an engine in the places of the real ones.

Its probes leave their names in ``probes.log``. An environment variable names limits that break.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import conformance_samples
import pytest
from fake_engine import FakeEngine

from pytest_tokenbudget.pytest_session.start import start as start_session
from pytest_tokenbudget.studies.conformance import thinking
from pytest_tokenbudget.studies.conformance.analysis import BudgetVerdict, LimitFinding
from pytest_tokenbudget.studies.conformance.limits import LIMIT_PROBES

LOG = "probes.log"
BROKEN = "CONFORMANCE_BROKEN"
VERDICTS = {
    "thinking_token_budget": BudgetVerdict.ENFORCED,
    "template-thinking_budget": BudgetVerdict.SOFT,
    "extra_body": BudgetVerdict.REFUSED,
}
REAL_LIMITS, REAL_WAY = dict(LIMIT_PROBES), thinking.probe_method


class FakeServer(FakeEngine):
    """An engine that can be probed, by probes that do not ask it."""

    engine_name = "vllm"
    eos_ids = frozenset({0})

    def ask(self, asks, at_once=1):
        raise AssertionError("hand-made probes ask nothing")

    def count(self, text):
        return len(text)


def note(name):
    with Path(LOG).open("a", encoding="utf-8") as log:
        log.write(f"{name}\n")
    time.sleep(0.02)


def limit_probe(name):
    def probe(bench):
        note(name)
        broken = name in os.environ.get(BROKEN, "").split(",")
        finding = LimitFinding.BROKEN if broken else LimitFinding.KEPT
        return conformance_samples.limit(name, finding, rate=(float("nan"), 0.0, 1.0))

    return probe


def probe_method(bench, name):
    note(name)
    return conformance_samples.way(name, VERDICTS.get(name, BudgetVerdict.IGNORED))


class Plugin:
    """Puts them there."""

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config):
        start_session(config).make_engine = lambda *given: FakeServer()
        LIMIT_PROBES.update({name: limit_probe(name) for name in LIMIT_PROBES})
        thinking.probe_method = probe_method

    def pytest_unconfigure(self):
        LIMIT_PROBES.update(REAL_LIMITS)
        thinking.probe_method = REAL_WAY


# As -p in a process of its own, the module itself is the plugin.
pytest_configure = Plugin().pytest_configure
