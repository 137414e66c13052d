"""The table of options: flag, ini name, parser, default, help.

Every pytest session loads this module, so it imports nothing that pytest has not loaded already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PREFIX = "--tokenbudget-"
DEFAULT_BUDGETS = (32, 64, 128, 256, 512, 1024, 2048)
DEFAULT_CLIFF_BUDGETS = tuple(range(96, 257, 16))
# As far as a model's context goes.
DEFAULT_THINKING_BUDGETS = (0, *(2**power for power in range(5, 25)))
DEFAULT_TARGET = 0.01
STAGES = {"minimal": 2, "quick": 5, "full": None}
ENGINES = ("auto", "transformers", "vllm", "server")
DTYPES = ("auto", "float32", "bfloat16", "float16")
APIS = ("auto", "ids", "chat")
GATE_RULES = ("point", "confident", "noninferior")
THINKING_MODES = ("auto", "conservative", "balanced", "aggressive", "disabled")
MODES = ("off", "on", *THINKING_MODES)

# In the order in which they are shown; `context.window_summary.named_strategy` makes them.
STRATEGIES = (
    "newest",
    "first",
    "ends",
    "system-newest",
    "system-first-newest",
    "sentences",
    "importance",
    "summary",
)


@dataclass(frozen=True)
class Option:
    """One row of the table.

    Attributes:
        name: Field of :class:`Settings` (``stage`` is the one exception), also the key in
            ``tokenbudget.toml``; the ini name is ``tokenbudget_`` and this.
        flags: Command-line flags; the first one is used in messages, unless somebody else has it.
        parser: Gives the function that makes a value from text, out of ``option_values``.
        default: Text that is parsed where nobody set anything.
        help: One sentence for ``--help``.
        many: Whether it may be given several times or with commas.
        switch: Whether its flags take no value.
        former: Names that it had in settings files.
    """

    name: str
    flags: tuple[str, ...]
    parser: Callable[[Any], Callable[[str], Any]]
    default: str
    help: str
    many: bool = False
    switch: bool = False
    former: tuple[str, ...] = ()

    @property
    def ini(self) -> str:
        return f"tokenbudget_{self.name}"

    @property
    def long(self) -> str:
        """The flag that no other plugin has."""
        return PREFIX + self.flags[0].removeprefix(PREFIX).removeprefix("--")

    @property
    def short(self) -> tuple[str, ...]:
        """Flags that another plugin or a conftest.py may have too."""
        return tuple(flag for flag in self.flags if flag != self.long)

    def parse(self, text: str) -> Any:  # noqa: ANN401
        """The value that a text means.

        Raises:
            ValueError: With what is allowed.
        """
        from pytest_tokenbudget.settings import option_values

        return self.parser(option_values)(text)


OPTIONS: tuple[Option, ...] = (
    Option(
        "model",
        ("--model",),
        lambda values: values.names,
        "nano-reasoner",
        "Alias, hub id, local directory, .gguf file or server address; several with commas.",
        many=True,
    ),
    Option(
        "engine",
        ("--engine",),
        lambda values: values.choice(ENGINES),
        "auto",
        "auto, transformers, vllm or server; auto is server for an address, else transformers.",
    ),
    Option(
        "base_url",
        ("--base-url",),
        lambda values: values.addresses,
        "",
        "Address of a server of the model; several share the work.",
        many=True,
    ),
    Option(
        "served_model",
        ("--served-model",),
        lambda values: str,
        "",
        "Which of the models that the server lists.",
    ),
    Option(
        "server_api",
        ("--server-api",),
        lambda values: values.choice(APIS),
        "auto",
        "auto, ids or chat: how prompts and outputs travel; auto is ids where the server has them.",
    ),
    Option(
        "task",
        ("--task", "--dataset"),
        lambda values: str,
        "word-problems",
        "word-problems, gsm8k, gsm8k=PATH.jsonl, recall, multi-hop, games or PATH.jsonl.",
    ),
    Option(
        "num_samples",
        ("--num-samples",),
        lambda values: values.number(int, 1),
        "",
        "How many problems of the task are used; wins over --stage.",
    ),
    Option(
        "stage",
        ("--stage",),
        lambda values: values.choice(tuple(STAGES)),
        "full",
        "minimal (2 problems), quick (5) or full (all).",
    ),
    Option(
        "budgets",
        ("--budgets",),
        lambda values: values.budgets,
        ",".join(map(str, DEFAULT_BUDGETS)),
        "Output token budgets, separated by commas.",
        many=True,
    ),
    Option(
        "thinking",
        ("--thinking",),
        lambda values: values.onoff,
        "off",
        "on or off: whether models that can switch their thinking shall think.",
    ),
    Option(
        "temperature",
        ("--temperature",),
        lambda values: values.number(float, 0, 10),
        "0",
        "Sampling temperature; 0 is greedy decoding. Phase 1b samples at 0.7 unless this is set.",
    ),
    Option(
        "top_p",
        ("--top-p",),
        lambda values: values.number(float, 0.001, 1),
        "1",
        "Share of probability kept when sampling. Phase 1b keeps 0.9 unless this is set.",
    ),
    Option(
        "generation_config",
        ("--generation-config",),
        lambda values: values.optional_path,
        "",
        "YAML file with llm.generation_config, data, and limits for emotions and categories.",
    ),
    Option(
        "samples",
        ("--samples",),
        lambda values: values.number(int, 1, 1000),
        "5",
        "Samples a problem in phase 1b.",
    ),
    Option(
        "sample_budgets",
        ("--sample-budgets",),
        lambda values: values.budgets,
        "512,1024",
        "Budgets of phase 1b, all cut from one trace a sample.",
        many=True,
    ),
    Option(
        "cliff_budgets",
        ("--cliff-budgets",),
        lambda values: values.budgets,
        ",".join(map(str, DEFAULT_CLIFF_BUDGETS)),
        "Budgets between which phase 3 looks for the cliff.",
        many=True,
    ),
    Option(
        "error_samples",
        ("--error-samples",),
        lambda values: values.counts,
        "128:30,256:30,512:50,1024:50",
        "BUDGET:COUNT of the errors that phase 2 picks for annotation.",
        many=True,
    ),
    Option(
        "controls",
        ("--controls",),
        lambda values: values.number(int, 0),
        "10",
        "Right answers that phase 2 picks at each of these budgets.",
    ),
    Option(
        "thinking_budgets",
        ("--thinking-budgets",),
        lambda values: values.thinking_budgets,
        "",
        "Thinking budgets; without them 0 and powers of two from 32 as far as the context goes.",
        many=True,
    ),
    Option(
        "answer_tokens",
        ("--answer-tokens",),
        lambda values: values.number(int, 1),
        "256",
        "Output tokens of an answer in the context eval, and after thinking ended by force.",
    ),
    Option(
        "truncation",
        ("--truncation",),
        lambda values: values.strategies,
        ",".join(STRATEGIES[:-1]),
        f"{', '.join(STRATEGIES)}: ways to truncate that the context eval compares.",
        many=True,
    ),
    Option(
        "context_limits",
        ("--context-limits",),
        lambda values: values.context_limits,
        "25%,50%,75%,100%",
        "Limits of the context eval: tokens, or percent of the conversation.",
        many=True,
    ),
    Option(
        "context_turns",
        ("--context-turns",),
        lambda values: values.turns,
        "",
        "Filler turns of its conversations; without them powers of two up to the model's context.",
        many=True,
    ),
    Option(
        "closers",
        ("--closers",),
        lambda values: values.closers,
        "",
        "Names of the model's closers, or NAME=TEXT; without them bare and, if any, sentence.",
        many=True,
    ),
    Option(
        "wait",
        ("--wait",),
        lambda values: values.number(int, 0, 32),
        "0",
        'How often thinking that ends is sent on by an appended "Wait".',
    ),
    Option(
        "modes",
        ("--modes", "--thinking-mode"),
        lambda values: values.modes,
        "",
        f"{', '.join(MODES)}: tests that ask for mode run for these; without it, for all.",
        many=True,
        former=("thinking_modes",),
    ),
    Option(
        "max_thinking_tokens",
        ("--max-thinking-tokens",),
        lambda values: values.number(int, 0),
        "",
        "A thinking budget that joins the thinking eval as explicit.",
    ),
    Option(
        "target_truncation",
        ("--target-truncation",),
        lambda values: values.number(float, 0.0001, 0.5),
        f"{DEFAULT_TARGET:g}",
        "Share of responses that a recommended limit may truncate.",
    ),
    Option(
        "requests_per_day",
        ("--requests-per-day",),
        lambda values: values.number(int, 1, 10**12),
        "",
        "Say what the recommended limit saves a day at so many requests.",
    ),
    Option(
        "annotations",
        ("--annotations",),
        lambda values: values.paths,
        "",
        "Directory of annotated files; a second one is another annotator's.",
        many=True,
    ),
    Option(
        "seed",
        ("--seed",),
        lambda values: values.number(int, 0, 2**63 - 1),
        "0",
        "Seed of the sampling noise.",
    ),
    Option(
        "quantization",
        ("--quantization",),
        lambda values: values.quantization,
        "auto",
        "none, 8bit or 4bit (bitsandbytes); without it, what the model's entry says.",
    ),
    Option(
        "dtype", ("--dtype",), lambda values: values.choice(DTYPES), "auto", f"{', '.join(DTYPES)}."
    ),
    Option(
        "device",
        ("--device",),
        lambda values: values.device,
        "auto",
        "auto, cpu, cuda, cuda:N or mps.",
    ),
    Option(
        "batch_size",
        ("--batch-size",),
        lambda values: values.batch_size,
        "auto",
        "Rows a batch, or requests in flight: auto (what memory or server allow) or a number.",
    ),
    Option(
        "tensor_parallel",
        ("--tensor-parallel",),
        lambda values: values.number(int, 1, 1024),
        "1",
        "GPUs that vLLM in this process splits each layer over.",
    ),
    Option(
        "data_parallel",
        ("--data-parallel",),
        lambda values: values.number(int, 1, 1024),
        "1",
        "Copies of the model that vLLM in this process runs beside each other.",
    ),
    Option(
        "request_timeout",
        ("--request-timeout",),
        lambda values: values.number(float, 0.1, 86_400),
        "120",
        "Seconds without a byte from a server after which a request is tried again.",
    ),
    Option(
        "reports",
        ("--reports",),
        lambda values: values.optional_path,
        "reports",
        "Directory that results, figures and traces are written to.",
    ),
    Option(
        "answers_table",
        ("--answers-table",),
        lambda values: values.answers_table,
        "none",
        "none, parquet or csv: also write all answers of the run as one table.",
    ),
    Option(
        "recorded",
        ("--recorded",),
        lambda values: values.paths,
        "",
        "File or directory of recorded generations that are read instead of generating.",
        many=True,
    ),
    Option(
        "tokenizer",
        ("--tokenizer",),
        lambda values: str,
        "",
        "Model whose tokenizer counts recorded texts, or renders and counts for a server.",
    ),
    Option(
        "trace_store",
        ("--trace-store",),
        lambda values: values.optional_path,
        "",
        "SQLite file of the traces; without it, traces.sqlite in the reports directory.",
    ),
    Option(
        "dry_run",
        ("--dry-run",),
        lambda values: values.onoff,
        "off",
        "Say what would be generated, in tokens, time, cost and memory; no test is run.",
        switch=True,
    ),
    Option(
        "min_accuracy",
        ("--min-accuracy",),
        lambda values: values.thresholds,
        "",
        "Fail where accuracy is below SHARE (largest budget) or BUDGET:SHARE.",
        many=True,
    ),
    Option(
        "max_truncation",
        ("--max-truncation",),
        lambda values: values.thresholds,
        "",
        "Fail where the truncation rate is above SHARE (largest budget) or BUDGET:SHARE.",
        many=True,
    ),
    Option(
        "min_conformance",
        ("--min-conformance",),
        lambda values: values.demands,
        "",
        "Fail where the engine does not keep what it is given: limits, VERDICT or WAY:VERDICT.",
        many=True,
    ),
    Option(
        "gate_rule",
        ("--gate-rule",),
        lambda values: values.choice(GATE_RULES),
        "point",
        f"{', '.join(GATE_RULES)}: how gates decide that do not say so themselves.",
    ),
    Option(
        "gate_margin",
        ("--gate-margin",),
        lambda values: values.number(float, 0.0001, 0.5),
        "",
        "Share by which noninferior lets a gate on a share be missed.",
    ),
    Option(
        "gate_confidence",
        ("--gate-confidence",),
        lambda values: values.number(float, 0.5, 0.9999),
        "0.95",
        "Two-sided confidence of the intervals that gates decide by.",
    ),
    Option(
        "allow_inconclusive",
        ("--allow-inconclusive",),
        lambda values: values.onoff,
        "off",
        "Whether gates that confident leaves undecided are kept.",
        switch=True,
    ),
    Option(
        "require_all_gates",
        ("--require-all-gates",),
        lambda values: values.onoff,
        "off",
        "Fail where the selected tests leave a gate unjudged that a whole run would judge.",
        switch=True,
    ),
    Option(
        "list_gates",
        ("--tokenbudget-gates",),
        lambda values: values.onoff,
        "off",
        "Say which gates the selected tests would judge; no test is run.",
        switch=True,
    ),
    Option(
        "save",
        ("--tokenbudget-save",),
        lambda values: values.baseline_name,
        "",
        "Save the run under this name, as the next numbered file of the storage directory.",
    ),
    Option(
        "compare",
        ("--tokenbudget-compare",),
        lambda values: values.baseline,
        "",
        "Compare with a saved run: its name, number or path, latest, or a directory of results.",
    ),
    Option(
        "compare_fail",
        ("--tokenbudget-compare-fail",),
        lambda values: values.tolerances,
        "",
        "Fail beyond a change, [BUDGET:]METRIC:CHANGE[:RULE], such as accuracy:-0.02.",
        many=True,
    ),
    Option(
        "storage",
        ("--tokenbudget-storage",),
        lambda values: values.optional_path,
        "",
        "Directory of saved runs; without it, baselines in the reports directory.",
    ),
    Option(
        "margin",
        ("--saturation-margin",),
        lambda values: values.number(float, 0.0001, 0.5),
        "0.02",
        "Accuracy, as a share, that a saturated budget may lose against the largest.",
    ),
    Option(
        "fresh",
        ("--fresh",),
        lambda values: values.onoff,
        "off",
        "Ignore stored traces and generate anew.",
        switch=True,
    ),
    Option(
        "stream",
        ("--stream",),
        lambda values: values.onoff,
        "off",
        "Show one trace at a time while it is being written, with a mark where each budget cuts.",
        switch=True,
    ),
    Option(
        "lease",
        ("--tokenbudget-lease",),
        lambda values: values.number(float, 0.5, 86_400),
        "60",
        "Seconds after which the share of a worker that went silent is taken over.",
    ),
)

NAMES = tuple(option.name for option in OPTIONS)
FORMER_NAMES = tuple(name for option in OPTIONS for name in option.former)
