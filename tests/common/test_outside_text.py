"""Text from outside, made safe to print."""

import sys
import time

import pytest

from pytest_tokenbudget.common.outside_text import printable

HARMFUL = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029",
    *"\u200b\u2060\ufeff\u180e\ufffe\uffff\ufdd0\U000e0041\U0001fffe",
    *("\ud800", "\udbff", "\udc00", "\udcff", "\udfff"),
]
READABLE = [
    "plain text with  two spaces",
    "Zo\u00eb na\u00efve \u00c5ngstr\u00f6m e\u0301",
    "\u6570\u5b66 \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian needs the non-joiner
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f \U0001f44d\U0001f3fd",
    "12 000 \u20ac",
    "\u0915\u094d\u200d\u0937",
]


@pytest.mark.parametrize("character", HARMFUL, ids=lambda c: f"U+{ord(c):04X}")
def test_no_harmful_character_is_left(character):
    shown = printable(f"a{character}b")
    assert shown == "a b" or shown.startswith("a\\"), shown
    assert character not in shown
    shown.encode("utf-8")


def test_every_character_comes_out_harmless_and_the_result_stays_as_it_is():
    for code in range(sys.maxunicode + 1):
        once = printable(chr(code))
        assert "\n" not in once
        assert once.splitlines() in ([once], []), hex(code)
        assert printable(once) == once
        once.encode("utf-8")


@pytest.mark.parametrize("text", READABLE)
def test_text_that_people_write_stays_as_it_is(text):
    assert printable(text) == text


def test_lines_cannot_be_forged():
    assert printable("oops\n5 passed\r\n\x1b[2Kdone") == r"oops 5 passed \x1b[2Kdone"


def test_escapes_name_the_character():
    assert printable("\x1b]0;owned\x07") == r"\x1b]0;owned\x07"
    assert printable("a\u202eb\ud83d") == r"a\u202eb\ud83d"
    assert printable("\U000e0041") == r"\U000e0041"


@pytest.mark.parametrize(
    ("limit", "shown"), [(6, "abcdef"), (5, "abcd…"), (1, "…"), (None, "abcdef")]
)
def test_a_limit_ends_in_an_ellipsis(limit, shown):
    assert printable("abcdef", limit) == shown


def test_other_objects_are_shown_as_text():
    assert printable(ValueError("a\x00")) == r"a\x00"


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["\x1b", "\n", "e\u0301\u0302", "\ud800", "\u202e", "x"])
def test_long_texts_take_linear_time(piece):
    start = time.perf_counter()
    printable(piece * 1_000_000, 300)
    assert time.perf_counter() - start < 10
