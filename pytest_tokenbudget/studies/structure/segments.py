"""The structure of a solution: what is setup, computation, verification, answer, and repetition.

A text is split into sentences (`texts.sentences`), each gets a kind by `rules`, and each token
belongs to the segment in which its text begins. Where a model thinks first, thinking and answer are
segmented each on its own by the same rules: what is declared while thinking is no declaration of
the answer.

Repetition is found on token ids: a stretch that is its own continuation, at least `MIN_REPEATS`
times over and `MIN_LOOP` tokens long, is a loop. Time is linear in the length throughout.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from pytest_tokenbudget.studies.structure.rules import RuleSentence, SegmentKind, classify
from pytest_tokenbudget.tasks.equations import Equation, equations
from pytest_tokenbudget.texts.sentences import sentences

GRAM = 4
MIN_LOOP = 24
MIN_REPEATS = 3


class Segment(NamedTuple):
    """A sentence with what it does.

    Attributes:
        kind: What it does.
        start: Its first character in the text.
        end: The character after its last; the next segment begins there.
        operations: Operations of its equations.
        right: Its equations that are right.
        wrong: Its equations that are wrong.
        unclear: Its equations that cannot be recomputed.
    """

    kind: SegmentKind
    start: int
    end: int
    operations: int = 0
    right: int = 0
    wrong: int = 0
    unclear: int = 0


class Loop(NamedTuple):
    """A stretch of tokens that repeats itself.

    Attributes:
        start: The first token of the first copy.
        period: Tokens of one copy.
        tokens: Tokens of all copies, the last one perhaps unfinished.
        to_the_end: Whether it goes on to the last token, end-of-sequence aside.
    """

    start: int
    period: int
    tokens: int
    to_the_end: bool

    @property
    def repeats(self) -> float:
        """How many copies there are."""
        return self.tokens / self.period


@dataclass(frozen=True)
class Structure:
    """The segments of one trace, and where its tokens lie.

    Attributes:
        segments: They touch, and together they are all of the text; thinking first.
        thinking: How many of the segments are thinking.
        begun: For each segment, how many tokens it takes to see something of it.
        done: For each segment, how many tokens it takes to see all of it, white space at its end
            aside; None where the trace was cut inside of it.
        tokens: For each segment, how many tokens begin in it.
        loop: The longest loop, None where there is none.
        ended: Whether the trace came to its end by itself.
    """

    segments: tuple[Segment, ...]
    thinking: int
    begun: tuple[int, ...]
    done: tuple[int | None, ...]
    tokens: tuple[int, ...]
    loop: Loop | None
    ended: bool

    def indices(self, kind: SegmentKind, thinking: bool = False) -> list[int]:
        """Indices of the segments of ``kind``, in the answer or in the thinking."""
        places = range(self.thinking) if thinking else range(self.thinking, len(self.segments))
        return [index for index in places if self.segments[index].kind is kind]

    def tokens_of(self, kind: SegmentKind, thinking: bool = False) -> int:
        """How many tokens segments of ``kind`` have."""
        return sum(self.tokens[index] for index in self.indices(kind, thinking))

    @property
    def steps(self) -> int:
        """Computation segments of the answer that hold an operation."""
        return sum(self.segments[i].operations > 0 for i in self.indices(SegmentKind.COMPUTATION))

    def begun_at(self, kind: SegmentKind) -> int | None:
        """Tokens after which the answer's first segment of ``kind`` has begun; None without one."""
        places = self.indices(kind)
        return self.begun[places[0]] if places else None

    def done_at(self, kind: SegmentKind) -> int | None:
        """Tokens after which the answer's last segment of ``kind`` is whole, None if never."""
        places = self.indices(kind)
        return self.done[places[-1]] if places else None


def segment(text: str, complete: bool = True) -> list[Segment]:
    """Segment a solution.

    Returns:
        Segments in order; they touch, and together they are all of the text.
    """
    spans = sentences(text)
    found = equations(text, truncated=not complete)
    places = [bisect_right(spans, (e.start, len(text) + 1)) - 1 for e in found]
    inside: list[list[Equation]] = [[] for _ in spans]
    for place, equation in zip(places, found, strict=True):
        inside[place].append(equation)
    units = []
    for (start, end), own in zip(spans, inside, strict=True):
        before = text[max(0, start - 2) : start]
        units.append(
            RuleSentence(
                text=text[start:end],
                computed=tuple(_shown(e.value) for e in own),
                operations=sum(e.operations for e in own),
                starts_line=start == 0 or before.endswith("\n"),
                new_paragraph=before == "\n\n",
            )
        )
    kinds = classify(units, complete)
    return [
        Segment(
            kind,
            start,
            end,
            operations=sum(e.operations for e in own),
            right=sum(e.right is True for e in own),
            wrong=sum(e.right is False for e in own),
            unclear=sum(e.right is None for e in own),
        )
        for (start, end), kind, own in zip(spans, kinds, inside, strict=True)
    ]


def trace_structure(
    text: str,
    offsets: Sequence[int],
    ids: Sequence[int],
    ended: bool,
    *,
    thinking_end: int = 0,
    tags: Sequence[str] = (),
) -> Structure:
    """The structure of one trace.

    Args:
        text: Its decoded output.
        offsets: For each token, how many characters of the text stand after it.
        ids: Its token ids.
        ended: Whether it came to its end by itself.
        thinking_end: Where its thinking ends in the text, the closing tag included; 0 without any.
        tags: Texts that open and close thinking; each is a segment of kind "other".

    Raises:
        ValueError: If there is not one offset for each id.
    """
    if len(offsets) != len(ids):
        raise ValueError(f"{len(offsets)} offsets for {len(ids)} token ids")
    open_end = thinking_end >= len(text)
    thought = _thinking_segments(text[:thinking_end], tags, ended or not open_end)
    answer = [
        s._replace(start=s.start + thinking_end, end=s.end + thinking_end)
        for s in segment(text[thinking_end:], ended)
    ]
    segments = [*thought, *answer] or ([Segment(SegmentKind.OTHER, 0, 0)] if ids else [])
    starts = [s.start for s in segments]
    tokens = [0] * len(segments)
    before = 0
    for offset in offsets:
        # Tokens without text, such as end-of-sequence, go to where the text has come to.
        place = before if offset > before else max(before - 1, 0)
        tokens[max(bisect_right(starts, place) - 1, 0)] += 1
        before = offset
    begun, done = [], []
    for s in segments:
        body = text[s.start : s.end]
        lead = len(body) - len(body.lstrip())
        begun.append(_tokens_to_see(offsets, s.start + (lead if body.strip() else 0) + 1))
        seen = s.start + len(body.rstrip())
        touches_cut = s is segments[-1] and not ended
        done.append(None if touches_cut else _tokens_to_see(offsets, seen))
    # Where the answer is empty because thinking never ended, the thinking is what was cut.
    return Structure(
        tuple(segments),
        len(thought),
        tuple(begun),
        tuple(done),
        tuple(tokens),
        find_loop(ids, ended),
        ended,
    )


def find_loop(ids: Sequence[int], ended: bool = False) -> Loop | None:
    """The longest stretch of tokens that is its own continuation, None where there is none.

    Args:
        ids: Token ids. Those below 0 are not known (recorded text), and are part of no loop.
        ended: Whether the last id is an end-of-sequence, which belongs to no loop.
    """
    last_seen: dict[tuple[int, ...], int] = {}
    best: Loop | None = None
    count = len(ids) - 1 if ended and ids else len(ids)
    period, first = 0, 0  # of the stretch that is being followed
    for at in range(count - GRAM + 1):
        gram = tuple(ids[at : at + GRAM])
        if min(gram) < 0:
            period = 0
            continue
        seen = last_seen.get(gram, -1)
        last_seen[gram] = at
        distance = at - seen if seen >= 0 else 0
        if distance != period:
            period, first = distance, seen
        if not period:
            continue
        tokens = at + GRAM - first
        if (
            tokens >= MIN_LOOP
            and tokens >= MIN_REPEATS * period
            and (best is None or tokens > best.tokens)
        ):
            best = Loop(first, period, tokens, at + GRAM == count)
    return best


def totals(structures: Sequence[Structure]) -> Mapping[str, int]:
    """Sums over traces: segments, equations, operations, loops."""
    answers = [s for one in structures for s in one.segments[one.thinking :]]
    return {
        "segments": len(answers),
        "operations": sum(s.operations for s in answers),
        "equations_right": sum(s.right for s in answers),
        "equations_wrong": sum(s.wrong for s in answers),
        "equations_unclear": sum(s.unclear for s in answers),
        "traces_with_a_wrong_equation": sum(
            any(s.wrong for s in one.segments[one.thinking :]) for one in structures
        ),
        "traces_with_a_loop": sum(one.loop is not None for one in structures),
        "loops_to_the_end": sum(one.loop is not None and one.loop.to_the_end for one in structures),
    }


def _thinking_segments(text: str, tags: Sequence[str], complete: bool) -> list[Segment]:
    """Segments of thinking, its tags as segments of their own."""
    segments: list[Segment] = []
    place = 0
    edges: list[tuple[int, int]] = []
    for tag in tags:
        at = text.find(tag) if tag else -1
        while at >= 0:
            edges.append((at, at + len(tag)))
            at = text.find(tag, at + len(tag))
    for start, end in [*sorted(edges), (len(text), len(text))]:
        if start > place:
            last = start == len(text)
            segments += (
                s._replace(start=s.start + place, end=s.end + place)
                for s in segment(text[place:start], complete or not last)
            )
        if end > start:
            segments.append(Segment(SegmentKind.OTHER, start, end))
        place = max(place, end)
    return segments


def _tokens_to_see(offsets: Sequence[int], characters: int) -> int:
    """How many tokens it takes until that many characters stand."""
    return min(bisect_left(offsets, characters) + 1, len(offsets))


def _shown(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.6f}".rstrip("0").rstrip(".")
