"""All answers of a run in one file: `results/answers.parquet` or `.csv`, beside the JSON."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

from pytest_tokenbudget.common.outside_text import printable_lines
from pytest_tokenbudget.recorded.files import ANSWERS_TABLE
from pytest_tokenbudget.report.files import write_bytes
from pytest_tokenbudget.report.load_results import ANSWER_COLUMNS, answer_rows, frame_of


def write_answers(written: Iterable[Path], directory: Path, form: str) -> list[Path]:
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
