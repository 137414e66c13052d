"""The context eval: what is posed, what of it a window holds, and what follows from the answers."""

import json
from pathlib import Path

import numpy as np
import pytest
from context_runs import EVAL, FAKE, SHORT, Talker, found, point
from runs import NO_ENGINE, Engines, RealEngines
from text_snapshots import TextFile, text_of

from pytest_tokenbudget.context.window import Chat, Conversation
from pytest_tokenbudget.context.window_strategies import STRATEGIES
from pytest_tokenbudget.context.window_summary import named_strategy
from pytest_tokenbudget.core.context_plan import (
    WHOLE_CELL,
    Cell,
    ContextPlan,
    WindowFacts,
    window_facts,
)
from pytest_tokenbudget.engines.text import ModelText
from pytest_tokenbudget.models.resolution import load_catalogue, resolve_model
from pytest_tokenbudget.settings.context_limits import WHOLE, ContextError, ContextLimit
from pytest_tokenbudget.studies.context.conversations import (
    Arm,
    ArmsTask,
    conversations,
    with_history,
)
from pytest_tokenbudget.studies.context.options import STRATEGIES as NAMES
from pytest_tokenbudget.studies.context.statistics import advise, contrasts
from pytest_tokenbudget.tasks.recall import DEPTHS
from pytest_tokenbudget.tasks.registry import load_task

pytest_plugins = ["run_fixtures"]

TASK = load_task("word-problems")


# --- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "length", "tokens"),
    [("512", 900, 512), ("25%", 900, 225), ("0.1 %", 900, 1), ("50%", 3, 2), ("0", 900, 0),
     ("100%", 900, 0), ("100.0%", 900, 0)],
)  # fmt: skip
def test_a_limit_is_tokens_or_a_share(text, length, tokens):
    assert ContextLimit.read(text).tokens_of(length) == tokens
    assert ContextLimit.read(str(ContextLimit.read(text))) == ContextLimit.read(text)


@pytest.mark.parametrize("text", ["", "-5", "0%", "101%", "half", "5.5", "٣"])
def test_what_is_no_limit_is_told(text):
    with pytest.raises(ContextError, match=r"tokens \(512\), shares of the conversation"):
        ContextLimit.read(text)


def test_the_names_of_options_are_the_strategies_there_are():
    assert set(NAMES) == {*STRATEGIES, "summary"}
    for name in (*NAMES, "ends=0.3", "summary=0.5"):
        assert named_strategy(name, lambda request: "").name == name


# --- conversations -----------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [(8,), (8, 16), (8, 16, 32, 64), tuple(range(1, 12))])
def test_every_depth_meets_every_length_and_more_extend_fewer(turns):
    count = len(DEPTHS) * len(turns)
    posed = conversations(Arm.RECALL, turns, count, TASK)
    assert {(p.depth, p.turns) for p in posed} == {(d, t) for d in DEPTHS for t in turns}
    assert conversations(Arm.RECALL, turns, count + 5, TASK)[:count] == posed
    assert len({p.problem.id for p in posed}) == count


@pytest.mark.parametrize(("arm", "facts"), [(Arm.RECALL, 1), (Arm.MULTI_HOP, 2)])
def test_the_messages_needed_are_those_that_tell_the_answer(arm, facts):
    for posed in conversations(arm, (6,), 22, TASK):
        messages = posed.problem.messages
        assert len(posed.needed) == facts
        assert posed.problem.answer in messages[posed.needed[-1]]["content"]
        # Depth 0 is the first user turn, depth 1 the last before the question.
        told = [posed.needed[0] == 1, posed.needed[-1] == len(messages) - 3]
        assert told == [posed.depth == 0, posed.depth == 1] or posed.depth not in (0, 1)
        assert len(messages) == 1 + 2 * (6 + 3 * facts) + 1


def test_small_talk_stands_between_the_system_prompt_and_the_question():
    problem = TASK.problems(1)[0]
    posed = with_history(problem, 5)
    first, *talk, last = posed.problem.messages
    assert (first, last) == (problem.messages[0], problem.messages[-1])
    assert [m["role"] for m in talk] == ["user", "assistant"] * 5
    assert posed.needed == (0,)
    assert (posed.problem.answer, posed.problem.category) == (problem.answer, problem.category)
    assert posed.problem.id != with_history(problem, 6).problem.id != problem.id
    assert with_history(problem, 5) == posed


def test_each_arm_is_judged_as_its_own_task_is():
    recall = conversations(Arm.RECALL, (4,), 1, TASK)[0]
    sums = with_history(TASK.problems(1)[0], 4)
    task = ArmsTask({Arm.RECALL: load_task("recall"), Arm.TASK: TASK}, [recall, sums])
    assert task.name == "recall, word-problems"
    assert task.size == 2
    assert task.judge_text(recall.problem, f"You said {recall.problem.answer}.", False).correct
    assert task.judge_text(sums.problem, f"#### {sums.problem.answer}", False).correct
    assert not task.judge_text(sums.problem, "#### 12345", False).correct


# --- windows -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text():
    return ModelText(resolve_model("nano-reasoner", load_catalogue()))


@pytest.fixture(scope="module")
def chat(text):
    return Chat(text.render, text.decode_prompt)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_keeping_the_newest_loses_a_fact_exactly_where_its_tokens_are_gone(text, chat, share):
    """Where the fact stands is found here by rendering, without the windows' own alignment."""
    kept = 0
    for posed in conversations(Arm.RECALL, (4, 12), 44, TASK):
        messages = posed.problem.messages
        talk = Conversation(messages, chat)
        whole = text.render(messages)
        limit = round(share * len(whole.ids))
        window = named_strategy("newest").window(talk, limit)
        facts = window_facts(window, talk, posed.needed, key="k", opens=False)
        told = messages[posed.needed[0]]["content"]
        there = f"user\n{told}" in text.decode_prompt(window.ids)
        assert facts.needed_whole is there, told
        assert (facts.tokens, facts.original) == (limit, len(whole.ids))
        assert facts.lost == len(whole.ids) - limit
        kept += there
    assert 0 < kept < 44


def test_what_a_summary_says_is_not_lost(chat):
    posed = conversations(Arm.RECALL, (12,), 1, TASK)[0]
    assert posed.depth == 0
    talk = Conversation(posed.problem.messages, chat)
    answer = posed.problem.answer
    for said, there in ((f"It was {answer.upper()}.", True), ("Nothing.", False)):
        window = named_strategy("summary", lambda request, said=said: said).window(talk, 150)
        facts = window_facts(window, talk, posed.needed, key="k", opens=False, answer=answer)
        assert facts.needed_whole is there
        assert facts.summary == said


def test_what_is_kept_of_a_window_comes_back():
    facts = WindowFacts(key="k", tokens=3, original=9, lost=6, needed_whole=False, opens=True)
    assert WindowFacts(**json.loads(json.dumps(facts.to_json()))) == facts
    assert set(facts.to_json()) == {
        "key", "tokens", "original", "lost", "needed_whole", "opens"
    }  # fmt: skip


def test_a_plan_of_windows_comes_back_and_names_every_cell():
    context_plan = ContextPlan(
        ("512", "50%"), ("first", "ends"), (4,), {"recall": 3}, ("p",), 9, 8, 7
    )
    again = ContextPlan.from_json(json.loads(json.dumps(context_plan.__dict__)))
    assert again == context_plan
    assert again.cells == (
        WHOLE_CELL, Cell("first", "512"), Cell("first", "50%"), Cell("ends", "512"),
        Cell("ends", "50%"),
    )  # fmt: skip
    assert WHOLE_CELL.context_limit == WHOLE


# --- advice ------------------------------------------------------------------------------------


def scores(right, n=400):
    return np.array([1.0] * right + [0.0] * (n - right))


def advice(margin=0.02, **right):
    """Of strategies a and b at limits 25 and 50 %: how many of 400 are right."""
    whole = scores(right.pop("whole", 390))
    correct = {(name[0], f"{name[1:]}%"): scores(n) for name, n in right.items()}
    tokens = {("a", "25%"): 20.0, ("a", "50%"): 40.0, ("b", "25%"): 25.0, ("b", "50%"): 50.0}
    return advise(
        strategies=("a", "b"), limits=("25%", "50%"), correct=correct, whole=whole,
        tokens=tokens, whole_tokens=100.0, margin=margin,
    )  # fmt: skip


def test_of_what_loses_nothing_the_cheapest_is_recommended():
    found = advice(a25=390, a50=390, b25=390, b50=390)
    assert (found.chosen.strategy, found.chosen.limit) == ("a", "25%")
    found = advice(a25=100, a50=390, b25=390, b50=390)
    assert (found.chosen.strategy, found.chosen.limit) == ("b", "25%")


def test_a_limit_below_one_that_failed_is_not_recommended():
    """The sequence stops: what comes below may be there by chance."""
    found = advice(a25=390, a50=300, b25=300, b50=390)
    assert (found.chosen.strategy, found.chosen.limit) == ("b", "50%")


def test_what_is_not_shown_says_what_comes_closest_and_what_it_would_take():
    found = advice(a25=300, a50=386, b25=300, b50=384)
    assert found.chosen is None
    assert (found.closest.strategy, found.closest.limit) == ("a", "50%")
    assert found.needed > 400
    assert advice(a25=100, a50=200, b25=100, b50=150).needed is None


def test_sentences_of_advice(snapshot):
    sentences = {
        "a recommendation": advice(a25=390, a50=390, b25=390, b50=390),
        "not resolved": advice(a25=300, a50=386, b25=300, b50=384),
        "worse": advice(a25=100, a50=200, b25=100, b50=150),
        "hardly anything right": advice(whole=3, a25=3, a50=3, b25=3, b50=3),
    }
    said = {name: found.sentence() for name, found in sentences.items()}
    assert text_of(said) == snapshot(extension_class=TextFile)


def test_more_strategies_need_more_evidence():
    """Zero losses of 200 show a loss of at most 2 points for one strategy, not for many."""

    def only(names):
        whole = scores(200, 200)
        return advise(
            strategies=names, limits=("50%",), correct={(n, "50%"): whole for n in names},
            whole=whole, tokens=dict.fromkeys(((n, "50%") for n in names), 1.0), whole_tokens=2.0,
        ).chosen  # fmt: skip

    assert only(["a"]) is not None
    assert only(list("abcdefg")) is None


def test_where_hardly_anything_is_right_nothing_is_recommended():
    found = advice(whole=3, a25=3, a50=3, b25=3, b50=3)
    assert found.chosen is None


def test_strategies_are_held_against_the_first_with_holms_correction():
    nan = np.array([np.nan])
    correct = {
        ("a", "25%"): np.append(scores(10, 40), nan),
        ("b", "25%"): np.append(scores(20, 40), 1.0),
        ("c", "25%"): np.append(scores(12, 40), 1.0),
    }
    b, c = contrasts(("a", "b", "c"), ("25%",), correct)
    assert (b.problems, b.lost, b.won, b.difference) == (40, 0, 10, 0.25)
    assert b.p_mcnemar == pytest.approx(2 / 2**10)
    assert b.p_holm == pytest.approx(4 / 2**10)
    assert (c.strategy, c.reference, c.won) == ("c", "a", 2)
    assert c.p_holm == c.p_mcnemar == 0.5


# --- whole runs --------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_embedded_model_loses_what_its_windows_lose(run, pytester, quick_figures):
    arguments = (*SHORT, "--context-limits=30%,60%", "--num-samples=22")
    engines = RealEngines()
    result = run(*arguments, base=EVAL, engines=engines)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["*| conversations, whole and truncated: 22 recall, 22 multi-hop, 22 word-problems |*"]
    )
    record = found(pytester)
    # The first line is the answer for all arms; each arm's own stands above its table.
    title = next(n for n, line in enumerate(result.outlines) if "conversations in a window" in line)
    shown = " ".join(" ".join(result.outlines[title + 1 :]).split())
    assert shown.startswith(f"all together: {record['recommended']['all']['sentence']}")
    advice = record["recommended"]["recall"]["sentence"]
    assert f"recall: {advice} recall, n = 22: % right" in shown
    assert record["complete"]
    assert record["turns"] == [4, 12]
    for strategy in ("newest", "system-newest"):
        one = point(record, "recall", strategy, "30%")
        assert one["if_kept"]["value"] >= 0.8
        assert one["if_lost"]["value"] <= 0.4
        assert one["if_kept"]["n"] + one["if_lost"]["n"] == 22
        # What was told last survives, what was told first does not.
        kept = [g["kept"]["value"] for g in point(record, "recall", strategy, "60%")["by_depth"]]
        assert (kept[0], kept[-1]) == (0.0, 1.0)
    # Without its system prompt the model does not show its steps, and is wrong.
    lost, kept = (point(record, "task", s, "60%") for s in ("newest", "system-newest"))
    assert lost["system_whole"]["value"] == 0.0
    assert kept["system_whole"]["value"] == 1.0
    assert kept["curve"]["accuracy"]["value"] - lost["curve"]["accuracy"]["value"] >= 0.4
    asked = {request.prompt_ids for request in engines.seen}
    assert len(asked) == len(engines.seen)
    answers = json.loads(
        (pytester.path / "reports/results/context_nano-reasoner_answers.json").read_text()
    )
    assert len(answers) == 66 * 5
    assert max(a["window"].get("tokens", 0) for a in answers if a["limit"] == "30%") < 200

    # Judged again without model or tokenizer, with fewer strategies and limits.
    result = run(
        *arguments[:1], "--truncation=newest", "--context-limits=60%", "--num-samples=22",
        base=EVAL, engines=NO_ENGINE,
    )  # fmt: skip
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*all traces are in*", "*no token: all were stored*"])
    again = point(found(pytester), "recall", "newest", "60%")
    assert again == point(record, "recall", "newest", "60%")


def test_the_model_summarises_what_does_not_fit(run, pytester, quick_figures):
    result = run(
        "--truncation=summary", "--context-turns=12", "--context-limits=50%", "--num-samples=2",
        "-k", "recommendation", base=EVAL, engines=RealEngines(),
    )  # fmt: skip
    assert result.ret == 0
    answers = json.loads(
        (pytester.path / "reports/results/context_nano-reasoner_answers.json").read_text()
    )
    windows = [a["window"] for a in answers if a["strategy"] == "summary"]
    assert len(windows) == 6
    assert all(w["tokens"] <= round(0.5 * w["original"]) for w in windows)
    assert any(w["summary"] for w in windows)
    result.stdout.no_fnmatch_line("*summary*lack*")


def test_a_conversation_that_is_too_long_is_left_out_and_counted(run, pytester, quick_figures):
    result = run(
        "--truncation=newest", "--context-turns=2,200", "--context-limits=50%",
        "--num-samples=4", "--answer-tokens=64", base=EVAL,
        engines=Engines(lambda *given: Talker()),
    )  # fmt: skip
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*6 conversations left out: longer than a prompt may be*"])
    assert len(found(pytester)["left_out"]) == 6


def test_where_no_conversation_fits_the_tests_say_so(run, pytester, quick_figures):
    result = run(
        "--context-turns=200", "--num-samples=1", "-k", "recommendation", base=EVAL,
        engines=Engines(lambda *given: Talker()),
    )  # fmt: skip
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*no conversation of 200 turns fits*context of 2,048*"])


def test_answers_that_failed_are_missing_and_done_again(run, pytester, quick_figures):
    broken = Engines(lambda *given: Talker(lambda request: len(request.prompt_ids) % 3 == 0))
    assert run(*FAKE, base=EVAL, engines=broken).ret == 1
    record = found(pytester)
    assert record["errors"] > 0
    assert not record["complete"]
    wrong = sum(p["curve"]["outcomes"]["error"] for p in record["points"])
    assert wrong > 0
    mended = Engines(lambda *given: Talker())
    assert run(*FAKE, base=EVAL, engines=mended).ret == 0
    assert found(pytester)["errors"] == 0
    assert {len(r.prompt_ids) % 3 for r in mended.seen} == {0}


def test_over_chat_only_windows_of_messages_are_posed(run, pytester, quick_figures):
    class OverChat(Talker):
        continues = False

    engines = Engines(lambda *given: OverChat())
    result = run(*FAKE, base=EVAL, engines=engines)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["newest at 50 %: no window*, since only messages can be*"])
    assert all(request.messages for request in engines.seen)
    record = found(pytester)
    assert point(record, "recall", "newest", "50%")["no_window"] == 3
    assert point(record, "recall", "system-newest", "50%")["no_window"] == 0


def test_recordings_are_not_posed_again(run, pytester):
    problem = TASK.problems(1)[0]
    line = {
        "problem_id": problem.id, "question": problem.question, "ground_truth": problem.answer,
        "generated": "#### 2", "tokens_used": 4, "budget": 16,
    }  # fmt: skip
    (pytester.path / "r.jsonl").write_text(json.dumps(line))
    result = run("--recorded=r.jsonl", "-rs", base=EVAL, engines=NO_ENGINE)
    result.stdout.fnmatch_lines(["*what was recorded cannot be posed again*"])
    assert set(result.parseoutcomes()) <= {"skipped", "warnings"}


def test_the_example_of_the_page_works(capsys):
    page = (Path(__file__).parents[3] / "docs" / "context.md").read_text()
    code = page.split("<!-- example: code -->\n```python\n")[1].split("```")[0]
    exec(compile(code, "docs/context.md", "exec"), {})
    tokens, lost, system, room = capsys.readouterr().out.split()
    assert (lost, system) == ("0", "True")
    assert int(tokens) + int(room) == 2048
