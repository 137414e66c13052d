"""Text from outside (models, servers, files, options), made safe to print in one line."""

from __future__ import annotations

import unicodedata

# Invisible characters that real text needs: joiners of emoji and of Persian and Indic words, the
# soft hyphen, and signs that stand before or over numbers in Arabic, Syriac and Kaithi.
_NEEDED = frozenset(
    "\u200c\u200d\u00ad\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2"
    "\U000110bd\U000110cd"
)
_ESCAPED = frozenset({"Cc", "Cf", "Cs"})


def printable(text: object, limit: int | None = None) -> str:
    r"""Return ``text`` on one line, with nothing in it that acts on a terminal.

    Every message, table, test id and figure shows text from outside through this function. Line
    breaks and tabs become a space. Control characters, bidirectional controls, zero-width
    characters, halves of surrogate pairs and noncharacters appear as escapes, such as ``\x1b``.
    Letters, accents, CJK, right-to-left scripts and emoji stay as they are. The result is safe
    to pass in again: it comes back unchanged.

    Args:
        text: The text; another object is shown as ``str()`` shows it.
        limit: The largest number of characters in the result; a longer text ends in an ellipsis.
            None for no limit.
    """
    shown = text if isinstance(text, str) else str(text)
    if not shown.isprintable():
        shown = _escaped(shown)
    if limit is not None and len(shown) > limit:
        shown = shown[: max(limit - 1, 0)] + "\u2026"
    return shown


def _escaped(text: str) -> str:
    parts: list[str] = []
    in_break = False
    for character in text:
        # Tab, the line breaks of str.splitlines (NEL and U+2028 too), but no plain or hard space.
        is_break = character in "\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"
        if is_break:
            if not in_break:
                parts.append(" ")
        elif character.isprintable():
            parts.append(character)
        elif _is_harmful(character):
            parts.append(_escape(character))
        else:
            parts.append(character)
        in_break = is_break
    return "".join(parts)


def _is_harmful(character: str) -> bool:
    if unicodedata.category(character) in _ESCAPED:
        return character not in _NEEDED
    code = ord(character)
    return code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
