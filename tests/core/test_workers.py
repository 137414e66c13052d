"""Whole runs in processes of their own: workers, kills, Ctrl-C, runs beside each other, imports."""

import os
import signal
from collections import Counter

import pytest
from runs import NO_ENGINE, SUITE, RealEngines, answers, combined, finish, rows, start, wait_for

pytest_plugins = ["run_fixtures"]
pytestmark = [
    pytest.mark.usefixtures("quick_figures"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.name == "nt", reason="signals"),
]

HEAVY = ("torch", "transformers", "matplotlib", "pandas", "datasets", "numpy", "scipy")
# Long enough that a signal comes in time: one row after the other, each to its end.
SLOW = (*SUITE, "--num-samples=6", "--budgets=64,600", "--batch-size=1", "--tokenbudget-lease=3")
SAME_AS_SLOW = {"problems": 6, "budgets": "64,600"}
SAME = ("problem_id", "generated", "tokens_used", "stop_reason", "outcome", "predicted")


@pytest.fixture
def folder(pytester, no_worker):
    return pytester.path


def claims(folder):
    return rows(folder, "key, owner, deadline", "claims")


def stored(folder):
    """When, by whom and in which run each trace was committed, and its ids, by key."""
    return {key: rest for key, *rest in rows(folder)}


def ids(folder):
    return {key: rest[-1] for key, rest in stored(folder).items()}


def check_ended(code, output):
    assert code == 0, output
    assert "INTERNALERROR" not in output
    assert "Traceback" not in output


def test_installed_but_unused_it_costs_nothing(folder, pytester):
    pytester.makeconftest(
        f"""
        import sys

        def pytest_unconfigure(config):
            print("loaded:", [name for name in {HEAVY!r} if name in sys.modules])
        """
    )
    pytester.makepyfile("def test_it(): ...")
    before = sorted(p.name for p in folder.iterdir())
    quiet = ["-q", "-p", "no:cacheprovider", "-p", "no:benchmark"]
    result = {}
    for name, more in (("with", []), ("without", ["-p", "no:tokenbudget"])):
        code, output = finish(start(folder, "--co", *quiet, *more, PYTHONDONTWRITEBYTECODE="1"))
        assert code == 0, output
        result[name] = output
    assert "loaded: []" in result["with"]
    assert result["with"].split(" in ")[0] == result["without"].split(" in ")[0]
    left = [p.name for p in folder.iterdir() if not p.name.startswith("output-")]
    assert sorted(left) == before


@pytest.mark.slow
def test_a_second_run_needs_no_torch(run, pytester, folder):
    """Traces are made here; a process that cannot import torch judges them again."""
    run().assert_outcomes(passed=3)
    before = stored(folder)
    pytester.makeconftest(
        """
        import sys

        class Hidden:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("torch", "transformers", "tokenizers", "bitsandbytes"):
                    raise ImportError(f"{name} is hidden")

        sys.meta_path.insert(0, Hidden())
        """
    )
    arguments = (*SUITE, "--num-samples=3", "--budgets=16,24,32", "--min-accuracy=0.9")
    code, output = finish(start(folder, *arguments))
    assert code == 1, output
    assert "1 failed, 3 passed" in output
    assert "is below the gate's 90 %" in output
    assert "no model is loaded" in output
    assert stored(folder) == before
    assert combined(folder)["tokens"]["generated_this_run"] == 0


@pytest.mark.slow
def test_two_workers_give_the_results_of_none(folder, run, pytester):
    """To the last token, and each trace is generated once, by both of them."""
    arguments = ("--num-samples=6", "--budgets=24,72", "--batch-size=2")
    check_ended(*finish(start(folder, *SUITE, *arguments, "-n", "2")))
    two = {budget: answers(folder, budget) for budget in (24, 72)}
    study = combined(folder)
    owners = Counter(owner.split("-")[0] for owner, *_ in stored(folder).values())
    assert set(owners) == {"gw0", "gw1"}
    assert sum(owners.values()) == 6
    assert claims(folder) == []
    assert study["tokens"]["generated_this_run"] == study["tokens"]["one_pass"]

    alone = folder / "alone"
    result = run("--batch-size=2", "--reports=alone/reports", problems=6, budgets="24,72",
                 engines=RealEngines())  # fmt: skip
    result.assert_outcomes(passed=3)
    for budget, records in two.items():
        one = answers(alone, budget)
        assert [[r[f] for f in SAME] for r in one] == [[r[f] for f in SAME] for r in records]
    assert ids(alone) == ids(folder)
    for part in ("curve", "saturation", "accuracy_by_token", "identity", "problems"):
        assert combined(alone)[part] == study[part]


@pytest.mark.slow
def test_ctrl_c_keeps_what_there_is_and_a_rerun_goes_on(folder, run):
    process = start(folder, *SLOW)
    before = wait_for(
        lambda: len(stored(folder)) >= 2 and claims(folder) and stored(folder), process
    )
    os.kill(process.pid, signal.SIGINT)
    code, output = finish(process)
    assert code == pytest.ExitCode.INTERRUPTED, output
    assert claims(folder) == [], "its claims are given up"
    before = stored(folder)
    assert 2 <= len(before) < 6
    study = combined(folder)
    assert (study["complete"], study["problems"]) == (False, len(before))
    assert len(answers(folder, 64)) == len(before)
    assert "run the same command again to go on" in " ".join(output.split())
    again = RealEngines()
    run(engines=again, **SAME_AS_SLOW).assert_outcomes(passed=3)
    after = stored(folder)
    assert len(after) == 6
    assert len(again.seen) == 6 - len(before)
    assert {key: after[key] for key in before} == before
    assert combined(folder)["complete"] is True


@pytest.mark.slow
def test_ctrl_c_with_workers_keeps_what_there_is(folder):
    process = start(folder, *SLOW, "-n", "2")
    wait_for(lambda: len(stored(folder)) >= 1 and len(claims(folder)) >= 1, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    code, output = finish(process)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # no worker goes on alone
    assert code == pytest.ExitCode.INTERRUPTED, output
    study = combined(folder)
    assert study["problems"] >= 1
    assert "run the same command again to go on" in " ".join(output.split())
    assert study["complete"] is False


@pytest.mark.slow
def test_ctrl_c_at_the_controller_alone_stops_the_workers(folder):
    """As ``kill -INT`` or a CI system does: no worker gets the signal by itself."""
    process = start(folder, *SLOW, "--num-samples=40", "--batch-size=2", "-n", "2")
    wait_for(lambda: len(stored(folder)) >= 2 and len(claims(folder)) >= 2, process)
    os.kill(process.pid, signal.SIGINT)
    code, output = finish(process)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # no worker goes on alone
    assert code == pytest.ExitCode.INTERRUPTED, output
    assert claims(folder) == [], "their claims are given up"
    there = len(stored(folder))
    assert 2 <= there < 40
    flat = " ".join(output.split())
    assert f"interrupted: {there} of the 40 traces that this run had to generate are stored" in flat
    assert combined(folder)["problems"] == there, "what was stored last is reported, too"
    assert "all were stored" not in flat


@pytest.mark.slow
def test_ctrl_c_of_a_run_that_stored_nothing_says_so(folder, run):
    run(problems=2, budgets="64,600", engines=RealEngines()).assert_outcomes(passed=3)
    process = start(folder, *SLOW)
    wait_for(lambda: claims(folder), process)
    os.kill(process.pid, signal.SIGINT)
    code, output = finish(process)
    assert code == pytest.ExitCode.INTERRUPTED, output
    flat = " ".join(output.split())
    assert "all were stored" not in flat
    if len(stored(folder)) == 2:
        assert "no token: what is shown was stored before, the rest is missing" in flat
        assert "interrupted: 0 of the 4 traces that this run had to generate are stored" in flat


@pytest.mark.slow
def test_a_killed_worker_costs_only_what_it_had_not_finished(folder, run):
    process = start(folder, *SLOW, "-n", "2")

    def victim():
        """A worker that has committed something and works on something."""
        done = {owner for owner, *_ in stored(folder).values()}
        return next((owner for _, owner, _ in claims(folder) if owner in done), None)

    owner = wait_for(victim, process)
    before = stored(folder)
    os.kill(int(owner.split("-")[1]), signal.SIGKILL)
    code, output = finish(process)
    # The test that it was running is lost and said to be; the session goes on.
    assert code == pytest.ExitCode.TESTS_FAILED, output
    assert "crashed while running" in output
    assert "1 failed, 2 passed" in output
    assert "INTERNALERROR" not in output
    after = stored(folder)
    assert len(after) == 6
    assert {key: after[key] for key in before} == before, "nothing committed is generated again"
    study = combined(folder)
    assert (study["problems"], study["missing"]) == (6, 0)
    run(engines=NO_ENGINE, **SAME_AS_SLOW).assert_outcomes(passed=3)
    assert stored(folder) == after


@pytest.mark.slow
def test_two_runs_beside_each_other_share_one_store(folder):
    elsewhere = [folder / name for name in ("one", "two")]
    processes = []
    for place in elsewhere:
        place.mkdir()
        store = f"--trace-store={folder / 'reports' / 'traces.sqlite'}"
        processes.append(start(place, *SLOW, store))
    for process in processes:
        check_ended(*finish(process))
    traces = stored(folder)
    assert len(traces) == 6
    assert rows(folder, table="replaced") == []
    one, two = (combined(place) for place in elsewhere)
    assert one["curve"] == two["curve"]
    generated = [study["tokens"]["generated_this_run"] for study in (one, two)]
    # Had a trace been generated twice, only one of the two would be kept and counted.
    assert (
        sum(generated) == one["tokens"]["one_pass"] == sum(len(t[-1]) // 4 for t in traces.values())
    )
    assert claims(folder) == []
