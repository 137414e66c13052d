"""What options may be set to: each parser makes a value from text, or says what is allowed.

Every pytest session loads this module, so it imports nothing that pytest has not loaded already.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pytest_tokenbudget.common.extensions import ENGINES, ExtensionError

if TYPE_CHECKING:
    from pytest_tokenbudget.settings.generation_config import GenerationConfig


STAGES = {"minimal": 2, "quick": 5, "full": None}
DTYPES = ("auto", "float32", "bfloat16", "float16")
APIS = ("auto", "ids", "chat")
GATE_RULES = ("point", "confident", "noninferior")
THINKING_MODES = ("auto", "conservative", "balanced", "aggressive", "disabled")
MODES = ("off", "on", *THINKING_MODES)
QUANTIZATIONS = ("none", "8bit", "4bit")
DEMANDED = ("enforced", "soft")

T = TypeVar("T")


def toml_text(value: object) -> str:
    """The text of an option as a TOML file has its value."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return str(value)


def code(names: Iterable[str]) -> str:
    """Names in Markdown, as the meaning of an option lists them."""
    return ", ".join(f"`{name}`" for name in names)


@dataclass(frozen=True)
class BudgetThreshold:
    """One gate value: a bound, for one budget or (None) for the largest."""

    value: float
    budget: int | None = None

    def __str__(self) -> str:
        return f"{self.value:g}" if self.budget is None else f"{self.budget}:{self.value:g}"


def did_you_mean(value: str, allowed: Iterable[str]) -> str:
    """What may have been meant, for the end of a message; empty if nothing is near."""
    from pytest_tokenbudget.common import messages

    return messages.did_you_mean(value, list(allowed), before="; ")


def choice(allowed: Sequence[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"allowed: {', '.join(allowed)}{did_you_mean(text, allowed)}")
        return text

    return parse


def engine(text: str) -> str:
    """The name of an engine, or ``auto``; another package's is imported, so that it can be used."""
    if text != "auto":
        choice(("auto", *ENGINES.names))(text)
        if text not in ENGINES.own:
            try:
                ENGINES.load(text)
            except ExtensionError as error:
                raise ValueError(str(error)) from None
    return text


def number(
    kind: type[T], low: float, high: float | None = None, words: str = ""
) -> Callable[[str], T]:
    def parse(text: str) -> T:
        limit = f"at least {low:,}" if high is None else f"from {low:,} to {high:,}"
        allowed = f"allowed: {words or ('a whole number' if kind is int else 'a number')} {limit}"
        try:
            value = kind(text)  # type: ignore[call-arg]
        except ValueError:
            raise ValueError(allowed) from None
        if not low <= value <= (float("inf") if high is None else high):  # type: ignore[operator]
            raise ValueError(allowed)
        return value

    return parse


def items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(items(text)))
    if not names:
        raise ValueError("allowed: one or more names, separated by commas")
    return names


def addresses(text: str) -> tuple[str, ...]:
    given = items(text)
    if not given:
        raise ValueError("allowed: one or more addresses, separated by commas")
    from pytest_tokenbudget.settings.endpoints import read_addresses

    return read_addresses(given)


def rising(low: int, words: str) -> Callable[[str], tuple[int, ...]]:
    """Parses whole numbers with commas, which are put in order."""
    parse_one = number(int, low, words=f"{words}, each a whole number of")

    def parse(text: str) -> tuple[int, ...]:
        return tuple(sorted({parse_one(item) for item in items(text)} or {parse_one(text)}))

    return parse


budgets = rising(1, "token counts")
thinking_budgets = rising(0, "token counts")


def modes(text: str) -> tuple[str, ...]:
    choose = choice(MODES)
    return tuple(choose(name) for name in names(text))


def thresholds(text: str) -> tuple[BudgetThreshold, ...]:
    return tuple(_threshold(item) for item in items(text) or [text])


def _threshold(text: str) -> BudgetThreshold:
    head, colon, tail = text.rpartition(":")
    try:
        budget = int(head) if colon else None
        value = float(tail)
    except ValueError:
        raise ValueError("allowed: a share like 0.6, or BUDGET:SHARE like 512:0.6") from None
    if not 0 <= value <= 1:
        hint = f"; for {value:g} % write {value / 100:g}" if 1 < value <= 100 else ""
        raise ValueError(f"allowed: a share from 0 to 1{hint}")
    return BudgetThreshold(value, budget)


def paths(text: str) -> tuple[Path, ...]:
    return tuple(path(item) for item in items(text))


def quantization(text: str) -> str | None:
    return None if text == "auto" else choice(QUANTIZATIONS)(text)


def batch_size(text: str) -> int | None:
    return None if text == "auto" else number(int, 1, words="'auto' or a whole number")(text)


def device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", text, re.ASCII):
        allowed = ("auto", "cpu", "cuda", "cuda:N", "mps")
        raise ValueError(f"allowed: {', '.join(allowed)}{did_you_mean(text, allowed)}")
    return text


def onoff(text: str) -> bool:
    words = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
    if text.lower() not in words:
        raise ValueError(f"allowed: on, off{did_you_mean(text, ('on', 'off'))}")
    return words[text.lower()]


def answers_table(text: str) -> str:
    from importlib.util import find_spec

    form = choice(("none", "parquet", "csv"))(text)
    if form == "parquet" and find_spec("pyarrow") is None:
        raise ValueError("it needs pyarrow, which is not installed: pip install pyarrow, or csv")
    return form


def demands(text: str) -> tuple[str, ...]:
    """What an engine must keep; which ways there are is only known where they are measured."""
    demands = names(text)
    for demand in demands:
        way, colon, verdict = demand.rpartition(":")
        allowed = DEMANDED if colon else ("limits", *DEMANDED)
        if verdict not in allowed or (colon and not way):
            raise ValueError(
                f"allowed: limits, enforced, soft, WAY:enforced, WAY:soft, several with commas"
                f"{did_you_mean(verdict, allowed)}"
            )
    return demands


def path(text: str) -> Path:
    return Path(os.path.expanduser(text))


def generation_config(text: str) -> GenerationConfig:
    """The file of that name, not read yet."""
    from pytest_tokenbudget.settings.generation_config import GenerationConfig

    return GenerationConfig(path(text))


LATEST = "latest"
FALLING = ("accuracy", "completed")  # what a worse run has less of
RISING = ("truncation", "tokens")  # what it has more of
METRICS = (*FALLING, *RISING)
TOLERANCE_RULES = ("confident", "point", "noninferior")
_SAVED_NAME = re.compile(r"[A-Za-z][\w.-]{0,79}", re.ASCII)
_CHANGE = re.compile(r"(?P<sign>[+-]?)(?P<size>\d+(\.\d*)?|\.\d+)(?P<percent>%?)", re.ASCII)
_EXAMPLES = "for example accuracy:-0.02, truncation:+0.01, tokens:+10%, 512:accuracy:-0.02"


@dataclass(frozen=True)
class Tolerance:
    """A change for the worse that is tolerated, and how it is judged.

    Attributes:
        metric: One of ``METRICS``.
        value: The change, below 0 for what falls; of tokens a number or, if ``relative``, a share.
        relative: Whether it is a share of what there was before.
        budget: The budget that it is for; None for the largest that both runs have.
        rule: One of ``TOLERANCE_RULES``. ``confident`` fails only where the whole interval is
            beyond the change, ``noninferior`` unless the whole interval is not, ``point`` goes by
            the estimate.
    """

    metric: str
    value: float
    relative: bool = False
    budget: int | None = None
    rule: str = TOLERANCE_RULES[0]

    @property
    def falls(self) -> bool:
        return self.metric in FALLING

    def __str__(self) -> str:
        before = "" if self.budget is None else f"{self.budget}:"
        sign = "-" if self.falls else "+"
        size = f"{100 * abs(self.value):g}%" if self.relative else f"{abs(self.value):g}"
        after = "" if self.rule == TOLERANCE_RULES[0] else f":{self.rule}"
        return f"{before}{self.metric}:{sign}{size}{after}"


def tolerances(text: str) -> tuple[Tolerance, ...]:
    return tuple(_tolerance(item) for item in items(text) or [text])


def _tolerance(text: str) -> Tolerance:
    parts = text.split(":")
    budget = int(parts.pop(0)) if re.fullmatch(r"\d{1,9}", parts[0], re.ASCII) else None
    rule = parts.pop() if len(parts) > 2 else TOLERANCE_RULES[0]
    if len(parts) != 2 or budget == 0:
        raise ValueError(f"allowed: [BUDGET:]METRIC:CHANGE[:RULE], {_EXAMPLES}")
    metric, change = parts
    for what, given, allowed in (("METRIC", metric, METRICS), ("RULE", rule, TOLERANCE_RULES)):
        if given not in allowed:
            hint = did_you_mean(given, allowed)
            raise ValueError(f"allowed as {what}: {', '.join(allowed)}{hint}")
    return Tolerance(metric, *_change(metric, change), budget, rule)


def _change(metric: str, text: str) -> tuple[float, bool]:
    found = _CHANGE.fullmatch(text)
    sign = "-" if metric in FALLING else "+"
    if found is None or found["sign"] == ("+" if sign == "-" else "-"):
        raise ValueError(
            f"{metric} of a worse run is {'lower' if sign == '-' else 'higher'}; {_EXAMPLES}"
        )
    size, percent = float(found["size"]), bool(found["percent"])
    if size and not found["sign"]:
        raise ValueError(f"allowed with its sign: {metric}:{sign}{text}")
    # A share of 1 would tolerate everything, and is meant as a point.
    if metric != "tokens" and (percent or size >= 1):
        points = "1 point" if size == 1 else f"{size:g} points"
        raise ValueError(
            f"allowed: a share below 1; for {points} write {sign}{round(size / 100, 12):g}"
        )
    size = size / 100 if percent else size
    return (math.copysign(size, -1.0) if sign == "-" else size) + 0.0, percent


def baseline_name(text: str) -> str:
    """A name to save under: what is later asked for must mean one thing."""
    if not _SAVED_NAME.fullmatch(text) or text.lower() == LATEST or text.lower().endswith(".json"):
        raise ValueError(
            f"allowed: a letter, then letters, digits, '.', '_' and '-', but neither {LATEST} nor "
            "a name that ends in .json"
        )
    return text


def baseline(text: str) -> str | Path:
    """What to compare with: a path, or something that was saved."""
    slashes = [slash for slash in (os.sep, os.altsep) if slash]
    if text.lower().endswith(".json") or any(slash in text for slash in slashes):
        return path(text)
    return text
