import pytest
from fake_engine import FakeEngine, written
from runs import Engines, combined

from pytest_tokenbudget.core.engine import EngineError, Generated
from pytest_tokenbudget.core.trace import StopReason, Trace
from pytest_tokenbudget.pytest_session.preflight import missing_traces_sentence

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.usefixtures("quick_figures")


class Failing(FakeEngine):
    """An engine that fails on the first of its requests, after a few tokens."""

    def generate(self, requests, decoding):
        first, *others = requests
        self.seen.append(first)
        ids = written(first.prompt_ids)[:3]
        yield Generated(first, ids, StopReason.ERROR, error="the server hung up")
        yield from super().generate(others, decoding)


class Dying(FakeEngine):
    """An engine that gives one result and the beginning of another, and dies."""

    def generate(self, requests, decoding):
        yield next(iter(super().generate(requests[:1], decoding)))
        ids = written(requests[1].prompt_ids)[:3]
        yield Generated(requests[1], ids, StopReason.ERROR, error="it died")
        raise EngineError("no server answers at http://a:8000/v1.")


def test_what_failed_is_no_wrong_answer_and_fails_every_test(run, pytester):
    failing = Engines(lambda *given: Failing(rows=9))
    result = run(engines=failing)
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        [
            "*1 trace is missing for nano-reasoner, of 1 of 3 problems: the server hung up;*",
            "1 trace ended in an error and count* in no rate: the server hung up",
        ]
    )
    record = combined(pytester.path)
    assert (record["errors"], record["complete"]) == (1, False)
    assert record["curve"][0]["accuracy"]["n"] == 2
    assert record["curve"][0]["outcomes"]["error"] == 1

    fine = Engines(lambda *given: FakeEngine(rows=9))
    run(engines=fine).assert_outcomes(passed=3)
    [request] = fine.seen
    assert request.prefix_ids == written(request.prompt_ids)[:3], "it goes on from what came"
    assert combined(pytester.path)["complete"]


def test_a_dead_engine_tells_how_many_are_missing(run, pytester):
    result = run(engines=Engines(lambda *given: Dying(rows=9)))
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines(
        ["no server answers at http://a:8000/v1. 2 of 3 traces are missing: run the same*"]
    )
    result.stdout.no_fnmatch_line("*During handling*")
    result.stdout.no_fnmatch_line("*traceback*")
    record = combined(pytester.path)
    assert (record["missing"], record["errors"]) == (1, 1)
    fine = Engines(lambda *given: FakeEngine(rows=9))
    run(engines=fine).assert_outcomes(passed=3)
    assert len(fine.seen) == 2


def test_what_is_missing_is_one_sentence():
    def failed(problem, error):
        return Trace(problem, 0, (1,), (), StopReason.ERROR, 8, "", (), error=error)

    three = (failed("a", "too long."), failed("b", "too long."), failed("b", "refused"))
    assert missing_traces_sentence("m", three, 9).startswith(
        "3 traces are missing for m, of 2 of 9 problems: too long (2 times; 1 other reason); run"
    )
