"""What single tokens decode to, learned from a decode function and checked against it.

Most tokenizers decode token by token: behind the first one, the text of a sequence is the texts of
its tokens put together. Two things break that. Byte-level tokenizers cut characters in pieces, and
tokenizers that fall back to bytes turn a whole run of byte tokens into replacement characters where
one of them does not fit. Which kind a decode function is of shows in what it makes of a few
hundred ids; each further id is tried, on first sight, between the kinds of neighbours that matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple

Decode = Callable[[Sequence[int]], str]

REPLACEMENT = "\ufffd"
# Byte tokens and punctuation have low ids wherever they exist: how many ids are looked at in any
# case, and how many as long as something is not found.
SCANNED = 512
SCANNED_AT_MOST = 2048
# Runs of parts of characters that are remembered.
REMEMBERED = 50_000
REMEMBERED_LENGTH = 16
# Complete runs that are tried beside an incomplete one, and runs read by bytes that are checked.
TRIED_RUNS = 64
# Signs that some decoders tidy up, by removing spaces around them.
TIDIED = " .,!?'"


class DecoderKind(Enum):
    """How a decode function puts tokens together.

    ``JOINED``: each token adds its own bytes; what is no character becomes a replacement one.
    ``RUNS``: so too, but a run of byte tokens is decoded as one, well or not at all.
    ``OTHER``: nothing of that is known to hold.
    """

    JOINED = "joined"
    RUNS = "runs"
    OTHER = "other"


class _Anchor(NamedTuple):
    """A token that stands for whatever comes before and after another one.

    ``first`` is its text where it is the first, ``inside`` its text behind others.
    """

    id: int
    first: str
    inside: str


class _Stray(NamedTuple):
    """A token that is a part of a character, and its text where the others are missing."""

    id: int
    text: str


class Pieces:
    """A decode function together with what is known of its tokens.

    It may be called like the function itself. Keep one for a tokenizer, so that it is learned once.
    The function is asked for many short sequences: not for a server's. ``kind`` is how it puts
    tokens together, as far as is known; ``free`` has texts of tokens that are whole and can be
    shown at once.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self.kind = DecoderKind.OTHER
        self.free: dict[int, str] = {}
        self._whole: dict[int, str] = {}
        self._parts: set[int] = set()
        self._runs: dict[tuple[int, ...], str] = {}
        # Bytes of tokens that are parts of characters, and how often they are still compared with
        # what the function says.
        self._bytes: dict[int, bytes] = {}
        self._reads = True
        self._unread = self._untried = TRIED_RUNS
        self._signs: dict[str, int] = {}
        self._anchor: _Anchor | None = None
        self._stray: _Stray | None = None
        self._scan()

    def __call__(self, ids: Sequence[int]) -> str:
        return self._decode(ids)

    @property
    def known(self) -> bool:
        return self.kind is not DecoderKind.OTHER

    def piece(self, token_id: int) -> str | None:
        """Text of a token behind others, empty where it has none; None for part of a run.

        What it returns holds only if ``known`` is still true afterwards.
        """
        known = self._whole.get(token_id)
        if known is not None or token_id in self._parts or not self.known:
            return known
        self._learn(token_id)
        return self._whole.get(token_id)

    def run(self, ids: tuple[int, ...]) -> str:
        """Text of parts of characters that stand behind other tokens.

        What it returns holds only as long as ``kind`` is the same afterwards.
        """
        text = self._runs.get(ids)
        if text is None:
            text = self._by_bytes(ids)
            if text is None:
                text = self._behind_anchor(ids)
                if text is None:
                    self._give_up()
                    return ""
                self._note_bytes(ids, text)
            if self._untried and self.kind is DecoderKind.JOINED and not text.endswith(REPLACEMENT):
                self._untried -= 1
                self._try_complete(ids, text)
            if len(ids) <= REMEMBERED_LENGTH:
                if len(self._runs) >= REMEMBERED:
                    self._runs.clear()
                self._runs[ids] = text
        return text

    def _scan(self) -> None:
        """Find out the kind by low ids, which no sequence needs to have."""
        seen = list(self._low_ids())
        self._stray = next(
            (_Stray(i, text) for i, text in seen if text.strip(" ") == REPLACEMENT), None
        )
        self._anchor = next(filter(None, (self._as_anchor(i, text) for i, text in seen)), None)
        if self._anchor is None:
            return
        self.kind = DecoderKind.JOINED
        if self._stray is not None:
            self._stray = _Stray(self._stray.id, self._behind_anchor((self._stray.id,)) or "")
            for token_id, text in seen:
                if token_id == self._stray.id or self.kind is not DecoderKind.JOINED:
                    break
                if text and REPLACEMENT not in text:
                    self._learn(token_id)
        for token_id, text in seen:
            if text and text.strip(" ") in TIDIED:
                self.piece(token_id)

    def _low_ids(self) -> Iterator[tuple[int, str]]:
        found_stray = found_word = False
        for token_id in range(SCANNED_AT_MOST):
            if token_id >= SCANNED and found_stray and found_word:
                return
            try:
                text = self._decode([token_id])
            # An id beyond the vocabulary: what is raised then is the tokenizer's own affair.
            except Exception:
                return
            found_stray |= text == REPLACEMENT
            found_word |= len(text) > 1 and text.strip().isalnum()
            yield token_id, text

    def _as_anchor(self, token_id: int, text: str) -> _Anchor | None:
        if not text.strip().isalnum():
            return None
        two = self._decode([token_id] * 2)
        inside = two[len(text) :]
        if not inside or two != text + inside or self._decode([token_id] * 3) != two + inside:
            return None
        if self._stray is not None:
            between = self._decode([token_id, self._stray.id, token_id])
            if not (between.startswith(text) and between.endswith(inside)):
                return None
        return _Anchor(token_id, text, inside)

    def _try_tidied(self, token_id: int, text: str) -> None:
        """Try a sign beside those that were met before, in both orders."""
        anchor = self._anchor
        assert anchor is not None
        self._signs[text] = token_id
        for other, other_id in self._signs.items():
            before, after = (other_id, token_id, anchor.id), (token_id, other_id, anchor.id)
            if (
                self._behind_anchor(before) != other + text + anchor.inside
                or self._behind_anchor(after) != text + other + anchor.inside
            ):
                self._give_up()

    def _behind_anchor(self, ids: Sequence[int]) -> str | None:
        """Text that ids add to the anchor; None if they change the anchor's."""
        anchor = self._anchor
        assert anchor is not None
        text = self._decode([anchor.id, *ids])
        return text[len(anchor.first) :] if text.startswith(anchor.first) else None

    def _give_up(self) -> None:
        self.kind = DecoderKind.OTHER
        # Whoever looks here only has to come back and ask.
        self.free.clear()

    def _learn(self, token_id: int) -> None:
        """Try a token between its like, words, and parts of characters."""
        anchor, stray = self._anchor, self._stray
        assert anchor is not None
        text = self._behind_anchor((token_id,))
        if text is None:
            self._give_up()
            return
        if REPLACEMENT in text:
            self._parts.add(token_id)
            if stray is None:
                # What has been learned was not tried beside one of these.
                self._stray = _Stray(token_id, text)
                self._whole.clear()
                self.free.clear()
            return
        last = anchor.inside
        if self._behind_anchor((token_id, token_id, anchor.id)) != text + text + last:
            self._give_up()
            return
        if stray is not None:
            among = self._behind_anchor((stray.id, token_id, stray.id, anchor.id))
            if among != stray.text + text + stray.text + last and text:
                self.kind = DecoderKind.RUNS
                self._parts.add(token_id)
                return
        if text and text.strip(" ") in TIDIED and text not in self._signs:
            self._try_tidied(token_id, text)
        self._whole[token_id] = text
        if text and self.known and not may_combine(text[-1]):
            self.free[token_id] = text

    def _by_bytes(self, ids: tuple[int, ...]) -> str | None:
        """Text of ids whose bytes are all known; None where some are not."""
        if not self._reads or self.kind is not DecoderKind.JOINED:
            return None
        try:
            text = b"".join([self._bytes[token_id] for token_id in ids]).decode(errors="replace")
        except KeyError:
            return None
        if self._unread:
            self._unread -= 1
            if text != self._behind_anchor(ids):
                # Not every decoder makes as many replacement characters of the same bytes.
                self._bytes.clear()
                self._reads = False
                return None
        return text

    def _note_bytes(self, ids: tuple[int, ...], text: str) -> None:
        """Learn bytes from a run that is complete: where there is but one way to divide it."""
        if not self._reads or self.kind is not DecoderKind.JOINED or REPLACEMENT in text:
            return
        raw = text.encode()
        if len(raw) == len(ids):
            self._bytes.update((ids[place], raw[place : place + 1]) for place in range(len(ids)))
            return
        new = [place for place, token_id in enumerate(ids) if token_id not in self._bytes]
        if len(new) == 1:
            before = sum(len(self._bytes[token_id]) for token_id in ids[: new[0]])
            after = sum(len(self._bytes[token_id]) for token_id in ids[new[0] + 1 :])
            self._bytes[ids[new[0]]] = raw[before : len(raw) - after]

    def _try_complete(self, ids: tuple[int, ...], text: str) -> None:
        """See whether characters that are complete stay so when a part of one follows."""
        stray = self._stray
        if stray is not None and self._behind_anchor((*ids, stray.id)) != text + stray.text:
            self.kind = DecoderKind.RUNS


def may_combine(char: str) -> bool:
    """Whether text that ends in ``char`` may look different with what follows it.

    Replacement character, zero-width joiner, variation selectors, skin tones.
    """
    return (
        char in "\ufffd\u200d"
        or "\ufe00" <= char <= "\ufe0f"
        or "\U0001f3fb" <= char <= "\U0001f3ff"
        or "\U000e0100" <= char <= "\U000e01ef"
    )
