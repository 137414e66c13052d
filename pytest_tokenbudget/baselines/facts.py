"""Where and from which commit a run was saved."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

_PATIENCE = 10


def machine_facts() -> dict[str, object]:
    """What the machine is, but not which one: files like these are shared."""
    facts: dict[str, object] = {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
    }
    # Not imported for this: with pytest-xdist the process that saves has no need of it.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        count = torch.cuda.device_count()
        facts["gpus"] = [torch.cuda.get_device_name(place) for place in range(count)]
    return facts


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n"):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def commit_facts(directory: Path) -> dict[str, object] | None:
    """The commit that is checked out around a directory; None where there is none.

    ``dirty`` says whether files that git knows have been changed since.
    """
    identity = _git(directory, "rev-parse", "HEAD")
    if not identity:
        return None
    changed = _git(directory, "status", "--porcelain", "--untracked-files=no")
    return {
        "id": identity,
        "branch": _git(directory, "rev-parse", "--abbrev-ref", "HEAD") or None,
        "time": _git(directory, "show", "-s", "--format=%cI", "HEAD") or None,
        "dirty": None if changed is None else bool(changed),
    }


def _git(directory: Path, *arguments: str) -> str | None:
    """What git says; None where it is not there or fails."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=directory,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
