"""An answer's text in one spelling, with every character where it was.

Replacements keep the length, so a place in the result is the same place in the original.
"""

from __future__ import annotations

import re
import unicodedata

LATEX_WRAPPERS = (
    "text textbf textit textrm textsf mathbf mathrm mathit mathsf mathbb mbox boldsymbol bm hbox "
    "emph underline displaystyle textstyle left right bigl bigr big Big rm bf"
).split()

_ASCII_SIGNS = {
    "\u2212": "-", "\ufe63": "-", "\u2010": "-", "\u2011": "-", "\u2018": "'", "\u2019": "'",
    "\u201c": '"', "\u201d": '"', "\u2044": "/", "\u2215": "/", "\u066a": "%", "\u066b": ".",
    "\u066c": ",", "\u060c": ",", "\u3000": " ", "\u2003": " ", "\u2002": " ", "\u2007": " ",
}  # fmt: skip
# Full-width signs that end a sentence stay: an ASCII stop may be the point of a decimal.
_KEPT = "\uff01\uff1f"


class _AsciiTable(dict[int, str]):
    """A table for `str.translate` that fills itself as characters are met."""

    def __missing__(self, code: int) -> str:
        found = character = chr(code)
        decimal = unicodedata.decimal(character, None)
        if character.isascii() or character in _KEPT:
            pass
        elif character in _ASCII_SIGNS:
            found = _ASCII_SIGNS[character]
        elif decimal is not None:
            found = str(decimal)
        elif unicodedata.category(character) == "Cf":
            found = " "
        elif "\uff01" <= character <= "\uff5e" or "\uffe0" <= character <= "\uffe6":
            found = unicodedata.normalize("NFKC", character)
        self[code] = found
        return found


_TABLE = _AsciiTable()

_STRUCK = (
    r"~~[^~\n]++{tilde}"
    r"|<(?P<tag>s|del|strike)>[^<\n]*+{closer}"
    r"|\\(?:sout|st|cancel|bcancel|xcancel)\{{[^{{}}\n]*+{brace}"
)
_STRUCK_OUT = re.compile(_STRUCK.format(tilde="~~", closer="</(?P=tag)>", brace=r"\}"))
_STRUCK_OR_CUT = re.compile(
    _STRUCK.format(
        tilde=r"(?:~~|~?\Z)", closer=r"(?:</(?P=tag)>|(?:<[^>\n]{0,8})?\Z)", brace=r"(?:\}|\Z)"
    )
)
_MAY_STRIKE = re.compile(r"~~|<(?:s|del|strike)>|\\(?:sout|st|[bx]?cancel)\{")


def ascii_view(text: str) -> str:
    """``text`` with digits of all scripts, and full-width and typographic signs, in ASCII."""
    return text if text.isascii() else text.translate(_TABLE)


def readable_view(text: str, truncated: bool) -> str:
    """`ascii_view` with blanks for what is struck out.

    In truncated text a mark that nothing closes yet strikes all that follows it: the next
    characters may close it.
    """
    view = ascii_view(text)
    if may_strike(view):
        struck = _STRUCK_OR_CUT if truncated else _STRUCK_OUT
        view = struck.sub(lambda match: " " * len(match[0]), view)
    return view


def may_strike(text: str) -> bool:
    """Whether something in ``text`` may be struck out."""
    return ("~~" in text or "<" in text or "\\" in text) and bool(_MAY_STRIKE.search(text))


_WRAPPER = rf"\\(?:{'|'.join(LATEX_WRAPPERS)})(?![A-Za-z])[ ]?\{{?"
_NOISE = re.compile(
    rf"{_WRAPPER}"
    r"|(?<![0-9,])\\[ ,;:!]|\\[ ,;:!](?![0-9]{3}(?![0-9]))"
    r"|\\q?quad(?![A-Za-z])"
    r"|\\[\[\](){}|]"
    r"|</?[A-Za-z][^<>\n]{0,80}>"
    r"|\*\*(?!(?<=[0-9)]\*\*)[0-9(])"
    r"|__|`"
)


_WRAPPED = re.compile(rf"(\\(?:{'|'.join(LATEX_WRAPPERS)})(?![A-Za-z])[ ]?\{{)([^{{}}]*+)\}}")
_DEEPEST = 3


def without_markup(view: str) -> str:
    """A stretch of a view with blanks for emphasis, tags, and LaTeX that only shapes."""
    for _ in range(_DEEPEST if "\\" in view else 0):
        view = _WRAPPED.sub(lambda match: f"{' ' * len(match[1])}{match[2]} ", view)
    return _NOISE.sub(lambda match: " " * len(match[0]), view)
