"""Settings of a model's own: read from its entry, below what the user chooses, and named."""

import pytest
from runs import Engines, answers, combined

from pytest_tokenbudget.models.catalogue import MODEL_OPTIONS
from pytest_tokenbudget.models.resolution import ModelError, load_catalogue
from pytest_tokenbudget.settings.config_file import UserConfig, budgets_of_entries

pytest_plugins = ["run_fixtures"]

ENTRY = """
[models.mine]
base = "nano-reasoner"

[models.mine.generation]
budgets = [24, 8]
temperature = 0.6
thinking = true
"""


def entries(**models):
    from pathlib import Path

    return load_catalogue(config=UserConfig(Path("t.toml"), "t.toml", models=models))


def test_values_are_parsed_as_those_of_options():
    table = {
        "budgets": [64, 32],
        "sample_budgets": 512,
        "cliff_budgets": [16, 32],
        "thinking_budgets": [0, 64],
        "modes": ["conservative", "disabled"],
        "max_thinking_tokens": 100,
        "answer_tokens": 50,
        "thinking": True,
        "temperature": 1,
        "top_p": 0.5,
    }
    assert {*table, "thinking_modes"} == MODEL_OPTIONS.keys()
    found = dict(entries(mine={"base": "nano-reasoner", "generation": table})["mine"].generation)
    assert found == {
        "budgets": (32, 64),
        "sample_budgets": (512,),
        "cliff_budgets": (16, 32),
        "thinking_budgets": (0, 64),
        "modes": ("conservative", "disabled"),
        "max_thinking_tokens": 100,
        "answer_tokens": 50,
        "thinking": True,
        "temperature": 1.0,
        "top_p": 0.5,
    }


@pytest.mark.parametrize("key", ["modes", "thinking_modes"])
def test_modes_are_those_of_the_option_by_its_former_name_too(key):
    table = {key: ["off", "on", "conservative"]}
    found = entries(mine={"base": "nano-reasoner", "generation": table})["mine"].generation
    assert dict(found) == {"modes": ("off", "on", "conservative")}


def test_a_base_hands_its_settings_on():
    found = entries(
        first={"base": "nano-reasoner", "generation": {"budgets": [16], "top_p": 0.9}},
        second={"base": "first", "generation": {"top_p": 0.5}},
        third={"path": "elsewhere"},
    )
    assert dict(found["second"].generation) == {"budgets": (16,), "top_p": 0.5}
    assert found["third"].generation == found["nano-reasoner"].generation == ()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"budget": [1]}, "generation has the unknown key 'budget', did you mean 'budgets'"),
        (
            {"budgets": [64, 0]},
            "generation.budgets cannot hold the number 0; allowed: token counts",
        ),
        (
            {"budgets": [1.5]},
            "generation.budgets cannot hold the number 1.5; allowed: token counts",
        ),
        ({"budgets": []}, "generation.budgets cannot be an empty array; allowed: token counts"),
        ({"budgets": [[64]]}, "generation.budgets cannot hold an array; allowed: token counts"),
        ({"budgets": "64,x"}, "generation.budgets cannot be the string 'x'; allowed: token counts"),
        ({"sample_budgets": [8, "a"]}, "sample_budgets cannot hold the string 'a'; allowed: token"),
        ({"cliff_budgets": [8, True]}, "cliff_budgets cannot hold the boolean true; allowed: tok"),
        ({"thinking_budgets": [0, -1]}, "thinking_budgets cannot hold the number -1; allowed: tok"),
        ({"temperature": [0.6]}, "temperature cannot be an array; allowed: a number from 0 to 10"),
        ({"thinking": ["on"]}, "thinking cannot be an array; allowed: on, off"),
        ({"temperature": "hot"}, "temperature cannot be the string 'hot'; allowed: a number from"),
        ({"temperature": True}, "temperature cannot be the boolean true; allowed: a number from"),
        ({"thinking": 2}, "thinking cannot be the number 2; allowed: on, off"),
        (
            {"modes": ["on", "balance"]},
            "generation.modes cannot hold the string 'balance'; allowed: off, on, auto, .*"
            "did you mean 'balanced'",
        ),
        (
            {"thinking_modes": ["nope", "on", 3]},
            "thinking_modes cannot hold the string 'nope' and the number 3; allowed: off, on, ",
        ),
        (
            {"modes": ["on"], "thinking_modes": ["off"]},
            "generation: modes and thinking_modes are one setting: keep one",
        ),
        ({"top_p": {}}, "top_p cannot be a table; allowed: a number from 0.001 to 1"),
        ({"cliff_budgets": [16]}, "cliff_budgets: 16 alone has no step"),
        ([1], "generation must be a table, such as .*, not an array"),
    ],
)
def test_what_cannot_be_is_named_with_its_place(table, message):
    with pytest.raises(ModelError, match=message) as refused:
        entries(mine={"base": "nano-reasoner", "generation": table})
    assert str(refused.value).startswith("t.toml: models.mine: generation")


def test_budgets_that_gates_may_name():
    assert budgets_of_entries({"a": {"generation": {"budgets": [8, "x"]}}, "b": 3}) == {8}


@pytest.fixture
def entered(pytester):
    (pytester.path / "tokenbudget.toml").write_text(ENTRY)
    return pytester.path


@pytest.mark.usefixtures("quick_figures")
def test_an_entry_stands_above_the_defaults_and_is_named(pytester, entered, no_worker, warm):
    from runs import SUITE

    engines = Engines()
    result = pytester.runpytest_inprocess(
        *SUITE, "--model=mine,nano-reasoner", "--num-samples=2", "-v", "--min-accuracy=8:0",
        plugins=[engines],
    )  # fmt: skip
    result.stdout.fnmatch_lines(
        [
            "*test_accuracy_at_budget?mine-8?*",
            "*test_accuracy_at_budget?mine-24?*",
            "*test_accuracy_at_budget?nano-reasoner-32?*",
        ]
    )
    result.stdout.fnmatch_lines(
        ["tokenbudget: mine = * thinking | temperature 0.6, * from the model's entry: budgets, *"]
    )
    result.stdout.no_fnmatch_line("tokenbudget: nano-reasoner = *from the model's entry*")
    assert {request.cap for request in engines.seen if request.thinking} == {24}
    mine = combined(entered, "mine+thinking")
    assert mine["budgets"] == [8, 24]
    assert mine["decoding"]["temperature"] == 0.6
    assert mine["settings"]["budgets"] == [8, 24]
    assert set(mine["settings"]["from_model_entry"]) == {"budgets", "temperature", "thinking"}
    other = combined(entered)
    assert other["settings"]["from_model_entry"] == []
    assert other["decoding"]["temperature"] == 0


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["--temperature=0", "--budgets=16", "--thinking=off"], ""),
        ([], 'temperature = 0\nbudgets = [16]\nthinking = "off"\n'),
    ],
)
@pytest.mark.usefixtures("quick_figures")
def test_what_the_user_chooses_wins(pytester, entered, no_worker, warm, arguments, settings):
    from runs import SUITE

    (entered / "tokenbudget.toml").write_text(settings + ENTRY)
    engines = Engines()
    result = pytester.runpytest_inprocess(
        *SUITE, "--model=mine", "--num-samples=2", *arguments, plugins=[engines]
    )
    result.assert_outcomes(passed=2)
    result.stdout.no_fnmatch_line("*from the model's entry*")
    assert {request.cap for request in engines.seen} == {16}
    assert len(answers(entered, 16, "mine")) == 2
    assert combined(entered, "mine")["decoding"]["temperature"] == 0


def test_the_fixture_llm_follows_the_entry(pytester, entered, no_worker, warm):
    from runs import QUIET

    pytester.makepyfile(
        test_mine="""
    def test_it(llm):
        output = llm.generate("Hi")
        assert output.max_new_tokens == 24
        assert llm.count("Hi") == llm.count("Hi", thinking=True)
    """
    )
    engines = Engines()
    result = pytester.runpytest_inprocess(*QUIET, "--model=mine", plugins=[engines])
    result.assert_outcomes(passed=1)


def test_budgets_that_do_not_fit_are_those_of_the_entry(pytester, no_worker):
    (pytester.path / "tokenbudget.toml").write_text(
        '[models.mine]\nbase = "nano-reasoner"\n[models.mine.generation]\nbudgets = [4096]\n'
    )
    result = pytester.runpytest_inprocess("--model=mine")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: budgets in the entry of the model: 4096 cannot be used *"])


def test_a_temperature_of_0_has_no_samples(pytester, no_worker, warm):
    (pytester.path / "tokenbudget.toml").write_text(
        '[models.mine]\nbase = "nano-reasoner"\n[models.mine.generation]\ntemperature = 0\n'
    )
    pytester.makepyfile("def test_it(stochastic_study): ...")
    result = pytester.runpytest_inprocess("--model=mine", "--num-samples=2", plugins=[Engines()])
    result.stdout.fnmatch_lines(["*temperature in the entry of the model: 0 cannot be used with*"])
