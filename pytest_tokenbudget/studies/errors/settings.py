"""What is checked of the settings of the error eval before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_tokenbudget.session import Session


def check_annotations(session: Session) -> None:
    """Check that the directories of ``--annotations`` are there.

    Raises:
        pytest.UsageError: If one is not.
    """
    settings = session.settings
    for directory in settings.annotations:
        # Preparation makes the reports' own directory; any other holds what somebody wrote.
        own = directory.resolve().is_relative_to((settings.reports / "annotations").resolve())
        if not own and not directory.is_dir():
            raise pytest.UsageError(f"--annotations: there is no directory {directory}")
