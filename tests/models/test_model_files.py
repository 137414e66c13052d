"""What a model's files say: thinking, GGUF metadata, commits, identity."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_helpers import (
    COMMIT,
    THINKING_TEMPLATE,
    cached,
    make_model,
    resolve_error,
    user_catalogue,
)

from pytest_tokenbudget.models.gguf_header import read_gguf_header, read_gguf_tokens
from pytest_tokenbudget.models.resolution import (
    DEFAULT_MODEL,
    ModelError,
    ModelSpec,
    identity,
    identity_hash,
    resolve_commit,
    resolve_model,
)
from pytest_tokenbudget.models.thinking_formats import builtin_formats

pytest_plugins = ["model_fixtures"]
pytestmark = pytest.mark.usefixtures("hub_cache")


THINK = builtin_formats()["think"].resolved({})


class DictCache:
    """A hash cache that counts."""

    def __init__(self):
        self.known = {}
        self.hits = 0

    def get(self, path, size, mtime_ns):
        digest = self.known.get((path, size, mtime_ns))
        self.hits += digest is not None
        return digest

    def put(self, path, size, mtime_ns, digest):
        self.known[path, size, mtime_ns] = digest


class TestThinkingDetection:
    @pytest.mark.parametrize(
        ("template", "expected"),
        [
            ("{{ messages }}", None),
            (THINKING_TEMPLATE, THINK),
            ("{{ '<think>\n' }}", replace(THINK, switch=None, prompt_opens=True)),
            (
                "{% if not thinking is defined %}<think>{% endif %}",
                replace(THINK, switch="thinking"),
            ),
            ("I am thinking of <think>", replace(THINK, switch=None, prompt_opens=True)),
            ("<think>I am thinking</think>", replace(THINK, switch=None)),
            ([{"name": "default", "template": THINKING_TEMPLATE}], THINK),
        ],
    )
    def test_from_the_template(self, tmp_path, catalogue, template, expected):
        directory = make_model(tmp_path / "m", template=template)
        assert resolve_model(str(directory), catalogue).thinking == expected

    def test_template_in_a_file_of_its_own_counts_before_the_tokenizer_s(self, tmp_path, catalogue):
        directory = make_model(tmp_path / "m", template="{{ messages }}")
        (directory / "chat_template.jinja").write_text(THINKING_TEMPLATE)
        assert resolve_model(str(directory), catalogue).thinking == THINK

    @pytest.mark.parametrize(
        ("file", "content"),
        [
            ("tokenizer.json", {"added_tokens": [{"id": 1, "content": "<think>"}]}),
            ("added_tokens.json", {"<think>": 1}),
            ("tokenizer_config.json", {"added_tokens_decoder": {"1": {"content": "<think>"}}}),
        ],
    )
    def test_from_the_tokens(self, tmp_path, catalogue, file, content):
        directory = make_model(tmp_path / "m")
        (directory / file).write_text(json.dumps(content))
        found = resolve_model(str(directory), catalogue).thinking
        assert found == replace(THINK, switch=None, ids=(("<think>", 1),))

    def test_of_the_embedded_model_agrees_with_the_catalogue(self, tmp_path, catalogue):
        spec = resolve_model(DEFAULT_MODEL, catalogue)
        directory = tmp_path / "copy"
        directory.mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            (directory / name).write_bytes((Path(spec.source) / name).read_bytes())
        (directory / "config.json").write_text("{}")
        assert resolve_model(str(directory), catalogue).thinking == spec.thinking
        assert spec.thinking.ids == (("</think>", 1023), ("<think>", 1022))

    def test_what_the_user_says_is_not_overruled(self, tmp_path):
        make_model(tmp_path / "m", template=THINKING_TEMPLATE)
        aliases = user_catalogue(
            tmp_path, '[models.m]\npath = "m"\nthinking = false\ncontext = 5\n'
        )
        spec = resolve_model("m", aliases)
        assert (spec.thinking, spec.context) == (None, 5)


def write_gguf(path: Path, **how) -> Path:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "qwen3", **how)
    writer.add_context_length(1234)
    writer.add_token_list(["<think>", "a", "", "é", "</think>", "<|end|>"])
    writer.add_token_types([1, 2, 3, 4, 4, 3])
    writer.add_array("some.floats", [0.5, 1.5])
    writer.add_array("some.flags", [True, False, True])
    writer.add_float64("some.double", 0.25)
    writer.add_bool("some.flag", True)
    writer.add_int8("some.small", -3)
    writer.add_chat_template(THINKING_TEMPLATE)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class TestGguf:
    @pytest.fixture
    def gguf_file(self, tmp_path):
        return write_gguf(tmp_path / "tiny-Q4.gguf")

    def test_metadata(self, gguf_file, catalogue):
        spec = resolve_model(str(gguf_file), catalogue)
        assert spec == ModelSpec(
            "tiny-Q4",
            str(gguf_file),
            context=1234,
            thinking=replace(THINK, ids=(("</think>", 4),)),
            kind="gguf",
        )

    def test_tokens_that_are_never_in_pieces(self, gguf_file):
        assert read_gguf_tokens(gguf_file) == {"": 2, "é": 3, "</think>": 4, "<|end|>": 5}

    def test_header_is_what_the_gguf_library_reads(self, gguf_file):
        gguf = pytest.importorskip("gguf")
        fields = gguf.GGUFReader(gguf_file).fields
        expected = {
            name: field.contents()
            for name, field in fields.items()
            if not name.startswith("GGUF.") and gguf.GGUFValueType.ARRAY not in field.types
        }
        assert len(expected) >= 6
        assert read_gguf_header(gguf_file) == expected

    def test_every_shorter_file_is_an_error_of_ours(self, gguf_file, tmp_path, catalogue):
        whole = gguf_file.read_bytes()
        end = whole.index(THINKING_TEMPLATE.encode()) + len(THINKING_TEMPLATE)
        short = tmp_path / "short.gguf"
        for length in range(0, end, 7):
            short.write_bytes(whole[:length])
            assert "short.gguf cannot be read as GGUF" in resolve_error(str(short), catalogue)

    def test_other_byte_order(self, gguf_file, tmp_path):
        gguf = pytest.importorskip("gguf")
        big = write_gguf(tmp_path / "big.gguf", endianess=gguf.GGUFEndian.BIG)
        assert read_gguf_header(big) == read_gguf_header(gguf_file)
        assert big.read_bytes() != gguf_file.read_bytes()

    def test_unknown_version(self, gguf_file):
        whole = gguf_file.read_bytes()
        gguf_file.write_bytes(whole[:4] + b"\x09\0\0\0" + whole[8:])
        with pytest.raises(ValueError, match="version 9"):
            read_gguf_header(gguf_file)

    @given(st.data())
    def test_damage_is_found_or_harmless(self, tmp_path_factory, data):
        file = tmp_path_factory.getbasetemp() / "damaged.gguf"
        if not hasattr(TestGguf, "whole"):
            TestGguf.whole = write_gguf(file).read_bytes()
        damaged = bytearray(self.whole)
        for place in data.draw(st.lists(st.integers(4, len(damaged) - 1), min_size=1, max_size=9)):
            damaged[place] = data.draw(st.sampled_from([0, 1, 8, 9, 127, 128, 255]))
        file.write_bytes(damaged)
        # Any other error would fail the test.
        with suppress(ValueError):
            assert isinstance(read_gguf_header(file), dict)

    def test_huge_lengths_cost_nothing(self, gguf_file, tmp_path, catalogue):
        whole = gguf_file.read_bytes()
        tokens = whole.index(b"tokenizer.ggml.tokens") + len("tokenizer.ggml.tokens") + 8
        bad = tmp_path / "bad.gguf"
        bad.write_bytes(whole[:tokens] + b"\xff" * 8 + whole[tokens + 8 :])
        assert "bad.gguf cannot be read as GGUF" in resolve_error(str(bad), catalogue)

    def test_identity_is_the_content_s(self, gguf_file, tmp_path, catalogue):
        other = tmp_path / "renamed.gguf"
        other.write_bytes(gguf_file.read_bytes())
        first, second = (resolve_model(str(path), catalogue) for path in (gguf_file, other))
        assert identity(first, "float32", "none") == identity(second, "float32", "none")

    def test_missing_file(self, tmp_path, catalogue):
        text = resolve_error(str(tmp_path / "gone.gguf"), catalogue)
        assert "there is no file" in text
        assert "gone.gguf" in text

    def test_broken_file(self, tmp_path, catalogue):
        (tmp_path / "bad.gguf").write_bytes(b"not a model at all, only some bytes")
        text = resolve_error(str(tmp_path / "bad.gguf"), catalogue)
        assert "bad.gguf" in text
        assert "GGUF" in text

    def test_empty_file(self, tmp_path, catalogue):
        (tmp_path / "bad.gguf").touch()
        assert "GGUF" in resolve_error(str(tmp_path / "bad.gguf"), catalogue)


class TestCommit:
    def test_pinned_commit_needs_no_cache(self):
        assert resolve_commit(ModelSpec("m", "org/m", COMMIT)) == COMMIT

    def test_branch_comes_from_the_cache(self, hub_cache):
        spec = ModelSpec("m", "org/m", "main")
        assert resolve_commit(spec) is None
        cached(hub_cache, "org/m")
        assert resolve_commit(spec) == COMMIT
        assert resolve_commit(replace(spec, revision="v2")) is None
        assert resolve_commit(replace(spec, source="org/other")) is None

    def test_agrees_with_huggingface_hub(self, hub_cache):
        from huggingface_hub import try_to_load_from_cache

        cached(hub_cache, "org/m")
        found = try_to_load_from_cache("org/m", "config.json", cache_dir=hub_cache, revision="main")
        assert Path(found).parent.name == resolve_commit(ModelSpec("m", "org/m"))

    def test_damaged_ref_is_no_commit(self, hub_cache):
        cached(hub_cache, "org/m", commit="nonsense")
        assert resolve_commit(ModelSpec("m", "org/m")) is None

    def test_files_on_disk_have_none(self, catalogue):
        assert resolve_commit(catalogue[DEFAULT_MODEL]) is None


class TestIdentity:
    @pytest.fixture
    def directory(self, tmp_path):
        return make_model(tmp_path / "m")

    def of(self, directory, hashes=None):
        return identity(
            ModelSpec("any", str(directory), kind="directory"), "float32", "none", hashes
        )

    def test_hub_model(self, hub_cache):
        spec = ModelSpec("m", "org/m", "main")
        assert identity(spec, "bfloat16", "4bit") == {
            "dtype": "bfloat16",
            "engine": "transformers",
            "model": "org/m",
            "quantization": "4bit",
            "revision": "main",
        }
        cached(hub_cache, "org/m")
        assert identity(spec, "bfloat16", "4bit")["revision"] == COMMIT

    def test_keys_stand_in_order(self, directory):
        for found in (self.of(directory), identity(ModelSpec("m", "o/m"), "float32", "none")):
            assert list(found) == sorted(found)

    def test_alias_and_place_are_no_part_of_it(self, directory, tmp_path):
        moved = make_model(tmp_path / "elsewhere" / "other")
        assert self.of(moved) == self.of(directory)
        spec = ModelSpec("a", "org/m")
        assert identity(spec, "float32", "none") == identity(
            replace(spec, alias="b"), "float32", "none"
        )

    @pytest.mark.parametrize(
        "name",
        [
            "config.json",
            "model.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "generation_config.json",
            "merges.txt",
        ],
    )
    def test_relevant_file_changes_it(self, directory, name):
        before = self.of(directory)
        (directory / name).write_bytes(b'{"x": 1}')
        assert self.of(directory) != before

    @pytest.mark.parametrize(
        "name", ["README.md", "LICENSE", "trainer_state.json", ".gitattributes", "optimizer.pt"]
    )
    def test_other_file_does_not(self, directory, name):
        before = self.of(directory)
        (directory / name).write_bytes(b"anything")
        assert self.of(directory) == before

    def test_contents_that_trade_places_change_it(self, tmp_path):
        first, second = make_model(tmp_path / "a"), make_model(tmp_path / "b")
        for directory, one, two in ((first, b"1", b"2"), (second, b"2", b"1")):
            (directory / "a.safetensors").write_bytes(one)
            (directory / "b.safetensors").write_bytes(two)
        assert self.of(first) != self.of(second)

    def test_cache_is_used_and_noticed_changes_are_read_again(self, directory):
        cache = DictCache()
        first = self.of(directory, cache)
        assert (cache.hits, len(cache.known)) == (0, 4)
        assert self.of(directory, cache) == first == self.of(directory)
        assert cache.hits == 4
        weights = directory / "model.safetensors"
        weights.write_bytes(b"WEIGHTS")
        os.utime(weights, ns=(1, 1))
        assert self.of(directory, cache) != first
        assert cache.hits == 7

    def test_dtype_and_quantisation_change_it(self):
        spec = ModelSpec("m", "org/m")
        found = {
            identity_hash(identity(spec, dtype, quantization, engine=engine))
            for dtype in ("float32", "bfloat16")
            for quantization in ("none", "4bit")
            for engine in ("transformers", "vllm")
        }
        assert len(found) == 8

    def test_auto_is_no_dtype(self):
        with pytest.raises(ValueError, match="auto"):
            identity(ModelSpec("m", "org/m"), "auto", "none")

    def test_model_without_files(self, tmp_path):
        with pytest.raises(ModelError, match="no files"):
            self.of(tmp_path)

    @given(st.dictionaries(st.text(), st.text(), max_size=4), st.randoms())
    def test_hash_does_not_depend_on_order(self, found, random):
        items = list(found.items())
        random.shuffle(items)
        assert identity_hash(dict(items)) == identity_hash(found)
        assert identity_hash({**found, "one more key": ""}) != identity_hash(found) or (
            found.get("one more key") == ""
        )
