"""Probes of where an output ends: at the cap, at its own end, at a stop string."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pytest_tokenbudget.core.probes import Ask, NoAnswerError, ProbeOutput, Reply
from pytest_tokenbudget.studies.conformance.evidence import not_possible, shown
from pytest_tokenbudget.studies.conformance.probe_context import (
    LENGTH_WORDS,
    STOP_WORDS,
    ProbeContext,
)
from pytest_tokenbudget.studies.conformance.results import LimitFinding, LimitResult

CAPS = (1, 2, 16)
# Outputs that a boundary can be set around end by themselves within this.
MOST = 640
_MANY = 4
LONGEST_TOKEN = 16


def max_tokens(bench: ProbeContext) -> LimitResult:
    """Whether outputs have as many tokens as ``max_tokens`` allows, and no more.

    Fewer are right only where the output ended by itself. Where an engine gives no ids, its own
    count is taken, else the text's, which may be off by one at a cut character.
    """
    prompts = bench.candidates[:_MANY]
    asks = [bench.plain(each, cap) for cap in CAPS for each in prompts]
    checked = failed = 0
    evidence: list[Mapping[str, Any]] = []
    said: list[str] = []
    replies = bench.ask(asks)
    for ask, reply in zip(asks, replies, strict=True):
        if not reply.choices:
            said.append(f"max_tokens {ask.max_tokens} failed: {reply.error}")
            failed, checked = failed + 1, checked + 1
            evidence.append(shown(reply))
            continue
        for choice in reply.choices:
            checked += 1
            length = bench.length(choice, reply)
            rough = choice.ids is None and "completion_tokens" not in reply.usage
            ended = choice.finish_reason in STOP_WORDS
            too_few = length + rough < ask.max_tokens and not ended
            if length > ask.max_tokens + rough or too_few:
                failed += 1
                said.append(f"{length} tokens with max_tokens {ask.max_tokens}")
                evidence.append(shown(reply, tokens=length))
    caps = ", ".join(map(str, CAPS))
    if failed:
        sentence = f"{failed} of {checked} outputs do not keep max_tokens: {'; '.join(said[:4])}"
        return LimitResult("max_tokens", LimitFinding.BROKEN, sentence, checked, failed,
                           evidence=tuple(evidence[:4]))  # fmt: skip
    sentence = (
        f"{checked} of {checked} outputs have just as many tokens as max_tokens of {caps} allow"
    )
    seen = tuple(map(shown, replies[::_MANY]))
    return LimitResult("max_tokens", LimitFinding.KEPT, sentence, checked, evidence=seen)


def boundary(bench: ProbeContext) -> LimitResult:
    """Whether an end exactly at the cap counts as an end, and one token less as a cut.

    The natural length includes the end-of-sequence token. At that cap, and one above it, the
    output must be whole and end by itself; one below it, it must be cut and say so.
    """
    natural = _natural(bench)
    if not natural:
        return not_possible("boundary", f"no output ends by itself within {MOST} tokens")
    found = _Counts()
    for ask, choice, reply in natural:
        length = _with_end(bench, choice, reply)
        for cap in (length - 1, length, length + 1):
            if cap < 1:
                continue
            (other,) = bench.ask([replace(ask, max_tokens=cap)])
            if not other.choices:
                found.add(True, f"cap {cap} failed: {other.error}", other)
                continue
            again = other.choices[0]
            if not _begins_alike(bench, choice, again):
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


def stop_strings(bench: ProbeContext) -> LimitResult:
    """Whether an output ends at a stop string, says so, and is the same up to there.

    The text is taken from what the model writes without one. Nothing may follow the stop string
    but the rest of the token that it ends in; whether the string itself is part of the text,
    engines decide differently.
    """
    natural = _natural(bench)
    tried = []
    for ask, choice, _ in natural:
        for share in (0.3, 0.7):
            stop = _stop_in(bench, choice.text, share)
            if stop:
                tried.append((replace(ask, max_tokens=MOST, stop=(stop,)), stop, choice.text))
    if not tried:
        return not_possible("stop_strings", "no output has a text that could be a stop string")
    found = _Counts()
    replies = bench.ask([ask for ask, _, _ in tried])
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


def _natural(bench: ProbeContext) -> list[tuple[Ask, ProbeOutput, Reply]]:
    """Up to three prompts whose outputs end by themselves, shortest first.

    Raises:
        NoAnswerError: If no prompt was answered, and not because they were refused.
    """
    asks = [bench.plain(each, min(MOST, bench.room(each))) for each in bench.easy[: 2 * _MANY]]
    (replies,) = bench.ask_again(asks, times=1)
    lost = [reply for reply in replies if reply.error and not reply.refused]
    if lost and len(lost) == len(replies):
        raise NoAnswerError(f"no output came: {lost[0].error}")
    ended = [
        (ask, reply.choices[0], reply)
        for ask, reply in zip(asks, replies, strict=True)
        if reply.choices and reply.choices[0].finish_reason in STOP_WORDS
    ]
    return sorted(ended, key=lambda each: bench.length(each[1], each[2]))[:3]


def _with_end(bench: ProbeContext, choice: ProbeOutput, reply: Reply) -> int:
    """Tokens of an output with its end-of-sequence one, whether the engine gives it or not."""
    if choice.ids is None:
        return bench.length(choice, reply)
    if not bench.engine.eos_ids or not choice.ids:
        return len(choice.ids)
    return len(choice.ids) + (choice.ids[-1] not in bench.engine.eos_ids)


def _begins_alike(bench: ProbeContext, one: ProbeOutput, other: ProbeOutput) -> bool:
    left, right = bench.key(one), bench.key(other)
    if isinstance(left, str) or isinstance(right, str):
        # Where reasoning is cut, the text put together ends without its tag.
        return _bare(one.text).startswith(_bare(other.text)[: len(_bare(other.text)) - 1])
    return left[: len(right)] == right


def _stop_in(bench: ProbeContext, text: str, share: float) -> str:
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
            sentence = f"{bad} of {self.checked}: {'; '.join(_once(self.said)[:4])}"
        evidence = self.evidence or map(shown, self.kept)
        return LimitResult(
            probe, finding, sentence, self.checked, bad, evidence=tuple(evidence)[:4]
        )


def _once(said: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(said))
