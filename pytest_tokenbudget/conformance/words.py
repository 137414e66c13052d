"""Probes of what an engine says: its counts, its reasons, its answer to what does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pytest_tokenbudget.conformance.asking import Ask, Choice, Reply
from pytest_tokenbudget.conformance.bench import (
    AT_ONCE,
    LENGTH_WORDS,
    STOP_WORDS,
    Bench,
)
from pytest_tokenbudget.conformance.lengths import MOST
from pytest_tokenbudget.conformance.results import Finding, LimitResult
from pytest_tokenbudget.conformance.shown import not_possible, shown

CUT = 8
# A prompt beyond a longer context would be a test of the network.
LONGEST_CONTEXT = 65_536
# Output tokens that are left behind a prompt, and that are asked for there.
ROOM, TOO_MUCH = 24, 64
_FILLER = "One two three four five six seven eight nine ten. "


def usage(bench: Bench) -> LimitResult:
    """Whether the engine's own counts are those of the ids, or of the text where it gives none.

    An end-of-sequence id that is counted and not given, or given and not counted, is no error.
    Counts from text get a slack of two tokens, since text need not encode as it was written, and
    where reasoning comes apart that of its tags, whose line ends are often lost.
    """
    replies = _mixed(bench)
    given = [reply for reply in replies if reply.choices and reply.usage]
    if not given:
        return not_possible("usage", "the engine gives no counts", replies[0])
    failed, evidence, said = 0, [], []
    for reply in given:
        wrong = _miscounted(bench, reply)
        if wrong:
            failed += 1
            said.append(wrong)
            evidence.append(shown(reply, wrong=wrong))
    n = len(given)
    if failed:
        sentence = f"{failed} of {n} replies are counted wrongly: {'; '.join(said[:3])}"
        return LimitResult(
            "usage", Finding.BROKEN, sentence, n, failed, evidence=tuple(evidence[:4])
        )
    by = "ids" if given[0].choices[0].ids is not None else "text"
    sentence = f"the engine's counts are those of the {by} in {n} of {n} replies"
    return LimitResult("usage", Finding.KEPT, sentence, n, evidence=_one_of_each(given))


def finish_reason(bench: Bench) -> LimitResult:
    """Whether each output of a batch of cut and whole ones says rightly how it ended."""
    replies = _mixed(bench)
    outputs = [(reply, choice) for reply in replies for choice in reply.choices]
    if not outputs:
        return not_possible("finish_reason", f"no output came: {replies[0].error}", replies[0])
    caps = {id(reply): cap for reply, cap in zip(replies, _caps(bench), strict=True)}
    failed, evidence, said = 0, [], []
    n = cuts = 0
    for reply, choice in outputs:
        cut = _is_cut(bench, reply, choice, caps[id(reply)])
        if cut is None:
            continue
        n, cuts = n + 1, cuts + cut
        if choice.finish_reason not in (LENGTH_WORDS if cut else STOP_WORDS):
            failed += 1
            was = "was cut" if cut else "had ended by itself"
            said.append(f"says {choice.finish_reason!r} of an output that {was}")
            evidence.append(shown(reply))
    if not n:
        return not_possible("finish_reason", "nobody can tell cut outputs here", replies[0])
    words = {choice.finish_reason for _, choice in outputs}
    if failed:
        sentence = f"{failed} of {n} outputs: {'; '.join(dict.fromkeys(said))}"
        if len(words) == 1 and 0 < cuts < n:
            sentence += f"; all of the {n} in one batch have the one word {words.pop()!r}"
        return LimitResult(
            "finish_reason", Finding.BROKEN, sentence, n, failed, evidence=tuple(evidence[:4])
        )
    sentence = f"{n} of {n} outputs say rightly how they ended ({cuts} were cut)"
    seen = _one_of_each(replies)
    return LimitResult("finish_reason", Finding.KEPT, sentence, n, evidence=seen)


def overflow(bench: Bench) -> LimitResult:
    """What happens where prompt, or prompt and output, do not fit into the context.

    A prompt that is too long must be refused: to answer it means that part of it was dropped
    without a word. Where only ``max_tokens`` is too much, refusing and cutting short are both
    right, as long as a cut output says ``length``.
    """
    context = bench.engine.context
    if context > LONGEST_CONTEXT:
        return not_possible("overflow", f"a prompt beyond {context:,} tokens is not sent")
    beyond, tight = _filled(bench, context + 64), _filled(bench, context - ROOM)
    (reply,) = bench.ask([replace(beyond, max_tokens=8)])
    evidence = [shown(reply)]
    problem = ""
    if reply.choices:
        counted = reply.usage.get("prompt_tokens")
        told = f", {counted} of its tokens counted" if counted is not None else ""
        problem = f"a prompt beyond the context of {context} was answered{told}"
    elif not reply.refused:
        problem = f"a prompt beyond the context ended in: {reply.error}"
    (other,) = bench.ask([replace(tight, max_tokens=TOO_MUCH)])
    evidence.append(shown(other))
    if other.choices:
        choice = other.choices[0]
        length, word = bench.length(choice, other), choice.finish_reason
        does = f"max_tokens beyond the context is cut short (to {length})"
        if length >= TOO_MUCH:
            does = f"max_tokens beyond the stated context of {context} is given in full"
        elif word not in LENGTH_WORDS and (word not in STOP_WORDS or _ran_full(bench, other)):
            problem = problem or f"an output cut at the context says {word!r}"
        elif word in STOP_WORDS:
            does = f"max_tokens beyond the context is taken (the output ended before, at {length})"
    elif other.refused:
        does = "max_tokens beyond the context is refused"
    else:
        does = f"max_tokens beyond the context ended in: {other.error}"
        problem = problem or does
    if problem:
        return LimitResult(
            "overflow", Finding.BROKEN, f"{problem}; {does}", 2, 1, evidence=tuple(evidence)
        )
    sentence = f"a prompt beyond the context of {context} is refused; {does}"
    return LimitResult("overflow", Finding.KEPT, sentence, 2, 0, evidence=tuple(evidence))


def _caps(bench: Bench) -> list[int]:
    prompts = bench.easy[:AT_ONCE]
    return [CUT if place % 2 else min(MOST, bench.room(each)) for place, each in enumerate(prompts)]


def _mixed(bench: Bench) -> list[Reply]:
    """One batch in which some outputs are cut early and others may end by themselves."""
    prompts = bench.easy[:AT_ONCE]
    asks = [bench.plain(each, cap) for each, cap in zip(prompts, _caps(bench), strict=True)]
    return bench.ask_again(asks, times=1)[0]


def _one_of_each(replies: Sequence[Reply]) -> tuple[dict[str, Any], ...]:
    """Of a batch of whole and cut outputs in turn."""
    return tuple(map(shown, replies[:2]))


def _is_cut(bench: Bench, reply: Reply, choice: Choice, cap: int) -> bool | None:
    """Whether the cap ended an output; None where that cannot be told."""
    length = bench.length(choice, reply)
    if choice.ids is None:
        # By counts alone an end exactly at the cap looks like a cut.
        return False if length < cap - 2 else cap == CUT or None
    if not bench.engine.eos_ids:
        return True if cap == CUT and length == cap else None if length >= cap else False
    return length >= cap and choice.ids[-1] not in bench.engine.eos_ids


def _miscounted(bench: Bench, reply: Reply) -> str:
    """What is wrong with the counts of a reply; empty where nothing is."""
    counts: Mapping[str, int] = reply.usage
    completion, prompt = counts.get("completion_tokens"), counts.get("prompt_tokens")
    if completion is not None:
        if all(choice.ids is not None for choice in reply.choices):
            ids = sum(len(choice.ids or ()) for choice in reply.choices)
            ends = sum(choice.finish_reason in STOP_WORDS for choice in reply.choices)
            slack, what = ends, "ids"
        else:
            ids = sum(bench.engine.count(choice.text) or 0 for choice in reply.choices)
            # Where reasoning comes apart, the line ends around its tags are often lost.
            split = sum(choice.reasoning is not None for choice in reply.choices)
            slack, what = 2 + len(reply.choices) + split * bench.slack, "tokens of text"
        if abs(completion - ids) > slack:
            return f"completion_tokens {completion}, {ids} {what}"
    if prompt is not None and reply.prompt_tokens is not None and prompt != reply.prompt_tokens:
        return f"prompt_tokens {prompt}, {reply.prompt_tokens} ids"
    reasoning = counts.get("reasoning_tokens")
    if reasoning is not None and reply.choices[0].ids is not None and len(reply.choices) == 1:
        seen = bench.read(0, reply.choices[0], None, MOST).observation.thinking
        if abs(reasoning - seen) > bench.slack:
            return f"reasoning_tokens {reasoning}, {seen} ids of thinking"
    return ""


def _ran_full(bench: Bench, reply: Reply) -> bool:
    """Whether an output fills the context without an end of its own; False if nobody can tell."""
    ids = reply.choices[0].ids
    if not ids or reply.prompt_tokens is None or not bench.engine.eos_ids:
        return False
    # Engines keep a place free or not.
    full = reply.prompt_tokens + len(ids) >= bench.engine.context - 1
    return full and ids[-1] not in bench.engine.eos_ids


def _filled(bench: Bench, tokens: int) -> Ask:
    """An ask whose prompt has about that many tokens; a problem at its end, to be thought about."""
    nothing = ({"role": "user", "content": ""},)
    *before, last = next(iter(bench.candidates), nothing)
    unit = max(bench.engine.count(_FILLER * 10) or 100, 10) / 10

    def ask(times: int) -> Ask:
        content = f"{_FILLER * max(times, 1)}\n\n{last['content']}"
        return bench.plain((*before, {**last, "content": content}), 8)

    if not bench.takes_ids:
        rest = sum(bench.engine.count(each["content"]) or 0 for each in (*before, last))
        return ask(int((tokens - 32 - rest) / unit))
    made = ask(int(tokens / unit) + 2)
    spare = len(made.prompt_ids) - tokens
    # Some of the filling is left out, so that the prompt begins and ends as the template wants.
    middle = (len(made.prompt_ids) - spare) // 2
    ids = made.prompt_ids[:middle] + made.prompt_ids[middle + spare :] if spare > 0 else None
    return replace(made, prompt_ids=ids) if ids else made
