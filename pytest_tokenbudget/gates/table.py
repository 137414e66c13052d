"""The gates of a run: from the settings file and the options to one gate a threshold."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_tokenbudget.common.messages import kind_of, nearest
from pytest_tokenbudget.settings.config_file import ConfigError, UserConfig
from pytest_tokenbudget.settings.option_values import demands
from pytest_tokenbudget.settings.options import Settings

if TYPE_CHECKING:
    from pytest_tokenbudget.stats.decision_rules import MetricUnit, Threshold

ALL = "all"
CONFORMANCE = "min_conformance"
SATURATION = "max_saturation_budget"
ERRORS = "max_error_rate"
P95 = "max_p95_tokens"


class Metric(NamedTuple):
    """What a threshold can be on.

    Attributes:
        name: What is measured, for people.
        unit: Name of its unit; empty for a verdict in words.
    """

    name: str
    unit: str


METRICS: dict[str, Metric] = {
    "min_accuracy": Metric("accuracy", "share"),
    "min_accuracy_completed": Metric("accuracy of completed answers", "share"),
    "max_truncation": Metric("truncation", "share"),
    "max_truncated_in_thinking": Metric("truncation in thinking", "share"),
    "max_mean_tokens": Metric("mean length", "tokens"),
    P95: Metric("95th percentile of length", "tokens"),
    SATURATION: Metric("saturation", "tokens"),
    CONFORMANCE: Metric("conformance", ""),
    ERRORS: Metric("engine errors", "share"),
}
# What there is one of for a model, and selectors that would divide it.
UNDIVIDED = {SATURATION: ("category", "budget"), CONFORMANCE: ("category", "budget", "mode")}
SELECTORS = ("eval", "model", "task", "category", "budget", "mode")
DECIDING = ("rule", "margin", "confidence", "change", "allow_inconclusive")
KEYS = ("name", *SELECTORS, *METRICS, *DECIDING, "required")


@dataclass(frozen=True)
class Gate:
    """One threshold, and what it applies to.

    Attributes:
        label: What it is called: where it stands, or the name that it was given.
        metric: Key of ``METRICS``.
        threshold: The least or the most that is allowed; for conformance what is demanded.
        evals: Evals that it applies to, by file or marker; empty for all that measure it.
        models: Patterns of models; empty for all.
        tasks: Patterns of tasks; empty for all.
        categories: Patterns of the problems' categories; empty for all problems.
        budgets: Budgets that it applies to; empty for the largest.
        every: Whether it applies to every budget.
        modes: Modes that it applies to; empty for what an eval judges by default.
        rule: How it decides.
        margin: By how much ``noninferior`` lets the threshold be missed.
        confidence: Two-sided confidence of the interval.
        change: The change that one wants to find.
        allow_inconclusive: Whether an inconclusive verdict keeps it.
        required: Whether every run must judge it.
        file: The settings file; empty where it is an option.
        line: Its line there, if that is known.
        option: The option that it came from; empty for the settings file.
    """

    label: str
    metric: str
    threshold: float | str
    evals: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    budgets: tuple[int, ...] = ()
    every: bool = False
    modes: tuple[str, ...] = ()
    rule: str = "point"
    margin: float = 0.0
    confidence: float = 0.95
    change: float | None = None
    allow_inconclusive: bool = False
    required: bool = True
    file: str = ""
    line: int | None = None
    option: str = ""

    @property
    def measured(self) -> Metric:
        """What it is on."""
        return METRICS[self.metric]

    @property
    def at_least(self) -> bool:
        return self.metric.startswith("min_")

    @property
    def unit(self) -> MetricUnit:
        """The unit of a number."""
        from pytest_tokenbudget.stats.decision_rules import MetricUnit

        return MetricUnit(self.measured.unit)

    def demand(self, threshold: float | None = None, margin: float | None = None) -> Threshold:
        """What it demands of a number.

        Args:
            threshold: Instead of the gate's, where it is on something derived.
            margin: The same for the margin.
        """
        from pytest_tokenbudget.stats.decision_rules import DecisionRule, Threshold

        assert threshold is not None or not isinstance(self.threshold, str)
        return Threshold(
            float(self.threshold) if threshold is None else threshold,
            self.at_least,
            DecisionRule(self.rule),
            self.margin if margin is None else margin,
            self.confidence,
            self.change,
            self.allow_inconclusive,
        )

    def shown(self) -> str:
        """The threshold, for people."""
        if isinstance(self.threshold, str):
            return self.threshold
        return f"{'>=' if self.at_least else '<='} {self.unit.limit(self.threshold)}" + (
            self.unit.suffix
        )

    def where(self) -> str:
        """What it applies to, for people; empty for everything."""
        budget = [ALL] if self.every else [f"{b:,}" for b in self.budgets]
        parts = zip(
            SELECTORS,
            (self.evals, self.models, self.tasks, self.categories, budget, self.modes),
            strict=True,
        )
        return ", ".join(f"{name} {' or '.join(given)}" for name, given in parts if given)


def gates_of(settings: Settings, user: UserConfig) -> tuple[Gate, ...]:
    """All gates of a run: the settings file's, then the options'.

    Raises:
        ConfigError: If one cannot be used; the message names the gate, the key and what is allowed.
    """
    found: list[Gate] = []
    lines = _lines(user.path) if user.gates else []
    for number, table in enumerate(user.gates):
        line = lines[number] if number < len(lines) else None
        found += _from_table(number, table, line, settings, user)
    for name in ("min_accuracy", "max_truncation"):
        option = f"--{name.replace('_', '-')}"
        found += [
            _checked(
                option,
                Gate(
                    label=f"{option} {threshold}",
                    metric=name,
                    threshold=threshold.value,
                    budgets=() if threshold.budget is None else (threshold.budget,),
                    option=option,
                    **_deciding({}, "share", settings),
                ),
            )
            for threshold in getattr(settings, name)
        ]
    found += [
        Gate(f"--min-conformance {demand}", CONFORMANCE, demand, option="--min-conformance")
        for demand in settings.min_conformance
    ]
    _name_apart(found, user.where)
    return tuple(found)


def _lines(path: Path | None) -> list[int]:
    """Lines of the settings file at which the tables of gates begin."""
    if path is None:
        return []
    text = path.read_text(encoding="utf-8-sig").splitlines()
    header = re.compile(r"\s*\[\[\s*(tool\.tokenbudget\.)?gates\s*\]\]")
    return [number for number, line in enumerate(text, 1) if header.match(line)]


def _from_table(
    number: int, table: Mapping[str, object], line: int | None, settings: Settings, user: UserConfig
) -> list[Gate]:
    where = f"{user.where}: gate {number + 1}" + (f" (line {line})" if line else "")
    unknown = [key for key in table if key not in KEYS]
    if unknown:
        hints = [
            f"{key!r} (did you mean {close[0]!r}?)"
            if (close := nearest(key, KEYS, count=1))
            else repr(key)
            for key in unknown
        ]
        word = "unknown key" if len(unknown) == 1 else "unknown keys"
        raise ConfigError(f"{where}: {word} {', '.join(hints)}; allowed are {', '.join(KEYS)}")
    metrics = [key for key in table if key in METRICS]
    if not metrics:
        raise ConfigError(f"{where}: there is no threshold; allowed are {', '.join(METRICS)}")
    name = str(table.get("name", "")) or f"gate-{number + 1}"
    budgets, every = _budgets(where, table.get("budget", []))
    named = {
        selector: _texts(f"{where}: {selector}", table.get(selector, []))
        for selector in SELECTORS
        if selector != "budget"
    }
    narrowed = [key for key, given in named.items() if given]
    narrowed += ["budget"] if budgets or every else []
    found = []
    for metric in metrics:
        if not_for := [key for key in UNDIVIDED.get(metric, ()) if key in narrowed]:
            raise ConfigError(
                f"{where}: {not_for[0]} cannot be used with {metric}, which is judged on the whole "
                "of a model's run" + ("; give it a table of its own" if len(metrics) > 1 else "")
            )
        for threshold in _thresholds(f"{where}: {metric}", metric, table[metric]):
            label = name if len(metrics) == 1 and "name" in table else f"{name}.{metric}"
            if metric == CONFORMANCE and isinstance(table[metric], list):
                label += f" {threshold}"
            gate = Gate(
                label=label,
                metric=metric,
                threshold=threshold,
                evals=named["eval"],
                models=named["model"],
                tasks=named["task"],
                categories=named["category"],
                modes=named["mode"],
                budgets=budgets,
                every=every,
                required=_flag(f"{where}: required", table.get("required", True)),
                file=str(user.path or ""),
                line=line,
                **_deciding(table, METRICS[metric].unit, settings, where, metric),
            )
            found.append(_checked(f"{where}: {metric}", gate))
    return found


def _thresholds(where: str, metric: str, value: object) -> list[float | str]:
    if metric == CONFORMANCE:
        words = _texts(where, value)
        try:
            return [*demands(",".join(words))]
        except ValueError as error:
            raise ConfigError(f"{where}: {value!r} cannot be used; {error}") from None
    if METRICS[metric].unit == "tokens":
        return [_number(where, value, 0, None, "a number of tokens")]
    return [_number(where, value, 0, 1, "a share from 0 to 1")]


def _deciding(
    table: Mapping[str, object], unit: str, settings: Settings, where: str = "", metric: str = ""
) -> dict[str, Any]:
    """How a gate decides: as it says, else as the options do."""
    if metric == CONFORMANCE:
        told = [key for key in DECIDING if key in table]
        if told and len([key for key in table if key in METRICS]) == 1:
            raise ConfigError(
                f"{where}: {told[0]} cannot be used with {CONFORMANCE}, which rests on verdicts "
                "with evidence of their own"
            )
        return {}
    rules = ("point", "confident", "noninferior")
    rule = table.get("rule", settings.gate_rule)
    if rule not in rules:
        close = nearest(str(rule), rules, count=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"{where}: rule {rule!r} cannot be used; allowed are {', '.join(rules)}{hint}"
        )
    margin, change = table.get("margin"), table.get("change")
    if margin is None and rule == "noninferior" and unit == "share":
        margin = settings.gate_margin
    most = 1.0 if unit == "share" else None
    allowed = "a share from 0 to 1" if unit == "share" else "a number of tokens"
    allow = table.get("allow_inconclusive", settings.allow_inconclusive and rule == "confident")
    if metric == P95 and change is not None:
        raise ConfigError(
            f"{where}: change cannot be used with {P95}, which is judged by the share of longer "
            "answers"
        )
    if metric == SATURATION and (margin is not None or change is not None):
        told_key = "margin" if margin is not None and "margin" in table else "change"
        if told_key in table:
            raise ConfigError(
                f"{where}: {told_key} cannot be used with {SATURATION}, whose margin is "
                "--saturation-margin"
            )
        margin = None
    return {
        "rule": rule,
        "margin": 0.0 if margin is None else _number(f"{where}: margin", margin, 0, most, allowed),
        "confidence": _number(
            f"{where}: confidence",
            table.get("confidence", settings.gate_confidence),
            0.5,
            0.9999,
            "a share from 0.5 to 0.9999",
        ),
        "change": None if change is None else _number(f"{where}: change", change, 0, most, allowed),
        "allow_inconclusive": _flag(f"{where}: allow_inconclusive", allow),
    }


def _checked(where: str, gate: Gate) -> Gate:
    """The gate, once its parts are seen to go together."""
    if isinstance(gate.threshold, str):
        return gate
    try:
        if gate.metric == SATURATION:
            gate.demand(0.0, 0.02 if gate.rule == "noninferior" else 0.0)
        else:
            gate.demand()
    except ValueError as error:
        tokens = gate.measured.unit == "tokens" and "needs a margin" in str(error)
        raise ConfigError(f"{where}: {error}{', in tokens' if tokens else ''}") from None
    return gate


def _budgets(where: str, value: object) -> tuple[tuple[int, ...], bool]:
    if value == ALL:
        return (), True
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values):
        raise ConfigError(
            f"{where}: budget {kind_of(value)} cannot be used; allowed: a token count, an array of "
            f'them, or "{ALL}"; without it the largest is meant'
        )
    return tuple(sorted(set(values))), False


def _texts(where: str, value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(v, str) and v.strip() for v in values):
        raise ConfigError(
            f"{where}: {kind_of(value)} cannot be used; allowed: text, or an array of it"
        )
    return tuple(dict.fromkeys(values))


def _number(where: str, value: object, low: float, high: float | None, allowed: str) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not (low <= value <= (sys.float_info.max if high is None else high))
    ):
        hint = ""
        if high == 1 and isinstance(value, int | float) and 1 < value <= 100:
            hint = f"; for {value:g} % write {value / 100:g}"
        raise ConfigError(f"{where}: {kind_of(value)} cannot be used; allowed: {allowed}{hint}")
    return float(value)


def _flag(where: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: {kind_of(value)} cannot be used; allowed: true or false")
    return value


def _name_apart(gates: Sequence[Gate], file: str) -> None:
    seen: set[str] = set()
    for gate in gates:
        if gate.label in seen and not gate.option:
            raise ConfigError(
                f"{file}: two gates are called {gate.label!r}; give each a name of its own"
            )
        seen.add(gate.label)
