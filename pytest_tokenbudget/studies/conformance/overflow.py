"""The probe of what does not fit: prompts, and prompts with their output, beyond the context.

Nothing is taken for granted where such a request is answered: which part of the prompt was dropped
is found out (:mod:`.prompt_visibility`), or said to be not resolved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from pytest_tokenbudget.core.probes import Reply
from pytest_tokenbudget.studies.conformance.analysis import (
    Behaviour,
    LimitFinding,
    LimitResult,
    OverflowCase,
)
from pytest_tokenbudget.studies.conformance.probe_context import (
    LENGTH_WORDS,
    STOP_WORDS,
    ProbeContext,
    not_possible,
    shown,
)
from pytest_tokenbudget.studies.conformance.prompt_visibility import (
    ANSWER,
    BEGINNING,
    PLACES,
    SLACK,
    FilledPrompt,
    PromptFiller,
    PromptView,
    VisibilityProbe,
    where_cut,
)

# A prompt beyond a longer context would be a test of the network; a shorter one holds no facts.
LONGEST_CONTEXT, SHORTEST_CONTEXT = 65_536, 384
# Tokens that a prompt is too long by, at least.
LITTLE = 64
# Output tokens that are left behind a prompt, and that are asked for there.
ROOM, TOO_MUCH = 24, 64
# The same where it must be seen what the output beyond the context knows of the prompt.
EDGE = 2
PROBLEMS = 3
# Requests at once, and the share of the context that the prompt of each takes.
AT_ONCE, SHARE = 4, 0.75


class Case(StrEnum):
    """Requests that do not fit."""

    PROMPT = "prompt a little too long"
    PROMPT_TWICE = "prompt twice too long"
    BUDGET = "prompt and budget too long"
    BUDGET_ALONE = "budget alone too long"
    TOGETHER = "four prompts at once"


# What loses a part of the prompt, or of the output, and does not say so.
SILENT = frozenset(
    {
        Behaviour.CUT_LEFT,
        Behaviour.CUT_RIGHT,
        Behaviour.CUT_MIDDLE,
        Behaviour.CAPPED_UNSAID,
        Behaviour.FAILED,
    }
)
# What answers a prompt that is longer than what the engine says it can take, whatever was lost.
ANSWERED = frozenset({Behaviour.WHOLE, Behaviour.NOT_RESOLVED})


def overflow(probe_context: ProbeContext) -> LimitResult:
    """What happens where prompt, or prompt and output, do not fit into the context.

    A prompt that is too long must be refused. Where only ``max_tokens`` is too much, refusing and
    cutting short are both right, as long as a cut output says ``length``; and so is giving all, as
    long as no part of the prompt is dropped for it.
    """
    context = probe_context.engine.context
    if context > LONGEST_CONTEXT:
        return not_possible("overflow", f"a prompt beyond {context:,} tokens is not sent")
    if context < SHORTEST_CONTEXT:
        return not_possible("overflow", f"no facts fit into a context of {context:,} tokens")
    probe = _Probe(probe_context)
    cases = tuple(probe.cases())
    asked = [case for case in cases if case.behaviour is not Behaviour.NOT_ASKED]
    broken = [case for case in cases if case.broken]
    return LimitResult(
        "overflow",
        LimitFinding.BROKEN if broken else LimitFinding.KEPT,
        _in_words(context, cases),
        checked=len(asked),
        failed=len(broken),
        evidence=tuple(probe.evidence),
        cases=cases,
    )


def _in_words(context: int, cases: Sequence[OverflowCase]) -> str:
    told: dict[str, list[str]] = {}
    for case in cases:
        told.setdefault(case.sentence, []).append(case.case)
    parts = [f"{', '.join(names)}: {sentence}" for sentence, names in told.items()]
    return f"beyond the context of {context:,}: {'; '.join(parts)}"


class _Sent(NamedTuple):
    """A request of a case with what came of it."""

    case: Case
    filled: FilledPrompt
    reply: Reply


class _Probe:
    """The requests, with what comes of them."""

    def __init__(self, probe_context: ProbeContext) -> None:
        self._probe_context = probe_context
        self._context = probe_context.engine.context
        self._filling = PromptFiller(probe_context)
        self._visibility = VisibilityProbe(probe_context, self._filling)
        self.evidence: list[dict[str, Any]] = []

    def cases(self) -> Iterator[OverflowCase]:
        """All of them, in their order."""
        little = max(LITTLE, self._filling.least + SLACK)
        yield self._prompt(Case.PROMPT, self._context + little)
        yield self._prompt(Case.PROMPT_TWICE, 2 * self._context)
        tight = self._budget(Case.BUDGET, TOO_MUCH)
        yield tight
        if tight.sights:
            # There is no telling when such an output would end.
            why = "not asked, since the output before did not end at the context"
            yield OverflowCase(Case.BUDGET_ALONE, Behaviour.NOT_ASKED, why)
        else:
            yield self._budget(Case.BUDGET_ALONE, self._context + TOO_MUCH)
        yield self._together()

    def _prompt(self, case: Case, tokens: int) -> OverflowCase:
        filled = self._filling.question(BEGINNING, tokens, ANSWER)
        sent = self._send(case, filled)
        self._show(sent)
        if not sent.reply.choices:
            return self._not_answered(sent)
        choice = sent.reply.choices[0]
        if self._probe_context.length(choice, sent.reply) == 0:
            said = choice.finish_reason in LENGTH_WORDS
            behaviour = Behaviour.CAPPED if said else Behaviour.CAPPED_UNSAID
            what = f"answered by nothing, with {choice.finish_reason!r}"
            return self._case(sent, behaviour, what, broken=not said)
        return self._looked_at(sent, tokens, "answered", ANSWERED | SILENT)

    def _budget(self, case: Case, max_tokens: int) -> OverflowCase:
        """A prompt that just fits, with a problem that is thought about for longer than fits."""
        own_ends = []
        for number in range(PROBLEMS):
            filled = self._filling.problem(number, self._context - ROOM, max_tokens)
            sent = self._send(case, filled)
            found = self._ended(sent) if sent.reply.choices else self._not_answered(sent)
            if found is not None:
                self._show(sent)
                return found
            own_ends.append(sent)
        self._show(own_ends[0])
        lengths = [
            self._probe_context.length(sent.reply.choices[0], sent.reply) for sent in own_ends
        ]
        if not self._probe_context.takes_ids and min(lengths) >= ROOM - 1:
            # One output may end by itself just there, not all of them.
            what = f"{len(lengths)} of {len(lengths)} outputs end just at the context, with 'stop'"
            return self._case(own_ends[0], Behaviour.CAPPED_UNSAID, what, broken=True)
        what = f"taken, but the outputs ended before, at {', '.join(map(str, lengths))} tokens"
        return self._case(own_ends[0], Behaviour.NOT_RESOLVED, what)

    def _ended(self, sent: _Sent) -> OverflowCase | None:
        """How an output ended at the context, or beyond it; None where it may have by itself."""
        choice = sent.reply.choices[0]
        length, word = self._probe_context.length(choice, sent.reply), choice.finish_reason
        counted, tokens = sent.reply.usage.get("prompt_tokens"), sent.filled.tokens
        shortened = counted is not None and tokens is not None and counted < tokens - SLACK
        prompt = tokens if shortened else counted or tokens
        if prompt is None:
            prompt = self._context - ROOM
        if shortened or prompt + length > self._context + 1:
            does = f"{length} tokens came behind {prompt:,}"
            return self._looked_at(sent, self._context - EDGE, does, SILENT)
        if word in LENGTH_WORDS:
            what = f"the output ends at the context and says {word!r}"
            return self._case(sent, Behaviour.CAPPED, what)
        if word not in STOP_WORDS or self._ran_full(sent.reply):
            what = f"an output cut at the context, after {length} tokens, says {word!r}"
            return self._case(sent, Behaviour.CAPPED_UNSAID, what, broken=True)
        return None

    def _ran_full(self, reply: Reply) -> bool:
        """Whether an output fills the context without an end of its own; False if untold."""
        ids = reply.choices[0].ids
        if not ids or reply.prompt_tokens is None or not self._probe_context.engine.eos_ids:
            return False
        # Engines keep a place free or not.
        full = reply.prompt_tokens + len(ids) >= self._context - 1
        return full and ids[-1] not in self._probe_context.engine.eos_ids

    def _together(self) -> OverflowCase:
        """Prompts that fit one by one: an engine's places may have to share one context."""
        tokens = int(self._context * SHARE)
        asked = [
            self._filling.question(place, tokens, ANSWER, changed)
            for changed in (False, True)
            for place in PLACES
        ][:AT_ONCE]
        asks = [filled.ask for filled in asked]
        alone, together = self._probe_context.ask(asks), self._probe_context.ask(asks, AT_ONCE)
        sent = [
            _Sent(Case.TOGETHER, filled, reply)
            for filled, reply in zip(asked, together, strict=True)
        ]
        failing = [each for each in sent if not each.reply.choices]
        if not all(reply.choices for reply in alone):
            first = next(reply for reply in alone if not reply.choices)
            what = f"one prompt of {tokens:,} tokens fails alone: {first.error}"
            self._show(sent[0])
            return self._case(sent[0], Behaviour.NOT_RESOLVED, what)
        if failing:
            self._show(failing[0])
            reply = failing[0].reply
            behaviour = Behaviour.REFUSED if reply.refused else Behaviour.FAILED
            what = f"{len(failing)} of {AT_ONCE} fail, each of which fits alone: {reply.error}"
            return self._case(failing[0], behaviour, what, broken=True)
        self._show(sent[0])
        key, own = self._probe_context.key, zip(alone, together, strict=True)
        same = sum(key(one.choices[0]) == key(other.choices[0]) for one, other in own)
        if same == AT_ONCE:
            return self._case(sent[0], Behaviour.WHOLE, "answered as each is alone")
        what = (
            f"answered, {same} of {AT_ONCE} as alone; whether the others were cut is not resolved"
        )
        return self._case(sent[0], Behaviour.NOT_RESOLVED, what)

    def _looked_at(
        self, sent: _Sent, tokens: int, does: str, breaking: frozenset[Behaviour]
    ) -> OverflowCase:
        """What became of the prompt, found out with others of that length."""
        look = self._visibility.view(tokens)
        behaviour, why = where_cut(look)
        how = {
            Behaviour.WHOLE: "nothing is seen to be missing",
            Behaviour.NOT_RESOLVED: "where it was cut, if it was, is not resolved",
        }.get(behaviour, f"the prompt {behaviour}, without a word")
        what = f"{does}, {how} ({why})"
        return self._case(sent, behaviour, what, broken=behaviour in breaking, look=look)

    def _not_answered(self, sent: _Sent) -> OverflowCase:
        if sent.reply.refused:
            return self._case(sent, Behaviour.REFUSED, "refused")
        what = f"ended in an error: {sent.reply.error}"
        return self._case(sent, Behaviour.FAILED, what, broken=True)

    def _send(self, case: Case, filled: FilledPrompt) -> _Sent:
        return _Sent(case, filled, self._probe_context.ask([filled.ask])[0])

    def _show(self, sent: _Sent) -> None:
        self.evidence.append(shown(sent.reply, case=str(sent.case)))

    def _case(
        self,
        sent: _Sent,
        behaviour: Behaviour,
        sentence: str,
        broken: bool = False,
        look: PromptView | None = None,
    ) -> OverflowCase:
        case, filled, reply = sent
        choice = reply.choices[0] if reply.choices else None
        return OverflowCase(
            case=case,
            behaviour=behaviour,
            sentence=sentence,
            broken=broken,
            prompt=filled.tokens,
            max_tokens=filled.ask.max_tokens,
            counted=reply.usage.get("prompt_tokens"),
            output=None if choice is None else self._probe_context.length(choice, reply),
            finish_reason="" if choice is None else choice.finish_reason,
            sights={} if look is None else look.sights,
            kept="" if look is None else look.kept,
        )
