from dataclasses import fields, replace
from pathlib import Path

import numpy  # noqa: F401 - loads once in a process; pytester forgets what a run inside imports
import pytest
from all_options import NAMES, OPTIONS

from pytest_tokenbudget.registry import option_groups
from pytest_tokenbudget.settings.generation_config import GenerationConfig
from pytest_tokenbudget.settings.option_values import BudgetThreshold, Tolerance
from pytest_tokenbudget.settings.options import DEFAULT_BUDGETS, Settings
from pytest_tokenbudget.settings.read_settings import find_project, read_settings
from pytest_tokenbudget.studies.context.options import STRATEGIES

# For each option: text that can be given everywhere, the field that it sets, and the value there.
GIVEN = {
    "model": ("qwen-1.5b, ./local,qwen-1.5b", "models", ("qwen-1.5b", "./local")),
    "engine": ("server", "engine", "server"),
    "base_url": (
        "http://A:8000, https://b/v1/,http://a:8000/v1",
        "base_url",
        ("http://a:8000/v1", "https://b/v1"),
    ),
    "served_model": ("org/name", "served_model", "org/name"),
    "server_api": ("chat", "server_api", "chat"),
    "task": ("gsm8k=x.jsonl", "task", "gsm8k=x.jsonl"),
    "num_samples": ("7", "num_samples", 7),
    "stage": ("quick", "num_samples", 5),
    "budgets": ("512, 32,256,512", "budgets", (32, 256, 512)),
    "thinking": ("On", "thinking", True),
    "temperature": ("0.7", "temperature", 0.7),
    "top_p": ("0.95", "top_p", 0.95),
    "generation_config": (
        "limits.yaml",
        "generation_config",
        GenerationConfig(Path("limits.yaml")),
    ),
    "samples": ("3", "samples", 3),
    "sample_budgets": ("64,32", "sample_budgets", (32, 64)),
    "cliff_budgets": ("40,32,36", "cliff_budgets", (32, 36, 40)),
    "thinking_budgets": ("64, 0,32,64", "thinking_budgets", (0, 32, 64)),
    "answer_tokens": ("64", "answer_tokens", 64),
    "modes": ("on,auto,disabled", "modes", ("on", "auto", "disabled")),
    "max_thinking_tokens": ("0", "max_thinking_tokens", 0),
    "target_truncation": ("0.05", "target_truncation", 0.05),
    "requests_per_day": ("5000", "requests_per_day", 5000),
    "seed": (str(2**63 - 1), "seed", 2**63 - 1),
    "quantization": ("4bit", "quantization", "4bit"),
    "dtype": ("bfloat16", "dtype", "bfloat16"),
    "device": ("cuda:3", "device", "cuda:3"),
    "batch_size": ("16", "batch_size", 16),
    "tensor_parallel": ("4", "tensor_parallel", 4),
    "data_parallel": ("2", "data_parallel", 2),
    "request_timeout": ("7.5", "request_timeout", 7.5),
    "reports": ("out/here", "reports", Path("out/here")),
    "answers_table": ("csv", "answers_table", "csv"),
    "recorded": ("a.json,logs", "recorded", (Path("a.json"), Path("logs"))),
    "tokenizer": ("qwen3-0.6b", "tokenizer", "qwen3-0.6b"),
    "trace_store": ("some.sqlite", "trace_store", Path("some.sqlite")),
    "dry_run": ("on", "dry_run", True),
    "min_accuracy": (
        "0.6,512:0.5",
        "min_accuracy",
        (BudgetThreshold(0.6), BudgetThreshold(0.5, 512)),
    ),
    "max_truncation": ("256:0", "max_truncation", (BudgetThreshold(0.0, 256),)),
    "min_conformance": ("limits,enforced", "min_conformance", ("limits", "enforced")),
    "gate_rule": ("confident", "gate_rule", "confident"),
    "gate_margin": ("0.03", "gate_margin", 0.03),
    "gate_confidence": ("0.9", "gate_confidence", 0.9),
    "allow_inconclusive": ("on", "allow_inconclusive", True),
    "require_all_gates": ("on", "require_all_gates", True),
    "list_gates": ("on", "list_gates", True),
    "save": ("before-4bit", "save", "before-4bit"),
    "compare": ("old/run.json", "compare", Path("old/run.json")),
    "compare_fail": (
        "accuracy:-0.02, 512:tokens:+10%:point",
        "compare_fail",
        (Tolerance("accuracy", -0.02), Tolerance("tokens", 0.1, True, 512, "point")),
    ),
    "storage": ("kept/runs", "storage", Path("kept/runs")),
    "margin": ("0.05", "margin", 0.05),
    "fresh": ("on", "fresh", True),
    "stream": ("on", "stream", True),
    "lease": ("2.5", "lease", 2.5),
    "error_samples": ("64:5, 32:0", "error_samples", ((32, 0), (64, 5))),
    "controls": ("4", "controls", 4),
    "annotations": ("first,second", "annotations", (Path("first"), Path("second"))),
    "closers": ("bare,mine=</think>", "closers", ("bare", "mine=</think>")),
    "wait": ("2", "wait", 2),
    "truncation": ("first, ends=0.250", "truncation", ("first", "ends=0.25")),
    "context_limits": ("50%,0, 512,25.5 %,100%", "context_limits", ("512", "25.5%", "50%")),
    "context_turns": ("16, 4,16", "context_turns", (4, 16)),
}
SWITCHES = {option.name for option in OPTIONS if option.switch}
DEFAULTS = {
    "models": ("nano-reasoner",),
    "engine": "auto",
    "base_url": (),
    "served_model": None,
    "server_api": "auto",
    "task": "word-problems",
    "num_samples": None,
    "stage": "full",
    "budgets": DEFAULT_BUDGETS,
    "thinking": False,
    "temperature": 0.0,
    "top_p": 1.0,
    "generation_config": None,
    "samples": 5,
    "sample_budgets": (512, 1024),
    "cliff_budgets": tuple(range(96, 257, 16)),
    "error_samples": ((128, 30), (256, 30), (512, 50), (1024, 50)),
    "controls": 10,
    "thinking_budgets": (),
    "answer_tokens": 256,
    "truncation": STRATEGIES[:-1],
    "context_limits": ("25%", "50%", "75%"),
    "context_turns": (),
    "closers": (),
    "wait": 0,
    "modes": (),
    "max_thinking_tokens": None,
    "target_truncation": 0.01,
    "requests_per_day": None,
    "dry_run": False,
    "annotations": (),
    "seed": 0,
    "quantization": None,
    "dtype": "auto",
    "device": "auto",
    "batch_size": None,
    "tensor_parallel": 1,
    "data_parallel": 1,
    "request_timeout": 120.0,
    "answers_table": "none",
    "recorded": (),
    "tokenizer": None,
    "min_accuracy": (),
    "max_truncation": (),
    "min_conformance": (),
    "save": None,
    "compare": None,
    "compare_fail": (),
    "gate_rule": "point",
    "gate_margin": None,
    "gate_confidence": 0.95,
    "allow_inconclusive": False,
    "require_all_gates": False,
    "list_gates": False,
    "margin": 0.02,
    "fresh": False,
    "stream": False,
    "lease": 60.0,
}


@pytest.fixture(autouse=True)
def no_worker(monkeypatch):
    """What runs inside is no worker, also where this runs in one."""
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def read(pytester):
    (pytester.path / "limits.yaml").touch()

    def settings_of(*arguments) -> Settings:
        config = pytester.parseconfig(*arguments)
        return read_settings(config, find_project(config))

    return settings_of


def flag(name: str) -> str:
    return next(option.flags[0] for option in OPTIONS if option.name == name)


def expected(name: str, pytester) -> tuple[str, object]:
    _, field, value = GIVEN[name]
    if isinstance(value, tuple):
        value = tuple(pytester.path / v if isinstance(v, Path) else v for v in value)
    if isinstance(value, GenerationConfig):
        value = replace(value, path=pytester.path / value.path)
    return field, pytester.path / value if isinstance(value, Path) else value


def test_every_option_is_tested_here():
    assert tuple(GIVEN) == NAMES
    placed = {"reports", "trace_store", "storage", "explicit", "from_model_entry", "evals"}
    names = {field.name for group in option_groups() for field in fields(group)}
    assert {*DEFAULTS, *placed} == names


def test_defaults(read, pytester):
    settings = read()
    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS
    assert settings.reports == pytester.path / "reports"
    assert settings.trace_store == pytester.path / "reports" / "traces.sqlite"
    assert settings.storage == pytester.path / "reports" / "baselines"
    assert settings.explicit == frozenset()
    assert settings.from_model_entry == ()


def test_reports_record_every_option(read):
    recorded = read().record()
    assert recorded.keys() == {option.field for option in OPTIONS} - {"stage"} | {
        "from_model_entry"
    }
    assert (recorded["seed"], recorded["truncation"]) == (0, STRATEGIES[:-1])


@pytest.mark.parametrize("name", NAMES)
def test_a_flag_sets_it(read, pytester, name):
    text = GIVEN[name][0]
    settings = read(flag(name)) if name in SWITCHES else read(flag(name), text)
    field, value = expected(name, pytester)
    assert getattr(settings, field) == value
    assert settings.explicit == {name}


FILES = {
    "pytest.ini": ("[pytest]", "tokenbudget_{name} = {text}"),
    "pytest.toml": ("[pytest]", 'tokenbudget_{name} = "{text}"'),
    "pyproject.toml": ("[tool.pytest]", 'tokenbudget_{name} = "{text}"'),
    "setup.cfg": ("[tool:pytest]", "tokenbudget_{name} = {text}"),
    "tokenbudget.toml": ("", '{name} = "{text}"'),
    "pyproject.toml (own table)": ("[tool.tokenbudget]", '{name} = "{text}"'),
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("left_out", ["stage", "num_samples"])
def test_a_file_sets_them(read, pytester, file, left_out):
    table, line = FILES[file]
    names = [name for name in NAMES if name != left_out]
    lines = [line.format(name=name, text=GIVEN[name][0]) for name in names]
    (pytester.path / file.split()[0]).write_text("\n".join([table, *lines, ""]))
    settings = read("--rootdir", ".")
    for name in names:
        field, value = expected(name, pytester)
        assert getattr(settings, field) == value
    assert settings.explicit == set(names)


def test_toml_may_use_its_own_types(read, pytester):
    (pytester.path / "tokenbudget.toml").write_text(
        'model = ["a", "b"]\nbudgets = [64, 32]\nnum_samples = 3\ntemperature = 0.5\nfresh = true\n'
        'thinking = false\nmin_accuracy = [0.5, "64:0.25"]\n'
    )
    settings = read("--rootdir", ".")
    assert settings.models == ("a", "b")
    assert settings.budgets == (32, 64)
    assert settings.num_samples == 3
    assert settings.temperature == 0.5
    assert (settings.fresh, settings.thinking) == (True, False)
    assert settings.min_accuracy == (BudgetThreshold(0.5), BudgetThreshold(0.25, 64))


def test_ini_options_of_pyproject_may_use_numbers(read, pytester):
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\ntokenbudget_num_samples = 3\n")
    assert read().num_samples == 3


def test_flag_before_pytests_file_before_own_file(read, pytester):
    (pytester.path / "tokenbudget.toml").write_text("seed = 1\nnum_samples = 1\ntop_p = 0.1\n")
    (pytester.path / "pytest.ini").write_text(
        "[pytest]\ntokenbudget_seed = 2\ntokenbudget_num_samples = 2\n"
    )
    settings = read("--seed", "3")
    assert (settings.seed, settings.num_samples, settings.top_p) == (3, 2, 0.1)
    assert read("-o", "tokenbudget_seed=4").seed == 4


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["--tokenbudget-model", "a"], "models", ("a",)),
        (["--model", "a,b", "--model", "c", "--tokenbudget-model", "a"], "models", ("a", "b", "c")),
        (["--dataset", "gsm8k"], "task", "gsm8k"),
        (["--budgets", "64", "--budgets", "32,16"], "budgets", (16, 32, 64)),
        (["--stage", "minimal"], "num_samples", 2),
        (["--stage", "full"], "num_samples", None),
        (["--stage", "minimal", "--num-samples", "9"], "num_samples", 9),
        (["--num-samples", "9", "--stage", "quick"], "num_samples", 9),
        (["--batch-size", "auto"], "batch_size", None),
        (["--quantization", "none"], "quantization", "none"),
        (["--temperature", "0"], "temperature", 0.0),
        (["--min-accuracy", "0.5", "--min-accuracy", "64:0.1"], "min_accuracy",
         (BudgetThreshold(0.5), BudgetThreshold(0.1, 64))),
        (["--min-accuracy", "1"], "min_accuracy", (BudgetThreshold(1.0),)),
    ],
)  # fmt: skip
def test_other_spellings_of_values(read, arguments, field, value):
    assert getattr(read(*arguments), field) == value


def test_paths_start_where_they_were_written(read, pytester, monkeypatch):
    below = pytester.mkdir("below")
    (pytester.path / "pytest.ini").write_text("[pytest]\ntokenbudget_reports = a\n")
    monkeypatch.chdir(below)
    assert read().reports == pytester.path / "a"
    assert read("--reports", "b").reports == below / "b"
    assert read("--reports", "b").trace_store == below / "b" / "traces.sqlite"
    monkeypatch.setenv("HOME", str(pytester.path))
    assert read("--reports", "~/c").reports == pytester.path / "c"
    assert read("--trace-store", str(below / "t")).trace_store == below / "t"


def test_help_names_every_option(pytester):
    text = pytester.runpytest_inprocess("--help").stdout.str()
    for option in OPTIONS:
        assert option.ini in text
        for name in option.flags:
            assert name in text


# What cannot be used: exit code 4, and a sentence that says what, why, and what would do

WHOLE = "a whole number"
SHARE = "a share"
BAD = [
    ("--truncation", "newst", ["'newest'", "importance", "ends=0.25"]),
    ("--truncation", "newest=0.5", ["a share for ends and summary"]),
    ("--truncation", "ends=1.5", ["from 0 to 1"]),
    ("--context-limits", "half", ["tokens (512)", "25%", "no truncation"]),
    ("--context-limits", "120%", ["25%"]),
    ("--context-limits", "100%,0", ["at least one limit below"]),
    ("--context-turns", "8,0", ["a whole number of at least 1"]),
    ("--num-samples", "0", [WHOLE, "at least 1"]),
    ("--num-samples", "-3", [WHOLE]),
    ("--num-samples", "1.5", [WHOLE]),
    ("--num-samples", "many", [WHOLE]),
    ("--num-samples", "", ["a value is missing"]),
    ("--stage", "quik", ["minimal, quick, full", "did you mean 'quick'?"]),
    ("--stage", "FULL", ["minimal, quick, full", "did you mean 'full'?"]),
    ("--budgets", "32,x", [WHOLE, "at least 1"]),
    ("--budgets", "0", ["at least 1"]),
    ("--budgets", "32;64", [WHOLE]),
    ("--budgets", ",", [WHOLE]),
    ("--budgets", " ", ["a value is missing"]),
    ("--budgets", "2048,4096", ["nano-reasoner", "2,048"]),
    ("--thinking", "onn", ["on, off", "did you mean 'on'?"]),
    ("--temperature", "-0.1", ["a number", "from 0 to 10"]),
    ("--temperature", "nan", ["from 0 to 10"]),
    ("--temperature", "warm", ["from 0 to 10"]),
    ("--top-p", "0", ["from 0.001 to 1"]),
    ("--top-p", "95", ["from 0.001 to 1"]),
    ("--seed", "-1", [WHOLE, "from 0"]),
    ("--seed", str(2**63), ["to 9,223,372,036,854,775,807"]),
    ("--quantization", "4-bit", ["none, 8bit, 4bit", "did you mean '4bit'?"]),
    ("--dtype", "float61", ["auto, float32, bfloat16, float16", "did you mean 'float16'?"]),
    ("--device", "gpu", ["auto, cpu, cuda, cuda:N, mps", "did you mean 'cpu'?"]),
    ("--device", "cuda:", ["cuda:N"]),
    ("--device", "cuda:one", ["cuda:N"]),
    ("--batch-size", "0", ["'auto' or a whole number"]),
    ("--batch-size", "big", ["'auto' or a whole number"]),
    ("--reports", "", ["a value is missing"]),
    ("--trace-store", " ", ["a value is missing"]),
    ("--trace-store", ".", ["is a directory", "allowed: a file", "traces.sqlite"]),
    ("--min-accuracy", "60", [SHARE, "for 60 % write 0.6"]),
    ("--min-accuracy", "0.6,0.x", [SHARE, "512:0.6"]),
    ("--min-accuracy", "half:0.5", ["BUDGET:SHARE"]),
    ("--min-accuracy", "-0.1", [SHARE]),
    ("--min-accuracy", "nan", [SHARE]),
    ("--min-accuracy", ",", ["BUDGET:SHARE"]),
    ("--min-accuracy", "300:0.5", ["32,64,128,256,512,1024,2048", "the nearest is 256"]),
    ("--max-truncation", "2", [SHARE, "for 2 % write 0.02"]),
    ("--max-truncation", "999:0.5", ["the nearest is 1024"]),
    ("--saturation-margin", "0", ["from 0.0001 to 0.5"]),
    ("--saturation-margin", "2%", ["from 0.0001 to 0.5"]),
    ("--tokenbudget-lease", "0.1", ["from 0.5"]),
    ("--model", "nano-reasonr", ["unknown model", "did you mean 'nano-reasoner'", "qwen-1.5b"]),
    ("--model", ",", ["one or more names"]),
    ("--model", "", ["a value is missing"]),
    ("--model", "./nowhere", ["no directory", "nowhere"]),
    ("--model", "nothing.gguf", ["no file", "nothing.gguf"]),
    ("--model", "nano-reasoner,a/b/c", ["'a/b/c'", "hub id"]),
    ("--model", "nano-reasoner@main", ["no revisions"]),
    ("--task", "word-problem", ["word-problems", "gsm8k=PATH.jsonl"]),
    ("--task", "nothing.jsonl", ["no file", "nothing.jsonl"]),
    ("--task", "gsm8k=", ["gsm8k=PATH.jsonl"]),
    ("--task", "", ["a value is missing"]),
]  # fmt: skip


def told(result, *words) -> None:
    """The run ended at once with exit code 4 and one line with all ``words``."""
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [x for x in result.errlines if x.strip()]
    assert line.startswith("ERROR: ")
    for word in words:
        assert word in line
    assert "INTERNALERROR" not in result.stdout.str()


@pytest.mark.parametrize(("option", "value", "words"), BAD)
def test_bad_values_are_told_with_what_is_allowed(pytester, option, value, words):
    result = pytester.runpytest_inprocess(f"{option}={value}")
    # Of several models the message names the one that is wrong, and a path in full.
    told(result, option, "" if option == "--model" else value.strip(), *words)


@pytest.mark.parametrize("option", NAMES)
def test_every_option_refuses_what_is_empty_or_nonsense(pytester, option):
    """But texts, whose meaning shows later, and switches, which take none."""
    if option in SWITCHES:
        result = pytester.runpytest_inprocess(f"{flag(option)}=perhaps")
    elif option in ("reports", "trace_store", "storage", "annotations", "recorded", "tokenizer"):
        result = pytester.runpytest_inprocess(f"{flag(option)}=")
    else:
        result = pytester.runpytest_inprocess(f"{flag(option)}=no/such/thing")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert flag(option) in result.stderr.str()


@pytest.mark.parametrize("value", ["[32, 64]", "5", "true"])
def test_pytests_toml_takes_texts_only_and_says_so(pytester, value):
    pytester.makepyprojecttoml(f"[tool.pytest]\ntokenbudget_budgets = {value}\n")
    result = pytester.runpytest_inprocess()
    told(result, "tokenbudget_budgets", "pyproject.toml", 'tokenbudget_budgets = "32,64')


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("pytest.ini", "[pytest]\ntokenbudget_stage = quik\n",
         ["tokenbudget_stage", "pytest.ini", "'quik'", "'quick'"]),
        ("pytest.ini", "[pytest]\ntokenbudget_model = nano\n",
         ["--model", "'nano'", "nano-reasoner"]),
        ("pyproject.toml", "[tool.tokenbudget]\nstage = 'quik'\n",
         ["stage in [tool.tokenbudget]", "pyproject.toml", "'quik'", "'quick'"]),
        ("tokenbudget.toml", "budgets = [32, 'x']\n",
         ["budgets in", "tokenbudget.toml", "'32,x'", WHOLE]),
        ("tokenbudget.toml", "num_sample = 5\n",
         ["tokenbudget.toml", "'num_sample'", "did you mean 'num_samples'?", "allowed"]),
        ("tokenbudget.toml", "budgets = []\n", ["budgets in", "tokenbudget.toml"]),
        ("tokenbudget.toml", "task = ''\n", ["task in", "a value is missing"]),
        ("tokenbudget.toml", "= 5\n", ["tokenbudget.toml", "line 1"]),
        ("tokenbudget.toml", "model = 'm'\n[models.m]\nid = 'no'\n",
         ["--model", "models.m", "tokenbudget.toml", "hub id"]),
    ],
)  # fmt: skip
def test_bad_values_in_files_are_told_with_the_file(pytester, file, text, words):
    (pytester.path / file).write_text(text)
    told(pytester.runpytest_inprocess("--rootdir=."), *words)


def test_a_gate_on_a_budget_that_was_not_asked_for_is_told(pytester):
    result = pytester.runpytest_inprocess("--budgets=16,32", "--max-truncation=64:0.5")
    told(result, "--max-truncation", "'64:0.5'", "16,32", "nearest is 32")


def test_nothing_is_loaded_before_a_bad_option_is_told(pytester):
    pytester.makeconftest(
        """
        import sys
        def pytest_unconfigure():
            assert not {"torch", "transformers", "numpy"} & set(sys.modules)
            print("checked")
        """
    )
    result = pytester.runpytest_subprocess("--model=nano-reasoner", "--task=recal")
    told(result, "--task", "'recal'", "recall")
    assert "checked" in result.stdout.str()


FORM = """
llm:
  generation_config: {max_new_tokens: 100, enable_thinking: true, temperature: 0.5, top_p: 0.8}
data: {batch_size: 4}
emotions: {anger: {max_new_tokens: 300}}
"""


def test_a_generation_config_sets_what_the_command_line_does_not(read, pytester):
    (pytester.path / "form.yaml").write_text(FORM)
    (pytester.path / "tokenbudget.toml").write_text(
        'generation_config = "form.yaml"\nbudgets = [64, 100, 512]\ntemperature = 0.9\nseed = 3\n'
    )
    settings = read("--rootdir", ".", "--top-p=0.6")
    # Its limits are budgets, the largest is what is generated with; what is smaller stays.
    assert settings.budgets == (64, 100, 300)
    assert settings.sample_budgets == (100, 300)
    assert (settings.thinking, settings.temperature, settings.top_p) == (True, 0.5, 0.6)
    assert (settings.batch_size, settings.seed) == (4, 3)
    assert settings.generation_config.limits == {"framing": {"anger": 300}}
    assert {"budgets", "thinking", "temperature", "batch_size"} < settings.explicit
    assert read("--rootdir", ".", "--budgets=64,512").budgets == (64, 512)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "llm: {generation_config: {top_pp: 3}}",
            "llm.generation_config.top_pp (did you mean top_p",
        ),
        (
            "llm: {generation_config: {temperature: 11}}",
            "form.yaml: llm.generation_config.temperature: '11' cannot be used; allowed: a number",
        ),
        ("data: {batch_size: 0}", "form.yaml: data.batch_size: '0' cannot be used; allowed"),
        ("- 1", "--generation-config: "),
    ],
)
def test_a_generation_config_that_cannot_be_used(read, pytester, text, message):
    (pytester.path / "form.yaml").write_text(text)
    with pytest.raises(pytest.UsageError) as refused:
        read("--generation-config=form.yaml")
    assert message in str(refused.value)
