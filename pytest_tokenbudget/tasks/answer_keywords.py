"""Which words and marks announce an answer, in the languages that models are tested in."""

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
