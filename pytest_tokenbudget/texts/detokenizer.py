"""Text of tokens as they come: never half a character, in linear time.

A token may hold part of a character, and what it decodes to may depend on its neighbours. Where a
decode function puts tokens together by a rule that is known (see ``pieces``), a token's text is
looked up, and only runs of parts of characters are decoded. Any other function decodes a short
moving window, whose end counts as unsettled.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from pytest_tokenbudget.common.messages import described, whole_number
from pytest_tokenbudget.texts.token_texts import (
    REPLACEMENT,
    Decode,
    DecoderKind,
    Pieces,
    may_combine,
)

__all__ = ["Decode", "Detokenizer", "Pieces", "text_and_offsets"]

# A character has at most four bytes, so at most three tokens' worth of it can be waiting.
MAX_UNSETTLED = 3
# Ids in the window: what it keeps when it is shortened, and when that is tried.
CONTEXT = 6
WINDOW = 14
# Ids that must have come after a text that a decoder of no known kind may still rewrite: it takes
# three to make "don't" of "do n ' t".
LAG = 4
# Ids of a run of parts that never becomes a character: when it is shortened, and to how many. Of
# 16 bytes, what follows the first three is at least the three characters that may be waiting.
LONG_RUN = 16
SHORT_RUNS = 8, 16


class _Window:
    """Decodes a growing sequence of ids by its last few.

    ``start`` characters stand before ``text``, which is the text of the ids behind that as it is
    decoded now; the next id may change it.
    """

    def __init__(self, decode: Decode, ids: Sequence[int] = ()) -> None:
        self._decode = decode
        self._ids = list(ids)
        self._skipped = 0
        self._limit = WINDOW
        self.start = 0
        self.text = decode(self._ids) if ids else ""

    def add(self, token_id: int) -> bool:
        """Take one more id, and say whether it may have changed the text."""
        text = self._decode([*self._ids, token_id])[self._skipped :]
        if text == self.text and self._invisible(token_id):
            return False
        self._ids.append(token_id)
        self.text = text
        return True

    def shorten(self, unsettled: int) -> None:
        """Forget the oldest ids, if there are many, and nothing of the text hangs on them.

        ``unsettled`` characters at the end of the text must be kept.
        """
        if len(self._ids) < self._limit:
            return
        # Deeper where more is unsettled: an id seldom has less than one character.
        first = CONTEXT + unsettled
        for count in range(first, min(first + MAX_UNSETTLED + 1, len(self._ids))):
            ids = self._ids[-count:]
            text = self._decode(ids)
            common = len(common_start([text[::-1], self.text[::-1]]))
            # A window that begins inside a character has up to three wrong ones at its start.
            if common > unsettled and common >= len(text) - MAX_UNSETTLED:
                self._ids = ids
                self._skipped = len(text) - common
                self.start += len(self.text) - common
                self.text = text[self._skipped :]
                break
        self._limit = max(WINDOW, len(self._ids) + CONTEXT)

    def _invisible(self, token_id: int) -> bool:
        """Whether the id can be left out of the window: a special token that decodes to nothing.

        At the very start a space may be what decodes to nothing, so there a few are kept.
        """
        return bool(self.text or len(self._ids) >= CONTEXT) and not self._decode([token_id])


class _Lagging:
    """Settles text that has stood for some ids; ``tail`` of the text of ``ids`` is not settled."""

    def __init__(self, decode: Decode, ids: Sequence[int] = (), tail: str = "") -> None:
        self._window = _Window(decode, ids)
        self._recent = [self._window.text] * LAG
        self._settled = len(self._window.text) - len(tail)

    @property
    def tail(self) -> str:
        window = self._window
        return window.text[self._settled - window.start :]

    def add(self, token_id: int) -> str:
        """Take one more id and return the text that it settles, often empty."""
        window = self._window
        if not window.add(token_id):
            return ""
        stable = common_start([*self._recent, window.text])
        self._recent = [*self._recent[1:], window.text]
        done = self._settled - window.start
        fresh = stable[done : len(stable) - _waiting(stable)]
        self._settled += len(fresh)
        start = window.start
        window.shorten(len(window.text) - done - len(fresh))
        self._recent = [text[window.start - start :] for text in self._recent]
        return fresh


def common_start(texts: Sequence[str]) -> str:
    """What all texts begin with."""
    # Between the first and the last in order, none can differ earlier than these two do.
    first, last = min(texts), max(texts)
    for place, char in enumerate(first):
        if char != last[place]:
            return first[:place]
    return first


def _waiting(text: str) -> int:
    """Replacement characters at the end of a text that may be the beginning of another one."""
    end = text[-MAX_UNSETTLED:]
    return len(end) - len(end.rstrip(REPLACEMENT))


class Detokenizer:
    """Turns ids into text one by one, as a display wants it.

    What has been returned is never taken back: a delta that ends in a character which may still
    combine with what follows is withheld, and so is a run of bytes that a later one may turn into
    replacement characters. All deltas and ``rest()`` together are the text of all ids, whatever
    they are. Decoders that rewrite text are followed for the last four ids.

    Args:
        decode: Text of a sequence of ids, or what is known of it already: with one ``Pieces`` for
            many texts it is learned once.
    """

    def __init__(self, decode: Decode | Pieces) -> None:
        if not callable(decode):
            raise ValueError(f"decode must be a function of token ids, not {described(decode)}")
        self._pieces = decode if isinstance(decode, Pieces) else Pieces(decode)
        self._window: _Lagging | None = None
        self._ids: list[int] = []
        self._shown: list[str] = []
        # Settled text that is withheld, and ids since the last place where text is settled for
        # good, of whose text a part is settled. At the start these are all ids.
        self._held: list[str] = []
        self._run: list[int] = []
        self._settled = 0
        self._starts = True
        self._idle = False
        if not self._pieces.known:
            self._window = _Lagging(self._pieces)

    def next(self, token_id: int) -> str | None:
        """Take the next id; return the text that can be shown now, None where there is none."""
        if type(token_id) is not int:
            token_id = whole_number("token_id", token_id)
        if self._idle:
            piece = self._pieces.free.get(token_id)
            if piece is not None:
                self._ids.append(token_id)
                self._shown.append(piece)
                return piece
        return self._step(token_id)

    def settle(self, token_id: int) -> str:
        """Take the next id and return the text that it settles, often empty."""
        if self._window:
            return self._window.add(token_id)
        pieces = self._pieces
        piece = pieces.piece(token_id)
        if not pieces.known:
            return self._look_through_window(token_id)
        if piece == "":
            return ""
        self._ids.append(token_id)
        if piece is not None and not (self._run or self._starts):
            return piece
        self._run.append(token_id)
        if piece is None and pieces.kind is DecoderKind.RUNS:
            return ""
        text = self._run_text(piece)
        if not pieces.known:
            self._ids.pop()
            return self._look_through_window(token_id)
        if piece is None and pieces.kind is DecoderKind.RUNS:
            return ""
        waiting = _waiting(text) if piece is None else 0
        fresh = text[self._settled : len(text) - waiting]
        self._settled = len(text) - waiting
        if text and not waiting:
            self._run.clear()
            self._settled, self._starts = 0, False
        elif len(self._run) >= LONG_RUN:
            self._shorten(text, waiting)
        return fresh

    def cut(self) -> str:
        """Give up what is complete though it may combine: something is to be shown behind it.

        Returns:
            Text that counts as shown, often empty.
        """
        delta = "".join(self._held)
        if delta:
            self._held.clear()
            self._shown.append(delta)
        self._idle = not (self._window or self._run or self._starts)
        return delta

    def rest(self) -> str:
        """Text that is still withheld; once no id follows, it belongs to the output as it is."""
        return "".join(self._held) + self._tail()

    def all(self) -> str:
        """Text of all ids so far, what is withheld included."""
        return "".join(self._shown) + self.rest()

    def _step(self, token_id: int) -> str | None:
        fresh = self.settle(token_id)
        if fresh:
            self._held.append(fresh)
        delta = None
        if self._held and not may_combine(self._held[-1][-1]):
            delta = "".join(self._held)
            self._held.clear()
            self._shown.append(delta)
        self._idle = not (self._window or self._run or self._held or self._starts)
        return delta

    def _run_text(self, last: str | None) -> str:
        """Text of the run, whose last id is that of a whole piece or of another part."""
        if self._starts:
            return self._pieces(self._run)
        if last is None:
            return self._pieces.run(tuple(self._run))
        return self._pieces.run(tuple(self._run[:-1])) + last

    def _shorten(self, text: str, waiting: int) -> None:
        """Forget the oldest ids of a run that never becomes a character."""
        if self._starts:
            self._starts = self._pieces.run(tuple(self._run)) != text
            return
        for count in SHORT_RUNS:
            ids = self._run[-count:]
            common = self._pieces.run(tuple(ids))
            known = len(common) - MAX_UNSETTLED
            if known >= max(waiting, 1) and text.endswith(common[-known:]):
                self._run = ids
                self._settled = len(common) - waiting
                return

    def _look_through_window(self, token_id: int) -> str:
        """Go on with a window, since the function turned out to be of no known kind."""
        done = "".join([*self._shown, *self._held])
        tail = self._pieces(self._ids)[len(done) :]
        self._window = _Lagging(self._pieces, self._ids[-len(self._run) - WINDOW :], tail)
        self._run.clear()
        return self._window.add(token_id)

    def _tail(self) -> str:
        if self._window:
            return self._window.tail
        if not self._run:
            return ""
        return self._run_text(None)[self._settled :]


def text_and_offsets(decode: Decode, ids: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    """Text of ids and, for each id, how many characters of it stand after that id.

    An id that ends inside a character counts up to the last complete one; the last offset is the
    length of the text. With one ``Pieces`` as ``decode`` for many traces it is faster.
    """
    text = decode(ids)
    offsets = _offsets_by_pieces(decode, ids, text) if isinstance(decode, Pieces) else None
    if offsets is None:
        offsets = _offsets_by_single_ids(decode, ids, text)
    if offsets is None:
        offsets = _offsets_by_window(decode, ids, text)
    if offsets is None:
        offsets = _offsets_by_prefixes(decode, ids, text)
    if offsets:
        offsets[-1] = len(text)
    return text, tuple(offsets)


def _offsets_by_single_ids(decode: Decode, ids: Sequence[int], text: str) -> list[int] | None:
    """Offsets where the text is that of each id by itself; None where it is not."""
    pieces = {token_id: decode([token_id]) for token_id in dict.fromkeys(ids)}
    parts = [pieces[token_id] for token_id in ids]
    # With byte-level tokenizers a character that is split over tokens makes the whole shorter
    # than its pieces, so equality proves that every token ends at a character's end.
    if sum(map(len, parts)) != len(text) or "".join(parts) != text:
        return None
    return list(accumulate(map(len, parts)))


def _offsets_by_pieces(pieces: Pieces, ids: Sequence[int], text: str) -> list[int] | None:
    """Offsets where every token adds its own bytes; None where that does not hold."""
    if pieces.kind is not DecoderKind.JOINED:
        return None
    detokenizer = Detokenizer(pieces)
    settled = [detokenizer.settle(token_id) for token_id in ids]
    if pieces.kind is not DecoderKind.JOINED or "".join(settled) + detokenizer.rest() != text:
        return None
    return list(accumulate(len(part) for part in settled))


def _offsets_by_window(decode: Decode, ids: Sequence[int], text: str) -> list[int] | None:
    """Offsets by the last few ids each; None if their texts do not add up to the whole."""
    window = _Window(decode)
    offsets: list[int] = []
    reached = 0
    agrees = True
    for token_id in ids:
        if window.add(token_id):
            there = text[window.start : window.start + len(window.text)]
            agrees = there == window.text
            # What the decoder makes of incomplete characters comes right with a later id.
            common = (
                len(there) - _waiting(there) if agrees else len(common_start([there, window.text]))
            )
            reached = max(reached, window.start + common)
            if agrees:
                window.shorten(len(there) - common)
        offsets.append(reached)
    return offsets if agrees and window.start + len(window.text) == len(text) else None


def _offsets_by_prefixes(decode: Decode, ids: Sequence[int], text: str) -> list[int]:
    """Offsets for a decoder that rewrites text behind itself, at quadratic cost."""
    offsets: list[int] = []
    reached = 0
    for end in range(1, len(ids) + 1):
        prefix = decode(ids[:end])
        common = len(prefix)
        while not text.startswith(prefix[:common]):
            common -= 1
        reached = max(reached, common)
        offsets.append(reached)
    return offsets
