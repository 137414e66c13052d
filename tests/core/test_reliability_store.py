"""Proofs with real processes and the embedded model: kills, a full disk, a damaged store.

Every scenario ends in the same traces and result files as a run that nothing disturbed.
"""

import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import pytest
from runs import SUITE, finish, rows, start, wait_for
from test_gather import stop

from pytest_tokenbudget.core.plan import Plan
from pytest_tokenbudget.core.store import StoreError, TraceStore
from pytest_tokenbudget.core.study import load_study
from pytest_tokenbudget.tasks.registry import load_task

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.name == "nt", reason="signals"),
]

PROBLEMS = 24
LEASE = 4
COMMAND = (
    *SUITE,
    f"--num-samples={PROBLEMS}",
    "--budgets=64,256",
    "--batch-size=2",
    f"--tokenbudget-lease={LEASE}",
)
ASIDE = {"seconds", "created", "run", "owner"}
"""Columns of traces that say when and by whom they were generated."""
TIMES = ("started", "duration_seconds")
PLACES = ("reports", "trace_store", "storage")

KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def _interruptible():
    """Child processes have SIGINT at its default, also where this process ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def run(folder, *arguments):
    return finish(start(folder, *COMMAND, *arguments))


def finish_and_judge(folder):
    """Generate what is missing, which is quicker in larger batches, and judge it as all runs do."""
    for more in (["--batch-size=16"], []):
        code, output = run(folder, *more)
        assert code == 0, output


def traces(folder):
    """The stored traces, but for when and by whom they were generated."""
    path = folder / "reports" / "traces.sqlite"
    with closing(TraceStore(path, check=True)) as store:
        assert store.damage_report() == ""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT count(*) FROM damaged").fetchone() == (0,)
        columns = [row[1] for row in db.execute("PRAGMA table_info(traces)")]
        kept = ", ".join(name for name in columns if name not in ASIDE)
        return db.execute(f"SELECT {kept} FROM traces ORDER BY key").fetchall()


def files(folder):
    """The result files of a run, byte by byte, but for times and places."""
    found = {}
    for path in sorted((folder / "reports").rglob("*")):
        if path.parent.name not in ("results", "figures"):
            continue
        content = path.read_bytes()
        if path.suffix == ".json":
            data = json.loads(content)
            for record in data if isinstance(data, list) else [data]:
                for name in TIMES:
                    record.pop(name, None)
                for name in PLACES:
                    record.get("settings", {}).pop(name, None)
                record.get("cost", {}).pop("time", None)
            content = json.dumps(data).encode()
        found[str(path.relative_to(folder))] = content
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a run that nothing disturbed, judged once more by a run of its own."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish_and_judge(folder)
    assert len(traces(folder)) == PROBLEMS
    assert len(files(folder)) >= 5
    return folder


def check_same(folder, undisturbed):
    """Go on to the end, judge once more, and compare with the run that nothing disturbed."""
    finish_and_judge(folder)
    assert traces(folder) == traces(undisturbed)
    assert files(folder) == files(undisturbed)


# Kills


class Moments:
    """Random moments; the seed is printed, and TOKENBUDGET_SEED sets it."""

    def __init__(self):
        seed = int(os.environ.get("TOKENBUDGET_SEED") or random.randrange(2**32))
        print(f"seed {seed}")
        self.random, self.count = random.Random(seed), 0
        self.known = set()

    def wait(self, process, folder, most=1.0):
        """Wait until something is generated that was not before, and then for a random time."""
        while process.poll() is None:
            owners = {owner for (owner,) in rows(folder, "owner", "claims")}
            if owners - self.known:
                self.known |= owners
                time.sleep(self.random.uniform(0, most))
                break
            time.sleep(0.01)
        self.count += process.poll() is None


def workers(folder):
    """Numbers of the workers that have claimed something and live."""
    found = rows(folder, "owner, pid", "processes")
    return [pid for owner, pid in found if owner.startswith("gw") and alive(pid)]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def end(process, number):
    """Send a signal to a process, and wait until it has ended."""
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)
    _, output = finish(process, 60)
    # A process that is still being started, before pytest catches Ctrl-C, ends as Python does.
    if number == signal.SIGINT and "test session starts" in output:
        assert "Traceback" not in output
        assert "INTERNALERROR" not in output
    return output


def test_kills_of_a_process_that_runs_alone(tmp_path, undisturbed):
    moments = Moments()
    numbers = [*KILLS, *KILLS]
    moments.random.shuffle(numbers)
    for number in numbers:
        process = start(tmp_path, *COMMAND)
        moments.wait(process, tmp_path)
        end(process, number)
    process = start(tmp_path, *COMMAND)
    began = time.monotonic()
    moments.wait(process, tmp_path, 0.5)
    assert time.monotonic() - began < 60, "nothing waits for what a dead process had claimed"
    # Stopped beyond its lease, while another session does all the rest.
    stop(process.pid, tmp_path / "reports" / "traces.sqlite")
    assert run(tmp_path)[0] == 0
    before = traces(tmp_path)
    os.kill(process.pid, signal.SIGCONT)
    code, output = finish(process)
    assert code == 0, output
    assert traces(tmp_path) == before
    check_same(tmp_path, undisturbed)
    assert moments.count >= 6


def test_kills_of_workers(tmp_path, undisturbed):
    moments = Moments()
    numbers = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP]
    moments.random.shuffle(numbers)
    process = start(tmp_path, *COMMAND, "-n", "2")
    for number in [*numbers, signal.SIGINT]:  # which ends the whole run
        moments.wait(process, tmp_path)
        if process.poll() is not None or not (living := workers(tmp_path)):
            break
        pid = moments.random.choice(living)
        with suppress(ProcessLookupError):
            if number == signal.SIGSTOP:
                stop(pid, tmp_path / "reports" / "traces.sqlite")
                time.sleep(LEASE + 1)
                os.kill(pid, signal.SIGCONT)
                moments.known.clear()
            else:
                os.kill(pid, number)
    finish(process)
    check_same(tmp_path, undisturbed)
    assert moments.count >= 2


@pytest.mark.parametrize("both", [False, True], ids=["controller", "both"])
def test_kills_of_a_controller_and_of_all(tmp_path, undisturbed, both):
    moments = Moments()
    groups = []
    numbers = [*KILLS]
    moments.random.shuffle(numbers)
    for number in [*numbers, signal.SIGSTOP]:  # after which the run goes on to its end
        process = start(tmp_path, *COMMAND, "-n", "2")
        groups.append(process.pid)
        moments.wait(process, tmp_path)
        if number == signal.SIGSTOP:
            targets = [process.pid, *(workers(tmp_path) if both else [])]
            for pid in targets:
                with suppress(ProcessLookupError):
                    stop(pid, tmp_path / "reports" / "traces.sqlite")
            time.sleep(LEASE + 1)
            for pid in targets:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            finish(process)
            continue
        if both:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        end(process, number)
    check_same(tmp_path, undisturbed)
    assert moments.count >= 2
    for group in groups:  # workers without a controller end by themselves, too
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def test_of_two_sessions_that_start_together_each_generates_half(tmp_path, undisturbed):
    """Where the rows of one batch would hold everything."""
    (tmp_path / "reports").mkdir()
    command = [*COMMAND, "--batch-size=64", "--trace-store=reports/traces.sqlite"]
    sessions = [start(tmp_path, *command, f"--reports={name}") for name in ("a", "b")]
    for code, output in map(finish, sessions):
        assert code == 0, output
    shares = Counter(session for (session,) in rows(tmp_path, "run"))
    assert len(shares) == 2
    assert min(shares.values()) >= PROBLEMS // 3, shares
    check_same(tmp_path, undisturbed)


# A full disk


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system with room for a part of the traces; ``grow`` makes it larger."""
    folder = tmp_path / "small"
    folder.mkdir()

    def mount(*options):
        command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if os.geteuid() or not mount("-o", "size=500k"):
        pytest.skip("no file system can be mounted")
    yield folder, lambda: mount("-o", "remount,size=100m")
    subprocess.run(["umount", "-l", str(folder)], check=False)


def check_told(output):
    """One sentence says what is wrong; it is no crash."""
    assert "Traceback" not in output, output
    assert "INTERNALERROR" not in output, output
    lines = [line for line in output.splitlines() if "make room on the disk" in line]
    assert lines, output
    assert "What was stored is kept" in output


def test_a_full_disk_loses_nothing(tmp_path, undisturbed, small_disk):
    folder, grow = small_disk
    store = f"--trace-store={folder / 'traces.sqlite'}"
    code, output = run(tmp_path, store)
    assert code != 0
    check_told(output)
    (tmp_path / "reports").mkdir(exist_ok=True)
    assert grow()
    with closing(sqlite3.connect(folder / "traces.sqlite")) as db:
        kept = db.execute("SELECT key, output_ids, created FROM traces").fetchall()
    assert 0 < len(kept) < PROBLEMS
    code, output = run(tmp_path, store)
    assert code == 0, output
    with closing(sqlite3.connect(folder / "traces.sqlite")) as db:
        after = db.execute("SELECT key, output_ids, created FROM traces").fetchall()
    assert set(kept) <= set(after), "what was stored was not generated again"
    shutil.copytree(folder, tmp_path / "reports", dirs_exist_ok=True)
    check_same(tmp_path, undisturbed)


def test_a_quota_loses_nothing(tmp_path, undisturbed):
    """No file of the process may become larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, before[1]))
    try:
        code, output = run(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code != 0
    check_told(output)
    kept = rows(tmp_path, "key, created")
    assert 0 < len(kept) < PROBLEMS
    assert run(tmp_path)[0] == 0
    assert set(kept) <= set(rows(tmp_path, "key, created"))
    check_same(tmp_path, undisturbed)


# A damaged file


def study(path, plan):
    """The traces of a plan in a store that is opened as a run opens it, and what it names."""
    task = load_task("word-problems")
    problems = task.problems(PROBLEMS)
    with closing(TraceStore(path, check=True)) as store:
        loaded = load_study(store, plan, task, problems)
        return loaded.traces, store.damage_report(), len(store.damage)


def study_or_refusal(path, plan):
    try:
        return "", *study(path, plan)
    except StoreError as error:
        return str(error), {}, "", 0


def test_no_flip_or_truncation_gives_a_wrong_trace(tmp_path, undisturbed):
    source = undisturbed / "reports" / "traces.sqlite"
    plan = Plan.from_json(json.loads(rows(undisturbed, "plan", "plans")[0][0]))
    right, damage, _ = study(source, plan)
    assert len(right) == PROBLEMS
    assert damage == ""
    content, moments = source.read_bytes(), Moments()
    refused, named, generated = 0, 0, 0
    for number in range(40):
        folder = tmp_path / str(number)
        path = folder / "reports" / "traces.sqlite"
        path.parent.mkdir(parents=True)
        damaged = bytearray(content)
        if number % 4 == 0:
            del damaged[moments.random.randrange(1, len(content)) :]
        else:
            for _ in range(moments.random.choice((1, 4, 16))):
                damaged[moments.random.randrange(len(content))] ^= 1 << moments.random.randrange(8)
        path.write_bytes(damaged)
        refusal, found, damage, count = study_or_refusal(path, plan)
        if refusal:
            assert str(path) in refusal
            assert "\n" not in refusal
            assert path.read_bytes() == damaged, "what is refused is left alone"
            refused += 1
            continue
        assert found.items() <= right.items(), "a wrong trace"
        lost = right.keys() - found.keys()
        assert bool(lost) <= bool(damage), f"{lost} are missing and not reported"
        assert len(lost) <= count
        named += bool(lost)
        if lost and generated < 2:
            generated += 1
            code, output = run(folder)
            assert code == 0, output
            assert "damaged and left out" in output
            again = study(path, plan)[0]
            assert {key: (t.output_ids, t.text) for key, t in again.items()} == {
                key: (t.output_ids, t.text) for key, t in right.items()
            }
    print(f"{refused} refused, {named} with damaged rows that were named, of 40")
    assert refused >= 10
    assert named >= 5


def test_a_damaged_log_of_a_killed_run_gives_no_wrong_trace(tmp_path, undisturbed):
    """What is in the log and not yet in the file may be lost, but it is never wrong."""
    process = start(tmp_path, *COMMAND)
    wait_for(lambda: len(rows(tmp_path, "key")) >= 6, process)
    end(process, signal.SIGKILL)
    log = tmp_path / "reports" / "traces.sqlite-wal"
    content, moments = bytearray(log.read_bytes()), Moments()
    for _ in range(16):
        content[moments.random.randrange(len(content))] ^= 1 << moments.random.randrange(8)
    log.write_bytes(content)
    Path(f"{log.parent / 'traces.sqlite'}-shm").unlink(missing_ok=True)
    check_same(tmp_path, undisturbed)
