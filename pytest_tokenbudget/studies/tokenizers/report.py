"""The tokenizers eval: its result files, its table and sentences on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import MAX_WIDTH, columns, plural, rule, shorten, wrapped
from pytest_tokenbudget.report.files import safe_name, to_record, write_json
from pytest_tokenbudget.report.json_files import RunInfo, recorded_header
from pytest_tokenbudget.stats.intervals import Estimate
from pytest_tokenbudget.studies.tokenizers.analysis import TextRates, TokenizerReport
from pytest_tokenbudget.studies.tokenizers.samples import REFERENCE, SAMPLES

SCHEMA = "tokenbudget-tokenizers/1"
COMPARISON = "tokenizers_comparison"
# Limits, and models that are compared, that there is room for in 80 columns.
_LIMITS, _MODELS = 4, 5
_LABEL, _MODEL = 12, 22


def write_tokenizers(report: TokenizerReport, run: RunInfo, directory: Path) -> list[Path]:
    """Write what was measured below ``directory``, each file whole or not at all.

    Args:
        report: What was measured.
        run: The run that measured it.
        directory: The reports directory; files go to its ``results`` and ``figures``.

    Returns:
        The result file, and where rates were measured the figure.
    """
    from pytest_tokenbudget.studies.tokenizers.figure import tokenizers_figure

    stem = f"tokenizers_{safe_name(report.alias)}"
    record = tokenizers_record(report, run)
    written = [write_json(directory / "results" / f"{stem}.json", record)]
    if report.texts:
        written += tokenizers_figure(report, directory / "figures" / stem)
    return written


def tokenizers_record(report: TokenizerReport, run: RunInfo) -> dict[str, object]:
    """Everything that was measured, and what is needed to repeat it."""
    return {
        **recorded_header(report.about, report.missing, run, SCHEMA),
        "summary": list(_sentences(report)),
        "texts": [_text_record(report, each) for each in report.texts.values()],
        "template": to_record(report.template) if report.template else None,
        "no_template": report.no_template,
        "limits": [to_record(each) for each in report.fits],
        "server": to_record(report.server) if report.server else None,
    }


def _text_record(report: TokenizerReport, text: TextRates) -> dict[str, object]:
    sample = SAMPLES[text.name]
    trip = report.round_trips.get(text.name)
    return {
        **to_record(text),
        "label": sample.label,
        "content": sample.content,
        "script": sample.script,
        "round_trip": to_record(trip) if trip else None,
    }


def tokenizers_lines(report: TokenizerReport, run: RunInfo, width: int = MAX_WIDTH) -> list[str]:
    """What was measured, as lines of at most 80 columns.

    Args:
        report: What was measured.
        run: The run that measured it.
        width: Columns of the terminal. Sentences are wrapped to it; the table needs 80.
    """
    width = columns(width)
    lines = [rule(report.alias, ": tokens of texts and template", width)]
    first, *others = list(_sentences(report)) or ["nothing was measured"]
    lines += [*wrapped(printable(first), width), *_table(report)]
    for sentence in others:
        lines += wrapped(printable(sentence), width)
    return lines


def _table(report: TokenizerReport) -> list[str]:
    if not report.texts:
        return []
    fits = report.fits[-_LIMITS:]
    head = f"{'text':{_LABEL}}  {'tokens a character':20} a word   same"
    over = " " * len(head)
    if fits:
        over += "characters that fit".rjust(max(8 * len(fits), 21))[-(MAX_WIDTH - len(over)) :]
        head += "".join(f"{fit.limit:8,}" for fit in fits)
    lines = [over.rstrip(), head] if fits else [head]
    for name, text in report.texts.items():
        row = f"{SAMPLES[name].label:{_LABEL}}  {shown_rate(text.per_character):20}"
        row += f"{_short(text.per_word):>7}{_short(text.against):>7}"
        lines.append(row + "".join(f"{_compact(f.texts[name].characters):>8}" for f in fits))
    return lines


def shown_rate(rate: Estimate) -> str:
    """Tokens a character with their interval, as tables show them."""
    return f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}]"


def _short(rate: Estimate | None) -> str:
    return "-" if rate is None else f"{rate.value:.2f}"


def _compact(characters: Estimate) -> str:
    value = characters.value
    return f"{value:,.0f}" if value < 1e6 else f"{value / 1e6:.2f}M"


def _sentences(report: TokenizerReport) -> Iterator[str]:
    rates = [each for each in report.texts.values() if each.against is not None]
    if len(rates) > 1:
        most = max(rates, key=lambda each: each.against.value if each.against else 0.0)
        assert most.against is not None
        yield (
            f"the same text takes {most.against.value:.1f} times as many tokens in "
            f"{SAMPLES[most.name].label} as in {SAMPLES[REFERENCE].label} (column same)"
        )
    if report.template is not None:
        yield report.template.sentence()
        yield report.template.additive_sentence()
        if refused := report.template.refused:
            yield f"the template refuses {', '.join(refused)}"
    elif report.no_template:
        yield report.no_template
    if report.round_trips:
        yield _round_trip_sentence(report)
    if report.server is not None and report.server.said:
        yield report.server.sentence()
    if report.missing:
        count = plural(len(report.missing), "part")
        yield f"{count} not measured in this run: {report.missing[0]}" + (
            ", ..." if len(report.missing) > 1 else ""
        )


def _round_trip_sentence(report: TokenizerReport) -> str:
    lossy = report.lossy
    if not lossy:
        kinds = plural(len(report.round_trips), "kind of text comes", "kinds of text come")
        return f"{kinds} back unchanged"
    names = ", ".join(f"{SAMPLES[t.name].label} {t.same} of {t.passages}" for t in lossy)
    return f"not every passage comes back as it was: {names}; {lossy[0].change}"


def compared(reports: Sequence[TokenizerReport]) -> Sequence[TokenizerReport] | None:
    """The reports that can be put side by side; None where there are fewer than two."""
    measured = [report for report in reports if report.texts]
    return measured if len(measured) > 1 else None


def write_comparison(reports: Sequence[TokenizerReport], directory: Path) -> list[Path]:
    """Write several models' rates side by side.

    Args:
        reports: What was measured of each.
        directory: The reports directory; files go to its ``results`` and ``figures``.

    Returns:
        The file and the figure, or none where there are fewer than two models.
    """
    from pytest_tokenbudget.studies.tokenizers.figure import comparison_figure

    measured = [report for report in reports if report.texts]
    if len(measured) < 2:
        return []
    record = comparison_record(measured)
    path = directory / "results" / f"{COMPARISON}.json"
    figure = directory / "figures" / COMPARISON
    return [write_json(path, record), *comparison_figure(measured, figure)]


def comparison_record(reports: Sequence[TokenizerReport]) -> dict[str, object]:
    """Tokens a character and against English, model by model for each text."""
    return {
        "schema": f"{SCHEMA}/comparison",
        "models": {report.alias: dict(report.about) for report in reports},
        "same_ids": [[a.alias, b.alias] for a, b in combinations(reports, 2) if a.same_ids(b)],
        "texts": {
            name: {
                "label": sample.label,
                "content": sample.content,
                "per_character": {
                    report.alias: to_record(report.texts[name].per_character._asdict())
                    for report in reports
                    if name in report.texts
                },
                "tokens": {
                    report.alias: report.texts[name].tokens
                    for report in reports
                    if name in report.texts
                },
            }
            for name, sample in SAMPLES.items()
            if any(name in report.texts for report in reports)
        },
        "question": {r.alias: r.template.question for r in reports if r.template is not None},
    }


def comparison_lines(
    reports: Sequence[TokenizerReport], width: int = MAX_WIDTH, verbose: bool = False
) -> list[str]:
    """Several models' rates side by side, as lines of at most 80 columns; none for one model."""
    measured = [report for report in reports if report.texts]
    if len(measured) < 2:
        return []
    width = columns(width)
    shown = measured[:_MODELS]
    room = min((MAX_WIDTH - _LABEL) // len(shown), _MODEL)
    lines = [rule(f"{len(measured)} models", ": tokens a character", width)]
    names = "".join(shorten(printable(r.alias), room - 2).rjust(room) for r in shown)
    lines.append(f"{'text':{_LABEL}}{names}")
    for name, sample in SAMPLES.items():
        rates = [r.texts[name].per_character.value if name in r.texts else None for r in shown]
        if any(rate is not None for rate in rates):
            row = "".join(("-" if rate is None else f"{rate:.3f}").rjust(room) for rate in rates)
            lines.append(f"{sample.label:{_LABEL}}{row}")
    for one, other in combinations(measured, 2):
        if one.same_ids(other):
            lines += wrapped(
                f"{printable(one.alias)} and {printable(other.alias)} give the same ids", width
            )
    if len(measured) > len(shown):
        more = plural(len(measured) - len(shown), "further model")
        lines.append(f"{more} in results/{COMPARISON}.json")
    return lines
