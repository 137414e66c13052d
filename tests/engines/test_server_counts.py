"""What a server counts against its limit and its word: one rule for ids and for chat."""

from __future__ import annotations

from dataclasses import replace

import pytest
from server_scripted import EOS, NANO, ScriptedServer, one
from test_server_engine import IDS, OPENAI, PROMPT, REQUEST, THINK, run

from pytest_tokenbudget.core.scoring import judge
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.core.trace import Outcome, StopReason, Trace
from pytest_tokenbudget.engines.server.chat import hidden_tokens, restore_output
from pytest_tokenbudget.engines.server.output import End, ServerOutput
from pytest_tokenbudget.report.limits import limit_answer, recommended_limits
from pytest_tokenbudget.tasks.problem import Problem
from pytest_tokenbudget.tasks.ruled import NUMBER, GivenTask

__all__ = ["run"]
WORDS = "one two three four five six seven eight nine ten"


def chat(run, *deltas, word="stop", cap=64, **usage):
    with ScriptedServer(deltas=deltas, word=word, usage=usage) as server:
        return one(run(server, facts=OPENAI), replace(REQUEST, cap=cap))


def trace_of(result):
    cap = result.request.cap
    return Trace(
        *("p", 0, PROMPT, result.output_ids, result.stop_reason, cap, result.text, result.offsets),
        counted=True,
    )


def outcome(result, answer="3"):
    """What the answer amounts to at its cap."""
    cap, trace = result.request.cap, trace_of(result)
    problem = Problem("p", "?", answer, "", MESSAGES)
    return judge(GivenTask("t", NUMBER, (problem,)), problem, trace.cut(cap, NANO.thinking)).outcome


MESSAGES = ({"role": "user", "content": "?"},)


# --- chat


@pytest.mark.parametrize("word", ["stop", "STOP", "end_turn"])
def test_stop_with_as_many_tokens_as_were_allowed_is_a_cut(run, word):
    result = chat(run, {"content": "so it is 3"}, word=word, completion_tokens=64)
    assert result.stop_reason is StopReason.LENGTH
    result = chat(run, {"content": "#### 3"}, word=word, completion_tokens=63)
    assert result.stop_reason is StopReason.EOS


def test_a_cut_by_the_servers_count_has_its_length_everywhere(run):
    """Table, recommendation and sentence agree: 64 tokens were used, whatever the text holds."""
    result = chat(run, {"content": "so it is 3"}, completion_tokens=64)
    text_tokens = len(result.output_ids)
    assert text_tokens < 16
    problem = Problem("p", "?", "3", "", MESSAGES)
    study = Study(
        alias="m",
        identity={},
        task=GivenTask("t", NUMBER, (problem,)),
        problems=(problem,),
        traces={("p", 0): trace_of(result)},
        samples=1,
        thinking=NANO.thinking,
        mode="plain",
        budgets=(4, 16, 64),
    )
    assert [point.mean_tokens.value for point in study.curve.points] == [4, 16, 64]
    assert [point.truncation.value for point in study.curve.points] == [1, 1, 1]
    assert study.tokens_once == 64
    found = recommended_limits(study)["all_tokens"].overall
    assert (found.best.limit, found.needs.max, found.stopped_early) == (64, 64, 0)
    assert "1 of 1 traces met it; generate with a cap above 64" in found.finding()
    assert "no limit up to 64 tokens" in limit_answer(study, found)
    # What is known of the text stays that of the text.
    cut = study.judged(64)[0].cut
    assert cut.thinking_tokens + cut.answer_tokens == text_tokens


@pytest.mark.parametrize("word", ["length", "MAX_TOKENS", "model_length"])
@pytest.mark.parametrize("usage", [{}, {"completion_tokens": 11}])
def test_length_far_below_the_limit_is_a_lower_limit_of_the_server(run, word, usage):
    result = chat(run, {"content": WORDS}, word=word, **usage)
    assert result.stop_reason is StopReason.ERROR
    assert f"of 64 tokens and says '{word}': its own limit is lower" in result.error


@pytest.mark.parametrize("usage", [{}, {"completion_tokens": 2826}])
def test_more_tokens_than_allowed_are_no_result_at_that_budget(run, usage):
    result = chat(run, {"content": WORDS * 20}, cap=30, **usage)
    assert result.stop_reason is StopReason.ERROR
    assert "tokens where 30 were allowed: it did not keep the limit" in result.error


def test_hidden_reasoning_counts_against_the_limit(run):
    result = chat(
        run, {"content": "3"}, cap=30, completion_tokens=1, total_tokens=2831,
        prompt_tokens=4, completion_tokens_details={"reasoning_tokens": 2826},
    )  # fmt: skip
    assert "2,827 tokens where 30 were allowed" in result.error


def test_a_short_summary_does_not_stand_for_the_reasoning_it_sums_up(run):
    deltas = {"reasoning_content": "I counted."}, {"content": "#### 3"}
    usage = {"completion_tokens": 56, "completion_tokens_details": {"reasoning_tokens": 50}}
    result = chat(run, *deltas, **usage)
    assert len(result.output_ids) == 56
    assert result.text == "<think>I counted.</think>#### 3"
    assert outcome(result) is Outcome.CORRECT


def test_reasoning_in_the_content_is_not_counted_twice():
    def count(text):
        return len(text.split())

    opened = "<|im_start|>assistant\n<think>\n"
    usage = {"completion_tokens": 9, "reasoning_tokens": 5}
    for content in ("a b c d e </think> f g", "a b c d e f g h"):
        heard = ServerOutput(content=content, usage=dict(usage), end=End.EOS)
        assert hidden_tokens(heard, count) == 0
        written = restore_output(heard, THINK, opened, hidden=hidden_tokens(heard, count))
        assert (written.text, written.hidden_at) == (content, 0)
    # Without a total it is the tag that tells.
    heard = ServerOutput(content="a b </think> f", usage={"reasoning_tokens": 5}, end=End.EOS)
    written = restore_output(heard, THINK, opened, hidden=hidden_tokens(heard, count))
    assert written.text == "a b </think> f"


def test_counts_that_cannot_be_true_are_ignored_and_said(run):
    lines = []
    usage = {"completion_tokens": -5, "completion_tokens_details": {"reasoning_tokens": 10**15}}
    with ScriptedServer(deltas=[{"content": "#### 3"}], usage=usage) as server:
        engine = run(server, facts=OPENAI, say=lines.append)
        result = one(engine, REQUEST)
        one(engine, replace(REQUEST, key="other"))
    assert (result.stop_reason, result.text) == (StopReason.EOS, "#### 3")
    assert "completion_tokens" not in result.usage
    said = [line for line in lines if "cannot be true" in line]
    assert len(said) == 1
    assert "completion_tokens -5" in said[0]


# --- chat streams that no server can mean


def event(delta, word=None, **fields):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": word}], **fields}


def counting(prompt_tokens=4, **usage):
    return {"choices": [], "usage": {"prompt_tokens": prompt_tokens, **usage}}


class EventServer(ScriptedServer):
    """Answers a chat request with the next of several lists of events, the last one for ever."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = list(answers)

    def _chat(self):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


START = [event({"role": "assistant", "content": ""}), event({"content": "Step one."})]
REST = event({"content": " So the answer is #### 7"})
USAGE = counting(completion_tokens=14)
WHOLE = [*START, REST, event({}, "stop"), USAGE]
MALFORMED = {
    "content": [*WHOLE[:-1], event({"content": " more #### 9"}), USAGE],
    "content with the end": [*WHOLE[:-1], event({"content": " #### 9"}, "stop"), USAGE],
    "content after the counts": [*WHOLE, event({"content": " #### 9"})],
    "parts": [*WHOLE[:-1], event({"content": [{"type": "text", "text": "9"}]})],
    "reasoning": [*WHOLE[:-1], event({"reasoning_content": "or 9"}), USAGE],
    "details": [*WHOLE, event({"reasoning_details": [{"type": "reasoning.text", "text": "9"}]})],
    "refusal": [*WHOLE, event({"refusal": "I cannot."})],
    "tool": [*WHOLE, event({"tool_calls": [{"function": {"name": "calculate"}}]})],
    "another end": [*WHOLE[:-1], event({}, "length"), USAGE],
    "text after the cap": [*START, event({}, "length"), REST, USAGE],
    "event twice": [*START, REST, *WHOLE[2:]],
    "all twice": [*START, *START, REST, REST, *WHOLE[3:]],
    "event again": [*START, REST, START[1], REST, *WHOLE[3:]],
    "reasoning twice": [
        *[event({"reasoning": "First 1 + 6, and then 7."})] * 3,
        *WHOLE[:-1],
        counting(completion_tokens=31),
    ],
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_chat_stream_that_cannot_be_true_is_asked_for_again(run, fault):
    with EventServer(MALFORMED[fault], WHOLE) as server:
        result = one(run(server, facts=OPENAI), REQUEST)
        assert (result.text, result.stop_reason) == (
            "Step one. So the answer is #### 7",
            StopReason.EOS,
        )
        assert len(server.bodies) == 2
    with EventServer(MALFORMED[fault]) as server:
        result = one(run(server, facts=OPENAI), REQUEST)
    assert result.stop_reason is StopReason.ERROR
    assert "after it had ended it" in result.error or "ended an output twice" in result.error or (
        "came twice, or its count is wrong" in result.error
    )  # fmt: skip


THINKING = event({"reasoning_content": "One and six, which is seven as one can see."})
VALID = {
    "end with the last content": [*START, event({"content": " #### 7"}, "stop"), USAGE],
    "end repeated": [*WHOLE[:-1], event({"content": ""}, "stop"), event({}, "STOP"), USAGE],
    "empty deltas": [*WHOLE, event({}), event({"content": None}), event({"role": "assistant"})],
    "keep-alive": [*WHOLE[:-1], {"choices": []}, {}, event({"content": "", "tool_calls": []})],
    "running counts": [{**each, "usage": USAGE["usage"]} for each in WHOLE],
    "no counts": WHOLE[:-1],
    "counts of 0": [*WHOLE[:-1], counting(completion_tokens=0)],
    "hidden reasoning": [*WHOLE[:-1], counting(completion_tokens=60)],
    "reasoning beside": [
        *WHOLE[:-1],
        counting(completion_tokens=14, completion_tokens_details={"reasoning_tokens": 40}),
    ],
    "the answer alone is counted": [THINKING, *WHOLE],
    "reasoning in the total only": [
        *(THINKING, *WHOLE[:-1]),
        counting(completion_tokens=13, total_tokens=len(PROMPT) + 40),
    ],
    "another tokenizer": [*WHOLE[:-1], counting(3, completion_tokens=9)],
    "a token written twice": [*START, *[event({"content": " 7"})] * 4, *WHOLE[3:-1], counting(
        completion_tokens=12)],
    "message beside its deltas": [
        *WHOLE[:-2],
        {"choices": [{"delta": {}, "message": {"content": "Step"}, "finish_reason": "stop"}]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", VALID)
def test_what_real_servers_do_in_a_chat_stream_is_taken(run, kind):
    with EventServer(VALID[kind]) as server:
        result = one(run(server, facts=OPENAI), REQUEST)
        assert (result.error, result.stop_reason) == ("", StopReason.EOS)
        assert len(server.bodies) == 1
    assert " 7" in result.text


@pytest.mark.parametrize("fault", ["ids", "text", "another end"])
def test_ids_after_the_word_for_the_end_are_asked_for_again(run, fault):
    def late(events):
        stop = {
            "index": 0,
            "text": "",
            "token_ids": [],
            "finish_reason": "stop",
            "stop_reason": "x",
        }
        more = {"ids": {"token_ids": [7]}, "text": {"token_ids": [], "text": "9"}}
        events[5]["choices"][0] |= stop
        events[6:] = [{"choices": [stop | more.get(fault, {"finish_reason": "length"})]}]

    with OddServer(late) as server:
        result = one(run(server), REQUEST)
        assert (result.output_ids, result.stop_reason) == (IDS, StopReason.EOS)
        assert len(server.bodies) == 2


# --- thinking over chat


THOUGHT = {"type": "text", "text": "I count."}


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "I count."},
        {"reasoning": "I count."},
        {"thinking": "I count."},
        {"reasoning_text": "I count."},
        {"reasoning_details": [{"type": "reasoning.text", "text": "I count."}]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "I count."}]},
        {"content": [{"type": "thinking", "thinking": [THOUGHT]}]},
        {"content": [{"type": "thinking", "thinking": "I count."}]},
        {"content": [{"type": "reasoning", "text": "I count."}]},
        {
            "reasoning": "I count.",
            "reasoning_details": [{"type": "reasoning.text", "text": "I count."}],
        },
    ],
)
def test_reasoning_by_any_name_is_put_back_as_thinking(run, delta):
    result = chat(run, delta, {"content": [{"type": "text", "text": "#### 3"}]})
    assert result.text == "<think>I count.</think>#### 3"
    assert outcome(result) is Outcome.CORRECT


@pytest.mark.parametrize(
    "answer",
    [
        "Use `<think>` tags. #### 3",
        "Close it with </think>. #### 3",
        "<think>2</think> is how. #### 3",
    ],
)
def test_tags_in_an_answer_that_the_server_parted_are_text(run, answer):
    result = chat(run, {"reasoning_content": "I count."}, {"content": answer})
    assert outcome(result) is Outcome.CORRECT
    assert result.text.replace("\u2060", "") == f"<think>I count.</think>{answer}"
    assert len(result.offsets) == len(result.output_ids)
    assert result.offsets[-1] == len(result.text)


# --- ids


class OddServer(ScriptedServer):
    """Changes the events of its first answers."""

    def __init__(self, change, times=1, **options):
        super().__init__(ids=IDS, prompt=len(PROMPT), **options)
        self.change, self.times = change, times

    def _completion(self, asked):
        events = list(super()._completion(asked))
        if self.times > 0:
            self.times -= 1
            self.change(events)
        return iter(events)


def ids_of_event(event):
    return event["choices"][0]["token_ids"]


COUNT = {"prompt_tokens": 4, "completion_tokens": len(IDS)}
FAULTS = {
    "twice": (lambda events: events.insert(3, events[2]), "counts 11 tokens and gave 12 token ids"),
    "lost": (lambda events: events.pop(3), "counts 11 tokens and gave 10 token ids"),
    "index": (lambda events: events[3]["choices"][0].update(index=1), "outputs with the index 1"),
    "two": (lambda events: events[3]["choices"].append(events[2]["choices"][0]), "sent 2 outputs"),
    "negative": (lambda events: ids_of_event(events[3]).__setitem__(0, -7), "the token id -7"),
    "huge": (lambda events: ids_of_event(events[3]).__setitem__(0, 10**12), "id 1000000000000"),
    "outside": (lambda events: ids_of_event(events[3]).__setitem__(0, 1024), "the token id 1024"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_events_that_cannot_be_true_are_asked_for_again(run, fault):
    change, words = FAULTS[fault]
    with OddServer(change, usage=COUNT) as server:
        result = one(run(server), REQUEST)
        assert (result.output_ids, result.stop_reason) == (IDS, StopReason.EOS)
        assert len(server.bodies) == 2
    with OddServer(change, times=99, usage=COUNT) as server:
        result = one(run(server), REQUEST)
    assert result.stop_reason is StopReason.ERROR
    assert words in result.error


@pytest.mark.parametrize("counted", [True, False])
def test_an_event_that_came_twice_before_the_limit_is_asked_for_again(run, counted):
    """It reaches the limit with a wrong id in it; only the count shows that."""
    request, usage = replace(REQUEST, cap=8), {"completion_tokens": 8}
    change = FAULTS["twice"][0]
    with OddServer(change, usage=usage if counted else None, word="length") as server:
        result = one(run(server), request)
        assert len(server.bodies) == 1 + counted
    assert (result.output_ids == IDS[:8]) is counted
    # A server that does not keep the limit, and counts what it wrote, is cut at the limit.
    with ScriptedServer(
        ids=IDS[:8] * 4, prompt=len(PROMPT), usage={"completion_tokens": 32}
    ) as server:
        server._completion = lambda asked: ScriptedServer._completion(
            server, {**asked, "max_tokens": 99}
        )
        result = one(run(server), request)
    assert (result.output_ids, result.stop_reason) == (IDS[:8], StopReason.LENGTH)


def test_stop_halfway_without_an_end_token_is_no_end(run):
    def halfway(events):
        del events[5:]
        events[-1]["choices"][0].update(finish_reason="stop")

    with OddServer(halfway) as server:
        result = one(run(server), REQUEST)
        assert (result.output_ids, result.stop_reason) == (IDS, StopReason.EOS)
        # It goes on from what had come.
        assert [len(body["prompt"]) for body in server.bodies] == [4, 9]


def test_one_answer_without_ids_does_not_end_the_others(run):
    def without(events):
        del events[2]["choices"][0]["token_ids"]

    with OddServer(without, times=0) as server:
        engine = run(server)
        assert one(engine, REQUEST).stop_reason is StopReason.EOS
        server.times = 1
        assert one(engine, replace(REQUEST, key="b")).output_ids == IDS
        server.times = 99
        result = one(engine, replace(REQUEST, key="c"))
    assert result.stop_reason is StopReason.ERROR
    assert "gave text without token ids" in result.error


def test_an_end_token_that_is_not_known_here_is_an_end(run):
    """The server names the id that ended it."""
    ids = (*IDS[:-1], 1022)
    with ScriptedServer(ids=ids, prompt=len(PROMPT), stop=1022) as server:
        result = one(run(server), REQUEST)
    assert (result.output_ids, result.stop_reason) == (ids, StopReason.EOS)
    assert EOS not in result.output_ids
