"""Studies, result files and the terminal's table, on traces made by hand."""

from __future__ import annotations

import dataclasses
import json
import os
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import BUDGETS, NumberTask, answer_pieces, make_problem, make_study, trace_of

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import cells, percent, shorten
from pytest_tokenbudget.core.engine import Decoding
from pytest_tokenbudget.core.scoring import judge
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.core.trace import Outcome, ThinkingFormat
from pytest_tokenbudget.core.truncation_signs import Sign
from pytest_tokenbudget.report.files import (
    safe_name,
    to_plain,
    write_bytes,
    write_json,
    write_text,
)
from pytest_tokenbudget.report.json_files import RunInfo, answer_record
from pytest_tokenbudget.report.limits import recommendation_sentence, recommended_limits
from pytest_tokenbudget.studies.saturation.report import (
    combined_record,
    saturation_lines,
    write_results,
)

RUN = RunInfo(
    settings={"num_samples": 60, "budgets": BUDGETS},
    versions={"pytest-tokenbudget": "0.1.0"},
    started="2026-01-01T12:00:00+00:00",
    duration=12.5,
    generated_tokens=1000,
)


def single(pieces: list[str], budgets: tuple[int, ...], *, cap: int | None = None, **kinds: object):
    """A study of one problem, answer 100, with one trace."""
    problem = make_problem(0)
    opened = bool(kinds.pop("opened", False))
    trace = trace_of(problem.id, pieces, cap or max(budgets), opened=opened)
    thinking = kinds.pop("thinking", None)
    return Study(
        "m", {}, NumberTask(), (problem,), {(problem.id, 0): trace}, 1, thinking, "plain", budgets
    )


class TestSafeName:
    @pytest.mark.parametrize("name", ["qwen-1.5b", "nano-reasoner", "a_b.c-d"])
    def test_keeps_what_is_safe(self, name):
        assert safe_name(name) == name

    @pytest.mark.parametrize(
        "name", ["模型/ä b", "../../etc/passwd", "", ".", "..", "a b", "x" * 300]
    )
    def test_makes_one_safe_component(self, name):
        safe = safe_name(name)
        assert safe == safe_name(name)
        assert safe.isascii()
        assert len(safe) < 100
        assert not set(safe) & set('/\\:*?"<>| ')
        assert not safe.startswith((".", "-"))

    def test_does_not_change_between_versions(self):
        assert safe_name("模型/ä b") == "a_b-" + safe_name("模型/ä b")[-8:]
        assert safe_name("a/b") == "a_b-c14cddc0"

    def test_a_name_that_looks_changed_is_changed(self):
        assert safe_name(safe_name("a/b")) != safe_name("a/b")

    @given(st.text(), st.text())
    def test_different_names_differ(self, one, other):
        assert (safe_name(one) == safe_name(other)) == (one == other)


class TestWholeOrNotAtAll:
    @pytest.mark.parametrize("stop", [OSError("no space left"), KeyboardInterrupt()])
    def test_a_stop_before_the_rename_leaves_what_was(self, tmp_path, monkeypatch, stop):
        path = write_text(tmp_path / "new" / "result.json", "old")

        def fail(*_: object) -> None:
            raise stop

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(type(stop)):
            write_text(path, "new")
        assert path.read_text() == "old"
        assert os.listdir(path.parent) == ["result.json"]

    def test_a_value_without_a_plain_form_leaves_what_was(self, tmp_path):
        path = write_json(tmp_path / "result.json", [1])
        with pytest.raises(TypeError, match="object"):
            write_json(path, [2, object()])
        assert json.loads(path.read_text()) == [1]

    def test_results_are_for_others_to_read(self, tmp_path):
        old = os.umask(0o022)
        try:
            path = write_bytes(tmp_path / "result.json", b"x")
        finally:
            os.umask(old)
        assert path.stat().st_mode & 0o777 == 0o644

    def test_text_that_is_not_utf8_is_kept(self, tmp_path):
        text = "ä 模型 \ud800 \x00 \u2028"
        path = write_json(tmp_path / "result.json", text)
        assert "ä 模型".encode() in path.read_bytes()
        assert json.loads(path.read_bytes().decode("utf-8")) == text


class Pair(NamedTuple):
    low: float
    high: float


@dataclasses.dataclass
class Holder:
    pair: Pair
    kind: Outcome


class TestToPlain:
    @pytest.mark.parametrize(
        ("value", "plain"),
        [
            (np.float64(0.5), 0.5),
            (np.int64(3), 3),
            (np.bool_(True), True),
            (np.array([[1.0, np.nan]]), [[1.0, None]]),
            (float("inf"), None),
            (np.float32("nan"), None),
            (Decimal("960"), 960),
            (Decimal("0.10"), "0.10"),
            (Decimal("NaN"), None),
            (Decimal(2**60), str(2**60)),
            (Fraction(7, 2), "7/2"),
            (Fraction(4), 4),
            (Outcome.CORRECT, "correct"),
            (Path("a") / "b", str(Path("a") / "b")),
            ({1: (2, 3), "x": {"b", "a"}}, {"1": [2, 3], "x": ["a", "b"]}),
            (
                Holder(Pair(0.0, 1.0), Outcome.EMPTY),
                {"pair": {"low": 0.0, "high": 1.0}, "kind": "empty"},
            ),
        ],
    )
    def test_values(self, value, plain):
        got = to_plain(value)
        assert got == plain
        assert type(got) is type(plain)
        json.dumps(got, allow_nan=False)

    @pytest.mark.parametrize("value", [object(), b"bytes", {(1, 2): 3}, Holder])
    def test_refuses(self, value):
        with pytest.raises(TypeError):
            to_plain(value)


class TestStudy:
    def test_judged_is_by_problem_and_sample(self):
        study = make_study(3, samples=2)
        order = [(j.problem.id, j.cut.trace.sample) for j in study.judged(64)]
        assert order == [(p.id, s) for p in study.problems for s in (0, 1)]
        assert study.judged(64) is study.judged(64)
        assert {j.cut.budget for j in study.judged(64)} == {64}

    def test_budgets_are_put_in_order(self):
        assert make_study(2, budgets=(128, 32, 128)).budgets == (32, 128)

    def test_curve_counts_what_the_traces_hold(self):
        study = make_study(60)
        for budget in BUDGETS:
            point = study.curve.at(budget)
            cuts = [study.traces[p.id, 0].cut(budget) for p in study.problems]
            assert point.problems == 60
            assert point.truncation.value == pytest.approx(sum(c.truncated for c in cuts) / 60)
            assert point.mean_tokens.value == pytest.approx(sum(c.tokens_used for c in cuts) / 60)
            right = sum(j.correct for j in study.judged(budget))
            assert point.accuracy.value == pytest.approx(right / 60)

    def test_incomplete_problems_are_missing(self):
        study = make_study(10, missing=3)
        short = trace_of(study.problems[0].id, ["so "] * 3000, 512)
        study.traces = {**study.traces, (study.problems[0].id, 0): short}
        assert study.missing == 4
        assert study.curve.points[0].problems == 6
        assert study.saturation.problems == 6
        assert all(j.problem.id != study.problems[0].id for j in study.judged(32))

    def test_one_of_several_samples_missing_is_enough(self):
        study = make_study(4, samples=3)
        study.traces = {k: t for k, t in study.traces.items() if k != (study.problems[1].id, 2)}
        assert study.missing == 1
        assert len(study.judged(32)) == 9

    def test_without_traces_it_says_so(self):
        study = make_study(4, missing=4)
        for attribute in ("curve", "saturation"):
            with pytest.raises(ValueError, match=r"no problem of sums .* qwen-1\.5b to 2048"):
                getattr(study, attribute)

    def test_errors_count_in_no_rate(self):
        study = make_study(20, errors=5, accuracy=1.0)
        point = study.curve.at(2048)
        assert len(study.errors) == 5
        assert point.accuracy == study.curve.at(2048).completed
        assert point.accuracy.value == 1.0
        assert point.accuracy.n == 15
        assert point.outcomes["error"] == 5
        assert study.accuracy_at(2048) == 1.0

    def test_only_errors(self):
        study = make_study(3, errors=3)
        assert np.isnan(study.accuracy_at(32))
        assert study.curve.at(32).outcomes["error"] == 3

    def test_tokens(self):
        study = make_study(7)
        lengths = [len(t.output_ids) for t in study.traces.values()]
        assert study.tokens_once == study.tokens_generated == sum(lengths)
        assert study.tokens_if_separate == sum(min(b, n) for b in BUDGETS for n in lengths)

    def test_tokens_beyond_the_largest_budget_are_not_its_cost(self):
        study = single(["so "] * 100, (8, 32), cap=100)
        assert (study.tokens_once, study.tokens_if_separate, study.tokens_generated) == (
            32,
            40,
            100,
        )

    def test_no_samples_is_refused(self):
        with pytest.raises(ValueError, match="at least 1 sample"):
            make_study(2, samples=0)


def naive(study: Study) -> list[float]:
    """Accuracy at every token count, by judging every cut."""
    rates = []
    for tokens in range(1, study.largest + 1):
        rows = [
            judge(study.task, p, study.traces[p.id, s].cut(tokens, study.thinking))
            for p in study.complete
            for s in range(study.samples)
        ]
        valid = [row.correct for row in rows if row.outcome is not Outcome.ERROR]
        rates.append(sum(valid) / len(valid) if valid else float("nan"))
    return rates


PIECES = st.sampled_from(
    ["so ", "####", " ", "100", "10", "0", "1", ".", ",", "5", "\n", "", "<think>", "</think>", "ä",
     "$", "The answer is", "\\boxed{", "}", "<thi", "nk>", "</th", "ink>", " apples"]
)  # fmt: skip


class TestAccuracyByToken:
    @settings(max_examples=300, deadline=None)
    @given(
        rows=st.lists(st.lists(PIECES, max_size=30), min_size=1, max_size=4),
        largest=st.integers(1, 24),
        opened=st.booleans(),
        thinks=st.booleans(),
        failed=st.booleans(),
    )
    def test_equals_judging_every_cut(self, rows, largest, opened, thinks, failed):
        problems = tuple(make_problem(i) for i in range(len(rows)))
        traces = {}
        for i, (problem, pieces) in enumerate(zip(problems, rows, strict=True)):
            written = [p.replace("100", problem.answer) for p in pieces]
            # Caps above the largest budget occur, too: earlier runs asked for more.
            cap = largest + i
            error = "broken" if failed and i == 0 else ""
            traces[problem.id, 0] = trace_of(problem.id, written, cap, error=error, opened=opened)
        study = Study(
            "m",
            {},
            NumberTask(),
            problems,
            traces,
            1,
            ThinkingFormat() if thinks else None,
            "plain",
            (largest,),
        )
        tokens, accuracy = study.accuracy_by_token()
        assert tokens.tolist() == list(range(1, largest + 1))
        np.testing.assert_allclose(accuracy, naive(study))

    def test_agrees_with_the_curve(self):
        study = make_study(30, samples=2, errors=2)
        for point in study.curve.points:
            assert study.accuracy_at(point.budget) == pytest.approx(point.accuracy.value)

    def test_judges_only_where_the_verdict_can_change(self, monkeypatch):
        import pytest_tokenbudget.core.study as module

        seen: list[int] = []

        def counting(task, problem, cut):
            seen.append(cut.tokens_used)
            return judge(task, problem, cut)

        pieces = ["<think>", *["maybe #### 100 "] * 900, "</think>", *answer_pieces(12, "100")]
        study = single(pieces, (2048,), thinking=ThinkingFormat())
        monkeypatch.setattr(module, "judge", counting)
        tokens, accuracy = study.accuracy_by_token()
        assert len(seen) < 20
        assert accuracy[911] == 0
        assert accuracy[-1] == 1
        assert len(tokens) == 2048

    @pytest.mark.parametrize("tokens", [0, -1, 33])
    def test_beyond_what_is_known(self, tokens):
        with pytest.raises(ValueError, match="from 1 to 32 tokens"):
            make_study(2, budgets=(32,)).accuracy_at(tokens)


FIELDS = {
    "problem_id", "question", "ground_truth", "generated", "predicted", "correct", "tokens_used",
    "budget", "outcome", "truncated", "stop_reason", "branch", "sample", "category",
}  # fmt: skip


class TestJson:
    def test_files_and_fields(self, tmp_path):
        study = make_study(12, samples=2)
        written = write_results(study, RUN, tmp_path)
        names = [f"phase1_main_qwen-1.5b_budget{b}.json" for b in BUDGETS]
        assert [p.name for p in written] == [*names, "phase1_combined_qwen-1.5b.json"]
        assert {p.parent for p in written} == {tmp_path / "results"}
        assert len(os.listdir(tmp_path / "results")) == 8
        for path, budget in zip(written, BUDGETS, strict=False):
            records = json.loads(path.read_text("utf-8"))
            assert len(records) == 24
            assert {frozenset(record) for record in records} == {frozenset(FIELDS)}
            assert {record["budget"] for record in records} == {budget}
            for record, judged in zip(records, study.judged(budget), strict=True):
                assert record["generated"] == judged.cut.text
                assert record["correct"] is judged.correct
                assert record["tokens_used"] <= budget
                assert (record["stop_reason"] == "length") == record["truncated"]

    def test_combined_agrees_with_the_study(self, tmp_path):
        study = make_study(40, left_out=(4096,), missing=2, errors=1)
        combined = json.loads(write_results(study, RUN, tmp_path)[-1].read_text("utf-8"))
        assert combined["schema"] == "tokenbudget-phase1/2"
        assert combined["problems"] == 38
        assert combined["missing"] == 2
        assert combined["errors"] == 1
        assert combined["complete"] is False
        assert combined["left_out_budgets"] == [4096]
        assert combined["identity"] == study.identity
        assert combined["task"] == "sums"
        assert combined["extractor"] == "numbers/3"
        assert combined["started"] == RUN.started
        assert combined["duration_seconds"] == 12.5
        assert combined["settings"]["budgets"] == list(BUDGETS)
        assert combined["tokens"] == {
            "generated_this_run": 1000,
            "generated_in_total": study.tokens_generated,
            "one_pass": study.tokens_once,
            "if_generated_separately": study.tokens_if_separate,
        }
        assert [row["budget"] for row in combined["curve"]] == list(BUDGETS)
        for row, point in zip(combined["curve"], study.curve.points, strict=True):
            assert row["accuracy"]["low"] == pytest.approx(point.accuracy.low)
            assert row["outcomes"] == point.outcomes
            assert sum(row["outcomes"].values()) == 38
        assert combined["curve"][0]["completed"] is None
        assert len(combined["saturation"]["comparisons"]) == 6
        assert combined["saturation"]["sentence"] == study.saturation.sentence()
        stats = combined["token_stats"]["32"]
        assert stats == {"avg_tokens": 32.0, "max_tokens": 32, "truncated_responses": 37}

    def test_accuracy_steps_give_back_every_token_count(self, tmp_path):
        study = make_study(40)
        combined = json.loads(write_results(study, RUN, tmp_path)[-1].read_text("utf-8"))
        steps = combined["accuracy_by_token"]
        assert steps["from_token"][0] == 1
        rebuilt = np.empty(study.largest)
        for start, value in zip(steps["from_token"], steps["accuracy"], strict=True):
            rebuilt[start - 1 :] = value
        np.testing.assert_allclose(rebuilt, study.accuracy_by_token()[1])
        assert len(steps["from_token"]) < 100

    def test_declared_before_the_cut(self, tmp_path):
        study = single([*answer_pieces(10, "100")[:-1], *["so "] * 20, ""], (12, 64))
        record = answer_record(study.judged(12)[0])
        assert record["correct"] is True
        assert record["truncated"] is True
        assert record["outcome"] == "correct"
        assert record["stop_reason"] == "length"
        combined = json.loads(write_results(study, RUN, tmp_path)[-1].read_text("utf-8"))
        assert [row["truncated_correct"] for row in combined["curve"]] == [1, 0]
        assert combined["curve"][0]["accuracy"]["value"] == 1.0
        assert combined["curve"][0]["completed"] is None

    def test_an_error_is_neither_cut_nor_scored(self, tmp_path):
        study = make_study(3, (2, 32), errors=1)
        main, _, combined = (json.loads(p.read_text()) for p in write_results(study, RUN, tmp_path))
        assert main[0]["outcome"] == main[0]["stop_reason"] == "error"
        assert main[0]["truncated"] is main[0]["correct"] is False
        assert "out of memory" in main[0]["error"]
        assert combined["token_stats"]["2"]["truncated_responses"] == 2

    def test_nothing_yet(self, tmp_path):
        study = make_study(3, (32,), missing=3)
        main, combined = (json.loads(p.read_text()) for p in write_results(study, RUN, tmp_path))
        assert main == []
        assert combined["curve"] == []
        assert combined["saturation"] is None

    def test_models_and_modes_keep_apart(self, tmp_path):
        studies = [
            make_study(2, (32,), alias=alias, mode=mode)
            for alias in ("a/b", "a_b", "a b", "模型")
            for mode in ("plain", "thinking")
        ]
        written = [path for study in studies for path in write_results(study, RUN, tmp_path)]
        assert len(set(written)) == len(written) == 16
        assert all(path.name.isascii() for path in written)


class TestTerminal:
    def test_table(self):
        study = make_study(60)
        lines = saturation_lines(study, RUN, 80)
        assert " qwen-1.5b on sums, n = 60 " in lines[0]
        assert len(lines[0]) == 80
        rows = lines[3:10]
        assert [row.split()[0] for row in rows] == [
            "32",
            "64",
            "128",
            "256",
            "512",
            "1,024",
            "2,048",
        ]
        for row, point in zip(rows, study.curve.points, strict=True):
            numbers = [f"{100 * v:.1f}" for v in point.accuracy[:3]]
            assert f"{numbers[0]} % [" in row
            assert f"{numbers[2]}]" in row
            assert f"{100 * point.truncation.value:.1f} %" in row
            assert row.endswith(f" {point.mean_tokens.value:,.1f}")
        assert len({len(row) for row in lines[2:10]}) == 1
        assert " - " in rows[0]
        text = " ".join(" ".join(lines).split())
        assert study.saturation.sentence() in text
        once, separate = study.tokens_once, study.tokens_if_separate
        assert f"generated {once:,} tokens once" in text
        assert f"would have cost {separate:,} ({separate / once:.1f} times)" in text
        assert "1,000 of these tokens" in text

    @pytest.mark.parametrize(
        ("n", "budgets", "answer"),
        [
            (
                300,
                (2048,),
                "recommended limit {limit} tokens: {accuracy} % accuracy, at most {upper}",
            ),
            (
                200,
                (2048,),
                "recommended limit {limit} tokens: {accuracy} % accuracy, at most {upper}",
            ),
            (
                20,
                (2048,),
                "no limit can be recommended from 20 problems: at {limit} tokens {accuracy}",
            ),
            (
                20,
                (64,),
                "no limit up to {limit} tokens can be recommended: at {limit} {accuracy} % ",
            ),
        ],
    )
    def test_the_first_line_is_the_answer(self, n, budgets, answer):
        study = make_study(n, budgets)
        lines = saturation_lines(study, RUN, 80)
        found = recommended_limits(study)["all_tokens"].overall
        named = found.truncation or found.best
        right = sum(judged.correct for judged in study.judged(named.limit)) / n
        expected = answer.format(
            limit=f"{named.limit:,}",
            accuracy=f"{100 * right:.1f}",
            upper=f"{100 * named.upper:.1f} % truncated",
        )
        assert " ".join(lines[1:3]).replace("  ", "").startswith(expected)

    def test_where_accuracy_at_the_limit_is_not_known_it_is_not_made_up(self):
        unknown = "accuracy there not known"
        found = recommended_limits(make_study(300))["all_tokens"].overall
        said = recommendation_sentence(found, float("nan"))
        assert (
            said == f"recommended limit {found.limit:,} tokens: {unknown}, at most 1.0 % truncated"
        )

    def test_signs_of_truncation(self):
        study = make_study(60, (32, 2048))
        cut = [j for b in (32, 2048) for j in study.judged(b) if j.cut.truncated]
        table = saturation_lines(study, RUN, 80)[-3:]
        assert (
            table[0].split()
            == f"signs of truncation of {len(cut)} cut of {120 - len(cut)} complete".split()
        )
        assert table[1].split()[:4] == ["limit", "reached", "100.0", "%"]
        recorded = combined_record(study, RUN)["signs_of_truncation"]
        assert [each["sign"] for each in recorded] == [*Sign]
        assert {each["of_truncated"] for each in recorded} == {len(cut)}
        whole = make_study(60, (2048,), lengths=lambda rng: 20)
        assert saturation_lines(whole, RUN, 80)[-1].split()[-3:] == ["-", "100.0", "%"]

    @pytest.mark.parametrize("width", [0, 40, 72, 80, 200])
    @pytest.mark.parametrize(
        "study",
        [
            make_study(4, samples=3, mode="thinking", alias="模型/" * 30),
            make_study(4, (64,), missing=4),
            make_study(30, (2048, 131072), errors=2, missing=1, left_out=(262144,)),
        ],
    )
    def test_width(self, study, width):
        lines = saturation_lines(study, RUN, width)
        assert max(map(cells, lines)) <= 80
        assert cells(lines[0]) == min(max(width, 40), 80)

    def test_problems_without_results_are_named(self):
        study = make_study(30, (32, 64), missing=4, errors=3, left_out=(2048, 4096))
        text = " ".join(" ".join(saturation_lines(study, RUN, 80)).split())
        assert "4 of 30 problems lack traces and are left out" in text
        assert "beyond the model's context: 2,048, 4,096 tokens" in text
        assert "3 traces ended in an error and count in no rate: out of memory" in text
        point = study.curve.at(64)
        assert f"{100 * point.worst_case:.1f} to {100 * point.best_case:.1f} %" in text

    def test_nothing_yet(self):
        text = "\n".join(saturation_lines(make_study(3, missing=3), RUN, 80))
        assert "no problem has all its traces" in text
        assert "3 of 3 problems lack" in text

    def test_all_stored(self):
        lines = saturation_lines(make_study(9), dataclasses.replace(RUN, generated_tokens=0), 80)
        assert "this run generated no token: all were stored" in lines

    def test_names_cannot_command_the_terminal(self):
        study = make_study(3, alias="evil\x1b[31m\nname", decoding=Decoding(seed=1))
        assert all(line.isprintable() for line in saturation_lines(study, RUN, 80))


class TestStyle:
    @pytest.mark.parametrize(
        ("value", "shown"),
        [(0.0, "0.0"), (-1e-18, "0.0"), (1.0, "100.0"), (0.615, "61.5"), (float("nan"), "-")],
    )
    def test_percent(self, value, shown):
        assert percent(value) == shown

    @given(st.text(), st.integers(2, 40))
    def test_shortened_fits(self, text, width):
        shown = shorten(printable(text), width)
        assert cells(shown) <= width
        assert all(c == " " or c.isprintable() or not c.isspace() for c in shown)

    def test_short_text_is_kept(self):
        assert shorten("qwen", 4) == "qwen"


def test_a_study_of_errors_only_shows_no_numbers():
    lines = "\n".join(saturation_lines(make_study(3, errors=3), RunInfo()))
    assert "every trace ended in an error: nothing to show" in lines
    assert "3 traces ended in an error" in lines
    assert "nan" not in lines
    assert "%" not in lines
