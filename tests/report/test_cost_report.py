"""Time and cost in reports: what is modelled against what is known, and what is said of it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from runs import QUIET, Engines, RealEngines, combined, read
from studies import make_study

from pytest_tokenbudget.core.cost import mean_saving
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.models.prices import Price
from pytest_tokenbudget.report.cost import RECOMMENDED, SATURATION, cost_report, saving
from pytest_tokenbudget.report.cost_figure import cost_figure
from pytest_tokenbudget.report.cost_words import cost_record, cost_sentences, duration, money
from pytest_tokenbudget.report.json_files import RunInfo
from pytest_tokenbudget.stats.timing import times_of, timing, token_rate
from pytest_tokenbudget.studies.stochastic.report import stochastic_lines, write_stochastic

pytest_plugins = ["run_fixtures"]

PRICE = Price(0.5, 2.0, 2.0, "EUR")
LENGTHS = np.array([10.0, 20, 40, 80, 160, 320, 640, 640])


# Time


def steady(begun=1.0, pace=0.01, lengths=LENGTHS, start=None):
    """Times of traces that begin alike and write at one pace."""
    seconds = begun + pace * lengths
    begins = np.zeros(len(lengths)) if start is None else np.asarray(start, float)
    return times_of(lengths, seconds, lengths, 100 + begins + seconds, in_batches=start is None)


def used(budgets, lengths=LENGTHS):
    return np.stack([np.minimum(lengths, b) for b in budgets], axis=-1)[:, None]


def test_a_cut_trace_takes_its_beginning_and_its_share_of_the_rest():
    found = timing((100, 1000), used((100, 1000)), steady())
    assert found.beginning == pytest.approx(1.0)
    assert found.pace == pytest.approx(0.01)
    expected = 1 + 0.01 * np.minimum(LENGTHS, 100)
    assert found.at(100).each.value == pytest.approx(expected.mean())
    assert found.at(100).p95 == pytest.approx(2.0)
    assert found.at(100).tokens_per_second == pytest.approx(
        np.minimum(LENGTHS, 100).sum() / expected.sum()
    )
    assert found.at(1000).each.value == pytest.approx((1 + 0.01 * LENGTHS).mean())


def test_a_batch_lasts_as_long_as_its_longest_trace():
    found = timing((100, 1000), used((100, 1000)), steady())
    assert found.at(1000).run_seconds == pytest.approx(7.4)
    assert found.at(100).run_seconds == pytest.approx(2.0)
    assert found.at_once == pytest.approx((1 + 0.01 * LENGTHS).sum() / 7.4)


def test_pauses_between_batches_do_not_count():
    starts = [0] * 4 + [1000] * 4
    times = replace(steady(start=starts), in_batches=True)
    found = timing((1000,), used((1000,)), times)
    assert found.at(1000).run_seconds == pytest.approx((1 + 0.8) + (1 + 6.4))
    assert token_rate(times) == pytest.approx(LENGTHS.sum() / 9.2)


def test_where_another_takes_the_place_time_is_scaled():
    found = timing((100, 1000), used((100, 1000)), steady(start=np.arange(8)))
    whole, cut = 1 + 0.01 * LENGTHS, 1 + 0.01 * np.minimum(LENGTHS, 100)
    busy = found.at(1000).run_seconds
    assert found.at(100).run_seconds == pytest.approx(busy * cut.sum() / whole.sum())


def test_few_traces_tell_no_beginning():
    lengths = LENGTHS[:4]
    found = timing((20, 80), used((20, 80), lengths), steady(lengths=lengths))
    assert found.beginning == 0
    assert found.at(80).each.value == pytest.approx((1 + 0.01 * lengths).mean())


def test_a_trace_that_was_gone_on_from_has_the_pace_of_its_last_part():
    # 10 of its 40 tokens took the half second that is known.
    times = times_of([40.0], [0.5], [10.0], [7.0])
    found = timing((20, 40), used((20, 40), np.array([40.0])), times)
    assert found.at(40).each.value == pytest.approx(2.0)
    assert found.at(20).each.value == pytest.approx(1.0)
    assert found.at(40).run_seconds is None


def test_answers_without_times_have_no_time():
    assert timing((8,), used((8,)), times_of(LENGTHS, LENGTHS * 0, LENGTHS, LENGTHS)) is None
    seconds = 1 + 0.01 * LENGTHS
    seconds[0] = 0
    found = timing((1000,), used((1000,)), times_of(LENGTHS, seconds, LENGTHS, 100 + seconds))
    assert (found.traces, found.untimed) == (7, 1)
    assert token_rate(times_of(LENGTHS, LENGTHS * 0, LENGTHS, LENGTHS)) is None


def test_errors_have_no_time():
    lengths = LENGTHS.copy()
    lengths[-1] = math.nan
    found = timing((1000,), used((1000,), lengths), steady(lengths=lengths))
    assert (found.traces, found.untimed, found.at(1000).each.n) == (7, 0, 7)


# Reports


def priced(n=60, price=PRICE, timed=True, **changes) -> Study:
    study = make_study(n, (64, 128, 256, 512), **changes)
    study.price = price
    if timed:
        study.traces = {
            place: replace(
                trace,
                seconds=0.5 + 0.01 * len(trace.output_ids),
                timed=len(trace.output_ids),
                ended=1000.5 + 0.01 * len(trace.output_ids),
            )
            for place, trace in study.traces.items()
        }
    return study


def test_a_study_costs_what_its_tokens_do():
    study = priced()
    report = cost_report(study, 0.2)
    for point in report.points:
        judged = study.judged(point.budget)
        output = sum(j.cut.tokens_used for j in judged)
        right = sum(j.correct for j in judged)
        money_ = (60 * 3 * 0.5 + output * 2.0) / 1e6
        assert (point.prompt_tokens, point.output_tokens) == (180, output)
        assert point.cost.all == pytest.approx(money_)
        assert point.cost.each.value == pytest.approx(money_ / 60)
        assert right == 0 or point.cost.correct.value == pytest.approx(money_ / right)
    assert report.timing.at(512).each.value == pytest.approx(
        0.5 + 0.01 * study.curve.at(512).mean_tokens.value
    )


def test_a_saving_is_the_difference():
    study = priced()
    found = saving(study, 200, 512)
    spent = [
        (large.cut.tokens_used - small.cut.tokens_used)
        for large, small in zip(study.judged(512), study.judged(200), strict=True)
    ]
    assert found.tokens.value == pytest.approx(np.mean(spent))
    assert found.money.value == pytest.approx(np.mean(spent) * 2 / 1e6)
    assert found.seconds.value == pytest.approx(np.mean(spent) * 0.01, rel=1e-6)
    assert found.machine_seconds <= found.seconds.value
    curve = {b: sum(j.correct for j in study.judged(b)) / 60 for b in (200, 512)}
    assert found.accuracy.value == pytest.approx(curve[200] - curve[512])


def test_no_saving_is_claimed_where_there_is_none():
    none = mean_saving([3.0, 4.0], [3.0, 4.0])
    assert (none.value, none.low) == (0, 0)
    assert mean_saving([math.nan], [1.0]) is None


def test_the_record_has_everything_and_a_day():
    study = priced()
    record = cost_record(study, RunInfo({"requests_per_day": 1000}), 0.2)
    json.dumps(record, allow_nan=False)
    assert record["price_per_million"]["currency"] == "EUR"
    assert [p["budget"] for p in record["points"]] == [64, 128, 256, 512]
    assert record["one_pass"] == record["points"][-1]["cost"]["all"]
    assert record["if_generated_separately"] == pytest.approx(
        sum(p["cost"]["all"] for p in record["points"])
    )
    each = record["savings"][RECOMMENDED]
    assert each["against"] == 512
    for what in ("tokens", "money", "seconds"):
        assert each["a_day"][what]["value"] == pytest.approx(1000 * each[what]["value"])
    without = cost_record(study, RunInfo(), 0.2)
    assert "a_day" not in without["savings"][RECOMMENDED]
    assert set(record["savings"]) <= {RECOMMENDED, SATURATION}


def test_what_is_not_known_is_null_and_not_said():
    study = priced(price=None, timed=False)
    record = cost_record(study, RunInfo(), 0.2)
    assert record["price_per_million"] is record["time"] is record["one_pass"] is None
    assert all(point["cost"] is None for point in record["points"])
    assert cost_sentences(study, RunInfo(), 0.2) == []


def test_sentences_say_cost_time_and_savings():
    said = cost_sentences(priced(), RunInfo({"requests_per_day": 10_000}), 0.2)
    assert said[0].startswith("at 512 a run costs 0.02")
    assert " EUR, a thousand answers 0.3" in said[0]
    assert " EUR, a thousand right ones 0." in said[0]
    took = "time as generated here: at 512 tokens an answer took "
    assert any(each.startswith(took) for each in said)
    assert said[-1].startswith("at 10,000 requests a day a limit of ")
    assert "of the machine against 512; accuracy changes by " in said[-1]


def test_without_a_limit_nothing_is_said_to_be_saved():
    said = cost_sentences(priced(20), RunInfo({"requests_per_day": 10}), 0.01)
    assert said[-1] == (
        "at 10 requests a day: no limit below 512 can be promised yet, so nothing is said to be "
        "saved"
    )


def test_prompts_that_are_not_known_are_counted():
    study = priced()
    study.traces = {k: replace(t, prompt_ids=()) for k, t in study.traces.items()}
    assert cost_report(study, 0.2).unknown_prompts == 60
    assert "the prompts of 60 answers are not known and cost nothing here" in cost_sentences(
        study, RunInfo(), 0.2
    )
    counted = priced()
    counted.traces = {
        k: replace(t, prompt_ids=(), usage={"prompt_tokens": 9}) for k, t in counted.traces.items()
    }
    assert cost_report(counted, 0.2).points[0].prompt_tokens == 60 * 9


def test_errors_cost_nothing_and_hide_nothing():
    study = priced(errors=5)
    report = cost_report(study, 0.2)
    assert report.point(512).cost.answers == 55
    assert cost_record(study, RunInfo(), 0.2)


def test_the_figure_is_drawn_where_there_is_a_price(tmp_path):
    files = cost_figure(priced(alias="a_$m"), tmp_path, 0.2)
    assert [file.suffix for file in files] == [".png", ".svg"]
    assert all(file.stat().st_size > 10_000 for file in files)
    assert cost_figure(priced(price=None), tmp_path, 0.2) == []
    free = priced(price=Price(0, 0, 0), timed=False)
    assert cost_figure(free, tmp_path, 0.2)


def test_amounts_and_durations_can_be_read():
    assert money(0.000123456, "USD") == "0.000123 USD"
    assert money(12.345, "EUR") == "12.35 EUR"
    assert money(0, "EUR") == "0.00 EUR"
    assert money(1234.5) == "1,234.50"
    assert [duration(s) for s in (0.012, 1.5, 119, 150, 9000, 200_000)] == [
        *("0.012 s", "1.5 s", "119.0 s", "2.5 min", "2.5 h", "2.3 days"),
    ]


TOML = """
[models.nano-reasoner.price]
input = 1
output = 4
reasoning = 2
"""


def test_a_run_writes_what_it_cost(run, pytester, quick_figures):
    (pytester.path / "tokenbudget.toml").write_text(TOML)
    result = run("--rootdir", ".", "--requests-per-day", "100", engines=Engines())
    assert result.ret == 0
    cost = combined(pytester.path)["cost"]
    assert cost["price_per_million"] == {
        **{"input": 1, "output": 4, "reasoning": 2, "currency": "USD"}
    }
    assert cost["requests_per_day"] == 100
    last = cost["points"][-1]
    assert last["cost"]["all"] == pytest.approx(
        (last["prompt_tokens"] + 4 * last["output_tokens"]) / 1e6
    )
    assert "a thousand answers " in result.stdout.str()
    assert (pytester.path / "reports/figures/fig1_cost_nano-reasoner.png").exists()


def test_reasoning_has_its_own_price(run, pytester, quick_figures):
    """The real model thinks: thinking tokens are paid for as such, the answer as output."""
    (pytester.path / "tokenbudget.toml").write_text(TOML)
    result = run(
        *("-m", "thinking", "--rootdir", ".", "--thinking-budgets", "0,32"),
        *("--answer-tokens", "40", "--closers", "bare"),
        base=("--pyargs", "pytest_tokenbudget.evals", *QUIET),
        engines=RealEngines(),
        problems=2,
    )
    assert result.ret == 0
    found = read(pytester.path, "thinking_nano-reasoner.json")
    points = {(p["enforcement"], p["budget"]): p for p in found["cost"]["points"]}
    assert points.keys() == {(p["enforcement"], p["budget"]) for p in found["points"]}
    hard, off = points["hard", 32], points["off", 32]
    assert hard["reasoning_tokens"] == 2 * 32
    assert off["reasoning_tokens"] == 0
    for point in points.values():
        written = point["output_tokens"] - point["reasoning_tokens"]
        assert point["cost"]["all"] == pytest.approx(
            (point["prompt_tokens"] + 4 * written + 2 * point["reasoning_tokens"]) / 1e6
        )
    assert found["cost"]["time"]["points"][-1]["each"]["value"] > 0


def test_samples_cost_what_all_of_them_do(tmp_path):
    study = priced(20, samples=3)
    study.kind = "stochastic"
    files = write_stochastic(study, RunInfo({"target_truncation": 0.3}), tmp_path)
    cost = json.loads(files[-1].read_text())["cost"]
    judged = study.judged(512)
    assert len(judged) == 60
    assert cost["points"][-1]["cost"]["answers"] == 60
    assert cost["points"][-1]["output_tokens"] == sum(j.cut.tokens_used for j in judged)
    assert any("a thousand answers" in line for line in stochastic_lines(study, RunInfo()))
