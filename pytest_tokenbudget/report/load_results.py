"""Results of runs as pandas frames and as one table, for people who go on with them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_tokenbudget.common.messages import described
from pytest_tokenbudget.common.outside_files import FileError, read_json
from pytest_tokenbudget.common.outside_text import PrintableError, printable_lines
from pytest_tokenbudget.recorded.files import ANSWERS_TABLE, EARLIER
from pytest_tokenbudget.report.files import write_bytes

if TYPE_CHECKING:
    import pandas as pd

_TEXT, _WHOLE, _NUMBER, _FLAG = "string", "Int64", "float64", "boolean"
_PLACE = {"folder": _TEXT, "eval": _TEXT, "model": _TEXT, "task": _TEXT, "mode": _TEXT}
_ENFORCED = {"enforcement": _TEXT, "closer": _TEXT}

ANSWER_COLUMNS: Mapping[str, str] = {
    **_PLACE,
    **_ENFORCED,
    **{"arm": _TEXT, "strategy": _TEXT, "limit": _TEXT, "turns": _WHOLE, "depth": _NUMBER},
    **{"problem_id": _TEXT, "category": _TEXT, "sample": _WHOLE, "budget": _WHOLE},
    **{"outcome": _TEXT, "correct": _FLAG, "truncated": _FLAG, "stop_reason": _TEXT},
    **{"tokens_used": _WHOLE, "thinking_tokens": _WHOLE, "answer_tokens": _WHOLE},
    **{"forced": _FLAG, "reopened": _FLAG, "spilled": _FLAG},
    **{"predicted": _TEXT, "branch": _TEXT, "ground_truth": _TEXT, "question": _TEXT},
    **{"generated": _TEXT, "error": _TEXT},
}
"""Columns of the answers with their pandas types."""

# Column: the estimates of a point that it may stand for, nested ones with a dot.
_ESTIMATES = {
    "accuracy": ("accuracy", "mean_success"),
    "completed": ("completed",),
    "truncation": ("truncation",),
    "mean_tokens": ("mean_tokens",),
    "thinking_tokens": ("thinking_tokens.mean",),
    "answer_tokens": ("answer_tokens.mean",),
}
_BOUNDS = {"": "value", "_low": "low", "_high": "high"}
_CURVE_COLUMNS = {
    **_PLACE,
    **_ENFORCED,
    **{"budget": _WHOLE, "problems": _WHOLE, "samples": _WHOLE},
    **{name + bound: _NUMBER for name in _ESTIMATES for bound in _BOUNDS},
    **{"max_tokens": _WHOLE, "best_case": _NUMBER, "worst_case": _NUMBER},
    "truncated_correct": _WHOLE,
}
_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    _TEXT: (str,),
    _WHOLE: (int,),
    _NUMBER: (int, float),
    _FLAG: (bool,),
}
# phase1_main_MODEL_budget64.json, thinking_MODEL_budget64.json, context_MODEL_answers.json
_ANSWERS = re.compile(
    r"(?:(?P<phase>phase\d[a-z]?)_[a-z]+|(?P<name>[^_]+))_(?P<stem>.+)_(?:budget\d+|answers)\Z"
)
_ABOUT = ("model", "task", "mode")
_MEND = "remove the file, or repeat the run that wrote it"


class ResultsError(PrintableError, ValueError):
    """Results that cannot be read; the message says where, what was found, and what to do."""


class Results(NamedTuple):
    """The results of a reports folder.

    All rates are shares from 0 to 1, all tokens are output tokens, and what is not known or does
    not apply is missing (``pandas.NA`` or NaN). These columns are in ``answers`` and ``curve``:

    - ``folder``: ``""`` for the latest results, else the subfolder of ``earlier/`` that results of
      another selection were moved to.
    - ``eval``: the eval that wrote the row, named as its marker (``phase1``, ``thinking``). Two
      evals may show the same answer at the same budget.
    - ``model``, ``task``: the names in the report.
    - ``mode``: ``plain`` or ``thinking``.
    - ``enforcement``, ``closer``: in the thinking eval, how its budget was kept.

    Attributes:
        answers: One row a problem, sample and budget (and enforcement, where there are several).
            ``problem_id``, ``category``, ``sample`` (from 0), ``budget`` (tokens; in the thinking
            eval thinking tokens); ``outcome``, ``correct``, ``truncated``, ``stop_reason``;
            ``tokens_used``, ``thinking_tokens``, ``answer_tokens``; ``forced``, ``reopened``,
            ``spilled`` (thinking eval); ``arm``, ``strategy``, ``limit`` (as written: tokens, or
            percent of the conversation), ``turns``, ``depth`` (context eval); ``predicted`` (the
            extracted answer), ``branch`` (the rule that found it), ``ground_truth``, ``question``,
            ``generated``, ``error``.
        curve: One row a model and budget (and enforcement); in the thinking eval no limit has no
            budget. ``problems``, ``samples``; ``accuracy``, ``completed`` (accuracy over completed
            answers), ``truncation``, ``mean_tokens``, ``thinking_tokens``, ``answer_tokens``, each
            with its 95 % interval in ``_low`` and ``_high``; ``max_tokens``; ``best_case`` and
            ``worst_case`` (accuracy with every unfinished answer right, and wrong);
            ``truncated_correct`` (answers that are right and truncated).
        metrics: One row a record of a test: ``folder``, ``test``, ``outcome`` of the test, and what
            it recorded; names of nested values are joined by dots (``curve.accuracy.value``).
    """

    answers: pd.DataFrame
    curve: pd.DataFrame
    metrics: pd.DataFrame


def load_results(directory: str | Path) -> Results:
    """The results that runs wrote to a reports folder.

    Results that runs moved to ``earlier/`` are read, too; the column ``folder`` tells them apart.

    Args:
        directory: The reports folder (``--reports``), or the ``results`` in it.

    Raises:
        ResultsError: If there are no results in it, or a file cannot be used.
    """
    import pandas as pd

    if not isinstance(directory, str | Path):
        raise ResultsError(f"directory must be a path or a text, not {described(directory)}")
    top = Path(directory)
    answers: list[dict[str, Any]] = []
    curve: list[dict[str, Any]] = []
    metrics: list[dict[str, Any]] = []
    for folder, path in _result_folders(top):
        files = sorted(path.glob("*.json"))
        answers += ({"folder": folder, **row} for row in answer_rows(files))
        curve += ({"folder": folder, **row} for row in _curve_rows(files))
        for row in _read_list(path / "metrics.json"):
            metrics.append({"folder": folder, **row})
    if not (answers or curve or metrics):
        raise ResultsError(_nothing(top))
    flat = pd.json_normalize(metrics) if metrics else pd.DataFrame(columns=["folder", "test"])
    # An estimate that some records have and others lack leaves an empty column of its own name.
    parents = {name.rpartition(".")[0] for name in flat.columns}
    void = [name for name in flat.columns if name in parents and flat[name].isna().all()]
    return Results(
        frame_of(answers, ANSWER_COLUMNS), frame_of(curve, _CURVE_COLUMNS), flat.drop(columns=void)
    )


def frame_of(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    """Rows as a frame of typed columns.

    Args:
        rows: Values by column, of the types that the columns have.
        columns: pandas type of each column, in their order.
    """
    import pandas as pd

    frame = pd.DataFrame(list(rows), columns=list(columns), dtype=object)
    return frame.astype(dict(columns))


def write_answers_table(written: Iterable[Path], directory: Path, form: str) -> list[Path]:
    """Write the answers that a run wrote as JSON as one table, whole or not at all.

    The columns are those of `load_results(directory).answers` without the folder.

    Args:
        written: The files that the run wrote, of all its models and evals.
        directory: The reports directory; the table goes to its ``results``.
        form: ``parquet``, ``csv``, or ``none`` for no table.

    Returns:
        The table; nothing where there are no answers or no table is asked for.
    """
    columns = {name: kind for name, kind in ANSWER_COLUMNS.items() if name != "folder"}
    results = [path for path in written if path.suffix == ".json"]
    rows = list(answer_rows(results)) if form != "none" else []
    if not rows:
        return []
    frame, path = frame_of(rows, columns), directory / "results" / f"{ANSWERS_TABLE}.{form}"
    if form == "parquet":
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        data = buffer.getvalue()
    else:
        texts: list[str] = list(frame.select_dtypes("string").columns)
        frame[texts] = frame[texts].map(printable_lines, na_action="ignore")
        data = frame.to_csv(index=False, lineterminator="\n").encode("utf-8")
    write_bytes(path, data)
    for other in {"parquet", "csv"} - {form}:
        path.with_suffix(f".{other}").unlink(missing_ok=True)
    return [path]


def answer_rows(files: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The answers in result files, one row a problem, sample and budget.

    Args:
        files: Result files of one folder; what holds no answers is passed over.

    Raises:
        ResultsError: If a file cannot be used.
    """
    listed = sorted(files)
    headers = {key: header for key, _, header in _headers(listed)}
    for path in listed:
        name = _ANSWERS.fullmatch(path.stem)
        if name is None:
            continue
        found = _read(path)
        records = found.get("answers") if isinstance(found, dict) else found
        if not isinstance(records, list):
            continue
        key = (name["phase"] or name["name"], name["stem"])
        about = {"model": name["stem"], **_about(key, headers.get(key, {}))}
        for number, record in enumerate(records, 1):
            where = f"{path}, record {number}"
            if not isinstance(record, dict) or "problem_id" not in record:
                raise ResultsError(f"{where}: there is no problem_id; {_MEND}")
            yield _checked(where, {**record, **about}, ANSWER_COLUMNS)


def _about(key: tuple[str, str], header: Mapping[str, Any]) -> dict[str, Any]:
    return {"eval": key[0], **{name: header[name] for name in _ABOUT if name in header}}


def _headers(files: Iterable[Path]) -> Iterator[tuple[tuple[str, str], Path, dict[str, Any]]]:
    """What files about whole studies hold, with the eval and the model's part of their name."""
    for path in files:
        if _ANSWERS.fullmatch(path.stem):
            continue
        found = _read(path)
        if isinstance(found, dict) and "schema" in found and "model" in found:
            name, _, stem = path.stem.partition("_")
            yield (name, stem.removeprefix("combined_")), path, found


def _curve_rows(files: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for key, path, header in _headers(files):
        points = header.get("curve", header.get("points"))
        for number, point in enumerate(points if isinstance(points, list) else (), 1):
            if isinstance(point, dict) and "budget" in point:
                row = {**point, **_about(key, header), **_estimates(point)}
                if row["accuracy"] is not None:
                    yield _checked(f"{path}, point {number}", row, _CURVE_COLUMNS)


def _estimates(point: Mapping[str, Any]) -> dict[str, Any]:
    """Every estimate of a point with its interval; of an absent one the values are None."""
    found: dict[str, Any] = {}
    for name, sources in _ESTIMATES.items():
        estimate: Any = None
        for source in sources:
            outer, _, inner = source.partition(".")
            value = point.get(outer)
            value = value.get(inner) if inner and isinstance(value, dict) else value
            estimate = estimate or value
        known = estimate if isinstance(estimate, dict) else {}
        found |= {name + bound: known.get(key) for bound, key in _BOUNDS.items()}
    return found


def _checked(where: str, row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The columns of a row, each of its type."""
    kept: dict[str, Any] = {}
    for name, kind in columns.items():
        value = row.get(name)
        if value is None:
            continue
        fits = isinstance(value, _PYTHON_TYPES[kind]) and (kind == _FLAG) == isinstance(value, bool)
        if not fits:
            raise ResultsError(f"{where}: {name} is {value!r:.60}, which is no {_NOUNS[kind]}")
        # Halves of surrogate pairs, which JSON can escape, fit into no column of text.
        kept[name] = value.encode("utf-8", "backslashreplace").decode() if kind == _TEXT else value
    return kept


_NOUNS = {_TEXT: "text", _WHOLE: "whole number", _NUMBER: "number", _FLAG: "truth value"}


def _read(path: Path) -> Any:  # noqa: ANN401
    try:
        return read_json(path)
    except FileError as error:
        raise ResultsError(f"{error}; {_MEND}") from None


def _read_list(path: Path) -> list[dict[str, Any]]:
    found = _read(path) if path.exists() else []
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ResultsError(f"{path}: not a list of records; {_MEND}")
    return found


def _result_folders(top: Path) -> Iterator[tuple[str, Path]]:
    """The folders with result files: the latest results first, with their name."""
    if not top.is_dir():
        what = "it is a file" if top.exists() else "there is no such directory"
        raise ResultsError(f"{top}: {what}; name the folder that --reports names")
    if not (top / "results").is_dir():
        yield "", top
    else:
        yield "", top / "results"
    for path in sorted((top / EARLIER).glob("*/results")):
        yield path.parent.name, path


def _nothing(top: Path) -> str:
    names = sorted(path.name for path in top.iterdir())
    more = ", ..." if len(names) > 5 else ""
    found = f"there is {', '.join(names[:5])}{more}" if names else "it is empty"
    return (
        f"{top}: no results in it; {found}. Name the folder that --reports names: it has "
        "results/*.json once a run has ended"
    )
