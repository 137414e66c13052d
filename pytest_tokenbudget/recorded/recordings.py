"""Recorded generations in the place of models: what `--recorded` names, as specs and studies."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_tokenbudget.common.outside_text import printable_name
from pytest_tokenbudget.engines.planning import Kind, SetupError
from pytest_tokenbudget.models.resolution import ModelError, ModelSpec
from pytest_tokenbudget.recorded.files import EARLIER
from pytest_tokenbudget.settings.config_file import ConfigError
from pytest_tokenbudget.settings.options import Settings

if TYPE_CHECKING:
    from pytest_tokenbudget.models.thinking_formats import Formats
    from pytest_tokenbudget.recorded.records import Recording
    from pytest_tokenbudget.recorded.study import RecordedStudy
    from pytest_tokenbudget.recorded.traces import Counter
    from pytest_tokenbudget.tasks.base import Task


def _shown_name(recording: Recording, several: bool) -> str:
    """The model's name, with task and mode if there are several of these."""
    if not several:
        return recording.alias
    mode = "" if recording.mode == "plain" else f", {recording.mode}"
    return f"{recording.alias} ({recording.task}{mode})"


@dataclass
class Recordings:
    """The recordings of a run.

    Attributes:
        settings: What was asked for.
        catalogue: Gives the models by alias, for the tokenizer.
        task: Gives the task, where one was asked for.
        formats: Gives the user's own thinking formats.
        left_out: A sentence about each file that was left out, once the files are read.
    """

    settings: Settings
    catalogue: Callable[[], Mapping[str, ModelSpec]]
    task: Callable[[], Task]
    formats: Callable[[], Formats]
    left_out: list[str] = field(default_factory=list)
    _studies: dict[tuple[str, Kind], RecordedStudy] = field(default_factory=dict, init=False)

    @cached_property
    def by_alias(self) -> dict[str, dict[Kind, Recording]]:
        """Recordings by the name that they are shown under, and by kind of study.

        Raises:
            pytest.UsageError: If a file cannot be read, or a model is asked for that is not there.
        """
        from pytest_tokenbudget.recorded.files import load_recordings
        from pytest_tokenbudget.recorded.records import RecordingError

        try:
            loaded = load_recordings(self.settings.recorded)
        except RecordingError as error:
            raise pytest.UsageError(f"--recorded: {error}") from None
        found, self.left_out = loaded
        self._refuse_results_folder(found)
        several = len({(r.task, r.mode) for r in found}) > 1
        grouped: dict[str, dict[Kind, Recording]] = {}
        shown = [(_shown_name(one, several), one.kind) for one in found]
        times = Tally(shown)
        for (name, kind), one in zip(shown, found, strict=True):
            # The same task can come from several reports folders.
            where = f" [{one.folder}, {len(one.problems):,} problems]"
            full = printable_name(name + where if times[name, kind] > 1 else name)
            grouped.setdefault(full, {})[Kind(kind)] = one
        for kinds in grouped.values():
            main = kinds.get(Kind.MAIN)
            if main is not None and main.samples > 1:
                kinds.setdefault(Kind.STOCHASTIC, replace(main, kind=Kind.STOCHASTIC.value))
        return self._chosen(grouped)

    def _refuse_results_folder(self, found: list[Recording]) -> None:
        """Ensure that no result is written over what it was made from."""
        reports = self.settings.reports.resolve()
        for one in found:
            for file in [*one.files, *(one.cliff.files if one.cliff else ())]:
                path = Path(file).resolve()
                if path.parent == reports / "results" or path.is_relative_to(reports / EARLIER):
                    raise pytest.UsageError(
                        f"--recorded: {file} lies where results are written to; name another "
                        "directory with --reports"
                    )

    def _chosen(
        self, grouped: dict[str, dict[Kind, Recording]]
    ) -> dict[str, dict[Kind, Recording]]:
        """Those that `--model` names; a single recording can be given a name with it."""
        asked = [printable_name(name) for name in self.settings.models]
        if "model" not in self.settings.explicit:
            return grouped
        if len(grouped) == len(asked) == 1 and asked[0] not in grouped:
            return {asked[0]: next(iter(grouped.values()))}
        for name in asked:
            if name not in grouped:
                raise pytest.UsageError(
                    f"--model: {name!r} is not among the recordings; there are {', '.join(grouped)}"
                )
        return {name: grouped[name] for name in asked}

    @cached_property
    def specs(self) -> tuple[ModelSpec, ...]:
        """One spec for each recorded model, which cannot be loaded.

        Raises:
            pytest.UsageError: If the recordings, or the settings file's models or formats, cannot
                be used.
        """
        try:
            catalogue = self.catalogue()
        except (ModelError, ConfigError) as error:
            raise pytest.UsageError(str(error)) from None
        return tuple(
            ModelSpec(
                alias,
                str(next(iter(next(iter(kinds.values())).files))),
                kind="recorded",
                price=catalogue[alias].price if alias in catalogue else None,
            )
            for alias, kinds in self.by_alias.items()
        )

    def budgets(self, spec: ModelSpec, kind: Kind) -> tuple[int, ...]:
        """The budgets that a study of this kind has; none where nothing was recorded for it."""
        return self.study(spec, kind).budgets if self.holds(spec, kind) else ()

    def holds(self, spec: ModelSpec, kind: Kind) -> bool:
        """Whether anything was recorded for a kind of study of a model."""
        return kind in self.by_alias[spec.alias]

    def study(self, spec: ModelSpec, kind: Kind) -> RecordedStudy:
        """The study of one recorded model.

        Raises:
            SetupError: If it cannot be made from what was recorded.
        """
        key = (spec.alias, kind)
        if key not in self._studies:
            self._studies[key] = self._study(spec.alias, kind)
        return self._studies[key]

    def any_study(self, spec: ModelSpec) -> RecordedStudy:
        """One of the studies of a recorded model, which are all of one task and one mode.

        Raises:
            SetupError: If it cannot be made from what was recorded.
        """
        return self.study(spec, next(iter(self.by_alias[spec.alias])))

    def _study(self, alias: str, kind: Kind) -> RecordedStudy:
        from pytest_tokenbudget.recorded.load import recorded_study
        from pytest_tokenbudget.recorded.records import RecordingError
        from pytest_tokenbudget.tasks.base import TaskError

        recording = self.by_alias[alias].get(kind)
        if recording is None:
            raise SetupError(
                f"{alias}: the recordings hold no "
                + ("several samples a problem" if kind is Kind.STOCHASTIC else "single answers")
            )
        settings = self.settings
        option = "sample_budgets" if kind is Kind.STOCHASTIC else "budgets"
        wanted = getattr(settings, option) if option in settings.explicit else None
        try:
            study = recorded_study(
                replace(recording, alias=alias),
                budgets=wanted,
                task=self.task() if "task" in settings.explicit else None,
                margin=settings.margin,
                count=self._counter,
                tokenizer=self._counter.name if self._counter else "",
                formats=self.formats(),
            )
        except (RecordingError, TaskError) as error:
            raise SetupError(f"--recorded: {error}") from error
        study.cliff_study.cliff_budgets = settings.cliff_budgets
        return study

    @cached_property
    def _counter(self) -> Counter | None:
        from pytest_tokenbudget.core.engine import EngineError
        from pytest_tokenbudget.recorded.traces import load_counter

        if self.settings.tokenizer is None:
            return None
        try:
            return load_counter(self.settings.tokenizer, self.catalogue())
        except (ModelError, EngineError) as error:
            raise pytest.UsageError(f"--tokenizer: {error}") from None
