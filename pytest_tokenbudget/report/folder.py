"""The reports folder: the latest results at its top, results of other selections moved apart.

The top holds what the latest run measured, under names that never change. Before a run writes
results of another task, other problems, another model under the same name, another decoding or
fewer budgets, the files that would be replaced, or would stand beside them as if they belonged
together, move to ``earlier/TASK-NUMBER/``. There they form a reports folder of their own. When a
later run measures the same selection again, they move back. Only files that the manifest lists are
moved, and none is deleted.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pytest_tokenbudget.common.text_layout import plural
from pytest_tokenbudget.core.plan import digest
from pytest_tokenbudget.recorded.files import EARLIER, MANIFEST
from pytest_tokenbudget.report.files import safe_name
from pytest_tokenbudget.report.manifest import (
    Entry,
    Selection,
    add,
    digest_of,
    listed,
    origin_of,
    problems_of,
    read_entries,
    same_selection,
    write_entries,
)

if TYPE_CHECKING:
    from pytest_tokenbudget.core.study import Study
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.tasks.problem import Problem


@runtime_checkable
class Reported(Protocol):
    """What every study offers to reports."""

    @property
    def alias(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def budgets(self) -> Sequence[int]: ...
    @property
    def complete(self) -> Sequence[Problem]: ...
    @property
    def missing(self) -> int: ...
    @property
    def main(self) -> Study: ...
    @property
    def settings_digest(self) -> dict[str, object]: ...


class FromRecords(Protocol):
    """What every report offers that is put together from records."""

    @property
    def alias(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def variant(self) -> str: ...
    @property
    def about(self) -> Mapping[str, Any]: ...
    @property
    def missing(self) -> Sequence[str]: ...


# Settings that other fields of an entry cover, or that change no result.
_COVERED = ("budgets", "modes", "left_out", "target")


class ReportFolder:
    """A reports folder that is written to.

    Args:
        path: The folder.
        selection: The problems of the results that are written; None where there is no task.
    """

    def __init__(self, path: Path, selection: Selection | None = None) -> None:
        self.path, self.selection = path, selection

    def make_room(self, new: Sequence[Entry]) -> list[str]:
        """Move apart what cannot stay beside ``new``, and bring back what belongs to it.

        Returns:
            What was moved, in sentences.

        Raises:
            ManifestError: If the manifest was written by a newer version.
            OSError: If a file cannot be moved.
        """
        said = []
        with self._locked():
            entries = read_entries(self.path)
            apart = [old for old in entries if any(old.conflicts_with(one) for one in new)]
            stay = [old for old in entries if old not in apart]
            for label in dict.fromkeys(entry.label() for entry in apart):
                group = [entry for entry in apart if entry.label() == label]
                target = self._free_folder(label, group)
                files = self._move(group, self.path, target, shared=listed(stay))
                said.append(
                    f"moved: {plural(files, 'file')} of earlier results ({_about(group)}) to "
                    f"{EARLIER}/{target.name}/"
                )
            if apart:
                write_entries(self.path, stay)
                _remove_empty(self.path)
            said += self._bring_back(stay, new)
        return said

    def note(self, entry: Entry, files: Sequence[Path]) -> None:
        """List files that were written."""
        inside = [
            file.relative_to(self.path).as_posix()
            for file in files
            if file.is_relative_to(self.path)
        ]
        if inside:
            with self._locked():
                new = replace(entry, files=tuple(inside))
                write_entries(self.path, add(read_entries(self.path), new))

    def note_run(
        self, section: str, files: Sequence[Path], models: Mapping[str, str] | None = None
    ) -> None:
        """List files about a whole run, or about the models (with their digests) together."""
        self.note(Entry(section, self.selection, models=models or {}), files)

    def _bring_back(self, stay: Sequence[Entry], new: Sequence[Entry]) -> list[str]:
        said = []
        keys = {entry.key for entry in new}
        # What is about to be written takes the place of what has the same key.
        beside = [*new, *(entry for entry in stay if entry.key not in keys)]
        entries = list(stay)
        for folder in self._earlier():
            archived = read_entries(folder)
            back = [
                entry
                for entry in archived
                if same_selection(entry.selection, self.selection)
                and not any(entry.conflicts_with(one) for one in beside)
            ]
            if not back:
                continue
            taken = listed([entry for entry in stay if entry.key not in keys])
            files = self._move(back, folder, self.path, but_not=taken)
            for entry in back:
                entries = add(entries, entry)
            write_entries(self.path, entries)
            write_entries(folder, [entry for entry in archived if entry not in back])
            _remove_empty(folder)
            with suppress(OSError):
                folder.parent.rmdir()
            beside += back
            said.append(
                f"moved back: {plural(files, 'file')} of {_about(back)} from "
                f"{EARLIER}/{folder.name}/"
            )
        return said

    def _earlier(self) -> list[Path]:
        return sorted(path.parent for path in (self.path / EARLIER).glob(f"*/{MANIFEST}"))

    def _free_folder(self, label: str, group: Sequence[Entry]) -> Path:
        """A folder for results of other selections in which nothing stands in their way."""
        number = 1
        while True:
            name = safe_name(label) + (f"-{number}" if number > 1 else "")
            folder = self.path / EARLIER / name
            there = read_entries(folder)
            fits = not any(old.conflicts_with(one) for old in there for one in group)
            known = listed(there)
            free = all(
                file in known or not (folder / file).exists()
                for entry in group
                for file in entry.files
            )
            if fits and free:
                return folder
            number += 1

    def _move(
        self,
        group: Sequence[Entry],
        source: Path,
        target: Path,
        *,
        shared: set[str] | None = None,
        but_not: set[str] | None = None,
    ) -> int:
        """Move the files of entries, and list them in the target first.

        Args:
            group: The entries.
            source: The folder that they are in.
            target: The folder that they move to.
            shared: Files that other entries need where they are: those are copied.
            but_not: Files that are not moved.

        Returns:
            How many files there were.
        """
        files = sorted(file for file in listed(group) - (but_not or set()))
        files = [file for file in files if (source / file).is_file()]
        if target != self.path:
            there = read_entries(target)
            for entry in group:
                there = add(there, entry)
            # Whatever interrupts the moving, each file is then listed where it is.
            target.mkdir(parents=True, exist_ok=True)
            write_entries(target, there)
        for file in files:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            if file in (shared or ()):
                shutil.copy2(source / file, target / file)
            else:
                os.replace(source / file, target / file)
        return len(files)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other runs out while files move; the lock lies outside of the folder."""
        from filelock import FileLock

        name = digest(os.fspath(self.path.resolve()))[:16]
        uid = os.getuid() if hasattr(os, "getuid") else 0
        folder = Path(tempfile.gettempdir()) / f"tokenbudget-{uid}"
        folder.mkdir(mode=0o700, exist_ok=True)
        with FileLock(folder / f"reports-{name}.lock"):
            yield


def _remove_empty(folder: Path) -> None:
    """Remove folders that nothing is left in."""
    for path in (folder / "results", folder / "figures", folder):
        with suppress(OSError):
            path.rmdir()


def _about(group: Sequence[Entry]) -> str:
    selection = next((e.selection for e in group if e.selection is not None), None)
    models = ", ".join(dict.fromkeys(entry.model for entry in group if entry.model))
    if selection is None:
        return models or "other settings"
    if not selection:
        return "several tasks"
    tasks = (f"{task}, {plural(one.number, 'problem')}" for task, one in selection.items())
    return " and ".join(tasks)


def report_folder(session: Session) -> ReportFolder:
    """The folder that results of a session are written to."""
    return session.cached(("", "report folder"), lambda: ReportFolder(session.settings.reports))


def selection_of(session: Session, studies: Sequence[Reported]) -> Selection | None:
    """The problems of a run's studies by task; None where there is no study."""
    if not studies:
        return None
    if session.recordings is None:
        return {session.task.name: problems_of(session.problems)}
    by_task: dict[str, list[Problem]] = {}
    for study in studies:
        by_task.setdefault(study.main.task.name, []).extend(study.main.problems)
    return {task: problems_of(by_task[task]) for task in sorted(by_task)}


def entry_of_records(section: str, report: FromRecords, complete: bool) -> Entry:
    """Describe a report that was put together from records, before it is written."""
    return Entry(
        section,
        model=report.alias,
        mode=report.variant,
        details=digest_of(report.about.get("identity") or report.about),
        complete=complete and not report.missing,
    )


def entry_of(
    section: str,
    study: Reported,
    selection: Selection | None,
    complete: bool,
    budgets: Sequence[int] | None = None,
) -> Entry:
    """Describe results before they are written.

    Args:
        section: The part of the report.
        study: The study.
        selection: The problems of the run.
        complete: Whether the run came to its end.
        budgets: The budgets that the part covers, if not the study's own.
    """
    main, own = study.main, study.settings_digest
    details = {name: value for name, value in own.items() if name not in _COVERED}
    return Entry(
        section,
        selection=selection,
        model=main.alias,
        mode=main.mode,
        kind=study.kind,
        models={main.alias: digest_of(main.identity)},
        origin=origin_of(main.decoding.identity(), main.identity),
        details=digest(details)[:16] if own else "",
        budgets=tuple(study.budgets if budgets is None else budgets),
        samples=main.samples,
        complete=complete and not study.missing,
    )
