"""What docs/scale.md and docs/engines.md tell people to run: it parses, and scripts are run."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from all_options import NAMES
from serving_flags import FLAGS
from test_readme import ROOT, known_flags

from pytest_tokenbudget.models.resolution import load_catalogue
from pytest_tokenbudget.settings.config_file import read_config

PAGES = ("scale.md", "engines.md")
SHELLS = ("sh", "bash")
BASH = shutil.which("bash") or ""
needs_bash = pytest.mark.skipif(not BASH, reason="no bash")


def blocks(kinds: tuple[str, ...]) -> list[Any]:
    """The fenced blocks of these kinds, as parameters, with their page and number."""
    found = []
    for name in PAGES:
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        for number, (kind, body) in enumerate(
            re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
        ):
            if kind in kinds:
                found.append(pytest.param(body, id=f"{name}-{number}"))
    return found


def marked(marker: str) -> str:
    """The one block of docs/scale.md right after ``<!-- marker -->``."""
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    [body] = re.findall(rf"^<!-- {marker} -->\n```\w+\n(.*?)^```$", text, re.M | re.S)
    return body


def manifests(marker: str) -> dict[str, Any]:
    """Documents of a marked manifest by their kind."""
    return {each["kind"]: each for each in yaml.safe_load_all(marked(f"manifest: {marker}"))}


def flags_of(words: list[str]) -> list[tuple[str, str]]:
    """Long options with the program that each belongs to."""
    found, program = [], ""
    for place, word in enumerate(words):
        name = word.strip("'\"()[];,&").rsplit("/", 1)[-1]
        # These two are also names of engines.
        named = name not in ("vllm", "transformers") or words[place + 1 : place + 2] == ["serve"]
        if name == "#SBATCH":
            program = "sbatch"
        elif name == "pytest" or (name in FLAGS and named):
            program = name
        elif flag := re.match(r"--[a-z][\w-]*", word.lstrip("'\"`")):
            found.append((program, flag.group()))
    return found


def check_flags(words: list[str]) -> None:
    for program, flag in flags_of(words):
        known = known_flags() if program == "pytest" else FLAGS.get(program, frozenset())
        assert flag in known, f"{program or 'no program'}: {flag}"


@needs_bash
@pytest.mark.parametrize("body", blocks(SHELLS))
def test_shell_parses(body: str) -> None:
    done = subprocess.run([BASH, "-n"], input=body, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("body", blocks(SHELLS))
def test_options_belong_to_their_programs(body: str) -> None:
    for line in body.replace("\\\n", " ").splitlines():
        if not line.lstrip().startswith("# "):
            check_flags(line.split())


@pytest.mark.parametrize("body", blocks(("yaml",)))
def test_yaml_parses(body: str) -> None:
    for each in yaml.safe_load_all(body):
        assert {"apiVersion", "kind", "metadata", "spec"} == each.keys()
        assert each["metadata"]["name"]


def test_blocks_are_found() -> None:
    """So that none of the tests here passes by looking at nothing."""
    assert len(blocks(SHELLS)) > 12
    assert len(blocks(("yaml",))) == 3
    assert ("vllm", "--port") in flags_of(["x", "vllm", "serve", "--port", "1"])


def test_the_settings_of_a_served_model_are_read(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    [example] = re.findall(r"^```toml\n(.*?)^```$", text, re.M | re.S)
    (tmp_path / "tokenbudget.toml").write_text(example, encoding="utf-8")
    spec = load_catalogue(config=read_config(tmp_path, NAMES))["production"]
    assert spec.source == load_catalogue()["qwen3-8b"].source
    assert spec.endpoint is not None
    assert spec.endpoint.served == "qwen"
    assert len(spec.endpoint.urls) == 2


def test_containers_are_started_with_options_that_exist() -> None:
    servers, job = manifests("servers"), manifests("job")
    for each in (servers["StatefulSet"], job["Job"]):
        [container] = each["spec"]["template"]["spec"]["containers"]
        check_flags([*container["command"], *container["args"]])


def test_the_job_names_every_server_of_the_stateful_set() -> None:
    servers, job = manifests("servers"), manifests("job")
    service, stateful = servers["Service"], servers["StatefulSet"]
    name, host = stateful["metadata"]["name"], stateful["spec"]["serviceName"]
    assert service["metadata"]["name"] == host
    assert service["spec"]["clusterIP"] == "None"
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels == stateful["spec"]["selector"]["matchLabels"]
    [port] = service["spec"]["ports"]
    [pytest_] = job["Job"]["spec"]["template"]["spec"]["containers"]
    urls = ",".join(
        arg.partition("=")[2] for arg in pytest_["args"] if arg.startswith("--base-url=")
    )
    assert urls.split(",") == [
        f"http://{name}-{ordinal}.{host}:{port['port']}"
        for ordinal in range(stateful["spec"]["replicas"])
    ]


def test_claims_and_secrets_are_the_same_everywhere() -> None:
    servers, job, reader = manifests("servers"), manifests("job"), manifests("reader")
    claim = job["PersistentVolumeClaim"]["metadata"]["name"]
    pods = (job["Job"]["spec"]["template"]["spec"], reader["Pod"]["spec"])
    for pod in pods:
        [volume] = pod["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    [(secret, key)] = re.findall(r"create secret generic (\S+) --from-literal=([\w-]+)=", text)
    for pod in (servers["StatefulSet"]["spec"]["template"]["spec"], pods[0]):
        [variable] = pod["containers"][0]["env"]
        assert variable["valueFrom"]["secretKeyRef"] == {"name": secret, "key": key}


STAND_INS = {
    # Servers that never end by themselves.
    "vllm": """echo "$CUDA_VISIBLE_DEVICES $VLLM_API_KEY $*" >> "$TOLD/vllm"
               echo $$ >> "$TOLD/pids"; exec sleep 600""",
    # Each server answers the second time it is looked at.
    "curl": """name=$(printf %s "$*" | tr -c 'a-z0-9' _)
               [ -e "$TOLD/$name" ] && exit 0; touch "$TOLD/$name"; exit 22""",
    "pytest": """echo "$*" > "$TOLD/pytest"; python "$TOLD/store.py" "$@"; exit 1""",
    "srun": """echo "$*" > "$TOLD/srun"; while [ "$1" != bash ]; do shift; done; exec "$@" """,
    "scontrol": "printf 'n1\\nn2\\n'",
    "openssl": "echo made-up-key",
    "sleep": """[ "$1" = 600 ] && exec "$SLEEP" 600; exit 0""",
}
# What pytest leaves: a store that has grown by a row, with the row still in its log.
STORE = """
import os, sqlite3, sys
if "--trace-store" in sys.argv:
    db = sqlite3.connect(sys.argv[sys.argv.index("--trace-store") + 1])
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE IF NOT EXISTS t (x)")
    db.execute("INSERT INTO t VALUES (1)")
    db.commit()
    os._exit(0)
"""


def run_script(script: str, tmp_path: Path, *arguments: str, **variables: str) -> list[str]:
    """Run a script of the page with stand-ins; it must end as ``pytest`` does, and leave nothing.

    Returns:
        What ``pytest`` was given.
    """
    programs, told = tmp_path / "bin", tmp_path / "told"
    programs.mkdir()
    told.mkdir()
    (told / "store.py").write_text(STORE, encoding="utf-8")
    for name, body in STAND_INS.items():
        (programs / name).write_text(f"#!{BASH}\n{body}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    path = tmp_path / "script.sh"
    path.write_text(script, encoding="utf-8")
    done = subprocess.run(
        [BASH, str(path), *arguments],
        cwd=tmp_path,
        env={
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "SLEEP": shutil.which("sleep") or "",
            "TMPDIR": str(tmp_path),
            "TOLD": str(told),
            "VLLM_API_KEY": "",
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    pids = [int(pid) for pid in (told / "pids").read_text(encoding="utf-8").split()]
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    return (told / "pytest").read_text(encoding="utf-8").split()


def told_servers(tmp_path: Path) -> list[str]:
    return sorted((tmp_path / "told" / "vllm").read_text(encoding="utf-8").splitlines())


@needs_bash
def test_the_script_for_one_node_runs(tmp_path: Path) -> None:
    given = run_script(marked("script: node"), tmp_path, "-m", "phase1")
    urls = ",".join(f"http://127.0.0.1:{8000 + gpu}" for gpu in range(8))
    assert given == ["evals", "--base-url", urls, "-m", "phase1"]
    servers = told_servers(tmp_path)
    assert [line.split()[0] for line in servers] == [str(gpu) for gpu in range(8)]
    assert all(f"--port {8000 + gpu} " in line for gpu, line in enumerate(servers))


@needs_bash
@pytest.mark.skipif(not shutil.which("timeout"), reason="no timeout")
def test_the_script_for_slurm_runs_and_keeps_the_store(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    kept = tmp_path / "reports" / "traces.sqlite"
    with sqlite3.connect(kept) as db:
        db.execute("CREATE TABLE t (x)")
        db.execute("INSERT INTO t VALUES (0)")
    db.close()
    given = run_script(
        marked("script: slurm"),
        tmp_path,
        SLURM_SUBMIT_DIR=str(tmp_path),
        SLURM_JOB_NODELIST="n[1-2]",
        SLURM_CPUS_PER_TASK="32",
    )
    urls = given[given.index("--base-url") + 1].split(",")
    assert urls == [f"http://{node}:{8000 + gpu}" for node in ("n1", "n2") for gpu in range(8)]
    # The stand-in for srun starts one node's servers; all have the key that was made up.
    servers = told_servers(tmp_path)
    assert [line.split()[:2] for line in servers] == [[str(gpu), "made-up-key"] for gpu in range(8)]
    with sqlite3.connect(kept) as db:
        assert db.execute("SELECT x FROM t").fetchall() == [(0,), (1,)]
    db.close()
    # What was in use is gone; nothing but the store was copied.
    assert sorted(path.name for path in kept.parent.glob("traces*")) == ["traces.sqlite"]
    assert not list(tmp_path.glob("tmp.*"))
