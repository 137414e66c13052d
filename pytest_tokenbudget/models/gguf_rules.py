"""How the pre-tokenizers that GGUF files name split text, before byte-pair merges are applied.

A GGUF file holds no split rule, only the name of one (``tokenizer.ggml.pre``). What the names stand
for is llama.cpp's to say (``src/llama-vocab.cpp``, https://github.com/ggml-org/llama.cpp): names
whose rule is the same are one entry here. A rule is a list of patterns; each splits the pieces that
the one before has left into its matches and what lies between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Written out: where case is ignored a contraction may end in a long s, and in llama.cpp none does.
_ENDINGS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"

# GPT-2's own (``encoder.py`` of https://github.com/openai/gpt-2).
GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_DIGITS_BY_THREE = rf"{_ENDINGS}|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS}|{_SPACES}"
_SINGLE_DIGITS = rf"{_ENDINGS}|{_WORD}|\p{{N}}|{_SIGNS}|{_SPACES}"
_WITH_MARKS = (
    rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_DEEPSEEK = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"
)
# Words end where capitals begin again; used by GPT-4o's (``o200k_base`` of
# https://github.com/openai/tiktoken) and Mistral's "Tekken", which knows no contractions. These are
# the models' own; llama.cpp's version of them takes combining marks out of words.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDINGS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDINGS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)


@dataclass(frozen=True)
class SplitRule:
    """How a family of byte-level tokenizers splits text, and what else goes with its name.

    Attributes:
        patterns: Regular expressions in the dialect of the tokenizers library.
        whole_words: Whether a piece that is in the vocabulary is a token without any merging.
        adds_bos: Whether a text begins with BOS where the file does not say.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    adds_bos: bool = False


_RULES: Final = (
    (
        "gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe "
        "gigachat a.x-4.0 mellum modern-bert mpt olmo jais trillion granite-docling exaone4",
        SplitRule((GPT2,)),
    ),
    (
        "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
        SplitRule((r"\p{N}", GPT2)),
    ),
    (
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
        SplitRule((_DIGITS_BY_THREE,), whole_words=True, adds_bos=True),
    ),
    ("dbrx smaug-bpe glm4 chatglm-bpe", SplitRule((_DIGITS_BY_THREE,))),
    (
        "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2 "
        "bailingmoe bailingmoe2 llada-moe",
        SplitRule((_SINGLE_DIGITS,)),
    ),
    ("qwen35", SplitRule((_WITH_MARKS,))),
    (
        "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
        SplitRule((r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", _DEEPSEEK)),
    ),
    ("gpt-4o llama4 kanana2 minimax-m2", SplitRule((_GPT4O,))),
    ("tekken", SplitRule((_TEKKEN,), whole_words=True, adds_bos=True)),
    ("falcon", SplitRule((r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"))),
    (
        "seed-coder",
        SplitRule((rf"{_ENDINGS}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}",)),
    ),
    (
        "minicpm5",
        SplitRule(
            (r"\p{N}{1,3}", rf"{_ENDINGS}|{_WORD}|\p{{N}}+|{_SIGNS}|{_SPACES}"), whole_words=True
        ),
    ),
    (
        "default",
        SplitRule((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    ),
)

SPLIT_RULES: Final = {name: rule for names, rule in _RULES for name in names.split()}
