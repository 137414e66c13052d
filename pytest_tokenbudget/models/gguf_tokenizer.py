"""A tokenizer from a GGUF file: the one that lies in it, or one rebuilt from its vocabulary.

Keys and token types are those of the GGUF specification
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md); what a file leaves unsaid is as in
llama.cpp (``src/llama-vocab.cpp``, https://github.com/ggml-org/llama.cpp), which is also what ids
are compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_tokenbudget.common.messages import described, mapping
from pytest_tokenbudget.common.outside_text import PrintableError

# The gguf library makes an object of every entry of an array, which takes seconds.
from pytest_tokenbudget.models.gguf_header import read_gguf_arrays
from pytest_tokenbudget.models.gguf_rules import SPLIT_RULES, SplitRule
from pytest_tokenbudget.texts.end_tokens import END_TOKENS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CANNOT: Final = "GGUF: embedded tokenizer not found and cannot reconstruct from metadata"

# Whole in text whatever type the file gives them.
_WHOLE_TOKENS = frozenset(
    {
        *("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>", "<|fim_repo|>"),
        *("<fim-prefix>", "<fim-suffix>", "<fim-middle>", "<fim-pad>", "<fim-repo>"),
        *("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<fim_pad>", "<reponame>"),
        *("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>", "<|repo_name|>"),
        *("<|prefix|>", "<|suffix|>", "<|middle|>", "<|file_sep|>"),
        *("<PRE>", "<SUF>", "<MID>", "<PAD>", "[PAD]", "<REPO>", "▁<PRE>", "▁<SUF>", "▁<MID>"),
        *("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # noqa: RUF001
        *("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"),
    }
)
# In these "<|end|>" closes a part of a message, not the message.
_PARTED = ({"<|return|>", "<|call|>"}, {"<|call|>", "<|flush|>"}, {"<|calls|>", "<|flush|>"})

Metadata = Mapping[str, Any]


class GgufTokenizerError(PrintableError, ValueError):
    """No tokenizer can be had from a file; the reason says what it lacks or what is not known."""

    def __init__(self, reason: str) -> None:
        super().__init__(CANNOT)
        self.reason = reason


@dataclass(frozen=True)
class GgufTokenizer:
    """A file's tokenizer, and what the file says beside it.

    Attributes:
        tokenizer: Turns text into ids and back. Special tokens in text become their ids; BOS and
            EOS come with ``add_special_tokens``, if the file wants them.
        embedded: Whether it lay in the file as a ``tokenizer.json``; else it was rebuilt.
        special: Tokens of the roles ``bos``, ``eos``, ``pad`` and ``unk``, as far as there are any.
        eos_ids: Every id that ends what a model writes.
        chat_template: The file's own.
    """

    tokenizer: Tokenizer
    embedded: bool
    special: Mapping[str, str]
    eos_ids: frozenset[int]
    chat_template: str | None


def load_gguf_tokenizer(path: Path | str) -> GgufTokenizer:
    """The tokenizer of a GGUF file.

    Raises:
        GgufTokenizerError: If it holds none and what it says of its vocabulary is not enough.
        ValueError: If it is not a whole GGUF header.
        OSError: If it cannot be read.
    """
    from gguf import Keys

    if not isinstance(path, str | Path):
        raise ValueError(f"path must be a path or a text, not {described(path)}")
    metadata = read_tokenizer_metadata(Path(path))
    embedded = metadata.get(Keys.Tokenizer.HF_JSON)
    text = embedded if isinstance(embedded, str) and embedded.strip() else None
    tokenizer = rebuild_tokenizer(metadata) if text is None else _parse(text)
    added = tokenizer.get_added_tokens_decoder()
    whole = {token.content: token_id for token_id, token in added.items()}
    roles = {role: tokenizer.id_to_token(i) for role, i in _role_ids(metadata).items()}
    template = metadata.get(Keys.Tokenizer.CHAT_TEMPLATE)
    return GgufTokenizer(
        tokenizer=tokenizer,
        embedded=text is not None,
        # A role that points to an ordinary character is a converter's default.
        special={role: text for role, text in roles.items() if text in whole},
        eos_ids=extract_eos_ids(metadata, whole),
        chat_template=template if isinstance(template, str) and template else None,
    )


def read_tokenizer_metadata(path: Path) -> dict[str, Any]:
    """All that a GGUF file says, with the arrays of its tokenizer and no others.

    Raises:
        ValueError: If it is not a whole GGUF header of a known version.
        OSError: If the file cannot be read.
    """
    from gguf import Keys

    keys = Keys.Tokenizer
    return read_gguf_arrays(path, (keys.LIST, keys.MERGES, keys.SCORES, keys.TOKEN_TYPE))


def extract_eos_ids(
    metadata: Metadata,
    tokens: Mapping[str, int],
    generation_config: Mapping[str, Any] | None = None,
) -> frozenset[int]:
    """Every id that ends a sequence, a turn or a message, from all places that name one.

    Args:
        metadata: What the file says; arrays are not needed.
        tokens: Texts and ids of the tokens that text never has in pieces.
        generation_config: The model's ``generation_config.json``, where there is one.

    Raises:
        ValueError: If one of them is no mapping.
    """
    from gguf import Keys

    mapping("metadata", metadata)
    mapping("tokens", tokens)
    if generation_config is not None:
        mapping("generation_config", generation_config)

    keys = Keys.Tokenizer
    named = [metadata.get(key) for key in (keys.EOS_ID, keys.EOT_ID, keys.EOM_ID)]
    named.append((generation_config or {}).get("eos_token_id"))
    found: set[int] = set()
    for value in named:
        values = value if isinstance(value, list | tuple) else [value]
        found.update(each for each in values if type(each) is int and each >= 0)
    known = {text: token_id for text, token_id in tokens.items() if text in END_TOKENS}
    found.update(known.values())
    if any(parts <= known.keys() for parts in _PARTED):
        found.discard(known.get("<|end|>", -1))
    # Gemma 4 has it as HTML.
    if "<|tool_response>" in known:
        found.discard(known.get("</s>", -1))
    return frozenset(found)


def rebuild_tokenizer(metadata: Metadata) -> Tokenizer:
    """A tokenizer of the vocabulary in a file's metadata.

    Raises:
        GgufTokenizerError: If a part is missing, or the kind or its pre-tokenizer is not known.
    """
    from gguf import Keys

    keys = Keys.Tokenizer
    kind = metadata.get(keys.MODEL)
    tokens = _tokens(metadata)
    if kind == "gpt2":
        name = str(metadata.get(keys.PRE) or "default")
        if name not in SPLIT_RULES:
            raise GgufTokenizerError(
                f"its pre-tokenizer {name!r} is not known; known are {', '.join(SPLIT_RULES)}"
            )
        tokenizer = _byte_level(tokens, metadata.get(keys.MERGES), SPLIT_RULES[name])
        adds_bos = SPLIT_RULES[name].adds_bos
    elif kind == "llama":
        unknown = _role_ids(metadata).get("unk")
        tokenizer = _sentence_piece(
            tokens,
            metadata.get(keys.SCORES),
            unknown=tokens[unknown] if unknown is not None else None,
            prefix=bool(metadata.get(keys.ADD_PREFIX, True)),
        )
        adds_bos = True
    else:
        raise GgufTokenizerError(
            f"its kind is {kind!r}; only gpt2 (byte-level) and llama (SentencePiece) are rebuilt"
        )
    _add_whole_tokens(tokenizer, tokens, metadata)
    _add_ends(tokenizer, metadata, adds_bos)
    return tokenizer


def _parse(embedded: str) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(embedded)
    # The library raises nothing more exact.
    except Exception as error:
        raise GgufTokenizerError(f"the tokenizer.json in it cannot be read: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _tokens(metadata: Metadata) -> list[str]:
    from gguf import Keys

    tokens = metadata.get(Keys.Tokenizer.LIST)
    if not tokens:
        raise GgufTokenizerError("it holds no tokens")
    named = [token or f"[EMPTY_{index}]" for index, token in enumerate(tokens)]
    if len(set(named)) < len(named):
        raise GgufTokenizerError("a token is in its vocabulary twice")
    return named


def _byte_level(tokens: Sequence[str], merges: Sequence[str] | None, rule: SplitRule) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    if not merges:
        raise GgufTokenizerError("it holds no merges")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    pairs = (_pair(merge) for merge in merges)
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=[pair for pair in pairs if {*pair, "".join(pair)} <= vocabulary.keys()],
            ignore_merges=rule.whole_words,
        )
    )
    splits = [pre_tokenizers.Split(Regex(each), "isolated") for each in rule.patterns]
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _pair(merge: str) -> tuple[str, str]:
    # A first part may itself begin with a space.
    place = merge.find(" ", 1)
    return merge[:place], merge[place + 1 :]


def _sentence_piece(
    tokens: Sequence[str], scores: Sequence[float] | None, unknown: str | None, prefix: bool
) -> Tokenizer:
    """Byte pairs in the order of the scores of what they make, over whole texts."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    if not scores or len(scores) < len(tokens):
        raise GgufTokenizerError("it holds no score for each token")
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=merges_from_scores(tokens, scores),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    marks = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*marks, normalizers.Replace(" ", "▁")])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence([*parts, *strip])
    return tokenizer


def merges_from_scores(tokens: Sequence[str], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Pairs of tokens that make a token, best score first.

    SentencePiece joins whichever neighbours make the token of the best score; of several ways to
    make the same token it takes the leftmost, where what was joined before is the longer left part.
    """
    vocabulary = set(tokens)
    found = [
        (-score, -place, token[:place], token[place:])
        for token, score in zip(tokens, scores, strict=False)
        for place in range(1, len(token))
        if token[:place] in vocabulary and token[place:] in vocabulary
    ]
    # Stable: equal scores, which SentencePiece does not write, keep the order of the vocabulary,
    # where llama.cpp would take the leftmost.
    found.sort(key=lambda each: each[:2])
    return [(left, right) for *_, left, right in found]


def _add_whole_tokens(tokenizer: Tokenizer, tokens: Sequence[str], metadata: Metadata) -> None:
    """Keep control tokens and their like in one piece; they are looked for in text as it comes."""
    from gguf import Keys, TokenType
    from tokenizers import AddedToken

    types = metadata.get(Keys.Tokenizer.TOKEN_TYPE) or [TokenType.NORMAL] * len(tokens)
    name = str(metadata.get(Keys.General.NAME, "")).lower()
    # Nothing else in the file tells that its tokens take the spaces after them.
    greedy = any(each in name for each in ("phi-3", "phi3"))
    whole: list[AddedToken] = []
    for token, kind in zip(tokens, types, strict=False):
        special = kind in (TokenType.CONTROL, TokenType.UNKNOWN) or token in END_TOKENS
        if special or kind == TokenType.USER_DEFINED or token in _WHOLE_TOKENS:
            rstrip = greedy and token not in ("<unk>", "<s>", "<|endoftext|>")
            whole.append(AddedToken(token, special=special, normalized=False, rstrip=rstrip))
    tokenizer.add_tokens(whole)


def _add_ends(tokenizer: Tokenizer, metadata: Metadata, adds_bos: bool) -> None:
    from gguf import Keys
    from tokenizers import processors

    wanted = {
        "bos": metadata.get(Keys.Tokenizer.ADD_BOS, adds_bos),
        "eos": metadata.get(Keys.Tokenizer.ADD_EOS, False),
    }
    ends = {role: i for role, i in _role_ids(metadata).items() if wanted.get(role)}
    before, after = ([role] if role in ends else [] for role in wanted)
    if ends:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*before, "$A:0", *after],
            pair=[*before, "$A:0", *after, *before, "$B:0", *after],
            special_tokens=[
                {"id": role, "ids": [i], "tokens": [tokenizer.id_to_token(i)]}
                for role, i in ends.items()
            ],
        )


def _role_ids(metadata: Metadata) -> dict[str, int]:
    """Ids of BOS, EOS, padding and the unknown token; SentencePiece has numbers for most."""
    from gguf import Keys

    keys = Keys.Tokenizer
    names = {"bos": keys.BOS_ID, "eos": keys.EOS_ID, "pad": keys.PAD_ID, "unk": keys.UNK_ID}
    usual = {"unk": 0, "bos": 1, "eos": 2} if metadata.get(keys.MODEL) == "llama" else {}
    count = len(metadata.get(keys.LIST) or ())
    ids = {role: metadata.get(key, usual.get(role)) for role, key in names.items()}
    return {role: i for role, i in ids.items() if type(i) is int and 0 <= i < count}
