"""Which process holds a claim, and whether it is dead."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """A process, so that no other process is ever taken for it.

    Attributes:
        host: Name of the host, its boot and the namespace of process ids: containers on one host
            see different processes.
        pid: Its number, which another process may have later.
        started: When it started.
    """

    host: str
    pid: int
    started: str

    @property
    def host_name(self) -> str:
        return self.host.partition(" ")[0]


def this_process() -> Process:
    """The process that calls."""
    return _process(os.getpid())  # a fork has another number


@cache
def _process(pid: int) -> Process:
    return Process(_host(), pid, _started(pid))


def is_dead(process: Process) -> bool:
    """Whether a process has ended for certain; False where that cannot be known."""
    if process.host != this_process().host or not process.started:
        return False
    if sys.platform != "linux":
        import psutil

        return not psutil.pid_exists(process.pid) or _started(process.pid) != process.started
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # a process of another user
        pass
    # Processes of other users may be hidden: then nothing is known.
    return _started(process.pid) not in ("", process.started)


ENDED = "ended"


def _started(pid: int) -> str:
    """When a process started, on a clock that nobody sets; empty where that is not known."""
    if sys.platform != "linux":
        import psutil

        with suppress(psutil.Error):
            found = psutil.Process(pid)
            ended = found.status() == psutil.STATUS_ZOMBIE
            return ENDED if ended else repr(found.create_time())
        return ""
    with suppress(OSError):
        # After the name, which may hold anything: the state is field 3, the start field 22.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return ENDED if fields[0] in "ZX" else fields[19]
    return ""


@cache
def _host() -> str:
    parts = [platform.node() or "unknown"]
    if sys.platform == "linux":
        with suppress(OSError):
            parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
            parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
