"""The incremental detokeniser: any ids of the embedded tokenizer, and decoders of other kinds."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from pytest_tokenbudget.models.resolution import DEFAULT_MODEL, load_catalogue
from pytest_tokenbudget.texts.detokenizer import Detokenizer, Pieces, text_and_offsets
from pytest_tokenbudget.texts.token_texts import DecoderKind

VOCABULARY = 1024
SPECIAL = 0, 1, 2
WITHHELD = "\ufffd\u200d\ufe0f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
WAVE = "\U0001f44b\U0001f3fd"


@cache
def embedded() -> Tokenizer:
    return Tokenizer.from_file(f"{load_catalogue()[DEFAULT_MODEL].source}/tokenizer.json")


@cache
def metaspace() -> Tokenizer:
    """A tokenizer of the SentencePiece kind: words carry their space, other signs are bytes."""
    pieces = ["▁", "▁the", "▁cat", "s", "a", *(f"<0x{byte:02X}>" for byte in range(256))]
    model = models.BPE({piece: i for i, piece in enumerate(pieces)}, [], byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


WORDS = (
    "[PAD] [UNK] do n ' t ##s ##ing . , ! ? not cat it ##n ##' ve re m s 's 've n't é 👍 🏽 \u200d"
)


@cache
def wordpiece() -> Any:
    """A tokenizer whose words get their space from what comes before."""
    from transformers import BertTokenizer

    return BertTokenizer(vocab={word: number for number, word in enumerate(WORDS.split(" "))})


@cache
def ended() -> Tokenizer:
    """A tokenizer whose last token shows no space and whose other ones may."""
    words = ["x", "b</w>", "cat", "dog</w>", "s", "'</w>"]
    tokenizer = Tokenizer(
        models.BPE({w: i for i, w in enumerate(words)}, [], end_of_word_suffix="</w>")
    )
    tokenizer.decoder = decoders.BPEDecoder("</w>")
    return tokenizer


def keeping(ids: Sequence[int]) -> str:
    return embedded().decode(list(ids), skip_special_tokens=False)


def skipping(ids: Sequence[int]) -> str:
    return embedded().decode(list(ids), skip_special_tokens=True)


def spaced(ids: Sequence[int]) -> str:
    return metaspace().decode(list(ids), skip_special_tokens=False)


def byte_ids() -> list[int]:
    """Ids of tokens that are a part of a character, among them every continuation byte."""
    return [i for i in range(VOCABULARY) if keeping([i]) == "\ufffd"]


def encode(text: str) -> list[int]:
    return list(embedded().encode(text, add_special_tokens=False).ids)


any_id = st.integers(0, VOCABULARY - 1)
id_lists = st.one_of(
    st.lists(any_id, max_size=60),
    st.lists(st.one_of(st.sampled_from(byte_ids()), st.sampled_from(SPECIAL)), max_size=80),
    st.text(max_size=40).map(encode),
)


def stream(detokenizer: Detokenizer, ids: Sequence[int]) -> list[str]:
    return [delta for delta in map(detokenizer.next, ids) if delta is not None]


def words(ids: Sequence[int]) -> str:
    return wordpiece().decode(list(ids), clean_up_tokenization_spaces=False)


def tidied_words(ids: Sequence[int]) -> str:
    return wordpiece().decode(list(ids), clean_up_tokenization_spaces=True)


def ended_words(ids: Sequence[int]) -> str:
    return ended().decode(list(ids))


FAR = 10_000


def far(ids: Sequence[int]) -> str:
    """The embedded tokenizer with ids of which none can be guessed."""
    if any(token_id < FAR for token_id in ids):
        raise KeyError("no such id")
    return keeping([token_id - FAR for token_id in ids])


# Decode functions by name, how many ids each knows, and what is to be found out about them.
DECODERS: dict[str, tuple[Callable[[Sequence[int]], str], int, DecoderKind]] = {
    "keeping": (keeping, VOCABULARY, DecoderKind.JOINED),
    "skipping": (skipping, VOCABULARY, DecoderKind.JOINED),
    "far": (far, VOCABULARY, DecoderKind.OTHER),
    "sentencepiece": (spaced, 5 + 256, DecoderKind.RUNS),
    "words": (words, len(WORDS.split(" ")), DecoderKind.JOINED),
    "tidied words": (tidied_words, len(WORDS.split(" ")), DecoderKind.OTHER),
    "ended words": (ended_words, 6, DecoderKind.OTHER),
}


@cache
def known(name: str) -> Pieces:
    return Pieces(DECODERS[name][0])


# A replacement character that was written as such cannot be told from an incomplete run of bytes.
real_text = st.text(
    st.characters(codec="utf-8", exclude_characters="\ufffd"), min_size=1, max_size=3
)


def ids_of(name: str) -> st.SearchStrategy[list[int]]:
    """Any ids, ids out of a few, which repeat, and ids of which most are low."""
    vocabulary = DECODERS[name][1]
    any_of_it = st.integers(0, vocabulary - 1)
    few = st.lists(any_of_it, min_size=1, max_size=4).flatmap(
        lambda some: st.lists(st.sampled_from(some), max_size=80)
    )
    low = st.lists(st.one_of(st.integers(0, min(vocabulary, 6) - 1), any_of_it), max_size=80)
    ids = st.one_of(st.lists(any_of_it, max_size=60), few, low)
    if vocabulary == VOCABULARY:
        ids |= id_lists
    return ids.map(lambda some: [i + FAR for i in some]) if name == "far" else ids


@pytest.mark.parametrize("name", DECODERS)
def test_deltas_and_rest_are_the_whole_text(name):
    decode = DECODERS[name][0]

    @settings(max_examples=200, deadline=None)
    @given(ids_of(name), st.integers(0, 9))
    def check(ids, chance):
        # What has been learned from other texts must not matter.
        detokenizer = Detokenizer(known(name) if chance else decode)
        shown = ""
        for end, token_id in enumerate(ids, start=1):
            delta = detokenizer.next(token_id)
            if delta is not None:
                assert delta
                assert delta[-1] not in WITHHELD
                shown += delta
            if end % 16 == 0:
                assert shown + detokenizer.rest() == decode(ids[:end])
        assert shown + detokenizer.rest() == decode(ids)
        assert detokenizer.all() == decode(ids)

    check()


@pytest.mark.parametrize("name", DECODERS)
def test_what_kind_a_decoder_is_of_is_found_out(name):
    assert known(name).kind is DECODERS[name][2]


@pytest.mark.parametrize("name", DECODERS)
def test_offsets_are_those_of_growing_texts(name):
    decode = DECODERS[name][0]

    @settings(max_examples=100, deadline=None)
    @given(ids_of(name))
    def check(ids):
        for source in (decode, known(name)):
            text, offsets = text_and_offsets(source, ids)
            assert text == decode(ids)
            assert len(offsets) == len(ids)
            assert list(offsets) == sorted(offsets)
            assert not ids or offsets[-1] == len(text)
            for end, offset in enumerate(offsets, start=1):
                prefix = decode(ids[:end])
                # No place in the text is that of a beginning that is written anew later.
                if "\ufffd" not in prefix and text.startswith(prefix):
                    assert offset == len(prefix)

    check()


@settings(max_examples=150, deadline=None)
@given(id_lists)
def test_offsets_say_what_stands_after_each_id(ids):
    for decode in (keeping, skipping):
        text, offsets = text_and_offsets(decode, ids)
        assert text == decode(ids)
        assert len(offsets) == len(ids)
        assert list(offsets) == sorted(offsets)
        assert not ids or offsets[-1] == len(text)
        for end, offset in enumerate(offsets[:-1], start=1):
            prefix = decode(ids[:end])
            # What is missing is at most a character that has not come to its end.
            assert prefix.startswith(text[:offset])
            assert prefix[offset:] in ("", "\ufffd", "\ufffd\ufffd", "\ufffd\ufffd\ufffd")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 4), real_text), max_size=40))
def test_spaces_and_bytes_of_sentencepiece(parts):
    ids = []
    for part in parts:
        ids += [part] if isinstance(part, int) else [5 + byte for byte in part.encode()]
    detokenizer = Detokenizer(spaced)
    deltas = stream(detokenizer, ids)
    assert "".join(deltas) + detokenizer.rest() == spaced(ids)
    text, offsets = text_and_offsets(spaced, ids)
    assert text == spaced(ids)
    assert list(offsets) == sorted(offsets)
    for end, offset in enumerate(offsets, start=1):
        prefix = spaced(ids[:end])
        # While a run of bytes is incomplete, this decoder shows all of it as replacements.
        if "\ufffd" not in prefix:
            assert prefix == text[:offset]


def test_a_character_comes_whole():
    ids = encode("né 漢字")
    detokenizer = Detokenizer(keeping)
    deltas = stream(detokenizer, ids)
    assert "".join(deltas) == "né 漢字"
    assert not any("\ufffd" in delta for delta in deltas)
    assert len(ids) > len(deltas)


@pytest.mark.parametrize("text", [FAMILY, WAVE, "\u2764\ufe0f"])
def test_what_may_still_combine_is_withheld(text):
    detokenizer = Detokenizer(keeping)
    deltas = stream(detokenizer, encode(text))
    assert deltas
    assert all(delta[-1] not in WITHHELD for delta in deltas)
    assert detokenizer.rest() == text[len("".join(deltas)) :]
    if text[-1] in WITHHELD:
        assert detokenizer.rest()
        assert detokenizer.next(encode("!")[0]) == detokenizer.all()[len("".join(deltas)) :]
        assert detokenizer.rest() == ""
    assert detokenizer.all().startswith(text)


@pytest.mark.parametrize("text", ["the 12 cats = é漢 " * 200, FAMILY * 200, "\u200d" * 700])
def test_two_thousand_tokens_take_no_time(text):
    ids = encode(text)[:2000]
    assert len(ids) > 1500
    started = time.process_time()
    text_and_offsets(keeping, ids)
    assert time.process_time() - started < 0.2


def test_time_grows_with_length_alone():
    """A run that never becomes a character is the worst case: its window must stay short."""
    lone = byte_ids()[0]
    calls = []

    def counting(ids):
        calls.append(len(ids))
        return keeping(ids)

    text_and_offsets(counting, [lone, *encode("é")] * 1000)
    detokenizer = Detokenizer(counting)
    stream(detokenizer, [lone] * 2000)
    # Apart from the whole decode, no call sees more than a window and its context.
    assert sorted(calls)[-2] <= 20
    assert detokenizer.all() == keeping([lone] * 2000)


def test_a_decoder_that_rewrites_its_past_is_still_right():
    """Bytes that are no text at all turn the whole run of bytes into replacement characters."""
    ids = [1, *(5 + byte for byte in "é".encode()), 5 + 0xFF, 2]
    text, offsets = text_and_offsets(spaced, ids)
    assert text == spaced(ids) == "the\ufffd\ufffd\ufffd cat"
    assert offsets[0] == 3
    assert offsets[-1] == len(text)
    assert list(offsets) == sorted(offsets)


@pytest.mark.parametrize("name", DECODERS)
def test_no_decoder_is_asked_for_long_texts(name):
    """Apart from the whole text, which is decoded once, and runs of bytes that end late."""
    decode, vocabulary, kind = DECODERS[name]
    first = FAR if name == "far" else 0
    calls: list[int] = []

    def counting(ids):
        calls.append(len(ids))
        return decode(ids)

    draw = random.Random(0)
    for length in (1500, 3000):
        ids = [first + draw.randrange(vocabulary) for _ in range(length)]
        calls.clear()
        detokenizer = Detokenizer(counting)
        stream(detokenizer, ids)
        assert sum(calls) < 60 * length + 40_000
        if kind is not DecoderKind.RUNS:
            assert max(calls) < 60
        calls.clear()
        text_and_offsets(counting, ids)
        assert sum(calls) < 120 * length


def test_what_is_learned_is_learned_once():
    calls: list[int] = []

    def counting(ids):
        calls.append(len(ids))
        return keeping(ids)

    pieces = Pieces(counting)
    ids = encode("So 3 + 4 = 7, and né 漢字")
    stream(Detokenizer(pieces), ids)
    calls.clear()
    assert "".join(stream(Detokenizer(pieces), ids)) == keeping(ids)
    # The beginning is always decoded: a space may be missing there.
    assert len(calls) == 1


def test_text_behind_which_something_is_shown_is_given_up():
    detokenizer = Detokenizer(keeping)
    ids = encode("\u2764\ufe0f")
    assert "".join(stream(detokenizer, ids)) == "\u2764"
    assert detokenizer.cut() == "\ufe0f"
    assert detokenizer.cut() == detokenizer.rest() == ""
    assert detokenizer.next(encode("!")[0]) == "!"
    assert detokenizer.all() == "\u2764\ufe0f!"


def test_half_a_character_is_not_given_up():
    detokenizer = Detokenizer(keeping)
    ids = encode("a漢")
    assert [detokenizer.next(ids[0]), detokenizer.next(ids[1])] == ["a", None]
    assert detokenizer.cut() == ""
    assert [detokenizer.next(i) for i in ids[2:]][-1] == "漢"
