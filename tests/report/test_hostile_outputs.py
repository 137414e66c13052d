"""Sixty hostile texts through every output: terminal, JUnit, TSV, JSON, SVG, GitHub summary."""

import csv
import io
import json
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hostile_texts import LONG, TEXTS, raw_in

from pytest_tokenbudget.studies.errors.annotation_tables import unguard

pytest_plugins = ["run_fixtures"]

EVALS = ("--pyargs", "pytest_tokenbudget.evals", "-p", "no:cacheprovider", "-p", "no:benchmark")


def write_records(folder: Path) -> Path:
    """Recorded answers at two budgets, every text as an answer, a question, a name and a group."""
    folder.mkdir()
    for budget in (16, 32):
        records = [
            {
                "problem_id": f"{n}-{text[:300]}",
                "question": f"{text}?",
                "ground_truth": str(n),
                "generated": f"{text}\n#### {n}" if n % 2 else text,
                "tokens_used": budget if n % 3 else 7,
                "truncated": bool(n % 3),
                "budget": budget,
                "category": text[:300] if n % 4 else "plain",
            }
            for n, text in enumerate(TEXTS)
        ]
        path = folder / f"phase1_main_model_budget{budget}.json"
        path.write_text(json.dumps(records), encoding="utf-8")
    combined = {"model": "evil\x1b]0;x\x07\nmodel \u202e<b>", "task": "ta\x1bsk | $x$\n5 passed"}
    (folder / "phase1_combined_model.json").write_text(json.dumps(combined), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_hostile_texts_reach_no_output_raw(pytester, no_worker, warm, monkeypatch):
    summary = pytester.path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path))
    recorded = write_records(pytester.path / "recorded")
    pytester.path.joinpath("tokenbudget.toml").write_text(
        '[[gates]]\nname = "na\\u001bme\\n::error::x | $y$"\nmin_accuracy = 0.99\n'
        f"category = {json.dumps(TEXTS[1])}\n[[gates]]\nmin_accuracy = 0.98\n"
    )
    arguments = [
        *EVALS,
        f"--recorded={recorded}",
        "--reports=out",
        "--junitxml=junit.xml",
        "--tokenbudget-save=base",
        "--error-samples=32:60",
        "-rA",
        "-v",
    ]
    start = time.process_time()
    first = pytester.runpytest_inprocess(*arguments, "-m", "phase1 or phase2 or scenarios")
    second = pytester.runpytest_inprocess(*arguments, "-m", "phase1", "--tokenbudget-compare=base")
    seconds = time.process_time() - start
    for result in (first, second):
        terminal = result.stdout.str() + result.stderr.str()
        assert result.ret in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), terminal[-5_000:]
        assert "INTERNALERROR" not in terminal
        assert "Traceback" not in terminal
        assert not raw_in(terminal)
        for line in terminal.splitlines():
            assert not line.startswith("5 passed")
            assert line != "=========== 1 failed ==========="
            if line.lstrip().startswith("::"):
                assert line.startswith(("::error ", "::warning "))
                assert "tokenbudget" in line
            assert "##[" not in line
    limit = csv.field_size_limit(2**31 - 1)
    try:
        assert_files_parse(pytester.path)
        assert_table_holds(pytester.path)
    finally:
        csv.field_size_limit(limit)
    text = summary.read_text("utf-8")
    assert "Token budgets" in text
    assert "<b>" not in text
    assert "<script" not in text
    assert seconds < 120


def assert_files_parse(folder: Path) -> None:
    """Real parsers read every file, and no file holds anything harmful."""
    kinds = set()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if folder / "recorded" in path.parents or path.suffix in (".png", ".toml", ".pyc"):
            continue
        kinds.add(path.suffix)
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig" if path.suffix == ".tsv" else "utf-8")
        # Rows of tables end in CRLF, which spreadsheet programs want.
        raw_found = raw_in(text.replace("\r\n", "\n") if path.suffix == ".tsv" else text)
        assert not raw_found, (path, raw_found)
        if path.suffix == ".json":
            json.loads(text)
        elif path.suffix in (".xml", ".svg"):
            root = ElementTree.fromstring(raw)
            assert "script" not in {element.tag.split("}")[-1] for element in root.iter()}
        elif path.suffix == ".tsv":
            rows = list(csv.reader(io.StringIO(text, newline=""), "excel-tab", strict=True))
            assert len({len(row) for row in rows}) == 1
    assert kinds >= {".json", ".xml", ".svg", ".tsv", ".md"}, kinds


def assert_table_holds(folder: Path) -> None:
    """No cell of a table for annotators begins like a formula, and long texts are whole."""
    longest = 0
    for path in folder.rglob("*.tsv"):
        text = path.read_text("utf-8-sig")
        for row in csv.reader(io.StringIO(text, newline=""), "excel-tab"):
            for cell in row:
                assert cell[:1] not in ("=", "+", "@", "\t", "\r"), cell[:60]
                longest = max(longest, len(unguard(cell)))
    assert longest >= LONG
