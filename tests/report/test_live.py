"""The display of a trace that is being written: text, thinking, marks; on recorded ids."""

from __future__ import annotations

import re
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.models.resolution import DEFAULT_MODEL, load_catalogue
from pytest_tokenbudget.report.live import DIM, REVERSE, UNDIM, UNREVERSE, LiveTrace
from pytest_tokenbudget.texts.detokenizer import Pieces, text_and_offsets
from pytest_tokenbudget.texts.thinking_blocks import OutputPart, ThinkingFormat, parse

PLAIN = ThinkingFormat()
CHANNELS = ThinkingFormat(
    open="<|channel|>analysis<|message|>",
    close="<|end|>",
    answer=("<|channel|>final<|message|>",),
)
MARK = re.compile(r"\[\|(\d+)\|\]")


@cache
def embedded() -> Tokenizer:
    return Tokenizer.from_file(f"{load_catalogue()[DEFAULT_MODEL].source}/tokenizer.json")


def decode(ids):
    return embedded().decode(list(ids), skip_special_tokens=True)


@cache
def pieces() -> Pieces:
    return Pieces(decode)


def encode(text):
    return list(embedded().encode(text, add_special_tokens=False).ids)


def spelled(text):
    """Ids one a byte, so that every tag is spelled out."""
    return [i for char in text for i in encode(char)]


def show(ids, thinking=PLAIN, reason=StopReason.EOS, **options):
    live = LiveTrace(pieces(), thinking, **options)
    return "".join([*map(live.next, ids), live.end(reason)])


def dimmed(shown):
    """Dimmed text and the other, each put together."""
    parts = re.split(f"{re.escape(DIM)}(.*?){re.escape(UNDIM)}", shown, flags=re.DOTALL)
    return "".join(parts[1::2]), "".join(parts[::2])


any_ids = st.one_of(
    st.lists(st.integers(0, 1023), max_size=60),
    st.lists(st.sampled_from(["<think>", "</think>", "<", "thi", "x", "漢"]), max_size=20).map(
        lambda parts: [i for part in parts for i in encode(part)]
    ),
)


@settings(max_examples=200, deadline=None)
@given(any_ids, st.booleans(), st.sets(st.integers(1, 60), max_size=6), st.booleans())
def test_the_text_is_whole_and_marks_stand_where_budgets_cut(ids, opened, budgets, capped):
    reason = StopReason.LENGTH if capped else StopReason.EOS
    shown = show(ids, reason=reason, opened_by_prompt=opened, budgets=budgets)
    text, offsets = text_and_offsets(decode, ids)
    expected, done = [], 0
    for budget in sorted(budgets):
        if budget < len(ids) or (budget == len(ids) and capped):
            place = offsets[budget - 1]
            expected += [plain(text[done:place]), f"[|{budget}|]"]
            done = place
    # A character that never gets whole stands on either side of a mark inside it.
    whole = "".join([*expected, plain(text[done:])])
    assert len(shown) == len(whole)
    assert shown.replace("\ufffd", "") == whole.replace("\ufffd", "")


def plain(text):
    """Control characters spelled out as a terminal may not get them; written anew on purpose."""
    hidden = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
    return hidden.sub(
        lambda m: f"\\x{ord(m[0]):02x}" if ord(m[0]) < 256 else f"\\u{ord(m[0]):04x}", text
    )


@settings(max_examples=200, deadline=None)
@given(any_ids, st.booleans())
def test_what_is_thinking_while_it_is_written_is_dimmed(ids, opened):
    shown = show(ids, opened_by_prompt=opened, colour=True)
    text = decode(ids)
    dim, bright = "", ""
    # As each character comes, what it belongs to is decided by the text up to it.
    blocks = parse(text, PLAIN, opened)
    tags = [span for span in blocks.spans if span.part is OutputPart.TAG]
    for place, char in enumerate(text):
        before = parse(text[:place], PLAIN, opened)
        in_tag = any(span.start <= place < span.end for span in tags)
        inside = in_tag or any(low <= place < high for low, high in before.open_at)
        dim, bright = (dim + char, bright) if inside else (dim, bright + char)
    assert dimmed(shown) == (plain(dim), plain(bright))


@pytest.mark.parametrize("write", [encode, spelled])
def test_thinking_and_its_tags_are_dimmed(write):
    shown = show(write("<think>7 boxes</think>It is 7 < 8."), colour=True)
    assert dimmed(shown) == ("<think>7 boxes</think>", "It is 7 < 8.")


def test_tags_that_are_spelled_out_end_nothing_where_the_model_has_tokens_for_them():
    known = {text: encode(text)[0] for text in ("<think>", "</think>")}
    own = PLAIN.resolved(known)
    fake = encode("so </think") + encode(">4")
    assert len(fake) > 3
    shown = show(encode("<think>") + fake + encode("</think>") + encode("5"), own, colour=True)
    assert dimmed(shown) == ("<think>so </think>4</think>", "5")


def test_a_block_that_the_prompt_opened():
    shown = show(encode("so 7</think>7"), opened_by_prompt=True, colour=True)
    assert dimmed(shown) == ("so 7</think>", "7")


def test_channels():
    text = "<|channel|>analysis<|message|>so<|end|><|start|>assistant<|channel|>final<|message|>7"
    assert dimmed(show(spelled(text), CHANNELS, colour=True)) == (text[:-1], "7")
    assert dimmed(show(spelled("Just 7."), CHANNELS, colour=True)) == ("", "Just 7.")


def test_without_a_format_nothing_is_dimmed_or_held_back():
    live = LiveTrace(pieces(), None, colour=True)
    ids = encode("a < b")
    assert "".join(map(live.next, ids)) == "a < b"
    assert live.end(StopReason.EOS) == ""


def test_what_may_become_a_tag_waits_and_only_that():
    live = LiveTrace(pieces(), PLAIN)
    assert [live.next(i) for i in spelled("7 <th")] == ["7", " ", "", "", ""]
    assert live.next(encode("e")[0]) == "<the"


@pytest.mark.parametrize("colour", [False, True])
def test_marks_are_seen_in_either_way(colour):
    shown = show(spelled("abcdef"), budgets=(2, 4, 6, 9), colour=colour)
    mark = (f"{REVERSE} ", f" {UNREVERSE}") if colour else ("[|", "|]")
    assert shown == f"ab{mark[0]}2{mark[1]}cd{mark[0]}4{mark[1]}ef"


def test_a_budget_at_the_end_cuts_only_what_was_capped():
    ids = spelled("abcd")
    assert show(ids, budgets=(4,)) == "abcd"
    assert show(ids, budgets=(4,), reason=StopReason.LENGTH) == "abcd[|4|]"


def test_a_budget_may_cut_inside_a_tag():
    shown = show(spelled("a<think>b"), budgets=(3,), colour=True)
    assert REVERSE in shown
    assert dimmed(shown)[0].replace(f"{REVERSE} 3 {UNREVERSE}", "") == "<think>b"


def test_what_a_terminal_would_obey_is_spelled_out():
    shown = show(encode("\x1b[2Ja\rb\x9b\u202e\tc\n"), colour=True)
    assert shown == "\\x1b[2Ja\\x0db\\x9b\\u202e\tc\n"


@settings(max_examples=100, deadline=None)
@given(any_ids, st.booleans(), st.sets(st.integers(1, 60), max_size=6), st.booleans())
def test_texts_that_come_with_their_ids_are_shown_as_if_they_had_been_decoded(
    ids, opened, budgets, colour
):
    options = {"opened_by_prompt": opened, "budgets": budgets, "colour": colour}
    text, offsets = text_and_offsets(decode, ids)
    texts = [text[a:b] for a, b in zip((0, *offsets), offsets, strict=False)]
    live = LiveTrace(None, PLAIN, **options)
    shown = "".join([*map(live.next, ids, texts), live.end(StopReason.EOS)])
    # Where a character is never whole, the decoded one shows what is there of it earlier.
    if "\ufffd" not in text:
        assert bare(shown) == bare(show(ids, **options))


def bare(shown):
    """What is shown without the places where colours go on as they were."""
    return shown.replace(UNDIM + DIM, "")


def test_text_without_ids_and_marks_that_somebody_else_has_counted():
    live = LiveTrace(None, PLAIN, colour=True)
    parts = [live.write("<thi"), live.write("nk>so"), live.mark(8), live.write(" 7</think>7")]
    shown = "".join([*parts, live.end(StopReason.EOS)])
    assert parts[0] == ""
    assert f"so{UNDIM}{REVERSE} 8 {UNREVERSE}{DIM} 7" in shown
    assert dimmed(shown)[0].startswith("<think>so")
    assert shown.endswith("</think>\x1b[22m7")
