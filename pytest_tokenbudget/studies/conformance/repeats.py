"""Probes of whether outputs come again: several of one prompt, seeds, and prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pytest_tokenbudget.common.text_layout import rate
from pytest_tokenbudget.core.probes import Ask, Reply
from pytest_tokenbudget.stats.intervals import wilson
from pytest_tokenbudget.studies.conformance.analysis import LimitFinding, LimitResult
from pytest_tokenbudget.studies.conformance.probe_context import ProbeContext, not_possible, shown

# Hot, and open: a model that is sure of its sums writes the same ones at any temperature.
HOT = 1.5
SAMPLED = 48
OPEN = ("a lighthouse", "a broken clock", "two foxes", "the last tram", "a blue stone", "rain")
SHORT, LONG = 32, 96
LOAD = 16
_FEW = 4


def several_outputs(probe_context: ProbeContext) -> LimitResult:
    """Whether ``n`` gives that many outputs, and they differ where they are sampled."""
    asks = [replace(ask, n=3, seed=11) for ask in _sampled(probe_context)[:_FEW]]
    replies = probe_context.ask(asks)
    refused = next((reply for reply in replies if reply.refused), None)
    if refused is not None:
        return not_possible("n", f"n is refused: {refused.error}", refused)
    wrong = [reply for reply in replies if len(reply.choices) != 3]
    if wrong:
        got = ", ".join(str(len(reply.choices)) for reply in wrong)
        return LimitResult(
            "n",
            LimitFinding.BROKEN,
            f"3 outputs asked for, {got} came in {len(wrong)} of {len(replies)} requests",
            len(replies),
            len(wrong),
            evidence=tuple(map(shown, wrong[:4])),
        )
    copies = [r for r in replies if len({probe_context.key(choice) for choice in r.choices}) == 1]
    if len(copies) == len(replies):
        greedy = probe_context.ask([replace(ask, n=1, temperature=0.0, seed=None) for ask in asks])
        if _sure(probe_context, replies, greedy):
            return not_possible("n", f"3 outputs came, but {_SURE}, so they tell nothing")
        return LimitResult(
            "n",
            LimitFinding.BROKEN,
            f"the 3 outputs of a request are copies of one another at temperature {HOT}, in all "
            f"of {len(replies)} requests",
            len(replies),
            len(copies),
            evidence=tuple(map(shown, copies[:4])),
        )
    sentence = f"3 outputs came for each of {len(replies)} requests, and they differ"
    seen = (shown(replies[0]),)
    return LimitResult("n", LimitFinding.KEPT, sentence, len(replies), evidence=seen)


def seeds(probe_context: ProbeContext) -> LimitResult:
    """Whether a seed repeats an output, and another seed gives another one."""
    asks = [replace(ask, seed=7) for ask in _sampled(probe_context)]
    first, second = probe_context.ask(asks), probe_context.ask(asks)
    other = probe_context.ask([replace(ask, seed=8) for ask in asks])
    refused = next((reply for reply in first if reply.refused), None)
    if refused is not None:
        return not_possible("seeds", f"seed is refused: {refused.error}", refused)
    pairs = [
        (a, b, c)
        for a, b, c in zip(first, second, other, strict=True)
        if a.choices and b.choices and c.choices
    ]
    n = len(pairs)
    if not n:
        return not_possible("seeds", f"no output came: {first[0].error}", first[0])
    changed = [(a, b) for a, b, _ in pairs if _key(probe_context, a) != _key(probe_context, b)]
    alike = sum(_key(probe_context, a) == _key(probe_context, c) for a, _, c in pairs)
    estimate = wilson(len(changed), n)
    span = (estimate.value, estimate.low, estimate.high)
    if alike == n:
        greedy = probe_context.ask([replace(ask, temperature=0.0, seed=None) for ask in asks])
        if _sure(probe_context, first, greedy):
            return not_possible("seeds", f"{_SURE}, so seeds tell nothing")
        return LimitResult(
            "seeds",
            LimitFinding.BROKEN,
            f"seed 7 and seed 8 give the same output at temperature {HOT}, {n} of {n} times",
            n,
            alike,
            evidence=(shown(pairs[0][0]), shown(pairs[0][2])),
        )
    if changed:
        return LimitResult(
            "seeds",
            LimitFinding.DIFFERS,
            f"with the same seed {len(changed)} of {n} outputs were others the second time "
            f"({rate(span)})",
            n,
            len(changed),
            span,
            (shown(changed[0][0]), shown(changed[0][1])),
        )
    sentence = f"the same seed gave the same output {n} of {n} times, another seed another one"
    seen = (shown(pairs[0][0]), shown(pairs[0][2]))
    return LimitResult("seeds", LimitFinding.KEPT, sentence, n, 0, span, seen)


_SURE = f"the model writes the same at temperature {HOT} as greedily"


def _sampled(probe_context: ProbeContext) -> list[Ask]:
    """Asks whose outputs are anybody's guess."""
    texts = (f"Write something about {thing}. Anything you like." for thing in OPEN)
    asks = (probe_context.plain(({"role": "user", "content": text},), SAMPLED) for text in texts)
    return [replace(ask, temperature=HOT) for ask in asks]


def _sure(probe_context: ProbeContext, sampled: Sequence[Reply], greedy: Sequence[Reply]) -> bool:
    """Whether sampling changes nothing, so that seeds cannot."""
    pairs = [(a, b) for a, b in zip(sampled, greedy, strict=True) if a.choices and b.choices]
    return all(_key(probe_context, a) == _key(probe_context, b) for a, b in pairs)


def prefix_alone(probe_context: ProbeContext) -> LimitResult:
    """Whether a short run is the beginning of a long one, one request at a time."""
    return _prefix(probe_context, "prefix_alone", 1, "one request at a time")


def prefix_under_load(probe_context: ProbeContext) -> LimitResult:
    """Whether a short run among others is the beginning of a long one that ran alone."""
    return _prefix(probe_context, "prefix_under_load", LOAD, f"{LOAD} requests at a time")


def _prefix(probe_context: ProbeContext, probe: str, at_once: int, schedule: str) -> LimitResult:
    prompts = probe_context.candidates
    long_asks = [probe_context.plain(each, LONG) for each in prompts]
    short_asks = [replace(ask, max_tokens=SHORT) for ask in long_asks]
    alone = probe_context.ask(long_asks)
    if at_once == 1:
        short = probe_context.ask(short_asks)
    else:
        # Among requests of another length, so that the company changes while they run.
        mixed = [each for pair in zip(short_asks, long_asks, strict=True) for each in pair]
        short = probe_context.ask(mixed, at_once)[::2]
    pairs = [(a, b) for a, b in zip(alone, short, strict=True) if a.choices and b.choices]
    if not pairs:
        return not_possible(probe, f"no output came: {alone[0].error}", alone[0])
    apart = [
        (place, a, b) for a, b in pairs if (place := _parting(probe_context, a, b)) is not None
    ]
    n = len(pairs)
    estimate = wilson(len(apart), n)
    span = (estimate.value, estimate.low, estimate.high)
    if not apart:
        sentence = (
            f"{n} of {n} runs of {SHORT} tokens are the beginnings of those of {LONG}, {schedule}; "
            f"divergence rate {rate(span)}"
        )
        seen = (shown(pairs[0][0]), shown(pairs[0][1]))
        return LimitResult(probe, LimitFinding.KEPT, sentence, n, 0, span, seen)
    first = min(place for place, _, _ in apart)
    unit = "characters" if apart[0][1].choices[0].ids is None else "tokens"
    sentence = (
        f"{len(apart)} of {n} runs of {SHORT} tokens part from those of {LONG}, {schedule}; "
        f"divergence rate {rate(span)}, at the earliest after {first} {unit}"
    )
    evidence = tuple(
        shown(b, parts_after=place, longer=a.choices[0].text[:120], shorter=b.choices[0].text[:120])
        for place, a, b in apart[:4]
    )
    return LimitResult(probe, LimitFinding.DIFFERS, sentence, n, len(apart), span, evidence)


def _parting(probe_context: ProbeContext, long: Reply, short: Reply) -> int | None:
    """After how many ids, or characters, a short output leaves the long one; None: it does not."""
    whole, part = probe_context.key(long.choices[0]), probe_context.key(short.choices[0])
    if isinstance(whole, str) and isinstance(part, str):
        # A cut may end inside a character.
        part = part.rstrip("\ufffd \n")
    if whole[: len(part)] == part:
        return None
    return next(
        (i for i, (a, b) in enumerate(zip(whole, part, strict=False)) if a != b), len(whole)
    )


def _key(probe_context: ProbeContext, reply: Reply) -> Sequence[object]:
    return probe_context.key(reply.choices[0])
