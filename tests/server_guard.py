"""Runs a command that must not outlive whoever started this: python server_guard.py COMMAND...

The command gets a process group of its own. When the input of this program ends, because its parent
closed it or is no more, the whole group is stopped: asked first, killed after some seconds. So no
server is left behind, even where a test run is killed and no fixture has its turn.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading

PATIENCE = 10


def end(group: int, sign: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, sign)


def watch(process: subprocess.Popen) -> None:
    while os.read(0, 1):
        pass
    end(process.pid, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    end(process.pid, signal.SIGKILL)


def main(command: list[str]) -> int:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    for sign in (signal.SIGTERM, signal.SIGINT):
        # Asked to end as any program is, it takes the command along at once.
        signal.signal(sign, lambda *_: end(process.pid, signal.SIGKILL))
    threading.Thread(target=watch, args=(process,), daemon=True).start()
    code = process.wait()
    # What the command started and left may still be there.
    end(process.pid, signal.SIGKILL)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
