"""What each kind of study has to generate, and where: from settings to a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from pytest_tokenbudget.common import xdist
from pytest_tokenbudget.common.outside_text import PrintableError
from pytest_tokenbudget.models.choice import engine_of
from pytest_tokenbudget.settings.context_limits import generation_room
from pytest_tokenbudget.settings.options import Settings

if TYPE_CHECKING:
    from pytest_tokenbudget.core.engine import Decoding, Engine
    from pytest_tokenbudget.core.plan import Plan
    from pytest_tokenbudget.core.store import StoredPrompt, TraceStore
    from pytest_tokenbudget.models.resolution import ModelSpec

SAMPLE_TEMPERATURE = 0.7
SAMPLE_TOP_P = 0.9


class SetupError(PrintableError):
    """A study cannot be made; the message is for people."""


class NotApplicableError(SetupError):
    """A model cannot have a study; its tests are skipped. The message is for people."""


class Kind(StrEnum):
    """What a study is made for; each kind has traces of its own.

    ``main`` is one sample a problem with the decoding that was asked for, ``stochastic`` several
    with noise. ``thinking`` is one that thinks, ``off`` one with thinking switched off, ``forced``
    are answers after thinking that was ended by force, ``wait`` thinking that was sent on.
    ``context`` are answers after whole and truncated conversations, ``summary`` the summaries that
    stand in for parts of them. ``llm`` are answers to prompts of tests, from the fixture ``llm``.
    ``switched`` is ``main`` with thinking switched the other way, for tests that ask for ``mode``.
    """

    MAIN = "main"
    STOCHASTIC = "stochastic"
    THINKING = "thinking"
    OFF = "off"
    FORCED = "forced"
    WAIT = "wait"
    CONTEXT = "context"
    SUMMARY = "summary"
    SWITCHED = "switched"
    LLM = "llm"


OPTIONS = {
    Kind.MAIN: "--budgets",
    Kind.SWITCHED: "--budgets",
    Kind.STOCHASTIC: "--sample-budgets",
    Kind.THINKING: "--thinking-budgets",
}


@dataclass(frozen=True)
class Placement:
    """Where and in which form a model runs.

    Attributes:
        device: The device.
        dtype: Type of the weights.
        quantization: How they are quantised.
        share: Share of the device's memory that this process may take.
    """

    device: str
    dtype: str
    quantization: str
    share: float = 1.0


@dataclass
class Need:
    """What the selected tests need of one study.

    Attributes:
        budgets: Budgets that tests named.
        all_budgets: Whether a test needs the whole curve.
        reach: Output tokens that traces must reach to beyond the budgets.
        parts: By fixture, the parts of the study that tests named.
    """

    budgets: set[int] = field(default_factory=set)
    all_budgets: bool = False
    reach: int = 0
    parts: dict[str, set[str]] = field(default_factory=dict)


def budgets_of(settings: Settings, spec: ModelSpec, kind: Kind) -> tuple[int, ...]:
    """Budgets of a kind of study that the model's context could have room for, rising."""
    budgets = _configured_budgets(settings, kind)
    return tuple(b for b in budgets if spec.context is None or b < spec.context)


def _configured_budgets(settings: Settings, kind: Kind) -> tuple[int, ...]:
    return settings.sample_budgets if kind is Kind.STOCHASTIC else settings.budgets


def thinking_switch(settings: Settings, spec: ModelSpec, kind: Kind) -> bool | None:
    """What a kind of study asks of the chat template; None leaves it to the template."""
    if spec.thinking is None or spec.thinking.switch is None:
        return None
    if kind in (Kind.MAIN, Kind.STOCHASTIC, Kind.CONTEXT, Kind.LLM):
        return settings.thinking
    if kind is Kind.SWITCHED:
        return not settings.thinking
    return kind not in (Kind.OFF, Kind.SUMMARY)


def decoding_of(settings: Settings, kind: Kind) -> Decoding:
    """How a kind of study chooses its tokens."""
    several = kind is Kind.STOCHASTIC
    decoding = sampling_of(settings, several=several)
    if several and decoding.greedy and settings.samples > 1:
        own = "temperature" in settings.from_model_entry
        raise SetupError(
            f"{'temperature in the entry of the model' if own else '--temperature'}: 0 cannot be "
            f"used with --samples {settings.samples}: without noise all samples of phase 1b are "
            f"the same. Leave it out for {SAMPLE_TEMPERATURE}, or give a value above 0"
        )
    return decoding


def sampling_of(settings: Settings, *, several: bool) -> Decoding:
    """Temperature, nucleus and seed of the settings; ``several`` samples have noise by default."""
    from pytest_tokenbudget.core.engine import Decoding

    temperature, top_p = settings.temperature, settings.top_p
    if several and "temperature" not in settings.explicit:
        temperature = SAMPLE_TEMPERATURE
    if several and "top_p" not in settings.explicit:
        top_p = SAMPLE_TOP_P
    return Decoding(temperature, top_p, settings.seed)


def make_plan(
    settings: Settings, spec: ModelSpec, kind: Kind, need: Need, *, store: TraceStore, run: str
) -> Plan:
    """Plan what one model has to generate for one kind of study.

    ``store`` remembers the hashes of large files; ``run`` identifies this pytest session, for the
    choice of the GPU.
    """
    from pytest_tokenbudget.core.plan import Plan
    from pytest_tokenbudget.models.resolution import identity_hash

    which, where = _identity_and_place(settings, spec, store, run)
    possible = budgets_of(settings, spec, kind)
    return Plan(
        kind=kind,
        cliff_budgets=settings.cliff_budgets,
        alias=spec.alias,
        identity=which,
        model=identity_hash(which),
        where=where,
        task=settings.task,
        limit=settings.num_samples,
        samples=settings.samples if kind is Kind.STOCHASTIC else 1,
        thinking=thinking_switch(settings, spec, kind),
        format=spec.thinking,
        decoding=decoding_of(settings, kind),
        budgets=tuple(sorted({*(possible if need.all_budgets else ()), *need.budgets})),
        reach=need.reach,
        left_out=tuple(b for b in _configured_budgets(settings, kind) if b not in possible),
        margin=settings.margin,
        from_model_entry=settings.from_model_entry,
    )


def _identity_and_place(
    settings: Settings, spec: ModelSpec, store: TraceStore, run: str
) -> tuple[dict[str, str], str]:
    """What identifies a model's outputs, and where it runs, for people."""
    from pytest_tokenbudget.models.resolution import choose_quantization, identity

    if spec.endpoint is not None:
        from pytest_tokenbudget.engines.server.server_facts import describe

        return describe(spec, store)
    engine = engine_of(settings, spec)
    device = choose_device(settings, run)
    dtype = choose_dtype(settings.dtype if settings.dtype != "auto" else spec.dtype, device)
    quantization = choose_quantization(spec, device, settings.quantization)
    which = identity(spec, dtype, quantization, store, engine=engine)
    where = spec.source + (f"@{which['revision'][:7]}" if "revision" in which else "")
    if quantization != "none":
        where += f", {quantization}"
    by = "" if engine == "transformers" else f" by {engine}"
    return which, f"{where}, {dtype} on {device}{by}"


def placement_of(
    settings: Settings, spec: ModelSpec, which: Mapping[str, str], run: str
) -> Placement:
    """Where and in which form this process runs the model whose identity is ``which``.

    ``run`` identifies this pytest session, for the choice of the GPU.
    """
    if spec.endpoint is not None:
        return Placement("none", "none", "none")
    device = choose_device(settings, run)
    share = 1.0 if device == "cpu" else xdist.memory_share(gpus_of(settings))
    return Placement(device, which["dtype"], which["quantization"], share)


def fit(
    plan: Plan, spec: ModelSpec, prompts: Mapping[str, StoredPrompt], engine: Callable[[], Engine]
) -> Plan:
    """Leave out budgets for which the context has no room after the longest prompt.

    Raises:
        SetupError: If no budget is left.
    """
    context = spec.context or engine().context
    longest = max(len(prompt.ids) for prompt in prompts.values())
    room = generation_room(context, longest)
    fitting = tuple(b for b in plan.budgets if b <= room)
    if not fitting:
        budgets = ", ".join(map(str, sorted({*plan.budgets, *plan.left_out})))
        raise SetupError(
            f"{plan.alias}: no budget of {budgets} fits: its context of {context:,} tokens leaves "
            f"{max(room, 0):,} after the longest prompt of {longest:,}. Choose smaller "
            f"{OPTIONS[Kind(plan.kind)]}, or a task with shorter prompts."
        )
    left_out = {*plan.left_out, *plan.budgets} - set(fitting)
    return replace(
        plan, budgets=fitting, reach=min(plan.reach, room), left_out=tuple(sorted(left_out))
    )


def gpus_of(settings: Settings) -> int:
    """GPUs that one engine in this process takes."""
    if settings.engine != "vllm":
        return 1
    return settings.tensor_parallel * settings.data_parallel


def choose_device(settings: Settings, run: str) -> str:
    """``auto`` is CUDA where a GPU is visible, else the CPU; a worker gets GPUs of its own."""
    device = settings.device
    if device == "auto":
        device = "cuda" if xdist.visible_gpus() else "cpu"
    if device == "cuda":
        xdist.claim_gpus(run, gpus_of(settings))
    return device


def choose_dtype(dtype: str, device: str) -> str:
    """``auto`` is float32 on a CPU, bfloat16 on a GPU that has it, else float16."""
    if dtype != "auto":
        return dtype
    if device == "cpu":
        return "float32"
    if device.startswith("cuda"):
        import torch

        if torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
            return "float16"
        return "bfloat16"
    return "float16"
