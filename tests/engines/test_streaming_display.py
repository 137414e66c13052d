"""Traces on the terminal while they are written: what is shown of whom, and what engines tell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from engine_helpers import collect, make_engine, requests
from fake_engine import FakeEngine, gather_all, make_plan, make_problems
from runs import NO_ENGINE, QUIET, RealEngines, environment, rows
from server_scripted import EOS, GREEDY, MESSAGES, NANO, ScriptedServer, one
from watching import Notes

from pytest_tokenbudget.core.engine import Generated, Request
from pytest_tokenbudget.core.gather import render
from pytest_tokenbudget.core.store import TraceStore
from pytest_tokenbudget.core.store_tables import unpack
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.engines.server.dialects import DIALECTS
from pytest_tokenbudget.engines.server.engine import ServerEngine
from pytest_tokenbudget.engines.server.output import ServerOutput
from pytest_tokenbudget.report import live_display
from pytest_tokenbudget.report.live import DIM, UNDIM
from pytest_tokenbudget.report.live_display import LiveDisplay
from pytest_tokenbudget.settings.endpoints import Endpoint, Facts
from pytest_tokenbudget.texts.thinking_blocks import ThinkingFormat

pytest_plugins = ["run_fixtures"]

ROOT = Path(__file__).resolve().parents[2]
EVAL = str(ROOT / "evals" / "test_saturation.py")
HEADER = re.compile(r"^-+ (\S+), ([\d,]+) to go -+\n", re.M)
FOOTER = re.compile(r"\n\[(?=[^|])(.*)\]\n")
# "<think>\nThere are 3 apples." and the end, as the embedded model writes it.
IDS = (1022, 201, 425, 309, 223, 21, 261, 699, 609, 16, EOS)


def shown_of(output: str) -> dict[str, tuple[str, str]]:
    """For each problem that is shown, its text with marks, and how it ended."""
    found = {}
    parts = HEADER.split(output)
    for name, body in zip(parts[1::3], parts[3::3], strict=True):
        end = FOOTER.search(body)
        assert end, body
        found[name] = body[: end.start()], end[1]
    return found


def marked(text: str, offsets, budgets, capped: bool, form: str = "[|{}|]") -> str:
    """A text with marks where budgets cut it; said anew on purpose."""
    out, done = "", 0
    for budget in sorted(budgets):
        if budget < len(offsets) or (budget == len(offsets) and capped):
            out += text[done : offsets[budget - 1]] + form.format(budget)
            done = offsets[budget - 1]
    return out + text[done:]


def stored(folder: Path) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """Text, offsets and reason of each trace, by text."""
    columns = "key, text, offsets, stop_reason"
    return {text: (text, unpack(places), why) for _, text, places, why in rows(folder, columns)}


# Whole runs of the embedded model


@pytest.fixture(scope="module")
def terminal_run(tmp_path_factory) -> tuple[str, Path]:
    """What a terminal gets of a run, and where its results are."""
    pty = pytest.importorskip("pty")
    folder = tmp_path_factory.mktemp("terminal")
    ours, theirs = pty.openpty()
    asked = ["--stream", "--thinking=on", "--num-samples=3", "--budgets=16,64", "--batch-size=1"]
    variables = environment(TERM="xterm", COLUMNS="80")
    for name in ("NO_COLOR", "PY_COLORS", "FORCE_COLOR"):
        variables.pop(name, None)
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", EVAL, f"--rootdir={folder}", *QUIET, *asked],
        cwd=folder,
        env=variables,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        output = b""
        try:
            while part := os.read(ours, 65536):
                output += part
        except OSError:  # how Linux says that nobody has the other end any more
            pass
        os.close(ours)
        assert process.wait(60) == 0, output.decode()
    return output.decode().replace("\r\n", "\n"), folder


@pytest.mark.slow
def test_a_terminal_gets_each_trace_as_it_is_stored(terminal_run):
    output, folder = terminal_run
    shown = shown_of(output)
    assert len(shown) == 3
    traces = stored(folder)
    for body, how in shown.values():
        plain = body.replace(DIM, "").replace(UNDIM, "")
        text, offsets, reason = next(t for t in traces.values() if plain.startswith(t[0][:20]))
        expected = marked(text, offsets, (16, 64), reason == "length", "\x1b[7m {} \x1b[27m")
        assert plain == expected
        ended = "cut by the cap" if reason == "length" else "ended by the model"
        assert how == f"{len(offsets)} tokens, {ended}"
        traces.pop(text)


@pytest.mark.slow
def test_a_terminal_gets_thinking_dimmed_and_no_bar(terminal_run):
    output, _ = terminal_run
    for body, _ in shown_of(output).values():
        unmarked = re.sub("\x1b\\[7m \\d+ \x1b\\[27m", "", body)
        thinking, closed, answer = unmarked.replace(UNDIM + DIM, "").partition(f"</think>{UNDIM}")
        assert thinking.startswith(f"{DIM}<think>\n")
        assert UNDIM not in thinking.removesuffix(UNDIM)
        assert DIM not in answer
        assert closed or not answer
    assert "generating" not in output
    lines = output.splitlines()
    place = next(i for i, line in enumerate(lines) if HEADER.match(f"{line}\n"))
    assert lines[place - 1].startswith("tokenbudget: 3 traces to generate")


@pytest.mark.slow
def test_a_file_gets_plain_text_that_goes_on_from_what_is_stored(run, pytester):
    asked = ("--stream", "--thinking=on", "--batch-size=1")
    first = run(*asked, budgets="16", problems=1, engines=RealEngines()).stdout.str() + "\n"
    again = run(*asked, budgets="16,48", problems=1, engines=RealEngines()).stdout.str() + "\n"
    ((before, _),) = shown_of(first).values()
    ((after, _),) = shown_of(again).values()
    assert "\x1b" not in first + again
    assert before.endswith("[|16|]")
    assert after.startswith(before)
    ((text, offsets, why),) = stored(pytester.path).values()
    assert after == marked(text, offsets, (16, 48), why == "length")
    # All is there: nothing is written, and nothing shown.
    assert not HEADER.search(run(*asked, budgets="16", problems=1, engines=NO_ENGINE).stdout.str())


def test_nothing_is_shown_unless_it_is_asked_for(run):
    engines = RealEngines()
    assert not HEADER.search(run(problems=1, engines=engines).stdout.str())
    assert [engine.watch for engine in engines.made] == [None]


def test_workers_have_no_terminal(run):
    result = run("--stream", "-n2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--stream: cannot be used with -n 2*leave out one*"])


# What is shown of whom


class Screen:
    """A display, and what it has put on the terminal."""

    def __init__(self, plan=None, engine=None, missing=3, fails=False):
        self.text, self.said, self.ready, self.fails = "", [], [], fails
        self.display = LiveDisplay(self.write, False, self.ready.append, self.said.append)
        self.plan = plan or make_plan(16, budgets=(4, 16))
        self.display.begin(self.plan, engine or FakeEngine(), missing)

    def write(self, text):
        if self.fails:
            raise BrokenPipeError(32, "nobody reads")
        self.text += text

    def wrote(self, request, count):
        self.display.wrote(request, ids_of(request)[:count])

    def ended(self, request, count=None, reason=StopReason.EOS, error=""):
        ids = ids_of(request)[:count]
        text = FakeEngine().decode(ids)
        offsets = [min(i, len(text)) for i in range(1, len(ids) + 1)]
        result = Generated(request, ids, reason, reason.value, error=error)
        self.display.ended(result, text, offsets)

    @property
    def names(self):
        return [name for name, _ in HEADER.findall(self.text)]


def ask(name: str, **more) -> Request:
    return Request(name, tuple(name.encode()), 33, problem_id=name, **more)


def ids_of(request: Request) -> tuple[int, ...]:
    return (*range(1, 11), 0)


def test_one_of_those_side_by_side_is_followed_then_one_that_still_goes_on():
    screen, (a, b, c) = Screen(), map(ask, "abc")
    for count in range(1, 12):
        for request in (a, b, c):
            screen.wrote(request, count)
        if count == 6:
            screen.ended(c, 6)
            screen.ended(a, 6)
            a = ask("d")
    screen.display.leave()
    assert screen.names == ["a", "d"]
    body = HEADER.split(screen.text)
    assert body[3] == "abcd[|4|]ef\n[6 tokens, ended by the model]\n"
    assert body[6] == "abcd[|4|]efghij\n[not finished]\n"
    assert [count for _, count in HEADER.findall(screen.text)] == ["3", "1"]


def test_who_watches_from_the_middle_sees_it_from_its_start():
    screen, (a, b) = Screen(), map(ask, "ab")
    screen.wrote(a, 2)
    screen.wrote(b, 5)
    screen.ended(a)
    screen.wrote(b, 8)
    assert HEADER.split(screen.text)[-1] == "abcd[|4|]efgh"


def test_another_one_is_shown_where_nothing_comes(monkeypatch):
    screen, (a, b) = Screen(), map(ask, "ab")
    screen.wrote(a, 2)
    assert not screen.display.follows(b)
    monkeypatch.setattr(live_display, "PATIENCE", -1.0)
    assert screen.display.follows(b)
    screen.wrote(b, 3)
    assert "ab\n[goes on later]\n" in screen.text
    assert screen.names == ["a", "b"]


def test_an_output_that_begins_anew_is_shown_anew():
    screen, a = Screen(), ask("a")
    screen.wrote(a, 5)
    screen.wrote(a, 3)
    assert "abcd[|4|]e\n[asked for again]\n" in screen.text
    assert screen.names == ["a", "a"]
    screen.display.wrote(a, (1, 2, 9, 9))
    screen.ended(a)
    assert screen.text.endswith("\n[11 tokens, ended by the model; what is stored differs]\n")


def test_an_engine_that_tells_nothing_has_each_trace_shown_as_it_ends(tmp_path):
    screen = Screen()
    with closing(TraceStore(tmp_path / "traces.sqlite", "run", "a")) as store:
        engine = FakeEngine(rows=2)
        plan = make_plan()
        gather_all(store, engine, 5, observer=screen.display)
        prompts = render(store, plan, make_problems(5), lambda: engine)
        traces = store.load(plan.names(make_problems(5), prompts), prompts, plan.cap)
    shown = shown_of(screen.text)
    assert sorted(shown) == [f"p{i}" for i in range(5)]
    for (name, _), trace in traces.items():
        assert shown[name][0] == marked(trace.text, trace.offsets, (16,), trace.capped)
    assert [count for _, count in HEADER.findall(screen.text)] == ["5", "4", "3", "2", "1"]
    assert engine.watch is None


def test_samples_are_named_and_thinking_that_the_prompt_opened_is_dimmed():
    plan = make_plan(16, samples=2, format=ThinkingFormat())
    screen = Screen(plan)
    screen.display._colour = True
    screen.wrote(ask("a", sample=1, opens_thinking=True), 2)
    assert "a, sample 2, 3 to go" in screen.text
    assert f"{DIM}a{UNDIM}{DIM}b{UNDIM}" in screen.text


def test_errors_are_told_of_the_trace_that_is_shown_only():
    screen, (a, b) = Screen(), map(ask, "ab")
    screen.ended(b, 0, StopReason.ERROR, "no room")
    screen.wrote(a, 3)
    screen.ended(a, 3, StopReason.ERROR, "the server\x1b is gone")
    assert HEADER.split(screen.text)[-1] == "abc\n[the server\\x1b is gone]\n"
    assert screen.names == ["a"]


def test_lines_of_others_do_not_begin_inside_a_text():
    screen, a = Screen(), ask("a")
    screen.wrote(a, 3)
    with screen.display.interrupted():
        screen.write("tokenbudget: busy\n")
    screen.wrote(a, 4)
    assert HEADER.split(screen.text)[-1] == "abc\ntokenbudget: busy\nd"


COMMANDS = (
    "::stop-commands::x\n  ::add-mask::the\n\n\t::debug::a\na::b: :c",
    "a::b: :c\n##[error]d\ne ##[endgroup]\n:::x",
    "<think>::error::a</think>::warning::b\n##\n[c]#\n#[:\n:",
)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("text", COMMANDS)
@pytest.mark.parametrize("size", [1, 2, 3, 200])
def test_no_line_of_a_model_is_a_command_for_github(text, size, colour):
    screen, a = Screen(make_plan(16, budgets=(200,), format=ThinkingFormat())), ask("a")
    screen.display._colour = colour
    for end in range(size, len(text) + size, size):
        screen.display.wrote_text(a, text[:end])
    screen.display.leave()
    shown = re.sub("\x1b\\[[0-9]+m", "", screen.text)
    for line in shown.splitlines():
        assert not line.lstrip().startswith("::")
        assert "##[" not in line
    plain = shown.replace(r"\x3a", ":").replace(r"\x5b", "[")
    assert text in plain
    assert "a::b: :c" in shown or "a::b" not in text


def test_a_line_that_goes_on_after_those_of_others_is_no_command_for_github():
    screen, a = Screen(), ask("a")
    screen.display.wrote_text(a, "so ")
    with screen.display.interrupted():
        screen.write("tokenbudget: busy\n")
    screen.display.wrote_text(a, "so ::error::x")
    assert "busy\n:\\x3aerror::x" in screen.text


def test_a_fault_ends_the_display_and_nothing_else(tmp_path):
    screen = Screen(fails=True)
    with closing(TraceStore(tmp_path / "traces.sqlite", "run", "a")) as store:
        gather_all(store, FakeEngine(), 4, observer=screen.display)
        assert store.plans()[0].missing == 0
    assert screen.said == ["--stream ends here: BrokenPipeError: [Errno 32] nobody reads"]


# What engines tell


def test_transformers_tells_of_every_row_as_its_ids_come():
    engine = make_engine()
    engine.watch = notes = Notes()
    wanted = requests(3, 24)
    results = collect(engine, wanted, GREEDY)
    for request in wanted:
        ids = results[request.key].output_ids
        assert notes.told[request.key] == [ids[: i + 1] for i in range(len(ids))]
    goes_on = Request("on", wanted[0].prompt_ids, 26, prefix_ids=results["p0"].output_ids[:20])
    assert one(engine, goes_on).output_ids == notes.told["on"][-1]
    assert len(notes.told["on"][0]) == 21


def served(server):
    return server_engine(
        server, Facts("vllm", "0.32.0", "m", 2048, "somewhere", ids=True, tokenizes=True)
    )


def server_engine(server, facts):
    spec = replace(NANO, endpoint=Endpoint((server.url,)))
    return ServerEngine(spec, facts)


def test_servers_tell_of_ids_as_they_come():
    with ScriptedServer(ids=IDS, prompt=2) as server, closing(served(server)) as engine:
        engine.watch = notes = Notes()
        one(engine, Request("k", (5, 6), 32))
        assert notes.told["k"][-1] == IDS
        assert len(notes.told["k"]) == len(IDS)
        assert notes.texts["k"] is None


def test_servers_tell_of_texts_where_only_they_can_decode():
    with ScriptedServer(ids=IDS, prompt=2) as server, closing(served(server)) as engine:
        # As it is where no tokenizer is here.
        engine.__dict__["pieces"] = None
        engine.watch = notes = Notes()
        one(engine, Request("k", (5, 6), 32, prefix_ids=IDS[:2]))
        assert notes.told["k"][0] == IDS[:3]
        assert notes.texts["k"] == ["<think>\n", "", *(f" t{i}" for i in IDS[2:])]
        engine.watch = quiet = Notes(follow=False)
        one(engine, Request("k", (5, 6), 32))
        assert not quiet.told


DELTAS = [{"reasoning_content": part} for part in ("\nThere", " are", " 3")] + [
    {"content": part} for part in (" pens", ", 3", ".")
]


def test_servers_of_text_tell_of_it_with_its_tags():
    facts = Facts("serve", "", "m", 2048, "somewhere", ids=False, tokenizes=False)
    with (
        ScriptedServer(deltas=DELTAS, kind="other") as server,
        closing(server_engine(server, facts)) as engine,
    ):
        engine.watch = notes = Notes()
        result = one(engine, Request("k", (5, 6), 32, messages=MESSAGES))
        assert result.text == "<think>\nThere are 3</think> pens, 3."
        assert notes.told["k"][-1] == result.text
        assert "<think>\nThere are" in notes.told["k"]


@pytest.mark.parametrize(
    ("kind", "events", "added"),
    [
        ("vllm", [{"choices": [{"text": " a", "token_ids": [5]}]}, {"choices": []}], [" a", ""]),
        ("llamacpp", [{"content": " a", "tokens": [5], "tokens_predicted": 1}], [" a"]),
        (
            "sglang",
            [
                {"text": "a", "output_ids": [5], "meta_info": {"completion_tokens": 1}},
                {"text": "ab", "output_ids": [5, 6], "meta_info": {"completion_tokens": 2}},
            ],
            ["a", "b"],
        ),
        (
            "sglang",
            [
                {"text": "a", "output_ids": [5], "meta_info": {"completion_tokens": 1}},
                {"text": "b", "output_ids": [6], "meta_info": {"completion_tokens": 2}},
            ],
            ["a", "b"],
        ),
    ],
)
def test_text_that_an_event_adds(kind, events, added):
    heard, found = ServerOutput(), []
    for event in events:
        DIALECTS[kind].read_ids(event, heard)
        found.append(heard.new_text)
    assert found == added


# Text without ids


@pytest.mark.parametrize("step", [1, 3, 50])
def test_marks_in_text_without_ids_stand_where_its_tokens_are_counted(step):
    engine = make_engine()
    text = "<think>\nHugo owns 33 stones.\n</think>\n\nThere are 33 stones.\n#### 33"
    ids = engine.encode(text)
    budgets = (4, 10, 20, len(ids), 500)
    screen = Screen(make_plan(500, budgets=budgets, format=NANO.thinking), engine)
    a = ask("a")
    offsets = [len(engine.decode(ids[: i + 1])) for i in range(len(ids))]
    # Events hold whole tokens: one, or several.
    for end in range(step, len(ids) + step, step):
        screen.display.wrote_text(a, engine.decode(ids[:end]))
    result = Generated(a, ids, StopReason.LENGTH, text=text, offsets=tuple(offsets), counted=True)
    screen.display.ended(result, text, offsets)
    body, how = shown_of(screen.text)["a"]
    assert body == marked(text, offsets, budgets, capped=True)
    assert how == f"{len(ids)} tokens, cut by the cap"


def test_without_a_tokenizer_here_marks_stand_in_what_is_left_to_show():
    screen, a = Screen(), ask("a")
    screen.display.wrote_text(a, "\n\n")
    screen.display.wrote_text(a, "ab")
    screen.display.wrote_text(a, "abc")
    screen.ended(a)
    assert HEADER.split(screen.text)[-1] == "abcd[|4|]efghij\n[11 tokens, ended by the model]\n"


def test_text_that_comes_once_more_is_not_shown_twice():
    screen, a = Screen(), ask("a")
    for text in ("abc", "a", "ab", "abcd"):
        screen.display.wrote_text(a, text)
    assert HEADER.split(screen.text)[-1] == "abcd"
    screen.display.wrote_text(a, "other")
    assert "\n[asked for again]\n" in screen.text
