"""Tokens that end what a model writes."""

from __future__ import annotations

from typing import Final

# Tokens that end a turn in models whose files do not always say so.
END_OF_TURN: Final = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",  # noqa: RUF001
)
# Where text has these, they are whole, and a model that writes one has ended.
END_TOKENS: Final = frozenset(
    (
        *END_OF_TURN,
        *"<|eom_id|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <turn|>".split(),
        *"<|tool_response> <end_of_utterance> <eos> </s> <EOT> _<EOT> [EOT] [EOS] [e~[".split(),
    )
)
