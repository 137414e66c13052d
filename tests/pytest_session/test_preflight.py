"""What is missing is noticed before the first test, and said in one sentence."""

import socket
import threading
import time

import pytest
from fake_engine import FakeEngine
from runs import NO_ENGINE, QUIET, Engines, finish, start
from server_scripted import ScriptedServer
from slow_cases import slow

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.models import hub

pytest_plugins = ["run_fixtures"]

SUITE = ("--pyargs", "pytest_tokenbudget.evals", *QUIET)


@pytest.fixture
def silent():
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def accept():
            try:
                while True:
                    held.append(server.accept())
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for connection, _ in held:
            connection.close()


@pytest.fixture
def closed():
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def one_sentence(folder, *arguments, **changes):
    """The only line that a run that cannot begin writes to standard error."""
    code, text = finish(start(folder, *arguments, **changes))
    assert code == pytest.ExitCode.USAGE_ERROR, text
    lines = text.splitlines()
    [at] = [number for number, line in enumerate(lines) if line.startswith("ERROR: ")]
    assert [line for line in lines[at + 1 :] if line.strip()] == []
    assert "Retrying" not in text
    assert "workers" not in text
    return lines[at]


@pytest.mark.parametrize("there", ["silent", "closed"])
def test_the_hub_is_asked_once_and_not_for_long(request, monkeypatch, there):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", request.getfixturevalue(there))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hub.unreachable.cache_clear()
    try:
        began = time.monotonic()
        reason = hub.unreachable()
        assert time.monotonic() - began < 5
        assert ("no answer within 2 s" in reason) == (there == "silent")
        assert reason
        with hub.access():
            from huggingface_hub import constants

            assert constants.HF_HUB_OFFLINE is True
        assert constants.HF_HUB_OFFLINE is False
        began = time.monotonic()
        assert hub.unreachable() == reason
        assert time.monotonic() - began < 0.1
    finally:
        hub.unreachable.cache_clear()


@pytest.mark.parametrize("there", [slow("silent"), "closed"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "phase1", "--model=qwen-1.5b"),
        slow(("-m", "phase1", "--model=qwen-1.5b", "-n", "2")),
        slow(("-m", "phase3", "--model=some/model")),
        ("-m", "phase1", "--task=gsm8k"),
        ("-m", "phase1", "--recorded=phase1_main_m_budget32.json", "--tokenizer=qwen-1.5b"),
    ],
)
def test_a_hub_that_cannot_be_reached(request, tmp_path, arguments, there):
    from recordings import record, write

    write(tmp_path / "phase1_main_m_budget32.json", [record(n, budget=32) for n in range(3)])
    line = one_sentence(
        tmp_path,
        *SUITE,
        *arguments,
        HF_ENDPOINT=request.getfixturevalue(there),
        HF_HOME=str(tmp_path / "hub"),
        HF_HUB_OFFLINE="",
    )
    assert "is not in the local cache and the hub cannot be reached" in line


@pytest.mark.slow
def test_a_hub_in_a_settings_file_is_not_asked_for_other_tests(tmp_path, silent):
    (tmp_path / "tokenbudget.toml").write_text('model = "qwen-1.5b"\n')
    (tmp_path / "test_plain.py").write_text("def test_plain(): pass\n")
    began = time.monotonic()
    for arguments in ((), ("-n", "1")):
        code, text = finish(
            start(
                tmp_path,
                *QUIET,
                *arguments,
                HF_ENDPOINT=silent,
                HF_HOME=str(tmp_path / "hub"),
            )
        )
        assert code == pytest.ExitCode.OK, text
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("workers", [slow(()), ("-n", "2")])
def test_a_server_that_does_not_answer(tmp_path, closed, workers):
    line = one_sentence(
        tmp_path, *SUITE, "-m", "phase1 or phase3", f"--model={closed}/v1", *workers
    )
    assert f"nothing answers at {closed}/v1" in line


@pytest.mark.parametrize(
    ("selected", "workers"),
    [("phase1", ()), slow("conformance", ()), slow("phase1 or phase3", ("-n", "2"))],
)
def test_a_server_without_a_tokenizer(tmp_path, selected, workers):
    with ScriptedServer(kind="openai") as server:
        line = one_sentence(tmp_path, *SUITE, "-m", selected, f"--model={server.url}", *workers)
        assert not server.bodies
    assert "its server (openai) does not tokenize, and what it serves (somewhere/else)" in line
    assert line.endswith("is not here; name a tokenizer with --tokenizer NAME|PATH")


def test_a_tokenizer_for_a_server_that_cannot_be_had(tmp_path, closed):
    with ScriptedServer(kind="openai") as server:
        line = one_sentence(
            *(tmp_path, *SUITE, "-m", "phase1", f"--model={server.url}", "--tokenizer=qwen-1.5b"),
            HF_ENDPOINT=closed,
            HF_HOME=str(tmp_path / "hub"),
            HF_HUB_OFFLINE="",
        )
        assert not server.bodies
    assert "is not in the local cache and the hub cannot be reached" in line


@pytest.mark.parametrize("workers", [(), slow(("-n", "2"))])
def test_vllm_that_is_not_installed(tmp_path, workers):
    """A module that hides it, where it is."""
    (tmp_path / "conftest.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'vllm' else find(name, *a)\n"
    )
    line = one_sentence(tmp_path, *SUITE, "-m", "phase1", "--engine=vllm", "-c", "/dev/null",
                        "--confcutdir=.", "-p", "conftest", *workers,
                        PYTHONPATH=str(tmp_path))  # fmt: skip
    assert "vLLM is not installed; pip install 'vllm>=0.19.1'" in line


@pytest.mark.usefixtures("quick_figures")
def test_one_cause_is_shown_once(own, pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("n", range(4))
        def test_curve(curve, n): pass
        def test_other(curve, cuts): pass
        def test_wrong(tmp_path): assert 1 == 2
        """
    )

    def broken(*given):
        raise EngineError("the engine has no fuel")

    result = own("--junitxml=j.xml", engines=Engines(broken))
    result.assert_outcomes(errors=5, failed=1)
    shown = [line for line in result.outlines if "no fuel" in line]
    assert len(shown) <= 2, "in the list of errors, and in the summary's line of the same test"
    result.stdout.fnmatch_lines(["*4 more failures for the same reason*"])
    assert sum(line.startswith("ERROR ") for line in result.outlines) == 5
    assert (pytester.path / "j.xml").read_text().count("no fuel") >= 5
    result.stdout.fnmatch_lines(["*assert 1 == 2*"])


@pytest.mark.usefixtures("quick_figures")
def test_missing_traces_are_said_once(own, pytester):
    def each(request):
        raise EngineError("hung up")

    pytester.makepyfile(
        "def test_one(curve): pass\ndef test_two(study): pass\ndef test_three(curve): pass"
    )
    result = own(engines=Engines(lambda *given: FakeEngine(each=each)))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert sum(result.parseoutcomes().get(name, 0) for name in ("failed", "errors")) == 3
    assert len([line for line in result.outlines if "hung up" in line]) <= 3


@pytest.mark.usefixtures("quick_figures")
def test_an_eval_that_is_skipped_as_a_whole_says_why(own, pytester):
    pytester.makepyfile(
        test_llm="""
        import pytest

        def test_no(curve): pytest.skip("no reason to run")
        @pytest.mark.skip(reason="no reason to run")
        def test_neither(curve): pass
        """,
        test_some="""
        import pytest

        def test_no(curve): pytest.skip("only this one")
        def test_yes(curve): pass
        """,
    )
    result = own()
    result.assert_outcomes(skipped=3, passed=1)
    result.stdout.fnmatch_lines(["skipped: llm of nano-reasoner (2 tests): no reason to run"])
    result.stdout.no_fnmatch_line("*only this one*")
    own("-rs").stdout.no_fnmatch_line("skipped: llm*")


def test_the_thinking_eval_of_a_model_that_does_not_think_says_why(run):
    base = ("--pyargs", "pytest_tokenbudget.evals", "-m", "thinking", *QUIET)
    result = run("--model=qwen-1.5b", base=base, engines=NO_ENGINE)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["skipped: thinking of qwen-1.5b (*): *"])


def test_a_format_that_cannot_be_used_ends_a_run_of_recordings(tmp_path):
    from recordings import record, write

    write(tmp_path / "phase1_main_m_budget32.json", [record(n, budget=32) for n in range(3)])
    (tmp_path / "tokenbudget.toml").write_text('[formats.mine]\nopen = "<a>"\nclose = "<a>"\n')
    recorded = "--recorded=phase1_main_m_budget32.json"
    line = one_sentence(tmp_path, *SUITE, "-m", "phase1", recorded)
    assert "tokenbudget.toml: formats.mine: the tags '<a>', '<a>' cannot be told apart" in line
