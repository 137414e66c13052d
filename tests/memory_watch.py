"""How much memory this process takes while something runs (Linux)."""

from __future__ import annotations

import os
import threading
from pathlib import Path

STATM = Path("/proc/self/statm")


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class MemoryWatch:
    """A context manager; ``grown`` is by how many bytes the memory grew at the most."""

    def __init__(self, pause: float = 0.01) -> None:
        self._pause = pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self.before = self.most = resident()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self.most = max(self.most, resident())

    @property
    def grown(self) -> int:
        return self.most - self.before

    def _watch(self) -> None:
        while not self._over.wait(self._pause):
            self.most = max(self.most, resident())
