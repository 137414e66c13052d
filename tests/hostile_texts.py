"""Sixty texts that were made to break terminals, parsers and people's trust."""

import re

LONG = 200_000

TEXTS = (
    # What terminals obey: title, clipboard, links, screen, reports, bells.
    "\x1b]0;owned\x07",
    "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1b[2J\x1b[H5 passed",
    "\x1b[31mred\x1b[0m\x1b[8mhidden\x1b[28m",
    "\x1b[6n\x1b[c\x1bP+q544e\x1b\\",
    "\x9b31mC1\x9b0m\x9d0;title\x9c",
    "bell\x07\x07\x07",
    "back\x08\x08\x08\x08over",
    "nul\x00in\x00between",
    "\x0e\x0fshift \x7fdelete",
    "form\x0cfeed\x0bvertical",
    # Lines that were never there.
    "oops\n5 passed in 0.01s",
    "\r\rwindows\r\nline\rover",
    "\n\n=========== 1 failed ===========\n",
    "a\u2028b\u2029c\x85d",
    "\x1c\x1d\x1e\x1fseparators",
    "tab\tin\ttext\t",
    # Order of reading, and what cannot be seen.
    "\u202egnp.exe\u202c",
    "\u202a\u202b\u202c\u202d\u202e",
    "\u2066\u2067\u2068\u2069",
    "\u200e\u200f\u061cmarks",
    "zero\u200bwidth\u2060\ufeffspace",
    "\U000e0041\U000e0042tags\U000e007f",
    # What is no character.
    "\ud800",
    "\udfff\ud800\udbff",
    "half \ud83d of a pair",
    "\ufffe\uffff\ufdd0\U0001fffe\U0010ffff",
    "\ufffd\ufffc\ue000\U000f0000",
    # Markup and code.
    "<script>alert(1)</script>",
    "</text></svg><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    '"><svg onload=alert(1)>',
    "&lt;&amp;&#0;&#x1b;&nbsp;",
    "<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]>&b;",
    "javascript:alert(1)//'; DROP TABLE traces; --",
    "{{7*7}} {% raw %} ${7*7} %s %d %n {0} {}",
    # Markdown and workflow commands.
    "[click](https://evil.example) ![x](y)",
    "| a | b |\n|---|---|\n| c | d |",
    "# heading\n- item\n> quote\n```\ncode",
    "::error file=a.py,line=1::forged",
    "::add-mask::e\n::stop-commands::x",
    "##[error]forged\n##[add-path]/tmp",
    "%0A::error::forged%0D%25",
    # Formulas of spreadsheets and of figures.
    '=HYPERLINK("https://evil.example")',
    "+1+cmd|' /C calc'!A0",
    "@SUM(1)\t-2+3",
    '"quoted","a;b"\t"c\nd',
    r"$\frac{1}{0}$ $ $$ \undefined{x} _^",
    r"\x1b \u202e \n \\ \"",
    # Size and weight.
    "x" * LONG,
    "e" + "\u0301" * LONG,
    "\x1b" * LONG,
    "\n" * LONG,
    "[" * LONG,
    "1" * 5_000 + " #### " + "9" * 5_000,
)
assert len(TEXTS) == 60, len(TEXTS)

# Written here again, and not taken from the package: a test must not agree with what it tests.
RAW = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)


def raw_in(text: str) -> list[str]:
    """The harmful characters of a text, each with what stands around it."""
    return [ascii(text[max(0, m.start() - 40) : m.end() + 20]) for m in RAW.finditer(text)][:5]
