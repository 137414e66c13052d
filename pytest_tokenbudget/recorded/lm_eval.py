"""Samples of lm-evaluation-harness: ``samples_TASK_DATE.jsonl``, as ``--log_samples`` writes them.

A line is one document under one filter, so the same generation stands there once a filter. Lines
say neither why generation stopped nor how many tokens it took, and name a token limit only where
the task or ``--gen_kwargs`` sets one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from pytest_tokenbudget.common.outside_files import FileError, read_json
from pytest_tokenbudget.core.engine import Decoding, UnrecordedDecoding
from pytest_tokenbudget.models.thinking_formats import left_open
from pytest_tokenbudget.recorded.records import Fields, Record, RecordingError, Source, expected
from pytest_tokenbudget.tasks.jsonl import json_kind
from pytest_tokenbudget.tasks.problem import NO_CATEGORY

LM_EVAL = "lm-eval"
# The limit of the harness's own engines where nothing sets one.
DEFAULT_LIMIT = 256
# The names that a limit may have there, the first that is set counts.
_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_QUESTIONS = ("question", "problem", "query", "prompt", "input", "instruction", "text")
_DATE = r"\d{4}-\d\d-\d\dT[\d.-]+"
_NAME = re.compile(rf"samples_(?P<task>.+?)_(?P<date>{_DATE})\Z")


def read_lm_eval(path: Path, rows: list[Fields]) -> Source:
    """Read one file of samples.

    Raises:
        RecordingError: If a line is bad, is no generation, or differs between filters.
    """
    match = _NAME.fullmatch(path.stem)
    task = match["task"] if match else path.stem
    results = _results(path, match["date"]) if match else {}
    _check_whole(path, results)
    limit = _run_limit(results)
    first: dict[tuple[str, int], Record] = {}
    lines: dict[tuple[tuple[str, int], str], str] = {}
    for row in rows:
        label = _filter(row)
        for record in _records(row, task, limit):
            known = first.setdefault(record.key, record)
            again = f"{record.where}: document {row.get('doc_id')} is there already"
            before = lines.setdefault((record.key, label), record.where)
            if before != record.where:
                raise RecordingError(f"{again} under the same filter ({before}); remove one")
            if (known.text, known.question, known.answers) != (
                record.text,
                record.question,
                record.answers,
            ):
                raise RecordingError(
                    f"{again} with another text or question ({known.where}); remove one, or read "
                    "the runs apart"
                )
            first[record.key] = replace(known, verdicts={**known.verdicts, **record.verdicts})
    return Source(
        path,
        LM_EVAL,
        model=_model(path, results),
        task=task,
        records=tuple(first.values()),
        decoding=_decoding(rows[0]),
    )


def _records(row: Fields, task: str, limit: int | None) -> Iterator[Record]:
    doc = row.inner("doc")
    if doc is None:
        raise row.missing("doc")
    prompt, opened, settings = _arguments(row)
    texts = _texts(row)
    number = row.count("doc_id")
    if number is None:
        raise row.missing("doc_id")
    named = next((key for key in ("id", "problem_id") if doc.get(key) is not None), None)
    named_limit = next((b for key in _LIMITS if (b := settings.tokens(key, 1)) is not None), limit)
    # With several texts a filter has made one answer of them all.
    verdict = _verdict(row) if len(texts) == 1 else None
    for sample, text in enumerate(texts):
        yield Record(
            where=row.where,
            problem_id=doc.name(named) if named else f"{task}-{number}",
            question=_question(doc, prompt),
            answers=(expected(row.scalar("target")),),
            text=text,
            budget=named_limit or DEFAULT_LIMIT,
            sample=sample,
            category=found if isinstance(found := doc.get("category"), str) else NO_CATEGORY,
            verdicts={} if verdict is None else {_filter(row): verdict},
            opened=opened,
            assumed=named_limit is None,
        )


def _filter(row: Fields) -> str:
    return row.text("filter", "") or "recorded"


def _arguments(row: Fields) -> tuple[str, bool | None, Fields]:
    """The question in the prompt, whether it opens thinking, and the settings of generation."""
    value = row.get("arguments")
    pair: list[object] = []
    if isinstance(value, Mapping):
        first = value.get("gen_args_0")
        if isinstance(first, Mapping):
            pair = [first.get("arg_0"), first.get("arg_1")]
    elif isinstance(value, list) and value and isinstance(value[0], list):
        pair = value[0]  # as versions before 0.4.3 wrote it
    prompt = pair[0] if pair else None
    settings = pair[1] if len(pair) > 1 else None
    if settings is not None and not isinstance(settings, Mapping):
        raise row.bad(
            "arguments",
            f"{json_kind(settings)} where the settings of generation are expected",
            "a task of the type generate_until",
        )
    # Messages are rendered by a server, which may open thinking or not.
    opened = None
    if isinstance(prompt, str) and not prompt.lstrip().startswith("[{"):
        opened = left_open(prompt)
    return _chat_question(prompt), opened, Fields(row.where, settings or {})


def _chat_question(prompt: object) -> str:
    """The prompt; of chat messages written as JSON the last one."""
    if isinstance(prompt, str):
        if prompt.lstrip().startswith("[{"):
            try:
                prompt = json.loads(prompt)
            except (ValueError, RecursionError):
                return str(prompt)
        else:
            return prompt
    if isinstance(prompt, list) and prompt and isinstance(prompt[-1], Mapping):
        return str(prompt[-1].get("content") or "")
    return ""


def _question(doc: Fields, prompt: str) -> str:
    for key in _QUESTIONS:
        value = doc.get(key)
        if isinstance(value, str) and value.strip():
            return value
    if prompt.strip():
        return prompt
    raise doc.missing("question")


def _texts(row: Fields) -> list[str]:
    requests = row.items("resps")
    if not requests:
        raise row.missing("resps")
    repeats = requests[0]
    allowed = "a list with one list of strings (a task of the type generate_until)"
    if not isinstance(repeats, list):
        raise row.bad("resps", f"a list with {json_kind(repeats)}", allowed)
    if len(requests) > 1 or not all(isinstance(text, str) for text in repeats) or not repeats:
        other = next((each for each in repeats if not isinstance(each, str)), None)
        inner = f"{len(requests)} lists" if len(requests) > 1 else json_kind(other)
        found = f"a list with {inner}" if repeats else "a list with an empty list"
        raise row.bad("resps", found, allowed)
    return [str(text) for text in repeats]


def _verdict(row: Fields) -> bool | None:
    names = ["exact_match", *(str(name) for name in row.items("metrics"))]
    for name in names:
        value = row.get(name)
        if isinstance(value, bool | int | Decimal) and value in (0, 1):
            return bool(value)
    return None


def _results(path: Path, date: str) -> Mapping[str, object]:
    """The run's own summary, which lies beside its samples."""
    for beside in sorted(path.parent.glob(f"*_{date}.json")):
        try:
            found = read_json(beside)
        except FileError:
            continue
        if isinstance(found, dict) and "config" in found:
            return found
    return {}


def _check_whole(path: Path, results: Mapping[str, object]) -> None:
    """Refuse samples whose thinking the harness has cut away: their tokens cannot be counted."""
    config = results.get("config")
    settings = config.get("model_args") if isinstance(config, Mapping) else None
    token = settings.get("think_end_token") if isinstance(settings, Mapping) else None
    if token or (isinstance(settings, str) and "think_end_token=" in settings):
        raise RecordingError(
            f"{path}: recorded with think_end_token, so the harness has removed the thinking and "
            "its tokens cannot be counted; record again without it"
        )


def _model(path: Path, results: Mapping[str, object]) -> str:
    name = results.get("model_name")
    if isinstance(name, str) and name:
        # A local directory is known by its last part, a model of a hub by owner and name.
        local = name.startswith((".", "/", "~")) or name.count("/") > 1
        return Path(name).name if local else name
    return path.parent.name.replace("__", "/") if path.parent.name else path.stem


def _run_limit(results: Mapping[str, object]) -> int | None:
    """The limit that was set for the run as a whole; None where none was."""
    config = results.get("config")
    for key in ("gen_kwargs", "model_args"):
        value = config.get(key) if isinstance(config, Mapping) else None
        if isinstance(value, str):
            pairs = (pair.partition("=") for pair in value.split(","))
            value = {name.strip(): number for name, _, number in pairs}
        if not isinstance(value, Mapping):
            continue
        for limit in _LIMITS:
            found = value.get(limit)
            if isinstance(found, int | str) and str(found).strip().isdigit() and int(found) > 0:
                return int(found)
    return None


def _decoding(row: Fields) -> Decoding:
    settings = _arguments(row)[2]
    stop = settings.get("until")
    stops = stop if isinstance(stop, list) else [stop] if stop else []
    if settings.get("do_sample") is None and settings.get("temperature") is None:
        return UnrecordedDecoding()
    key = "temperature" if settings.get("do_sample") is None else "do_sample"
    sampled = bool(settings.get(key))

    return Decoding(
        settings.number("temperature", 1.0) if sampled else 0.0,
        settings.number("top_p", 1.0),
        stop=tuple(map(str, stops)),
    )
