"""Every option of a run: read from wherever it was set, and made into Settings.

A value comes from the command line, else from the file of ``--generation-config``, else from
pytest's ini or TOML file (``tokenbudget_NAME``), else from ``tokenbudget.toml`` or
``[tool.tokenbudget]`` (``NAME``), else from the table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_tokenbudget.settings.baseline_values import Tolerance
from pytest_tokenbudget.settings.config_file import ConfigError, UserConfig
from pytest_tokenbudget.settings.endpoints import shown_address
from pytest_tokenbudget.settings.generation_config import GenerationConfig, read_generation_config
from pytest_tokenbudget.settings.model_settings import budgets_of_entries
from pytest_tokenbudget.settings.option_flags import first_name
from pytest_tokenbudget.settings.option_table import (
    DEFAULT_BUDGETS,
    DEFAULT_CLIFF_BUDGETS,
    DEFAULT_THINKING_BUDGETS,
    NAMES,
    OPTIONS,
    STAGES,
    Option,
)
from pytest_tokenbudget.settings.option_values import Threshold
from pytest_tokenbudget.settings.project import Project

__all__ = [
    "DEFAULT_BUDGETS",
    "DEFAULT_CLIFF_BUDGETS",
    "NAMES",
    "OPTIONS",
    "Option",
    "Settings",
    "Threshold",
    "read_settings",
]


NONE_IS_EMPTY = (
    "annotations",
    "recorded",
    "thinking_budgets",
    "context_turns",
    "closers",
    "modes",
    "base_url",
    "min_conformance",
    "compare_fail",
)

NAMED_BY_PATH = ("model", "task", "tokenizer")
GENERATION_CONFIG = "generation_config"
# Budgets of which the file's limits are the largest.
LIMITED = ("budgets", "sample_budgets")


@dataclass(frozen=True)
class Settings:
    """Everything that a run was asked for, parsed and checked.

    Attributes:
        models: Names as given; resolved by ``models.resolve_model``.
        engine: ``auto``, ``transformers``, ``vllm`` or ``server``.
        base_url: Addresses of servers that serve the one model.
        served_model: Its name there, or None.
        server_api: ``auto``, ``ids`` or ``chat``.
        task: Task as given; resolved by ``tasks.registry.load_task``.
        num_samples: Problems per task, or None for all of them.
        budgets: Output token budgets, rising.
        thinking: Whether models that can switch their thinking shall think.
        temperature: 0 is greedy. Where nobody set it, phase 1b has a value of its own.
        top_p: Nucleus, 1 keeps all. Where nobody set it, phase 1b has a value of its own.
        generation_config: What the file of that name says, None without one; where the command
            line does not say otherwise, it is in the other fields already.
        samples: Samples a problem in phase 1b.
        sample_budgets: Budgets of phase 1b, rising.
        cliff_budgets: Budgets of the cliff, rising.
        error_samples: For each budget of phase 2, how many errors are picked for annotation.
        controls: How many right answers are picked at each of these budgets.
        thinking_budgets: Budgets of the thinking eval, rising, from 0; empty for the default.
        answer_tokens: Output tokens of an answer in the context eval, and after thinking that was
            ended by force.
        truncation: Ways to truncate conversations, by name.
        context_limits: Limits of the context eval as they are written, without the whole.
        context_turns: Filler turns of its conversations, rising; empty for the default.
        closers: What ends it: names of the format's closers, or NAME=TEXT; empty for the default.
        wait: How often thinking that ends is sent on by "Wait".
        modes: Modes that tests run for, and whose budgets join the thinking eval; empty for the
            default.
        max_thinking_tokens: An explicit budget that joins it, or None.
        target_truncation: Share of responses that a recommended limit may truncate.
        requests_per_day: Requests for which it is said what a recommended limit saves, or None.
        annotations: Directories with annotated files; the first annotator's, and others'.
        seed: Seed of the sampling noise.
        quantization: ``none``, ``8bit``, ``4bit``, or None for what the model's entry says.
        dtype: ``auto`` or a torch dtype's name.
        device: ``auto`` or a torch device.
        batch_size: Rows a batch or requests in flight, or None for what memory or server allow.
        tensor_parallel: GPUs that vLLM splits each layer over.
        data_parallel: Copies of the model that vLLM runs.
        request_timeout: Seconds without a byte from a server after which a request is tried again.
        reports: Directory that results are written to.
        answers_table: ``parquet`` or ``csv``, as which all answers are written too, or ``none``.
        recorded: Files and directories that are read instead of generating.
        tokenizer: Model whose tokenizer counts recorded texts, or renders and counts for a server.
        trace_store: SQLite file of the traces.
        dry_run: Whether it is only said what would be generated.
        min_accuracy: Gates on accuracy.
        max_truncation: Gates on the truncation rate.
        min_conformance: What an engine must keep.
        gate_rule: How gates decide that do not say so themselves.
        gate_margin: By how much ``noninferior`` lets a gate on a share be missed, or None.
        gate_confidence: Two-sided confidence of the intervals that gates decide by.
        allow_inconclusive: Whether gates that ``confident`` leaves undecided are kept.
        require_all_gates: Whether a run of selected tests fails where it leaves a gate unjudged.
        list_gates: Whether it is only said which gates would be judged.
        save: Name to save the run under, or None.
        compare: Path, name or number of the saved run to compare with, ``latest``, or None.
        compare_fail: Changes against it that are tolerated.
        storage: Directory of saved runs.
        margin: Non-inferiority margin of the saturation point, as a share.
        fresh: Whether traces of earlier runs are ignored.
        stream: Whether traces are shown while they are being written.
        lease: Seconds after which a silent worker's share is taken over.
        explicit: Names of the settings that somebody set.
        from_model_entry: Those of them that the model's own entry set; of the settings of a run,
            which are for all models, none.
    """

    models: tuple[str, ...]
    engine: str
    base_url: tuple[str, ...]
    served_model: str | None
    server_api: str
    task: str
    num_samples: int | None
    budgets: tuple[int, ...]
    thinking: bool
    temperature: float
    top_p: float
    generation_config: GenerationConfig | None
    samples: int
    sample_budgets: tuple[int, ...]
    cliff_budgets: tuple[int, ...]
    error_samples: tuple[tuple[int, int], ...]
    controls: int
    thinking_budgets: tuple[int, ...]
    answer_tokens: int
    truncation: tuple[str, ...]
    context_limits: tuple[str, ...]
    context_turns: tuple[int, ...]
    closers: tuple[str, ...]
    wait: int
    modes: tuple[str, ...]
    max_thinking_tokens: int | None
    target_truncation: float
    requests_per_day: int | None
    annotations: tuple[Path, ...]
    seed: int
    quantization: str | None
    dtype: str
    device: str
    batch_size: int | None
    tensor_parallel: int
    data_parallel: int
    request_timeout: float
    reports: Path
    answers_table: str
    recorded: tuple[Path, ...]
    tokenizer: str | None
    trace_store: Path
    dry_run: bool
    min_accuracy: tuple[Threshold, ...]
    max_truncation: tuple[Threshold, ...]
    min_conformance: tuple[str, ...]
    gate_rule: str
    gate_margin: float | None
    gate_confidence: float
    allow_inconclusive: bool
    require_all_gates: bool
    list_gates: bool
    save: str | None
    compare: str | Path | None
    compare_fail: tuple[Tolerance, ...]
    storage: Path
    margin: float
    fresh: bool
    stream: bool
    lease: float
    explicit: frozenset[str]
    from_model_entry: tuple[str, ...] = ()


def _from_ini(config: pytest.Config, project: Project, option: Option) -> str | None:
    if project.ini is not None:
        names = (option.ini, *(f"tokenbudget_{name}" for name in option.former))
        value = next((found for name in names if (found := project.ini.get(name))), "")
    else:
        try:
            value = config.getini(option.ini)
        except (TypeError, ValueError, pytest.UsageError) as error:
            raise pytest.UsageError(_not_text(project, option, str(error))) from None
    if not isinstance(value, str):
        raise pytest.UsageError(_not_text(project, option, f"{value!r} is not text"))
    return value or None


def _not_text(project: Project, option: Option, problem: str) -> str:
    return (
        f"{option.ini} in {project.inipath}: {problem}; allowed: text in quotes, "
        f'for example {option.ini} = "{option.default or "..."}"'
    )


def _ini_base(config: pytest.Config, project: Project, option: Option) -> Path:
    """The directory that a path in pytest's ini file, or in ``-o``, starts from."""
    overridden = any(
        each.startswith(f"{option.ini}=") for each in config.getoption("override_ini") or ()
    )
    if overridden or project.inipath is None:
        return config.invocation_params.dir
    return project.inipath.parent


def from_file(value: object) -> str:
    """The text of an option as a TOML file has its value."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return str(value)


def _key_in_file(user: UserConfig, option: Option) -> str | None:
    """The key that sets an option in a settings file: its name or a former one."""
    keys = [name for name in (option.name, *option.former) if name in user.options]
    if len(keys) > 1:
        raise pytest.UsageError(f"{user.where}: {' and '.join(keys)} are one setting: keep one")
    return keys[0] if keys else None


def read_settings(config: pytest.Config, project: Project) -> Settings:
    """Parse every option from wherever it was set.

    Args:
        config: pytest's configuration.
        project: Where settings come from.

    Raises:
        pytest.UsageError: Naming the option, the value, what is allowed and the nearest match.
    """
    values: dict[str, Any] = {}
    explicit: set[str] = set()
    given: GenerationConfig | None = None
    # This one first: what its file says stands above settings files.
    for option in sorted(OPTIONS, key=lambda option: option.name != GENERATION_CONFIG):
        origin, base = first_name(config, option), config.invocation_params.dir
        text = _from_command_line(config, option)
        if text is None and given is not None and option.name in given.options:
            text, place_in_file = given.options[option.name]
            origin = f"{given.path}: {place_in_file}"
        if text is None:
            origin = f"{option.ini} in {project.inipath}"
            base = _ini_base(config, project, option)
            text = _from_ini(config, project, option)
        user, key = project.user, _key_in_file(project.user, option)
        if text is None and user.path is not None and key is not None:
            origin, base = f"{key} in {user.where}", user.path.parent
            text = from_file(user.options[key])
        if text is None:
            text, base = option.default, project.root
        else:
            explicit.add(option.name)
            if not text.strip():
                raise pytest.UsageError(f"{origin}: a value is missing. {option.help}")
        try:
            value = option.parse(text) if text else None
        except ValueError as error:
            # What may be a key in an address is not shown.
            shown = shown_address(text)
            raise pytest.UsageError(f"{origin}: {shown!r} cannot be used; {error}") from None
        place = _named if option.name in NAMED_BY_PATH else _placed
        values[option.name] = place(base, value)
        if option.name == GENERATION_CONFIG:
            given = values[option.name] = _generation_config(values[option.name], origin)
    if given is not None and given.largest is not None:
        for name in LIMITED:
            if config.getoption(f"tokenbudget_{name}") is None:
                values[name] = given.budgets(values[name])
                explicit.add(name)
    return _settle(values, frozenset(explicit), budgets_of_entries(project.user.models))


def _from_command_line(config: pytest.Config, option: Option) -> str | None:
    raw = config.getoption(option.ini)
    return ",".join(raw) if isinstance(raw, list) else raw


def _generation_config(path: Path | None, origin: str) -> GenerationConfig | None:
    if path is None:
        return None
    from pytest_tokenbudget.tasks.games import FRAMINGS

    try:
        return read_generation_config(path, FRAMINGS)
    except ConfigError as error:
        raise pytest.UsageError(f"{origin}: {error}") from None


def _placed(base: Path, value: object) -> object:
    """A relative path stands where it was written: on the command line, or in a file."""
    if isinstance(value, tuple):
        return tuple(_placed(base, item) for item in value)
    return base / value if isinstance(value, Path) else value


def _named(base: Path, value: object) -> object:
    """The same for names that may be paths, such as ``gsm8k=PATH.jsonl``."""
    here = Path.cwd()
    if isinstance(value, tuple):
        return tuple(_named(base, item) for item in value)
    if not isinstance(value, str) or base == here:
        return value
    head, equals, tail = value.rpartition("=")
    if os.path.isabs(tail) or not re.search(r"[/\\]|\.\w+$", tail) or not (base / tail).exists():
        return value
    path = os.path.relpath(base / tail, here)
    return head + equals + (path if path.startswith(os.pardir) else os.path.join(os.curdir, path))


def refuse_budget(
    option: str, threshold: object, budgets: Collection[int], others: Collection[int]
) -> None:
    """Refuse a threshold at a budget that no eval of this run has.

    Args:
        option: The option.
        threshold: The threshold as it was given.
        budgets: The budgets of ``--budgets``.
        others: Further budgets that evals look at.

    Raises:
        pytest.UsageError: With the nearest budget.
    """
    budget = int(str(threshold).partition(":")[0]) if ":" in str(threshold) else None
    if budget is None or budget in {*budgets, *others} - {0}:
        return
    raise pytest.UsageError(
        f"{option}: {str(threshold)!r} names budget {budget}, which is not among --budgets "
        f"{','.join(map(str, budgets))}, and no selected test looks at it; the nearest is "
        f"{min(budgets, key=lambda b: abs(b - budget))}"
    )


def _settle(
    values: dict[str, Any], explicit: frozenset[str], model_budgets: Collection[int]
) -> Settings:
    for name in ("min_accuracy", "max_truncation"):
        values[name] = values[name] or ()
        for threshold in values[name]:
            # Which evals are selected is not known yet, and each has budgets of its own.
            thinking = values["thinking_budgets"] or DEFAULT_THINKING_BUDGETS
            others = {*values["cliff_budgets"], *thinking, *model_budgets}
            refuse_budget(f"--{name.replace('_', '-')}", threshold, values["budgets"], others)
    if len(values["cliff_budgets"]) < 2:
        raise pytest.UsageError(
            f"--cliff-budgets: {values['cliff_budgets'][0]} alone has no step; allowed: at least 2"
        )
    for name in NONE_IS_EMPTY:
        values[name] = values[name] or ()
    stage = STAGES[values.pop("stage")]
    values["num_samples"] = values["num_samples"] or stage
    values["models"] = values.pop("model")
    values["trace_store"] = values["trace_store"] or values["reports"] / "traces.sqlite"
    if values["trace_store"].is_dir():
        raise pytest.UsageError(
            f"--trace-store: {values['trace_store']} is a directory; allowed: a file, for example "
            f"{values['trace_store'] / 'traces.sqlite'}"
        )
    values["storage"] = values["storage"] or values["reports"] / "baselines"
    return Settings(**values, explicit=explicit)
