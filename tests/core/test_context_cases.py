"""The context eval where something is not as usual: tasks, answers and windows of other kinds."""

import json

import pytest
from context_runs import EVAL, FAKE, SHORT, Talker, found, point
from runs import Engines

from pytest_tokenbudget.context.window import Chat, Conversation
from pytest_tokenbudget.context.window_summary import named_strategy
from pytest_tokenbudget.core.context_plan import window_facts
from pytest_tokenbudget.core.engine import Generated, Prompt
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.studies.context.options import read_strategies

pytest_plugins = ["run_fixtures"]


def own_task(pytester, words="How many is 2 + 3?"):
    """A task of three problems that have no system message."""
    lines = [
        {
            "id": f"q{i}",
            "question": words,
            "answer": "5",
            "messages": [{"role": "user", "content": f"Question {i}. {words}"}],
        }
        for i in range(3)
    ]
    (pytester.path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return "--task=own.jsonl"


def test_a_task_without_a_system_prompt_does_not_claim_that_one_is_kept(
    run, pytester, quick_figures
):
    engines = Engines(lambda *given: Talker())
    result = run(*FAKE, own_task(pytester), base=EVAL, engines=engines)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["own*, n = 3: % right by limit"])
    result.stdout.no_fnmatch_line("*system prompt*")
    one = point(found(pytester), "task", "newest", "50%")
    assert one["kept"] is one["if_kept"] is one["if_lost"] is one["system_whole"] is None
    assert one["question_whole"]["value"] == 1


def test_a_task_none_of_whose_conversations_fits_is_skipped_with_the_reason(
    run, pytester, quick_figures
):
    engines = Engines(lambda *given: Talker())
    task = own_task(pytester, "How many is 2 + 3? " * 400)
    result = run(*FAKE, task, "-rs", "--context-turns=4", base=EVAL, engines=engines)
    assert result.ret == 0
    result.assert_outcomes(passed=9, skipped=4)
    result.stdout.fnmatch_lines(["*no conversation of task fits: nano-reasoner has room for 1,9*"])


class Rambler(Talker):
    """Does not end every second answer."""

    def generate(self, requests, decoding):
        for request in requests:
            self.seen.append(request)
            if len(self.seen) % 2:
                yield Generated(request, (1,) * request.cap, StopReason.LENGTH, "length")
            else:
                yield Generated(request, (1, 2, 0), StopReason.EOS, "stop")


def test_answers_that_were_cut_are_told_beside_accuracy(run, pytester, quick_figures):
    result = run(*FAKE, "-k", "recall", base=EVAL, engines=Engines(lambda *given: Rambler()))
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "answers cut at 64 tokens: 33.3 % with the whole conversation, of the others",
            "  0.0 % are right; at most 66.7 % (newest at 50 %); see --answer-tokens",
        ]
    )
    result = run(
        *FAKE, "-k", "recall", "--fresh", base=EVAL, engines=Engines(lambda *given: Talker())
    )
    result.stdout.no_fnmatch_line("*answers cut at*")


def test_limits_that_the_terminal_has_no_room_for_are_named(run, pytester, quick_figures):
    result = run(
        "--context-turns=4", "--truncation=newest", "--num-samples=1", "-k", "recall",
        "--context-limits=30%,40%,50%,60%,70%,80%", base=EVAL,
        engines=Engines(lambda *given: Talker()),
    )  # fmt: skip
    assert result.ret == 0
    result.stdout.fnmatch_lines(["too many limits to show: 30 %, 40 % are in the results only"])


def test_conversations_that_an_engine_only_answers_truncated_are_drawn(run, pytester):
    """All answers to whole conversations failed, so there is nothing to hold the others against."""
    engines = Engines(lambda *given: Talker(lambda request: len(request.prompt_ids) > 100))
    result = run(
        "--context-turns=8", "--truncation=newest", "--context-limits=50%", "--num-samples=2",
        "-k", "recall", base=EVAL, engines=engines,
    )  # fmt: skip
    assert result.ret == 1
    result.stdout.no_fnmatch_line("*reports are not complete*")
    result.stdout.fnmatch_lines(
        ["no truncation is recommended: all answers*", "2 answers ended in an error"]
    )
    assert list((pytester.path / "reports" / "figures").glob("context_depth_recall*.png"))


class Thoughtful(Talker):
    """Opens thinking in every prompt, and is still thinking when its output is cut."""

    def render(self, messages, thinking=None):
        prompt = super().render(messages, thinking)
        return Prompt((*prompt.ids, *self.ids(["<think>"])), f"{prompt.text} <think>\n")


def test_unfinished_thoughts_are_no_summary(run, pytester, quick_figures):
    class Endless(Thoughtful):
        def generate(self, requests, decoding):
            for request in requests:
                self.seen.append(request)
                yield Generated(request, (1,) * request.cap, StopReason.LENGTH, "length")

    result = run(
        "--context-turns=12", "--truncation=summary", "--context-limits=50%", "--num-samples=2",
        "-k", "recall", base=EVAL, engines=Engines(lambda *given: Endless()),
    )  # fmt: skip
    assert result.ret == 0
    answers = json.loads(
        (pytester.path / "reports/results/context_nano-reasoner_answers.json").read_text()
    )
    windows = [a["window"] for a in answers if a["strategy"] == "summary"]
    assert windows
    assert not any(window.get("summary") for window in windows)
    assert {a["outcome"] for a in answers} == {"truncated_in_thinking"}


def test_a_summary_has_the_answer_where_it_has_its_words_not_their_letters():
    engine = Talker()
    messages = (
        {"role": "user", "content": "I sold Mia pens."},
        {"role": "assistant", "content": "Noted."},
        *({"role": role, "content": "It rains a lot."} for role in ("user", "assistant") * 9),
        {"role": "user", "content": "What did I sell Mia?"},
    )
    talk = Conversation(messages, Chat(engine.render, engine.decode_prompt))
    for said, there in (("Whatever happens, it rains.", False), ("Mia got Pens.", True)):
        window = named_strategy("summary=0.5", lambda request, said=said: said).window(talk, 60)
        assert window.summary == said
        facts = window_facts(window, talk, (0,), key="k", opens=False, answer="pens")
        assert facts.needed_whole is there


@pytest.mark.parametrize("given", ["ends=0.25,ends=0.250", "ends=.25, ends=0.25"])
def test_a_strategy_written_in_two_ways_is_one(given):
    assert read_strategies(given) == ("ends=0.25",)


def test_tokens_of_summaries_are_among_those_that_a_run_generated(run, pytester, quick_figures):
    engines = Engines(lambda *given: Talker())
    result = run(*FAKE, "--truncation=summary", base=EVAL, engines=engines)
    assert result.ret == 0
    assert any("Summarise" in request.messages[-1]["content"] for request in engines.seen)
    assert found(pytester)["generated_this_run"] == 3 * len(engines.seen)


def test_a_limit_beyond_all_conversations_says_nothing_of_truncated_ones(
    run, pytester, quick_figures
):
    result = run(
        *SHORT, "--context-limits=100000", "--num-samples=3", base=EVAL,
        engines=Engines(lambda *given: Talker()),
    )  # fmt: skip
    assert result.ret == 0
    record = found(pytester)
    assert point(record, "recall", "newest", "100000")["if_kept"]["n"] == 3
    assert not any(record["right_with_all_that_is_needed"].values())
    result.stdout.no_fnmatch_line("right where*")


def test_an_interrupted_run_shows_what_is_there_and_goes_on(run, pytester, quick_figures):
    class Stopped(Talker):
        def generate(self, requests, decoding):
            if len(self.seen) >= 5:
                raise KeyboardInterrupt
            return super().generate(requests, decoding)

    engines = Engines(lambda *given: Stopped())
    result = run(*FAKE, base=EVAL, engines=engines, no_reraise_ctrlc=True)
    result.stdout.fnmatch_lines(
        [
            "* conversations in a window, *",
            "8 of 9 conversations lack answers*",
            "*KeyboardInterrupt*",
        ]
    )
    rest = Engines(lambda *given: Talker())
    assert run(*FAKE, base=EVAL, engines=rest).ret == 0
    assert not {r.key for r in rest.seen} & {r.key for r in engines.seen}
    assert found(pytester)["complete"]
