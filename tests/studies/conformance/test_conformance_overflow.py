"""What does not fit into a context, with engines that do each thing that engines do with it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from conformance_fakes import CLOSE, OPEN, FakeEngine, Fate, Thought, Tokens, bench

from pytest_tokenbudget.core.probes import Ask, ProbeOutput, Reply
from pytest_tokenbudget.studies.conformance.analysis import (
    Behaviour,
    LimitFinding,
    LimitResult,
    OverflowCase,
    Sight,
)
from pytest_tokenbudget.studies.conformance.limits import LIMIT_PROBES
from pytest_tokenbudget.studies.conformance.overflow import AT_ONCE, EDGE, ROOM, TOO_MUCH, Case
from pytest_tokenbudget.studies.conformance.prompt_visibility import (
    BEGINNING,
    END,
    MIDDLE,
    PLACES,
    PromptFiller,
    PromptView,
    where_cut,
)

Ids = tuple[int, ...]
CONTEXT = 1024
SIDES = ("left", "right")
SEEN, UNSEEN, UNTOLD = Sight.SEEN, Sight.UNSEEN, Sight.UNTOLD


def probe(engine: FakeEngine) -> tuple[LimitResult, dict[str, OverflowCase]]:
    result = LIMIT_PROBES["overflow"](bench(engine))
    return result, {case.case: case for case in result.cases}


def make(beyond=None, mind=None, **options) -> FakeEngine:  # type: ignore[no-untyped-def]
    given = {"context": CONTEXT, **options}
    if beyond is not None:
        given["beyond"] = beyond
    return FakeEngine(mind, **given) if mind else FakeEngine(**given)


def cutting(side: str, told: bool = False):  # type: ignore[no-untyped-def]
    """Shortens the prompt until all fits; its count is that of what was sent unless it is told."""

    def beyond(prompt: Ids, max_tokens: int, context: int) -> Fate:
        kept = max(context - max_tokens, 256)
        half = kept // 2
        seen = {
            "left": prompt[-kept:],
            "right": prompt[:kept],
            "middle": prompt[: kept - half] + prompt[-half:],
        }[side]
        return Fate(seen, max_tokens, counted=len(seen) if told else None)

    return beyond


def whole(prompt: Ids, max_tokens: int, context: int) -> Fate:
    return Fate(prompt, max_tokens)


def capping(word: str):  # type: ignore[no-untyped-def]
    def beyond(prompt: Ids, max_tokens: int, context: int) -> Fate | None:
        return Fate(prompt, context - len(prompt), word) if len(prompt) < context else None

    return beyond


def shifting(prompt: Ids, max_tokens: int, context: int) -> Fate | None:
    """Goes on with the later half of what there was."""
    return Fate(prompt[len(prompt) // 2 :], max_tokens) if len(prompt) < context else None


def remembering(thought: Thought) -> Thought | Tokens:
    """A model that answers a question for a fact by the last fact that it sees of that name."""
    prompt = ENGINES[0].decode(thought.ask.prompt_ids)
    asked = re.search(r"What did I sell (\w+)\?", prompt)
    if not asked:
        return thought
    told = re.findall(rf"I sold {asked[1]} (\w+)\.", prompt)
    value = told[-1] if told else "nothing"
    return [OPEN, "\n", CLOSE, "You ", "sold ", f"{asked[1]} ", f"{value}."]


ENGINES: list[FakeEngine] = []


# What is refused, and what is cut short


@pytest.mark.parametrize("ids", [True, False])
def test_an_engine_that_refuses_all(ids: bool) -> None:
    result, cases = probe(make(ids=ids))
    assert result.finding is LimitFinding.KEPT
    assert list(cases) == list(Case)
    own = [cases[case].behaviour for case in Case if case is not Case.TOGETHER]
    assert own == [Behaviour.REFUSED] * 4
    assert (result.checked, result.failed) == (5, 0)
    assert not any(case.broken or case.sights for case in result.cases)
    assert cases[Case.PROMPT].output is None


def test_requests_are_as_long_as_the_table_says() -> None:
    engine = make()
    asked: list[tuple[Ask, bool]] = []

    def listen(ask: Ask, reply: Reply) -> Reply:
        asked.append((ask, bool(reply.choices)))
        return reply

    engine._reply = listen
    result, cases = probe(engine)
    refused = [ask for ask, answered in asked if not answered]
    assert [(len(ask.prompt_ids), ask.max_tokens) for ask in refused] == [
        (case.prompt, case.max_tokens) for case in result.cases[:4]
    ]
    assert [case.prompt for case in result.cases[:4]] == [
        *(CONTEXT + 64, 2 * CONTEXT, CONTEXT - ROOM, CONTEXT - ROOM)
    ]
    assert cases[Case.BUDGET].max_tokens == TOO_MUCH
    assert cases[Case.BUDGET_ALONE].max_tokens == CONTEXT + TOO_MUCH
    evidence = [each["case"] for each in result.evidence]
    assert evidence == list(Case)


def test_an_output_that_is_cut_at_the_context_is_right_if_it_says_so() -> None:
    result, cases = probe(make(capping("length")))
    assert result.finding is LimitFinding.KEPT
    for case in (Case.BUDGET, Case.BUDGET_ALONE):
        assert cases[case].behaviour is Behaviour.CAPPED
        assert (cases[case].output, cases[case].finish_reason) == (ROOM, "length")


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("word", ["stop", "error"])
def test_an_output_that_is_cut_at_the_context_and_called_otherwise(word, ids) -> None:  # type: ignore[no-untyped-def]
    result, cases = probe(make(capping(word), ids=ids))
    assert result.finding is LimitFinding.BROKEN
    assert cases[Case.BUDGET].behaviour is Behaviour.CAPPED_UNSAID
    assert cases[Case.BUDGET].broken
    assert repr(word) in cases[Case.BUDGET].sentence
    assert result.failed == 2


def test_a_place_that_is_kept_free_is_no_end_of_its_own() -> None:
    def beyond(prompt: Ids, max_tokens: int, context: int) -> Fate | None:
        return Fate(prompt, context - len(prompt) - 1, "stop") if len(prompt) < context else None

    _, cases = probe(make(beyond))
    assert cases[Case.BUDGET].behaviour is Behaviour.CAPPED_UNSAID


@pytest.mark.parametrize("length", [5, ROOM - 1])
def test_outputs_that_end_by_themselves_before_the_context_tell_nothing(length: int) -> None:
    def brief(thought: Thought) -> Tokens:
        return ["word "] * (length - 1)

    result, cases = probe(make(capping("length"), brief))
    assert result.finding is LimitFinding.KEPT
    assert cases[Case.BUDGET].behaviour is Behaviour.NOT_RESOLVED
    assert f"ended before, at {length}, {length}, {length} tokens" in cases[Case.BUDGET].sentence


def test_one_problem_that_is_thought_about_for_long_is_enough() -> None:
    calls = itertools.count()

    def mind(thought: Thought) -> Thought | Tokens:
        beyond = thought.ask.max_tokens == ROOM
        return ["word "] * 4 if beyond and next(calls) < 2 else thought

    _, cases = probe(make(capping("length"), mind))
    assert cases[Case.BUDGET].behaviour is Behaviour.CAPPED


# What is answered though it does not fit


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("side", ["left", "right", "middle"])
def test_where_a_prompt_was_cut_is_found_out(side: str, told: bool, ids: bool) -> None:
    result, cases = probe(make(cutting(side, told), ids=ids))
    wanted = Behaviour(f"cut {'in the' if side == 'middle' else 'at the'} {side}")
    assert result.finding is LimitFinding.BROKEN
    assert cases[Case.PROMPT_TWICE].behaviour is wanted
    # A little that is missing between two facts is known where the engine does not count it.
    known = side != "middle" or told
    for case in (Case.PROMPT, Case.BUDGET):
        assert cases[case].behaviour is (wanted if known else Behaviour.WHOLE)
    assert cases[Case.BUDGET].broken is known
    twice = cases[Case.PROMPT_TWICE]
    assert twice.sights[BEGINNING] is (UNSEEN if side == "left" else SEEN)
    assert twice.sights[END] is (UNSEEN if side == "right" else SEEN)
    kept = CONTEXT - twice.max_tokens  # type: ignore[operator]
    names = {"left": "the last {}", "right": "the first {}", "middle": "{} tokens of both ends"}
    assert twice.kept.removesuffix(" tokens") == (names[side].format(kept) if ids else "")
    assert cases[Case.BUDGET_ALONE].behaviour is Behaviour.NOT_ASKED
    assert result.checked == 4
    assert "without a word" in result.sentence


@pytest.mark.parametrize("ids", [True, False])
def test_a_prompt_that_is_taken_in_full_beyond_the_context(ids: bool) -> None:
    result, cases = probe(make(whole, ids=ids))
    for case in (Case.PROMPT, Case.PROMPT_TWICE, Case.BUDGET):
        assert cases[case].behaviour is Behaviour.WHOLE
        assert set(cases[case].sights.values()) == {SEEN}
    assert result.finding is LimitFinding.BROKEN, "it answers what it says it cannot take"
    assert not cases[Case.BUDGET].broken
    assert result.failed == 2


def test_without_counts_nothing_says_that_all_of_it_was_taken() -> None:
    def uncounted(ask: Ask, reply: Reply) -> Reply:
        return replace(reply, usage={})

    _, cases = probe(make(whole, reply=uncounted))
    assert cases[Case.PROMPT].behaviour is Behaviour.NOT_RESOLVED
    assert set(cases[Case.PROMPT].sights.values()) == {SEEN}
    assert cases[Case.PROMPT].broken


def test_an_output_that_goes_on_while_the_beginning_is_dropped() -> None:
    """A context shift: the prompt fits and is counted in full, and is gone when it is needed."""
    result, cases = probe(make(shifting))
    assert cases[Case.PROMPT].behaviour is Behaviour.REFUSED
    shifted = cases[Case.BUDGET]
    assert shifted.behaviour is Behaviour.CUT_LEFT
    assert shifted.output == TOO_MUCH
    assert shifted.counted == shifted.prompt == CONTEXT - ROOM
    assert result.finding is LimitFinding.BROKEN
    assert f"{TOO_MUCH} tokens came behind {CONTEXT - ROOM:,}" in shifted.sentence


def test_a_prompt_that_was_shortened_for_its_output_though_that_ends_early() -> None:
    def brief(thought: Thought) -> Thought:
        return replace(thought, thinking=3, answer=2)

    _, cases = probe(make(cutting("left", told=True), brief))
    assert cases[Case.BUDGET].behaviour is Behaviour.CUT_LEFT
    assert cases[Case.BUDGET].output < ROOM  # type: ignore[operator]
    assert cases[Case.BUDGET].counted == CONTEXT - TOO_MUCH


def test_a_model_that_remembers_tells_by_its_answers() -> None:
    """Even where the engine never repeats an output."""
    noise = itertools.count()

    def noisy(thought: Thought) -> Thought | Tokens:
        said = remembering(thought)
        return [*said, f"n{next(noise)}"] if isinstance(said, list) else said

    ENGINES[:] = [make(whole, noisy)]
    _, cases = probe(ENGINES[0])
    assert cases[Case.PROMPT_TWICE].behaviour is Behaviour.WHOLE
    ENGINES[:] = [make(cutting("left", told=True), remembering)]
    _, cases = probe(ENGINES[0])
    assert cases[Case.PROMPT_TWICE].behaviour is Behaviour.CUT_LEFT
    assert cases[Case.PROMPT_TWICE].sights == {BEGINNING: UNSEEN, MIDDLE: UNSEEN, END: SEEN}


def test_noise_is_not_taken_for_sight() -> None:
    noise = itertools.count()
    engine = make(cutting("left"), lambda thought: [f"n{next(noise)}"] * 60)
    _, cases = probe(engine)
    assert cases[Case.PROMPT].behaviour is Behaviour.NOT_RESOLVED
    assert set(cases[Case.PROMPT].sights.values()) == {UNTOLD}


def test_a_model_that_says_the_same_of_everything_tells_nothing() -> None:
    result, cases = probe(make(cutting("right"), lambda thought: ["no "] * 60))
    assert cases[Case.PROMPT].behaviour is Behaviour.NOT_RESOLVED
    assert set(cases[Case.PROMPT].sights.values()) == {UNTOLD}
    assert cases[Case.PROMPT].kept == ""
    assert cases[Case.PROMPT].broken, "it was answered"
    assert "is not resolved" in result.sentence
    assert not cases[Case.BUDGET].broken


def test_one_token_of_output_is_enough_where_the_values_part() -> None:
    """All that is left behind a prompt that was cut to the context."""

    def beyond(prompt: Ids, max_tokens: int, context: int) -> Fate | None:
        return Fate(prompt[1 - context :], 1) if len(prompt) >= context else None

    def alike_at_first(thought: Thought) -> Thought | Tokens:
        said = remembering(thought)
        prompt = ENGINES[0].decode(thought.ask.prompt_ids)
        begun = prompt.partition("?\n")[2]
        return said[len(ENGINES[0].encode(begun)) :] if isinstance(said, list) else said

    ENGINES[:] = [make(beyond, alike_at_first)]
    _, cases = probe(ENGINES[0])
    assert cases[Case.PROMPT].output == 1
    assert cases[Case.PROMPT].sights == {BEGINNING: UNSEEN, MIDDLE: SEEN, END: SEEN}
    assert cases[Case.PROMPT].behaviour is Behaviour.CUT_LEFT


def test_an_answer_of_nothing() -> None:
    def nothing(word: str):  # type: ignore[no-untyped-def]
        return lambda prompt, max_tokens, context: Fate(prompt, 0, word)

    result, cases = probe(make(nothing("length")))
    assert cases[Case.PROMPT].behaviour is Behaviour.CAPPED
    assert "answered by nothing, with 'length'" in result.sentence
    _, cases = probe(make(nothing("stop")))
    assert cases[Case.PROMPT].behaviour is Behaviour.CAPPED_UNSAID
    assert cases[Case.PROMPT].broken


def test_a_crash_at_a_long_prompt() -> None:
    def crash(ask: Ask, reply: Reply) -> Reply:
        return replace(reply, status=500, error="worker died") if reply.error else reply

    result, cases = probe(make(reply=crash))
    assert result.finding is LimitFinding.BROKEN
    assert [case.behaviour for case in result.cases[:4]] == [Behaviour.FAILED] * 4
    assert "worker died" in cases[Case.PROMPT].sentence


# Several at once


class Shared(FakeEngine):
    """Its places share one context: ``how`` says what comes of requests beyond that."""

    how: Reply | ProbeOutput | None = None

    def ask(self, asks: Sequence[Ask], at_once: int = 1) -> list[Reply]:
        replies = super().ask(asks, at_once)
        if at_once < AT_ONCE or not self.how:
            return replies
        if isinstance(self.how, Reply):
            return [self.how, *replies[1:]]
        return [replace(replies[0], choices=(self.how,)), *replies[1:]]


@pytest.mark.parametrize(
    ("how", "behaviour", "finding"),
    [
        (None, Behaviour.WHOLE, LimitFinding.KEPT),
        (Reply({}, error="exceeded", status=500), Behaviour.FAILED, LimitFinding.BROKEN),
        (Reply({}, error="exceeded", status=400), Behaviour.REFUSED, LimitFinding.BROKEN),
        (ProbeOutput((3,), "x", "length", text="x"), Behaviour.NOT_RESOLVED, LimitFinding.KEPT),
    ],
)
def test_prompts_that_fit_one_by_one(how, behaviour, finding) -> None:  # type: ignore[no-untyped-def]
    engine = Shared(context=CONTEXT)
    engine.how = how
    result = LIMIT_PROBES["overflow"](bench(engine))
    assert result.finding is finding
    together = result.cases[-1]
    assert (together.case, together.behaviour) == (Case.TOGETHER, behaviour)
    if isinstance(how, Reply):
        assert "1 of 4 fail, each of which fits alone: exceeded" in together.sentence


def test_what_fails_alone_says_nothing_of_several() -> None:
    def small(ask: Ask, reply: Reply) -> Reply:
        return Reply({}, error="no room", status=500) if len(ask.prompt_ids) > 500 else reply

    result = LIMIT_PROBES["overflow"](bench(make(reply=small)))
    assert result.cases[-1].behaviour is Behaviour.NOT_RESOLVED
    assert "fails alone: no room" in result.cases[-1].sentence


# Contexts that cannot be overrun


@pytest.mark.parametrize(("context", "said"), [(70_000, "is not sent"), (300, "no facts fit")])
def test_contexts_that_are_too_long_or_too_short(context: int, said: str) -> None:
    engine = FakeEngine(context=context)
    result = LIMIT_PROBES["overflow"](bench(engine))
    assert result.finding is LimitFinding.NOT_POSSIBLE
    assert said in result.sentence
    assert engine.calls == 0


# What the evidence comes to


@pytest.mark.parametrize(
    ("sights", "counted", "cut", "behaviour"),
    [
        ((SEEN, SEEN, SEEN), 2000, "", Behaviour.WHOLE),
        ((SEEN, SEEN, SEEN), None, "", Behaviour.NOT_RESOLVED),
        ((SEEN, SEEN, SEEN), 1500, "", Behaviour.CUT_MIDDLE),
        ((SEEN, UNTOLD, SEEN), 2000, "", Behaviour.NOT_RESOLVED),
        ((SEEN, UNSEEN, SEEN), 2000, "", Behaviour.CUT_MIDDLE),
        ((UNSEEN, SEEN, SEEN), 2000, "", Behaviour.CUT_LEFT),
        ((UNSEEN, UNSEEN, SEEN), None, "", Behaviour.CUT_LEFT),
        ((SEEN, UNSEEN, UNSEEN), None, "", Behaviour.CUT_RIGHT),
        ((UNSEEN, SEEN, UNSEEN), 1500, "", Behaviour.NOT_RESOLVED),
        ((UNSEEN, UNSEEN, UNSEEN), 2000, "", Behaviour.NOT_RESOLVED),
        ((UNTOLD, UNTOLD, SEEN), 1500, "", Behaviour.NOT_RESOLVED),
        ((UNTOLD, UNTOLD, UNTOLD), 1500, "right", Behaviour.CUT_RIGHT),
        ((UNSEEN, UNSEEN, UNSEEN), 1500, "right", Behaviour.CUT_RIGHT),
        ((UNSEEN, SEEN, SEEN), 1500, "left", Behaviour.CUT_LEFT),
        ((UNSEEN, SEEN, SEEN), 1500, "right", Behaviour.NOT_RESOLVED),
        ((SEEN, SEEN, SEEN), 2000, "left", Behaviour.NOT_RESOLVED),
        ((SEEN, SEEN, SEEN), 2000, "middle", Behaviour.WHOLE),
        ((SEEN, UNSEEN, SEEN), 2000, "middle", Behaviour.CUT_MIDDLE),
        ((UNTOLD, UNTOLD, UNTOLD), 1500, "middle", Behaviour.NOT_RESOLVED),
    ],
)
def test_what_the_evidence_comes_to(sights, counted, cut, behaviour) -> None:  # type: ignore[no-untyped-def]
    look = PromptView(2000, counted, dict(zip(PLACES, sights, strict=True)), cut, f"kept {cut}")
    found, why = where_cut(look)
    assert found is behaviour
    assert all(place in why for place in PLACES)
    assert ("do not agree" in why) is (behaviour is Behaviour.NOT_RESOLVED and cut in SIDES)


# The prompts


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("tokens", [400, 1000, 3000])
def test_prompts_have_the_wished_length_and_all_facts(tokens: int, ids: bool) -> None:
    engine = make(ids=ids)
    filling = PromptFiller(bench(engine))
    values = [value for told in filling.facts.values() for value in told.values]
    assert len(set(values)) == 6
    for place in PLACES:
        for changed in (False, True):
            posed = filling.question(place, tokens, 8, changed)
            prompt = posed.ask.prompt_ids or engine.render(posed.ask.messages).ids
            assert len(prompt) == posed.tokens
            assert 0 <= tokens - len(prompt) <= (0 if ids else 2)
            text = engine.decode(prompt)
            assert text.startswith("[system] You remember")
            assert text.rstrip().endswith(f"What did I sell {filling.facts[place].name}?")
            for other, told in filling.facts.items():
                assert told.statement(changed and other == place) in text


def test_facts_stand_where_their_names_say() -> None:
    engine = make()
    filling = PromptFiller(bench(engine))
    text = engine.decode(filling.question(END, 2000, 8).ask.prompt_ids)
    where = [text.index(told.statement(False)) / len(text) for told in filling.facts.values()]
    assert where[0] < 0.05
    assert 0.25 < where[1] < 0.5, "in either half that is kept of two, it would tell"
    assert where[2] > 0.95
    assert filling.least < 64


def test_what_ends_beyond_the_context_is_looked_at_just_below_it() -> None:
    engine = make(shifting)
    lengths: list[int] = []

    def listen(ask: Ask, reply: Reply) -> Reply:
        lengths.append(len(ask.prompt_ids))
        return reply

    engine._reply = listen
    probe(engine)
    assert lengths.count(CONTEXT - EDGE) >= 2 * len(PLACES)
