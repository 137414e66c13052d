r"""Where sentences end in what a model wrote: prose, numbered steps, Markdown, LaTeX.

Every piece of a text belongs to exactly one unit, white space to the one before it. A unit is a
sentence, a line, or a whole block that must stay in one piece (displayed formula, code).

* A line break ends a unit, save where a formula goes on: the line ends in ``=`` or an operator, or
  the next one begins with ``=``; and save after a bare list marker or an abbreviation.
* ``.``, ``!`` and ``?`` end one when white space follows and what comes next does not begin with a
  small letter. Not the point of a number (``3.5``), of a list marker (``2. Then``), of an
  abbreviation (``Mrs. Lee``), or of an initial (``J. Lee``). Abbreviations that often stand at the
  end (``p.m.``, ``etc.``) end a sentence before a word that often begins one.
* The full-width stops of Chinese and Japanese end one without white space.
* ``$$...$$``, ``\[...\]``, LaTeX environments and fenced code are one unit each. An opening
  without its end is an ordinary sign.

The time is linear in the length of the text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from operator import itemgetter

Span = tuple[int, int]

# Not from within a run of points: every place of a long one would be tried.
_END = re.compile(r"(?<![.!?])[.!?]++[\"')\]*_`\u201d\u2019]{0,4}(?=\s)|[\u3002\uff01\uff1f]++|\n")
_NEVER_LAST = frozenset(
    "mr mrs ms dr prof st rev hon gen col lt sgt capt vs e.g i.e approx fig figs eq eqs cf al ca "
    "viz dept est gov sen rep mt".split()
)
_AT_TIMES_LAST = frozenset("a.m p.m u.s u.k etc inc ltd co corp jr sr ph.d".split())
_BEFORE_A_NUMBER = frozenset("no nos p pp vol ch sec art eq fig ex".split())
_STARTERS = frozenset(
    "a after all also altogether an and as at but by each finally first for from given he hence "
    "her his how however i if in it its let my next no now on one or our she since so that the "
    "their then there therefore these they this those thus to total two we what when which while "
    "who with you your".split()
)
_WORD_BEFORE = re.compile(r"[A-Za-z](?:\.?[A-Za-z])*\Z")
_MARKER = re.compile(r"[\s*_>#(-]*+(?:[0-9]{1,3}|[A-Za-z])[.)]?[*_)]*\Z")
_BARE_MARKER = re.compile(r"[ \t*_>]*+(?:[0-9]{1,3}[.)]|[-*+\u2022])[ \t]*+\Z")
_NAME_BEFORE = re.compile(r"(?:^|[\s(])(?:[A-Z]\.|[A-Z][a-z]+\.?)\s+\Z")
_NEXT_WORD = re.compile(r"[\s\"'(*_`\u201c\u2018]*+([A-Za-z]+)")
_SMALL_NEXT = re.compile(r"\s+[\"'(*_`\u201c\u2018]*+[a-z]")
_GOES_ON = re.compile(r"(?:[=+\u00d7\u00f7\u00b7\u2248]|(?<=\s)[-*/\u2212\u2013])[ \t\\]*+\Z")
_TAKEN_UP = re.compile(r"[ \t&]*+[=\u2248]")
_BLOCK = re.compile(
    r"\$\$|\\\[|\\begin\{([A-Za-z]{1,20}\*?)\}|^[ \t]*+(```|~~~)[^\n]*+$", re.MULTILINE
)
_WHITE = re.compile(r"\s*+")
_LOOK_BACK = 24  # characters that decide about a point: no abbreviation or marker is longer


def sentences(text: str) -> list[Span]:
    """Units of ``text`` in order: they touch, and together they are all of it."""
    cuts = [0, *_cuts(text), len(text)]
    spans = [(start, end) for start, end in pairwise(cuts) if end > start]
    # What is nothing but white space belongs to the unit before it.
    units: list[Span] = []
    for start, end in spans:
        if units and not text[start:end].strip():
            units[-1] = (units[-1][0], end)
        else:
            units.append((start, end))
    if len(units) > 1 and not text[slice(*units[0])].strip():
        units[:2] = [(0, units[1][1])]
    return units


def _cuts(text: str) -> Iterator[int]:
    """Where units end, white space after them included, in rising order."""
    blocks = _blocks(text)
    starts = [start for start, _ in blocks]
    # At one place the edge of a block comes before what may end a sentence.
    stops: list[tuple[int, re.Match[str] | None]] = [
        *((edge, None) for edge in sorted({edge for block in blocks for edge in block})),
        *((match.end(), match) for match in _END.finditer(text)),
    ]
    last = 0
    for stop, match in sorted(stops, key=itemgetter(0)):
        if stop <= last:
            continue
        if match is not None:
            inside = bisect_right(starts, match.start()) - 1
            if inside >= 0 and match.start() < blocks[inside][1]:
                continue
            if not _ends(text, last, match):
                continue
        last = _WHITE.match(text, stop).end()  # type: ignore[union-attr]
        yield last


def _ends(text: str, start: int, match: re.Match[str]) -> bool:
    mark = match.group()
    place = match.start()
    if mark == "\n":
        return _line_ends(text, start, place)
    if mark[0] != ".":
        return mark[0] in "\u3002\uff01\uff1f" or not _SMALL_NEXT.match(text, match.end())
    if _SMALL_NEXT.match(text, match.end()):
        return False
    if mark.startswith("..") or len(mark.rstrip("\"')]*_`\u201d\u2019")) != 1:
        return True
    # The unit's beginning matters only where it is near.
    head = text[max(start, place - _LOOK_BACK) : place]
    if place - start <= _LOOK_BACK and _MARKER.fullmatch(head):
        return False
    return not _abbreviates(text, head, match.end())


def _abbreviates(text: str, head: str, after: int) -> bool:
    found = _WORD_BEFORE.search(head)
    if found is None:
        return False
    word = found.group().lower()
    if word in _NEVER_LAST:
        return True
    following = _NEXT_WORD.match(text, after, after + 40)
    follower = following.group(1).lower() if following else ""
    if word in _AT_TIMES_LAST:
        return bool(follower) and follower not in _STARTERS
    if word in _BEFORE_A_NUMBER and text[after : after + 2].strip()[:1].isdigit():
        return True
    # "J. Lee", "Mr. J. Lee"; but "of length X. Then".
    is_initial = len(word) == 1 and found.group().isupper()
    return (
        is_initial
        and follower not in _STARTERS
        and bool(_NAME_BEFORE.search(head[: found.start()]))
    )


def _line_ends(text: str, start: int, place: int) -> bool:
    line_start = max(start, place - _LOOK_BACK)
    line = text[line_start:place]
    line = line[line.rfind("\n") + 1 :]
    following = text[place + 1 : place + 2]
    if following == "\n" or not line.strip():
        return True
    if line_start == start and _BARE_MARKER.fullmatch(line):
        return False
    if _TAKEN_UP.match(text, place + 1) or _GOES_ON.search(line):
        return False
    if line.rstrip().endswith("."):
        found = _WORD_BEFORE.search(line.rstrip()[:-1])
        return found is None or found.group().lower() not in _NEVER_LAST
    return True


def _blocks(text: str) -> list[Span]:
    """Displayed formulas, environments and fenced code that are closed, without overlap."""
    blocks: list[Span] = []
    never: set[str] = set()  # closings that do not come any more
    place = 0
    while (match := _BLOCK.search(text, place)) is not None:
        environment, fence = match.group(1), match.group(2)
        closing = (
            f"\\end{{{environment}}}"
            if environment
            else f"\n{fence}"
            if fence
            else "$$"
            if match.group() == "$$"
            else "\\]"
        )
        found = -1 if closing in never else text.find(closing, match.end())
        if found < 0:
            never.add(closing)
            place = match.end()
            continue
        place = found + len(closing)
        blocks.append((match.start(), place))
    return blocks
