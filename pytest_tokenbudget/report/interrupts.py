"""Ctrl-C: workers stop within seconds, and the terminal says what is stored.

pytest-xdist asks its workers to end between two tests, but one test can generate for hours. So the
process that reports leaves a word in the trace store when it is interrupted, and a thread in each
worker interrupts its own process when it finds that.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest

from pytest_tokenbudget.settings.option_flags import NamingTerminal

if TYPE_CHECKING:
    from pytest_tokenbudget.session import Session

STOP = "stop"
POLL_SECONDS = 0.5
# A worker that the terminal's Ctrl-C has reached, too, is not interrupted again while it stops.
GRACE_SECONDS = 1.0
_WHENEVER = 1e9


class Interrupts:
    """The plugin object that passes an interruption on, in either kind of process."""

    def __init__(self, config: pytest.Config, session: Session) -> None:
        self._config, self._session = config, session
        self._worker = hasattr(config, "workerinput")
        self._has_workers = config.getoption("dist", default="no") != "no"
        self._over = threading.Event()
        self._listening = False
        self._interrupted = False

    def listen(self) -> None:
        """In a worker, watch for the word to stop, from a thread."""
        if self._worker and not self._listening:
            self._listening = True
            thread = threading.Thread(target=self._listen, name="tokenbudget-stop", daemon=True)
            thread.start()

    def _listen(self) -> None:
        from pytest_tokenbudget.core.journal import Journal
        from pytest_tokenbudget.core.store_file import StoreError

        path, run = self._session.settings.trace_store, self._session.run
        while not self._over.wait(POLL_SECONDS):
            # What is wrong with the store is reported by whoever needs it.
            with suppress(StoreError):
                if not path.exists():
                    continue
                with closing(Journal(path, run)) as journal:
                    while not journal.states(STOP, _WHENEVER):
                        if self._over.wait(POLL_SECONDS):
                            return
                if not self._over.wait(GRACE_SECONDS):
                    interrupt_this_process()
                return

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Called for Ctrl-C and for a session that is stopped otherwise."""
        self._over.set()
        self._interrupted = True
        if self._worker:
            # pytest would read the sources of all frames for a report that nobody sees.
            excinfo.traceback = excinfo.traceback[-1:]
        if not self._worker and self._has_workers:
            self._stop_workers()

    def _stop_workers(self) -> None:
        """Tell the workers to stop, and wait until they have ended."""
        from pytest_tokenbudget.core.store_file import StoreError

        with suppress(StoreError):
            if not self._session.settings.trace_store.exists():
                return
            self._session.store.put_state(STOP, True)
            # What they store until they end belongs to what is reported. pytest-xdist would end
            # them after the reports are written, and kills those that do not end in time.
            nodes = getattr(self._config.pluginmanager.get_plugin("dsession"), "nodemanager", None)
            if nodes is not None:
                nodes.teardown_nodes()

    def pytest_unconfigure(self) -> None:
        self._over.set()

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._interrupted and not self._worker:
            terminal = NamingTerminal(terminalreporter, self._config)
            for line in self._stored():
                terminal.write_line(line, yellow=True)

    def _stored(self) -> list[str]:
        """How many of the traces that were to be generated are stored, plan by plan."""
        from pytest_tokenbudget.common.text_layout import wrapped
        from pytest_tokenbudget.core.plan import Plan
        from pytest_tokenbudget.core.store_file import StoreError
        from pytest_tokenbudget.report.progress import plan_summary

        lines: list[str] = []
        with suppress(StoreError):
            path = self._session.settings.trace_store
            for row in self._session.store.plans() if path.exists() else ():
                if row.missing:
                    plan = Plan.from_json(row.plan)
                    sentence = (
                        f"interrupted: {row.to_generate - row.missing:,} of the "
                        f"{row.to_generate:,} traces that this run had to generate are stored, "
                        f"{row.missing:,} are missing ({plan.alias} | {plan_summary(plan)}); run "
                        "the same command again to go on"
                    )
                    lines += wrapped(sentence, 80)
        return lines


def interrupt_this_process() -> None:
    """Do what Ctrl-C does, from any thread."""
    if os.name == "nt":
        _thread.interrupt_main()
    else:
        os.kill(os.getpid(), signal.SIGINT)


NAME = "tokenbudget-interrupts"


def listen(config: pytest.Config) -> None:
    """Have this process watch for the word to stop, if it is a worker."""
    interrupts = config.pluginmanager.get_plugin(NAME)
    if isinstance(interrupts, Interrupts):
        interrupts.listen()
