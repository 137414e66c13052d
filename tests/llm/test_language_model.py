"""The fixture ``llm``: what it gives, what it stores, and what it refuses in one sentence."""

import pytest
from runs import NO_ENGINE, Engines, RealEngines, finish, rows, start

from pytest_tokenbudget.collection.selection import no_gpu
from pytest_tokenbudget.engines.makers import make_engine
from pytest_tokenbudget.tasks.problem import SOLVE_INSTRUCTION

pytest_plugins = ["run_fixtures", "servers"]

ASK = f"""
    MESSAGES = [
        {{"role": "system", "content": "{SOLVE_INSTRUCTION}"}},
        {{"role": "user", "content": "Nils has 3 apples and buys 4. How many apples has he?"}},
    ]
"""


@pytest.fixture
def mine(own, pytester):
    """A function: run a test file that asks for ``llm``, with the real engine unless told."""

    def run_file(body, *arguments, engines=None, **options):
        pytester.makepyfile(test_mine=ASK + body)
        engines = engines or RealEngines()
        return own("test_mine.py", *arguments, engines=engines, **options), engines

    return run_file


ANSWERED = """
    def test_answer(llm):
        output = llm.generate(MESSAGES, max_new_tokens=200, thinking=True)
        assert output.stop_reason == "eos" and not output.truncated
        assert output.answer.endswith("#### 7")
        assert "3 + 4 = 7" in output.thinking and "<think>" not in output.thinking
        assert output.text.startswith("<think>") and output.answer in output.text
        assert output.ids == tuple(llm.tokenizer.encode(output.text, add_special_tokens=False)) + (
            llm.tokenizer.eos_token_id,
        )
        assert output.seconds > 0
        assert output.prompt_tokens == llm.count(MESSAGES, thinking=True)
        assert (llm.alias, llm.device, llm.context) == ("nano-reasoner", "cpu", 2048)
        assert llm.model.config.model_type == "qwen3"
        assert next(llm.model.parameters()).device.type == "cpu"

    def test_cut(llm):
        whole = llm.generate(MESSAGES, max_new_tokens=200, thinking=True)
        output = llm.generate(MESSAGES, max_new_tokens=20, thinking=True)
        assert output.stop_reason == "length" and output.truncated
        assert output.ids == whole.ids[:20]
        # Unfinished thinking is no answer.
        assert output.answer == "" and whole.thinking.startswith(output.thinking)

    def test_plain(llm):
        output = llm.generate(MESSAGES, max_new_tokens=200)
        assert output.thinking == "" and output.answer == output.text
        assert llm.count(MESSAGES) != llm.count(MESSAGES, thinking=True)
"""


def test_answers_and_how_they_are_kept(mine, pytester):
    result, engines = mine(ANSWERED)
    result.assert_outcomes(passed=3)
    # The cut is one of the stored trace.
    assert len(engines.seen) == len(rows(pytester.path)) == 2
    assert len(engines.made) == 1
    result.stdout.no_fnmatch_line("*word-problems*")
    before = rows(pytester.path)

    # The same again: nothing is generated, and no weights are loaded.
    again, engines = mine(ANSWERED, "-k", "cut or plain")
    again.assert_outcomes(passed=2, deselected=1)
    assert engines.seen == []
    assert all(engine._model is None for engine in engines.made)
    assert rows(pytester.path) == before

    # Anew on demand.
    fresh, engines = mine(ANSWERED, "--fresh", "-k", "plain")
    fresh.assert_outcomes(passed=1, deselected=2)
    assert len(engines.seen) == 1


def test_the_same_calls_in_a_later_run_need_no_engine(mine, pytester):
    body = """
    def test_it(llm):
        assert llm.generate("Hello", max_new_tokens=8).ids and llm.count("Hello") == 16
    """
    result, engines = mine(body)
    result.assert_outcomes(passed=1)
    assert len(engines.seen) == 1
    result, _ = mine(body, engines=NO_ENGINE)
    result.assert_outcomes(passed=1)


def test_a_larger_limit_goes_on_from_what_is_there(mine, pytester):
    body = """
    def test_it(llm):
        short = llm.generate(MESSAGES, max_new_tokens=10)
        long = llm.generate(MESSAGES, max_new_tokens=30)
        assert long.ids[:10] == short.ids and len(long.ids) > 10
    """
    result, engines = mine(body)
    result.assert_outcomes(passed=1)
    assert [(len(r.prefix_ids), r.cap) for r in engines.seen] == [(0, 10), (10, 30)]
    assert len(rows(pytester.path)) == 1


def test_a_prompt_of_the_task_is_the_study_s_own(mine, pytester):
    """What phase 1 generated is not generated again for ``llm``, nor the other way round."""
    body = """
    def test_it(llm, study):
        for problem in study.problems:
            output = llm.generate(problem.messages, max_new_tokens=32)
            assert output.ids == study.traces[problem.id, 0].output_ids[:32]
    """
    result, engines = mine(body)
    result.assert_outcomes(passed=1)
    assert len(engines.seen) == len(rows(pytester.path)) == 3


def test_samples_differ_and_are_part_of_one_sequence(mine, pytester):
    body = """
    def test_it(llm):
        three = llm.generate('Hello', max_new_tokens=12, n=3)
        assert isinstance(three, tuple) and [each.sample for each in three] == [0, 1, 2]
        assert len({each.ids for each in three}) > 1
        assert llm.generate('Hello', max_new_tokens=12, n=2) == three[:2]
        [one] = llm.generate('Hello', max_new_tokens=12, n=1, temperature=0.7, top_p=0.9)
        assert one == three[0]
        others = llm.generate('Hello', max_new_tokens=12, n=3, seed=5)
        assert {each.ids for each in others} != {each.ids for each in three}
    """
    result, engines = mine(body)
    result.assert_outcomes(passed=1)
    assert len(engines.seen) == 6


def test_many_prompts_side_by_side(mine, pytester):
    body = """
    def test_it(llm):
        prompts = ["Hello", MESSAGES, "Hello", "Goodbye"]
        found = llm.generate_batch(prompts, max_new_tokens=6)
        assert [len(each) for each in found] == [1, 1, 1, 1]
        assert found[0] == found[2] and found[1][0] == llm.generate(MESSAGES, max_new_tokens=6)
        assert llm.generate_batch([]) == []
    """
    result, engines = mine(body)
    result.assert_outcomes(passed=1)
    assert len(engines.seen) == 3


def test_stop_texts_end_an_output_and_are_another_trace(mine, pytester):
    body = """
    def test_it(llm):
        whole = llm.generate(MESSAGES, max_new_tokens=40)
        output = llm.generate(MESSAGES, max_new_tokens=40, stop="Nils")
        assert output.stop_reason == "stop" and not output.truncated
        assert "Nils" in output.text and whole.text.startswith(output.text) and whole != output
    """
    result, _ = mine(body)
    result.assert_outcomes(passed=1)


def test_without_a_limit_the_largest_budget_counts_or_the_room_there_is(mine, pytester):
    body = """
    def test_it(llm):
        assert llm.generate("Hello").max_new_tokens == 32
    """
    result, _ = mine(body)
    result.assert_outcomes(passed=1)
    body = """
    def test_it(llm):
        output = llm.generate("Hello", thinking=True)
        assert output.max_new_tokens == llm.context - output.prompt_tokens
    """
    result, _ = mine(body, engines=Engines(), budgets="2047")
    result.assert_outcomes(passed=1)


REFUSED = [
    (
        "max_new_tokens=1.5",
        "max_new_tokens must be a whole number of at least 1, not the number 1.5",
    ),
    ("max_new_tokens=True", "max_new_tokens must be a whole number of at least 1, not the boolean"),
    ("max_new_tokens=0", "max_new_tokens must be a whole number of at least 1, not the number 0"),
    ("max_new_tokens='9'", "max_new_tokens must be a whole number of at least 1, not the string"),
    (
        "max_new_tokens=4000",
        "no room for max_new_tokens=4,000: the prompt has 2 tokens, and nano-r",
    ),
    ("thinking=1", "thinking must be True, False or None, not the number 1"),
    ("thinking='on'", "thinking must be True, False or None, not the string 'on'"),
    ("n=0", "n must be a whole number from 1 to 1,000, not the number 0"),
    ("n=True", "n must be a whole number from 1 to 1,000, not the boolean true"),
    ("n=2, temperature=0", "n=2: at temperature 0 all samples are the same; give a temperature"),
    ("temperature=-1", "temperature must be a number from 0 to 10, not the number -1"),
    ("temperature=float('nan')", "temperature must be a number from 0 to 10, not the number nan"),
    ("top_p=None, temperature='hot'", "temperature must be a number from 0 to 10, not the string"),
    ("top_p=2", "top_p must be a number from 0.001 to 1, not the number 2"),
    ("seed=-1", "seed must be a whole number from 0 to"),
    ("stop=3", "stop must be a text or a list of texts, not the number 3"),
    ("stop=['']", "stop: each text must have at least one character"),
]
NO_PROMPTS = [
    (
        "None",
        "the prompt must be a text, or a list of chat messages with role and content, not None",
    ),
    (
        "[]",
        "the prompt must be a text, or a list of chat messages with role and content, not an emp",
    ),
    (
        "1.5",
        "the prompt must be a text, or a list of chat messages with role and content, not the n",
    ),
    ("['Hi']", "message 1 of the prompt must be a dict with role and content, not the string 'Hi'"),
    ("[{'role': 'user'}]", "message 1 of the prompt: content must be a text, not None"),
    ("{'role': 'user', 'content': 'x'}", "the prompt must be a text, or a list of chat messages"),
    (
        "[{'role': 'user', 'content': ['x']}]",
        "message 1 of the prompt: content must be a text, not a",
    ),
    ("''", "the prompt must have text for the model to answer, not the string ''"),
    ("' \\n'", "the prompt must have text for the model to answer, not the string ' \\n'"),
    (
        "[{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': ''}]",
        "message 2 of the prompt, its last, must have text for the model to answer, not the string",
    ),
    (
        "[{'role': 'usr', 'content': 'x'}]",
        "message 1 of the prompt: role must be one of system, developer, user, assistant, tool",
    ),
    (
        "[{'role': '', 'content': 'x'}]",
        "message 1 of the prompt: role must be one of system, developer, user, assistant, tool",
    ),
    ("'x ' * 3000", "no room for an answer: the prompt has"),
]


def test_what_cannot_be_used_is_refused_in_a_sentence(mine, pytester):
    calls = [f"'Hi', {arguments}" for arguments, _ in REFUSED] + [text for text, _ in NO_PROMPTS]
    tests = "".join(
        f"\n    def test_{number}(llm):\n        llm.generate({call})\n"
        for number, call in enumerate(calls)
    )
    result, engines = mine(tests, "--tb=short", engines=Engines())
    result.assert_outcomes(failed=len(calls))
    assert engines.seen == []
    shown = [line for line in result.outlines if line.startswith("E  ")]
    assert len(shown) == len(calls)
    for line, (_, sentence) in zip(shown, [*REFUSED, *NO_PROMPTS], strict=True):
        assert f"LanguageModelError: {sentence}" in line
    # Only the user's own line is shown of the way there.
    result.stdout.no_fnmatch_line("*language_model.py:*")


def test_an_engine_that_fails_is_said_and_not_asked_again(mine, pytester):
    from pytest_tokenbudget.core.engine import EngineError

    def broken(*given):
        raise EngineError("model nano-reasoner: out of luck")

    body = """
    import pytest

    @pytest.mark.parametrize("number", range(3))
    def test_it(llm, number):
        llm.generate(f"Hello {number}", max_new_tokens=8)
    """
    engines, calls = Engines(broken), []
    engines._make = lambda *given: (calls.append(given), broken())[0]
    result, _ = mine(body, "--tb=short", engines=engines)
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(["E  *LanguageModelError: model nano-reasoner: out of luck"])
    assert len(calls) == 1


def test_models_that_cannot_switch_their_thinking(mine, pytester):
    (pytester.path / "tokenbudget.toml").write_text(
        '[models.plain]\nbase = "nano-reasoner"\nthinking = false\n'
        '[models.always]\nbase = "nano-reasoner"\nthinking = "deepseek-r1"\n'
    )
    body = """
    def test_on(llm):
        llm.generate("Hi", max_new_tokens=4, thinking=True)

    def test_off(llm):
        llm.generate("Hi", max_new_tokens=4, thinking=False)
    """
    result, _ = mine(body, "--model=plain,always", "--tb=short")
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        [
            "E *thinking=True: plain is not known to think; leave thinking out, or set*",
            "E *thinking=False: always always thinks, its chat template has no switch for it; *",
        ]
    )


def test_recorded_generations_answer_no_new_prompt(mine, run, pytester):
    run(engines=Engines()).assert_outcomes(passed=3)
    body = "\n    def test_it(llm):\n        assert llm.generate('Hi')\n"
    result, _ = mine(
        body, "--recorded=reports/results", "--reports=again", "-rs", engines=NO_ENGINE
    )
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED * --recorded: recorded generations cannot answer new *"])


@pytest.mark.parametrize("option", ["--collect-only", "--setup-plan", "--setup-only"])
def test_nothing_is_loaded_before_a_test_runs(mine, pytester, option):
    body = "\n    def test_it(llm):\n        assert llm.generate('Hi')\n"
    result, _ = mine(body, option, engines=NO_ENGINE)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*nano-reasoner*"])


def test_a_dry_run_names_what_it_cannot_count(mine, pytester):
    body = "\n    def test_it(llm):\n        assert llm.generate('Hi')\n"
    result, _ = mine(body, "--dry-run", engines=NO_ENGINE)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*llm: what tests generate with this fixture is known only when*"])


@pytest.mark.slow
def test_workers_share_the_answers(pytester, no_worker):
    pytester.makepyfile(
        test_mine="""
    import pytest

    @pytest.mark.parametrize("number", range(6))
    def test_it(llm, number):
        one = llm.generate(f"Hello {number % 3}", max_new_tokens=6)
        assert len(one.ids) <= 6 and llm.generate(f"Hello {number % 3}", max_new_tokens=6) == one
    """
    )
    code, text = finish(start(pytester.path, "-n2", "-q", "test_mine.py"))
    assert code == 0, text
    assert "6 passed" in text
    assert len(rows(pytester.path)) == 3


# Servers


SERVED = """
    import pytest

    def test_it(llm):
        output = llm.generate(MESSAGES, max_new_tokens=200, thinking=True)
        assert output.answer.endswith("#### 7") and "3 + 4 = 7" in output.thinking
        short = llm.generate(MESSAGES, max_new_tokens=12, thinking=True)
        assert short.truncated and short.answer == "" and len(short.ids) == 12
        assert llm.count(MESSAGES) > 10 and llm.device == "server"
        with pytest.raises(ValueError, match="llm.model: .* runs on a server and is not in this"):
            llm.model
        assert llm.tokenizer.encode("Nils")
"""


def test_a_server_answers_alike(mine, serve_server, pytester):
    arguments = (f"--base-url={serve_server.url}", "--model=nano-reasoner")
    result, _ = mine(SERVED, *arguments, engines=Engines(make_engine))
    result.assert_outcomes(passed=1)
    assert len(rows(pytester.path)) == 1


# The marker gpu


MARKED = """
    import pytest

    @pytest.mark.gpu
    def test_it():
        raise AssertionError("it ran")
"""


@pytest.mark.parametrize(
    ("gpus", "options", "reason"),
    [
        ([], [], "needs a GPU: no CUDA device is visible"),
        (["0"], ["--device=cpu"], "needs a GPU: --device is cpu"),
        (["0"], [], None),
        ([], ["--device=mps"], None),
    ],
)
def test_the_marker_gpu_skips_with_its_reason(own, pytester, monkeypatch, gpus, options, reason):
    monkeypatch.setattr("pytest_tokenbudget.collection.selection.visible_gpus", lambda: gpus)
    pytester.makepyfile(test_mine=MARKED)
    result = own("test_mine.py", "-rs", *options)
    if reason is None:
        result.assert_outcomes(failed=1)
    else:
        result.assert_outcomes(skipped=1)
        result.stdout.fnmatch_lines([f"SKIPPED * {reason}"])


def test_a_project_s_own_marker_gpu_keeps_its_meaning(own, pytester, monkeypatch):
    monkeypatch.setattr("pytest_tokenbudget.collection.selection.visible_gpus", list)
    pytester.makepyfile(test_mine=MARKED)
    pytester.makeini("[pytest]\nmarkers =\n    gpu(kind): ours, which has its own rules\n")
    own("test_mine.py").assert_outcomes(failed=1)


def test_a_run_on_the_cpu_is_on_no_gpu(monkeypatch):
    from types import SimpleNamespace

    monkeypatch.setattr("pytest_tokenbudget.collection.selection.visible_gpus", lambda: ["0"])
    assert no_gpu(SimpleNamespace(device="cuda:0")) == ""
