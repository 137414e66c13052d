"""Text from outside (models, servers, files, options), made safe to print."""

from __future__ import annotations

import hashlib
import re

# Noncharacters end each of the 17 planes: XML forbids them.
_NONCHARACTERS = "\ufdd0-\ufdef" + "".join(
    chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF)
)
# What acts on a terminal or hides in a text: C0, DEL, C1, bidirectional controls, separators of
# lines and paragraphs, zero-width characters, halves of surrogate pairs, tags. The joiners U+200C
# and U+200D stay, which emoji and words in Persian and Indic scripts need.
HARMFUL = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    f"\ud800-\udfff{_NONCHARACTERS}\U000e0000-\U000e00ff]"
)
"""One character, other than tab and line feed, that must not reach a terminal or a file raw."""
_SPACES = re.compile(r"[^\S ]+")
_COMMAND = re.compile(r"^\s*::|##\[", re.MULTILINE)
LONGEST_MESSAGE = 4_000
_LONGEST_NAME = 400


def printable(text: object, limit: int | None = None) -> str:
    r"""Return ``text`` on one line, with nothing in it that acts on a terminal.

    Every message, table, test id and figure shows text from outside through this function. Line
    breaks, tabs and wide spaces become a space. Control characters, bidirectional controls,
    zero-width characters, halves of surrogate pairs and noncharacters appear as escapes, such as
    ``\x1b``. Letters, accents, CJK, right-to-left scripts and emoji stay as they are. The result is
    safe to pass in again: it comes back unchanged. One longer than ``limit`` ends in an ellipsis.
    """
    shown = text if isinstance(text, str) else str(text)
    if not shown.isprintable():
        shown = HARMFUL.sub(_escape, _SPACES.sub(" ", shown))
    if limit is not None and len(shown) > limit:
        shown = shown[: max(limit - 1, 0)] + "\u2026"
    return shown


def printable_lines(text: str) -> str:
    """Return ``text`` as :func:`printable` does, but keep its line feeds and tabs."""
    if text.isprintable():
        return text
    return HARMFUL.sub(_escape, text.replace("\r\n", "\n"))


def without_commands(text: str, line: str = "") -> str:
    r"""Return ``text`` with no command for GitHub Actions in it.

    Its runner obeys a line of a log that begins with ``::``, and ``##[`` anywhere in a line. The
    last character of each appears as an escape, such as ``\x3a``. ``line`` stands before the text
    on its first line, and went through this function.
    """
    shown = _COMMAND.sub(lambda found: f"{found[0][:-1]}\\x{ord(found[0][-1]):02x}", line + text)
    return shown[len(line) :]


def printable_name(name: str) -> str:
    """Return a name from outside as one that is safe to print, and as distinct as it was.

    A name that is printable and not too long stays as it is. Another one ends in eight hexadecimal
    digits of its SHA-256, so that different names stay different.
    """
    if printable(name) == name and name.strip() == name != "" and len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{printable(name, _LONGEST_NAME - 9).strip() or 'name'}-{digest}"


class PrintableError(Exception):
    """An error whose message is for people, and may quote text from outside."""

    def __str__(self) -> str:
        return printable(super().__str__(), LONGEST_MESSAGE)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
