"""The YAML form of generation settings: read, refused, written, read again."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from runs import Engines

from pytest_tokenbudget.settings.config_file import ConfigError
from pytest_tokenbudget.settings.generation_config import (
    FRAMINGS,
    GivenOption,
    WrittenLimit,
    generation_config_text,
    read_generation_config,
)

pytest_plugins = ["run_fixtures"]

WHOLE = """
llm:
  generation_config:
    max_new_tokens: 440
    enable_thinking: no
    temperature: 0.7
    top_p: 0.9
    do_sample: true
data:
  batch_size: 8
emotions:
  anger: {max_new_tokens: 1800}
categories:
  sequential: {max_new_tokens: 1200}
"""


@pytest.fixture
def read(tmp_path):
    def of(text):
        path = tmp_path / "limits.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_generation_config(path)

    return of


def test_all_of_the_form_is_read(read, tmp_path):
    found = read(WHOLE)
    assert found.path == tmp_path / "limits.yaml"
    assert found.max_new_tokens == 440
    assert found.limits == {"framing": {"anger": 1800}, "category": {"sequential": 1200}}
    assert found.options == {
        "thinking": GivenOption("off", "llm.generation_config.enable_thinking"),
        "temperature": GivenOption("0.7", "llm.generation_config.temperature"),
        "top_p": GivenOption("0.9", "llm.generation_config.top_p"),
        "batch_size": GivenOption("8", "data.batch_size"),
    }


def test_one_limit_for_all_is_the_largest(read):
    found = read("llm: {generation_config: {max_new_tokens: 440}}")
    assert (found.largest, found.budgets((128, 512))) == (440, (128, 440))


def test_the_larger_limit_of_a_problem_counts(read):
    found = read(WHOLE)
    assert found.limit_of({"framing": "neutral", "category": "simultaneous"}) == 440
    assert found.limit_of({"framing": "neutral", "category": "sequential"}) == 1200
    assert found.limit_of({"framing": "anger", "category": "sequential"}) == 1800
    assert found.largest == 1800
    assert found.budgets((32, 512, 1800, 2048)) == (32, 440, 512, 1800)
    # A limit for some says nothing of the others.
    some = read("emotions: {anger: {max_new_tokens: 9}}")
    assert (some.largest, some.limit_of({"framing": "fear"})) == (None, None)
    assert some.budgets((32, 64)) == (32, 64)


@pytest.mark.parametrize(
    ("said", "temperature"),
    [
        ("{temperature: 0.7}", "0.7"),
        ("{temperature: 0.7, do_sample: false}", "0"),
        ("{do_sample: true}", "1.0"),
        ("{do_sample: true, temperature: 0.5}", "0.5"),
    ],
)
def test_not_sampled_is_greedy(read, said, temperature):
    found = read(f"llm: {{generation_config: {said}}}")
    assert found.options["temperature"].text == temperature


@pytest.mark.parametrize("text", ["", "# nothing\n", "llm:\ndata:\n", "llm: {generation_config: }"])
def test_an_empty_file_says_nothing(read, text):
    found = read(text)
    assert (found.largest, found.options) == (None, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "llm: {generation_config: {max_new_token: 3}}",
            "key llm.generation_config.max_new",
        ),
        ("llm: {generation_config: {max_new_token: 3}}", "did you mean max_new_tokens?"),
        ("max_new_tokens: 3", r"max_new_tokens \(its place is llm.generation_config\)"),
        ("llm: {batch_size: 3}", r"unknown key llm.batch_size \(its place is data\)"),
        ("lmm: {}", r"unknown key lmm \(did you mean llm\?\); allowed are llm, data, emotions"),
        ("emotions: {angre: {max_new_tokens: 3}}", r"emotions.angre \(did you mean anger\?\)"),
        ("emotions: {anger: 3}", "emotions.anger must be a mapping of max_new_tokens, not the num"),
        ("emotions: {anger: {}}", "emotions.anger: max_new_tokens is missing"),
        ("categories: {a: {max_new_tokens: 0}}", "categories.a.max_new_tokens must be a whole"),
        ("categories: {no: {max_new_tokens: 1}}", "the boolean false is no name; write it in quo"),
        ("llm: {generation_config: {max_new_tokens: true}}", "not the boolean true"),
        ("llm: {generation_config: {max_new_tokens: 1e3}}", "not the string '1e3'"),
        ("llm: {generation_config: {max_new_tokens: }}", "at least 1, not nothing"),
        ("llm: {generation_config: {enable_thinking: 1}}", "must be true or false, not the number"),
        (
            "llm: {generation_config: {temperature: warm}}",
            "temperature must be a number, not",
        ),
        (
            "llm: {generation_config: {temperature: 0, do_sample: true}}",
            "temperature: 0 cannot be used with do_sample: true",
        ),
        ("data: {batch_size: 1.5}", "data.batch_size must be auto, or a whole number, not the"),
        ("- 1", "the file must hold a mapping of llm, data, emotions, categories, not a list"),
        ("llm: [", "limits.yaml, line 1, column 7: "),
        ("llm:\nllm:\n", "limits.yaml, line 2, column 1: the key 'llm' is there twice"),
        ("a: !!python/object:os.system {}", "could not determine a constructor"),
        (b"\xff\xfe\x00", "not UTF-8"),
        ("a: \x01", "not YAML"),
        ("[" * 3000, "limits.yaml"),
    ],
)
def test_what_does_not_belong_is_named_with_file_and_key(read, text, message):
    with pytest.raises(ConfigError, match=message) as refused:
        read(text)
    assert "limits.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_is_none(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_generation_config(tmp_path / name)


GUIDE = """
llm:
  model_name: org/some-model
  generation_config:
    max_new_tokens: 440
    enable_thinking: false
    temperature: 0.7
    top_p: 0.9
    top_k: 20
    do_sample: true
data:
  datasets: [a, b]
  datasets: [c]
  batch_size: 8
  batch_size: 4
  batch_size: 2
emotions:
  anger: {max_new_tokens: 1800, icon: red}
output: {folder: results}
output: {folder: again}
"""


def test_what_others_keep_beside_it_is_ignored_and_named(read):
    found = read(GUIDE)
    assert (found.max_new_tokens, found.limits["framing"]) == (440, {"anger": 1800})
    assert found.options["temperature"].text == "0.7"
    # As their YAML loaders do; three lines are choices for short, long and very long answers.
    assert found.options["batch_size"].text == "2"
    assert found.remarks == (
        "ignored, since nothing here reads it: output, llm.model_name, "
        "llm.generation_config.top_k, data.datasets, emotions.anger.icon; --model says "
        "which model runs",
        "data.batch_size is there 3 times (lines 14, 15, 16): the last one is used, 2",
    )


def test_a_file_of_this_form_has_no_remarks(read):
    assert read(WHOLE).remarks == ()


@pytest.mark.parametrize("quiet", [(), ("-q",)])
@pytest.mark.usefixtures("quick_figures")
def test_a_run_names_what_it_ignores(run, pytester, quiet):
    (pytester.path / "theirs.yaml").write_text(GUIDE)
    result = run("--generation-config=theirs.yaml", *quiet, engines=Engines())
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "tokenbudget: theirs.yaml: ignored, since nothing here reads it: output,",
            "  llm.model_name, llm.generation_config.top_k, data.datasets,*",
            "tokenbudget: theirs.yaml: data.batch_size is there 3 times (lines 14, 15, 16):*",
        ]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("llm: {generation_config: {top_p: 1, top_p: 0.5}}", "key 'top_p' is there twice"),
        ("emotions: {anger: {max_new_tokens: 1}, anger: {max_new_tokens: 2}}", "'anger' is there"),
        ("emotions:\n  anger: {max_new_tokens: 1}\nemotions: {}", "line 3, column 1: the key 'em"),
        ("data: {batch_size: 4, batch_size: two}", "data.batch_size must be auto, or a whole n"),
        ("llm: {generation_config: {temprature: 1}}", "did you mean temperature"),
        ("data: {batch_sizes: 1}", "unknown key data.batch_sizes .did you mean batch_size"),
        ("model: x\nepochs: 3", "unknown key model.*; allowed are llm, data, emotions, categories"),
    ],
)
def test_what_decides_outputs_is_never_guessed(read, text, message):
    with pytest.raises(ConfigError, match=message):
        read(text)


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@given(
    st.dictionaries(st.sampled_from(FRAMINGS), st.integers(1, 10**6)),
    st.dictionaries(names, st.integers(1, 10**6), max_size=4),
    st.lists(names, max_size=2),
    st.integers(1, 10**6),
)
def test_written_settings_are_read_again(tmp_path_factory, emotions, categories, about, limit):
    text = generation_config_text(
        {"max_new_tokens": limit, "temperature": 0.25},
        data={"batch_size": "auto"},
        limits={
            "emotions": {name: WrittenLimit(tokens) for name, tokens in emotions.items()},
            "categories": {name: WrittenLimit(t, f"as {name}") for name, t in categories.items()},
        },
        about=about,
    )
    path = tmp_path_factory.mktemp("written") / "form.yaml"
    path.write_text(text, encoding="utf-8")
    found = read_generation_config(path)
    assert found.max_new_tokens == limit
    assert found.limits.get("framing", {}) == emotions
    assert found.limits.get("category", {}) == categories
    assert found.options["batch_size"].text == "auto"
    assert len(about) == 0 or text.startswith("# ")
    assert yaml.safe_load(text)["llm"] == {
        "generation_config": {"max_new_tokens": limit, "temperature": 0.25}
    }


def test_the_form_in_the_docs_can_be_read(read):
    page = (Path(__file__).parents[2] / "docs" / "scenarios.md").read_text(encoding="utf-8")
    [form] = re.findall(r"<!-- form -->\n```yaml\n(.*?)```", page, re.S)
    assert read(form).limits == read(WHOLE).limits
    assert read(form).options == read(WHOLE).options
