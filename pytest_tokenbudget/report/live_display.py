"""Traces on the terminal while they are being written, one at a time.

Of the outputs that an engine writes side by side one is followed to its end; then another one that
is still being written, from its start. What ends meanwhile is not shown. Of engines that tell
nothing while they work, each trace is shown as it ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property

from pytest_tokenbudget.common.outside_text import printable, without_commands
from pytest_tokenbudget.common.text_layout import MAX_WIDTH, plural, rule
from pytest_tokenbudget.core.engine import Engine, Generated, Request
from pytest_tokenbudget.core.plan import Plan
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.report.live import CODES, UNDIM, LiveTrace
from pytest_tokenbudget.texts.token_texts import Pieces

# Seconds without a word of one trace after which another one that is being written is shown.
PATIENCE = 30.0

_ENDS = {
    StopReason.EOS: "ended by the model",
    StopReason.STOP: "ended by a stop text",
    StopReason.LENGTH: "cut by the cap",
}


class LiveDisplay:
    """Shows traces while they are being written: an observer of ``gather``.

    It may be told from any thread, and what goes wrong in it ends nothing but itself.

    Args:
        write: Puts text on the terminal at once.
        colour: Whether the terminal takes escape codes.
        ready: Called with a plan before its traces; returns when what belongs above them is there.
        log: Takes a line for people.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        colour: bool,
        ready: Callable[[Plan], None] = lambda plan: None,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._write, self._colour, self._ready, self._log = write, colour, ready, log
        self._lock = threading.RLock()
        self._broken = False
        self._at_start = True
        self._line = ""
        self._stage: _Stage | None = None
        self._shown: _Shown | None = None

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        """Let others write whole lines in between."""
        with self._lock:
            self._end_line()
            yield

    def begin(self, plan: Plan, engine: Engine, missing: int) -> None:
        """Be told what the next outputs are for, and how many traces are missing."""
        self._ready(plan)
        with self._lock:
            if not self._broken:
                self._stage = _Stage(plan, engine, missing)

    def follows(self, request: Request) -> bool:
        """Whether something of this output would be shown now."""
        with self._lock:
            if self._stage is None:
                return False
            shown = self._shown
            return shown is None or shown.is_of(request) or shown.is_silent

    def wrote(
        self, request: Request, ids: Sequence[int], texts: Sequence[str] | None = None
    ) -> None:
        """Take what there is of an output: its ids and, where they are not decoded here, texts."""
        with self._shielded():
            shown = self._followed(request, lambda shown: shown.precedes(ids))
            if shown is not None:
                self._put(shown.add(ids, texts))

    def wrote_text(self, request: Request, text: str) -> None:
        """Take what there is of an output that comes without ids: all of its text so far."""
        with self._shielded():
            shown = self._followed(request, lambda shown: shown.precedes_text(text))
            if shown is not None:
                self._put(shown.add_text(text))

    def ended(self, result: Generated, text: str, offsets: Sequence[int]) -> None:
        """Take a result as it is stored."""
        with self._shielded():
            stage, shown, request = self._stage, self._shown, result.request
            if stage is None:
                return
            if shown is not None and not shown.is_of(request):
                shown = None
            if shown is None and not stage.streams and result.stop_reason is not StopReason.ERROR:
                shown = self._open(request)
            if shown is not None:
                self._put(shown.finish(result, text, offsets))
                self._close(_how(result, shown.is_whole(result, text)))
            stage.missing -= 1

    def leave(self) -> None:
        """Be told that nothing more comes for now."""
        with self._shielded():
            if self._shown is not None:
                self._close("not finished")
            self._stage = None

    def _followed(self, request: Request, precedes: Callable[[_Shown], bool]) -> _Shown | None:
        """What is shown of an output; None where another one is.

        Args:
            request: What was asked for.
            precedes: Whether what is shown may be the beginning of what has come now.
        """
        stage, shown = self._stage, self._shown
        if stage is None:
            return None
        stage.streams = True
        if shown is not None and not shown.is_of(request):
            if not shown.is_silent:
                return None
            self._close("goes on later")
        elif shown is not None and not precedes(shown):
            self._close("asked for again")
        return self._shown or self._open(request)

    def _open(self, request: Request) -> _Shown:
        assert self._stage is not None
        self._end_line()
        sample = f", sample {request.sample + 1}" if self._stage.plan.samples > 1 else ""
        tail = f"{sample}, {self._stage.missing:,} to go"
        self._put(f"{rule(request.problem_id or request.key, tail, MAX_WIDTH)}\n")
        self._shown = _Shown(request, self._stage, self._colour)
        return self._shown

    def _close(self, how: str) -> None:
        self._shown = None
        self._end_line()
        self._put(f"[{how}]\n")

    def _end_line(self) -> None:
        if not self._at_start:
            self._put("\n")

    def _put(self, text: str) -> None:
        if text:
            self._write("".join(map(self._harmless, CODES.split(text))))
            self._at_start = text.removesuffix(UNDIM).endswith("\n")

    def _harmless(self, part: str) -> str:
        """A part of what is put on the terminal, without commands for GitHub Actions."""
        if CODES.fullmatch(part):
            return part
        shown = without_commands(part, self._line)
        line = (self._line + shown).rpartition("\n")[2].lstrip()
        # Only a line's first and last characters can be a part of a command.
        self._line = line if len(line) < 4 else f".{line[-2:]}"
        return shown

    @contextmanager
    def _shielded(self) -> Iterator[None]:
        """Do something alone; a fault ends the display, and without a stage it does nothing."""
        with self._lock:
            try:
                yield
            except Exception as error:
                self._broken = True
                self._stage = self._shown = None
                with suppress(Exception):
                    self._log(f"--stream ends here: {type(error).__name__}: {error}")


class _Stage:
    """What outputs are for.

    Attributes:
        plan: Their plan.
        engine: What writes them.
        missing: How many traces are still to be made.
        streams: Whether the engine tells what it writes while it does.
    """

    def __init__(self, plan: Plan, engine: Engine, missing: int) -> None:
        self.plan, self.engine, self.missing = plan, engine, missing
        self.streams = False

    @cached_property
    def pieces(self) -> Pieces:
        """What is learned of the engine's tokens; its own is used by another thread meanwhile."""
        return Pieces(self.engine.decode)


class _Shown:
    """The trace that is shown.

    What comes is fed to a ``LiveTrace``: ids; or ids with the texts that they add; or text alone,
    whose tokens are counted here where the engine's tokenizer is at hand.

    Attributes:
        request: What was asked for.
        updated: When something came last.
        text: What has come as text.
    """

    def __init__(self, request: Request, stage: _Stage, colour: bool) -> None:
        self.request = request
        self.updated = time.monotonic()
        self.text = ""
        self._stage, self._colour = stage, colour
        self._ids: list[int] = []
        self._live: LiveTrace | None = None
        self._decodes = False
        # Of text alone: budgets whose marks are to come, and tokens and characters at the last
        # count.
        self._left: list[int] | None = None
        self._counted = 0, 0

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come for a while."""
        return time.monotonic() - self.updated > PATIENCE

    def is_of(self, request: Request) -> bool:
        """Whether it is this request's."""
        return self.request.key == request.key

    def precedes(self, ids: Sequence[int]) -> bool:
        """Whether ids may be what has come and more; by the last one, as this is asked often."""
        count = len(self._ids)
        return not count or (count <= len(ids) and ids[count - 1] == self._ids[-1])

    def precedes_text(self, text: str) -> bool:
        """Whether a text is what has come and more, or a part of it that comes once more."""
        return text.startswith(self.text) or self.text.startswith(text)

    def add(self, ids: Sequence[int], texts: Sequence[str] | None) -> str:
        """Take all ids so far; what to print now."""
        # The prefix of an output that is gone on from comes as one text.
        first = 0 if texts is None else len(self.request.prefix_ids)
        live = self._started(texts is None, [b for b in self._stage.plan.budgets if b >= first])
        self.updated = time.monotonic()
        return "".join(
            self._next(live, ids[place], texts[place] if texts is not None else "")
            for place in range(len(self._ids), len(ids))
        )

    def add_text(self, text: str) -> str:
        """Take all text so far; what to print now."""
        self.updated = time.monotonic()
        # White space at the start may turn out to be the prompt's.
        if not text.strip() or len(text) <= len(self.text):
            return ""
        live = self._started(False, ())
        if self._left is None:
            self._left = sorted(self._stage.plan.budgets)
        parts = []
        while self._left and (place := self._cut(text, self._left[0])) is not None:
            parts += [self._write(live, text, place), live.mark(self._left.pop(0))]
        return "".join([*parts, self._write(live, text, len(text))])

    def finish(self, result: Generated, text: str, offsets: Sequence[int]) -> str:
        """Take the trace as it is stored; what is left to print."""
        live = self._started(False, self._stage.plan.budgets)
        ids = result.output_ids
        parts = []
        if self._left is not None and text.startswith(self.text):
            for budget in self._left:
                place = self._cut_offset(budget, result, text, offsets)
                if place is not None and place >= len(self.text):
                    parts += [self._write(live, text, place), live.mark(budget)]
        elif self._left is None and self.precedes(ids):
            for place in range(len(self._ids), len(ids)):
                parts.append(self._next(live, ids[place], text[len(self.text) : offsets[place]]))
        if not self._decodes and text.startswith(self.text):
            parts.append(self._write(live, text, len(text)))
        return "".join([*parts, live.end(result.stop_reason)])

    def is_whole(self, result: Generated, text: str) -> bool:
        """Whether, in the end, all of it was shown as it is stored."""
        return self._ids == list(result.output_ids) if self._decodes else self.text == text

    def _started(self, decodes: bool, budgets: Collection[int]) -> LiveTrace:
        if self._live is None:
            self._decodes = decodes
            self._live = LiveTrace(
                self._stage.pieces if decodes else None,
                self._stage.plan.format,
                opened_by_prompt=self.request.opens_thinking,
                budgets=budgets,
                colour=self._colour,
            )
        return self._live

    def _next(self, live: LiveTrace, token_id: int, text: str) -> str:
        self._ids.append(token_id)
        self.text += text
        return live.next(token_id, text)

    def _write(self, live: LiveTrace, text: str, end: int) -> str:
        """Text up to a place, where that is not there yet."""
        start, self.text = len(self.text), text[: max(end, len(self.text))]
        return live.write(text[start:end])

    @staticmethod
    def _cut_offset(
        budget: int, result: Generated, text: str, offsets: Sequence[int]
    ) -> int | None:
        """Where a budget cuts a result's text; None where it does not."""
        count = len(result.output_ids)
        if budget < count:
            return offsets[budget - 1] if budget else 0
        # Counted here, an output that its cap has cut may have a few tokens less.
        at_cap = result.stop_reason is StopReason.LENGTH and budget <= result.request.cap
        return len(text) if at_cap else None

    def _cut(self, text: str, budget: int) -> int | None:
        """Where a budget cuts a text, counted only where there can be enough tokens."""
        tokens, characters = self._counted
        engine = self._stage.engine
        # Every token has a byte at least.
        if engine.pieces is None or tokens + len(text[characters:].encode()) <= budget:
            return None
        ids = engine.encode(text)
        self._counted = len(ids), len(text)
        return len(engine.decode(ids[:budget])) if len(ids) > budget else None


def _how(result: Generated, whole: bool) -> str:
    """How a trace ended, for people."""
    if result.stop_reason is StopReason.ERROR:
        return printable(result.error)
    how = f"{plural(len(result.output_ids), 'token')}, {_ENDS[result.stop_reason]}"
    return how if whole else f"{how}; what is stored differs"
