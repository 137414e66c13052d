"""Finds outputs that begin with a block that no declared thinking format covers."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import plural
from pytest_tokenbudget.texts.thinking_blocks import GAP, ThinkingFormat

# Angle brackets of any script, which are mixed, then pairs that close each other.
_ANGLES = "<\u2039\u3008\uff1c\u27e8", ">\u203a\u3009\uff1e\u27e9"
_PAIRS = {
    "\u00ab": "\u00bb",
    "\u300a": "\u300b",
    "\u25c1": "\u25b7",
    "\u3010": "\u3011",
    "[": "]",
    "{": "}",
}
_BRACKETS = {**dict.fromkeys(_ANGLES[0], _ANGLES[1]), **_PAIRS}
_TRIANGLE = "\u25c1"
_OPENING = re.escape("".join(_BRACKETS))
_CLOSING = re.escape("".join(_BRACKETS.values()))
_BARS = r"|\uff5c\u00a6\u2502!%#@$*~+=^_-"

# <name>, <name attribute="value">, <|name|>, <|name>, [name], ◁name▷ and the like.
_TAG = re.compile(
    rf"\*{{0,2}}(?P<tag>(?P<bracket>[{_OPENING}])(?P=bracket)?(?P<bars>[{_BARS}]{{0,2}})\s?"
    rf"(?P<name>[^\W\d_][\w:./▁-]{{0,80}})(?P<rest>[^{_OPENING}{_CLOSING}\n\x00-\x1f]{{0,100}}?)"
    rf"(?P<end>[{_BARS}]{{0,2}})(?P<close>[{_CLOSING}])(?P=close)?)"
)
# A tag with bars can go on: <|channel>thought, <|open|>think<|sep|>.
_HALF_OPEN = re.compile(r"[^\W\d_][\w-]{0,80}")
_CHANNEL = re.compile(r"[^\W\d_][\w-]{0,80}(?=\s*(?:\n|<))")
# Invisible characters that \s does not cover.
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060"

# Names that say thinking. Whole words where a longer word means something else ("dinner").
_THINKING = re.compile(
    r"think|thought|reason|ponder|reflect|reflex|scratch|monolog|analy[sz]|deliberat|cogitat|"
    r"contemplat|ruminat|introspect|brainstorm|rationale|musing|chain[\W_]?of|"
    r"denk|pensam|pens[ée]e|razona|raisonn|рассужд|размышл|мысл|思|推理|"
    r"(?<![^\W\d_])(?:inner|cot|plan|plans|planning|mind|muse|draft|work|working|workings)"
    r"(?![^\W\d_])",
    re.IGNORECASE,
)
# Attributes that say what an element is for, as in <div class="thinking">.
_PURPOSE = re.compile(r"\b(?:class|type|name|role|id|kind|channel|mode)\s*=", re.IGNORECASE)
_ATTRIBUTES = re.compile(r"(?:\s+[\w:.-]+\s*=.*|=.*|\s*)", re.DOTALL)

_HTML = frozenset(
    "a abbr address article aside audio b bdi bdo blockquote body br button canvas caption center "
    "cite code col colgroup data datalist dd del details dfn dialog div dl doctype dt em embed "
    "fieldset figcaption figure font footer form frame h1 h2 h3 h4 h5 h6 head header hr html i "
    "iframe img input ins kbd label legend li link main map mark math menu meta meter nav noscript "
    "object ol optgroup option output p param picture pre progress q rp rt ruby s samp script "
    "search section select small source span strike strong style sub summary sup svg table tbody "
    "td template textarea tfoot th thead time title tr track u ul var video wbr xml".split()
)
# What answers, tool calls, code and the control tokens of chat templates are called.
_ORDINARY = frozenset(
    "answer response final solution output result reply tool toolcall call use function "
    "invoke parameter arg argument code json yaml csv python sql bash latex markdown text "
    "begin start end of turn im bos eos eot eom pad unk sep cls mask header id fim prefix suffix "
    "middle endoftext startoftext endofprompt eostoken token assistant user human system model "
    "message channel commentary sentence tag image video vision inst sys done ok yes no true false "
    "none null error empty na".split()
)


def unknown_block(texts: Iterable[str], thinking: ThinkingFormat | None) -> tuple[str, int] | None:
    """The open tag of a block that the model's format does not cover, at the start of outputs.

    A tag whose name says thinking always counts. Any other tag counts unless it is HTML, an
    answer, a tool call, code or a control token.

    Returns:
        The most frequent such tag, and how many outputs begin with a tag of that name; None if no
        output does.
    """
    known = tuple(tag.partition(GAP)[0] for tag in thinking.tags) if thinking else ()
    found = []
    for text in texts:
        start = text.lstrip(_INVISIBLE + string.whitespace)
        # A short budget may have cut a tag of the format.
        if not any(start.startswith(tag) or tag.startswith(start.rstrip()) for tag in known):
            found += _opening_tag(start)
    if not found:
        return None
    name, count = Counter(name for name, _ in found).most_common(1)[0]
    return Counter(tag for own, tag in found if own == name).most_common(1)[0][0], count


def unknown_block_note(
    texts: Sequence[str], thinking: ThinkingFormat | None, declaration: str
) -> list[str]:
    """A sentence on such a tag, with what declares its format; none if there is no such tag."""
    found = unknown_block(texts, thinking)
    if found is None:
        return []
    tag, count = printable(found[0]), found[1]
    quote = "'" if '"' in tag else '"'
    return [
        f"{count:,} of {plural(len(texts), 'answer')} begin with {tag}, which is no tag of a "
        "thinking format of this model: what follows is scored as an answer. If it is "
        f"thinking, declare it in tokenbudget.toml: {declaration} with "
        f"open = {quote}{tag}{quote} and its close tag"
    ]


def _opening_tag(text: str) -> list[tuple[str, str]]:
    """The tag that a text begins with, as [(name, tag)], if it could open a thinking block."""
    match = _TAG.match(text)
    if match is None or match["close"] not in _BRACKETS[match["bracket"]]:
        return []
    tag, name, rest, follows = match["tag"], match["name"], match["rest"], text[match.end() :]
    if match["bars"]:
        # Without a bar before its end, such as in <|channel>thought, a name always follows.
        word = (_CHANNEL if match["end"] else _HALF_OPEN).match(follows)
        if word is not None:
            tag, name = tag + word[0], f"{name}_{word[0]}"
    if _THINKING.search(name + (rest if _PURPOSE.search(rest) else rest.partition("=")[0])):
        possible = _says_thinking(match, follows)
    else:
        possible = bool(follows.strip()) and _could_be_thinking(match, name)
    return [(name.lower(), tag)] if possible else []


def _says_thinking(match: re.Match[str], follows: str) -> bool:
    """Whether a tag with a thinking word in it is a tag: a sentence, a link or code is none."""
    if "://" in match["tag"] or "@" in match["rest"]:
        return False
    if match["bracket"] == "<":
        return True
    few_words = not re.search(r"[^\w\s-]", match["rest"]) and len(match["rest"].split()) <= 2
    sentence = re.match(r"(?:i|we|you|let)\b", match["name"] + match["rest"], re.IGNORECASE)
    link = match["bracket"] == "[" and follows[:1] in ("(", ":", "[")
    return few_words and not sentence and not link


def _could_be_thinking(match: re.Match[str], name: str) -> bool:
    """Whether a tag without a thinking word in it is of the shape of a block's open tag."""
    bracket, rest = match["bracket"], match["rest"]
    if "://" in match["tag"] or "@" in match["tag"] or (len(name) == 1 and not match["bars"]):
        return False
    if bracket == "<":
        if not _ATTRIBUTES.fullmatch(rest) or match["tag"].endswith("/>"):
            return False
    elif bracket == "[":
        name += rest
        if not match["bars"] and not re.fullmatch(r"[A-Z][A-Z_ ]+", name):
            return False
    elif not match["bars"] and bracket != _TRIANGLE:
        return False
    return not _is_ordinary(name)


@cache
def _is_ordinary(name: str) -> bool:
    """Whether a tag's name is that of ordinary markup: its last word says what it holds."""
    if name.lower() in _HTML or name.lower().partition(":")[0] in _HTML:
        return True
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    words = [word for word in re.split(r"[\W\d_]+", spaced) if word]
    return not words or {words[-1], words[-1].removesuffix("s")} & _ORDINARY != set()
