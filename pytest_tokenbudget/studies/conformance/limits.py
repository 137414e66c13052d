"""Probes of the limits: where an output ends, what the engine says of that, and what it counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pytest_tokenbudget.core.probes import Ask, NoAnswerError, ProbeOutput, Reply
from pytest_tokenbudget.studies.conformance import overflow, repeats
from pytest_tokenbudget.studies.conformance.analysis import LimitFinding, LimitResult
from pytest_tokenbudget.studies.conformance.probe_context import (
    AT_ONCE,
    LENGTH_WORDS,
    STOP_WORDS,
    ProbeContext,
    not_possible,
    shown,
)

CAPS = (1, 2, 16)
# Outputs that a boundary can be set around end by themselves within this.
MOST = 640
_MANY = 4
LONGEST_TOKEN = 16


def max_tokens(probe_context: ProbeContext) -> LimitResult:
    """Whether outputs have as many tokens as ``max_tokens`` allows, and no more.

    Fewer are right only where the output ended by itself. Where an engine gives no ids, its own
    count is taken, else the text's, which may be off by one at a cut character.
    """
    prompts = probe_context.candidates[:_MANY]
    asks = [probe_context.plain(each, cap) for cap in CAPS for each in prompts]
    checked = failed = 0
    evidence: list[Mapping[str, Any]] = []
    said: list[str] = []
    replies = probe_context.ask(asks)
    for ask, reply in zip(asks, replies, strict=True):
        if not reply.choices:
            said.append(f"max_tokens {ask.max_tokens} failed: {reply.error}")
            failed, checked = failed + 1, checked + 1
            evidence.append(shown(reply))
            continue
        for choice in reply.choices:
            checked += 1
            length = probe_context.length(choice, reply)
            rough = choice.ids is None and "completion_tokens" not in reply.usage
            ended = choice.finish_reason in STOP_WORDS
            too_few = length + rough < ask.max_tokens and not ended
            if length > ask.max_tokens + rough or too_few:
                failed += 1
                said.append(f"{length} tokens with max_tokens {ask.max_tokens}")
                evidence.append(shown(reply, tokens=length))
    caps = ", ".join(map(str, CAPS))
    if failed:
        finding = LimitFinding.BROKEN
        sentence = f"{failed} of {checked} outputs do not keep max_tokens: {'; '.join(said[:4])}"
    else:
        finding = LimitFinding.KEPT
        sentence = (
            f"{checked} of {checked} outputs have just as many tokens as max_tokens of {caps} allow"
        )
        evidence = [shown(reply) for reply in replies[::_MANY]]
    return LimitResult(
        "max_tokens", finding, sentence, checked, failed, evidence=tuple(evidence[:4])
    )


def boundary(probe_context: ProbeContext) -> LimitResult:
    """Whether an end exactly at the cap counts as an end, and one token less as a cut.

    The natural length includes the end-of-sequence token. At that cap, and one above it, the
    output must be whole and end by itself; one below it, it must be cut and say so.
    """
    natural = _natural(probe_context)
    if not natural:
        return not_possible("boundary", f"no output ends by itself within {MOST} tokens")
    found = _Counts()
    for ask, choice, reply in natural:
        length = _with_end(probe_context, choice, reply)
        for cap in (length - 1, length, length + 1):
            if cap < 1:
                continue
            (other,) = probe_context.ask([replace(ask, max_tokens=cap)])
            if not other.choices:
                found.add(True, f"cap {cap} failed: {other.error}", other)
                continue
            again = other.choices[0]
            if not _begins_alike(probe_context, choice, again):
                found.differ(f"with cap {cap} the output is another one", other)
                continue
            word = again.finish_reason
            right = word in (STOP_WORDS if cap >= length else LENGTH_WORDS)
            place = {-1: "one below", 0: "exactly at", 1: "one above"}[cap - length]
            found.add(not right, f"{word!r} with a cap {place} the natural length {length}", other)
    return found.result(
        "boundary",
        "an end exactly at the cap is an end, one token less is a cut, one more changes nothing",
    )


def stop_strings(probe_context: ProbeContext) -> LimitResult:
    """Whether an output ends at a stop string, says so, and is the same up to there.

    The text is taken from what the model writes without one. Nothing may follow the stop string
    but the rest of the token that it ends in; whether the string itself is part of the text,
    engines decide differently.
    """
    natural = _natural(probe_context)
    tried = []
    for ask, choice, _ in natural:
        for share in (0.3, 0.7):
            stop = _stop_in(probe_context, choice.text, share)
            if stop:
                tried.append((replace(ask, max_tokens=MOST, stop=(stop,)), stop, choice.text))
    if not tried:
        return not_possible("stop_strings", "no output has a text that could be a stop string")
    found = _Counts()
    replies = probe_context.ask([ask for ask, _, _ in tried])
    for (_, stop, text), reply in zip(tried, replies, strict=True):
        if reply.refused:
            return not_possible("stop_strings", f"stop is refused: {reply.error}", reply)
        if not reply.choices:
            found.add(True, f"stop {stop!r} failed: {reply.error}", reply)
            continue
        choice = reply.choices[0]
        end = text.find(stop) + len(stop)
        if len(choice.text) > end + LONGEST_TOKEN:
            found.add(True, f"it went on after {stop!r}", reply)
        elif choice.finish_reason not in STOP_WORDS:
            found.add(True, f"ended at {stop!r} and says {choice.finish_reason!r}", reply)
        elif not _bare(text).startswith(_bare(choice.text)):
            found.differ(f"before {stop!r} the output is another one", reply)
        else:
            found.add(False, "", reply)
    return found.result("stop_strings", "outputs end at the stop string and say so")


def _natural(probe_context: ProbeContext) -> list[tuple[Ask, ProbeOutput, Reply]]:
    """Up to three prompts whose outputs end by themselves, shortest first.

    Raises:
        NoAnswerError: If no prompt was answered, and not because they were refused.
    """
    asks = [
        probe_context.plain(each, min(MOST, probe_context.room(each)))
        for each in probe_context.easy[: 2 * _MANY]
    ]
    (replies,) = probe_context.ask_again(asks, times=1)
    lost = [reply for reply in replies if reply.error and not reply.refused]
    if lost and len(lost) == len(replies):
        raise NoAnswerError(f"no output came: {lost[0].error}")
    ended = [
        (ask, reply.choices[0], reply)
        for ask, reply in zip(asks, replies, strict=True)
        if reply.choices and reply.choices[0].finish_reason in STOP_WORDS
    ]
    return sorted(ended, key=lambda each: probe_context.length(each[1], each[2]))[:3]


def _with_end(probe_context: ProbeContext, choice: ProbeOutput, reply: Reply) -> int:
    """Tokens of an output with its end-of-sequence one, whether the engine gives it or not."""
    if choice.ids is None:
        return probe_context.length(choice, reply)
    if not probe_context.engine.eos_ids or not choice.ids:
        return len(choice.ids)
    return len(choice.ids) + (choice.ids[-1] not in probe_context.engine.eos_ids)


def _begins_alike(probe_context: ProbeContext, one: ProbeOutput, other: ProbeOutput) -> bool:
    left, right = probe_context.key(one), probe_context.key(other)
    if isinstance(left, str) or isinstance(right, str):
        # Where reasoning is cut, the text put together ends without its tag.
        return _bare(one.text).startswith(_bare(other.text)[: len(_bare(other.text)) - 1])
    return left[: len(right)] == right


def _stop_in(probe_context: ProbeContext, text: str, share: float) -> str:
    """A text of a few characters that occurs at about that part of another, and not before."""
    for start in range(int(len(text) * share), len(text) - 8):
        stop = text[start : start + 6]
        plain = stop.isascii() and stop.isprintable() and not set(stop) & set("<>|[]")
        if plain and stop == stop.strip() and text.find(stop) == start:
            return stop
    return ""


def _bare(text: str) -> str:
    return "".join(text.split())


class _Counts:
    """What came of several checks."""

    def __init__(self) -> None:
        self.checked = self.failed = self.differing = 0
        self.kept: list[Reply] = []
        self.said: list[str] = []
        self.evidence: list[Mapping[str, Any]] = []

    def add(self, failed: bool, what: str, reply: Reply) -> None:
        self.checked += 1
        self.failed += failed
        if failed:
            self.said.append(what)
            self.evidence.append(shown(reply))
        else:
            self.kept.append(reply)

    def differ(self, what: str, reply: Reply) -> None:
        self.checked += 1
        self.differing += 1
        self.said.append(what)
        self.evidence.append(shown(reply))

    def result(self, probe: str, kept: str) -> LimitResult:
        bad = self.failed + self.differing
        finding = LimitFinding.KEPT
        sentence = f"{kept} ({self.checked} of {self.checked})"
        if bad:
            finding = LimitFinding.BROKEN if self.failed else LimitFinding.DIFFERS
            said = list(dict.fromkeys(self.said))
            sentence = f"{bad} of {self.checked}: {'; '.join(said[:4])}"
        evidence = self.evidence or map(shown, self.kept)
        return LimitResult(
            probe, finding, sentence, self.checked, bad, evidence=tuple(evidence)[:4]
        )


CUT = 8


def usage(probe_context: ProbeContext) -> LimitResult:
    """Whether the engine's own counts are those of the ids, or of the text where it gives none.

    An end-of-sequence id that is counted and not given, or given and not counted, is no error.
    Counts from text get a slack of two tokens, since text need not encode as it was written, and
    where reasoning comes apart that of its tags, whose line ends are often lost.
    """
    replies = _mixed(probe_context)
    given = [reply for reply in replies if reply.choices and reply.usage]
    if not given:
        return not_possible("usage", "the engine gives no counts", replies[0])
    failed, evidence, said = 0, [], []
    for reply in given:
        wrong = _miscounted(probe_context, reply)
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
    seen = tuple(map(shown, given[:2]))
    return LimitResult("usage", LimitFinding.KEPT, sentence, n, evidence=seen)


def finish_reason(probe_context: ProbeContext) -> LimitResult:
    """Whether each output of a batch of cut and whole ones says rightly how it ended."""
    replies = _mixed(probe_context)
    outputs = [(reply, choice) for reply in replies for choice in reply.choices]
    if not outputs:
        return not_possible("finish_reason", f"no output came: {replies[0].error}", replies[0])
    caps = {id(reply): cap for reply, cap in zip(replies, _caps(probe_context), strict=True)}
    failed, evidence, said = 0, [], []
    n = cuts = 0
    for reply, choice in outputs:
        cut = _is_cut(probe_context, reply, choice, caps[id(reply)])
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
    seen = tuple(map(shown, replies[:2]))  # one that was cut, and one that was not
    return LimitResult("finish_reason", LimitFinding.KEPT, sentence, n, evidence=seen)


def _caps(probe_context: ProbeContext) -> list[int]:
    prompts = probe_context.easy[:AT_ONCE]
    return [
        CUT if place % 2 else min(MOST, probe_context.room(each))
        for place, each in enumerate(prompts)
    ]


def _mixed(probe_context: ProbeContext) -> list[Reply]:
    """One batch in which some outputs are cut early and others may end by themselves."""
    prompts = probe_context.easy[:AT_ONCE]
    asks = [
        probe_context.plain(each, cap)
        for each, cap in zip(prompts, _caps(probe_context), strict=True)
    ]
    return probe_context.ask_again(asks, times=1)[0]


def _is_cut(
    probe_context: ProbeContext, reply: Reply, choice: ProbeOutput, cap: int
) -> bool | None:
    """Whether the cap ended an output; None where that cannot be told."""
    length = probe_context.length(choice, reply)
    if choice.ids is None:
        # By counts alone an end exactly at the cap looks like a cut.
        return False if length < cap - 2 else cap == CUT or None
    if not probe_context.engine.eos_ids:
        return True if cap == CUT and length == cap else None if length >= cap else False
    return length >= cap and choice.ids[-1] not in probe_context.engine.eos_ids


def _miscounted(probe_context: ProbeContext, reply: Reply) -> str:
    """What is wrong with the counts of a reply; empty where nothing is."""
    counts: Mapping[str, int] = reply.usage
    completion, prompt = counts.get("completion_tokens"), counts.get("prompt_tokens")
    if completion is not None:
        if all(choice.ids is not None for choice in reply.choices):
            ids = sum(len(choice.ids or ()) for choice in reply.choices)
            ends = sum(choice.finish_reason in STOP_WORDS for choice in reply.choices)
            slack, what = ends, "ids"
        else:
            ids = sum(probe_context.engine.count(choice.text) or 0 for choice in reply.choices)
            # Where reasoning comes apart, the line ends around its tags are often lost.
            split = sum(choice.reasoning is not None for choice in reply.choices)
            slack, what = 2 + len(reply.choices) + split * probe_context.slack, "tokens of text"
        if abs(completion - ids) > slack:
            return f"completion_tokens {completion}, {ids} {what}"
    if prompt is not None and reply.prompt_tokens is not None and prompt != reply.prompt_tokens:
        return f"prompt_tokens {prompt}, {reply.prompt_tokens} ids"
    reasoning = counts.get("reasoning_tokens")
    if reasoning is not None and reply.choices[0].ids is not None and len(reply.choices) == 1:
        seen = probe_context.read(0, reply.choices[0], None, MOST).observation.thinking
        if abs(reasoning - seen) > probe_context.slack:
            return f"reasoning_tokens {reasoning}, {seen} ids of thinking"
    return ""


# The probes by name, in the order in which they are reported.
LIMIT_PROBES: Mapping[str, Callable[[ProbeContext], LimitResult]] = {
    "max_tokens": max_tokens,
    "boundary": boundary,
    "stop_strings": stop_strings,
    "n": repeats.several_outputs,
    "seeds": repeats.seeds,
    "prefix_alone": repeats.prefix_alone,
    "prefix_under_load": repeats.prefix_under_load,
    "usage": usage,
    "finish_reason": finish_reason,
    "overflow": overflow.overflow,
}
