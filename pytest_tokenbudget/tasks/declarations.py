r"""Where the answer stands that a keyword announces, and where the answer to the problem ends.

The region of a keyword (`answer_keywords`) is the rest of its line or sentence, what its braces
hold, or what its tags enclose. Regions are bounded, and none reaches into the next declaration, so
all of them together are read in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from pytest_tokenbudget.tasks.answer_keywords import Keyword

LONGEST_GAP = 80
LONGEST_BOX = 200
DEEPEST_BOX = 8
LONGEST_REGION = 300
BOX_TAIL = 40


class Region(NamedTuple):
    """Where an answer stands.

    Attributes:
        start: Its first character that is no blank or mark of emphasis.
        end: Its end.
        line_end: The end of its last line.
        closed: Whether nothing that may still be written can change where it ends.
    """

    start: int
    end: int
    line_end: int
    closed: bool


_LEAD = re.compile(r"(?:[\s*_`\"'#~:]|(?<=\n)>|\\[\[(]|\$(?=[\s$])|\${2})*+")
_FULL_STOPS = "\u3002\uff01\uff1f\u0964\u06d4\u061f"
# Not of a factorial, which a sentence goes on after.
EXCLAMATION = r"!(?=[\"')*_`<]{0,2}+(?:\n|[ \t]{1,3}[^\sa-z]|\s?\Z))"
_BREAK = re.compile(
    rf"\n|[{_FULL_STOPS}]|;(?=\s*+[^\s0-9$(\\-])|[.?](?=[\s\"')\]*_`}}<]|\Z)|(?<=[*_`)\]}}\"'])\.|{EXCLAMATION}"
)
_ABBREVIATION = re.compile(r"(?:^|[^A-Za-z])(?:approx|ca|vs|i\.e|e\.g|mr|mrs|dr)\Z", re.I)
_BLANK = " \t\r*_`\"'"


def region_of(view: str, keyword: Keyword, following: int) -> Region | None:
    """Where the answer stands that ``keyword`` announces.

    Args:
        view: A readable view of a text.
        keyword: The keyword.
        following: Where the next keyword begins; the length of the text where none does.

    Returns:
        None where nothing follows the keyword.
    """
    if keyword.form == "box":
        end = _closing_brace(view, keyword.end)
        if end is None or not view[keyword.end : end].strip():
            return None
        return Region(keyword.end, end, end, closed=True)
    lead = _LEAD.match(view, keyword.end, keyword.end + LONGEST_GAP)
    start = lead.end() if lead else keyword.end
    limit = min(following, start + LONGEST_REGION)
    if start >= limit:
        return None
    if keyword.form == "tag":
        return _within_tag(view, start, limit)
    line_end = view.find("\n", start, limit)
    place = start
    # One character more, since what follows a full stop decides whether it is one.
    while (stop := _BREAK.search(view, place, limit + 1)) and stop.start() < limit:
        if stop[0] == "." and _ABBREVIATION.search(
            view[max(start, stop.start() - 8) : stop.start()]
        ):
            place = stop.end()
            continue
        # A sign at the very end may be followed by what makes it none.
        closed = (
            stop.end() + 6 * (stop[0] == "!") < len(view)
            or stop[0] in f"\n{_FULL_STOPS}"
            or _is_closed(view, stop)
        )
        return Region(start, stop.start(), line_end if line_end >= 0 else limit, closed)
    return Region(start, limit, line_end if line_end >= 0 else limit, closed=limit < len(view))


def _is_closed(view: str, stop: re.Match[str]) -> bool:
    return stop[0] == "." and view[stop.start() - 1 : stop.start()] in tuple("*_`)]}\"'")


def _within_tag(view: str, start: int, limit: int) -> Region:
    close = re.compile(r"[<\[]/").search(view, start, limit)
    end = close.start() if close else limit
    return Region(start, end, end, closed=bool(close) or limit < len(view))


_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def _closing_brace(text: str, start: int) -> int | None:
    if text.find("}", start, start + LONGEST_BOX) < 0:
        return None
    depth = 1
    for brace in _BRACE.finditer(text, start, start + LONGEST_BOX):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.start()
        if depth > DEEPEST_BOX:
            return None
    return None


def reach(view: str, keyword: Keyword, following: int) -> int:
    """How far a text must go for what ``keyword`` declares to be settled."""
    if keyword.form == "box":
        end = _closing_brace(view, keyword.end)
        return keyword.end + LONGEST_BOX + 1 if end is None else end + BOX_TAIL + 2
    region = region_of(view, keyword, following)
    return keyword.end + LONGEST_GAP + 2 if region is None else region.line_end + 8


class NextQuestion(NamedTuple):
    """Where a text goes on with another question.

    Attributes:
        start: Where the line begins that asks it.
        turn: Whether it is marked as a message of the user.
    """

    start: int
    turn: bool


_NEXT_QUESTION = re.compile(
    r"""\n[ \t]*+(?i:(?P<mark>[#*_>-]++[ ]?)*+
    (?:
        (?:(?:the|a|an|here|is|now|next|new|another|follow-?up|similar|practice|bonus|extra|sample
           |example|word|maths?|test|your|second|third)[ ]){0,4}+
        (?:question|problem|exercise|q|frage|pregunta|pergunta|domanda|вопрос)
        [ ]*+(?:[0-9]{1,3}|[A-Z](?![A-Za-z]))?+[*_]*+[ ]*+(?:[:.)](?<!q[.)])|(?(mark)(?=\n)|:))
      | example[ ]*+[0-9]{1,3}[*_]*+(?::|(?(mark)(?=\n)|:))
      | (?P<turn>(?:human|user|student)[*_]*+:)
      | (?:问题|题目|問題|问|質問|질문|문제)[ ]*+[0-9]{0,3}[:]
      | (?P<special><\|(?:im_start\|>|start_header_id\|>)?user|\[INST\])
    ))""",
    re.VERBOSE,
)


def find_questions(view: str) -> Iterator[NextQuestion]:
    """Where lines, but for the first, ask another question, in order."""
    for match in _NEXT_QUESTION.finditer(view):
        yield NextQuestion(match.start() + 1, bool(match["turn"] or match["special"]))
