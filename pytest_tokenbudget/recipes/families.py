"""What engines must be told about the families of thinking models, with where it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pytest_tokenbudget.common.package_files import package_folder
from pytest_tokenbudget.models.allocation_table import family_of
from pytest_tokenbudget.models.thinking_formats import builtin_formats
from pytest_tokenbudget.texts.thinking_blocks import ThinkingFormat


@dataclass(frozen=True)
class ModelFamily:
    """A family of thinking models.

    Attributes:
        name: As :func:`pytest_tokenbudget.models.allocation_table.family_of` calls it.
        format: Name of its thinking format in ``models.toml``.
        template: Name of the packaged template that behaves as the family's does.
        vllm_parser: Name for vLLM's ``--reasoning-parser``; None where vLLM has none.
        sglang_parser: The same for SGLang.
        sampling: Temperature and top_p that the model cards recommend for thinking.
        sampling_off: The same without thinking, where the card tells them apart.
        sentence: Name of the closer whose words are the family's own; None where it has none.
    """

    name: str
    format: str
    template: str
    vllm_parser: str | None
    sglang_parser: str | None
    sampling: tuple[float, float]
    sampling_off: tuple[float, float] | None = None
    sentence: str | None = None

    @property
    def thinking(self) -> ThinkingFormat:
        """How its models mark their thinking."""
        return builtin_formats().get(self.format) or _ELSEWHERE[self.format]

    @property
    def message(self) -> str:
        """The family's own words for ending its thinking, without the tag; empty for none."""
        if self.sentence is None:
            return ""
        return self.thinking.closer(self.sentence).text.split(self.thinking.close)[0]


_ELSEWHERE: Final = {
    "seed-oss": ThinkingFormat(
        "<seed:think>", "</seed:think>", switch=None, hints=("thinking_budget",)
    )
}

# Parsers: vllm/reasoning/__init__.py and docs/features/reasoning_outputs.md of vLLM, DetectorMap in
# python/sglang/srt/parser/reasoning_parser.py of SGLang, both as stored in autumn 2026. Sampling:
# the model cards on the hub.
FAMILIES: Final[Mapping[str, ModelFamily]] = {
    family.name: family
    for family in (
        ModelFamily(
            "qwen3", "qwen3", "qwen3", "qwen3", "qwen3", (0.6, 0.95), (0.7, 0.8), "sentence"
        ),
        ModelFamily(
            "deepseek-r1", "deepseek-r1", "deepseek-r1", "deepseek_r1", "deepseek-r1", (0.6, 0.95)
        ),
        ModelFamily("glm-4.5", "glm-4", "glm-4.5", "glm45", "glm45", (1.0, 0.95)),
        ModelFamily(
            "minimax-m2",
            "minimax-m2",
            "minimax-m2",
            "minimax_m2_append_think",
            "minimax-append-think",
            (1.0, 0.95),
        ),
        ModelFamily("gpt-oss", "gpt-oss", "gpt-oss", "openai_gptoss", "gpt-oss", (1.0, 1.0)),
        ModelFamily("seed-oss", "seed-oss", "seed-oss", "seed_oss", None, (1.1, 0.95)),
    )
}


def find_family(model_id: str) -> ModelFamily | None:
    """The family of a resolved model id; None for a stranger.

    Args:
        model_id: The resolved id, not an alias.
    """
    name = family_of(model_id)
    return FAMILIES[name] if name is not None else None


def packaged_template(name: str) -> str:
    """The text of a template in ``fixtures/templates``, in this project's own words."""
    path = package_folder("embedded") / "templates" / f"{name}.jinja"
    return path.read_text(encoding="utf-8")
