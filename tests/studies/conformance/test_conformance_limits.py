"""Probes of the limits, with engines that keep them and engines that do not."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from conformance_fakes import FakeEngine, Thought, Tokens, bench, words

from pytest_tokenbudget.core.probes import Ask, NoAnswerError, Reply
from pytest_tokenbudget.studies.conformance.analysis import LimitFinding, LimitResult
from pytest_tokenbudget.studies.conformance.limits import LIMIT_PROBES


def probe(engine: FakeEngine, name: str) -> LimitResult:
    return LIMIT_PROBES[name](bench(engine))


def changed(**changes: object) -> object:
    def reply(ask: Ask, reply: Reply) -> Reply:
        choices = tuple(replace(each, **changes) for each in reply.choices)  # type: ignore[arg-type]
        return replace(reply, choices=choices)

    return reply


@pytest.mark.parametrize("name", LIMIT_PROBES)
def test_an_engine_that_keeps_all_limits(name: str) -> None:
    result = probe(FakeEngine(), name)
    assert result.finding is LimitFinding.KEPT, result.sentence
    assert result.probe == name
    assert result.checked > 0
    assert result.failed == 0
    assert all("max_tokens" in each["request"] for each in result.evidence)
    assert 1 <= len(result.evidence) <= max(4, len(result.cases))


@pytest.mark.parametrize("name", LIMIT_PROBES)
def test_an_engine_that_gives_text_only(name: str) -> None:
    result = probe(FakeEngine(ids=False, apart=True), name)
    assert result.finding is LimitFinding.KEPT, result.sentence


@pytest.mark.parametrize("name", LIMIT_PROBES)
def test_an_engine_that_fails_at_everything_is_no_crash(name: str) -> None:
    def fail(ask: Ask, reply: Reply) -> Reply:
        return Reply(reply.sent, error="out of order", status=500)

    try:
        result = probe(FakeEngine(reply=fail), name)
    except NoAnswerError as error:
        # The test that probes fails with this sentence; it is not skipped.
        assert str(error).endswith("out of order")  # noqa: PT017
    else:
        assert result.finding is LimitFinding.BROKEN


def test_one_token_too_many() -> None:
    def more(ask: Ask, reply: Reply) -> Reply:
        choices = tuple(
            replace(each, ids=(*(each.ids or ()), 1)) if each.finish_reason == "length" else each
            for each in reply.choices
        )
        return replace(reply, choices=choices)

    result = probe(FakeEngine(reply=more), "max_tokens")
    assert result.finding is LimitFinding.BROKEN
    assert "2 tokens with max_tokens 1" in result.sentence
    assert result.failed == result.checked == 12
    assert result.evidence[0]["request"]["max_tokens"] == 1


def test_one_token_too_few() -> None:
    def fewer(ask: Ask, reply: Reply) -> Reply:
        return replace(
            reply, choices=tuple(replace(e, ids=(e.ids or ())[:-1]) for e in reply.choices)
        )

    assert probe(FakeEngine(reply=fewer), "max_tokens").finding is LimitFinding.BROKEN


def test_an_end_exactly_at_the_cap_that_is_called_length() -> None:
    def reply(ask: Ask, reply: Reply) -> Reply:
        (choice,) = reply.choices
        at_cap = len(choice.ids or ()) == ask.max_tokens
        return replace(
            reply, choices=(replace(choice, finish_reason="length" if at_cap else "stop"),)
        )

    result = probe(FakeEngine(reply=reply), "boundary")
    assert result.finding is LimitFinding.BROKEN
    assert "'length' with a cap exactly at the natural length" in result.sentence
    assert result.failed == 3


def test_stop_on_a_cut() -> None:
    engine = FakeEngine(reply=changed(finish_reason="stop"))  # type: ignore[arg-type]
    result = probe(engine, "finish_reason")
    assert result.finding is LimitFinding.BROKEN
    assert "says 'stop' of an output that was cut" in result.sentence
    assert "'stop' with a cap one below" in probe(engine, "boundary").sentence


def test_a_whole_batch_marked_length_because_one_row_was() -> None:
    engine = FakeEngine(reply=changed(finish_reason="length"))  # type: ignore[arg-type]
    result = probe(engine, "finish_reason")
    assert result.finding is LimitFinding.BROKEN
    assert "all of the 10 in one batch have the one word 'length'" in result.sentence
    assert result.failed == 5


def test_stop_strings_that_are_not_seen() -> None:
    engine = FakeEngine()
    plain = engine.ask

    def deaf(asks: list[Ask], at_once: int = 1) -> list[Reply]:
        return plain([replace(ask, stop=()) for ask in asks], at_once)

    engine.ask = deaf  # type: ignore[method-assign,assignment]
    result = probe(engine, "stop_strings")
    assert result.finding is LimitFinding.BROKEN
    assert "went on after" in result.sentence


def test_stop_strings_that_are_refused() -> None:
    engine = FakeEngine(refuses=lambda ask: "no stop here" if ask.stop else "")
    assert probe(engine, "stop_strings").finding is LimitFinding.NOT_POSSIBLE


def test_n_that_gives_one() -> None:
    engine = FakeEngine(reply=lambda ask, reply: replace(reply, choices=reply.choices[:1]))
    result = probe(engine, "n")
    assert result.finding is LimitFinding.BROKEN
    assert "1, 1, 1, 1 came" in result.sentence


def test_n_that_gives_copies() -> None:
    def copies(ask: Ask, reply: Reply) -> Reply:
        return replace(reply, choices=reply.choices[:1] * len(reply.choices))

    assert "copies" in probe(FakeEngine(reply=copies), "n").sentence


def test_n_and_seeds_tell_nothing_of_a_model_that_is_sure() -> None:
    engine = FakeEngine(lambda thought: replace(thought, noise=0))
    assert probe(engine, "n").finding is LimitFinding.NOT_POSSIBLE
    assert probe(engine, "seeds").finding is LimitFinding.NOT_POSSIBLE


def test_seeds_that_are_dropped() -> None:
    calls = itertools.count(1)

    def mind(thought: Thought) -> Thought:
        return replace(thought, noise=next(calls)) if thought.noise else thought

    result = probe(FakeEngine(mind), "seeds")
    assert result.finding is LimitFinding.DIFFERS
    assert result.rate is not None
    assert result.rate[0] == 1
    assert "6 of 6 outputs were others" in result.sentence


def test_seeds_that_are_always_the_same() -> None:
    engine = FakeEngine(lambda thought: replace(thought, noise=min(thought.noise, 1)))
    assert probe(engine, "seeds").finding is LimitFinding.BROKEN


def test_prefixes_that_part_under_load_only() -> None:
    def mind(thought: Thought) -> Thought | Tokens:
        whole = words(thought)
        shaken = engine.loaded and thought.ask.max_tokens == 32
        return [*whole[:20], "other ", *whole[20:]] if shaken else thought

    class Loaded(FakeEngine):
        loaded = False

        def ask(self, asks: list[Ask], at_once: int = 1) -> list[Reply]:  # type: ignore[override]
            self.loaded = at_once > 1
            return super().ask(asks, at_once)

    engine = Loaded(mind)
    assert probe(engine, "prefix_alone").finding is LimitFinding.KEPT
    result = probe(engine, "prefix_under_load")
    assert result.finding is LimitFinding.DIFFERS
    assert result.failed == result.checked == 18
    assert result.rate is not None
    assert result.rate[1] == pytest.approx(0.824, abs=0.001)
    assert result.rate[2] == 1
    assert "after 20 tokens" in result.sentence


@pytest.mark.parametrize(
    ("name", "off", "finding"),
    [
        ("completion_tokens", 3, LimitFinding.BROKEN),
        ("completion_tokens", -3, LimitFinding.BROKEN),
        ("prompt_tokens", 1, LimitFinding.BROKEN),
    ],
)
def test_counts_that_are_not_those_of_the_ids(name: str, off: int, finding: LimitFinding) -> None:
    def miscount(ask: Ask, reply: Reply) -> Reply:
        return replace(reply, usage={**reply.usage, name: reply.usage[name] + off})

    result = probe(FakeEngine(reply=miscount), "usage")
    assert result.finding is finding
    assert name in result.sentence


def test_an_end_that_is_counted_and_not_given_is_no_error() -> None:
    def without_end(ask: Ask, reply: Reply) -> Reply:
        (choice,) = reply.choices
        ids = tuple(each for each in choice.ids or () if each)
        return replace(reply, choices=(replace(choice, ids=ids),))

    engine = FakeEngine(reply=without_end)
    assert probe(engine, "usage").finding is LimitFinding.KEPT
    assert probe(engine, "boundary").finding is LimitFinding.KEPT
    assert probe(engine, "finish_reason").finding is LimitFinding.KEPT


def test_no_counts_at_all() -> None:
    engine = FakeEngine(reply=lambda ask, reply: replace(reply, usage={}))
    assert probe(engine, "usage").finding is LimitFinding.NOT_POSSIBLE


@pytest.mark.parametrize(("apart", "more", "finding"), [
    (True, 5, LimitFinding.KEPT),
    (True, 30, LimitFinding.BROKEN),
    (False, 5, LimitFinding.BROKEN),
])  # fmt: skip
def test_line_ends_that_are_lost_with_the_tags_are_no_miscount(apart, more, finding) -> None:
    """A server whose reasoning comes apart gives it without them, and counts them rightly."""

    def count_more(ask: Ask, reply: Reply) -> Reply:
        counts = {name: count + more for name, count in reply.usage.items() if "comp" in name}
        return replace(reply, usage=counts)

    engine = FakeEngine(reply=count_more, apart=apart, ids=False)
    assert probe(engine, "usage").finding is finding


def test_long_requests_are_shortened_in_the_evidence() -> None:
    engine = FakeEngine(reply=lambda ask, reply: replace(
        reply, sent={"prompt": list(range(5000)), "text": "x" * 5000}, choices=()
    ))  # fmt: skip
    request = probe(engine, "max_tokens").evidence[0]["request"]
    assert len(request["prompt"]) == 17
    assert len(request["text"]) < 450
