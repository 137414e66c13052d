"""Answers that are texts: what a declaration may mean, and when two texts are the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from pytest_tokenbudget.tasks.base import NO_ANSWER, AnswerVerdict
from pytest_tokenbudget.tasks.declarations import (
    Keyword,
    Region,
    find_keywords,
    find_questions,
    last_first,
    region_of,
)
from pytest_tokenbudget.tasks.text_views import ascii_view, readable_view, without_markup

LONGEST_SHOWN = 200
MOST_SENTENCES = 8

_BRACES = str.maketrans("{}", "  ")
_DASHES = str.maketrans("\u2013\u2014", "--")
# Not among them: signs that carry meaning, as in "C#", "C++", "-x" or "50%".
_AROUND = " .,;:!?\"'\u201c\u201d\u2018\u2019\u00ab\u00bb\u3002\uff01()[]{}*_`~$\\"


def normalise(text: str) -> str:
    """What of a textual answer is compared.

    Compatibility forms, quotes and dashes are unified, case is folded, runs of white space become
    one space; markup, and white space, brackets, quotes and marks of sentences around the text go.
    """
    folded = _folded(text)
    view = without_markup(ascii_view(text).translate(_DASHES))
    if "\\" in text:
        view = view.translate(_BRACES)
    # What consists of such marks alone ("!") is compared as it stands.
    return _folded(view).strip(_AROUND) or folded.strip(_AROUND) or folded


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def shortened(text: str) -> str:
    """``text`` on one line and of bearable length."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_SHOWN else line[: LONGEST_SHOWN - 1] + "…"


def judge_text(expected: str, text: str, truncated: bool) -> AnswerVerdict:
    """Judge by normalised text.

    The last declaration counts, up to the end of a sentence or of its line; without one, a
    completed text as a whole is the answer. Of a choice ("(C) Paris") the letter is an answer and
    what it stands for is one.
    """
    wanted = normalise(expected)
    letter = wanted if len(wanted) == 1 and wanted.isalpha() else None
    view = readable_view(text, truncated)
    keywords = find_keywords(view)
    end = _answer_end(view, keywords)
    written = len(view[:end].rstrip())
    for keyword, following in last_first(keywords, end):
        region = region_of(view, keyword, following)
        if region is None:
            continue
        candidates = list(_candidates(view, keyword, region, following, truncated))
        right = any(_means(candidate, wanted, letter) for candidate in candidates)
        # With text after it, #### may be a heading too: then it counts only where it is right.
        final = keyword.form != "hash" or region.line_end >= written
        if right or (candidates and final):
            return AnswerVerdict(
                expected if right else shortened(candidates[0]), keyword.branch, right
            )
    if truncated or not text.strip():
        return NO_ANSWER
    answer = view[:end]
    label = _LABEL.match(answer.strip()) if letter else None
    right = normalise(answer) == wanted or (label is not None and label[1].casefold() == letter)
    return AnswerVerdict(expected if right else shortened(text[:end]), "text", right)


def _answer_end(view: str, keywords: list[Keyword]) -> int:
    """Where a question that the model asks itself ends its answer."""
    for question in find_questions(view):
        if keywords and keywords[0].start < question.start:
            return question.start
    return len(view)


_SENTENCE_END = re.compile("[.!?](?=[\\s\"')\\]*_`}<]|\\Z)|[\u3002\uff01\uff1f\u0964;]")


def _candidates(
    view: str, keyword: Keyword, region: Region, following: int, truncated: bool
) -> Iterator[str]:
    """What a declaration may mean: up to each end of a sentence, and its whole line."""
    if keyword.form in ("box", "tag"):
        if region.closed or not truncated:
            yield view[region.start : region.end]
        return
    newline = view.find("\n", region.start, following)
    end = newline if newline >= 0 else following
    ended = newline >= 0 or following < len(view) or not truncated
    line = view[region.start : end]
    closing = _PARTNERS.get(view[region.start - 1 : region.start])
    if closing and ended and (quoted := line.partition(closing))[1]:
        yield quoted[0]
    stops = [m.start() for m in _SENTENCE_END.finditer(line) if ended or m.end() < len(line)]
    for stop in stops[:MOST_SENTENCES]:
        if line[:stop].strip():
            yield line[:stop]
    if ended and line.strip():
        yield line


_PARTNERS = {'"': '"', "'": "'", "*": "*", "`": "`", "_": "_"}
# Where a sentence goes on about the answer.
_REMARK = re.compile(
    r"(?:,\s*+|(?<!\s)\s++)(?:because|since|as|which|although|though|but|so|not|where|who|while)"
    r"(?![A-Za-z])|(?<!\s)\s++(?:\(|</)"
)
_LABEL = re.compile(r"\W*([A-Za-z])\s?[).:](?:\W*|\s+.*)\Z", re.DOTALL)
_CHOICE = re.compile(
    r"[\W_]*+(?:(?:the|option|choice|letter|answer)\s++)*+[\W_]*+(?P<letter>[A-Za-z])"
    r"(?P<after>[)\].:,;]|\*\*|\s|\Z)",
    re.IGNORECASE,
)
_OTHER_CHOICE = re.compile(
    r"[\W_]*(?:,|/|&|(?<![A-Za-z])(?:or|and)(?![A-Za-z]))[\s*_(]*(?:(?:option|choice)\s+)?[A-Z](?![A-Za-z])"
)
_OPTION = re.compile(r"[\W_]*(?:(?:option|choice)\s+)?\(?[A-Za-z][).:]\s*(?=\S)", re.IGNORECASE)


def _means(candidate: str, wanted: str, letter: str | None) -> bool:
    """Whether a candidate is the wanted text, with or without what else stands with it."""
    if letter:
        return _choice(candidate) == letter or normalise(candidate) == wanted
    remark = _REMARK.search(candidate)
    texts = [candidate, candidate[: remark.start()]] if remark else [candidate]
    for text in texts:
        if normalise(text) == wanted:
            return True
        option = _OPTION.match(without_markup(text))
        if option and normalise(text[option.end() :]) == wanted:
            return True
    return False


def _choice(candidate: str) -> str | None:
    """The letter of the option that a text begins with; None where there are several."""
    text = without_markup(candidate)
    found = _CHOICE.match(text)
    if found is None or _OTHER_CHOICE.match(text, found.end("letter")):
        return None
    # "a" is a word, unless it is marked as an option.
    if found["letter"].islower() and found["after"] not in (")", "]", ".", ":", "**", ""):
        return None
    return found["letter"].casefold()
