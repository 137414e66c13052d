"""From what a chat endpoint gives back to what the model wrote."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.engines.server.output import End, ServerOutput
from pytest_tokenbudget.engines.server.tokens import Counted
from pytest_tokenbudget.models.thinking_formats import GENERIC, builtin_formats
from pytest_tokenbudget.texts.thinking_blocks import ThinkingFormat
from pytest_tokenbudget.texts.token_texts import REPLACEMENT

# By which share a text that is encoded again may differ from what was generated.
SLACK = 0.1
# The same where the tokenizer here is the server's: outputs of up to 200 tokens, encoded again, had
# at most three tokens more, even at a temperature of 2.
REENCODED = 0.05
# By which share another tokenizer may give more tokens: 10 to 40 % on English and on mathematics.
OTHER_TOKENIZER = 0.4
# Tokens that short texts may have more.
SPARE = 4
WORD_JOINER = "\u2060"


class Written(NamedTuple):
    """An output as the model wrote it, as far as that can be told.

    Attributes:
        text: Its text, reasoning between its tags.
        ended: Whether the text of an end-of-sequence token stood at its end.
        hidden_at: After which character reasoning that is not shown belongs.
        plain_from: From which character on tags are what the model wrote about, and mark nothing:
            the server has parted reasoning and answer itself.
    """

    text: str
    ended: bool = False
    hidden_at: int = 0
    plain_from: int | None = None


def restore_output(
    output: ServerOutput,
    thinking: ThinkingFormat | None,
    prompt: str,
    ends: Sequence[str] = (),
    hidden: int = 0,
) -> Written:
    """Put reasoning that came apart, or is only counted, back in its place.

    Where nothing follows reasoning it is left open: servers do not tell whether it was closed.

    Args:
        output: What came.
        thinking: How the model marks its thinking; None where it is not configured.
        prompt: Text of the rendered prompt, which may have opened or closed thinking.
        ends: Texts of the tokens that end sequences; some servers leave one in the text.
        hidden: Reasoning tokens that are counted and not shown (``hidden_tokens``).
    """
    form = thinking or builtin_formats()[GENERIC]
    content, ended = _without_end(output.content, ends)
    opened = form.left_open(prompt)
    opening = "" if opened else form.open
    if output.reasoning is None:
        inside = form.close in content and form.open not in content.partition(form.close)[0]
        if not hidden or inside or (opening and content.lstrip().startswith(opening)):
            return Written(content, ended)
        closing = form.close if content else ""
        return Written(opening + closing + content, ended, len(opening))
    reasoning = output.reasoning
    if not content:
        reasoning, ended = _without_end(reasoning, ends)
        if not opened and prompt.rstrip().endswith(form.close):
            # A parser that calls everything reasoning until a close tag comes, after a prompt that
            # has closed thinking already.
            return Written(reasoning, ended)
    elif (rest := _without_prompt_block(form, prompt, reasoning, content)) is not None:
        return Written(rest, ended)
    if opening and reasoning.lstrip().startswith(opening):
        opening = ""
    closing = form.close if content else ""
    thought = opening + reasoning
    before = thought + closing
    return Written(before + content, ended, len(thought), len(before) if content else None)


def _without_prompt_block(
    form: ThinkingFormat, prompt: str, reasoning: str, content: str
) -> str | None:
    """The content without the closed block that ends the prompt, where that comes as an output.

    transformers serve streams it so; None where it is not there.
    """
    block = prompt[prompt.rfind(form.open) :]
    inside, closed, after = block.removeprefix(form.open).partition(form.close)
    if not closed or after.strip() or form.open not in block:
        return None
    if reasoning.strip() != inside.strip() or not content.startswith(after):
        return None
    return content.removeprefix(after)


def hidden_tokens(output: ServerOutput, count: Callable[[str], int]) -> int:
    """Reasoning tokens that are counted and not shown.

    Reasoning may be shown whole, as a summary, in the content or not at all. What the server counts
    beyond the text that came is not shown.
    """
    claimed = output.usage.get("reasoning_tokens", 0)
    if not claimed:
        return 0
    reasoning = count(output.reasoning or "")
    shown = reasoning + count(output.content)
    hidden = claimed - reasoning
    if output.total is not None:
        hidden = min(hidden, output.total - shown)
    # Text that is encoded again may have a few tokens more or less.
    return hidden if hidden > SLACK * shown + 4 else 0


def escape_tags(counted: Counted, start: int, tags: Sequence[str]) -> Counted:
    """Make tags in an answer plain text: a word joiner after their first character.

    It is not seen, adds no token, and keeps what is quoted from being read as thinking. The answer
    begins at ``start`` in the text.
    """
    pattern = re.compile("|".join(map(re.escape, tags)))
    places = [tag.start() + 1 for tag in pattern.finditer(counted.text, start)]
    if not places:
        return counted
    parts = [counted.text[a:b] for a, b in pairwise([0, *places, len(counted.text)])]
    moved = tuple(offset + bisect_left(places, offset) for offset in counted.offsets)
    return Counted(WORD_JOINER.join(parts), counted.ids, moved)


def check_counts(output: ServerOutput, counted: int, cap: int) -> str:
    """What is wrong with an output's length and the server's word; empty where nothing is.

    ``counted`` are the tokens of the text as they are counted here.
    """
    used = output.total
    most = cap if used is not None else cap * (1 + SLACK) + 8
    least = cap * (1 - SLACK) if used is None else cap * 0.99 - 2
    used = counted if used is None else used
    if used > most:
        return f"wrote {used:,} tokens where {cap:,} were allowed: it did not keep the limit"
    if output.end is End.LENGTH and used < least:
        return (
            f"stopped after {used:,} of {cap:,} tokens and says {output.finish_reason!r}: its own "
            "limit is lower (its context, or a setting of it)"
        )
    return ""


def check_surplus(
    output: ServerOutput, written: Written, prompt_ids: int, sent: str, count: Callable[[str], int]
) -> str:
    """What is wrong with a text that the server cannot have generated with its count of tokens.

    A server may count more than its text has (reasoning that is hidden, special tokens), but not
    clearly less. That finds an event that came twice, which otherwise looks like a repeated token.
    What another tokenizer explains is known from the prompt, of which the server counts at least
    the messages; what repeated deltas explain is not excused by it.

    Args:
        output: What came, to its end.
        written: The output as the model wrote it.
        prompt_ids: How many tokens the prompt has by the tokenizer here.
        sent: The text of the messages that were sent.
        count: Counts the tokens of a text.

    Returns:
        The fault, in words that follow the server's URL; empty where there is none.
    """
    used, prompt = output.total, output.usage.get("prompt_tokens", 0)
    if used is None:
        return ""
    if prompt:  # some count reasoning in the total only
        used = max(used, output.usage.get("total_tokens", 0) - prompt)
    same = prompt == prompt_ids
    share = 1 + (REENCODED if same else OTHER_TOKENIZER)

    def most(tokens: int) -> float:
        return tokens * share + SPARE

    # A character that is cut in two is one token and has up to three when it is encoded again.
    counted = count(written.text) - 2 * written.text.count(REPLACEMENT)
    surplus = counted - most(used)
    if surplus <= 0:
        return ""
    answer = count(output.content)
    if output.reasoning and answer <= most(used) and used <= most(answer):
        return ""  # it counts the answer without its reasoning
    scale = 1.0 if same or not prompt else max(1.0, count(sent) / prompt)
    if count(output.repeated) < surplus and counted <= most(used) * scale:
        return ""
    return (
        f"counts {used:,} tokens for a text that has {counted:,} with the tokenizer here: part of "
        "it came twice, or its count is wrong"
    )


def stop_reason_of(output: ServerOutput, written: Written, cap: int) -> StopReason:
    """Why an output without ids ended: the end that stands in its text, else the server's word.

    Where the server counts as many tokens as were allowed, its word "stop" cannot be told from a
    cut, and counts as one.
    """
    if written.ended:
        return StopReason.EOS
    if output.end is End.LENGTH or (output.total or 0) >= cap:
        return StopReason.LENGTH
    return StopReason.STOP if output.end is End.STOP else StopReason.EOS


def _without_end(text: str, ends: Sequence[str]) -> tuple[str, bool]:
    for end in ends:
        if end and text.endswith(end):
            return text.removesuffix(end), True
    return text, False
