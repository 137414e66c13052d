"""Phase 1: its result files, and its table and sentences on the terminal."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import (
    MAX_WIDTH,
    Table,
    columns,
    count,
    decimal,
    percent,
    plural,
    rate,
    rule,
    share,
    shorten,
    wrapped,
)
from pytest_tokenbudget.core.study import PLAIN, Study
from pytest_tokenbudget.report.cost_figure import cost_figure
from pytest_tokenbudget.report.cost_words import cost_record, cost_sentences
from pytest_tokenbudget.report.files import to_plain, to_record
from pytest_tokenbudget.report.json_files import (
    RunInfo,
    file_stem,
    header,
    token_stats_of,
    truncated,
    write_answers,
    write_record,
)
from pytest_tokenbudget.report.limits import (
    limit_answer,
    limits_record,
    recommended_limits,
    target_of,
)
from pytest_tokenbudget.report.shared_sentences import (
    all_failed,
    failed,
    generated_now,
    left_out_budgets,
    nothing_yet,
    unfinished,
)
from pytest_tokenbudget.report.truncation_signs import signs_lines, study_signs
from pytest_tokenbudget.studies.saturation.figure import saturation_figure

SCHEMA = "tokenbudget-phase1/2"


def saturation_lines(study: Study, run: RunInfo, width: int = MAX_WIDTH) -> list[str]:
    """What a study found, with the recommended limit first: what the reader came for."""
    width = columns(width)
    lines = [_rule(study, width)]
    sentences: list[str] = []
    if study.scored:
        target = target_of(run)
        limit = recommended_limits(study, target)["all_tokens"].overall
        lines += [*wrapped(limit_answer(study, limit), width), *_table(study).lines(width)]
        sentences += [limit.finding(), study.saturation.sentence(), *_bounds(study)]
        sentences += [_cost(study)] if study.source is None else []
        sentences += [*cost_sentences(study, run, target), *study.notes]
    else:
        sentences.append(all_failed() if study.complete else nothing_yet())
    if study.source is None and study.complete and run.generated_tokens < study.tokens_generated:
        sentences.append(generated_now(run.generated_tokens, study.missing, partly=True))
    sentences += unfinished(study.missing, len(study.problems), run.complete)
    sentences += [left_out_budgets(study.left_out)] if study.left_out else []
    sentences += [_failures(study)] if study.errors else []
    for sentence in sentences:
        lines += wrapped(sentence, width)
    return lines + (signs_lines(study_signs(study), width) if study.scored else [])


def _rule(study: Study, width: int) -> str:
    """Model, task, mode and number of problems."""
    mode = "" if study.mode == PLAIN else f", {printable(study.mode)}"
    samples = "" if study.samples == 1 else f" x {study.samples} samples"
    task = shorten(printable(study.task.name), 28)
    return rule(study.alias, f" on {task}{mode}, n = {len(study.complete):,}{samples}", width)


def _table(study: Study) -> Table:
    table = Table("budget", "accuracy [95 %]", "of completed", "truncated", "mean tokens", left=())
    for point in study.curve.points:
        table.add(
            count(point.budget),
            rate(point.accuracy, 5),
            share(None if point.completed is None else point.completed.value),
            share(point.truncation.value),
            decimal(point.mean_tokens.value),
        )
    return table


def _bounds(study: Study) -> list[str]:
    point = study.curve.points[-1]
    if point.best_case - point.worst_case < 5e-4:
        return []
    return [
        f"at {count(point.budget)}, with every unfinished answer wrong or right: accuracy "
        f"{percent(point.worst_case)} to {percent(point.best_case)} %"
    ]


def _cost(study: Study) -> str:
    once, separate = study.tokens_once, study.tokens_if_separate
    if len(study.budgets) == 1 or not once:
        return f"generated {plural(once, 'token')}"
    return (
        f"generated {plural(once, 'token')} once; one generation a budget would have cost "
        f"{count(separate)} ({separate / once:.1f} times)"
    )


def _failures(study: Study) -> str:
    """How many traces failed, and the most frequent reason."""
    reasons = Counter(printable(trace.error) or "no reason given" for trace in study.errors)
    reason, times = reasons.most_common(1)[0]
    others = "" if len(reasons) == 1 else f" ({times} times; {plural(len(reasons) - 1, 'other')})"
    return f"{failed(len(study.errors))}: {shorten(reason, 160)}{others}"


def write_saturation(study: Study, run: RunInfo, directory: Path) -> list[Path]:
    """Write the results and figures of a study."""
    target = target_of(run)
    return [
        *write_results(study, run, directory),
        *saturation_figure(study, directory, target),
        *cost_figure(study, directory, target),
    ]


def write_results(study: Study, run: RunInfo, directory: Path) -> list[Path]:
    """Write the results of a study: the answers, one file a budget, and the combined file last."""
    return [
        *write_answers(study, directory, "phase1_main", study.budgets),
        write_record(directory, f"phase1_combined_{file_stem(study)}", combined_record(study, run)),
    ]


def combined_record(study: Study, run: RunInfo) -> dict[str, object]:
    """The whole study: its curve, saturation, costs, and what is needed to repeat it."""
    record: dict[str, object] = {
        **header(study, run, SCHEMA),
        "budgets": list(study.budgets),
        "left_out_budgets": list(study.left_out),
        "curve": [],
        "saturation": None,
        "accuracy_by_token": {"from_token": [], "accuracy": []},
        "recommended_limits": {},
        "signs_of_truncation": [],
        "token_stats": {},
        "cost": None,
        "tokens": {
            "generated_this_run": run.generated_tokens,
            "generated_in_total": study.tokens_generated,
            "one_pass": study.tokens_once,
            "if_generated_separately": study.tokens_if_separate,
        },
    }
    if study.complete:
        saturation = study.saturation
        record["curve"] = [
            {
                **to_record(point),
                "truncated_correct": sum(
                    j.correct and truncated(j) for j in study.judged(point.budget)
                ),
            }
            for point in study.curve.points
        ]
        record["saturation"] = {**to_record(saturation), "sentence": saturation.sentence()}
        if study.by_token_available:
            record["accuracy_by_token"] = accuracy_steps(study)
        record["recommended_limits"] = {
            what: limits_record(found)
            for what, found in recommended_limits(study, target_of(run)).items()
        }
        record["signs_of_truncation"] = to_plain(study_signs(study))
        record["token_stats"] = {
            str(budget): token_stats_of(study.judged(budget)) for budget in study.budgets
        }
    if study.scored:
        record["cost"] = cost_record(study, run, target_of(run))
    return record


def accuracy_steps(study: Study) -> dict[str, list[object]]:
    """Accuracy at every token count, as the token counts from which on it has another value."""
    tokens, accuracy = study.accuracy_by_token()
    from_token: list[object] = []
    values: list[object] = []
    for token, value in zip(tokens.tolist(), to_plain(accuracy.tolist()), strict=True):  # type: ignore[call-overload]
        if not values or value != values[-1]:
            from_token.append(token)
            values.append(value)
    return {"from_token": from_token, "accuracy": values}
