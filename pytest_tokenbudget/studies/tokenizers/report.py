"""The tokenizers eval: its result files, its table and sentences on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

from pytest_tokenbudget.common.outside_text import printable
from pytest_tokenbudget.common.text_layout import (
    MAX_WIDTH,
    Table,
    columns,
    count,
    plural,
    rule,
    shorten,
    wrapped,
)
from pytest_tokenbudget.report.files import safe_name, to_record
from pytest_tokenbudget.report.json_files import RunInfo, recorded_header, write_record
from pytest_tokenbudget.stats.intervals import Estimate
from pytest_tokenbudget.studies.tokenizers.analysis import TextRates, TokenizerReport
from pytest_tokenbudget.studies.tokenizers.samples import REFERENCE, SAMPLES

SCHEMA = "tokenbudget-tokenizers/1"
COMPARISON = "tokenizers_comparison"
# Limits, and models that are compared, that there is room for in 80 columns.
_LIMITS, _MODELS = 4, 5
_LABEL, _MODEL = 12, 22


def write_tokenizers(report: TokenizerReport, run: RunInfo, directory: Path) -> list[Path]:
    """Write the result file, and where rates were measured the figure."""
    from pytest_tokenbudget.studies.tokenizers.figure import tokenizers_figure

    stem = f"tokenizers_{safe_name(report.alias)}"
    written = [write_record(directory, stem, tokenizers_record(report, run))]
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
    """What was measured, as lines for a terminal of ``width`` columns."""
    width = columns(width)
    lines = [rule(report.alias, ": tokens of texts and template", width)]
    first, *others = list(_sentences(report)) or ["nothing was measured"]
    lines += [*wrapped(printable(first), width), *_table(report).lines(width)]
    for sentence in others:
        lines += wrapped(printable(sentence), width)
    return lines


def _table(report: TokenizerReport) -> Table:
    fits = report.fits[-_LIMITS:]
    table = Table(
        "text", "tokens a character", "a word", "same", *(count(fit.limit) for fit in fits),
        left=(0, 1), span="characters that fit" if fits else "",
    )  # fmt: skip
    for name, text in report.texts.items():
        table.add(
            SAMPLES[name].label,
            shown_rate(text.per_character),
            *(
                "-" if rate is None else f"{rate.value:.2f}"
                for rate in (text.per_word, text.against)
            ),
            *(_compact(fit.texts[name].characters.value) for fit in fits),
        )
    return table


def shown_rate(rate: Estimate) -> str:
    """Tokens a character with their interval, as tables show them."""
    return f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}]"


def _compact(number: float) -> str:
    return count(number) if number < 1e6 else f"{number / 1e6:.2f}M"


def _sentences(report: TokenizerReport) -> Iterator[str]:
    rates = [(each, each.against.value) for each in report.texts.values() if each.against]
    if len(rates) > 1:
        most, times = max(rates, key=lambda pair: pair[1])
        yield (
            f"the same text takes {times:.1f} times as many tokens in "
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
        if lossy := report.lossy:
            names = ", ".join(f"{SAMPLES[t.name].label} {t.same} of {t.passages}" for t in lossy)
            yield f"not every passage comes back as it was: {names}; {lossy[0].change}"
        else:
            kinds = plural(len(report.round_trips), "kind of text comes", "kinds of text come")
            yield f"{kinds} back unchanged"
    if report.server is not None and report.server.said:
        yield report.server.sentence()
    if report.missing:
        parts = plural(len(report.missing), "part")
        yield f"{parts} not measured in this run: {report.missing[0]}" + (
            ", ..." if len(report.missing) > 1 else ""
        )


def compared(reports: Sequence[TokenizerReport]) -> Sequence[TokenizerReport] | None:
    """The reports that can be put side by side; None where there are fewer than two."""
    measured = [report for report in reports if report.texts]
    return measured if len(measured) > 1 else None


def write_comparison(reports: Sequence[TokenizerReport], directory: Path) -> list[Path]:
    """Write several models' rates side by side, and their figure; nothing for one model."""
    from pytest_tokenbudget.studies.tokenizers.figure import comparison_figure

    measured = compared(reports)
    if measured is None:
        return []
    return [
        write_record(directory, COMPARISON, comparison_record(measured)),
        *comparison_figure(measured, directory / "figures" / COMPARISON),
    ]


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
    measured = compared(reports)
    if measured is None:
        return []
    width = columns(width)
    shown = measured[:_MODELS]
    room = min((MAX_WIDTH - _LABEL) // len(shown), _MODEL)
    table = Table("text", *(shorten(printable(report.alias), room - 2) for report in shown))
    for name, sample in SAMPLES.items():
        rates = [r.texts[name].per_character.value if name in r.texts else None for r in shown]
        if any(rate is not None for rate in rates):
            table.add(sample.label, *("-" if rate is None else f"{rate:.3f}" for rate in rates))
    title = rule(f"{len(measured)} models", ": tokens a character", width)
    lines = [title, *table.lines(width)]
    for one, other in combinations(measured, 2):
        if one.same_ids(other):
            lines += wrapped(
                f"{printable(one.alias)} and {printable(other.alias)} give the same ids", width
            )
    if len(measured) > len(shown):
        more = plural(len(measured) - len(shown), "further model")
        lines.append(f"{more} in results/{COMPARISON}.json")
    return lines
