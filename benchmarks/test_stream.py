"""How fast ids become text, one by one, for the kinds of tokenizers there are."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models

from benchmarks import synthetic
from benchmarks.conftest import Benchmark, Sizes
from pytest_tokenbudget.core.store_tables import unpack
from pytest_tokenbudget.engines.text import ModelText
from pytest_tokenbudget.models.resolution import DEFAULT_MODEL, load_catalogue
from pytest_tokenbudget.texts.detokenizer import Decode, Detokenizer, Pieces, text_and_offsets

LEAST_TOKENS_A_SECOND = 200_000
TOKENS = 50_000
STORE = Path(__file__).parent.parent / "reports/traces.sqlite"
VOCABULARY = 1024
BYTES_FROM = 2000


@cache
def embedded() -> Tokenizer:
    """The embedded model's byte-level tokenizer."""
    return Tokenizer.from_file(f"{load_catalogue()[DEFAULT_MODEL].source}/tokenizer.json")


def bytes_joined(ids: Sequence[int]) -> str:
    """Text by a byte-level tokenizer."""
    return embedded().decode(list(ids), skip_special_tokens=False)


@cache
def _model_text() -> ModelText:
    return ModelText(load_catalogue()[DEFAULT_MODEL])


def by_engine(ids: Sequence[int]) -> str:
    """The same as an engine decodes it, through Transformers."""
    return _model_text().decode(ids)


@cache
def _fallback() -> Tokenizer:
    words = [f"▁{word}" for word in _some_words(BYTES_FROM)]
    pieces = [*words, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, [], byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return tokenizer


def with_fallback(ids: Sequence[int]) -> str:
    """Text by a tokenizer of the SentencePiece kind."""
    return _fallback().decode(list(ids), skip_special_tokens=False)


@cache
def _words() -> Any:
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", *_some_words(998), *(f"##{word}" for word in _some_words(1000))]
    return BertTokenizer(vocab={word: number for number, word in enumerate(words)})


def words(ids: Sequence[int]) -> str:
    """Text by a tokenizer of the WordPiece kind."""
    return _words().decode(list(ids), clean_up_tokenization_spaces=False)


def tidied_words(ids: Sequence[int]) -> str:
    """The same with spaces removed before punctuation, which has to be followed in a window."""
    return _words().decode(list(ids), clean_up_tokenization_spaces=True)


def _some_words(count: int) -> list[str]:
    signs = [".", ",", "!", "?", "'", "n", "t", "s", "not"]
    letters = "etaoinshrd"
    made = ("".join(letters[int(digit)] for digit in str(i)) for i in range(10, 10 + 2 * count))
    return [*signs, *(word for word in made if word not in signs)][:count]


def random_ids(vocabulary: int, count: int) -> list[int]:
    """Ids that make no sense: what is hardest to turn into text."""
    rng = random.Random(0)
    return [rng.randrange(vocabulary) for _ in range(count)]


def mixed_ids(count: int) -> list[int]:
    """Words, and a character in bytes in one of twenty places."""
    rng = random.Random(0)
    made: list[int] = []
    while len(made) < count:
        char = chr(rng.randrange(0x4E00, 0x9FFF)) if rng.random() < 0.05 else ""
        made += [BYTES_FROM + byte for byte in char.encode()] or [rng.randrange(BYTES_FROM)]
    return made[:count]


def written_ids(count: int) -> list[int]:
    """Traces of the embedded model from the store here, else worked solutions."""
    made: list[int] = []
    for ids in _stored():
        made += ids
        if len(made) >= count:
            return made[:count]
    lines = synthetic.solution(random.Random(0))
    while len(made) < count:
        made += embedded().encode(next(lines), add_special_tokens=False).ids
    return made[:count]


def _stored() -> Iterator[Sequence[int]]:
    if not STORE.exists():
        return
    with closing(sqlite3.connect(f"file:{STORE}?mode=ro", uri=True)) as store:
        for (blob,) in store.execute("SELECT output_ids FROM traces ORDER BY key"):
            ids = unpack(blob)
            # Traces of any model are in the store; ids of other ones would be beyond.
            if all(0 <= token_id < VOCABULARY for token_id in ids):
                yield ids


def foreign_ids(count: int) -> list[int]:
    """Characters that the embedded model never learned, in three or four bytes each."""
    rng = random.Random(0)
    text = "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(count // 3))
    return embedded().encode(text, add_special_tokens=False).ids[:count]


# Nothing here waits for anything: the time of this process is what it takes, whoever else works.
pytestmark = pytest.mark.benchmark(timer=time.process_time)

Ids = Callable[[int], list[int]]
CASES: dict[str, tuple[Decode, Ids]] = {
    "bytes-random": (bytes_joined, lambda count: random_ids(VOCABULARY, count)),
    "bytes-written": (bytes_joined, written_ids),
    "bytes-foreign": (bytes_joined, foreign_ids),
    "engine-random": (by_engine, lambda count: random_ids(VOCABULARY, count)),
    "engine-written": (by_engine, written_ids),
    "engine-foreign": (by_engine, foreign_ids),
    "fallback-random": (with_fallback, lambda count: random_ids(BYTES_FROM + 256, count)),
    "fallback-mixed": (with_fallback, mixed_ids),
    "words-random": (words, lambda count: random_ids(1998, count)),
    "tidied-random": (tidied_words, lambda count: random_ids(1998, count // 10)),
}
# What has to be decoded in a window is as slow as its decoder.
SLOW = {"tidied-random"}


def _stream(detokenizer: Detokenizer, ids: Sequence[int]) -> str:
    take = detokenizer.next
    for token_id in ids:
        take(token_id)
    return detokenizer.all()


def _note(benchmark: Benchmark, tokens: int) -> float:
    rate = float(tokens / benchmark.stats.stats.median)
    benchmark.extra_info |= {"tokens": tokens, "tokens_a_second": rate}
    return rate


@pytest.mark.parametrize("case", CASES)
def test_tokens_a_second(benchmark: Benchmark, sizes: Sizes, case: str) -> None:
    """A long text, with all that has been learned from others: what a run has but at its start."""
    decode, ids_of = CASES[case]
    ids = ids_of(TOKENS if sizes.judged else 500)
    pieces = Pieces(decode)
    text = benchmark.pedantic(
        _stream, setup=lambda: ((Detokenizer(pieces), ids), {}), rounds=5, warmup_rounds=1
    )
    rate = _note(benchmark, len(ids))
    assert text == decode(ids)
    if sizes.judged and case not in SLOW:
        assert rate >= LEAST_TOKENS_A_SECOND


@pytest.mark.parametrize("case", CASES)
def test_tokens_a_second_at_first_sight(benchmark: Benchmark, sizes: Sizes, case: str) -> None:
    """The same with nothing learned: a long text, and finding out about its tokenizer."""
    decode, ids_of = CASES[case]
    ids = ids_of(TOKENS if sizes.judged else 500)
    decode(ids[:1])
    text = benchmark.pedantic(lambda: _stream(Detokenizer(decode), ids), rounds=3)
    rate = _note(benchmark, len(ids))
    assert text == decode(ids)
    if sizes.judged and case not in SLOW:
        assert rate >= LEAST_TOKENS_A_SECOND


@pytest.mark.parametrize("learned", [False, True], ids=["plain", "learned"])
@pytest.mark.parametrize("case", CASES)
def test_offsets_of_traces(benchmark: Benchmark, sizes: Sizes, case: str, learned: bool) -> None:
    """Text and offsets of traces of a thousand tokens, as they are stored; no bound is set."""
    decode, ids_of = CASES[case]
    ids = ids_of(TOKENS // 5 if sizes.judged else 500)
    traces = [ids[start : start + 1000] for start in range(0, len(ids), 1000)]
    source = Pieces(decode) if learned else decode
    made = benchmark.pedantic(
        lambda: [text_and_offsets(source, trace) for trace in traces], rounds=3
    )
    _note(benchmark, len(ids))
    assert [text for text, _ in made] == [decode(trace) for trace in traces]
