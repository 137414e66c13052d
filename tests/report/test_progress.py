import io
import re
import time
from contextlib import closing

import pytest
from fake_engine import FakeEngine, gather_all, make_plan

from pytest_tokenbudget.core.engine import Decoding
from pytest_tokenbudget.core.store import TraceStore
from pytest_tokenbudget.report import progress
from pytest_tokenbudget.report.progress import Monitor, describe


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def path(tmp_path):
    return tmp_path / "traces.sqlite"


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(progress, "REFRESH_SECONDS", 0.01)


def watched(path, count=6, stream=None, delay=0.02, monitor=None, **options):
    """What a monitor says while traces are gathered."""
    said = []
    monitor = monitor or Monitor(path, "run", said.append, stream or io.StringIO())
    with closing(TraceStore(path, "run", "a")) as store, monitor.watching():
        gather_all(store, FakeEngine(rows=2, delay=delay), count, **options)
    return said


@pytest.mark.usefixtures("quick")
def test_each_plan_is_announced_once(path):
    said = []
    monitor = Monitor(path, "run", said.append, io.StringIO())
    watched(path, monitor=monitor)
    watched(path, monitor=monitor)
    assert said == [
        "fake = here | any, all problems | greedy",
        f"6 traces to generate, at most 96 tokens; kept in {path}",
    ]


def test_a_plan_that_is_done_at_once_is_announced_too(path):
    """Quicker than the display's first look; and in a later run, from the store alone."""
    assert len(watched(path, delay=0)) == 2
    said = []
    monitor = Monitor(path, "later", said.append, io.StringIO())
    with closing(TraceStore(path, "later", "a")) as store, monitor.watching():
        gather_all(store, FakeEngine(), 6)
    assert said[1] == f"all traces are in {path}: no model is loaded"


@pytest.mark.usefixtures("quick")
def test_without_a_terminal_there_is_a_line_from_time_to_time(path, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.1)
    stream = io.StringIO()
    said = watched(path, count=10, stream=stream, delay=0.06)
    lines = [line for line in said if line.startswith("generating ")]
    assert 1 <= len(lines) < 30
    assert lines[-1].split()[1].endswith("/10,")
    assert "tok/s, about " in lines[-1]
    assert lines[-1].endswith(" s left")
    assert stream.getvalue() == ""


@pytest.mark.usefixtures("quick")
def test_on_a_terminal_there_is_a_bar(path):
    stream = Terminal()
    said = watched(path, count=10, stream=stream, delay=0.03)
    assert len(said) == 2
    text = stream.getvalue()
    assert "generating  0/10" in text
    assert "10/10" in text
    assert "tok/s" in text


class Telling(FakeEngine):
    """Says how many tokens there are before a trace ends, as engines do at every step."""

    def __init__(self, whole: int, **options):
        super().__init__(**options)
        self.whole = whole

    def generate(self, requests, decoding):
        for tokens in range(1, self.whole + 1):
            time.sleep(self._delay)
            for request in requests:
                self.tally(request, tokens)
        yield from super().generate(requests, decoding)


@pytest.mark.usefixtures("quick")
def test_tokens_of_unfinished_traces_are_counted(path, monkeypatch):
    monkeypatch.setattr("pytest_tokenbudget.core.gather.PUBLISH_SECONDS", 0.02)
    stream = Terminal()
    monitor = Monitor(path, "run", lambda line: None, stream)
    with closing(TraceStore(path, "run", "a")) as store, monitor.watching():
        gather_all(store, Telling(5, rows=10, delay=0.1), 10, 64)
    counted = re.findall(r"generating  0/10, (\d+) tokens", stream.getvalue())
    assert {"10", "20", "30", "40"} <= set(counted)
    end = stream.getvalue().split("\r")[-1]
    with closing(TraceStore(path, "run")) as store:
        assert f"10/10, {store.generated('fake-model')[1]} tokens" in end, "none counts twice"
        assert store.states("generating") == []


@pytest.mark.usefixtures("quick")
def test_tokens_of_all_workers_are_counted(path, monkeypatch):
    said, stream = [], Terminal()
    monitor = Monitor(path, "run", said.append, stream)
    with closing(TraceStore(path, "run", "a")) as one, closing(TraceStore(path, "run", "b")) as two:
        plan = make_plan()
        with monitor.watching():
            one.put_plan(plan.name, plan.to_json(), 8)
            one.put_state("generating", {"plan": plan.name, "lengths": {"k": (0, 100)}})
            two.put_state("generating", {"plan": plan.name, "lengths": {"l": (50, 90)}})
            two.put_state("generating other", {"plan": "other", "lengths": {"m": (0, 7)}})
            time.sleep(0.3)
    assert "generating  0/8, 140 tokens" in stream.getvalue()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("terminal", [True, False])
def test_probes_are_counted(path, monkeypatch, terminal):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.05)
    said, begun = [], []
    stream = Terminal() if terminal else io.StringIO()
    monitor = Monitor(path, "run", said.append, stream, begin_line=lambda: begun.append(1))
    with closing(TraceStore(path, "run", "a")) as store, monitor.watching():
        state = {"name": "limit seeds", "done": 3, "total": 15, "answers": 12, "tokens": 3400}
        store.put_state("probing", {**state, "began": time.time()})
        time.sleep(0.4)
    shown = stream.getvalue()
    if terminal:
        assert begun == [1]
        assert "probing  3/15" in shown
        assert "3,400 tokens [00:00] limit seeds" in shown
        assert not shown.split("\r")[-1].strip(), "the bar is wiped"
        assert all(len(drawn) <= 80 for drawn in shown.split("\r"))
    else:
        assert shown == ""
        assert said[0].startswith("probing 3/15, 12 answers, 3,400 tokens; limit seeds for ")


@pytest.mark.usefixtures("quick")
def test_a_line_does_not_begin_where_the_bar_ends(path):
    stream, before = Terminal(), {}
    monitor = Monitor(path, "run", lambda line: before.update({line: stream.getvalue()}), stream)
    with closing(TraceStore(path, "run", "a")) as store, monitor.watching():

        def note(request):
            if len(engine.seen) == 5:
                store.note("a server is busy")

        engine = FakeEngine(rows=2, delay=0.05, each=note)
        gather_all(store, engine, 10)
    drawn = before["a server is busy"]
    assert "generating" in drawn
    assert drawn.endswith("\r"), "the bar was wiped"
    assert set(drawn.split("\r")[-2]) == {" "}


@pytest.mark.usefixtures("quick")
def test_where_traces_are_shown_there_is_no_count_of_them(path):
    said, stream = [], Terminal()
    monitor = Monitor(path, "run", said.append, stream, counts=False)
    watched(path, count=10, delay=0.03, monitor=monitor)
    assert len(said) == 2
    assert stream.getvalue() == ""


@pytest.mark.usefixtures("quick")
def test_a_plan_can_be_waited_for(path):
    said = []
    monitor = Monitor(path, "run", said.append, io.StringIO())
    with closing(TraceStore(path, "run", "a")) as store, monitor.watching():
        plan = make_plan()
        store.put_plan(plan.name, plan.to_json(), 3)
        monitor.wait_for(plan.name, 20)
        assert said[1].startswith("3 traces to generate")
        began = time.monotonic()
        monitor.wait_for("another", 0.05)
        assert 0.05 <= time.monotonic() - began < 5


@pytest.mark.usefixtures("quick")
def test_what_engines_say_is_passed_on_once(path):
    said = []
    monitor = Monitor(path, "run", said.append, io.StringIO())
    with closing(TraceStore(path, "run", "a")) as store:
        with monitor.watching():
            store.note("out of memory with 8 rows")
            time.sleep(0.1)
        store.note("another")
        with monitor.watching():
            pass
    assert said == ["out of memory with 8 rows", "another"]


@pytest.mark.usefixtures("quick")
def test_a_store_that_is_not_there_or_none_is_no_matter(path):
    said = []
    with Monitor(path, "run", said.append, io.StringIO()).watching():
        time.sleep(0.05)
    assert not path.exists()
    path.write_text("a text")
    with Monitor(path, "run", said.append, io.StringIO()).watching():
        time.sleep(0.05)
    assert path.read_text() == "a text"
    assert said == []


def test_a_plan_in_words():
    sampled = Decoding(temperature=0.7, top_p=0.95, seed=3)
    plan = make_plan(limit=1, decoding=sampled, thinking=True, task="gsm8k")
    assert describe(plan) == (
        "fake = here | gsm8k, 1 problem, thinking | temperature 0.7, top-p 0.95, seed 3"
    )
    assert describe(make_plan(limit=1319)).endswith("| any, 1,319 problems | greedy")
