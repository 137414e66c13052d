"""The public Python API: the examples of docs/python.md, and what is refused in one sentence."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_tokenbudget
from pytest_tokenbudget import (
    Chat,
    ContextWindow,
    Detokenizer,
    Recipe,
    RecipeError,
    extract_eos_ids,
    generation_cap,
    load_gguf_tokenizer,
    load_results,
    named_strategy,
    prompt_room,
)
from pytest_tokenbudget.context.window import ContextError
from pytest_tokenbudget.recipes.recipe import parse_recipe, resolve_recipe
from pytest_tokenbudget.settings.context_limits import ContextLimit

pytest_plugins = ["servers"]

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
EXAMPLES = re.findall(
    r"<!-- example: python -->\n```python\n(.*?)```\n\n<!-- output -->\n```\n(.*?)```",
    PAGE.read_text(encoding="utf-8"),
    re.S,
)


@pytest.mark.parametrize(("code", "output"), EXAMPLES)
def test_the_examples_of_the_page_print_what_it_says(
    code, output, embedded_gguf, tmp_path, monkeypatch, capsys
):
    (tmp_path / "model.gguf").symlink_to(embedded_gguf)
    (tmp_path / "reports").symlink_to(PAGE.parents[1] / "tests" / "data" / "reports_schema1")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/python.md", "exec"), {})
    assert capsys.readouterr().out == output


def test_every_public_name_is_on_the_page():
    text = PAGE.read_text(encoding="utf-8")
    for name in pytest_tokenbudget.__all__:
        assert getattr(pytest_tokenbudget, name)
        assert re.search(rf"\b{name}\b", text), name
    assert set(pytest_tokenbudget.__all__) <= set(dir(pytest_tokenbudget))
    with pytest.raises(AttributeError, match="has no attribute 'Recipes'"):
        pytest_tokenbudget.Recipes  # noqa: B018


def test_the_package_itself_loads_nothing():
    code = (
        "import sys; before = set(sys.modules); import pytest_tokenbudget;"
        "print(sorted(set(sys.modules) - before))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "pytest_tokenbudget." not in shown
    assert "torch" not in shown


# What is no value: none of these is taken for a number, a text, or each other.
NO_NUMBERS = (None, 1.5, True, "4", [4], float("nan"))
NO_TEXTS = (None, 1.5, True, "", "  ", ["a"])
GOOD = {"id": "m", "model_path": "Qwen/Qwen3-8B"}


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 250
    return text


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_a_recipe_s_numbers(value):
    for key in ("answer_tokens", "max_thinking_tokens"):
        if key == "max_thinking_tokens" and value is None:
            continue  # none is set
        with pytest.raises(RecipeError) as error:
            Recipe(**GOOD, **{key: value})
        assert one_sentence(error).startswith(f"{key} must be a whole number of at least ")


@pytest.mark.parametrize("value", [True, "0.7", [1], float("nan"), -1, 11])
def test_a_recipe_s_sampling(value):
    for key in ("temperature", "top_p"):
        with pytest.raises(RecipeError, match=f"^{key} must be a number from 0 to 1"):
            Recipe(**GOOD, **{key: value})


@pytest.mark.parametrize("value", NO_TEXTS)
def test_a_recipe_s_texts(value):
    for key in ("id", "model_path", "backend", "thinking_mode"):
        with pytest.raises(RecipeError) as error:
            Recipe(**GOOD | {key: value})
        assert one_sentence(error).startswith(f"{key} must be a text that is not empty, not ")


def test_a_recipe_in_python_is_that_of_a_file():
    with pytest.raises(RecipeError, match="unknown backend 'ollama'; allowed are vllm, sglang"):
        Recipe(**GOOD, backend="ollama")
    with pytest.raises(RecipeError, match="unknown thinking mode 'fast'"):
        Recipe(**GOOD, thinking_mode="fast")
    made = Recipe(**GOOD, max_thinking_tokens=0, temperature=1)
    assert made == parse_recipe({**GOOD, "max_thinking_tokens": 0, "temperature": 1.0}, "r.toml")
    assert (made.name, made.temperature) == ("m", 1.0)
    assert resolve_recipe(made).tokens == 0
    # JSON says null for what is left out.
    assert parse_recipe({**GOOD, "max_thinking_tokens": None}, "r.json") == Recipe(**GOOD)
    with pytest.raises(RecipeError, match=r"r\.json: model_path is missing"):
        parse_recipe({"id": "m", "model_path": None}, "r.json")


@pytest.fixture(scope="module")
def chat():
    class Rendered:
        ids = (1, 2, 3, 4, 5, 6)
        text = "abcdef"

    return Chat(lambda messages: Rendered(), lambda ids: "".join(chr(96 + i) for i in ids))


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_limits_of_windows(value, chat):
    newest, messages = named_strategy("newest"), [{"role": "user", "content": "x"}]
    calls = {
        "context": [lambda: prompt_room(value), lambda: generation_cap(value, 1, 1)],
        "used": [lambda: generation_cap(100, value, 1)],
        "limit": [
            lambda: ContextWindow.of_ids((1, 2), limit=value, strategy=newest),
            lambda: ContextWindow.of_messages(messages, chat, limit=value, strategy=newest),
            lambda: ContextWindow.of_document("a", "b", chat, limit=value, strategy=newest),
        ],
        "ids[1]": [lambda: ContextWindow.of_ids([1, value], limit=0, strategy=newest)],
        "max_new": [lambda: generation_cap(100, 1, value)],
    }
    if value is not None:
        calls["max_new"].append(lambda: prompt_room(100, value))
        calls["context"] += [
            lambda: ContextWindow.of_ids((1,), limit=0, strategy=newest, context=value),
            lambda: ContextWindow.of_messages(
                messages, chat, limit=0, strategy=newest, context=value
            ),
        ]
    for name, refused in calls.items():
        for call in refused:
            with pytest.raises(ContextError) as error:
                call()
            assert one_sentence(error).startswith(f"{name} must be a whole number")


@pytest.mark.parametrize("value", [None, 1.5, True])
def test_other_parts_of_windows(value, chat):
    newest, messages = named_strategy("newest"), [{"role": "user", "content": "x"}]
    for call, words in [
        (lambda: ContextWindow.of_ids(value, limit=0, strategy=newest), "ids must be a list of "),
        (lambda: ContextWindow.of_ids("ab", limit=0, strategy=newest), "ids must be a list of tok"),
        (lambda: ContextWindow.of_ids([1], limit=0, strategy=value), "strategy must be what name"),
        (lambda: ContextWindow.of_messages(value, chat, limit=0, strategy=newest), "messages must"),
        (
            lambda: ContextWindow.of_messages([value], chat, limit=0, strategy=newest),
            "message 1 must be a mapping",
        ),
        (
            lambda: ContextWindow.of_messages(
                [{"role": "user", "content": value}], chat, limit=0, strategy=newest
            ),
            "message 1: content must be a text, not ",
        ),
        (
            lambda: ContextWindow.of_messages(messages, value, limit=0, strategy=newest),
            "chat must be a Chat, not ",
        ),
        (
            lambda: ContextWindow.of_messages(messages, chat, limit=0, strategy=value),
            "strategy must be what named_strategy(",
        ),
        (
            lambda: ContextWindow.of_document(value, "q", chat, limit=0, strategy=newest),
            "document must be a text, not ",
        ),
        (lambda: named_strategy(value), "the name of a strategy must be a text, not "),
        (lambda: ContextLimit.read(value), "a context limit is read from a text, not from "),
    ]:
        with pytest.raises(ContextError) as error:
            call()
        assert one_sentence(error).startswith(words)
    with pytest.raises(ContextError, match=r"what named_strategy\('newest', 'first' or 'ends'\)"):
        ContextWindow.of_ids([1], limit=0, strategy=named_strategy("system-newest"))


@pytest.mark.parametrize("value", [None, 1.5, True])
def test_detokeniser_and_tokenizers(value):
    for call, words in [
        (lambda: Detokenizer(value), "decode must be a function of token ids, not "),
        (lambda: Detokenizer(str).next(value), "token_id must be a whole number, not "),
        (lambda: load_gguf_tokenizer(value), "path must be a path or a text, not "),
        (lambda: load_results(value), "directory must be a path or a text, not "),
        (lambda: extract_eos_ids(value, {}), "metadata must be a mapping, such as a dict, not "),
        (lambda: extract_eos_ids({}, value), "tokens must be a mapping, such as a dict, not "),
    ]:
        with pytest.raises(ValueError, match="must be") as error:
            call()
        assert one_sentence(error).startswith(words)
    if value is not None:
        with pytest.raises(ValueError, match="generation_config must be a mapping"):
            extract_eos_ids({}, {}, value)


def test_numbers_that_are_too_long_to_be_written():
    with pytest.raises(RecipeError, match="not a number of more than 70 digits"):
        Recipe(**GOOD, top_p=10**5000)
    with pytest.raises(RecipeError, match="at least 1, not a number of more than 70 digits"):
        Recipe(**GOOD, answer_tokens=-(10**5000))


def test_names_of_the_field():
    window = ContextWindow.of_ids(range(10), limit=4, strategy=named_strategy("newest"))
    assert (window.encoded_len, window.base_context_len) == (10, 4)
    assert window.effective_context_tokens == (6, 7, 8, 9)
