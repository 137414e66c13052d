"""What the allocation eval writes can be read back as a recipe."""

from __future__ import annotations

import json

import pytest

from pytest_tokenbudget.recipes.__main__ import main
from pytest_tokenbudget.recipes.recipe import RecipeError, read_recipe

SETTINGS = {
    "schema": "tokenbudget-allocation-settings/1",
    "model": "qwen3-0.6b",
    "model_id": "Qwen/Qwen3-0.6B",
    "policy": "one limit",
    "settings": {"limit": 1536},
    "thinking_token_limits": {"all": 1536},
    "answer_tokens": 300,
    "engines": {},
}


def written(tmp_path, **changes):
    path = tmp_path / "allocation_settings_m.json"
    path.write_text(json.dumps({k: v for k, v in (SETTINGS | changes).items() if v is not None}))
    return path


def test_a_measured_limit_is_written_into_the_recipe(tmp_path, capsys):
    path = written(tmp_path)
    recipe = read_recipe(path)
    assert (recipe.id, recipe.model_path) == ("qwen3-0.6b", "Qwen/Qwen3-0.6B")
    assert (recipe.max_thinking_tokens, recipe.answer_tokens) == (1536, 300)
    assert main([str(path), "--engine", "vllm"]) == 0
    shown = capsys.readouterr().out
    assert "# thinking budget: 1,536 tokens (explicit" in shown
    assert '"thinking_token_budget": 1536' in shown


@pytest.mark.parametrize(
    ("evidence", "first"),
    [
        (None, "# NO EVIDENCE stands behind these settings: "),
        ("NONE: not a recommendation; limit 1,536 ...", "# NO EVIDENCE stands behind these "),
        (
            "limit 1,536: shown to be\n not worse",
            "# evidence: limit 1,536: shown to be not worse\n",
        ),
    ],
)
def test_the_first_line_is_the_evidence(tmp_path, capsys, evidence, first):
    assert main([str(written(tmp_path, evidence=evidence))]) == 0
    assert capsys.readouterr().out.startswith(first)


def test_thinking_off(tmp_path):
    recipe = read_recipe(written(tmp_path, policy="thinking off", thinking_token_limits={"all": 0}))
    assert recipe.max_thinking_tokens == 0


def test_the_largest_of_several_limits(tmp_path):
    limits = {"1-step": 64, "2-step": 512, "3-step": 128}
    recipe = read_recipe(written(tmp_path, policy="per category", thinking_token_limits=limits))
    assert recipe.max_thinking_tokens == 512
    assert recipe.name == "qwen3-0.6b (the largest of 3 limits)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"policy": "first stable answer", "thinking_token_limits": {}},
            "the policy 'first stable answer' has no thinking limit",
        ),
        ({"model_id": None}, "the settings lack model_id: run the allocation eval again"),
        ({"thinking_token_limits": None}, "the settings lack thinking_token_limits"),
        ({"thinking_token_limits": {"all": "many"}}, "max_thinking_tokens must be a whole number"),
        ({"thinking_token_limits": {"a": "many", "b": 1}}, "not supported between"),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path, capsys, changes, message):
    path = written(tmp_path, **changes)
    with pytest.raises(RecipeError, match=message):
        read_recipe(path)
    assert main([str(path)]) == 4
    assert "allocation_settings_m.json: " in capsys.readouterr().err
