"""Where a text declares an answer: the keywords that announce it, the regions in which it stands.

A keyword is a word or mark that announces an answer, in the languages that models are tested in.
Its region is the rest of its line or sentence, what its braces hold, or what its tags enclose.
Regions are bounded, and none reaches into the next declaration, so all of them together are read in
linear time.
"""

# ruff: noqa: RUF001

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from pytest_tokenbudget.tasks.number_sentences import LEADING_WORDS
from pytest_tokenbudget.tasks.numbers import VULGAR

Branch = Literal["hash", "boxed", "answer_is"]
Form = Literal["hash", "box", "is", "colon", "tag", "mention"]


class Keyword(NamedTuple):
    """What announces an answer.

    Attributes:
        start: Where it begins.
        end: Where it ends, and its region begins.
        form: How it announces: "is" a sentence, "colon" a label that reasoning may follow too,
            "mention" a sentence that holds no number.
    """

    start: int
    end: int
    form: Form

    @property
    def branch(self) -> Branch:
        if self.form == "hash":
            return "hash"
        return "boxed" if self.form == "box" else "answer_is"


_VERB = (
    r"(?:is|are|was|were|(?:will|would|should|must|could|has[ ]to|can[ ]only)[ ]be|equals|becomes"
    r"|comes[ ]out[ ](?:to|as)(?:[ ]be)?|turns[ ]out[ ]to[ ]be)(?![A-Za-z])"
).replace("[ ]", r"\s{1,4}")
# "answer", found by its literal end, which is much faster than ignoring case from the beginning.
_ANSWER_TAIL = rf"""
    (?:(?<![A-Za-z].nswer)(?<=[Aa]nswer)|(?<=[a-z]Answer)|(?<![A-Za-z]ANSWER)(?<=ANSWER))
    (?i:s?+(?![A-Za-z])
    (?:
        (?:(?<=[<\[]answer)|(?<=[<\[]final.answer))[>\]] (?P<tag>)
      | [ ]*+[0-9]{{1,2}}[ *_]*+[:=]
      | ["'`)]?+[\s*_]*+
        (?:\([^()\n:={{}}\#]{{0,40}}+\)[\s*_]*+)?+
        (?:
            (?:(?:to|for|of|in)\s[^.!?:=\n{{}}<>\[\]\#\\]{{0,80}}?\s)?{_VERB} (?P<is>)
          | (?:[:=]|->|[\u2192\u21d2\uff1a]) (?P<colon>)
        )
        (?=[ *_]*+(?P<word>[A-Za-z]++)[^\n.;!?:0-9{VULGAR}]{{0,300}}+(?<!approx)[.!?]\s)?
      | [ ]*+(?:[0-9]{{1,2}}[ ]*+)?[*_]*+[ ]*+(?=\n) (?P<line>)
    ))"""
_ANSWERS = [re.compile(end + _ANSWER_TAIL, re.VERBOSE) for end in ("nswer", "NSWER")]
# Each begins with a literal, so that the search for it is fast.
_LABELS = [
    re.compile(pattern)
    for pattern in (
        r"Ans[.:=](?<![A-Za-z]Ans.)", r"ANS[.:=](?<![A-Za-z]ANS.)", r"ans[:=](?<![A-Za-z]ans.)",
        r"\n[ \t*_>]*+A[*_]*+:",
    )
]  # fmt: skip
_FIRST_LABEL = re.compile(r"[ \t*_>]*+A[*_]*+:")
_HASH = re.compile(
    rf"\#{{4,}}+[\s*_]*+(?:(?:so|the|my|final|correct)[\s*_]++)*+"
    rf"(?:answer[\s*_]*+(?:{_VERB}|[:=]))?+",
    re.IGNORECASE,
)
_BOX = re.compile(r"boxed[ ]?\{")
# Languages that models are commonly tested in.
_FOREIGN = re.compile(
    r"""(?:
        (?:最终)?答案\s*+(?:[是为為:=]|应该是|應該是)++
      | (?<!\w)答\s*+[:=] | 正解は | 答え\s*+(?:[は:=]|は[、:])++
      | (?:정답|답)\s*+(?:[은:=])++
      | (?:الجواب|الإجابة|الاجابة)(?:\s++(?:النهائي|النهائية|الصحيح|الصحيحة))?+\s*+(?:هو|هي|:|=)
      | উত্তর\s*+(?:হল|হলো|হচ্ছে|হবে|:|=) | उत्तर\s*+(?:है|:|=) | సమాధానం\s*+[:=]? | คำตอบ\s*+(?:คือ|:|=)
      | (?i:r(?:espuesta|éponse|esposta|isposta)(?:[ ](?:final|finale|correcta|correcte|correta))?+
        [\s*_]*+(?:es|est|é|è|:|=))(?![A-Za-z])
      | (?i:antwort[\s*_]*+(?:ist|lautet|beträgt|:|=))(?![A-Za-z])
      | (?i:ответ[\s*_]*+[:=]) | (?i:cevap[\s*_]*+[:=]) | (?i:jibu[ ]ni)
      | (?i:đáp[ ]án[\s*_]*+(?:là|:|=))
    )""",
    re.VERBOSE,
)
_FOREIGN_NEEDLES = ("spuesta", "sposta", "ntwort", "evap", "ibu ni")
_FOREIGN_NEEDLES_BEYOND_ASCII = (
    *"答案 答 正解は 정답 답 الجواب الإجابة الاجابة উত্তর उत्तर సమాధానం คำตอบ éponse ÉPONSE".split(),
    *("твет", "ТВЕТ", "áp án", "ÁP ÁN"),
)
_MOST_LETTERS_BEFORE = 2


def find_keywords(view: str) -> list[Keyword]:
    """The keywords of a view, in order; none lies within another."""
    found = [*_marks(view), *_answers(view), *_foreign(view)]
    found.sort()
    kept: list[Keyword] = []
    end = 0
    for keyword in found:
        start, stop, _ = keyword  # faster than by name
        if start >= end:
            kept.append(keyword)
            end = stop
    return kept


def last_first(keywords: list[Keyword], end: int) -> Iterator[tuple[Keyword, int]]:
    """Keywords before ``end`` from the last to the first, each with where the next begins."""
    following = end
    for keyword in reversed(keywords):
        start, stop, _ = keyword
        if stop < end:
            yield keyword, following
            following = start


def _marks(view: str) -> Iterator[Keyword]:
    for at in _occurrences(view, "####"):
        if view[at - 1 : at] != "#" and (match := _HASH.match(view, at)):
            yield Keyword(at, match.end(), "hash")
    for match in _BOX.finditer(view):
        yield Keyword(match.start(), match.end(), "box")


def _answers(view: str) -> Iterator[Keyword]:
    for answer in _ANSWERS:
        for match in answer.finditer(view):
            start, end = match.span()
            kind = match.lastgroup
            # Most words begin a sentence that holds no number.
            if kind == "word" and match["word"].lower() not in LEADING_WORDS:
                yield Keyword(start - 1, end, "mention")
            elif form := _form(match, view, start - 1):
                yield Keyword(start - 1, end, form)
    first = _FIRST_LABEL.match(view)
    if first:
        yield Keyword(0, first.end(), "colon")
    for label in _LABELS:
        for match in label.finditer(view):
            yield Keyword(match.start(), match.end(), "colon")


def _form(match: re.Match[str], view: str, start: int) -> Form | None:
    kind = match.lastgroup
    if match["is"] is not None:
        return "is"
    if kind == "tag":
        return "tag"
    return "colon" if kind != "line" or _begins_line(view, start) else None


def _foreign(view: str) -> Iterator[Keyword]:
    needles = [*_FOREIGN_NEEDLES, *(() if view.isascii() else _FOREIGN_NEEDLES_BEYOND_ASCII)]
    for needle in needles:
        for at in _occurrences(view, needle):
            for start in range(at, max(at - _MOST_LETTERS_BEFORE, 0) - 1, -1):
                if match := _FOREIGN.match(view, start):
                    yield Keyword(start, match.end(), "is")
                    break


def _occurrences(text: str, needle: str) -> Iterator[int]:
    at = text.find(needle)
    while at >= 0:
        yield at
        at = text.find(needle, at + len(needle))


_LINE_LEAD = re.compile(r"[ \t#*_>-]*+(?:(?:the|my|so|final|correct)[ *_]*+)*+\Z", re.IGNORECASE)


def _begins_line(view: str, at: int) -> bool:
    """Whether nothing but marks, and words such as "final", stand before ``at`` on its line."""
    first = max(0, at - 40)
    newline = view.rfind("\n", first, at)
    if newline < 0 and first:
        return False
    return _LINE_LEAD.match(view[newline + 1 if newline >= 0 else 0 : at]) is not None


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
_CLOSING_TAG = re.compile(r"[<\[]/")


def region_of(view: str, keyword: Keyword, following: int) -> Region | None:
    """Where the answer stands that ``keyword`` announces; None where nothing follows the keyword.

    The next keyword begins at ``following``, which is the length of the text where none does.
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
        close = _CLOSING_TAG.search(view, start, limit)
        end = close.start() if close else limit
        return Region(start, end, end, closed=bool(close) or limit < len(view))
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
            or (stop[0] == "." and view[stop.start() - 1 : stop.start()] in tuple("*_`)]}\"'"))
        )
        return Region(start, stop.start(), line_end if line_end >= 0 else limit, closed)
    return Region(start, limit, line_end if line_end >= 0 else limit, closed=limit < len(view))


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


def settled_length(view: str, keyword: Keyword, following: int) -> int:
    """How far a text must go for what ``keyword`` declares to be settled."""
    if keyword.form == "box":
        end = _closing_brace(view, keyword.end)
        return keyword.end + LONGEST_BOX + 1 if end is None else end + BOX_TAIL + 2
    region = region_of(view, keyword, following)
    return keyword.end + LONGEST_GAP + 2 if region is None else region.line_end + 8


class NextQuestion(NamedTuple):
    """Where the line begins that asks another question; whether it is marked as a user's turn."""

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
