"""Tables for annotators: what is picked, what spreadsheets do to it, what must never be lost."""

import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies import make_study, trace_of

from pytest_tokenbudget.studies.errors.annotation_tables import (
    COLUMNS,
    FILLED_COLUMNS,
    AnnotationError,
    guard,
    read_annotations,
    read_sheet,
    sheet_bytes,
    table_path,
    unguard,
)
from pytest_tokenbudget.studies.errors.annotations import prepare
from pytest_tokenbudget.studies.errors.taxonomy import errors_at, pick

SAMPLES = {64: 12, 128: 8, 256: 5}
ISSUE_COLUMNS = (
    "problem_id budget question ground_truth generated predicted correct outcome tokens_used "
    "error_type error_location recoverable notes"
).split()


@pytest.fixture(scope="module")
def study():
    return make_study(80, (32, 64, 128, 256, 512), accuracy=0.7)


def rows_of(path):
    return [dict(row.cells) for row in read_sheet(path).rows]


def change(path, edit, columns=None):
    """Let ``edit`` change each row, and write the table again."""
    sheet = read_sheet(path)
    rows = [dict(row.cells) for row in sheet.rows]
    for number, row in enumerate(rows):
        edit(number, row)
    path.write_bytes(sheet_bytes(columns or sheet.columns, rows))


def fill(number, row):
    if row["correct"] == "no" and number % 2:
        row |= {"error_type": "logic", "recoverable": "Yes", "notes": f"see\nline {number}\t=x"}


# What is picked


def test_tables_hold_what_was_asked_for(study, tmp_path):
    prepared = prepare(study, tmp_path, SAMPLES, 4, seed=3)
    for budget, asked in SAMPLES.items():
        path = table_path(tmp_path, budget)
        assert path.name == f"annotate_errors_budget{budget}.tsv"
        sheet = read_sheet(path)
        assert [c for c in sheet.columns if c in ISSUE_COLUMNS] == ISSUE_COLUMNS
        errors = [row for row in sheet.rows if row["correct"] == "no"]
        controls = [row for row in sheet.rows if row["correct"] == "yes"]
        wrong = {j.problem.id: j for j in study.judged(budget) if not j.correct}
        right = [j for j in study.judged(budget) if j.correct]
        assert len(errors) == min(asked, len(wrong))
        assert len(controls) == min(4, len(right)) == prepared.budgets[budget].controls
        for row in errors:
            judged = wrong[row["problem_id"]]
            assert row["generated"] == judged.cut.text
            assert row["outcome"] == judged.outcome
            assert row["tokens_used"] == str(judged.cut.tokens_used)
            assert row["model"] == study.alias
            assert not any(row[column] for column in FILLED_COLUMNS)
            assert row["measured_recoverable"]


def test_long_text_is_whole(tmp_path):
    study = make_study(3, (4096,), accuracy=0.0, lengths=lambda rng: 4000)
    prepare(study, tmp_path, {4096: 3}, 0)
    for row in rows_of(table_path(tmp_path, 4096)):
        assert len(row["generated"]) > 10_000
        assert row["generated"].endswith("#### 7\n")


def test_choice_is_seeded_and_follows_problems_over_budgets(study):
    at64, at128 = errors_at(study, 64), errors_at(study, 128)
    names = [j.problem.id for j in pick(at64, 12, 3)]
    assert names == [j.problem.id for j in pick(reversed(at64), 12, 3)]
    assert names == [j.problem.id for j in pick(at64, 20, 3)][:12]
    assert names != [j.problem.id for j in pick(at64, 12, 4)]
    still = {j.problem.id for j in at128}
    later = [j.problem.id for j in pick(at128, 80, 3)]
    assert [name for name in names if name in still] == [name for name in later if name in names]


def test_engine_errors_are_not_errors_of_the_model(tmp_path):
    study = make_study(20, (64, 256), errors=5, accuracy=0.0)
    prepare(study, tmp_path, {256: 50}, 0)
    rows = rows_of(table_path(tmp_path, 256))
    assert len(rows) == 15
    assert "error" not in {row["outcome"] for row in rows}


def test_manifest(study, tmp_path):
    samples = {**SAMPLES, 4096: 5}
    prepared = prepare(study, tmp_path, samples, 4, seed=9)
    other = make_study(30, (64, 128, 256), alias="other", accuracy=0.2)
    prepare(other, tmp_path, SAMPLES, 4, seed=9)
    manifest = json.loads(prepared.manifest.read_text())
    assert set(manifest["models"]) == {"other", study.alias}
    mine = manifest["models"][study.alias]
    assert (mine["seed"], mine["task"], mine["extractor"]) == (9, "sums", "numbers/3")
    at = mine["budgets"]["64"]
    assert at["asked"] == at["errors_picked"] == 12
    assert at["errors"] == len(errors_at(study, 64))
    assert at["right"] + at["errors"] == 80
    if not all(t.covers(4096) for t in study.traces.values()):
        assert list(prepared.left_out) == [4096]
        assert "4096" in mine["left_out"]["4096"]


def test_several_models_share_a_table(study, tmp_path):
    other = make_study(30, (64, 128, 256), alias="other", accuracy=0.2)
    prepare(study, tmp_path, SAMPLES, 2)
    change(table_path(tmp_path, 64), fill)
    before = rows_of(table_path(tmp_path, 64))
    prepare(other, tmp_path, SAMPLES, 2)
    after = rows_of(table_path(tmp_path, 64))
    assert {row["model"] for row in after} == {"other", study.alias}
    assert [row for row in after if row["model"] == study.alias] == before


# Nothing that someone filled in is lost


def test_preparing_again_changes_no_byte(study, tmp_path):
    prepare(study, tmp_path, SAMPLES, 4)
    change(table_path(tmp_path, 64), fill)
    data = {path: path.read_bytes() for path in tmp_path.glob("*.tsv")}
    prepare(study, tmp_path, SAMPLES, 4)
    assert data == {path: path.read_bytes() for path in tmp_path.glob("*.tsv")}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("count", [3, 40])
def test_filled_cells_stay_with_another_choice(study, tmp_path, seed, count):
    prepare(study, tmp_path, SAMPLES, 4)
    path = table_path(tmp_path, 64)
    change(path, fill)
    filled = {row["problem_id"]: row for row in rows_of(path) if row["error_type"]}
    assert filled
    prepared = prepare(study, tmp_path, {64: count}, 0, seed=seed)
    after = {row["problem_id"]: row for row in rows_of(path)}
    for name, row in filled.items():
        assert after[name] == row
    picked = {j.problem.id for j in pick(errors_at(study, 64), count, seed)}
    assert set(after) == picked | set(filled)
    assert prepared.budgets[64].kept == len(set(filled) - picked)
    assert prepared.budgets[64].annotated == len(filled)


def test_columns_and_cells_of_the_annotators_own_stay(study, tmp_path):
    prepare(study, tmp_path, SAMPLES, 4)
    path = table_path(tmp_path, 64)

    def own(number, row):
        row["Confidence"] = "high" if number == 1 else ""
        row["predicted"] = row["predicted"] or "my own"

    change(path, own, (*COLUMNS, "Confidence"))
    name = rows_of(path)[1]["problem_id"]
    assert any(row["predicted"] == "my own" for row in rows_of(path))
    before = rows_of(path)
    prepare(study, tmp_path, SAMPLES, 4)
    assert rows_of(path) == before
    prepare(study, tmp_path, {64: 0}, 0)
    (row,) = rows_of(path)
    assert (row["problem_id"], row["Confidence"]) == (name, "high")


def test_an_annotation_stays_with_the_text_it_is_about(study, tmp_path):
    """A model that writes another text later gets a row of its own."""
    prepare(study, tmp_path, {64: 5}, 0)
    path = table_path(tmp_path, 64)
    change(path, lambda number, row: row.update(error_type="setup") if number == 0 else None)
    first = rows_of(path)[0]
    newer = make_study(80, (32, 64, 128, 256, 512), accuracy=0.7)
    key = first["problem_id"], 0
    newer.traces[key] = trace_of(key[0], ["quite ", "other", ""], 512)
    prepare(newer, tmp_path, {64: 5}, 0)
    same = [row for row in rows_of(path) if row["problem_id"] == key[0]]
    assert sorted((row["generated"], row["error_type"]) for row in same) == sorted(
        [(first["generated"], "setup"), ("quite other", "")]
    )


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data + b'\r\n"open', "cannot be read"),
        (lambda data: data.replace(b"error_type", b"type", 1), "error_type"),
        (lambda data: data + "\u00e9t\u00e9".encode("latin-1"), "UTF-8"),
        (lambda data: b"", "empty"),
    ],
)
def test_a_damaged_table_stops_preparation_and_is_not_touched(study, tmp_path, damage, said):
    prepare(study, tmp_path, SAMPLES, 4)
    path = table_path(tmp_path, 128)
    path.write_bytes(damage(path.read_bytes()))
    data = {p: p.read_bytes() for p in tmp_path.glob("*.tsv")}
    with pytest.raises(AnnotationError, match=said) as error:
        prepare(study, tmp_path, {64: 3, 128: 3}, 1, seed=5)
    assert str(path) in str(error.value)
    assert data == {p: p.read_bytes() for p in tmp_path.glob("*.tsv")}


def test_a_table_that_is_open_is_not_touched(study, tmp_path):
    prepare(study, tmp_path, {64: 5}, 1)
    path = table_path(tmp_path, 64)
    data = path.read_bytes()
    lock = tmp_path / f".~lock.{path.name}#"
    lock.write_text("someone")
    prepare(study, tmp_path, {64: 5}, 1)  # nothing to write: no reason to complain
    with pytest.raises(AnnotationError, match="open in a spreadsheet program"):
        prepare(study, tmp_path, {64: 9}, 1)
    assert path.read_bytes() == data


def test_a_table_that_cannot_be_written(study, tmp_path, monkeypatch):
    prepare(study, tmp_path, {64: 5}, 1)
    data = table_path(tmp_path, 64).read_bytes()

    def locked(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", locked)
    with pytest.raises(AnnotationError, match=r"budget64\.tsv: cannot be written.*close it"):
        prepare(study, tmp_path, {64: 9}, 1)
    assert table_path(tmp_path, 64).read_bytes() == data
    assert not list(tmp_path.glob("*.tmp"))


def test_rows_that_contradict_each_other_stop_preparation(study, tmp_path):
    prepare(study, tmp_path, {64: 5}, 0)
    path = table_path(tmp_path, 64)
    sheet = read_sheet(path)
    rows = [dict(row.cells) for row in sheet.rows]
    twice = [{**rows[0], "error_type": kind} for kind in ("logic", "setup")]
    path.write_bytes(sheet_bytes(sheet.columns, [*rows, *twice]))
    with pytest.raises(AnnotationError, match="stands also on line"):
        prepare(study, tmp_path, {64: 5}, 0)


# To a spreadsheet and back


@given(st.text())
def test_guard_is_reversible(cell):
    assert unguard(guard(cell)) == cell


CHANGED = ["=1+1", "+5 apples", "-x", "@me", "\tx", "'quoted", "1/2", "3-4", "0012", "1e5", "TRUE"]
CHANGED += ["MARCH1", "12:30", "1,234", "9" * 20, '=HYPERLINK("http://x")', "50%"]


@pytest.mark.parametrize("cell", CHANGED)
def test_what_a_spreadsheet_would_change_is_guarded(cell):
    assert guard(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "-5", "42", "-0.25", "1. Nils: 3 + 4 = 7", "yes", "wp-12e4"])
def test_what_is_safe_stays_as_it_is(cell):
    assert guard(cell) == cell


@given(st.lists(st.lists(st.text(), min_size=3, max_size=3), max_size=5))
def test_any_cells_come_back(rows):
    columns = ("problem_id", "error_type", "recoverable")
    tables = [dict(zip(columns, row, strict=True)) for row in rows]
    data = sheet_bytes(columns, tables)
    # An independent reader sees the same table.
    seen = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), "excel-tab"))
    assert len(seen) == len(rows) + 1
    assert all(len(row) == 3 for row in seen)
    assert data.startswith(b"\xef\xbb\xbf")


NASTY = [
    "=cmd|' /C calc'!A0",
    '"quoted", with; all|sorts\tof\nseparators',
    "-5",
    "'",
    "line\n\nline\n",
    "Zoë ½ 数学 😀",
    "<<48/2=24>>24",
]


def export(columns, rows, separator="\t", quoting=csv.QUOTE_MINIMAL, line="\r\n"):
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator, quoting=quoting, lineterminator=line)
    writer.writerows([columns, *rows])
    return out.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("separator", ["\t", ";", ","])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("line", ["\r\n", "\n"])
def test_exports_are_understood(tmp_path, encoding, separator, quoting, line):
    columns = ["notes", "recoverable", "Problem_ID ", "error_type", "generated", "", ""]
    rows = [[guard(text), "yes", f"p{n}", "logic", guard(text), "", ""] for n, text in
            enumerate(NASTY)]  # fmt: skip
    rows += [[""] * 7, ["", "", ""]]
    path = tmp_path / "x.tsv"
    path.write_bytes(export(columns, rows, separator, quoting, line).encode(encoding))
    sheet = read_sheet(path)
    assert [row["generated"] for row in sheet.rows] == NASTY
    assert [row["notes"] for row in sheet.rows] == NASTY
    assert [row["problem_id"] for row in sheet.rows] == [f"p{n}" for n in range(len(NASTY))]


def test_an_export_with_a_line_for_its_separator(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("sep=;\nproblem_id;error_type;recoverable\np1;oops;no\n")
    (row,) = read_sheet(path).rows
    assert (row.line, row["error_type"]) == (3, "oops")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_another_encoding_is_a_clear_error(tmp_path, encoding):
    path = tmp_path / "x.tsv"
    text = "problem_id\terror_type\trecoverable\tnotes\np1\tlogic\tno\tZoë\n"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(AnnotationError, match=r"line 2\): save it again with the encoding UTF-8"):
        read_sheet(path)


def nasty_study():
    """Real kinds of text that a spreadsheet likes to change."""
    study = make_study(len(NASTY), (64,), accuracy=0.0)
    for index, (key, text) in enumerate(zip(list(study.traces), NASTY, strict=True)):
        assert key[0] == study.problems[index].id
        study.traces[key] = trace_of(key[0], [text, "#### -5", ""], 64)
    return study


def test_round_trip_through_pandas(tmp_path):
    pandas = pytest.importorskip("pandas")
    study = nasty_study()
    prepare(study, tmp_path, {64: 50}, 0)
    path = table_path(tmp_path, 64)
    before = rows_of(path)
    assert {row["predicted"] for row in before} == {"-5"}
    frame = pandas.read_csv(path, sep="\t").astype(object)
    assert list(frame["generated"].map(unguard)) == [row["generated"] for row in before]
    frame.loc[0, "error_type"] = "Logic"
    frame.to_csv(path, sep=";", index=False)
    prepare(study, tmp_path, {64: 50}, 0)
    assert rows_of(path) == [{**before[0], "error_type": "Logic"}, *before[1:]]


def test_round_trip_through_a_workbook(tmp_path):
    """Cells as a workbook holds them: no formula, no date, and the same text again."""
    openpyxl = pytest.importorskip("openpyxl")
    study = nasty_study()
    prepare(study, tmp_path, {64: 50}, 0)
    path = table_path(tmp_path, 64)
    before = rows_of(path)
    book = openpyxl.Workbook()
    with path.open(encoding="utf-8-sig", newline="") as stream:
        for record in csv.reader(stream, "excel-tab"):
            book.active.append(record)
    book.save(tmp_path / "x.xlsx")
    read = openpyxl.load_workbook(tmp_path / "x.xlsx").active
    kinds = {cell.data_type for row in read.iter_rows() for cell in row}
    assert not kinds & {"f", "d", "b"}, "formulas, dates, truth values"
    records = [["" if v is None else v for v in row] for row in read.iter_rows(values_only=True)]
    path.write_text(export(records[0], records[1:], ",", csv.QUOTE_NONNUMERIC), newline="")
    assert rows_of(path) == before


# Reading what annotators said


def table(tmp_path, text, budget=64):
    path = table_path(tmp_path, budget)
    path.write_text(text, newline="")
    return path


def test_all_wrong_values_are_named_at_once(tmp_path):
    first = table(
        tmp_path,
        "problem_id\tbudget\tgenerated\terror_type\trecoverable\tmodel\r\n"
        'p1\t64\t"three\nlines\nhere"\tLogic \tYES\tm\r\n'
        "p2\t64\tx\taritmetic\tyes\tm\r\n"
        'p3\t64\t"two\nlines"\tsetup\tmaybe\tm\r\n'
        "p4\t128\tx\tsetup\tno\tm\r\n",
    )
    second = table(tmp_path, "problem_id,error_type,recoverable\np1,wrong,no\n", 128)
    with pytest.raises(AnnotationError) as error:
        read_annotations(tmp_path, "m", (64, 128, 256))
    types = "arithmetic, setup, logic, incomplete, format, hallucination"
    assert error.value.problems == (
        f"{first}:5: column 4 (error_type): 'aritmetic' is not allowed; allowed: {types}",
        f"{first}:6: column 5 (recoverable): 'maybe' is not allowed; allowed: yes, no, unknown",
        f"{first}:8: column 2 (budget): '128' is not the budget of this table; allowed: 64",
        f"{second}:2: column 2 (error_type): 'wrong' is not allowed; allowed: {types}",
    )


def test_case_and_blanks_are_tolerated(tmp_path):
    table(tmp_path, "problem_id\terror_type\trecoverable\tbudget\np1\t LOGIC\tYes \t64.0\n")
    ((annotation,),) = read_annotations(tmp_path, "m", (64,)).by_budget[64].values()
    assert (annotation.type, annotation.recoverable) == ("logic", "yes")


def test_a_cell_without_a_column_is_named(tmp_path):
    path = table(tmp_path, "problem_id\terror_type\trecoverable\t\np1\tlogic\tno\tlost note\n")
    with pytest.raises(AnnotationError, match=re.escape(f"{path}:2: column 4 has no name")):
        read_annotations(tmp_path, "m", (64,))


def test_two_files_of_one_table_are_an_error(tmp_path):
    path = table(tmp_path, "problem_id\terror_type\trecoverable\n")
    path.with_suffix(".csv").write_text("problem_id,error_type,recoverable\n")
    with pytest.raises(AnnotationError, match="keep one of them"):
        read_annotations(tmp_path, "m", (64,))


def test_tables_with_only_the_columns_of_the_study(tmp_path):
    """Other tools' tables know no model and no sample."""
    table(tmp_path, "\t".join(ISSUE_COLUMNS) + "\np1\t64\tq\t1\tg\t\tno\twrong\t9\tsetup\t\tno\t\n")
    read = read_annotations(tmp_path, "any", (64,))
    assert read.by_budget[64]["p1", 0][0].type == "setup"
