"""What is shown while traces are generated.

The numbers come from the store, so the display is the same whether this process generates, its
workers do, or another run beside it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from pytest_tokenbudget.common.text_layout import plural, shorten
from pytest_tokenbudget.core.plan import Plan
from pytest_tokenbudget.core.process_states import (
    PROBING,
    WAITING,
    running_thread,
    waiting_sentence,
)
from pytest_tokenbudget.core.store import PlanRow, StoreError, TraceStore
from pytest_tokenbudget.models.catalogue import MODEL_OPTIONS
from pytest_tokenbudget.report.progress_counts import Bar, PlanProgress, clock

REFRESH_SECONDS = 0.25
LINE_SECONDS = 30.0


class Monitor:
    """Shows the plans of a run and how far their traces are.

    Args:
        path: The trace store.
        run: The run whose plans are shown.
        announce: Called with a line of text for people.
        stream: Where the bar goes; a bar is drawn only if it is a terminal.
        counts: Whether to show how far the traces are, too.
        begin_line: Called before a bar is drawn, so that it does not cover what the line has.
    """

    def __init__(
        self,
        path: Path,
        run: str,
        announce: Callable[[str], None],
        stream: TextIO | None = None,
        *,
        counts: bool = True,
        begin_line: Callable[[], None] = lambda: None,
    ) -> None:
        self.path, self.run, self.announce = path, run, announce
        self.stream = stream or sys.stderr
        self.counts, self.begin_line = counts, begin_line
        self._shown: set[str] = set()
        self._changed = threading.Condition()
        self._finished: set[str] = set()
        self._noted = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Show progress, from a thread, until the block ends."""
        with running_thread("progress", self._watch):
            yield

    def wait_for(self, plan: str, seconds: float = 2.0) -> None:
        """Wait until a plan has been announced, ``seconds`` at most."""
        with self._changed:
            self._changed.wait_for(lambda: plan in self._shown, seconds)

    def _note_shown(self, plan: str) -> None:
        with self._changed:
            self._shown.add(plan)
            self._changed.notify_all()

    def _watch(self, stop: threading.Event) -> None:
        while not self.path.exists():
            if stop.wait(REFRESH_SECONDS):
                return
        while True:
            # Whoever needs the store says what is wrong with it; here it is only tried again.
            with suppress(StoreError), closing(TraceStore(self.path, self.run)) as store:
                self._show(store, stop)
                return
            if stop.wait(REFRESH_SECONDS):
                return

    def _show(self, store: TraceStore, stop: threading.Event) -> None:
        shown = _Shown(self, store)
        try:
            while not stop.wait(REFRESH_SECONDS):
                shown.refresh()
            shown.refresh()
        finally:
            shown.finish()


class _Shown:
    """One thread's view: the bar or the lines of what is being worked on."""

    def __init__(self, monitor: Monitor, store: TraceStore) -> None:
        self.monitor, self.store = monitor, store
        terminal = monitor.stream.isatty()
        self.bar = Bar(monitor.stream, monitor.begin_line) if terminal else None
        self.current: PlanProgress | None = None
        self.last_line = time.monotonic()

    def refresh(self) -> None:
        for row in self.store.plans():
            if row.name not in self.monitor._shown:
                self._announce(row)
                self.monitor._note_shown(row.name)
            if self.monitor.counts and row.to_generate and row.name not in self.monitor._finished:
                self._follow(row)
        self._follow_probes()
        for number, text in self.store.notes(self.monitor._noted):
            self.monitor._noted = number
            if self.bar is not None:
                self.bar.clear()  # else the line would begin where the bar ends
            self.monitor.announce(text)

    def finish(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def _announce(self, row: PlanRow) -> None:
        self.finish()
        plan = Plan.from_json(row.plan)
        self.monitor.announce(describe(plan))
        if row.to_generate:
            self.monitor.announce(
                f"{plural(row.to_generate, 'trace')} to generate, at most "
                f"{row.to_generate * plan.cap:,} tokens; kept in {self.store.path}"
            )
        else:
            self.monitor.announce(f"all traces are in {self.store.path}: no model is loaded")

    def _follow(self, row: PlanRow) -> None:
        if self.current is None or self.current.name != row.name:
            self.finish()
            self.last_line = time.monotonic()
            self.current = PlanProgress(self.store, row)
        progress = self.current
        progress.look(row)
        waiting = (
            "" if progress.generates else waiting_sentence(self.store.states(WAITING), row.name)
        )
        if self.bar is not None:
            left = f"generating  {progress.counts()}"
            self.bar.draw(left, progress.share, waiting or progress.times())
        else:
            self._announce_rarely(
                f"generating {progress.counts()}, {waiting or progress.sentence()}"
            )
        if not row.missing:
            self.monitor._finished.add(row.name)
            self.finish()

    def _follow_probes(self) -> None:
        for probes in self.store.states(PROBING):
            counts = f"{probes['done']:,}/{probes['total']:,}"
            tokens = plural(probes["tokens"], "token")
            seconds = time.time() - probes["began"]
            if self.bar is not None:
                share = probes["done"] / max(probes["total"], 1)
                right = f"{tokens} [{clock(seconds)}] {shorten(probes['name'], 32)}"
                self.bar.draw(f"probing  {counts}", share, right, leave=False)
            else:
                answers = plural(probes["answers"], "answer")
                self._announce_rarely(
                    f"probing {counts}, {answers}, {tokens}; {probes['name']} for {seconds:,.0f} s"
                )

    def _announce_rarely(self, line: str) -> None:
        """Show a line, unless there was one a short while ago."""
        if time.monotonic() - self.last_line >= LINE_SECONDS:
            self.last_line = time.monotonic()
            self.monitor.announce(line)


_ABOUT = {
    "off": ", thinking off",
    "forced": ", answers after thinking that was ended",
    "wait": ", thinking that was sent on",
}


def describe(plan: Plan) -> str:
    """Model, task and decoding in a line, and what of it the model's own entry says."""
    names = [key for key, option in MODEL_OPTIONS.items() if option.name in plan.from_model_entry]
    own = f" | from the model's entry: {', '.join(names)}" if names else ""
    return f"{plan.alias} = {plan.where} | {plan_summary(plan)}{own}"


def plan_summary(plan: Plan) -> str:
    """Task and decoding in a line."""
    decoding = plan.decoding
    how = (
        "greedy"
        if decoding.greedy
        else f"temperature {decoding.temperature:g}, top-p {decoding.top_p:g}, seed {decoding.seed}"
    )
    return f"{_posed(plan)} | {how}"


def _posed(plan: Plan) -> str:
    """What the model is asked, and whether it thinks."""
    thinking = ", thinking" if plan.thinking else ""
    if plan.kind == "summary":
        return "summaries of conversations"
    if plan.context_plan is not None:
        # Conversations have tasks and numbers of their own.
        counts = plan.context_plan.counts.items()
        arms = (f"{number:,} {plan.task if arm == 'task' else arm}" for arm, number in counts)
        return f"conversations, whole and truncated: {', '.join(arms)}{thinking}"
    problems = "all problems" if plan.limit is None else plural(plan.limit, "problem")
    if plan.samples > 1:
        problems += f" x {plan.samples} samples"
    return f"{plan.task}, {problems}{_ABOUT.get(plan.kind, thinking)}"
