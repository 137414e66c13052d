"""The catalogue: the built-in models, and users' aliases."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from model_helpers import (
    ASKED_FOR,
    catalogue_error,
    make_model,
    resolve_error,
    user_catalogue,
)

from pytest_tokenbudget.core.trace import ThinkingFormat
from pytest_tokenbudget.models.resolution import (
    DEFAULT_MODEL,
    ModelSpec,
    load_catalogue,
    resolve_model,
)
from pytest_tokenbudget.models.thinking_formats import builtin_formats
from pytest_tokenbudget.settings.config_file import ConfigError, read_config

pytest_plugins = ["model_fixtures"]
pytestmark = pytest.mark.usefixtures("hub_cache")


class TestBuiltIn:
    def test_all_aliases_are_there(self, catalogue):
        assert sorted(catalogue) == sorted(ASKED_FOR)
        assert all(alias == spec.alias for alias, spec in catalogue.items())

    def test_hub_models_are_pinned_to_commits(self, catalogue):
        for spec in catalogue.values():
            if spec.kind == "hub":
                assert re.fullmatch(r"[0-9a-f]{40}", spec.revision), spec
        revisions = [spec.revision for spec in catalogue.values() if spec.kind == "hub"]
        assert len(set(revisions)) == len(revisions)

    @pytest.mark.parametrize(
        ("alias", "hub_id", "context"),
        [
            ("qwen-7b", "Qwen/Qwen2.5-7B-Instruct", 32768),
            ("qwen3-1.7b", "Qwen/Qwen3-1.7B", 40960),
            ("llama-3.2-1b", "meta-llama/Llama-3.2-1B-Instruct", 131072),
            ("deepseek-r1-1.5b", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 131072),
            ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct", 8192),
        ],
    )
    def test_sources_and_contexts(self, catalogue, alias, hub_id, context):
        assert (catalogue[alias].source, catalogue[alias].context) == (hub_id, context)

    def test_qwen_from_1_5b_up_is_4bit_and_nothing_else_is(self, catalogue):
        quantized = {alias for alias, spec in catalogue.items() if spec.quantization != "none"}
        assert quantized == {"qwen-1.5b", "qwen-3b", "qwen-7b"}
        assert catalogue["qwen-1.5b"].quantization == "4bit"

    def test_thinking_formats(self, catalogue):
        thinking = {alias for alias, spec in catalogue.items() if spec.thinking}
        switched = {alias for alias in thinking if catalogue[alias].thinking.switch}
        assert thinking - switched == {"deepseek-r1-1.5b"}
        qwen = {"qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "qwen3-8b"}
        assert switched == {*qwen, "gemma-4-31b", "nano-reasoner"}
        assert {a for a in thinking if catalogue[a].thinking.prompt_opens} == {"deepseek-r1-1.5b"}
        for alias in thinking:
            form = catalogue[alias].thinking
            assert [closer.name for closer in form.closers] == ["bare", "sentence", "s1"]
            close = "<channel|>" if alias == "gemma-4-31b" else "</think>"
            assert form.closer().text == f"\n{close}\n\n"
            sentence = form.closer("sentence").text
            assert sentence.startswith("\n\n Considering the limited time by the user")
            assert sentence.endswith(f"thinking directly now.\n{close}\n\n")
            assert form.closer("s1").text.endswith(f"{close}\n\nFinal Answer:")

    def test_embedded_model_is_found_wherever_it_is_installed(self, catalogue):
        spec = catalogue[DEFAULT_MODEL]
        assert spec.kind == "directory"
        assert Path(spec.source).is_absolute()
        assert (Path(spec.source) / "tokenizer.json").is_file()
        assert spec.context == 2048


class TestUserAliases:
    def test_hub_id(self, tmp_path):
        spec = user_catalogue(
            tmp_path,
            '[models.mine]\nid = "org/name"\nrevision = "v1"\nquantization = "8bit"\n'
            'dtype = "float16"\ncontext = 4096\nthinking = false\n',
        )["mine"]
        assert spec == ModelSpec("mine", "org/name", "v1", "8bit", "float16", 4096, None, "hub")
        assert not spec.detect

    def test_hub_id_alone_takes_the_main_branch(self, tmp_path):
        spec = user_catalogue(tmp_path, '[models.mine]\nid = "org/name"\n')["mine"]
        assert spec == ModelSpec("mine", "org/name", "main")
        assert spec.detect

    def test_built_ins_stay(self, tmp_path, catalogue):
        assert set(user_catalogue(tmp_path, '[models.mine]\nid = "org/name"\n')) == {
            *catalogue,
            "mine",
        }

    def test_path_starts_at_the_configuration_s_directory(self, tmp_path, monkeypatch):
        make_model(tmp_path / "weights" / "small", context=256)
        monkeypatch.chdir(tmp_path.parent)
        aliases = user_catalogue(tmp_path, '[models.mine]\npath = "weights/small"\n')
        spec = resolve_model("mine", aliases)
        assert (spec.alias, spec.kind, spec.context) == ("mine", "directory", 256)
        assert spec.source == str(tmp_path / "weights" / "small")
        assert spec.revision is None

    def test_path_of_a_gguf_file_is_not_quantised_again(self, tmp_path):
        aliases = user_catalogue(tmp_path, '[models.m]\nbase = "qwen-7b"\npath = "x.GGUF"\n')
        assert (aliases["m"].kind, aliases["m"].quantization) == ("gguf", "none")

    def test_entry_that_points_nowhere_fails_only_when_asked_for(self, tmp_path):
        aliases = user_catalogue(tmp_path, '[models.gone]\npath = "gone"\n')
        assert resolve_model("qwen-0.5b", aliases).alias == "qwen-0.5b"
        text = resolve_error("gone", aliases)
        assert "'gone'" in text
        assert str(tmp_path / "gone") in text

    def test_base_is_inherited_but_not_its_commit(self, tmp_path, catalogue):
        base = catalogue["qwen3-0.6b"]
        spec = user_catalogue(
            tmp_path, '[models.tuned]\nbase = "qwen3-0.6b"\nid = "me/tuned-qwen3"\n'
        )["tuned"]
        assert spec == replace(base, alias="tuned", source="me/tuned-qwen3", revision="main")

    def test_base_with_the_same_id_keeps_the_commit(self, tmp_path, catalogue):
        spec = user_catalogue(tmp_path, '[models.long]\nbase = "qwen3-0.6b"\ncontext = 100\n')[
            "long"
        ]
        assert spec == replace(catalogue["qwen3-0.6b"], alias="long", context=100)

    def test_bases_may_stand_in_any_order(self, tmp_path):
        aliases = user_catalogue(
            tmp_path,
            '[models.a]\nbase = "b"\ndtype = "float32"\n[models.b]\nbase = "c"\ncontext = 7\n'
            '[models.c]\nid = "org/c"\nquantization = "8bit"\n',
        )
        assert aliases["a"] == ModelSpec("a", "org/c", "main", "8bit", "float32", 7)

    def test_built_in_is_extended_by_its_own_name(self, tmp_path, catalogue):
        expected = replace(catalogue["qwen-1.5b"], quantization="none")
        for base in ("", 'base = "qwen-1.5b"\n'):
            text = f'[models."qwen-1.5b"]\n{base}quantization = "none"\n'
            assert user_catalogue(tmp_path, text)["qwen-1.5b"] == expected

    def test_built_in_is_replaced_by_another_source(self, tmp_path):
        spec = user_catalogue(tmp_path, '[models."qwen-1.5b"]\nid = "me/own"\n')["qwen-1.5b"]
        assert spec == ModelSpec("qwen-1.5b", "me/own", "main")

    def test_overriding_a_built_in_does_not_change_those_based_on_it(self, tmp_path, catalogue):
        aliases = user_catalogue(tmp_path, '[models."qwen-1.5b"]\nid = "me/own"\n')
        assert aliases["qwen-3b"] == catalogue["qwen-3b"]

    def test_thinking_keys_that_are_not_named_are_inherited(self, tmp_path, catalogue):
        spec = user_catalogue(
            tmp_path,
            '[models.m]\nbase = "qwen3-0.6b"\n[models.m.thinking]\nswitch = false\n',
        )["m"]
        assert spec.thinking == replace(catalogue["qwen3-0.6b"].thinking, switch=None)

    def test_other_tags_bring_their_own_closer(self, tmp_path):
        spec = user_catalogue(
            tmp_path,
            '[models.m]\nid = "org/m"\n'
            'thinking = { open = "[THINK]", close = "[/THINK]", switch = "reason" }\n',
        )["m"]
        assert spec.thinking == ThinkingFormat("[THINK]", "[/THINK]", "reason")
        assert spec.thinking.closers == (("bare", "\n[/THINK]\n\n"),)

    def test_a_format_is_named_and_changed(self, tmp_path, catalogue):
        aliases = user_catalogue(
            tmp_path,
            '[models.a]\nid = "o/a"\nthinking = "gpt-oss"\n'
            '[models.b]\nid = "o/b"\n[models.b.thinking]\nformat = "minimax-m2"\nrepeats = false\n'
            'closers = { mine = "Enough.</think>", s1 = "</think>42:" }\n',
        )
        formats = builtin_formats()
        assert aliases["a"].thinking == formats["gpt-oss"]
        minimax, changed = formats["minimax-m2"], aliases["b"].thinking
        assert replace(changed, repeats=True, closers=minimax.closers) == minimax
        # One's own come first, since the first is the default.
        assert [c.name for c in changed.closers] == ["mine", "s1", "bare", "sentence"]
        assert changed.closer("s1").text == "</think>42:"

    def test_a_format_of_one_s_own_for_several_models(self, tmp_path):
        aliases = user_catalogue(
            tmp_path,
            '[models.a]\nid = "o/a"\nthinking = "mine"\n'
            '[models.b]\nbase = "a"\nthinking = { format = "mine", nests = true }\n'
            '[formats.mine]\nbase = "marked"\nswitch = "reason"\nhints = "effort"\n'
            '[formats.marked]\nopen = "<a>"\nclose = "</a>"\nanswer = "<b>"\n',
        )
        expected = ThinkingFormat("<a>", "</a>", "reason", answer=("<b>",), hints=("effort",))
        assert aliases["a"].thinking == expected
        assert aliases["a"].thinking.closer().text == "</a><b>"
        assert aliases["b"].thinking == replace(expected, nests=True)

    def test_a_format_of_the_package_is_extended_by_its_own_name(self, tmp_path):
        aliases = user_catalogue(
            tmp_path,
            '[formats.qwen3]\nswitch = "reason"\n[models.a]\nid = "o/a"\nthinking = "qwen3"\n',
        )
        assert aliases["a"].thinking == replace(builtin_formats()["qwen3"], switch="reason")

    def test_thinking_true_and_false(self, tmp_path):
        aliases = user_catalogue(
            tmp_path,
            '[models.a]\nid = "org/a"\nthinking = true\n'
            '[models.b]\nbase = "qwen3-0.6b"\nthinking = false\n',
        )
        assert aliases["a"].thinking == builtin_formats()["think"]
        assert aliases["b"].thinking is None

    def test_non_ascii_alias(self, tmp_path):
        assert "modèle" in user_catalogue(tmp_path, '[models."modèle"]\nid = "org/a"\n')

    def test_from_pyproject(self, tmp_path):
        (tmp_path / "pyproject.toml").write_text('[tool.tokenbudget.models.m]\nid = "org/m"\n')
        assert load_catalogue(tmp_path)["m"].source == "org/m"
        assert load_catalogue(config=read_config(tmp_path))["m"].source == "org/m"


class TestUserAliasErrors:
    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("[models.m]\n", ["models.m", "id =", "path =", "base ="]),
            ('[models.m]\nbase = "m"\n', ["models.m", "base"]),
            ('[models.m]\nid = "org/m"\nbase = "m"\n', ["models.m", "base"]),
            ('[models.m]\nbase = "qwen-1.5"\n', ["'qwen-1.5'", "'qwen-1.5b'"]),
            ('[models.m]\nbase = ["a"]\n', ["models.m", "base"]),
            ('[models.a]\nbase = "b"\n[models.b]\nbase = "a"\n', ["circle", "a -> b -> a"]),
            ('[models.m]\nid = "org/m"\npath = "m"\n', ["id and path", "keep one"]),
            ('[models.m]\nid = "justname"\n', ["'justname'", "org/name"]),
            ('[models.m]\nid = ""\n', ["id", "not empty"]),
            ("[models.m]\nid = 3\n", ["id", "3"]),
            (
                '[models.m]\nid = "o/m"\nquantisation = "4bit"\n',
                ["'quantisation'", "'quantization'"],
            ),
            ('[models.m]\nid = "o/m"\nquantization = "nf4"\n', ["'nf4'", "none, 8bit, 4bit"]),
            ('[models.m]\nid = "o/m"\ndtype = "bf16"\n', ["'bf16'", "bfloat16"]),
            ('[models.m]\nid = "o/m"\ncontext = 0\n', ["context", "at least 1", "0"]),
            ('[models.m]\nid = "o/m"\ncontext = true\n', ["context", "boolean true"]),
            ('[models.m]\nid = "o/m"\ncontext = "4k"\n', ["context", "'4k'"]),
            ('[models.m]\npath = "m"\nrevision = "v1"\n', ["revision", "disk"]),
            ('[models.m]\nid = "o/m"\nthinking = "yes"\n', ["thinking", "'yes'"]),
            ('[models.m]\nid = "o/m"\nthinking = {tag = "x"}\n', ["'tag'", "closers"]),
            ('[models.m]\nid = "o/m"\nthinking = {closers = []}\n', ["closers", "a table"]),
            (
                '[models.m]\nid = "o/m"\nthinking = {closers = {a = "Now."}}\n',
                ["closer 'a'", "</think>"],
            ),
            ('[models.m]\nid = "o/m"\nthinking = "qwen"\n', ["'qwen'", "'qwen3'", "gpt-oss"]),
            ('[models.m]\nid = "o/m"\nthinking = {format = 3}\n', ["format", "'3'", "glm-4"]),
            ('[models.m]\nid = "o/m"\nthinking = {nests = 1}\n', ["nests", "true or false"]),
            ('[models.m]\nid = "o/m"\nthinking = {close = "think"}\n', ["told apart"]),
            ('[models.m]\nid = "o/m"\nthinking = {answer = [1]}\n', ["answer", "texts"]),
            ('[models.m]\nid = "o/m"\nthinking = {switch = true}\n', ["switch", "true"]),
            ('[models]\nm = "org/m"\n', ["models.m", "a table", "'org/m'"]),
            ('[models."a/b"]\nid = "o/m"\n', ["'a/b'", "alias"]),
            ('[models."a,b"]\nid = "o/m"\n', ["'a,b'", "alias"]),
            ('[models.my-0.5b]\nid = "o/m"\n', ['[models."my-0.5b"]']),
        ],
    )
    def test_message(self, tmp_path, text, parts):
        error = catalogue_error(tmp_path, text)
        for part in parts:
            assert part in error

    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ('[formats]\nmine = "x"\n', ["formats.mine", "a table"]),
            ('formats = "x"\n', ["formats", "a table"]),
            ('[formats.mine]\nbase = "qwen"\n', ["formats.mine", "'qwen'", "'qwen3'"]),
            ('[formats.mine]\nsigns = ["x"]\n', ["formats.mine", "'signs'"]),
            ('[formats.a]\nbase = "b"\n[formats.b]\nbase = "a"\n', ["circle", "a -> b -> a"]),
            ('[formats.a]\nbase = "a"\n', ["circle"]),
            ('[formats.a]\nopen = ""\n', ["open", "not empty"]),
        ],
    )
    def test_message_about_a_format(self, tmp_path, text, parts):
        (tmp_path / "tokenbudget.toml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_catalogue(tmp_path)
        for part in ("tokenbudget.toml", *parts):
            assert part in str(caught.value)
