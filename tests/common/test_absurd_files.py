"""Files that nobody meant: each reader ends in a sentence, whatever is in the file."""

import os
import shutil
import time
from pathlib import Path

import pytest

from pytest_tokenbudget.baselines.reading import read_baseline
from pytest_tokenbudget.baselines.run import BaselineError
from pytest_tokenbudget.common.outside_text import HARMFUL
from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.models.files import ModelError, read_details, read_gguf_details
from pytest_tokenbudget.models.spec import ModelSpec
from pytest_tokenbudget.recipes.recipe import RecipeError
from pytest_tokenbudget.recipes.recipe import _read_json as read_recipe
from pytest_tokenbudget.recorded.files import load_recordings
from pytest_tokenbudget.recorded.records import RecordingError
from pytest_tokenbudget.settings.config_file import ConfigError, read_toml
from pytest_tokenbudget.settings.generation_config import read_generation_config
from pytest_tokenbudget.studies.errors.annotation_tables import AnnotationError, read_sheet
from pytest_tokenbudget.tasks.base import TaskError
from pytest_tokenbudget.tasks.jsonl import JsonlTask

FIXTURES = Path(__file__).parents[2] / "fixtures"
pytest_plugins = ["run_fixtures"]

SENTENCES = (
    *(AnnotationError, BaselineError, ConfigError, EngineError),
    *(ModelError, RecipeError, RecordingError, TaskError),
)
DIGITS = b"9" * 5_000
CONTENTS = {
    "empty": b"",
    "blank": b" \n\t\n",
    "nested-lists": b"[" * 100_000,
    "closed-lists": b"[" * 100_000 + b"]" * 100_000,
    "nested-objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "500-levels": b"[" * 500 + b"]" * 500,
    "digits": b'{"id": ' + DIGITS + b"}",
    "toml-digits": b"budgets = " + DIGITS,
    "hexadecimal": b"max_new_tokens: 0x" + b"f" * 5_000,
    "hexadecimal-toml": b"budgets = 0x" + b"f" * 5_000,
    "yaml-date": b"defaults: 2020-01-01\n2020-01-01: {max_new_tokens: 5}",
    "toml-date": b"model = 2020-01-01",
    "aliases": b"a0: &a0 [1, 1]\n"
    + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 40)),
    "alias-of-itself": b"defaults: &a {max_new_tokens: *a}",
    "null": b"null",
    "number": b"17",
    "text": b'"text"',
    "list": b"[1, null, []]",
    "nan": b'{"question": NaN, "answer": Infinity}',
    "utf-16": "\ufeff{}".encode("utf-16-le"),
    "latin-1": b'{"question": "caf\xe9"}',
    "nul": b"\0" * 1_000,
    "surrogate": rb'{"question": "\ud800", "answer": "1"}',
    "control": b'{"\x1b]0;x\x07": 1}',
    "long-key": b'{"' + b"k" * 200_000 + b'": 1}',
}


def in_model(name):
    """Reads a model's directory in which one file is absurd."""

    def read(path: Path) -> None:
        folder = path.with_name("model")
        shutil.copytree(FIXTURES / "models" / "nano-reasoner", folder)
        (folder / name).unlink(missing_ok=True)
        os.replace(path, folder / name)
        read_details(folder)
        from pytest_tokenbudget.engines import loading

        spec = ModelSpec("m", str(folder), kind="directory")
        config = loading.load_config(spec)
        loading.end_ids(spec, config, loading.load_tokenizer(spec))

    return read


MODEL_FILES = (
    *("config.json", "tokenizer_config.json", "tokenizer.json", "added_tokens.json"),
    *("generation_config.json", "chat_template.json", "chat_template.jinja"),
    *("special_tokens_map.json", "model.safetensors.index.json"),
)
READERS = {
    "tokenbudget.toml": read_toml,
    "limits.yaml": read_generation_config,
    "task.jsonl": JsonlTask,
    "recorded.json": lambda path: load_recordings([path]),
    "recorded.jsonl": lambda path: load_recordings([path]),
    "baseline.json": read_baseline,
    "recipes.json": read_recipe,
    "table.tsv": read_sheet,
    "model.gguf": read_gguf_details,
    **{name: in_model(name) for name in MODEL_FILES},
}


def ends_in_a_sentence(name: str, path: Path) -> str | None:
    start = time.perf_counter()
    try:
        READERS[name](path)
    except SENTENCES as error:
        message = str(error)
        assert path.name in message or "model m" in message, message
        assert len(message) < 2_000, message[:3_000]
        assert "\n" not in message
        assert not HARMFUL.search(message)
        assert "Traceback" not in message
    else:
        message = None
    assert time.perf_counter() - start < 30
    return message


# All files of a model are read by the same few functions.
USUAL = ("empty", "nested-lists", "digits", "list", "text", "utf-16", "nul")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param(
            *(name, content),
            marks=pytest.mark.slow if name in MODEL_FILES and content not in USUAL else (),
        )
        for name in READERS
        for content in CONTENTS
    ],
)
def test_absurd_content_ends_in_a_sentence(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(CONTENTS[content])
    ends_in_a_sentence(name, path)


@pytest.mark.parametrize("kind", ["directory", "pipe", "device", "unreadable", "link-to-nothing"])
@pytest.mark.parametrize("name", READERS)
def test_paths_that_are_no_files_end_in_a_sentence(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link-to-nothing":
        path.symlink_to(tmp_path / "nothing")
    else:
        path.write_bytes(b"{}")
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read every file")
    message = ends_in_a_sentence(name, path)
    assert message or name in MODEL_FILES
