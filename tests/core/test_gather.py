import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cached_property
from pathlib import Path

import fake_engine
import pytest
from fake_engine import FakeEngine, gather_all, make_plan, make_problems, written
from slow_cases import slow

from pytest_tokenbudget.core.engine import EngineError, Request
from pytest_tokenbudget.core.gather import gather, render
from pytest_tokenbudget.core.store import EndedTrace, StoreError, TraceStore
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.texts.detokenizer import Pieces, text_and_offsets

PROGRAM = Path(fake_engine.__file__)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "traces.sqlite"


def no_engine():
    raise AssertionError("no model is needed here")


def everything(store, count=8, cap=16, **changes):
    plan, problems = make_plan(cap, **changes), make_problems(count)
    prompts = render(store, plan, problems, no_engine)
    return store.load(plan.names(problems, prompts), prompts, cap)


def check_all(store, count=8, cap=16):
    traces = everything(store, count, cap)
    assert len(traces) == count
    for trace in traces.values():
        assert trace.covers(cap)
        assert trace.output_ids == written(trace.prompt_ids, trace.sample)[: trace.cap]
        assert trace.text == FakeEngine().decode(trace.output_ids)
        assert trace.offsets[-1] == len(trace.text)
    return traces


def keys(requests):
    return [request.key for request in requests]


def test_each_trace_is_generated_once_in_batches_of_the_engines_size(path):
    engine = FakeEngine(rows=3)
    with closing(TraceStore(path, "one", "a")) as store:
        gather_all(store, engine, 8)
        check_all(store)
        assert len(set(keys(engine.seen))) == len(engine.seen) == 8
        assert engine.batches == [3, 3, 2]
        assert len(store.claims()) == 0
        (row,) = store.plans()
        assert (row.to_generate, row.missing) == (8, 0)
    with closing(TraceStore(path, "two", "a")) as store:
        plan, problems = make_plan(), make_problems(8)
        prompts = render(store, plan, problems, no_engine)
        gather(store, plan, plan.wants(problems, prompts), no_engine)
        assert store.plans()[0].to_generate == 0
        assert store.generated(plan.model) == (0, 0)


def test_what_an_engine_learns_of_its_tokens_gives_the_same_offsets(path):
    class Learning(FakeEngine):
        asked = 0

        def decode(self, ids):
            self.asked += 1
            return super().decode(ids)

        @cached_property
        def pieces(self):
            return Pieces(self.decode)

    engine = Learning()
    with closing(TraceStore(path, "one", "a")) as store:
        gather_all(store, engine, 8)
        before = engine.asked
        gather_all(store, engine, 40)
        # Once for each text, and some more for the few tokens that are new.
        assert 32 <= engine.asked - before < 3 * 32
        for trace in check_all(store, 40).values():
            assert (trace.text, trace.offsets) == text_and_offsets(
                FakeEngine().decode, trace.output_ids
            )


def test_samples_have_traces_of_their_own(path):
    engine, plan, problems = FakeEngine(), make_plan(samples=3), make_problems(4)
    with closing(TraceStore(path, "one", "a")) as store:
        prompts = render(store, plan, problems, lambda: engine)
        gather(store, plan, plan.wants(problems, prompts), lambda: engine)
        traces = everything(store, 4, samples=3)
    assert set(traces) == {(f"p{i}", sample) for i in range(4) for sample in range(3)}
    assert len(engine.seen) == 12


def test_the_longest_prompts_come_first(path):
    engine = FakeEngine(rows=100)
    with closing(TraceStore(path, "one", "a")) as store:
        gather_all(store, engine, 12)
    lengths = [len(request.prompt_ids) for request in engine.seen]
    assert lengths == sorted(lengths, reverse=True)
    assert len(set(lengths)) == 2


def test_a_larger_cap_continues_and_a_smaller_one_costs_nothing(path):
    with closing(TraceStore(path, "one", "a")) as store:
        gather_all(store, FakeEngine(), 20, cap=10)
        capped = {k for k, t in everything(store, 20, 10).items() if t.capped}
        assert 0 < len(capped) < 20
    engine = FakeEngine()
    with closing(TraceStore(path, "two", "a")) as store:
        gather_all(store, engine, 20, cap=30)
        assert len(engine.seen) == len(capped)
        assert all(len(request.prefix_ids) == 10 for request in engine.seen)
        new = sum(len(written(r.prompt_ids)[:30]) - 10 for r in engine.seen)
        assert store.generated("fake-model") == (len(capped), new)
        check_all(store, 20, 30)
    with closing(TraceStore(path, "three", "a")) as store:
        plan, problems = make_plan(7), make_problems(20)
        prompts = render(store, plan, problems, no_engine)
        gather(store, plan, plan.wants(problems, prompts), no_engine)


def test_more_problems_cost_only_the_new_ones(path):
    with closing(TraceStore(path, "one", "a")) as store:
        gather_all(store, FakeEngine(), 3)
        engine = FakeEngine()
        gather_all(store, engine, 8)
        assert len(engine.seen) == 5
        check_all(store)


def test_fresh_generates_all_anew_and_once(path):
    with closing(TraceStore(path, "one", "a")) as store:
        gather_all(store, FakeEngine(), 6)
    engine = FakeEngine()
    with closing(TraceStore(path, "two", "a")) as store:
        gather_all(store, engine, 6, fresh=True)
        gather_all(store, engine, 6, fresh=True)
        assert len(engine.seen) == 6
        assert all(not request.prefix_ids for request in engine.seen)
        check_all(store, 6)


@pytest.mark.parametrize(
    "failure", [EngineError("no memory"), RuntimeError("?"), KeyboardInterrupt]
)
def test_what_an_engine_did_before_it_failed_is_kept(path, failure):
    def fail(request: Request) -> None:
        if len(engine.seen) == 4:
            raise failure

    engine = FakeEngine(rows=6, each=fail)
    with closing(TraceStore(path, "one", "a")) as store:
        with pytest.raises(failure if isinstance(failure, type) else type(failure)):
            gather_all(store, engine, 8)
        assert len(everything(store)) == 3
        assert store.plans()[0].missing == 5
        assert (len(store.claims()), store.unclaimed()) == (0, 5), "its claims are given up"
    assert not [t for t in threading.enumerate() if t.name == "tokenbudget-lease"]
    again = FakeEngine()
    with closing(TraceStore(path, "two", "a")) as store:
        gather_all(store, again, 8)
        check_all(store)
    assert len(again.seen) == 5


def test_an_error_row_ends_the_gathering_and_the_next_run_tries_again(path):
    class Failing(FakeEngine):
        def generate(self, requests, decoding):
            for made in super().generate(requests, decoding):
                if made.request.prompt_ids[-1] == ord("3"):
                    yield fake_engine.Generated(
                        made.request, made.request.prefix_ids, StopReason.ERROR, error="refused"
                    )
                else:
                    yield made

    with closing(TraceStore(path, "one", "a")) as store:
        gather_all(store, Failing(), 8)
        errors = [t for t in everything(store).values() if t.stop_reason is StopReason.ERROR]
        assert [t.error for t in errors] == ["refused"]
    again = FakeEngine()
    with closing(TraceStore(path, "two", "a")) as store:
        gather_all(store, again, 8)
        check_all(store)
    assert len(again.seen) == 1


@pytest.mark.parametrize("continues", [True, False], ids=["ids", "chat"])
@pytest.mark.parametrize("came", [0, 5])
def test_a_capped_trace_outlives_what_fails_to_go_on_from_it(path, continues, came):
    class Failing(FakeEngine):
        def generate(self, requests, decoding):
            for made in super().generate(requests, decoding):
                kept = made.output_ids[: len(made.request.prefix_ids) + came]
                counted = not self.continues and came > 0
                yield fake_engine.Generated(
                    made.request, kept, StopReason.ERROR, error="refused", counted=counted
                )

    with closing(TraceStore(path, "one", "a")) as store:
        gather_all(store, FakeEngine(), 8, cap=10)
        before = everything(store, 8, 10)
        capped = {key for key, trace in before.items() if trace.capped}
    failing = Failing()
    failing.continues = continues
    with closing(TraceStore(path, "two", "a")) as store:
        gather_all(store, failing, 8, cap=30)
        assert len(failing.seen) == len(capped) > 0
        errors = {k: t.error for k, t in everything(store, 8, 30).items() if t.error}
        assert errors == dict.fromkeys(capped, "refused")
        new = sum(len(written(r.prompt_ids)[: 10 + came]) - 10 for r in failing.seen)
        assert store.generated("fake-model") == (len(capped), new if continues else 0)
    with closing(TraceStore(path, "three", "a")) as store:
        plan, problems = make_plan(10), make_problems(8)
        prompts = render(store, plan, problems, no_engine)
        gather(store, plan, plan.wants(problems, prompts), no_engine)
        for key, trace in check_all(store, 8, 10).items():
            assert trace.output_ids[:10] == before[key].output_ids
            assert not trace.error
    engine = FakeEngine()
    with closing(TraceStore(path, "four", "a")) as store:
        gather_all(store, engine, 8, cap=30)
        assert len(engine.seen) == len(capped)
        check_all(store, 8, 30)


def test_a_share_leaves_something_for_the_other_workers(path):
    engine = FakeEngine(rows=100)
    with closing(TraceStore(path, "one", "a")) as store:
        gather_all(store, engine, 12, workers=4)
    assert engine.batches[0] == 3
    assert sum(engine.batches) == 12


def test_no_model_is_loaded_only_to_wait(path):
    """Everything is claimed by another process, which finishes a moment later."""
    plan, problems = make_plan(), make_problems(2)
    with closing(TraceStore(path, "one", "a")) as other:
        prompts = render(other, plan, problems, FakeEngine)
        wanted = plan.wants(problems, prompts)
        other.want(wanted)
        claimed = other.claim(9, 60)
        assert len(claimed) == 2

        def wait():
            with closing(TraceStore(path, "two", "b")) as store:
                gather(store, plan, wanted, no_engine)
                finished.append(store.missing())

        finished = []
        thread = threading.Thread(target=wait)
        thread.start()
        requests = [Request(w.key, w.prompt_ids, w.cap) for w in wanted]
        for made in FakeEngine(delay=0.2).generate(requests, plan.decoding):
            ended = EndedTrace(made, "x" * len(made.output_ids), made.output_ids)
            other.commit_all(plan.model, [ended])
        thread.join(20)
    assert finished == [0]


def test_looking_at_all_wanted_traces_is_rare(path, monkeypatch):
    """Counting them after every trace would take hours for 200,000."""
    looked = []
    missing = TraceStore.missing
    monkeypatch.setattr(
        TraceStore, "missing", lambda self, fresh=False: looked.append(1) or missing(self, fresh)
    )
    with closing(TraceStore(path, "one", "a")) as store:
        gather_all(store, FakeEngine(rows=4), 200)
        check_all(store, 200)
        assert store.plans()[0].missing == 0
    assert len(looked) <= 3


def test_what_ends_together_is_committed_together(path, monkeypatch):
    together = []
    commit_all = TraceStore.commit_all

    def counted(self, model, ended, *given):
        together.append(len(ended))
        time.sleep(0.05)
        commit_all(self, model, ended, *given)

    monkeypatch.setattr(TraceStore, "commit_all", counted)
    with closing(TraceStore(path, "one", "a")) as store:
        gather_all(store, FakeEngine(rows=200), 200)
        check_all(store, 200)
    assert sum(together) == 200
    assert len(together) < 20


def test_a_trace_is_committed_while_the_engine_goes_on(path):
    seen = []

    def look(request):
        time.sleep(0.3)
        seen.append(len(everything(other, 4)))

    with closing(TraceStore(path, "one", "a")) as store, closing(TraceStore(path)) as other:
        gather_all(store, FakeEngine(rows=8, each=look), 4)
    assert seen == [0, 1, 2, 3]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seconds", [0, 0.2])
@pytest.mark.parametrize("delay", [0, 0.05])
def test_what_cannot_be_committed_ends_the_gathering(path, monkeypatch, delay, seconds):
    """At once, or at the end of the batch where everything is waiting to be committed by then."""

    def full(self, *given):
        time.sleep(seconds)
        raise StoreError("the disk is full")

    monkeypatch.setattr(TraceStore, "commit_all", full)
    engine = FakeEngine(rows=4, delay=delay)
    with (
        closing(TraceStore(path, "one", "a")) as store,
        pytest.raises(StoreError, match="the disk is full"),
    ):
        gather_all(store, engine, 400)
    assert len(engine.seen) <= 4
    assert not [t for t in threading.enumerate() if t.name == "tokenbudget-commits"]


def start(path, run, count, log, **given):
    options = [f"{name}={str(value).lower()}" for name, value in given.items()]
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(path), run, str(count), str(log), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process):
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output


def wait_for(condition, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def generated(log):
    """Keys, prefix lengths and runs of what all processes generated, in order."""
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("second_run", "fresh"), [("one", False), ("one", True), ("two", False)])
def test_two_processes_share_the_work(path, tmp_path, fresh, second_run):
    """Of one run (workers) or of two: each generates a part, and none is generated twice."""
    log = tmp_path / "log"
    with closing(TraceStore(path, "zero", "z")) as store:
        gather_all(store, FakeEngine(), 24 if fresh else 4)
    # A second program has to start while the first one is at work.
    delay = 0.03 if second_run == "one" else 0.2
    # Owners differ even within a run: the program calls itself by the run's name.
    first = start(path, "one", 24, log, delay=delay, fresh=fresh, workers=2)
    wait_for(lambda: generated(log), first)
    if second_run == "one":
        with closing(TraceStore(path, "one", "other worker")) as store:
            engine = FakeEngine(delay=0.03)
            gather_all(store, engine, 24, fresh=fresh, workers=2)
            mine = keys(engine.seen)
        ended(first)
    else:
        second = start(path, "two", 24, log, delay=delay, fresh=fresh, workers=2)
        ended(first)
        ended(second)
        mine = [key for key, _, run in generated(log) if run == "two"]
    its = [key for key, _, run in generated(log) if run == "one"]
    assert mine
    assert its
    assert max(Counter(mine + its).values()) == 1
    assert len(mine + its) == (24 if fresh else 20)
    with closing(TraceStore(path, "three", "c")) as store:
        check_all(store, 24)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM claims").fetchone() == (0,)


@pytest.mark.timeout(60)
def test_a_fresh_start_loads_no_trace_of_an_earlier_run(path):
    plan, problems = make_plan(), make_problems(4)
    with closing(TraceStore(path, "one", "a")) as store:
        gather_all(store, FakeEngine(), 4)
        prompts = render(store, plan, problems, FakeEngine)
    names = plan.names(problems, prompts)
    with closing(TraceStore(path, "two", "a")) as store:
        store.fresh = True
        store.want(plan.wants(problems, prompts))
        assert store.load(names, prompts, plan.cap) == {}
        gather_all(store, FakeEngine(), 2, fresh=True)
        assert len(store.load(names, prompts, plan.cap)) == 2
        store.fresh = False
        assert len(store.load(names, prompts, plan.cap)) == 4
        # What a run that begins later makes beside it is fresh enough.
        with closing(TraceStore(path, "three", "b")) as beside:
            gather_all(beside, FakeEngine(), 3, fresh=True)
        store.fresh = True
        assert len(store.load(names, prompts, plan.cap)) == 3


def test_two_fresh_runs_beside_each_other_end(path):
    """Neither takes the other's traces for old ones."""
    with closing(TraceStore(path, "zero", "z")) as store:
        gather_all(store, FakeEngine(), 12)

    def run(name):
        with closing(TraceStore(path, name, name)) as store:
            store.want([])
            both_began.wait()
            gather_all(store, engine := FakeEngine(rows=2, delay=0.02), 12, fresh=True)
            return keys(engine.seen)

    both_began = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, ["one", "two"])
    assert len({*first, *second}) == len(first + second) == 12
    assert first
    assert second


def killed(path, log, lease, count=8):
    """A process that was killed while it generated."""
    process = start(path, "one", count, log, delay=0.3, lease=lease)
    wait_for(lambda: len(generated(log)) >= 3, process)
    process.send_signal(signal.SIGKILL)
    return process


def change(path, statement, *values):
    with closing(sqlite3.connect(path)) as db:
        db.execute(statement, values)
        db.commit()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("reaped", [True, False])
def test_the_share_of_a_dead_process_is_taken_over_at_once(path, tmp_path, reaped):
    """Even where nobody has waited for it, so that its number is still taken."""
    process = killed(path, tmp_path / "log", lease=600)
    if reaped:
        process.wait(20)
    else:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with closing(TraceStore(path, "two", "b")) as store:
        before = everything(store)
        assert before
        engine = FakeEngine()
        began = time.monotonic()
        gather_all(store, engine, 8, lease=600)
        assert time.monotonic() - began < 20
        after = check_all(store)
        assert [text for _, text in store.notes()] == []
    process.wait(20)
    assert len(engine.seen) == 8 - len(before), "what was committed is not generated again"
    assert {k: after[k] for k in before} == before


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE processes SET host = 'elsewhere boot pid:[1]'",
        slow("UPDATE processes SET started = ''"),
        slow("DELETE FROM processes"),
    ],
)
def test_the_share_of_a_process_that_cannot_be_seen_is_taken_over_after_its_lease(
    path, tmp_path, statement
):
    """Of another host or container, or of a version that did not say which process it was."""
    process = killed(path, tmp_path / "log", lease=4)
    process.wait(20)
    change(path, statement)
    with closing(TraceStore(path, "two", "b")) as store:
        (claim,) = wanted(store).claims()
        left = claim.until - time.time()
        assert 0 < left <= 4
        began = time.monotonic()
        engine = FakeEngine()
        gather_all(store, engine, 8, lease=4)
        assert left - 0.5 < time.monotonic() - began < left + 20
        check_all(store)
        (line,) = [text for _, text in store.notes()]
        until = time.strftime("%H:%M:%S", time.localtime(claim.until))
        assert f"{claim.traces} of the {claim.traces} missing traces until {until}" in line
        named = "process" if "elsewhere" not in statement else f"{process.pid} on elsewhere, which"
        assert named in line


def wanted(store, count=8):
    plan, problems = make_plan(), make_problems(count)
    store.want(plan.wants(problems, render(store, plan, problems, no_engine)))
    return store


@pytest.mark.timeout(60)
def test_another_process_with_the_number_of_a_dead_one_is_not_taken_for_it(path, tmp_path):
    process = killed(path, tmp_path / "log", lease=600)
    process.wait(20)
    change(path, "UPDATE processes SET pid = ? WHERE run = 'one'", os.getpid())
    with closing(TraceStore(path, "two", "b")) as store:
        gather_all(store, FakeEngine(), 8, lease=600)
        check_all(store)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("way", ["deleted", "replaced"])
def test_a_store_that_is_taken_away_ends_the_run_in_a_sentence(path, tmp_path, way):
    class Thief(FakeEngine):
        def generate(self, requests, decoding):
            for place, result in enumerate(super().generate(requests, decoding)):
                if place == 1:
                    path.unlink()
                    for file in path.parent.glob(f"{path.name}-*"):
                        file.unlink()
                    if way == "replaced":
                        TraceStore(path, "other", "b").close()
                yield result

    with closing(TraceStore(path, "one", "a")) as store:
        # A thread that was just opening the file makes a new one.
        what = "(deleted or moved away|another file is in its place) since this run opened it"
        with pytest.raises(StoreError, match=what):
            gather_all(store, Thief(), 8)
    with closing(TraceStore(path, "two", "b")) as store:
        gather_all(store, FakeEngine(), 8)
        check_all(store)


def test_a_claim_from_the_future_is_not_believed(path, monkeypatch):
    """The clock was a day ahead when it was made."""
    plan, problems = make_plan(), make_problems(8)
    with closing(TraceStore(path, "one", "a")) as other:
        other.want(plan.wants(problems, render(other, plan, problems, FakeEngine)))
        with monkeypatch.context() as patch:
            now = time.time()
            patch.setattr(time, "time", lambda: now + 86_400)
            assert len(other.claim(5, 60)) == 5
        with closing(TraceStore(path, "two", "b")) as store:
            assert wanted(store).unclaimed() == 8
            assert store.claims() == []
            gather_all(store, FakeEngine(), 8)
            check_all(store)


@pytest.mark.timeout(120)
def test_a_process_that_was_stopped_longer_than_its_lease_does_no_harm(path, tmp_path):
    log = tmp_path / "log"
    stopped = start(path, "one", 8, log, delay=0.3, lease=1, rows=8)
    wait_for(lambda: len(generated(log)) >= 3, stopped)
    stop(stopped.pid, path)
    with closing(TraceStore(path, "two", "b")) as store:
        gather_all(store, FakeEngine(), 8, lease=1)
        before = check_all(store)
        rows = all_rows(path)
        stopped.send_signal(signal.SIGCONT)
        ended(stopped)
        assert check_all(store) == before
        assert all_rows(path) == rows
        assert wanted(store).missing() == 0


def stop(pid, path):
    """Stop a process at a moment at which it is not writing to the store: else all would wait."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        with closing(sqlite3.connect(path, timeout=0.5, isolation_level=None)) as db:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.01)
            else:
                db.execute("ROLLBACK")
                return


def all_rows(path):
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT * FROM traces ORDER BY key").fetchall()


@pytest.mark.timeout(60)
def test_a_process_that_arrives_before_the_first_share_is_taken_gets_half(path):
    plan = make_plan()
    with closing(TraceStore(path, "two", "b")) as second:
        second.join_plan(plan.name)
        engine = FakeEngine(rows=100)
        with closing(TraceStore(path, "one", "a")) as store:
            gather_all(store, engine, 8)
        assert engine.batches == [4, 2, 1, 1]
        second.leave_plan()
        with closing(TraceStore(path, "three", "c")) as store:
            gather_all(store, engine := FakeEngine(rows=100), 16)
        assert engine.batches == [8]


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_slow_process_keeps_its_share_by_renewing_the_lease(path, tmp_path):
    """One batch takes several leases; a process that waits for it gets nothing of it."""
    log = tmp_path / "log"
    slow = start(path, "one", 4, log, delay=0.6, lease=0.5, rows=4)
    wait_for(lambda: generated(log), slow)
    with closing(TraceStore(path, "two", "b")) as store:
        plan, problems = make_plan(), make_problems(4)
        prompts = render(store, plan, problems, no_engine)
        gather(store, plan, plan.wants(problems, prompts), no_engine)
        check_all(store, 4)
    ended(slow)
