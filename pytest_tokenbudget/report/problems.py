"""What went wrong while results were written: shown at the end of a run, which then fails."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pytest_tokenbudget.settings.option_flags import NamingTerminal


class ReportFaults:
    """Collects what goes wrong after the tests, so that it hides none of their results."""

    def __init__(self, config: pytest.Config, prefix: str) -> None:
        self._config, self._prefix = config, prefix
        # Sentences by their cause: a full disk is one problem, however many files it hits.
        self._faults: dict[str, list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._faults)

    def add(self, sentence: str, error: BaseException | None = None, cause: str = "") -> None:
        """Keep a problem, and let the run fail.

        Args:
            sentence: What went wrong.
            error: The exception behind it, if its traceback helps; shown with ``-v``.
            cause: What problems with the same cause have in common; the sentence, if empty.
        """
        lines = [f"{self._prefix}: {sentence}"]
        if error is not None and self._config.option.verbose > 0:
            lines += "".join(traceback.format_exception(error)).splitlines()
        elif error is not None:
            lines.append(f"{self._prefix}: -v shows the traceback")
        self._faults.setdefault(cause or sentence, lines)
        session = self._config.pluginmanager.getplugin("session")
        if session is not None and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @contextmanager
    def noting(self, unwritten: str, incomplete: str) -> Iterator[None]:
        """Turn an exception into a problem.

        Args:
            unwritten: What cannot be written if the file system refuses.
            incomplete: What is incomplete if anything else is raised.
        """
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            where = f" ({error.filename})" if error.filename else ""
            self.add(f"{unwritten}: {reason}{where}", cause=f"{unwritten}: {reason}")
        except Exception as error:
            said = str(error).strip()
            self.add(f"{incomplete}: {type(error).__name__}" + (f": {said}" if said else ""), error)

    def show(self, terminal: NamingTerminal) -> None:
        """Write all problems to the terminal, in red."""
        for lines in self._faults.values():
            for line in lines:
                terminal.write_line(line, red=True)
