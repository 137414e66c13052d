"""What the README and docs/ say is held against the code: commands, options, files, fields."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import serving_flags
from all_options import NAMES
from studies import make_study

from pytest_tokenbudget import registry
from pytest_tokenbudget.common.extensions import TASKS
from pytest_tokenbudget.core.trace import Outcome
from pytest_tokenbudget.models.resolution import load_catalogue, resolve_model
from pytest_tokenbudget.report.json_files import RunInfo, answer_record
from pytest_tokenbudget.settings.config_file import read_config
from pytest_tokenbudget.studies.saturation.report import combined_record
from pytest_tokenbudget.tasks.word_problems import DEFAULT_SIZE

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *ROOT.glob("docs/*.md"),
        ROOT / "fixtures" / "README.md",
        ROOT / "reports" / "README.md",
    ]
)
OTHER_PROGRAMS_FLAGS = {
    *("--extra-index-url", "--log_samples", "--log-format", "--gen_kwargs"),
    *serving_flags.ALL,
}
PROGRAMS = ("pytest", "pytest_tokenbudget.recipes", "pytest_tokenbudget.estimate")


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def block(text: str, marker: str) -> list[str]:
    """Contents of the fenced blocks right after ``<!-- marker -->``."""
    return re.findall(rf"^ *<!-- {marker} -->\n *```\w*\n(.*?)^ *```$", text, re.M | re.S)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def known_flags() -> frozenset[str]:
    """Every long flag of pytest here, other plugins' included, and of this package's programs."""
    shown = "".join(
        subprocess.run(
            [sys.executable, "-m", program, "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for program in PROGRAMS
    )
    # One of pytest's own is shown as --junit-xml and is usually written --junitxml.
    return frozenset(re.findall(r"(?<![\w-])--[a-z][\w-]+", shown)) | {"--junitxml"}


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_flags_exist(path: Path) -> None:
    found = set(re.findall(r"(?<![\w<!-])--[a-z][\w-]+", path.read_text(encoding="utf-8")))
    assert found - OTHER_PROGRAMS_FLAGS <= known_flags()


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.exists(), f"{relative(path)} links to {target}, which is not there"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.M)
            anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in anchors, f"{relative(path)} links to {target}, which has no such part"


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_files_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    ours = (
        r"`((?:pytest_tokenbudget|evals|docs|tests|benchmarks|fixtures|models|training)/[^`\s]*)`"
    )
    for name in re.findall(ours, text):
        assert (ROOT / name).exists() or (path.parent / name).exists(), name


def test_the_table_of_options_is_the_one_that_the_script_writes(tmp_path: Path) -> None:
    written, outdated = tmp_path / "written.md", tmp_path / "outdated.md"
    written.write_text(guide := page("docs/guide.md"), encoding="utf-8")
    outdated.write_text(re.sub(r"\| `--seed` .*\n", "| x |\n", guide), encoding="utf-8")
    assert outdated.read_text(encoding="utf-8") != guide
    for path in (written, outdated):
        subprocess.run([sys.executable, ROOT / "docs" / "options_table.py", path], check=True)
        assert path.read_text(encoding="utf-8") == guide, "run python docs/options_table.py"


def test_every_alias_is_in_the_guide_as_it_is() -> None:
    catalogue = load_catalogue()
    rows = re.findall(
        r"^\| `([\w.-]+)` \| (\S+/\S+|the embedded one) \| (.*?) \| ([\d,]+) \| (.*?) \|$",
        page("docs/guide.md"),
        re.M,
    )
    assert [row[0] for row in rows] == list(catalogue)
    for alias, source, loaded, context, thinking in rows:
        spec = resolve_model(alias, catalogue)
        assert source in (spec.source, "the embedded one")
        assert loaded == {"none": "unquantised", "4bit": "4-bit"}[spec.quantization]
        assert int(context.replace(",", "")) == spec.context
        switch = spec.thinking.switch if spec.thinking else None
        assert thinking == (
            "no" if spec.thinking is None else "can be switched" if switch else "always"
        )


def test_every_task_fixture_and_marker_is_in_the_guide() -> None:
    guide = page("docs/guide.md")
    public = {
        name
        for module in registry.fixture_modules()
        for name, value in vars(importlib.import_module(module)).items()
        if type(value).__name__ == "FixtureFunctionDefinition" and not name.startswith("_")
    }
    assert public >= {"curve", "record_metrics", "context_study"}
    for name in {*TASKS.names, *registry.markers(), *public - {"tokenbudget"}}:
        assert f"`{name}`" in guide, name


def test_every_field_of_the_results_is_explained() -> None:
    text = page("docs/saturation.md")
    study = make_study(3, errors=1)
    combined = combined_record(study, RunInfo())
    fields = {*combined, *combined["curve"][0], *combined["tokens"], *combined["saturation"]}
    fields |= set(combined["saturation"]["comparisons"][0]) | set(combined["accuracy_by_token"])
    fields |= set(combined["token_stats"]["32"]) | set(combined["curve"][0]["accuracy"])
    for judged in study.judged(32):
        fields |= set(answer_record(judged))
    for name in {*fields, *Outcome}:
        assert f"`{name}`" in text, name


@pytest.mark.parametrize("number", [0, 1, 2])
def test_settings_examples_can_be_read(tmp_path: Path, number: int) -> None:
    examples = block(page("docs/guide.md"), "example: settings")
    assert len(examples) == 3
    (tmp_path / "tokenbudget.toml").write_text(examples[number], encoding="utf-8")
    config = read_config(tmp_path, NAMES)
    catalogue = load_catalogue(config=config)
    assert config.models.keys() <= catalogue.keys()


@pytest.mark.slow
def test_the_example_eval_works(pytester: pytest.Pytester) -> None:
    [example] = block(page("README.md"), "example: eval")
    pytester.makepyfile(test_mine=example)
    result = pytester.runpytest_subprocess(
        "test_mine.py",
        "--num-samples=2",
        "--budgets=16,32",
        "--junitxml=report.xml",
        "--override-ini=junit_family=xunit1",
    )
    result.assert_outcomes(passed=1, failed=1)  # in 32 tokens every answer is cut
    result.stdout.fnmatch_lines(["*test_answers_fit*nano-reasoner*"])
    assert 'name="truncation" value="1.0"' in Path("report.xml").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_of_llm_works(pytester: pytest.Pytester) -> None:
    [example] = block(page("docs/guide.md"), "example: llm")
    pytester.makepyfile(test_mine=example)
    result = pytester.runpytest_subprocess("test_mine.py", "-v")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*test_answer_fits*256*PASSED*", "E *cut at 64 tokens: <think>*"])


@pytest.mark.slow
def test_the_example_of_modes_works(pytester: pytest.Pytester) -> None:
    [example] = block(page("docs/guide.md"), "example: modes")
    pytester.makepyfile(test_mine=example)
    result = pytester.runpytest_subprocess(
        "test_mine.py", "--modes=off,on,conservative", "--budgets=16,512", "--num-samples=2", "-v"
    )
    result.assert_outcomes(passed=3, failed=3)
    result.stdout.fnmatch_lines(["*512-conservative*PASSED*", "E *on with 16 tokens*"])


def test_ci_runs_the_commands_of_the_readme() -> None:
    shown = subprocess.run(
        [str(ROOT / ".ci" / "run"), "--print"], capture_output=True, text=True, check=True
    ).stdout
    text = page("README.md")
    [tests], [main_job] = block(text, "command: test"), block(text, "command: main-job")
    slow = ".venv/bin/pytest -m slow -n auto\n"
    assert shown == f"$ {tests}$ {slow}$ {main_job.rstrip()} --num-samples 20\n"
    for command in (tests, main_job):
        assert "-c constraints.txt" in command
        assert command.count("\n") == 1


def test_torch_is_held_to_one_version() -> None:
    """tox and constraints.txt agree; no local version, so that every index has it."""
    [pinned] = re.findall(r"^torch==.*$", page("constraints.txt"), re.M)
    assert "+" not in pinned
    assert page("tox.ini").count(pinned) == page("tox.ini").count("torch==")


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS[1:])
def test_commands_on_recipes_and_memory_run_as_shown(program: str) -> None:
    commands = re.findall(rf"^python -m {re.escape(program)} .*$", page("README.md"), re.M)
    assert commands
    for command in commands:
        done = subprocess.run(
            [sys.executable, *command.split()[1:]],
            cwd=ROOT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), command
        assert done.stdout


def test_the_example_recipe_is_the_one_that_is_explained() -> None:
    example = page("recipe.toml")
    assert example[example.index("id = ") :] in page("docs/allocation.md")


def test_no_page_installs_this_package_from_an_index_that_lacks_it() -> None:
    for path in [*PAGES, *ROOT.glob("docs/ci/*")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"pip install[^\n]*\bpytest-tokenbudget\b(?! @)", text), path


def test_the_version_is_in_the_changelog() -> None:
    [version] = re.findall(r'^version = "(.*)"$', page("pyproject.toml"), re.M)
    assert f"## [{version}]" in page("CHANGELOG.md")


def test_the_output_shown_is_that_of_the_whole_main_job() -> None:
    [output] = block(page("README.md"), "output: main-job")
    assert f"nano-reasoner on word-problems, n = {DEFAULT_SIZE}" in output
    assert "written: reports/results/" in output


def test_every_package_is_shipped() -> None:
    listed = tomllib.loads(page("pyproject.toml"))["tool"]["setuptools"]["packages"]
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "pytest_tokenbudget").rglob("__init__.py")
    }
    assert there == {name for name in listed if not name.endswith((".evals", ".embedded"))}
