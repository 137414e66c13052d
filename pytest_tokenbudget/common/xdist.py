"""Workers: which one gets which GPU, how many ``-n auto`` means, how CPU threads are shared."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from itertools import takewhile
from pathlib import Path

import filelock
import pytest

_held: list[filelock.BaseFileLock] = []
# The GPUs that were visible before this worker hid those of others.
_listed: list[str] = []
MAX_WORKERS_A_GPU = 64


def worker_id() -> str | None:
    """Name of this pytest-xdist worker, None outside of one."""
    return os.environ.get("PYTEST_XDIST_WORKER")


def worker_count() -> int:
    """How many workers share this machine, 1 without pytest-xdist."""
    return int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def visible_gpus() -> list[str]:
    """Indices or UUIDs of the NVIDIA GPUs that this process may use, found without torch."""
    try:
        if importlib.metadata.version("torch").endswith("+cpu"):
            return []
    except importlib.metadata.PackageNotFoundError:
        return []
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        # CUDA ignores everything from the first invalid entry on; -1 is the usual one.
        names = (name.strip() for name in chosen.split(","))
        return list(takewhile(re.compile(r"\d+|(GPU|MIG)-.+").fullmatch, names))
    listed = Path("/proc/driver/nvidia/gpus")
    if listed.is_dir():
        return [str(index) for index, _ in enumerate(listed.iterdir())]
    return _ask_nvidia_smi()


def _ask_nvidia_smi() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        answer = subprocess.run(
            [program, "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def auto_num_workers(gpus_each: int = 1, device: str = "auto") -> int | None:
    """One worker for each engine that the visible GPUs have room for.

    None, which is pytest-xdist's own choice, on the CPU, where no GPU is visible, and where
    pytest-xdist's variable names a number. One engine takes ``gpus_each``; 0 where it takes none
    and one worker can drive it.

    Raises:
        pytest.UsageError: If there are GPUs, but too few for one engine.
    """
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS") or device == "cpu":
        return None
    # A device that was named by its number is one device, however many workers use it.
    if not gpus_each or device not in ("auto", "cuda"):
        return 1
    gpus = visible_gpus()
    return len(enough_groups(gpus, gpus_each)) if gpus else None


def memory_share(gpus_each: int) -> float:
    """Share of its GPUs' memory that a worker may take; less than 1 where workers share them."""
    groups = len(_groups(visible_gpus() if not _held else _listed, gpus_each))
    return 1 / max(1, -(-worker_count() // max(1, groups)))


def _groups(gpus: list[str], size: int) -> list[list[str]]:
    """Neighbours among the GPUs, so many each; those that are left over belong to no group."""
    return [gpus[i : i + size] for i in range(0, len(gpus) - size + 1, size)]


def enough_groups(gpus: list[str], size: int) -> list[list[str]]:
    """Neighbours among the GPUs for at least one engine.

    Raises:
        pytest.UsageError: If the GPUs are too few for one.
    """
    groups = _groups(gpus, size)
    if not groups:
        raise pytest.UsageError(
            f"--tensor-parallel and --data-parallel: {size} GPUs are needed, and {len(gpus)} "
            f"{'is' if len(gpus) == 1 else 'are'} visible"
        )
    return groups


def claim_gpus(run: str, count: int = 1) -> str | None:
    """Take ``count`` GPUs for this worker and hide the others from CUDA.

    Replacement workers get new names, so names say nothing about which GPU is free: each GPU has
    lock files, and a worker holds one until it ends. Sessions beside each other, with another
    ``run``, do not wait.

    Returns:
        The GPUs as they were listed among the visible ones, with commas, or None where there are
        none or this is no worker.
    """
    gpus = visible_gpus()
    if worker_id() is None or not gpus or _held:
        return None
    groups = enough_groups(gpus, count)
    locks = (
        Path(tempfile.gettempdir()) / f"tokenbudget-{os.getuid() if hasattr(os, 'getuid') else 0}"
    )
    locks.mkdir(mode=0o700, exist_ok=True)
    for round_ in range(MAX_WORKERS_A_GPU):
        for group in groups:
            chosen = ",".join(group)
            lock = filelock.FileLock(locks / f"{run}-{chosen}-{round_}.lock")
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout:
                continue
            _held.append(lock)
            _listed.extend(gpus)
            os.environ["CUDA_VISIBLE_DEVICES"] = chosen
            return chosen
    raise pytest.UsageError(
        f"more than {MAX_WORKERS_A_GPU} workers for each of {len(groups)} GPUs: use -n auto"
    )


def cpu_threads() -> int | None:
    """Threads for this process: its share of the cores among workers.

    None outside of them, and where OMP_NUM_THREADS says it.
    """
    if worker_id() is None or os.environ.get("OMP_NUM_THREADS"):
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // worker_count())


def divide_threads() -> None:
    """Tell OpenMP this worker's share of the cores, unless somebody set it or torch is loaded."""
    threads = cpu_threads()
    if threads is not None and "torch" not in sys.modules:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
