"""The user's configuration file: where it may stand, and what is said of mistakes in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_tokenbudget.common.messages import nearest
from pytest_tokenbudget.settings.config_file import ConfigError, UserConfig, read_config

OPTIONS = ("budgets", "min_accuracy", "max_truncation", "task")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def message(rootdir: Path, options=OPTIONS) -> str:
    with pytest.raises(ConfigError) as caught:
        read_config(rootdir, options)
    return str(caught.value)


def test_no_configuration_is_an_empty_one(tmp_path):
    assert read_config(tmp_path, OPTIONS) == UserConfig()


def test_own_file(tmp_path):
    path = write(tmp_path / "tokenbudget.toml", 'task = "gsm8k"\n[models.a]\nid = "org/a"\n')
    config = read_config(tmp_path, OPTIONS)
    assert config.path == path
    assert config.options == {"task": "gsm8k"}
    assert config.models == {"a": {"id": "org/a"}}


def test_table_in_pyproject(tmp_path):
    path = write(
        tmp_path / "pyproject.toml",
        '[project]\nname = "x"\n[tool.tokenbudget]\nbudgets = [32, 64]\n'
        '[tool.tokenbudget.models.a]\nid = "org/a"\n',
    )
    config = read_config(tmp_path, OPTIONS)
    assert config.path == path
    assert "[tool.tokenbudget]" in config.where
    assert config.options == {"budgets": [32, 64]}
    assert config.models == {"a": {"id": "org/a"}}


@pytest.mark.parametrize("text", ["", "[tool.ruff]\nline-length = 100\n", 'tool = "hammer"\n'])
def test_pyproject_without_the_table_is_left_alone(tmp_path, text):
    write(tmp_path / "pyproject.toml", text)
    assert read_config(tmp_path, OPTIONS) == UserConfig()


def test_only_the_root_directory_is_searched(tmp_path):
    write(tmp_path / "tokenbudget.toml", 'task = "gsm8k"\n')
    inner = tmp_path / "inner"
    inner.mkdir()
    assert read_config(inner, OPTIONS).path is None


def test_two_configurations_name_both(tmp_path):
    own = write(tmp_path / "tokenbudget.toml", "")
    pyproject = write(tmp_path / "pyproject.toml", "[tool.tokenbudget]\n")
    text = message(tmp_path)
    assert str(own) in text
    assert str(pyproject) in text
    assert "[tool.tokenbudget]" in text


def test_own_file_beside_an_unrelated_pyproject(tmp_path):
    write(tmp_path / "tokenbudget.toml", 'task = "gsm8k"\n')
    write(tmp_path / "pyproject.toml", "[tool.pytest]\n")
    assert read_config(tmp_path, OPTIONS).options == {"task": "gsm8k"}


@pytest.mark.parametrize("name", ["tokenbudget.toml", "pyproject.toml"])
def test_syntax_error_names_file_and_line(tmp_path, name):
    path = write(tmp_path / name, "# a comment\n[models]\nbudgets = = 3\n")
    text = message(tmp_path)
    assert f"{path}, line 3" in text
    assert "column" in text


def test_syntax_error_at_the_end_names_the_last_line(tmp_path):
    path = write(tmp_path / "tokenbudget.toml", "a = 1\nbudgets = [1,\n")
    text = message(tmp_path)
    assert str(path) in text
    assert "line 2" in text
    assert "(at " not in text


def test_file_that_is_not_utf8_names_the_line(tmp_path):
    path = tmp_path / "tokenbudget.toml"
    path.write_bytes(b'task = "gsm8k"\n# caf\xe9\n')
    text = message(tmp_path)
    assert f"{path}, line 2" in text
    assert "UTF-8" in text


def test_byte_order_mark_is_no_error(tmp_path):
    (tmp_path / "tokenbudget.toml").write_bytes(b'\xef\xbb\xbftask = "gsm8k"\n')
    assert read_config(tmp_path, OPTIONS).options == {"task": "gsm8k"}


def test_unknown_key_names_the_nearest(tmp_path):
    path = write(tmp_path / "tokenbudget.toml", "min_acuracy = 0.5\n")
    text = message(tmp_path)
    assert str(path) in text
    assert "'min_acuracy'" in text
    assert "did you mean 'min_accuracy'?" in text
    for allowed in ("models", *OPTIONS):
        assert allowed in text


def test_all_unknown_keys_are_named_at_once(tmp_path):
    write(tmp_path / "tokenbudget.toml", "taks = 1\nzzz = 2\nmodel = 3\n")
    text = message(tmp_path)
    assert "'taks' (did you mean 'task'?)" in text
    assert "'model' (did you mean 'models'?)" in text
    assert "'zzz'," in text


def test_unknown_key_in_pyproject_names_the_table(tmp_path):
    write(tmp_path / "pyproject.toml", "[tool.tokenbudget]\nbudget = [1]\n")
    text = message(tmp_path)
    assert "[tool.tokenbudget]" in text
    assert "'budgets'" in text


def test_tool_table_in_own_file_is_explained(tmp_path):
    write(tmp_path / "tokenbudget.toml", '[tool.tokenbudget]\ntask = "gsm8k"\n')
    assert "without [tool.tokenbudget]" in message(tmp_path)


def test_keys_are_left_unchecked_without_option_names(tmp_path):
    write(tmp_path / "tokenbudget.toml", "anything = 1\n")
    assert read_config(tmp_path).options == {"anything": 1}


@pytest.mark.parametrize(
    ("text", "found"),
    [("models = 3\n", "3"), ('models = ["a"]\n', "an array"), ("models = true\n", "true")],
)
def test_models_must_be_a_table(tmp_path, text, found):
    write(tmp_path / "tokenbudget.toml", text)
    error = message(tmp_path)
    assert "models must be a table" in error
    assert found in error


def test_tokenbudget_must_be_a_table(tmp_path):
    write(tmp_path / "pyproject.toml", '[tool]\ntokenbudget = "on"\n')
    error = message(tmp_path)
    assert "must be a table" in error
    assert "'on'" in error


def test_nearest_knows_names_cut_short_and_ignores_case():
    assert nearest("nano", ["qwen-7b", "nano-reasoner"]) == ["nano-reasoner"]
    assert nearest("QWEN-7B", ["qwen-7b", "nano-reasoner"])[0] == "qwen-7b"
    assert nearest("zzzzzz", ["qwen-7b", "nano-reasoner"]) == []


@pytest.mark.parametrize("name", ["tokenbudget.toml", "pyproject.toml"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("[" * 20_000, "nested too deeply"),
        ("[" * 20_000 + "]" * 20_000, "nested too deeply"),
        ("{a=" * 20_000, "nested too deeply"),
        ("1" * 5_000, "line 3: an integer is too long"),
        ("1_1" * 3_000, "line 3: an integer is too long"),
        ("-" + "9" * 19 + "9", "task holds an integer that is too long"),
        ("0x" + "f" * 5_000, "task holds an integer that is too long"),
        (f"[1, {{a = 0x{'f' * 17}}}]", "task holds an integer that is too long"),
    ],
)
def test_absurd_values_are_told_with_the_file(tmp_path, name, value, words):
    path = write(tmp_path / name, f"#\n[tool.tokenbudget]\ntask = {value}\n")
    if name == "tokenbudget.toml":
        write(path, f"# one\n# two\ntask = {value}\n")
    text = message(tmp_path)
    assert str(path) in text
    assert words in text
    assert len(text) < 500


def test_a_number_in_place_of_the_table_is_told(tmp_path):
    write(tmp_path / "pyproject.toml", f"[tool]\ntokenbudget = 0x{'f' * 5_000}\n")
    assert "a very long number" in message(tmp_path)
