import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from fake_engine import EOS, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pytest_tokenbudget.core import store as store_module
from pytest_tokenbudget.core.engine import Generated, Request
from pytest_tokenbudget.core.store import EndedTrace, StoredPrompt, StoreError, TraceStore
from pytest_tokenbudget.core.store_tables import pack, unpack
from pytest_tokenbudget.core.trace import StopReason

ADVICE = "--trace-store"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some dir" / "träces.sqlite"


def wants(count=3, cap=16):
    return [Request(f"k{i}", (i, 7), cap) for i in range(count)]


def result(want, prefix=(), reason=None, ids=None, error=""):
    """What the fake model makes of ``want``; ``ids`` are its length."""
    whole = written(want.prompt_ids, want.sample)[: want.cap]
    ids = whole if ids is None else tuple(range(1, ids + 1))
    if reason is None:
        reason = StopReason.EOS if ids[-1] == EOS else StopReason.LENGTH
    request = Request(want.key, want.prompt_ids, want.cap, want.sample, tuple(prefix))
    return Generated(request, ids, reason, "word", 0.5, error)


def commit(store, made, fresh=False):
    ids = made.output_ids
    ended = EndedTrace(made, "x" * len(ids), tuple(range(1, len(ids) + 1)))
    store.commit_all("m", [ended], fresh)


def load(store, wanted):
    names = {want.key: (want.key, want.sample) for want in wanted}
    prompts = {want.key: StoredPrompt(want.prompt_ids, False) for want in wanted}
    return {key: trace for (key, _), trace in store.load(names, prompts).items()}


def filled(path, count=200):
    """A closed store with so many traces that it has many pages."""
    with closing(TraceStore(path, "earlier", "someone")) as store:
        asked = wants(count, cap=40)
        store.want(asked)
        store.claim(count, 60)
        for want in asked:
            ended = EndedTrace(result(want, ids=40), "text " * 80, tuple(range(10, 410, 10)))
            store.commit_all("m", [ended])
        store.put_plan("plan", {"a": 1}, 0)
    return asked


@pytest.mark.parametrize("byteorder", ["little", "big"])
@given(numbers=st.lists(st.integers(-(2**31), 2**31 - 1)))
def test_pack_is_undone_by_unpack(byteorder, numbers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "byteorder", byteorder)
        assert unpack(pack(numbers)) == tuple(numbers)
        assert len(pack(numbers)) == 4 * len(numbers)


def test_pack_is_little_endian():
    assert pack([1, 258]) == b"\x01\0\0\0\x02\x01\0\0"


def test_a_trace_comes_back_as_it_was_committed(path):
    asked = wants(2)
    with closing(TraceStore(path, "run", "me")) as store:
        store.want(asked)
        assert store.claim(9, 60) == {"k0": (), "k1": ()}
        for want in asked:
            commit(store, result(want))
        assert store.missing() == 0
    with closing(TraceStore(path, "later", "me")) as store:
        traces = load(store, asked)
        for want in asked:
            trace = traces[want.key]
            assert trace.output_ids == result(want).output_ids
            assert trace.stop_reason is result(want).stop_reason
            assert (trace.cap, trace.engine_reason, trace.seconds) == (16, "word", 0.5)
            assert trace.text == "x" * len(trace.output_ids)
            assert trace.prompt_ids == want.prompt_ids
        store.want(asked)
        assert store.missing() == 0
        assert store.claim(9, 60) == {}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_claims_go_in_the_order_of_wants_and_to_one_owner_each(path):
    asked = wants(5)
    with closing(TraceStore(path, "r", "a")) as a, closing(TraceStore(path, "r", "b")) as b:
        a.want(asked)
        b.want(reversed(asked))
        assert list(a.claim(2, 60)) == ["k0", "k1"]
        assert list(b.claim(2, 60)) == ["k4", "k3"]
        assert list(a.claim(9, 60)) == ["k2"]
        assert b.claim(9, 60) == {}
        assert (len(a.claims()), len(b.claims())) == (1, 1)
        assert (a.missing(), a.unclaimed()) == (5, 0)
        a.release()
        assert (len(b.claims()), b.unclaimed()) == (0, 3)
        assert set(b.claim(9, 60)) == {"k0", "k1", "k2"}


def test_expired_claims_are_taken_over_and_renewed_ones_are_not(path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(store_module.time, "time", lambda: now)
    asked = wants(1)
    with closing(TraceStore(path, "r", "a")) as a, closing(TraceStore(path, "r", "b")) as b:
        a.want(asked)
        b.want(asked)
        assert a.claim(1, 60)
        now += 59
        a.renew(60)
        now += 59
        assert not b.claim(1, 60)
        now += 2
        assert len(b.claims()) == 0
        assert b.claim(1, 60)
        a.renew(60)  # what was lost stays lost
        now += 59
        assert not a.claim(1, 60)


@pytest.mark.parametrize(("run", "counted"), [("r", (1, 3)), ("other", (0, 0))])
def test_a_trace_that_two_processes_made_is_kept_once(path, run, counted):
    asked = wants(1)
    with closing(TraceStore(path, "r", "a")) as a, closing(TraceStore(path, run, "b")) as b:
        a.want(asked)
        b.want(asked)
        commit(a, result(asked[0], ids=3, reason=StopReason.EOS))
        commit(b, result(asked[0], ids=4, reason=StopReason.EOS))
        assert load(a, asked)["k0"].output_ids == (1, 2, 3)
        assert b.generated("m") == counted
    assert rows(path, "replaced") == []


def test_a_shorter_trace_does_not_replace_a_longer_one(path):
    short, long = wants(1, cap=4)[0], wants(1, cap=8)[0]
    with closing(TraceStore(path, "r", "a")) as a, closing(TraceStore(path, "other", "b")) as b:
        commit(a, result(long, ids=8))
        commit(b, result(short, ids=4))
        assert load(a, [long])["k0"].cap == 8


def test_a_capped_trace_is_extended_and_a_finished_one_is_not(path):
    asked = wants(2, cap=4)
    with closing(TraceStore(path, "one", "a")) as store:
        store.want(asked)
        store.claim(2, 60)
        commit(store, result(asked[0], ids=4))
        commit(store, result(asked[1], ids=3, reason=StopReason.EOS))
        assert store.generated("m") == (2, 7)
    larger = wants(2, cap=9)
    with closing(TraceStore(path, "two", "a")) as store:
        store.want(larger)
        assert store.missing() == 1
        assert store.claim(9, 60) == {"k0": (1, 2, 3, 4)}
        commit(store, result(larger[0], prefix=(1, 2, 3, 4), ids=9))
        assert store.missing() == 0
        assert load(store, larger)["k0"].output_ids == tuple(range(1, 10))
        assert store.generated("m") == (1, 5), "only what is new counts"
        store.want(asked)
        assert store.missing() == 0, "a smaller budget is a cut"


def test_errors_are_tried_again_by_the_next_run_only(path):
    (want,) = asked = wants(1)
    for run in ("one", "two"):
        with closing(TraceStore(path, run, "a")) as store:
            store.want(asked)
            assert store.missing() == 1
            assert store.claim(1, 60)
            commit(store, result(want, ids=0, reason=StopReason.ERROR, error="boom"))
            assert store.missing() == 0
            assert load(store, asked)["k0"].error == "boom"
    with closing(TraceStore(path, "three", "a")) as store:
        store.want(asked)
        store.claim(1, 60)
        commit(store, result(want))
        assert load(store, asked)["k0"].error == ""
        assert rows(path, "replaced") == []


@pytest.mark.parametrize("later", ["r", "another run"])
def test_seconds_are_of_the_tokens_that_took_them(path, later):
    small, large = wants(1, cap=4)[0], wants(1, cap=9)[0]
    with closing(TraceStore(path, "r", "a")) as store:
        before = time.time()
        store.want([small])
        store.claim(1, 60)
        commit(store, result(small, ids=4))
        trace = load(store, [small])["k0"]
        assert (trace.seconds, trace.timed) == (0.5, 4)
        assert before <= trace.ended <= time.time()
    with closing(TraceStore(path, later, "a")) as store:
        store.want([large])
        store.claim(1, 60)
        commit(store, result(large, prefix=(1, 2, 3, 4), ids=9))
        trace = load(store, [large])["k0"]
        assert (trace.seconds, trace.timed) == ((1.0, 9) if later == "r" else (0.5, 5))


def test_an_error_while_extending_loses_nothing(path):
    (small,), (large,) = wants(1, cap=4), wants(1, cap=9)
    with closing(TraceStore(path, "one", "a")) as store:
        store.want([small])
        commit(store, result(small, ids=4))
    with closing(TraceStore(path, "two", "a")) as store:
        store.want([large])
        (prefix,) = store.claim(1, 60).values()
        failed = result(large, prefix=prefix, ids=4, reason=StopReason.ERROR, error="boom")
        commit(store, failed)
        assert store.missing() == 0
    with closing(TraceStore(path, "three", "a")) as store:
        store.want([large])
        assert store.claim(1, 60) == {"k0": (1, 2, 3, 4)}
        store.release()
        store.want([small])
        assert store.missing() == 0, "what was there can be judged as before"


def test_a_claim_gives_no_more_ids_than_the_cap(path):
    with closing(TraceStore(path, "one", "a")) as store:
        (want,) = asked = wants(1, cap=9)
        store.want(asked)
        commit(store, result(want, ids=4, reason=StopReason.ERROR, error="boom"))
    with closing(TraceStore(path, "two", "a")) as store:
        store.want(wants(1, cap=2))
        assert store.claim(1, 60) == {"k0": (1, 2)}


def rows(path, table, columns="*"):
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"SELECT {columns} FROM {table}").fetchall()


def test_fresh_replaces_and_keeps_what_it_replaced(path):
    asked = wants(2)
    with closing(TraceStore(path, "one", "a")) as store:
        store.want(asked)
        commit(store, result(asked[0], ids=3, reason=StopReason.EOS))
        commit(store, result(asked[1], ids=16))
    with closing(TraceStore(path, "two", "a")) as store:
        store.want(asked)
        assert (store.missing(), store.missing(fresh=True)) == (0, 2)
        assert store.claim(9, 60, fresh=True) == {"k0": (), "k1": ()}, "nothing is continued"
        commit(store, result(asked[0], ids=5, reason=StopReason.EOS), fresh=True)
        commit(store, result(asked[1], ids=16), fresh=True)
        assert store.missing(fresh=True) == 0
        assert load(store, asked)["k0"].output_ids == (1, 2, 3, 4, 5)
        larger = wants(2, cap=20)
        store.want(larger)
        assert store.claim(9, 60, fresh=True) == {"k1": tuple(range(1, 17))}, (
            "what this run made is continued"
        )
    replaced = rows(path, "replaced", "key, run, output_ids")
    assert [(key, run, len(ids)) for key, run, ids in replaced] == [
        ("k0", "one", 12),
        ("k1", "one", 64),
    ]


def test_two_fresh_runs_beside_each_other_share(path):
    asked = wants(2)
    with closing(TraceStore(path, "old", "x")) as store:
        store.want(asked)
        for want in asked:
            commit(store, result(want))
    with closing(TraceStore(path, "one", "a")) as a, closing(TraceStore(path, "two", "b")) as b:
        a.want(asked)
        b.want(asked)
        (mine,) = a.claim(1, 60, fresh=True)
        (other,) = b.claim(1, 60, fresh=True)
        for store, key in ((a, mine), (b, other)):
            commit(store, result(next(w for w in asked if w.key == key)), fresh=True)
        assert (a.missing(fresh=True), b.missing(fresh=True)) == (0, 0)
    assert len(rows(path, "replaced")) == 2


def test_prompts_plans_and_hashes_are_kept(path):
    with closing(TraceStore(path, "one", "a")) as store:
        store.put_prompts("m", {"x": StoredPrompt((1, 2), True), "y": StoredPrompt((), False)})
        store.put_plan("p1", {"n": 1}, 5)
        store.put_plan("p1", {"n": 2}, 9)
        store.note_missing("p1", 3)
        store.note_missing("p1", 4)
        store.put("file", 10, 99, "abc")
    with closing(TraceStore(path, "two", "a")) as store:
        assert store.prompts("m", ["x", "z"]) == {"x": StoredPrompt((1, 2), True)}
        assert store.prompts("other", ["x"]) == {}
        assert store.plans() == []
        assert store.get("file", 10, 99) == "abc"
        assert store.get("file", 10, 100) is None
    with closing(TraceStore(path, "one", "b")) as store:
        (row,) = store.plans()
        assert (row.name, row.plan, row.to_generate, row.missing) == ("p1", {"n": 1}, 5, 3)


def test_a_note_may_come_from_another_thread(path):
    with closing(TraceStore(path, "run", "me")) as store:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(store.note, "from there").result()
        store.note("from here")
        assert [text for _, text in store.notes()] == ["from there", "from here"]


def test_notes_reach_whoever_shows_the_run(path):
    with closing(TraceStore(path, "one", "a")) as a, closing(TraceStore(path, "one", "b")) as b:
        a.note("first")
        ((number, text),) = b.notes()
        assert text == "first"
        a.note("second")
        assert [text for _, text in b.notes(number)] == ["second"]
        with closing(TraceStore(path, "two", "c")) as other:
            assert other.notes() == []


def test_plans_of_long_ago_are_forgotten(path, monkeypatch):
    with closing(TraceStore(path, "one", "a")) as store:
        store.want(wants())
        store.put_plan("p", {}, 0)
        store.note("n")
        later = store_module.time.time() + 31 * 86_400
        monkeypatch.setattr(store_module.time, "time", lambda: later)
    with closing(TraceStore(path, "two", "a")) as store:
        store.want(wants())
        store.put_plan("q", {}, 0)
    assert rows(path, "plans", "run") == rows(path, "runs", "run") == [("two",)]
    assert rows(path, "notes") == []


# Files that cannot be used


def refused(path, *words):
    """Opening and using the file fails with all of ``words`` and leaves its bytes alone."""
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(StoreError) as caught:
        TraceStore(path, "run", "me", check=True)
    for word in (str(path), ADVICE, *words):
        assert word in str(caught.value)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(("version", "word"), [(0, "older"), (5, "newer"), (77, "newer")])
def test_another_schema_is_refused(path, version, word):
    filled(path, 1)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {version}")
    refused(path, f"an {word}" if word == "older" else f"a {word}", f"schema {version}", "reads 4")


def downgrade(path, version):
    """Make a file what an older version of the package would have written."""
    steps = {
        3: [
            *(f"DROP TABLE {table}" for table in ("checksums", "damaged", "processes")),
            "ALTER TABLE claims DROP COLUMN lease",
        ],
        2: ["DROP TABLE windows"],
        1: [
            "DROP TABLE servers",
            *(
                f"ALTER TABLE {table} DROP COLUMN {column}"
                for table in ("traces", "replaced")
                for column in ("counted", "usage")
            ),
        ],
    }
    with closing(sqlite3.connect(path)) as db:
        for step in range(3, version - 1, -1):
            for statement in steps[step]:
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {version}")
        db.commit()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_file_of_an_older_version_is_brought_up_to_date(path, version):
    asked = filled(path, 3)
    downgrade(path, version)
    with closing(TraceStore(path, "later", "me")) as store:
        assert {t.text for t in load(store, asked).values()} == {"text " * 80}
        assert not any(t.counted or t.usage for t in load(store, asked).values())
        more = wants(4, cap=40)
        store.want(more)
        assert list(store.claim(9, 60)) == ["k3"]
        commit(store, result(more[3]))
        # What a fresh start replaces goes into a table of the same form.
        store.want(more[:1])
        store.claim(1, 60, fresh=True)
        commit(store, result(more[0], ids=40), fresh=True)
        store.put_server(("http://a/v1",), None, {"kind": "vllm"})
        assert store.server(("http://a/v1",), None) == {"kind": "vllm"}
        assert store.server(("http://b/v1",), None) is None
        store.put_windows("m", {"w1": {"tokens": 3}, "w2": {"tokens": 4}})
        store.put_windows("m", {"w2": {"tokens": 5}})
        assert store.windows("m", ["w2", "w3"]) == {"w2": {"tokens": 5}}
        assert store.windows("other", ["w2"]) == {}
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM replaced").fetchone() == (1,)


def test_what_a_server_counted_comes_back(path):
    (want,) = wants(1, cap=16)
    made = replace(
        result(want, reason=StopReason.LENGTH, ids=14),
        counted=True,
        usage={"completion_tokens": 16},
    )
    with closing(TraceStore(path, "run", "me")) as store:
        store.want([want])
        store.claim(1, 60)
        commit(store, made)
        trace = load(store, [want])["k0"]
    assert trace.counted
    assert trace.usage == {"completion_tokens": 16}
    # 14 tokens are in its text, and the server's 16 were all that was allowed.
    assert trace.cut(15).truncated
    assert trace.cut(16).truncated
    assert [trace.cut(budget).tokens_used for budget in (14, 15, 16)] == [14, 15, 16]


@pytest.mark.parametrize("application", [0, 0x0F055111])
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_another_programs_database_is_refused(path, application, mode):
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA journal_mode = {mode}")
        db.execute("CREATE TABLE traces (mine)")
        db.execute(f"PRAGMA application_id = {application}")
        db.commit()
    refused(path, "another program")


@pytest.mark.parametrize(
    "content",
    [b"hi", b"a text " * 100, b"\n" * 5000, b"SQLite format 3\0 and then not" + b"!" * 99],
)
def test_another_kind_of_file_is_refused(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    refused(path, "not a trace store")


def test_an_empty_file_becomes_a_store(path):
    path.parent.mkdir()
    path.touch()
    filled(path, 1)
    TraceStore(path, check=True).close()


@pytest.mark.parametrize("left", [0.03, 0.5, 0.999])
def test_a_truncated_store_is_refused(path, left):
    filled(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * left)])
    refused(path, "damaged")


@pytest.mark.parametrize("where", [slice(4096, None, 4096), slice(4096 * 20, 4096 * 21)])
def test_a_damaged_store_is_refused(path, where):
    filled(path)
    content = bytearray(path.read_bytes())
    if where.step:
        for start in range(where.start, len(content), where.step):
            content[start : start + 100] = b"\xff" * 100
    else:
        content[where] = b"\xaa" * 4096
    path.write_bytes(content)
    refused(path, "damaged")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dir", "is a directory. Name a file with"),
        ("pipe", "is not a regular file"),
        ("file/traces.sqlite", "file is a file, not a directory"),
    ],
)
def test_a_path_that_cannot_be_a_file_is_refused(tmp_path, name, words):
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError) as caught:
        TraceStore(tmp_path / name)
    message = str(caught.value)
    assert str(tmp_path / name) in message
    assert ADVICE in message
    assert words in message
    assert "\n" not in message


def test_a_store_whose_writer_was_killed_opens(path):
    """The main file's header knows nothing yet: everything is still in the write-ahead log."""
    script = f"""
import os, signal
from pathlib import Path
from pytest_tokenbudget.core.store import TraceStore
store = TraceStore(Path({str(path)!r}), "one", "a")
store.put_plan("p", {{}}, 1)
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    assert path.with_name(f"{path.name}-wal").stat().st_size
    with closing(TraceStore(path, "one", "b", check=True)) as store:
        assert [row.name for row in store.plans()] == ["p"]


# Several processes at once


def test_other_connections_of_a_process_do_not_cost_it_its_locks(path):
    """Else a process that comes and goes would delete the log, and with it what is committed."""
    look = f"""
import sqlite3, sys
db = sqlite3.connect({str(path)!r})
print(db.execute("SELECT count(*) FROM traces").fetchone()[0])
db.close()
"""
    with closing(TraceStore(path, "run", "me", check=True)) as store:
        asked = wants(4)
        store.want(asked)
        for number, want in enumerate(asked):
            TraceStore(path, "run", "monitor").close()
            commit(store, result(want))
            seen = subprocess.run(
                [sys.executable, "-c", look], capture_output=True, text=True, check=True
            )
            assert int(seen.stdout) == number + 1
            assert path.with_name(f"{path.name}-wal").exists()


@pytest.mark.timeout(60)
def test_many_open_and_claim_at_once_and_no_key_goes_to_two(path):
    script = f"""
import sys
from pathlib import Path
from pytest_tokenbudget.core.engine import Request
from pytest_tokenbudget.core.store import TraceStore
sys.stdin.readline()
store = TraceStore(Path({str(path)!r}), "run", sys.argv[1])
store.want([Request(f"k{{i}}", (i,), 4) for i in range(60)])
while got := store.claim(3, 60):
    print(*got, flush=True)
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(i)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(3)
    ]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda p: p.communicate("go\n"), processes))
    assert [p.returncode for p in processes] == [0, 0, 0], answers
    keys = [key for out, _ in answers for key in out.split()]
    assert len(keys) == len(set(keys)) == 60


def test_many_threads_make_a_store_at_once(tmp_path):
    def opened(path):
        with closing(TraceStore(path, "run", "me")) as store:
            store.put_plan("p", {}, 0)
            return len(store.plans())

    for attempt in range(5):
        with ThreadPoolExecutor(8) as pool:
            path = tmp_path / f"{attempt}.sqlite"
            assert list(pool.map(opened, [path] * 8)) == [1] * 8


class StoreMachine(RuleBasedStateMachine):
    """Three processes of two runs on one store, with a clock that the test sets."""

    LEASE = 10.0

    @initialize(cap=st.integers(1, 40))
    def begin(self, cap):
        self.folder = Path(tempfile.mkdtemp())
        self.now = 1e6
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(store_module.time, "time", lambda: self.now)
        self.stores = [
            TraceStore(self.folder / "t.sqlite", run, owner)
            for run, owner in (("one", "a"), ("one", "b"), ("two", "c"))
        ]
        self.caps = [cap] * 3
        self.live: dict[str, tuple[int, float]] = {}
        self.held: list[dict[str, tuple[int, ...]]] = [{}, {}, {}]
        self.reached: dict[str, int] = {}
        for who in range(3):
            self.want(who, cap)

    def teardown(self):
        if hasattr(self, "stores"):
            for store in self.stores:
                store.close()
            self.patch.undo()
            shutil.rmtree(self.folder)

    def asked(self, who):
        return {w.key: w for w in wants(6, self.caps[who])}

    @rule(who=st.integers(0, 2), cap=st.integers(1, 40))
    def want(self, who, cap):
        self.release(who)
        self.caps[who] = cap
        self.stores[who].want(list(self.asked(who).values()))

    @rule(who=st.integers(0, 2), limit=st.integers(1, 6))
    def claim(self, who, limit):
        got = self.stores[who].claim(limit, self.LEASE)
        assert len(got) <= limit
        for key, prefix in got.items():
            owner, deadline = self.live.get(key, (who, 0.0))
            assert deadline < self.now, f"{key} is claimed by {owner}"
            assert len(prefix) <= self.caps[who]
            assert prefix == written(self.asked(who)[key].prompt_ids)[: len(prefix)]
            self.live[key] = (who, self.now + self.LEASE)
            self.held[who][key] = prefix

    @precondition(lambda self: any(self.held))
    @rule(data=st.data())
    def commit(self, data):
        who = data.draw(st.sampled_from([i for i in range(3) if self.held[i]]))
        key = data.draw(st.sampled_from(sorted(self.held[who])))
        prefix = self.held[who].pop(key)
        made = result(self.asked(who)[key], prefix=prefix)
        commit(self.stores[who], made)
        if self.live.get(key, (None,))[0] == who:
            del self.live[key]

    @rule(who=st.integers(0, 2))
    def renew(self, who):
        self.stores[who].renew(self.LEASE)
        for key, (owner, _) in self.live.items():
            if owner == who:
                self.live[key] = (who, self.now + self.LEASE)

    @rule(who=st.integers(0, 2))
    def release(self, who):
        self.stores[who].release()
        self.live = {k: v for k, v in self.live.items() if v[0] != who}
        self.held[who] = {}

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0]))
    def wait(self, seconds):
        self.now += seconds

    @invariant()
    def traces_are_right_and_only_grow(self):
        if not hasattr(self, "stores"):
            return
        asked = self.asked(0)
        traces = load(self.stores[0], asked.values())
        assert set(self.reached) <= set(traces)
        for key, trace in traces.items():
            whole = written(asked[key].prompt_ids)
            assert trace.output_ids == whole[: trace.cap]
            assert trace.capped == (trace.output_ids[-1] != EOS)
            assert len(trace.output_ids) >= self.reached.get(key, 0)
            self.reached[key] = len(trace.output_ids)
        for who, store in enumerate(self.stores):
            short = [
                key for key in asked if key not in traces or not traces[key].covers(self.caps[who])
            ]
            assert store.missing() == len(short)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
