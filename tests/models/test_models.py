"""Models by name: aliases, paths, hub ids, quantisation, aliases that must differ."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_helpers import (
    ASKED_FOR,
    COMMIT,
    THINKING_TEMPLATE,
    cached,
    make_model,
    resolve_error,
    user_catalogue,
)

from pytest_tokenbudget.models.resolution import (
    ModelError,
    ModelSpec,
    choose_quantization,
    complete,
    resolve_model,
    unique_aliases,
)
from pytest_tokenbudget.models.thinking_formats import builtin_formats

pytest_plugins = ["model_fixtures"]
pytestmark = pytest.mark.usefixtures("hub_cache")


class TestQuantization:
    def test_catalogue_s_applies_on_cuda_only(self, catalogue):
        spec = catalogue["qwen-1.5b"]
        assert choose_quantization(spec, "cuda:0") == "4bit"
        assert choose_quantization(spec, "cpu") == "none"

    @pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
    def test_explicit_one_applies_anywhere(self, catalogue, device):
        assert choose_quantization(catalogue["qwen-1.5b"], device, "none") == "none"
        assert choose_quantization(catalogue["qwen-0.5b"], device, "8bit") == "8bit"

    def test_unknown_one_names_the_allowed(self, catalogue):
        with pytest.raises(ModelError, match=r"'3bit'.*none, 8bit, 4bit"):
            choose_quantization(catalogue["qwen-0.5b"], "cpu", "3bit")


class TestResolveNames:
    def test_alias(self, catalogue):
        assert resolve_model(" qwen-7b ", catalogue) == catalogue["qwen-7b"]

    def test_alias_with_revision(self, catalogue):
        spec = resolve_model("qwen-7b@refs/pr/3", catalogue)
        assert spec == replace(catalogue["qwen-7b"], revision="refs/pr/3")

    def test_hub_id_unknown_to_the_catalogue(self, catalogue):
        spec = resolve_model("org/My-Model.v2", catalogue)
        assert spec == ModelSpec("My-Model.v2", "org/My-Model.v2", "main")
        assert spec.detect

    def test_hub_id_with_revision(self, catalogue):
        assert resolve_model("org/name@v1.0", catalogue).revision == "v1.0"

    def test_hub_id_known_to_the_catalogue_is_loaded_as_it_is(self, catalogue):
        spec = resolve_model("Qwen/Qwen3-8B", catalogue)
        known = catalogue["qwen3-8b"]
        assert (spec.context, spec.thinking) == (known.context, known.thinking)
        assert (spec.alias, spec.revision) == ("Qwen3-8B", "main")
        assert resolve_model("Qwen/Qwen2.5-7B-Instruct", catalogue).quantization == "none"

    def test_hub_id_in_the_cache_is_described_by_its_files(self, catalogue, hub_cache):
        cached(hub_cache, "org/name", context=77, template=THINKING_TEMPLATE)
        spec = resolve_model("org/name", catalogue)
        assert (spec.context, spec.thinking) == (77, builtin_formats()["think"].resolved({}))
        assert not spec.detect

    def test_hub_id_is_completed_once_downloaded(self, catalogue, hub_cache):
        before = resolve_model("org/name", catalogue)
        assert (before.context, before.detect) == (None, True)
        cached(hub_cache, "org/name", context=77)
        after = complete(before)
        assert (after.context, after.thinking, after.detect) == (77, None, False)

    def test_half_a_download_describes_nothing(self, catalogue, hub_cache):
        snapshot = cached(hub_cache, "org/name", template=THINKING_TEMPLATE)
        (snapshot / "tokenizer_config.json").unlink()
        (snapshot / "tokenizer.json").unlink()
        assert resolve_model("org/name", catalogue).detect

    @pytest.mark.parametrize(
        ("name", "near"),
        [("qwen-1.5", "qwen-1.5b"), ("Qwen3-0.6B", "qwen3-0.6b"), ("nano", "nano-reasoner")],
    )
    def test_unknown_name_lists_the_nearest_and_the_ways(self, catalogue, name, near):
        text = resolve_error(name, catalogue)
        assert repr(name) in text
        assert f"did you mean '{near}'" in text
        for way in ("org/name", ".gguf", "config.json", *ASKED_FOR):
            assert way in text

    def test_unknown_name_knows_users_aliases(self, tmp_path):
        aliases = user_catalogue(tmp_path, '[models.house-model]\nid = "org/m"\n')
        assert "'house-model'" in resolve_error("hous-model", aliases)

    @pytest.mark.parametrize("name", ["zzzzzzzz", "x" * 5000, "a\0b", "модель", "-"])
    def test_name_like_nothing_is_an_error_of_ours(self, catalogue, name):
        text = resolve_error(name, catalogue)
        assert "did you mean" not in text
        assert "org/name" in text

    @pytest.mark.parametrize("name", ["", "   "])
    def test_empty_name(self, catalogue, name):
        assert "empty" in resolve_error(name, catalogue)

    def test_revision_left_out_after_the_sign(self, catalogue):
        assert "org/name@main" in resolve_error("org/name@", catalogue)

    def test_revision_of_a_model_on_disk(self, catalogue):
        assert "no revisions" in resolve_error("nano-reasoner@v1", catalogue)

    @pytest.mark.parametrize("name", ["a/b/c", "org/-name", "/org"])
    def test_neither_path_nor_hub_id(self, catalogue, name):
        assert name in resolve_error(name, catalogue)

    @pytest.mark.parametrize("name", ["http://host:8000/v1", "HTTPS://host/v1"])
    def test_server(self, catalogue, name):
        text = resolve_error(name, catalogue)
        assert name in text
        assert "no tokenizer and no model's files" in text

    def test_server_s_keys_are_not_shown(self, catalogue):
        text = resolve_error("https://me:hunter2@host/v1?key=sesame", catalogue)
        assert "host/v1" in text
        assert "hunter2" not in text
        assert "sesame" not in text


class TestResolvePaths:
    def test_directory(self, tmp_path, catalogue):
        directory = make_model(tmp_path / "my model", context=300)
        spec = resolve_model(str(directory), catalogue)
        assert spec == ModelSpec("my model", str(directory), context=300, kind="directory")

    @pytest.mark.parametrize("name", ["inner/small", "./inner/small", "inner/small/"])
    def test_relative_directory_goes_before_a_hub_id(self, tmp_path, monkeypatch, catalogue, name):
        directory = make_model(tmp_path / "inner" / "small")
        monkeypatch.chdir(tmp_path)
        spec = resolve_model(name, catalogue)
        assert (spec.kind, spec.source, spec.alias) == ("directory", str(directory), "small")

    def test_current_directory(self, tmp_path, monkeypatch, catalogue):
        monkeypatch.chdir(make_model(tmp_path / "here"))
        assert resolve_model(".", catalogue).alias == "here"

    def test_alias_goes_before_a_directory(self, tmp_path, monkeypatch, catalogue):
        make_model(tmp_path / "qwen-7b")
        monkeypatch.chdir(tmp_path)
        assert resolve_model("qwen-7b", catalogue).kind == "hub"
        assert resolve_model("./qwen-7b", catalogue).kind == "directory"

    def test_link_keeps_its_name(self, tmp_path, catalogue):
        make_model(tmp_path / COMMIT)
        (tmp_path / "nice").symlink_to(tmp_path / COMMIT)
        assert resolve_model(str(tmp_path / "nice"), catalogue).alias == "nice"

    @pytest.mark.parametrize("name", ["./gone", "../gone", "~/gone-model", "/gone/model", "gone/"])
    def test_directory_that_does_not_exist(self, tmp_path, monkeypatch, catalogue, name):
        monkeypatch.chdir(tmp_path)
        text = resolve_error(name, catalogue)
        assert "there is no directory" in text
        assert "gone" in text

    def test_directory_without_config(self, tmp_path, catalogue):
        text = resolve_error(str(tmp_path), catalogue)
        assert str(tmp_path) in text
        assert "config.json" in text

    def test_directory_of_a_gguf_file_names_the_file(self, tmp_path, catalogue):
        (tmp_path / "m-q4.gguf").touch()
        assert str(tmp_path / "m-q4.gguf") in resolve_error(str(tmp_path), catalogue)

    def test_directory_of_an_adapter_says_so(self, tmp_path, catalogue):
        (tmp_path / "adapter_config.json").write_text("{}")
        assert "adapter" in resolve_error(str(tmp_path), catalogue)

    def test_broken_config_names_the_file(self, tmp_path, catalogue):
        (make_model(tmp_path / "m") / "config.json").write_text("{")
        text = resolve_error(str(tmp_path / "m"), catalogue)
        assert str(tmp_path / "m" / "config.json") in text
        assert "JSON" in text

    def test_config_that_is_no_object(self, tmp_path, catalogue):
        (make_model(tmp_path / "m") / "config.json").write_text("[]")
        assert "JSON object" in resolve_error(str(tmp_path / "m"), catalogue)

    def test_file_that_is_no_model(self, tmp_path, catalogue):
        file = tmp_path / "model.safetensors"
        file.touch()
        text = resolve_error(str(file), catalogue)
        assert str(file) in text
        assert ".gguf" in text

    @pytest.mark.parametrize(
        ("config", "context"),
        [
            ({"max_position_embeddings": 9}, 9),
            ({"n_positions": 8}, 8),
            ({"text_config": {"max_position_embeddings": 7}}, 7),
            ({"max_position_embeddings": None}, None),
            ({}, None),
        ],
    )
    def test_context(self, tmp_path, catalogue, config, context):
        (make_model(tmp_path / "m") / "config.json").write_text(json.dumps(config))
        assert resolve_model(str(tmp_path / "m"), catalogue).context == context


class TestUniqueAliases:
    def aliases(self, *specs):
        return [spec.alias for spec in unique_aliases(specs)]

    def test_different_aliases_stay(self, catalogue):
        assert unique_aliases(list(catalogue.values())) == tuple(catalogue.values())

    def test_same_model_twice_is_one(self, catalogue):
        spec = catalogue["qwen-7b"]
        assert unique_aliases([spec, spec]) == (spec,)

    def test_owners_tell_hub_models_apart(self):
        assert self.aliases(
            ModelSpec("m", "a/m"), ModelSpec("m", "b/m"), ModelSpec("x", "b/x")
        ) == [
            "a-m",
            "b-m",
            "x",
        ]

    def test_revisions_tell_one_repository_apart(self):
        specs = [ModelSpec("m", "a/m", revision) for revision in ("main", COMMIT, "refs/pr/1")]
        assert self.aliases(*specs) == ["m@main", f"m@{COMMIT[:7]}", "m@refs-pr-1"]

    def test_both_where_both_are_needed(self):
        specs = [ModelSpec("m", "a/m", "1"), ModelSpec("m", "a/m", "2"), ModelSpec("m", "b/m", "1")]
        assert self.aliases(*specs) == ["a-m@1", "a-m@2", "b-m"]

    def test_directories_of_the_same_name(self):
        specs = [ModelSpec("m", f"/{place}/m", kind="directory") for place in ("a", "b")]
        assert self.aliases(*specs) == ["a-m", "b-m"]

    def test_case_does_not_tell_apart(self):
        assert self.aliases(ModelSpec("M", "a/M"), ModelSpec("m", "b/m")) == ["a-M", "b-m"]

    def test_a_number_where_nothing_else_helps(self):
        specs = [ModelSpec("m", f"/{place}/x/m", kind="directory") for place in ("a", "b")]
        assert self.aliases(*specs) == ["m", "m-2"]

    @given(
        st.lists(
            st.builds(
                ModelSpec,
                alias=st.sampled_from(["m", "M", "a-m", "m-2"]),
                source=st.sampled_from(["a/m", "b/m", "a/M"]),
                revision=st.sampled_from(["main", "v1", COMMIT]),
            )
        )
    )
    def test_always_unique_and_nothing_else_changes(self, specs):
        found = unique_aliases(specs)
        assert len({spec.alias.casefold() for spec in found}) == len(found)
        assert [replace(spec, alias="") for spec in found] == [
            replace(spec, alias="") for spec in dict.fromkeys(specs)
        ]


def test_import_is_light():
    heavy = ("torch", "transformers", "huggingface_hub", "gguf", "numpy", "hashlib", "tomllib")
    code = (
        "import pytest, sys\nbefore = set(sys.modules)\n"
        "import pytest_tokenbudget.models.resolution\n"
        f"print(sorted((set(sys.modules) - before) & set({heavy!r})))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
