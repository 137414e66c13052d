"""Hostile text in whatever comes in: messages, failure summaries and test ids show it escaped."""

import json
import shutil
from pathlib import Path

import pytest
from hostile_texts import raw_in
from runs import NANO
from slow_cases import mostly_slow

pytest_plugins = ["run_fixtures"]

EVIL = (
    "\x1b]0;owned\x07\x1b]8;;https://evil.example\x1b\\link\x9b31m\x08\x7f\u202e\u2066\u200f\u061c"
    "\u2028\n5 passed\r\n::error::forged"
)
NAMED = "e\x1b]0;x\x07\u202e\x9b\n5 passed"
TOML = json.dumps(EVIL)


def jsonl(**fields: object) -> str:
    return json.dumps({"question": "1 + 1?", "answer": "2", **fields})


# Each: arguments, and the files that they, or the run, find in the directory.
INPUTS: dict[str, tuple[list[str], dict[str, str]]] = {
    "option-model": ([f"--model={EVIL}"], {}),
    "option-model-path": ([f"--model=./{NAMED}"], {}),
    "option-model-revision": ([f"--model=a/b@{EVIL}"], {}),
    "option-model-address": ([f"--model=http://127.0.0.1:1/{EVIL}"], {}),
    "option-budgets": ([f"--budgets={EVIL}"], {}),
    "option-task": ([f"--task={EVIL}"], {}),
    "option-task-file": ([f"--task={NAMED}.jsonl"], {}),
    "option-device": ([f"--device={EVIL}"], {}),
    "option-engine": ([f"--engine={EVIL}"], {}),
    "option-dtype": ([f"--dtype={EVIL}"], {}),
    "option-recorded": ([f"--recorded={NAMED}"], {}),
    "option-compare": ([f"--tokenbudget-compare={EVIL}"], {}),
    "option-compare-fail": ([f"--tokenbudget-compare-fail={EVIL}"], {}),
    "option-save": ([f"--tokenbudget-save={EVIL}"], {}),
    "option-annotations": ([f"--annotations={NAMED}"], {}),
    "option-tokenizer": ([f"--tokenizer={EVIL}"], {}),
    "option-thinking-budgets": ([f"--thinking-budgets={EVIL}"], {}),
    "option-closers": ([f"--closers={EVIL}"], {}),
    "option-accuracy": ([f"--min-accuracy={EVIL}"], {}),
    "option-conformance": ([f"--min-conformance={EVIL}"], {}),
    "option-generation-config": ([f"--generation-config={NAMED}.yaml"], {}),
    "jsonl-role": (
        ["--task=t.jsonl"],
        {"t.jsonl": jsonl(messages=[{"role": EVIL, "content": "x"}])},
    ),
    "jsonl-key": (["--task=t.jsonl"], {"t.jsonl": json.dumps({EVIL: 1})}),
    "jsonl-ids": (
        ["--task=t.jsonl"],
        {"t.jsonl": jsonl(id=EVIL) + "\n" + jsonl(id=EVIL, answer="3")},
    ),
    "jsonl-scorer": (["--task=t.jsonl"], {"t.jsonl": jsonl(scorer=EVIL)}),
    "jsonl-number": (["--task=t.jsonl"], {"t.jsonl": jsonl(scorer="number", answer=EVIL)}),
    "jsonl-not-json": (["--task=t.jsonl"], {"t.jsonl": EVIL}),
    "jsonl-name": ([f"--task={NAMED}.jsonl"], {f"{NAMED}.jsonl": jsonl()}),
    "jsonl-texts": (
        ["--task=t.jsonl"],
        {"t.jsonl": jsonl(id=EVIL, question=EVIL, category=EVIL)},
    ),
    "toml-key": ([], {"tokenbudget.toml": f"{TOML} = 1"}),
    "toml-value": ([], {"tokenbudget.toml": f"budgets = {TOML}"}),
    "toml-alias": ([], {"tokenbudget.toml": f"[models.{TOML}]\nid = 'a/b'"}),
    "toml-model-key": ([], {"tokenbudget.toml": f"[models.m]\nid = 'a/b'\n{TOML} = 1"}),
    "toml-model-id": (["--model=m"], {"tokenbudget.toml": f"[models.m]\nid = {TOML}"}),
    "toml-model-thinking": (
        ["--model=m"],
        {"tokenbudget.toml": f"[models.m]\nid = 'a/b'\nthinking = {TOML}"},
    ),
    "toml-format": ([], {"tokenbudget.toml": f"[formats.{TOML}]\nopen = '<a>'"}),
    "toml-gate-key": ([], {"tokenbudget.toml": f"[[gates]]\n{TOML} = 1"}),
    "toml-gate-names": (
        [],
        {
            "tokenbudget.toml": f"[[gates]]\nname = {TOML}\nmin_accuracy = 1.0\n"
            f"[[gates]]\nmin_accuracy = 0.9\ncategory = {TOML}\n"
            f"[[gates]]\nmin_accuracy = 0.8\nmodel = {TOML}\n"
            f"[[gates]]\nmin_accuracy = 0.7\ntask = {TOML}\n"
        },
    ),
    "toml-broken": ([], {"tokenbudget.toml": f"a = {EVIL}"}),
    "yaml-key": (
        ["--generation-config=g.yaml"],
        {"g.yaml": f"llm:\n  {TOML}: 1\n  max_new_tokens: {TOML}"},
    ),
    "yaml-broken": (["--generation-config=g.yaml"], {"g.yaml": "a: [\x1b]0;x\x07\u202e"}),
    "recorded-fields": (
        ["--recorded=r.json"],
        {"r.json": json.dumps([{"problem_id": EVIL, "generated": "x", "budget": EVIL}])},
    ),
    "recorded-reason": (
        ["--recorded=r.json"],
        {
            "r.json": json.dumps(
                [
                    {
                        "problem_id": EVIL,
                        "question": EVIL,
                        "ground_truth": "1",
                        "generated": "x",
                        "stop_reason": EVIL,
                    }
                ]
            )
        },
    ),
    "recorded-twice": (["--recorded=r.json"], {"r.json": f"[{{{TOML}: 1, {TOML}: 2}}]"}),
    "recorded-error": (
        ["--recorded=r.json"],
        {
            "r.json": json.dumps(
                [
                    {
                        "problem_id": EVIL,
                        "question": "q",
                        "ground_truth": "1",
                        "generated": None,
                        "error": EVIL,
                        "budget": 8,
                    }
                ]
            )
        },
    ),
    "baseline-schema": (
        ["--tokenbudget-compare=b.json"],
        {"b.json": json.dumps({"schema": f"tokenbudget-baseline/{EVIL}"})},
    ),
    "model-folder": (
        [f"--model=./{NAMED}"],
        {f"{NAMED}/config.json": json.dumps({"model_type": EVIL, "architectures": [EVIL]})},
    ),
    "model-config-broken": (["--model=./m"], {"m/config.json": EVIL}),
    "model-generation-config": (
        ["--model=./nano"],
        {"nano/generation_config.json": json.dumps({"eos_token_id": EVIL, EVIL: EVIL})},
    ),
    "model-tokenizer": (
        ["--model=./nano"],
        {"nano/tokenizer_config.json": json.dumps({"tokenizer_class": EVIL})},
    ),
    "model-template": (["--model=./nano"], {"nano/chat_template.jinja": "{% " + EVIL}),
}


def put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        if name.startswith("nano/") and not (folder / "nano").exists():
            shutil.copytree(NANO, folder / "nano")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")


def assert_harmless(result: pytest.RunResult, junit: Path) -> None:
    shown = result.stdout.str() + result.stderr.str()
    assert "INTERNALERROR" not in shown
    assert "Traceback (most recent call last)" not in shown
    assert not raw_in(shown)
    for line in shown.splitlines():
        assert not line.startswith(("5 passed", "::error::forged"))
    if junit.exists():
        assert not raw_in(junit.read_text("utf-8"))


# One of each kind: options, tasks, settings, results of others, and files of a model.
QUICK = (
    *("option-model", "option-task-file", "option-compare", "jsonl-texts", "jsonl-not-json"),
    *("toml-key", "toml-gate-names", "yaml-key", "recorded-reason", "model-config-broken"),
)


@pytest.mark.parametrize("name", mostly_slow(INPUTS, lambda name: name in QUICK))
def test_messages_are_harmless(pytester, run, name):
    arguments, files = INPUTS[name]
    put(pytester.path, files)
    result = run(*arguments, "--junitxml=junit.xml", "-rA", problems=1)
    assert_harmless(result, pytester.path / "junit.xml")
