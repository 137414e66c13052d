"""Every option of a run, once: its field with flags, values, help and default.

It is one table, and so longer than other files.

Every pytest session loads this module, so it imports nothing that pytest has not loaded already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_tokenbudget.settings import option_values as values
from pytest_tokenbudget.settings.option_fields import option, several, switch
from pytest_tokenbudget.settings.option_values import code, number

if TYPE_CHECKING:
    from pytest_tokenbudget.settings.generation_config import GenerationConfig
    from pytest_tokenbudget.settings.option_values import BudgetThreshold, Tolerance

T = TypeVar("T")

DEFAULT_BUDGETS = (32, 64, 128, 256, 512, 1024, 2048)
DEFAULT_CLIFF_BUDGETS = tuple(range(96, 257, 16))
# As far as a model's context goes.
DEFAULT_THINKING_BUDGETS = (0, *(2**power for power in range(5, 25)))
DEFAULT_TARGET = 0.01


@dataclass(frozen=True, eq=False)
class Settings:
    """Everything that a run was asked for, parsed and checked.

    Attributes:
        generation_config: Where the command line does not say otherwise, it is in the other fields
            already.
        temperature: Where nobody set it, phase 1b has a value of its own; so has ``top_p``.
        budgets: Rising, as all budgets are.
        explicit: Names of the options that somebody set.
        from_model_entry: Those of them that the model's own entry set; of the settings of a run,
            which are for all models, none.
        evals: The options of evals by the dataclasses that declare them.
    """

    models: tuple[str, ...] = several(
        "--model",
        values.names,
        "Alias, hub id, local directory, `.gguf` file or server address; several with commas.",
        "The option may also be repeated.",
        default="nano-reasoner",
        file=True,
        name="model",
    )
    engine: str = option(
        "--engine",
        values.engine,
        "`auto`, `transformers`, `vllm` or `server`; `auto` is `server` for an address, else "
        "`transformers`.",
        "See [engines](engines.md).",
        default="auto",
    )
    base_url: tuple[str, ...] = several(
        "--base-url",
        values.addresses,
        "Address of a server of the model; several share the work.",
        "For example `http://HOST:PORT/v1`; see [scale](scale.md).",
    )
    served_model: str | None = option(
        "--served-model",
        str,
        "Which of the models that the server lists.",
        "Not needed where it is one.",
    )
    server_api: str = option(
        "--server-api",
        values.choice(values.APIS),
        "`auto`, `ids` or `chat`: how prompts and outputs travel; `auto` is `ids` where the server "
        "has them.",
        "`ids` sends and takes token ids, `chat` messages and text.",
        default="auto",
    )
    task: str = option(
        "--task --dataset",
        str,
        "`word-problems`, `gsm8k`, `gsm8k=PATH.jsonl`, `recall`, `multi-hop`, `games` or "
        "`PATH.jsonl`.",
        "See [Tasks](#tasks).",
        default="word-problems",
        file=True,
    )
    num_samples: int | None = option(
        "--num-samples",
        number(int, 1),
        "How many problems of the task are used; wins over `--stage`.",
    )
    stage: str = option(
        "--stage",
        values.choice(tuple(values.STAGES)),
        "`minimal` (2 problems), `quick` (5) or `full` (all).",
        default="full",
    )
    budgets: tuple[int, ...] = several(
        "--budgets",
        values.budgets,
        "Output token budgets, separated by commas.",
        "Those beyond what the model's context leaves are named and left out.",
        default=",".join(map(str, DEFAULT_BUDGETS)),
        model=True,
    )
    thinking: bool = option(
        "--thinking",
        values.onoff,
        "`on` or `off`: whether models that can switch their thinking shall think.",
        default="off",
        model=True,
    )
    temperature: float = option(
        "--temperature",
        number(float, 0, 10),
        "Sampling temperature; 0 is greedy decoding. Phase 1b samples at 0.7 unless this is set.",
        default="0",
        model=True,
    )
    top_p: float = option(
        "--top-p",
        number(float, 0.001, 1),
        "Share of probability kept when sampling. Phase 1b keeps 0.9 unless this is set.",
        default="1",
        model=True,
    )
    generation_config: GenerationConfig | None = option(
        "--generation-config",
        values.generation_config,
        "YAML file with `llm.generation_config`, `data`, and limits for `emotions` and "
        "`categories`.",
        "See [scenarios](scenarios.md#settings-in-yaml). What it says stands below the command "
        "line and above settings files.",
    )
    samples: int = option(
        "--samples",
        number(int, 1, 1000),
        "Samples a problem in phase 1b.",
        "See [stochastic](stochastic.md).",
        default="5",
    )
    sample_budgets: tuple[int, ...] = several(
        "--sample-budgets",
        values.budgets,
        "Budgets of phase 1b, all cut from one trace a sample.",
        default="512,1024",
        model=True,
    )
    cliff_budgets: tuple[int, ...] = several(
        "--cliff-budgets",
        values.budgets,
        "Budgets between which phase 3 looks for the cliff.",
        "At least two; see [cliff](cliff.md).",
        default=",".join(map(str, DEFAULT_CLIFF_BUDGETS)),
        model=True,
    )
    thinking_budgets: tuple[int, ...] = several(
        "--thinking-budgets",
        values.thinking_budgets,
        "Thinking budgets; without them 0 and powers of two from 32 as far as the context goes.",
        "They may contain 0; see [thinking](thinking.md).",
        model=True,
    )
    answer_tokens: int = option(
        "--answer-tokens",
        number(int, 1),
        "Output tokens of an answer in the context eval, and after thinking ended by force.",
        "After thinking, at most half of what the context leaves.",
        default="256",
        model=True,
    )
    modes: tuple[str, ...] = several(
        "--modes --thinking-mode",
        values.modes,
        f"{code(values.MODES)}: tests that ask for `mode` run for these; without it, for all.",
        "See [modes](#modes) and the [table](allocation.md). Without it, those above the largest "
        "of `--thinking-budgets`, if you give it, are skipped except with `-m allocation`. The "
        "setting `thinking_modes` is its former name.",
        former=("thinking_modes",),
        model=True,
    )
    max_thinking_tokens: int | None = option(
        "--max-thinking-tokens",
        number(int, 0),
        "A thinking budget that joins the thinking eval as `explicit`.",
        model=True,
    )
    target_truncation: float = option(
        "--target-truncation",
        number(float, 0.0001, 0.5),
        "Share of responses that a recommended limit may truncate.",
        "See [limits](limits.md).",
        default=f"{DEFAULT_TARGET:g}",
    )
    requests_per_day: int | None = option(
        "--requests-per-day",
        number(int, 1, 10**12),
        "Say what the recommended limit saves a day at so many requests.",
        "In tokens, time and money; see [cost](cost.md#what-a-limit-saves).",
    )
    seed: int = option(
        "--seed",
        number(int, 0, 2**63 - 1),
        "Seed of the sampling noise.",
        "Greedy decoding does not use it.",
        default="0",
    )
    quantization: str | None = option(
        "--quantization",
        values.quantization,
        "`none`, `8bit` or `4bit` (bitsandbytes); without it, what the model's entry says.",
        "The entry's holds on CUDA only.",
        default="auto",
    )
    dtype: str = option(
        "--dtype",
        values.choice(values.DTYPES),
        f"{code(values.DTYPES)}.",
        "`auto`: float32 on a CPU; on a GPU bfloat16 where it has that, else float16.",
        default="auto",
    )
    device: str = option(
        "--device",
        values.device,
        "`auto`, `cpu`, `cuda`, `cuda:N` or `mps`.",
        "`auto`: CUDA where a GPU is visible, else the CPU.",
        default="auto",
    )
    batch_size: int | None = option(
        "--batch-size",
        values.batch_size,
        "Rows a batch, or requests in flight: `auto` (what memory or server allow) or a number.",
        "The requests are those at each server. Out of memory, the batch is halved and the run "
        "goes on.",
        default="auto",
    )
    tensor_parallel: int = option(
        "--tensor-parallel",
        number(int, 1, 1024),
        "GPUs that vLLM in this process splits each layer over.",
        default="1",
    )
    data_parallel: int = option(
        "--data-parallel",
        number(int, 1, 1024),
        "Copies of the model that vLLM in this process runs beside each other.",
        default="1",
    )
    request_timeout: float = option(
        "--request-timeout",
        number(float, 0.1, 86_400),
        "Seconds without a byte from a server after which a request is tried again.",
        default="120",
    )
    reports: Path = option(
        "--reports",
        values.path,
        "Directory that results, figures and traces are written to.",
        default="reports",
    )
    answers_table: str = option(
        "--answers-table",
        values.answers_table,
        "`none`, `parquet` or `csv`: also write all answers of the run as one table.",
        "It is `results/answers.parquet` or `.csv`; see [results as "
        "tables](python.md#results-as-tables).",
        default="none",
    )
    recorded: tuple[Path, ...] = several(
        "--recorded",
        values.paths,
        "File or directory of recorded generations that are read instead of generating.",
        "See [recorded](recorded.md).",
    )
    tokenizer: str | None = option(
        "--tokenizer",
        str,
        "Model whose tokenizer counts recorded texts, or renders and counts for a server.",
        "See [recorded](recorded.md) and [engines](engines.md).",
        file=True,
    )
    trace_store: Path = option(
        "--trace-store",
        values.path,
        "SQLite file of the traces; without it, `traces.sqlite` in the reports directory.",
    )
    dry_run: bool = switch(
        "--dry-run",
        "Say what would be generated, in tokens, time, cost and memory; no test is run.",
        "No model is loaded; see [before a run](cost.md#before-a-run).",
    )
    min_accuracy: tuple[BudgetThreshold, ...] = several(
        "--min-accuracy",
        values.thresholds,
        "Fail where accuracy is below `SHARE` (largest budget) or `BUDGET:SHARE`.",
        "See [Gates](#gates).",
    )
    max_truncation: tuple[BudgetThreshold, ...] = several(
        "--max-truncation",
        values.thresholds,
        "Fail where the truncation rate is above `SHARE` (largest budget) or `BUDGET:SHARE`.",
        "See [Gates](#gates).",
    )
    min_conformance: tuple[str, ...] = several(
        "--min-conformance",
        values.demands,
        "Fail where the engine does not keep what it is given: `limits`, `VERDICT` or "
        "`WAY:VERDICT`.",
        "See [conformance](conformance.md).",
    )
    gate_rule: str = option(
        "--gate-rule",
        values.choice(values.GATE_RULES),
        f"{code(values.GATE_RULES)}: how gates decide that do not say so themselves.",
        "See [how a gate decides](gates.md#how-a-gate-decides).",
        default="point",
    )
    gate_margin: float | None = option(
        "--gate-margin",
        number(float, 0.0001, 0.5),
        "Share by which `noninferior` lets a gate on a share be missed.",
    )
    gate_confidence: float = option(
        "--gate-confidence",
        number(float, 0.5, 0.9999),
        "Two-sided confidence of the intervals that gates decide by.",
        default="0.95",
    )
    allow_inconclusive: bool = switch(
        "--allow-inconclusive", "Whether gates that `confident` leaves undecided are kept."
    )
    require_all_gates: bool = switch(
        "--require-all-gates",
        "Fail where the selected tests leave a gate unjudged that a whole run would judge.",
        "See [runs of selected tests](gates.md#runs-of-selected-tests).",
    )
    list_gates: bool = switch(
        "--tokenbudget-gates", "Say which gates the selected tests would judge; no test is run."
    )
    save: str | None = option(
        "--tokenbudget-save",
        values.baseline_name,
        "Save the run under this name, as the next numbered file of the storage directory.",
        "See [baselines](baselines.md).",
    )
    compare: str | Path | None = option(
        "--tokenbudget-compare",
        values.baseline,
        "Compare with a saved run: its name, number or path, `latest`, or a directory of results.",
        "See [comparing](baselines.md#comparing).",
    )
    compare_fail: tuple[Tolerance, ...] = several(
        "--tokenbudget-compare-fail",
        values.tolerances,
        "Fail beyond a change, `[BUDGET:]METRIC:CHANGE[:RULE]`, such as `accuracy:-0.02`.",
        "Also `truncation:+0.01` or `tokens:+10%`; see [failing](baselines.md#failing).",
    )
    storage: Path = option(
        "--tokenbudget-storage",
        values.path,
        "Directory of saved runs; without it, `baselines` in the reports directory.",
    )
    margin: float = option(
        "--saturation-margin",
        number(float, 0.0001, 0.5),
        "Accuracy, as a share, that a saturated budget may lose against the largest.",
        default="0.02",
    )
    fresh: bool = switch("--fresh", "Ignore stored traces and generate anew.")
    stream: bool = switch(
        "--stream",
        "Show one trace at a time while it is being written, with a mark where each budget cuts.",
        "See [watching traces](#watching-traces).",
    )
    lease: float = option(
        "--tokenbudget-lease",
        number(float, 0.5, 86_400),
        "Seconds after which the share of a worker that went silent is taken over.",
        default="60",
    )
    explicit: frozenset[str] = frozenset()
    from_model_entry: tuple[str, ...] = ()
    evals: Mapping[type, Any] = field(default_factory=dict)

    def of_eval(self, group: type[T]) -> T:
        """The options that an eval declares in this dataclass."""
        found: T = self.evals[group]
        return found

    def record(self) -> dict[str, object]:
        """All that the run was asked for by name, options of evals too, for its reports."""
        found = dict(vars(self))
        # The stage is in the number of problems.
        for name in ("explicit", "stage", "evals"):
            del found[name]
        for each in self.evals.values():
            found.update(vars(each))
        return found

    if not TYPE_CHECKING:  # which would take every name for one of an option

        def __getattr__(self, name: str) -> object:
            """An option of an eval, by its own name."""
            for each in vars(self).get("evals", {}).values():
                if name in vars(each):
                    return getattr(each, name)
            raise AttributeError(f"there is no option {name!r}", name=name, obj=self)
