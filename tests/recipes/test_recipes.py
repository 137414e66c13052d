"""Recipes as settings for engines, and what chat templates really read."""

import json
import os
import shlex
import subprocess
import sys

import pytest
import yaml

from pytest_tokenbudget.models.resolution import DEFAULT_MODEL, load_catalogue
from pytest_tokenbudget.models.template_switches import (
    CONVERSATIONS,
    TemplateError,
    renderer,
    template_switches,
    template_variables,
)
from pytest_tokenbudget.models.thinking_formats import detect
from pytest_tokenbudget.models.thinking_off import Off, shows_thinking, thinking_disabled
from pytest_tokenbudget.recipes.__main__ import WRITERS, main, write_settings
from pytest_tokenbudget.recipes.families import FAMILIES, packaged_template
from pytest_tokenbudget.recipes.recipe import (
    RecipeError,
    parse_recipe,
    read_recipe,
    resolve_recipe,
)
from pytest_tokenbudget.recipes.settings import EngineSettings, Keeping

MODELS = {
    "qwen3": "Qwen/Qwen3-8B",
    "deepseek-r1": "deepseek-ai/DeepSeek-R1",
    "glm-4.5": "zai-org/GLM-4.6",
    "minimax-m2": "MiniMaxAI/MiniMax-M2.1",
    "gpt-oss": "openai/gpt-oss-20b",
    "seed-oss": "ByteDance-Seed/Seed-OSS-36B-Instruct",
}


def serving(model="Qwen/Qwen3-8B", **keys):
    return resolve_recipe(parse_recipe({"id": "m", "model_path": model, **keys}, "here"))


def settings(engine, model="Qwen/Qwen3-8B", **keys) -> EngineSettings:
    (written,) = write_settings(serving(model, **keys), engine)
    return written


def option(written, name):
    return written.command[written.command.index(name) + 1]


def refused(table):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(table, "r.toml")
    return str(caught.value)


# Templates


@pytest.mark.parametrize(
    ("family", "works", "off"),
    [
        ("qwen3", {"enable_thinking": (False,)}, Off.CLOSED),
        ("deepseek-r1", {}, Off.CANNOT),
        ("glm-4.5", {"enable_thinking": (False,)}, Off.CLOSED),
        ("minimax-m2", {}, Off.CANNOT),
        ("gpt-oss", {"reasoning_effort": ("low", "high")}, Off.ASKED),
        ("seed-oss", {"thinking_budget": (0, 512, 64_000)}, Off.ASKED),
    ],
)
def test_variables_that_templates_of_families_read(family, works, off):
    text = packaged_template(FAMILIES[family].template)
    effects = {each.name: each for each in template_switches(text)}
    assert {name: each.changing for name, each in effects.items() if each.works} == works
    assert not effects["max_thinking_tokens"].named
    thinking = FAMILIES[family].thinking
    verdict = thinking_disabled(renderer(text), thinking.open, thinking.close)
    assert verdict.way is off
    assert verdict.is_off == (off is Off.CLOSED)


@pytest.mark.parametrize(
    ("family", "variables", "tail"),
    [
        ("qwen3", {}, "<|im_start|>assistant\n"),
        ("qwen3", {"enable_thinking": False}, "assistant\n<think>\n\n</think>\n\n"),
        ("deepseek-r1", {}, "<｜Assistant｜><think>\n"),  # noqa: RUF001
        ("glm-4.5", {"enable_thinking": False}, "/nothink<|assistant|>\n<think></think>"),
        ("minimax-m2", {"enable_thinking": False}, "]~b]ai\n<think>\n"),
        ("gpt-oss", {}, "<|start|>assistant"),
        ("seed-oss", {"thinking_budget": 0}, "<seed:think><seed:cot_budget_reflect>"),
    ],
)
def test_how_the_families_prompts_end(family, variables, tail):
    render = renderer(packaged_template(FAMILIES[family].template))
    for messages in CONVERSATIONS:
        assert render(messages, **variables).endswith(tail)


def test_templates_that_show_how_thinking_is_marked():
    # gpt-oss reads thoughts under another name than reasoning_content.
    for family, each in FAMILIES.items():
        render, marks = renderer(packaged_template(each.template)), each.thinking
        assert shows_thinking(render, marks.open, marks.close) is (family != "gpt-oss"), family
    assert not shows_thinking(renderer("{{ messages[0].content }}<think></think>"))
    assert shows_thinking(renderer("{{ messages[-1].content }}<think>"))


@pytest.mark.parametrize("family", FAMILIES)
def test_only_two_families_open_the_block_in_the_prompt(family):
    thinking = FAMILIES[family].thinking
    render = renderer(packaged_template(FAMILIES[family].template))
    opened = {thinking.left_open(render(messages)) for messages in CONVERSATIONS}
    assert opened == {family in ("deepseek-r1", "minimax-m2")}
    assert thinking.prompt_opens in opened


def test_a_variable_that_changes_nothing_is_told_from_one_that_is_not_read():
    text = "{% if max_thinking_tokens %}{% endif %}{{ messages[0].content }}"
    effects = {each.name: each for each in template_switches(text)}
    assert effects["max_thinking_tokens"].sentence() == (
        "max_thinking_tokens is named in the template, and changes no byte of the prompt"
    )
    assert "is not read" in effects["enable_thinking"].sentence()
    assert template_variables(text) == {"max_thinking_tokens", "messages"}


def test_one_byte_is_a_difference():
    text = "{{ messages[0].content }}{{ ' ' if thinking is false else '' }}"
    (effect,) = template_switches(text, ["thinking"])
    assert effect.changing == (False,)


@pytest.mark.parametrize(
    ("end", "way"),
    [
        ("{{ '<think>\n' if enable_thinking | default(true) else '' }}", Off.NOT_OPENED),
        ("{{ '<think>' if thinking | default(true) else '</think>' }}", Off.CLOSED),
        ("{{ '<think>\n\n</think>\n' }}", Off.CLOSED),
        ("{{ '/no_think' if enable_thinking is false else '' }}", Off.ASKED),
        ("", Off.CANNOT),
    ],
)
def test_ways_of_being_off(end, way):
    verdict = thinking_disabled(renderer("{{ messages[-1].content }}" + end))
    assert verdict.way is way
    assert verdict.is_off == verdict.sentence().startswith("off: ")


# The part of a family's template that decides about thinking, in few words.
GRANITE = (
    "{% if thinking %}Write thoughts between <think></think>. {% endif %}"
    "{{ messages[-1].content }}|assistant|"
)
BIELIK = (
    "{% if enable_thinking %}Think between <think>...</think> first. {% endif %}"
    "{{ messages[-1].content }}|assistant|{{ '<think>\n' if enable_thinking }}"
)
REKA = (
    "{% set ns = namespace(out=messages[-1].content) %}"
    "{% if enable_thinking is true %}{% set ns.out = ns.out ~ 'assistant: <think>\n' %}"
    "{% else %}{% set ns.out = ns.out ~ 'assistant:' %}{% endif %}{{ ns.out }}"
)
NEMOTRON = (
    "{% set ns = namespace(enable_thinking=true) %}{% for m in messages %}"
    "{% if '/no_think' in m.content %}{% set ns.enable_thinking = false %}{% endif %}{% endfor %}"
    "{{ messages[-1].content.replace('/no_think', '').strip() }}"
    "{{ '<think>' }}{{ '\n' if ns.enable_thinking else '</think>' }}"
)
SYSTEM_ONLY = (
    "{% set enable_thinking = true %}{% if messages[0].role == 'system' and "
    "'/no_think' in messages[0].content %}{% set enable_thinking = false %}{% endif %}"
    "{{ messages[-1].content }}{{ '<think></think>' if not enable_thinking }}"
)
DEEPSEEK = (
    "{% if thinking is not defined %}{% set thinking = false %}{% endif %}{% set tag = '<think>' %}"
    "{{ messages[-1].content }}{% if thinking %}{{ tag }}{% else %}{{ '</think>' }}{% endif %}"
)
SHOWS_THE_WORD = "{{ messages[0].content }}{{ messages[-1].content }}<think>"


@pytest.mark.parametrize(
    ("template", "verdict", "switch", "opens"),
    [
        (GRANITE, "off: the model thinks only when told to, with thinking=True", "thinking", False),
        (
            BIELIK,
            "off: the model thinks only when told to, with enable_thinking=True",
            *("enable_thinking", True),
        ),
        (
            REKA,
            "off: the model thinks only when told to, with enable_thinking=True",
            *("enable_thinking", True),
        ),
        (
            NEMOTRON,
            "off: /no_think in the system message writes a closed, empty thinking block",
            *(None, True),
        ),
        (
            SYSTEM_ONLY,
            "off: /no_think in the system message writes a closed, empty thinking block",
            *(None, False),
        ),
        (DEEPSEEK, "off: the template by itself writes a closed", "thinking", True),
        (SHOWS_THE_WORD, "not off: this template cannot switch thinking off", None, True),
    ],
    ids=["granite", "bielik", "reka", "nemotron", "system-only", "deepseek", "shows-the-word"],
)
def test_models_that_are_told_to_think_or_not_in_their_own_way(template, verdict, switch, opens):
    form = detect(template, ())
    assert (form.switch, form.prompt_opens) == (switch, opens)
    found = thinking_disabled(renderer(template))
    assert found.sentence().startswith(verdict)
    assert found.is_off == verdict.startswith("off: ")
    # Nothing that tells the model to think is sent to switch thinking off.
    assert found.variables == {}


def test_a_template_that_refuses_some_messages_is_still_read():
    text = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ messages[0].content }}{{ strftime_now('%Y') }}"
        "{% generation %}{{ 'x' if enable_thinking is false }}{% endgeneration %}"
        "{{ raise_exception('bad') if reasoning_effort == 'high' }}"
    )
    effects = {each.name: each.changing for each in template_switches(text)}
    assert effects["enable_thinking"] == (False,)
    assert effects["reasoning_effort"] == ("high",)


def test_broken_templates():
    with pytest.raises(TemplateError, match=r"cannot be read, line 2: "):
        renderer("x\n{% if %}{% endif")
    with pytest.raises(TemplateError, match="refuses the messages: nothing works"):
        template_switches("{{ raise_exception('nothing works') }}")
    with pytest.raises(TemplateError, match="object has no chat template"):
        renderer(object())


def test_a_template_cannot_reach_out():
    text = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(TemplateError, match="refuses"):
        renderer(text)(CONVERSATIONS[0])


# Recipes


def test_toml_and_json_say_the_same(tmp_path):
    table = {
        "id": "minimax", "name": "MiniMax", "model_path": "MiniMaxAI/MiniMax-M2.1",
        "backend": "vllm", "thinking_mode": "conservative", "max_thinking_tokens": 42_000,
    }  # fmt: skip
    (tmp_path / "r.json").write_text(json.dumps({"recipe": table}))
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    (tmp_path / "r.toml").write_text("\n".join(lines))
    assert read_recipe(tmp_path / "r.json") == read_recipe(tmp_path / "r.toml")
    assert read_recipe(tmp_path / "r.toml").max_thinking_tokens == 42_000


def test_bad_recipes_are_refused():
    good = {"id": "m", "model_path": "Qwen/Qwen3-8B"}
    assert "unknown key 'thinking_mod', did you mean 'thinking_mode'?" in refused(
        good | {"thinking_mod": "auto"}
    )
    assert "model_path is missing" in refused({"id": "m"})
    assert "unknown backend 'ollama'; allowed are vllm, sglang" in refused(
        good | {"backend": "ollama"}
    )
    assert "unknown thinking mode 'fast'" in refused(good | {"thinking_mode": "fast"})
    assert (
        "max_thinking_tokens must be a whole number of at least 0, not the boolean true"
        in refused(good | {"max_thinking_tokens": True})
    )
    assert "top_p must be a number from 0 to 1" in refused(good | {"top_p": 2})
    assert "id must be a text that is not empty" in refused(good | {"id": " "})


def test_an_alias_is_resolved_before_the_table_is_asked():
    found = serving("deepseek-r1-1.5b")
    assert found.model == "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
    assert found.allocation.row == "DeepSeek-R1 distills"
    # 64,000 by the table, whatever the alias is called.
    assert found.tokens == 64_000


def test_an_unknown_model_gets_no_number():
    with pytest.raises(RecipeError, match=r"unknown model: .*there is nothing to set"):
        settings("vllm", DEFAULT_MODEL)
    with pytest.raises(RecipeError, match="is above the context"):
        serving("qwen3-0.6b", max_thinking_tokens=40_961)
    with pytest.raises(RecipeError, match="unknown model 'qwen3-nope'"):
        serving("qwen3-nope")


def test_another_machines_path_is_taken_as_it_is():
    found = serving("/srv/models/MiniMax-M2.1-REAP-50")
    assert (found.spec, found.tokens) == (None, 128_000)


# Engines


def test_vllm():
    written = settings("vllm", "MiniMaxAI/MiniMax-M2.1", thinking_mode="conservative")
    assert written.keeping is Keeping.ENFORCED
    assert written.command[:3] == ("vllm", "serve", "MiniMaxAI/MiniMax-M2.1")
    assert option(written, "--reasoning-parser") == "minimax_m2_append_think"
    assert json.loads(option(written, "--reasoning-config")) == {
        "reasoning_start_str": "<think>", "reasoning_end_str": "</think>",
    }  # fmt: skip
    assert json.loads(written.body())["thinking_token_budget"] == 16_000
    assert "chat_template_kwargs" not in written.request


@pytest.mark.parametrize("family", MODELS)
def test_every_family_has_what_its_engines_need(family):
    vllm = settings("vllm", MODELS[family], max_thinking_tokens=512)
    assert option(vllm, "--reasoning-parser") == FAMILIES[family].vllm_parser
    marks = json.loads(option(vllm, "--reasoning-config"))
    thinking = FAMILIES[family].thinking
    assert marks["reasoning_start_str"] == thinking.open
    assert marks["reasoning_end_str"].startswith(thinking.close)
    assert vllm.keeping is (Keeping.UNPROVEN if family == "gpt-oss" else Keeping.ENFORCED)
    sglang = settings("sglang", MODELS[family], max_thinking_tokens=512)
    if family == "seed-oss":
        assert sglang.keeping is Keeping.SOFT
        assert sglang.request["chat_template_kwargs"] == {"thinking_budget": 512}
        assert "--enable-strict-thinking" not in sglang.command
        return
    assert option(sglang, "--reasoning-parser") == FAMILIES[family].sglang_parser
    assert "--enable-strict-thinking" in sglang.command
    assert sglang.request["custom_params"] == {"thinking_budget": 512}
    assert sglang.keeping is (Keeping.SOFT if family == "gpt-oss" else Keeping.ENFORCED)


def test_gpt_oss_is_ended_by_the_final_channel():
    written = settings("vllm", MODELS["gpt-oss"], max_thinking_tokens=512)
    end = json.loads(option(written, "--reasoning-config"))["reasoning_end_str"]
    assert end == "<|end|><|start|>assistant<|channel|>final<|message|>"


def test_llama_cpp():
    written = settings("llama.cpp", "/srv/Qwen3-8B-Q4_K_M.gguf", max_thinking_tokens=300)
    assert option(written, "-m") == "/srv/Qwen3-8B-Q4_K_M.gguf"
    assert option(written, "--reasoning-budget") == "300"
    assert "limited time" in option(written, "--reasoning-budget-message")
    assert "</think>" not in option(written, "--reasoning-budget-message")
    assert "--jinja" in written.command
    assert written.request["thinking_budget_tokens"] == 300
    assert not any("GGUF" in warning for warning in written.warnings)
    assert any("GGUF" in warning for warning in settings("llama.cpp").warnings)
    off = settings("llama.cpp", thinking_mode="disabled")
    assert (option(off, "--reasoning"), option(off, "--reasoning-budget")) == ("off", "0")


def test_llama_cpp_knows_the_tags_from_the_template_only():
    # Measured with build 11434: this model's template shows them nowhere, the budget was dropped.
    own = settings("llama.cpp", DEFAULT_MODEL, max_thinking_tokens=16)
    assert own.keeping is Keeping.IGNORED
    assert "--chat-template-file" in own.because
    assert settings("llama.cpp", max_thinking_tokens=16).keeping is Keeping.ENFORCED


def test_vllm_names_a_parser_where_the_tags_are_the_usual_ones():
    (warning,) = [
        each for each in settings("vllm", DEFAULT_MODEL, max_thinking_tokens=9).warnings
        if "stays part of the content" in each
    ]  # fmt: skip
    assert "--reasoning-parser qwen3" in warning
    assert (
        "--reasoning-parser" not in settings("vllm", DEFAULT_MODEL, max_thinking_tokens=9).command
    )


def test_transformers_says_the_two_passes():
    written = settings("transformers", max_thinking_tokens=300, answer_tokens=64)
    assert "max_new_tokens=300" in written.text
    assert "max_new_tokens=64" in written.text
    assert "Considering the limited time" in written.text
    assert "--thinking-budgets 300 --answer-tokens 64" in written.text


def test_yaml():
    written = settings("yaml", max_thinking_tokens=300, answer_tokens=100, top_p=0.5)
    assert yaml.safe_load(written.text) == {
        "llm": {
            "generation_config": {
                "max_new_tokens": 400, "enable_thinking": True, "temperature": 0.6, "top_p": 0.5,
            }
        }
    }  # fmt: skip
    assert written.keeping is Keeping.IGNORED
    off = settings("yaml", thinking_mode="disabled")
    assert off.keeping is Keeping.ENFORCED
    assert yaml.safe_load(off.text)["llm"]["generation_config"]["enable_thinking"] is False
    assert settings("yaml", MODELS["minimax-m2"], thinking_mode="disabled").keeping is (
        Keeping.IGNORED
    )


@pytest.mark.parametrize("family", MODELS)
def test_the_published_recipe_enforces_nothing(family):
    written = settings("chat-template", MODELS[family], max_thinking_tokens=16_000)
    assert json.loads(option(written, "--default-chat-template-kwargs")) == {
        "max_thinking_tokens": 16_000
    }
    assert written.keeping is Keeping.IGNORED
    assert "not read: the prompt is the same, byte for byte" in written.because


def test_disabled_is_said_to_be_off_or_not():
    qwen = settings("vllm", thinking_mode="disabled")
    assert qwen.request["chat_template_kwargs"] == {"enable_thinking": False}
    assert qwen.request["thinking_token_budget"] == 0
    assert "closed, empty thinking block" in qwen.because
    minimax = settings("vllm", MODELS["minimax-m2"], thinking_mode="disabled")
    assert "chat_template_kwargs" not in minimax.request
    assert "this template cannot switch thinking off" in minimax.because
    published = settings("chat-template", MODELS["minimax-m2"], thinking_mode="disabled")
    assert published.keeping is Keeping.IGNORED


def test_a_models_own_template_comes_before_its_familys():
    written = settings("chat-template", DEFAULT_MODEL, max_thinking_tokens=256)
    assert "the template of nano-reasoner" in written.because
    assert "It reads enable_thinking" in written.because


def test_a_stranger_is_ignored_by_who_needs_a_parser():
    for engine in ("vllm", "sglang"):
        written = settings(engine, "meta-llama/Llama-3.2-1B-Instruct", max_thinking_tokens=100)
        assert written.keeping is Keeping.IGNORED
        assert "nobody knows how" in written.because


@pytest.mark.parametrize("name", ["it's", "two words", 'a"b', "$HOME", "-x; rm"])
@pytest.mark.parametrize("engine", ["vllm", "sglang", "llama.cpp", "chat-template"])
def test_a_shell_reads_back_every_word(engine, name):
    recipe = parse_recipe(
        {"id": name, "model_path": "/srv/my models/Qwen3-8B", "max_thinking_tokens": 9}, "here"
    )
    (written,) = write_settings(resolve_recipe(recipe), engine)
    assert shlex.split(written.shell().replace("\\\n", " ")) == list(written.command)
    assert name in written.command


# The command line


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('id = "m"\nmodel_path = "qwen3-0.6b"\nbackend = "sglang"\n')
    return path


def test_the_command_line(recipe_file, capsys):
    assert main([str(recipe_file)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(
        "# NO EVIDENCE stands behind these settings: the budget is not measured"
    )
    assert "# thinking budget: 32,000 tokens (auto; row Qwen3" in shown
    assert "python -m sglang.launch_server" in shown
    assert "vllm serve" not in shown
    assert main([str(recipe_file), "--engine", "all"]) == 0
    shown = capsys.readouterr().out
    for engine in WRITERS:
        assert f"# {engine}: " in shown
    assert "# source: https://" in shown


def test_a_closed_pipe_is_no_error(recipe_file):
    """As with ``| head -1``: the reader is gone before anything is written."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest_tokenbudget.recipes", recipe_file, "--engine", "all"],
            stdout=write, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_line_warns_of_a_full_context(tmp_path, capsys):
    path = tmp_path / "r.json"
    path.write_text('{"id": "m", "model_path": "nano-reasoner", "max_thinking_tokens": 2000}')
    assert main([str(path)]) == 0
    assert "need 6,096, and prompt and output together may have 2,048" in capsys.readouterr().out


def test_the_command_line_says_that_a_context_is_not_known(tmp_path, capsys):
    path = tmp_path / "r.json"
    unknown = "MiniMaxAI/MiniMax-M2.1"
    for model, tokens in ((unknown, 100), (unknown, 0), ("nano-reasoner", 100)):
        path.write_text(f'{{"id": "m", "model_path": "{model}", "max_thinking_tokens": {tokens}}}')
        assert main([str(path)]) == 0
        said = "# beware: the context of" in capsys.readouterr().out
        assert said is (model == unknown and tokens > 0)


def test_the_command_line_says_what_is_wrong(tmp_path, capsys, recipe_file):
    assert main([str(tmp_path / "none.toml")]) == 4
    assert "cannot be read" in capsys.readouterr().err
    broken = tmp_path / "broken.json"
    broken.write_text('{"id": }')
    assert main([str(broken)]) == 4
    assert "line 1: not valid JSON: Expecting value at column 8" in capsys.readouterr().err
    assert main([str(tmp_path / "recipe.yaml")]) == 4
    assert "a recipe is a .toml or .json file, not .yaml" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main([str(recipe_file), "--engine", "ollama"])
    assert stopped.value.code == 2


def test_the_catalogue_of_the_packages_own_is_enough():
    assert resolve_recipe(serving("qwen3-8b").recipe, load_catalogue()).tokens == 32_000
