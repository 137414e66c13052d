"""What observations amount to: whether a thinking budget is kept. Pure functions.

The rules, in the order in which they are applied. A prompt's *natural* thinking is what it takes
without a budget, measured twice; the smaller of the two counts, so that an engine's own noise is
not taken for an effect. A prompt is *informative* for a budget if its natural thinking is longer
than the budget and the slack. The slack is what tags take, and one token, since engines differ in
what they count. A budget is *resolved* if at least five prompts are informative.

1. ``refused``: the engine said no to every budget.
2. ``enforced``: a budget is resolved, and under every budget that was accepted every output kept
   it. One output too long, informative or not, and it is not enforced.
3. ``inverted``: thinking is longer with a budget than without, or with a smaller budget, not kept,
   than with a larger one. It needs the exact sign test over prompts, one-sided, at 5 % over all
   such comparisons (Holm); differences within slack and noise do not count.
4. ``soft``: a budget is resolved, and thinking is shorter with some budget than without, by the
   same test over all budgets.
5. ``ignored``: a budget is resolved, and none of the above: not told apart from no budget.
6. ``not resolved``: the rest. The model does not think long enough, or nothing could be measured.

What is judged is thinking within its blocks, which is all that an engine can bound. A new block
counts as thinking too. Where the model goes on outside of any block, up to a second close, after
one that was forced, that does not count, and the sentence says so.

The sign test counts a prompt only where its thinking lies outside of its two natural ones. If the
budget does nothing, the three are drawn alike, so below and above are equally probable and the
test is exact whatever the noise. With ten prompts an effect on at least nine is found; a weaker
one can pass as ``ignored``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_tokenbudget.stats.resampling import holm
from pytest_tokenbudget.studies.conformance.analysis import (
    BudgetResult,
    BudgetVerdict,
    MethodResult,
    Observation,
)

MIN_INFORMATIVE = 5
LEVEL = 0.05


@dataclass(frozen=True)
class BudgetJudgement:
    """A verdict and what it stands on.

    Attributes:
        verdict: The verdict.
        sentence: It with its evidence, for people.
        budgets: The budgets with their counts filled in, the one without a budget last.
    """

    verdict: BudgetVerdict
    sentence: str
    budgets: tuple[BudgetResult, ...]


@dataclass(frozen=True)
class _Natural:
    """A prompt's thinking without a budget, measured twice."""

    low: int
    high: int

    @property
    def noise(self) -> int:
        return self.high - self.low


def one_sided_sign_test(successes: int, failures: int) -> float:
    """One-sided exact probability of so many successes or more, if both were equally likely."""
    from scipy.stats import binomtest

    n = successes + failures
    return float(binomtest(successes, n, alternative="greater").pvalue) if n else 1.0


def judge(
    tried: Sequence[BudgetResult], without: BudgetResult, again: BudgetResult, slack: int
) -> BudgetJudgement:
    """Judge one way of setting a budget.

    Args:
        tried: What was observed at each budget; counts need not be filled in.
        without: The same prompts without a budget.
        again: The same once more.
        slack: Tokens above a budget that count as kept.
    """
    natural = _natural(without.observations, again.observations)
    counted = sorted(
        (_count(each, natural, slack) for each in tried), key=lambda each: each.budget or 0
    )
    verdict, because = _decide(counted, natural, slack)
    if without.error and not natural:
        because = f"nothing could be measured without a budget: {without.error}"
    return BudgetJudgement(verdict, f"{verdict.value}: {because}", (*counted, without))


def server_wide(
    without: Sequence[Observation], again: Sequence[Observation], slack: int
) -> int | None:
    """A limit that outputs without a budget seem to be under, of the server's own.

    Natural lengths differ from prompt to prompt. Where half of the outputs, and five at least,
    have exactly the same one, which is the largest, something ended them.

    Returns:
        The thinking tokens at which they end; None where nothing looks like a limit.
    """
    for observed in (without, again):
        closed = [each.thinking for each in observed if each.closed and not each.capped]
        if not closed or len({each.prompt for each in observed}) < MIN_INFORMATIVE:
            return None
        longest = max(closed)
        at_limit = closed.count(longest)
        if longest <= slack or at_limit < max(MIN_INFORMATIVE, len(observed) / 2):
            return None
    return longest


def _natural(first: Sequence[Observation], second: Sequence[Observation]) -> Mapping[int, _Natural]:
    """The prompts that were measured both times."""
    again = {each.prompt: each.thinking for each in second}
    return {
        each.prompt: _Natural(
            min(each.thinking, again[each.prompt]), max(each.thinking, again[each.prompt])
        )
        for each in first
        if each.prompt in again
    }


def _count(tried: BudgetResult, natural: Mapping[int, _Natural], slack: int) -> BudgetResult:
    """A budget with its counts."""
    limit = (tried.budget or 0) + slack
    pairs = [(each, natural[each.prompt]) for each in tried.observations if each.prompt in natural]
    informative = [each for each, own in pairs if own.low > limit]
    return replace(
        tried,
        informative=len(informative),
        kept=sum(each.thinking <= limit for each in informative),
        shorter=sum(each.thinking < own.low for each, own in pairs),
        longer=sum(each.thinking > own.high for each, own in pairs),
    )


def _decide(
    tried: Sequence[BudgetResult], natural: Mapping[int, _Natural], slack: int
) -> tuple[BudgetVerdict, str]:
    measured = [each for each in tried if each.observations]
    if not measured:
        reasons = next((each.error for each in tried if each.error), "nothing was tried")
        if tried and all(each.refused for each in tried):
            return BudgetVerdict.REFUSED, f"the engine says no to it ({reasons})"
        return BudgetVerdict.NOT_RESOLVED, f"nothing could be measured ({reasons})"
    resolved = [each for each in measured if each.informative >= MIN_INFORMATIVE]
    too_long = [
        (each.budget or 0, seen)
        for each in measured
        for seen in each.observations
        if seen.thinking > (each.budget or 0) + slack
    ]
    if resolved and not too_long:
        return BudgetVerdict.ENFORCED, _kept_sentence(measured, natural, slack)
    if inversion := _inversion(measured, natural, slack):
        return BudgetVerdict.INVERTED, inversion
    if not resolved:
        return BudgetVerdict.NOT_RESOLVED, _unresolved_sentence(measured, natural, slack)
    chances = holm([one_sided_sign_test(each.shorter, each.longer) for each in measured])
    shrunk = [each for each, p in zip(measured, chances, strict=True) if p < LEVEL]
    if shrunk:
        p = min(chances)
        told = "; ".join(_compared(each, natural) for each in shrunk)
        return (
            BudgetVerdict.SOFT,
            f"{told} (p = {p:.2g}); {_kept_sentence(measured, natural, slack)}",
        )
    return BudgetVerdict.IGNORED, _ignored_sentence(resolved, natural)


def _ignored_sentence(resolved: Sequence[BudgetResult], natural: Mapping[int, _Natural]) -> str:
    if all(each.same == len(each.observations) for each in resolved):
        budgets = ", ".join(str(each.budget) for each in resolved)
        first = resolved[0]
        return (
            f"with {budgets} tokens all {len(first.observations)} outputs are, token for token, "
            f"those without a budget ({first.mean_thinking:.0f} thinking tokens on average)"
        )
    told = "; ".join(_compared(each, natural) for each in resolved)
    return f"not told apart from no budget: {told}"


def _inversion(
    measured: Sequence[BudgetResult], natural: Mapping[int, _Natural], slack: int
) -> str:
    """The clearest case of less budget and more thinking; empty where there is none."""
    # A way that switches thinking on is no inversion: then nothing natural is there to compare.
    if sum(own.low > 0 for own in natural.values()) < MIN_INFORMATIVE:
        return ""
    sentences, chances = [], []
    for each in measured:
        more = sum(
            seen.thinking > natural[seen.prompt].high + slack
            for seen in each.observations
            if seen.prompt in natural and seen.thinking > (each.budget or 0) + slack
        )
        sentences.append(_compared(each, natural))
        chances.append(one_sided_sign_test(more, each.shorter))
    for place, small in enumerate(measured):
        for large in measured[place + 1 :]:
            more, less = _paired(small, large, natural, slack)
            sentences.append(
                f"with {_tokens(small.budget)} it thinks {small.mean_thinking:.0f} on average, "
                f"with {_tokens(large.budget)} {large.mean_thinking:.0f}: longer for {more} "
                f"prompts, shorter for {less}"
            )
            chances.append(one_sided_sign_test(more, less))
    adjusted = holm(chances)
    best = min(range(len(adjusted)), key=lambda place: (adjusted[place], -place))
    return f"{sentences[best]} (p = {adjusted[best]:.2g})" if adjusted[best] < LEVEL else ""


def _paired(
    small: BudgetResult, large: BudgetResult, natural: Mapping[int, _Natural], slack: int
) -> tuple[int, int]:
    """Prompts that think longer with the smaller budget, beyond it, and those that do not."""
    other = {each.prompt: each.thinking for each in large.observations}
    more = less = 0
    for each in small.observations:
        if each.prompt not in other or each.prompt not in natural:
            continue
        margin = slack + natural[each.prompt].noise
        difference = each.thinking - other[each.prompt]
        more += difference > margin and each.thinking > (small.budget or 0) + slack
        less += difference < -margin
    return more, less


def _kept_sentence(
    measured: Sequence[BudgetResult], natural: Mapping[int, _Natural], slack: int
) -> str:
    told = [
        f"{each.kept} of {each.informative} within {_tokens(each.budget)}"
        for each in measured
        if each.informative
    ]
    mute = [_tokens(each.budget) for each in measured if not each.informative]
    longest = max((own.low for own in natural.values()), default=0)
    said = f"kept {', '.join(told)}, of the outputs that would think longer (slack {slack})"
    away = [
        f"{count} of {len(each.observations)} with {_tokens(each.budget)}"
        for each in measured
        if (count := sum(seen.spill > 0 for seen in each.observations))
    ]
    if away:
        said += f"; but the model went on thinking after the close, {', '.join(away)}"
    if mute:
        said += f"; {', '.join(mute)} cannot tell: the longest natural thinking is {longest}"
    return said


def _unresolved_sentence(
    measured: Sequence[BudgetResult], natural: Mapping[int, _Natural], slack: int
) -> str:
    if natural and not any(own.high for own in natural.values()):
        return f"the model does not think on any of {len(natural)} prompts"
    most = max((each.informative for each in measured), default=0)
    lengths = sorted((own.low for own in natural.values()), reverse=True)
    longest = lengths[0] if lengths else 0
    least = min((each.budget or 0) for each in measured) + slack
    return (
        f"at most {most} of {len(natural)} prompts think for longer than a budget and its slack "
        f"(the longest for {longest} tokens, {least} would have to be passed), and "
        f"{MIN_INFORMATIVE} are needed"
    )


def _compared(each: BudgetResult, natural: Mapping[int, _Natural]) -> str:
    prompts = [seen.prompt for seen in each.observations if seen.prompt in natural]
    if not prompts:
        return f"with {_tokens(each.budget)} no prompt has its pair"
    own = sum(natural[prompt].low + natural[prompt].high for prompt in prompts) / 2 / len(prompts)
    said = (
        f"with {_tokens(each.budget)} it thinks {each.mean_thinking:.0f} on average, without "
        f"{own:.0f}: shorter for {each.shorter} of {len(prompts)} prompts, longer for {each.longer}"
    )
    return f"{said}, {each.same} outputs the very same" if each.same else said


def _tokens(budget: int | None) -> str:
    return "1 token" if budget == 1 else f"{budget} tokens"


Test = Callable[[Observation], bool]

_WENT_ON = "thinking went on after its close"
_SEEN: tuple[tuple[str, Test], ...] = (
    ("thinking was opened again after its close", lambda seen: seen.reopened),
    (_WENT_ON, lambda seen: seen.spilled),
    ("thinking or its tags stand in content", lambda seen: seen.in_content),
    (
        "no answer followed, though the cap was not reached",
        lambda seen: not seen.answer and not seen.capped,
    ),
    (
        "thinking was left open, though the cap was not reached",
        lambda seen: seen.opened and not seen.closed and not seen.capped,
    ),
)


def remarks(result: MethodResult, limit: int | None, unknown_changes: bool) -> tuple[str, ...]:
    """What a reader of a verdict must know too.

    Args:
        result: The verdict with its budgets, the one without a budget last.
        limit: Thinking tokens at which outputs without a budget all end; None where they do not.
        unknown_changes: Whether a field that does not exist changed the output.
    """
    *tried, without = result.budgets
    said = [*_of_the_engine(result, without, limit, unknown_changes)]
    for each in (*tried, without):
        said += _of_a_budget(each, without)
    return tuple(said)


def _of_the_engine(
    result: MethodResult, without: BudgetResult, limit: int | None, unknown_changes: bool
) -> Iterator[str]:
    if limit is not None:
        yield (
            f"outputs without a budget end their thinking at exactly {limit} tokens: the server "
            f"seems to have a budget of its own"
        )
    n = len(without.observations)
    if result.repeated is not None and without.same < n:
        yield (
            f"without a budget {without.same} of {n} outputs are the same when asked twice, "
            f"greedily: the engine's own noise"
        )
    if result.unknown_fields == "dropped" and result.verdict is BudgetVerdict.IGNORED:
        yield "a field that does not exist is dropped without a word, and so, it seems, is this one"
    if unknown_changes:
        yield "a field that does not exist changed the output"


def _of_a_budget(each: BudgetResult, without: BudgetResult) -> Iterator[str]:
    name = "without a budget" if each.budget is None else f"budget {each.budget}"
    n = len(each.observations)
    if each.refused:
        yield f"{name}: refused ({each.error})"
    elif each.error:
        yield f"{name}: errors, {n} outputs came ({each.error})"
    if not n:
        return
    if each.budget is not None and each.informative < MIN_INFORMATIVE:
        yield (
            f"{name}: tells little, {each.informative} of {n} prompts think for longer without it"
        )
    for what, test in _SEEN:
        count = sum(map(test, each.observations))
        if count:
            spills = [seen.spill for seen in each.observations if seen.spilled]
            mean = sum(spills) / max(len(spills), 1)
            more = f", {mean:.0f} tokens on average" if what is _WENT_ON else ""
            yield f"{name}: {what}, in {count} of {n} outputs{more}"
    if each.budget is not None and _moved(each.observations, without.observations):
        yield (
            f"{name}: answers grew by at least half of what was saved: thinking may have moved "
            f"into them"
        )


def _moved(under: Sequence[Observation], natural: Sequence[Observation]) -> bool:
    """Whether the answers hold what thinking lost: more prompts than chance, by the sign test."""
    own = {each.prompt: each for each in natural}
    moved = kept = 0
    for each in under:
        before = own.get(each.prompt)
        if before is None or each.thinking >= before.thinking:
            continue
        grown = each.answer - before.answer > (before.thinking - each.thinking) / 2
        moved += grown
        kept += not grown
    return one_sided_sign_test(moved, kept) < LEVEL
