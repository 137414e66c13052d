"""Logs of Inspect in JSON: ``--log-format json``, or ``inspect log dump`` of an ``.eval`` file."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

from pytest_tokenbudget.core.engine import Decoding, UnrecordedDecoding
from pytest_tokenbudget.core.trace import ThinkingFormat
from pytest_tokenbudget.recorded.records import (
    Fields,
    Record,
    RecordingError,
    Source,
    expected,
    number_text,
)
from pytest_tokenbudget.tasks.jsonl import json_kind
from pytest_tokenbudget.tasks.problem import NO_CATEGORY

INSPECT = "inspect"
# Its words for why generation stopped; None where that leaves truncation open.
_STOPS = {
    "stop": False,
    "length": True,  # before "max_tokens" took its place
    "max_tokens": True,
    "model_length": True,
    "tool_calls": False,
    "content_filter": False,
    "unknown": None,
}
_GRADES = {"C": True, "I": False}


def read_inspect(path: Path, log: Fields) -> Source:
    """Read one log.

    Raises:
        RecordingError: If it is no log, holds no samples, or one is bad.
    """
    about = log.inner("eval")
    if about is None:
        raise log.missing("eval")
    plan = log.inner("plan")
    configs = [
        config
        for config in (
            about.inner("model_generate_config"),
            plan.inner("config") if plan else None,
        )
        if config
    ]
    budget = next((b for c in configs if (b := c.tokens("max_tokens", 1)) is not None), None)
    samples = log.items("samples")
    if not samples:
        raise RecordingError(
            f"{path}: the log holds no samples; write it with --log-samples, and read the log "
            "itself and not its header"
        )
    return Source(
        path,
        INSPECT,
        model=about.text("model"),
        task=about.text("task", "").rpartition("/")[2] or "inspect",
        records=tuple(
            _record(Fields(f"{path}, sample {number}", sample), budget)
            for number, sample in enumerate(samples, 1)
        ),
        decoding=_decoding(configs),
    )


def _record(row: Fields, budget: int | None) -> Record:
    output = row.inner("output") or Fields(row.where, {})
    usage = output.inner("usage") or Fields(row.where, {})
    choices = output.items("choices")
    error, text, stop, shown = _error(row, output), "", "", False
    for message in row.items("messages"):
        if isinstance(message, Mapping) and message.get("role") == "tool":
            raise RecordingError(
                f"{row.where}: the model called tools, so it wrote more than one text; only "
                "samples that are one generation can be read"
            )
    if choices:
        choice = Fields(row.where, choices[0])
        stop = choice.text("stop_reason", "unknown")
        message = choice.inner("message")
        if message is None:
            raise choice.missing("message")
        text, shown = _text(message)
    elif not error:
        error = "no output was recorded"
    if stop and stop not in _STOPS:
        raise row.bad("stop_reason", f"{stop!r}", ", ".join(_STOPS))
    metadata = row.get("metadata")
    category = metadata.get("category") if isinstance(metadata, Mapping) else None
    tokens = usage.tokens("output_tokens") or None  # 0 is what a provider without a count gives
    return Record(
        where=row.where,
        problem_id=row.name("id"),
        question=_question(row),
        answers=_targets(row),
        text=text,
        budget=_limit(row) or budget,
        sample=(row.count("epoch", at_least=1) or 1) - 1,
        category=category if isinstance(category, str) and category else NO_CATEGORY,
        tokens=tokens,
        hidden=0 if shown else usage.tokens("reasoning_tokens") or 0,
        truncated=None if error else _STOPS[stop],
        verdicts={} if error else _verdicts(row),
        error=error,
    )


def _limit(row: Fields) -> int | None:
    """The token limit of the last generation, as its event says: what really was in force."""
    mine = row.get("output")
    for event in reversed(row.items("events")):
        if isinstance(event, Mapping) and event.get("event") == "model":
            config = Fields(row.where, event).inner("config")
            output = event.get("output")
            # A scorer may have asked another model.
            if not config or not isinstance(mine, Mapping) or not isinstance(output, Mapping):
                continue
            if mine.get("completion") == output.get("completion"):
                return config.tokens("max_tokens", 1)
    return None


def _error(row: Fields, output: Fields) -> str:
    failed = row.get("error") or output.get("error")
    if failed is None:
        return ""
    if isinstance(failed, Mapping):
        failed = failed.get("message")
    return str(failed or "recorded as an error")


def _text(message: Fields) -> tuple[str, bool]:
    """The text of a message, and whether its reasoning is shown in it."""
    content = message.get("content")
    if isinstance(content, str):
        return content, False
    tags, reasoning, texts = ThinkingFormat(), [], []
    for number, part in enumerate(message.items("content"), 1):
        fields = Fields(f"{message.where}, content part {number}", part)
        match fields.text("type"):
            case "reasoning":
                # What a provider has encrypted is not what the model wrote.
                if not fields.flag("redacted"):
                    reasoning.append(fields.text("reasoning", "", empty=True))
            case "text":
                texts.append(fields.text("text", "", empty=True))
    thought, answer = "\n".join(filter(None, reasoning)), "".join(texts)
    if not thought:
        return answer, False
    if not answer:
        return f"{tags.open}\n{thought}", True
    return f"{tags.open}\n{thought}\n{tags.close}\n\n{answer}", True


def _question(row: Fields) -> str:
    value = row.get("input")
    if isinstance(value, str) and value.strip():
        return value
    users = [
        Fields(f"{row.where}, message {number}", message)
        for number, message in enumerate(row.items("input") if value else (), 1)
    ]
    for message in reversed(users):
        if message.get("role") == "user":
            text, _ = _text(message)
            if text.strip():
                return text
    raise row.bad("input", "empty", "a question, or messages with one of the user")


def _targets(row: Fields) -> tuple[str, ...]:
    value = row.get("target")
    values = value if isinstance(value, list) else [value]
    targets = []
    for each in values:
        text = number_text(each) or (each.strip() if isinstance(each, str) else "")
        if not text:
            found = "empty" if isinstance(each, str) else json_kind(each)
            raise row.bad("target", found, "a string that is not empty, or a list of such")
        targets.append(expected(text))
    if not targets:
        raise row.bad("target", "an empty list", "a string that is not empty, or a list of such")
    return tuple(targets)


def _verdicts(row: Fields) -> dict[str, bool]:
    """Scores that say right or wrong; partial ones say neither."""
    verdicts = {}
    scores = row.inner("scores")
    for name, score in (scores.found if scores else {}).items():
        value = Fields(row.where, score).get("value")
        if isinstance(value, str):
            value = _GRADES.get(value)
        if isinstance(value, bool | int | Decimal) and value in (0, 1):
            verdicts[name] = bool(value)
    return verdicts


def _decoding(configs: list[Fields]) -> Decoding:
    def first(key: str, otherwise: float) -> float:
        for config in configs:
            text = number_text(config.get(key))
            if text is not None:
                return float(text)
        return otherwise

    if all(config.get("temperature") is None for config in configs):
        return UnrecordedDecoding()  # the provider's default, whatever that was

    stops = next((c.items("stop_seqs") for c in configs if c.get("stop_seqs")), ())
    return Decoding(
        first("temperature", 0.0),
        first("top_p", 1.0),
        int(first("seed", 0)),
        tuple(map(str, stops)),
    )
