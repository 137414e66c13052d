import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from pytest_tokenbudget.common import xdist
from pytest_tokenbudget.engines import planning


@pytest.fixture(autouse=True)
def no_worker(monkeypatch):
    """These tests say themselves what is a worker, also where they run in one."""
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("PYTEST_XDIST_AUTO_NUM_WORKERS", raising=False)
    monkeypatch.setattr(xdist, "_held", [])
    monkeypatch.setattr(xdist, "_listed", [])


@pytest.fixture
def cuda_torch(monkeypatch):
    monkeypatch.setattr(xdist.importlib.metadata, "version", lambda name: "2.9.1+cu128")


@pytest.fixture
def no_gpu_files(monkeypatch, tmp_path):
    """No driver's directory; returns where it would be."""
    gpus = tmp_path / "gpus"
    monkeypatch.setattr(xdist, "Path", lambda p: gpus if "nvidia" in str(p) else Path(p))
    return gpus


def be_worker(monkeypatch, name="gw0", count=1):
    monkeypatch.setenv("PYTEST_XDIST_WORKER", name)
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", str(count))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", ["0"]),
        ("2,0", ["2", "0"]),
        (" 1 , 3 ", ["1", "3"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["0"]),
        ("NoDevFiles", []),
        ("void", []),
        ("1,x,2", ["1"]),
        ("GPU-5ebe9e3d,GPU-41ac", ["GPU-5ebe9e3d", "GPU-41ac"]),
        ("MIG-9f8b0c1d", ["MIG-9f8b0c1d"]),
    ],
)
@pytest.mark.usefixtures("cuda_torch")
def test_cuda_visible_devices_says_which_gpus(monkeypatch, value, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert xdist.visible_gpus() == expected


def test_a_cpu_torch_or_none_sees_no_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(xdist.importlib.metadata, "version", lambda name: "2.13.0+cpu")
    assert xdist.visible_gpus() == []

    def missing(name):
        raise xdist.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(xdist.importlib.metadata, "version", missing)
    assert xdist.visible_gpus() == []


@pytest.mark.usefixtures("cuda_torch")
def test_the_drivers_directory_is_counted(no_gpu_files):
    for bus in ("0000:01:00.0", "0000:02:00.0", "0000:41:00.0"):
        (no_gpu_files / bus).mkdir(parents=True)
    assert xdist.visible_gpus() == ["0", "1", "2"]


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
@pytest.mark.parametrize(
    ("script", "expected"),
    [("printf '0\\n1\\n'", ["0", "1"]), ("exit 9", []), ("true", [])],
)
@pytest.mark.usefixtures("cuda_torch", "no_gpu_files")
def test_nvidia_smi_is_asked_last(monkeypatch, tmp_path, script, expected):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert xdist.visible_gpus() == expected


@pytest.mark.usefixtures("cuda_torch", "no_gpu_files")
def test_without_driver_and_program_there_are_none(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert xdist.visible_gpus() == []


CLAIM = """
import os, sys
from pytest_tokenbudget.common import xdist
gpus = sys.argv[2].split(",")
xdist.visible_gpus = lambda: gpus
count = int(sys.argv[3])
print(xdist.claim_gpus(sys.argv[1], count), os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
print(xdist.claim_gpus(sys.argv[1], count), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def claim(tmp_path):
    """A function that starts a worker in a process of its own; returns it and its GPU."""
    processes = []

    def start(worker, run="run", gpus="0,GPU-b", count=1):
        environment = {
            **os.environ,
            "PYTEST_XDIST_WORKER": worker,
            "TMPDIR": str(tmp_path),
            "CUDA_VISIBLE_DEVICES": "whatever it was",
        }
        process = subprocess.Popen(
            [sys.executable, "-c", CLAIM, run, gpus, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        processes.append(process)
        gpu, visible = process.stdout.readline().split()
        assert gpu == visible
        assert process.stdout.readline() == "None\n", "it keeps the one that it has"
        return process, gpu

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.timeout(60)
def test_each_worker_gets_a_gpu_and_a_replacement_gets_the_free_one(claim):
    (_, first), (second_process, second) = claim("gw0"), claim("gw1")
    assert {first, second} == {"0", "GPU-b"}
    second_process.kill()
    second_process.wait()
    # Its name says nothing: 9 % 2 would be the GPU that is taken.
    assert claim("gw9")[1] == second
    # More workers than GPUs share them.
    assert {claim("gw10")[1], claim("gw11")[1]} == {"0", "GPU-b"}
    # Another session does not wait for this one.
    assert claim("gw0", run="other")[1] == "0"


def test_only_workers_with_gpus_claim_one(monkeypatch, tmp_path):
    monkeypatch.setattr(xdist.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(xdist, "visible_gpus", lambda: ["0"])
    assert xdist.claim_gpus("run") is None
    be_worker(monkeypatch)
    monkeypatch.setattr(xdist, "visible_gpus", list)
    assert xdist.claim_gpus("run") is None
    assert list(tmp_path.iterdir()) == []


def test_too_many_workers_for_a_gpu_are_told(monkeypatch, tmp_path, claim):
    claim("gw0", gpus="0")
    be_worker(monkeypatch, "gw1")
    monkeypatch.setattr(xdist.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(xdist, "visible_gpus", lambda: ["0"])
    monkeypatch.setattr(xdist, "MAX_WORKERS_A_GPU", 1)
    with pytest.raises(pytest.UsageError, match="-n auto"):
        xdist.claim_gpus("run")


def test_threads_are_divided_among_workers(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert xdist.cpu_threads() is None
    for count, threads in ((1, 8), (3, 2), (8, 1), (20, 1)):
        be_worker(monkeypatch, count=count)
        assert xdist.worker_count() == count
        assert xdist.cpu_threads() == threads


def test_threads_that_somebody_set_are_left_alone(monkeypatch):
    be_worker(monkeypatch, count=2)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert xdist.cpu_threads() is None
    xdist.divide_threads()
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_openmp_is_told_before_torch_is_loaded_only(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    be_worker(monkeypatch, count=2)
    xdist.divide_threads()
    assert "OMP_NUM_THREADS" not in os.environ
    assert xdist.cpu_threads() == 1
    monkeypatch.delitem(sys.modules, "torch")
    xdist.divide_threads()
    assert os.environ.pop("OMP_NUM_THREADS") == "1"


@pytest.mark.parametrize(
    ("asked", "gpus", "expected", "claims"),
    [
        ("auto", [], "cpu", 0),
        ("auto", ["0"], "cuda", 1),
        ("cuda", ["0"], "cuda", 1),
        ("cuda:1", ["0", "1"], "cuda:1", 0),
        ("cpu", ["0"], "cpu", 0),
        ("mps", [], "mps", 0),
    ],
)
def test_the_device_is_the_workers_own_gpu(monkeypatch, asked, gpus, expected, claims):
    claimed = []
    monkeypatch.setattr(xdist, "visible_gpus", lambda: gpus)
    monkeypatch.setattr(xdist, "claim_gpus", lambda *given: claimed.append(given))
    settings = types.SimpleNamespace(device=asked, engine="auto")
    assert planning.choose_device(settings, "run") == expected
    assert claimed == [("run", 1)] * claims


@pytest.mark.timeout(60)
def test_an_engine_over_several_gpus_claims_neighbours(claim):
    assert claim("gw0", gpus="0,1,2,3,4", count=2)[1] == "0,1"
    assert claim("gw1", gpus="0,1,2,3,4", count=2)[1] == "2,3"
    # The fifth belongs to nobody; a third worker shares the first two.
    assert claim("gw2", gpus="0,1,2,3,4", count=2)[1] == "0,1"


def test_too_few_gpus_for_one_engine_are_told(monkeypatch):
    be_worker(monkeypatch)
    monkeypatch.setattr(xdist, "visible_gpus", lambda: ["0", "1"])
    with pytest.raises(pytest.UsageError, match="4 GPUs are needed, and 2 are visible"):
        xdist.claim_gpus("run", 4)


@pytest.mark.parametrize(
    ("gpus", "workers", "each", "share"),
    [(2, 2, 1, 1), (2, 4, 1, 1 / 2), (2, 3, 1, 1 / 2), (4, 2, 2, 1), (4, 4, 2, 1 / 2)],
)
def test_workers_on_one_gpu_share_its_memory(monkeypatch, gpus, workers, each, share):
    be_worker(monkeypatch, count=workers)
    monkeypatch.setattr(xdist, "visible_gpus", lambda: [str(i) for i in range(gpus)])
    assert xdist.memory_share(each) == pytest.approx(share)


class Seen:
    """Remembers how many workers a session was about to start, and starts none."""

    def __init__(self):
        self.workers = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config):
        self.workers = config.option.numprocesses
        pytest.exit("seen", returncode=0)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-m", "phase1"], True),
        (["-m", "not gpu"], False),
        (["--num-samples", "5"], True),
        (["--pyargs", "pytest_tokenbudget.evals"], True),
        ([Path(__file__).parents[2] / "evals"], True),
        ([], False),
    ],
)
@pytest.mark.usefixtures("cuda_torch")
def test_n_auto_means_gpus_only_where_evals_run(pytester, monkeypatch, arguments, expected):
    pytest.importorskip("xdist")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(997))))
    pytester.makepyfile("def test_it(): pass")
    seen = Seen()
    pytester.inline_run("-n", "auto", *arguments, plugins=[seen])
    assert (seen.workers == 997) == expected
    assert seen.workers > 0


@pytest.mark.parametrize("gpus", [[], ["0", "1"]])
def test_n_auto_is_left_to_xdist_without_gpus_and_where_it_is_told(pytester, monkeypatch, gpus):
    pytest.importorskip("xdist")
    monkeypatch.setattr(xdist, "visible_gpus", lambda: gpus)
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "7")
    seen = Seen()
    pytester.inline_run("-n", "auto", "-m", "phase1", plugins=[seen])
    assert seen.workers == 7


def test_a_bad_option_is_told_with_n_auto_too(pytester):
    pytest.importorskip("xdist")
    result = pytester.runpytest_inprocess("-n", "auto", "--stage", "quik")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --stage: 'quik'*quick*"])


@pytest.mark.parametrize(
    ("device", "each", "gpus", "workers"),
    [
        ("auto", 1, 4, 4),
        ("cuda", 1, 4, 4),
        ("cuda", 2, 5, 2),
        ("auto", 0, 4, 1),
        ("cpu", 1, 4, None),
        ("cpu", 2, 1, None),
        ("cuda:2", 1, 4, 1),
        ("mps", 1, 0, 1),
        ("auto", 1, 0, None),
        ("auto", 2, 0, None),
    ],
)
def test_n_auto_starts_workers_for_the_device_that_is_used(
    monkeypatch, device, each, gpus, workers
):
    monkeypatch.setattr(xdist, "visible_gpus", lambda: [str(i) for i in range(gpus)])
    assert xdist.auto_num_workers(each, device) == workers


@pytest.mark.usefixtures("cuda_torch")
def test_n_auto_on_the_cpu_starts_no_worker_for_each_gpu(pytester, monkeypatch):
    pytest.importorskip("xdist")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(997))))
    seen = Seen()
    pytester.inline_run("-n", "auto", "-m", "phase1", "--device=cpu", plugins=[seen])
    assert 0 < seen.workers < 997


@pytest.mark.parametrize("option", ["--tensor-parallel", "--data-parallel"])
@pytest.mark.usefixtures("cuda_torch")
def test_an_engine_over_more_gpus_than_there_are_is_refused(pytester, monkeypatch, option):
    pytest.importorskip("xdist")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    result = pytester.runpytest_inprocess(
        "-n", "auto", "-m", "phase1", "--engine=vllm", f"{option}=2"
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --tensor-parallel*: 2 GPUs are needed, and 1 is visible"])
