"""Probes of what an engine says: its counts and its reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_tokenbudget.core.probes import ProbeOutput, Reply
from pytest_tokenbudget.studies.conformance.evidence import not_possible, shown
from pytest_tokenbudget.studies.conformance.lengths import MOST
from pytest_tokenbudget.studies.conformance.probe_context import (
    AT_ONCE,
    LENGTH_WORDS,
    STOP_WORDS,
    ProbeContext,
)
from pytest_tokenbudget.studies.conformance.results import LimitFinding, LimitResult

CUT = 8


def usage(bench: ProbeContext) -> LimitResult:
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
            "usage", LimitFinding.BROKEN, sentence, n, failed, evidence=tuple(evidence[:4])
        )
    by = "ids" if given[0].choices[0].ids is not None else "text"
    sentence = f"the engine's counts are those of the {by} in {n} of {n} replies"
    return LimitResult("usage", LimitFinding.KEPT, sentence, n, evidence=_one_of_each(given))


def finish_reason(bench: ProbeContext) -> LimitResult:
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
            "finish_reason", LimitFinding.BROKEN, sentence, n, failed, evidence=tuple(evidence[:4])
        )
    sentence = f"{n} of {n} outputs say rightly how they ended ({cuts} were cut)"
    seen = _one_of_each(replies)
    return LimitResult("finish_reason", LimitFinding.KEPT, sentence, n, evidence=seen)


def _caps(bench: ProbeContext) -> list[int]:
    prompts = bench.easy[:AT_ONCE]
    return [CUT if place % 2 else min(MOST, bench.room(each)) for place, each in enumerate(prompts)]


def _mixed(bench: ProbeContext) -> list[Reply]:
    """One batch in which some outputs are cut early and others may end by themselves."""
    prompts = bench.easy[:AT_ONCE]
    asks = [bench.plain(each, cap) for each, cap in zip(prompts, _caps(bench), strict=True)]
    return bench.ask_again(asks, times=1)[0]


def _one_of_each(replies: Sequence[Reply]) -> tuple[dict[str, Any], ...]:
    """Of a batch of whole and cut outputs in turn."""
    return tuple(map(shown, replies[:2]))


def _is_cut(bench: ProbeContext, reply: Reply, choice: ProbeOutput, cap: int) -> bool | None:
    """Whether the cap ended an output; None where that cannot be told."""
    length = bench.length(choice, reply)
    if choice.ids is None:
        # By counts alone an end exactly at the cap looks like a cut.
        return False if length < cap - 2 else cap == CUT or None
    if not bench.engine.eos_ids:
        return True if cap == CUT and length == cap else None if length >= cap else False
    return length >= cap and choice.ids[-1] not in bench.engine.eos_ids


def _miscounted(bench: ProbeContext, reply: Reply) -> str:
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
