"""The allocation table cell by cell, who matches which row, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tokenbudget.models.allocation_table import (
    CEILING,
    FLOOR,
    TABLE,
    AllocationError,
    allocate,
    budget,
    family_of,
    find_row,
    modes,
    scale_to_context,
)

MODES = ("auto", "conservative", "balanced", "aggressive", "disabled")
# Written out, not computed: this is the published table, and what it says of its neighbours.
CELLS = {
    "MiniMaxAI/MiniMax-M2": ("MiniMax-M2", 64_000, 16_000, 64_000, 128_000, 0),
    "MiniMaxAI/MiniMax-M2.1": ("MiniMax-M2", 64_000, 16_000, 64_000, 128_000, 0),
    "0xSero/MiniMax-M2.1-REAP-50": (
        "MiniMax-M2 REAP-50", 128_000, 32_000, 128_000, 256_000, 0,
    ),
    "zai-org/GLM-4.5": ("GLM-4.5/4.6/4.7", 32_000, 8_000, 32_000, 64_000, 0),
    "zai-org/GLM-4.6": ("GLM-4.5/4.6/4.7", 32_000, 8_000, 32_000, 64_000, 0),
    "zai-org/GLM-4.7": ("GLM-4.5/4.6/4.7", 32_000, 8_000, 32_000, 64_000, 0),
    "deepseek-ai/DeepSeek-R1": ("DeepSeek-R1", 64_000, 16_000, 64_000, 128_000, 0),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": (
        "DeepSeek-R1 distills", 64_000, 16_000, 64_000, 128_000, 0,
    ),
    "Qwen/Qwen3-0.6B": ("Qwen3", 32_000, 8_000, 32_000, 64_000, 0),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", CELLS)
def test_cell(model, mode):
    row, *tokens = CELLS[model]
    found = allocate(model, mode)
    assert found.tokens == tokens[MODES.index(mode)]
    assert (found.row, found.mode, found.model) == (row, mode, model)


def test_every_row_has_a_cell():
    assert {row.name for row in TABLE} == {cells[0] for cells in CELLS.values()}
    assert modes() == MODES
    assert [row.name for row in TABLE if not row.published] == ["Qwen3"]


@pytest.mark.parametrize(
    ("model", "row"),
    [
        ("minimaxai/minimax-m2.5", "MiniMax-M2"),
        ("cerebras/MiniMax-M2-REAP-162B-A10B", "MiniMax-M2"),
        ("someone/MiniMax-M2.1-REAP_50-W4A16", "MiniMax-M2 REAP-50"),
        ("someone/MiniMax-M2-REAP-500", "MiniMax-M2"),
        ("zai-org/GLM-4.5-Air-FP8", "GLM-4.5/4.6/4.7"),
        ("zai-org/GLM-4.6V", "GLM-4.5/4.6/4.7"),
        ("zai-org/GLM-4.7-Flash", "GLM-4.5/4.6/4.7"),
        ("glm-4-7", "GLM-4.5/4.6/4.7"),
        ("deepseek-ai/DeepSeek-R1-0528", "DeepSeek-R1"),
        ("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", "DeepSeek-R1 distills"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "DeepSeek-R1 distills"),
        ("/models/DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf", "DeepSeek-R1 distills"),
        ("C:\\models\\GLM-4.6\\", "GLM-4.5/4.6/4.7"),
        ("Qwen/Qwen3-235B-A22B-Thinking-2507", "Qwen3"),
        ("Qwen/Qwen3-8B@main", "Qwen3"),
    ],
)
def test_a_relative_matches(model, row):
    assert find_row(model)[0].name == row


@pytest.mark.parametrize(
    "model",
    [
        # What a search for substrings takes for one of the families.
        "deepseek-r1-experiments/llama-3.2-1b",
        "tngtech/DeepSeek-R1T-Chimera",
        "deepseek-ai/DeepSeek-V3.1",
        "deepseek-ai/DeepSeek-Coder1",
        "zai-org/GLM-4-9B-0414",
        "zai-org/GLM-4-5B",
        "zai-org/GLM-5",
        "MiniMaxAI/MiniMax-M1-80k",
        "MiniMaxAI/MiniMax-M25",
        "Qwen/Qwen3.5-9B",
        "Qwen/Qwen2.5-1.5B-Instruct",
        "nano-reasoner",
        "",
    ],
)
def test_a_stranger_is_unknown(model):
    found = allocate(model)
    assert (found.tokens, found.row) == (None, None)
    assert "unknown model" in found.reason
    assert allocate(model, "disabled").tokens == 0
    assert allocate(model, explicit=77).tokens == 77


@pytest.mark.parametrize(
    "model",
    [
        "Qwen/Qwen3-4B-Instruct-2507",
        "Qwen/Qwen3-Coder-30B-A3B-Instruct",
        "Qwen/Qwen3-Embedding-0.6B",
        "Qwen/Qwen3-8B-Base",
        "zai-org/GLM-4.5-Base",
    ],
)
def test_a_relative_that_does_not_think_is_unknown(model):
    found = allocate(model)
    assert found.tokens is None
    assert "does not think" in found.reason
    assert family_of(model) is None


@pytest.mark.parametrize(
    ("model", "family"),
    [("openai/gpt-oss-20b", "gpt-oss"), ("ByteDance-Seed/Seed-OSS-36B-Instruct", "seed-oss")],
)
def test_a_family_without_a_row(model, family):
    assert family_of(model) == family
    found = allocate(model)
    assert found.tokens is None
    assert f"family {family}, for which the table has no row" in found.reason


def test_the_reason_says_what_matched():
    reason = allocate("0xSero/MiniMax-M2.1-REAP-50", "conservative").reason
    assert "row MiniMax-M2 REAP-50" in reason
    assert "'minimax-m2.1' and 'reap-50'" in reason
    assert "128,000 x 0.25" in reason


@pytest.mark.parametrize("tokens", [0, 1, 2047, 42_000, 600_000])
@pytest.mark.parametrize("mode", MODES)
def test_an_explicit_value_wins(tokens, mode):
    found = allocate("MiniMaxAI/MiniMax-M2.1", mode, tokens)
    assert (found.tokens, found.mode, found.row) == (tokens, "explicit", "MiniMax-M2")


def test_what_is_refused():
    with pytest.raises(AllocationError, match=r"-1 tokens is below zero; 0 switches thinking off"):
        allocate("Qwen/Qwen3-8B", explicit=-1)
    with pytest.raises(
        AllocationError, match=r"40,961 tokens is above the context of Qwen/Qwen3-8B.* 40,960"
    ):
        allocate("Qwen/Qwen3-8B", explicit=40_961, context=40_960)
    assert allocate("Qwen/Qwen3-8B", explicit=40_960, context=40_960).tokens == 40_960
    with pytest.raises(AllocationError, match=r"whole number of tokens, not True"):
        allocate("Qwen/Qwen3-8B", explicit=True)
    with pytest.raises(AllocationError, match=r"unknown thinking mode 'turbo'; allowed are auto, "):
        allocate("Qwen/Qwen3-8B", "turbo")


def test_more_than_the_context_holds_is_said():
    assert "more than the model's context of 40,960" in (
        allocate("Qwen/Qwen3-8B", "aggressive", context=40_960).reason
    )
    assert "context" not in allocate("Qwen/Qwen3-8B", context=40_960).reason


@pytest.mark.parametrize(
    ("base", "mode", "tokens"),
    [
        (4_000, "conservative", FLOOR),
        (8_195, "conservative", FLOOR),
        (8_196, "conservative", 2_049),
        (300_000, "aggressive", CEILING),
        (600_000, "auto", CEILING),
        (1_000, "disabled", 0),
    ],
)
def test_floor_and_ceiling(base, mode, tokens):
    assert budget(base, mode) == tokens


# Scaled to a context


@pytest.mark.parametrize("model", ["Qwen/Qwen3-0.6B", "nano-reasoner"])
@pytest.mark.parametrize(
    ("mode", "tokens"),
    [("auto", 896), ("conservative", 224), ("balanced", 896), ("aggressive", 1792)],
)
def test_shares_of_a_small_context(model, mode, tokens):
    # 2048 - 155 - 100 - 1 leaves 1792.
    scaled = scale_to_context(allocate(model, mode), 2048, 155, answer_tokens=100)
    assert (scaled.tokens, scaled.context) == (tokens, 2048)
    assert "1,792" in scaled.reason
    assert ("unknown" in scaled.reason) == (model == "nano-reasoner")


def test_what_fits_is_not_scaled():
    found = allocate("Qwen/Qwen3-8B", "balanced")
    assert scale_to_context(found, 131_072, 500).tokens == 32_000
    # 64,000 of the largest mode is what has to fit, to the token.
    assert scale_to_context(found, 64_000 + 500 + 1, 500).tokens == 32_000
    assert scale_to_context(found, 64_000 + 500, 500).tokens == 31_999


def test_disabled_stays_off_and_explicit_stays_or_is_refused():
    assert scale_to_context(allocate("nano-reasoner", "disabled"), 2048, 100).tokens == 0
    explicit = allocate("nano-reasoner", explicit=1947)
    assert scale_to_context(explicit, 2048, 100).tokens == 1947
    with pytest.raises(AllocationError, match=r"has room for 1,946 beside a prompt of 101"):
        scale_to_context(explicit, 2048, 101)


def test_no_room_is_refused():
    with pytest.raises(AllocationError, match="leave no room"):
        scale_to_context(allocate("Qwen/Qwen3-8B"), 2048, 1047, answer_tokens=1000)


@given(
    context=st.integers(2, 300_000),
    prompt=st.integers(0, 300_000),
    model=st.sampled_from([*CELLS, "nano-reasoner"]),
)
def test_scaling_keeps_order_and_fits(context, prompt, model):
    if context - prompt - 1 < 1:
        return
    scaled = {
        mode: scale_to_context(allocate(model, mode), context, prompt).tokens for mode in MODES
    }
    assert scaled["disabled"] == 0
    assert scaled["conservative"] <= scaled["balanced"] == scaled["auto"] <= scaled["aggressive"]
    assert scaled["aggressive"] + prompt + 1 <= context
