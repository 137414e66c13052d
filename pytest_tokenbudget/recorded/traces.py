"""From recorded text to traces: tokens are counted, and truncation is read or inferred.

Recorded text has no token ids. A count comes from the record itself, else from a tokenizer; where
in the text each token ends comes from a tokenizer only. One token more than the text has ends a
text that came to its end: the end-of-sequence or what spelled the stop string.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from pytest_tokenbudget.core.trace import StopReason, ThinkingFormat, Trace
from pytest_tokenbudget.core.truncation_signs import unfinished_sentence
from pytest_tokenbudget.engines import Tokenizer
from pytest_tokenbudget.engines.loading import load_tokenizer
from pytest_tokenbudget.models.resolution import ModelSpec, resolve_model
from pytest_tokenbudget.models.thinking_formats import (
    GENERIC,
    Formats,
    builtin_formats,
    detect_in_outputs,
)
from pytest_tokenbudget.recorded.records import Record, Recording, RecordingError
from pytest_tokenbudget.texts.detokenizer import text_and_offsets

# Stands where a token is known to be but not which.
UNKNOWN_ID = -1
# Text that is encoded again may have a few tokens more than were generated.
SLACK = 1.05


class TextTokens(NamedTuple):
    """A text's tokens: their ids, and for each how many characters of the text stand after it."""

    ids: tuple[int, ...]
    offsets: tuple[int, ...]


Count = Callable[[str], TextTokens]


class Counter:
    """Counts with a model's tokenizer."""

    def __init__(self, tokenizer: Tokenizer, name: str) -> None:
        self._tokenizer = tokenizer
        self.name = name

    def __call__(self, text: str) -> TextTokens:
        """The tokens of a text, no special ones added."""
        # Broken output can hold half of a surrogate pair, which no tokenizer takes.
        text = text.encode("utf-16-le", "replace").decode("utf-16-le", "replace")
        wanted = {"return_offsets_mapping": True} if self._tokenizer.is_fast else {}
        encoded = self._tokenizer(text, add_special_tokens=False, verbose=False, **wanted)
        ids = tuple(encoded["input_ids"])
        decoded, offsets = text_and_offsets(self._decode, ids)
        if decoded == text:
            return TextTokens(ids, offsets)
        if not wanted:
            return TextTokens(ids, _spread(len(ids), len(text)))
        reached, ends = 0, []
        for _, end in encoded["offset_mapping"]:
            reached = max(reached, end)
            ends.append(reached)
        return TextTokens(ids, (*ends[:-1], len(text)) if ends else ())

    def _decode(self, ids: Sequence[int]) -> str:
        return str(
            self._tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )


def load_counter(name: str, catalogue: Mapping[str, ModelSpec]) -> Counter:
    """The tokenizer of a model: an alias, a directory, a ``.gguf`` file or a hub id.

    Raises:
        ModelError: If the name leads nowhere.
        EngineError: If the tokenizer cannot be loaded.
    """
    spec = resolve_model(name, catalogue)
    return Counter(load_tokenizer(spec), spec.alias)


@dataclass(frozen=True)
class Measured:
    """A record as a trace, with how that was found.

    Attributes:
        record: The record.
        trace: Its trace; ids that are not known are ``UNKNOWN_ID``.
        truncated: Whether the budget cut it.
        inferred: Whether that was inferred from the count, since the record does not say.
        counted: Whether its tokens were counted with the tokenizer.
        placed: Whether it is known where in the text each token ends; else they are spread evenly.
        differs: By how many tokens the tokenizer's count differs from the record's own.
    """

    record: Record
    trace: Trace
    truncated: bool
    inferred: bool
    counted: bool
    placed: bool
    differs: int = 0


def measure(
    recording: Recording, count: Count | None, tags: ThinkingFormat | None
) -> dict[int | None, tuple[Measured, ...]]:
    """Every record as a trace, by budget; the tags mark thinking, if the recording has any.

    Raises:
        RecordingError: If a record's tokens or truncation can be found in no way.
    """
    counts = _Counts(recording, count)
    found = {
        budget: [_measured(record, counts, tags) for record in records.values()]
        for budget, records in recording.records.items()
    }
    if tags is not None and _opened_by_prompt([one for at in found.values() for one in at], tags):
        for at in found.values():
            at[:] = [_opened(one, tags) for one in at]
    return {budget: tuple(at) for budget, at in found.items()}


def thinking_of(recording: Recording, own: Formats) -> ThinkingFormat | None:
    """How the recording marks thinking, in a format of this package or the user's; None if not."""
    records = list(recording.all_records())
    form = detect_in_outputs((record.text for record in records), own)
    if form is None and (recording.mode != "plain" or any(record.opened for record in records)):
        return builtin_formats()[GENERIC]
    return form


def _opened_by_prompt(measured: Sequence[Measured], tags: ThinkingFormat) -> bool:
    """Whether the prompts opened thinking, of which the records do not say it.

    Outputs that came to their end then close a block that they did not open. Where fewer than half
    do, the tag that stands alone is a slip of the model.
    """
    ended = [
        one.record.text
        for one in measured
        if one.record.opened is None and not (one.truncated or one.record.error)
    ]
    inside = sum(tags.close in t and tags.open not in t.partition(tags.close)[0] for t in ended)
    return bool(inside) and 2 * inside >= len(ended)


def _opened(one: Measured, tags: ThinkingFormat) -> Measured:
    # A text that does not come out of a block that the prompt opened shows no tag at all.
    if one.record.opened is not None or tags.open in one.record.text.partition(tags.close)[0]:
        return one
    return replace(one, trace=replace(one.trace, opened_by_prompt=True))


class _Counts:
    """Tokens of the records' texts, and whether the recorded counts were made the same way."""

    def __init__(self, recording: Recording, count: Count | None) -> None:
        self._recording = recording
        self._count = count
        self._found: dict[str, TextTokens] = {}

    def tokens_of(self, text: str) -> TextTokens | None:
        if self._count is None:
            return None
        if text not in self._found:
            self._found[text] = self._count(text)
        return self._found[text]

    @cached_property
    def lack_end(self) -> bool:
        """Whether recorded counts are of the text encoded again, without the token that ended it.

        Outputs that used less than nine tenths of their budget show it, as they were not cut.
        """
        gaps = [
            record.tokens - len(tokens.ids)
            for record in self._recording.all_records()
            if record.tokens is not None
            and record.budget is not None
            and record.tokens < 0.9 * record.budget
            and not record.hidden
            and (tokens := self.tokens_of(record.text)) is not None
        ]
        return bool(gaps) and 2 * sum(gap == 0 for gap in gaps) > len(gaps)


def _measured(record: Record, counts: _Counts, tags: ThinkingFormat | None) -> Measured:
    if not (record.error or record.text.strip()) and record.truncated is record.tokens is None:
        # A model that hides its reasoning gives such: whether it wrote nothing or was cut while it
        # was thinking cannot be told apart.
        record = replace(
            record,
            error="the text is empty, and neither its tokens nor why it stopped are recorded: "
            "reasoning that is not shown may have been cut",
        )
    tokens = counts.tokens_of(record.text)
    truncated, inferred = _truncated(record, tokens, counts)
    total = _total(record, tokens, truncated)
    if record.text and not total and not record.error:
        raise RecordingError(f"{record.where}: 0 tokens are recorded for a text that is not empty")
    ended = not (truncated or record.error)
    ids, offsets = _places(record, tokens, total, ended)
    opened = (
        bool(record.opened)
        and tags is not None
        and tags.open not in record.text.partition(tags.close)[0]
    )
    reason = StopReason.LENGTH if truncated else StopReason.EOS
    trace = Trace(
        problem_id=record.problem_id,
        sample=record.sample,
        prompt_ids=(),
        output_ids=ids,
        stop_reason=StopReason.ERROR if record.error else reason,
        cap=total if truncated else max(total, record.budget or 1),
        text=record.text,
        offsets=offsets,
        opened_by_prompt=opened,
        error=record.error,
    )
    differs = 0
    if tokens and record.tokens is not None and not record.error:
        differs = len(tokens.ids) + ended + record.hidden - record.tokens
    return Measured(
        record,
        trace,
        truncated,
        inferred,
        counted=record.tokens is None and not record.error,
        placed=tokens is not None,
        differs=differs,
    )


def _truncated(record: Record, tokens: TextTokens | None, counts: _Counts) -> tuple[bool, bool]:
    """Whether the budget cut it, and whether that had to be inferred."""
    if record.error:
        return False, False
    if record.truncated is not None:
        return record.truncated, False
    if record.budget is None:
        raise RecordingError(
            f"{record.where}: neither why it stopped nor its token limit is recorded, so whether "
            "it was cut cannot be known"
        )
    if record.tokens is not None:
        used = record.tokens
        return used >= record.budget or (
            used == record.budget - 1 and _breaks_off(record.text) and counts.lack_end
        ), True
    if record.assumed and tokens and len(tokens.ids) > record.budget * SLACK:
        raise RecordingError(
            f"{record.where}: {len(tokens.ids)} tokens are counted, but no limit is recorded and "
            f"the tool's default is {record.budget}; record again with a limit that is named "
            "(--gen_kwargs max_gen_toks=N)"
        )
    if tokens is None:
        raise RecordingError(
            f"{record.where}: neither why it stopped nor how many tokens it has is recorded; give "
            "the model's tokenizer with --tokenizer NAME|PATH to count them"
        )
    used = len(tokens.ids)
    # Encoded again, a text that was cut can lose a token; one that ended had one more at its end.
    short = used == record.budget - 1 and _breaks_off(record.text)
    return used >= record.budget or short, True


def _breaks_off(text: str) -> bool:
    """Whether the text stops in a sentence; after a declared answer it may have ended anywhere."""
    return unfinished_sentence(text) and "####" not in text.rpartition("\n")[2]


def _total(record: Record, tokens: TextTokens | None, truncated: bool) -> int:
    if record.tokens is not None:
        return record.tokens
    counted = len(tokens.ids) if tokens else 0
    if record.error:
        return counted
    if truncated and record.budget is not None:
        return record.budget
    if tokens is None:
        raise RecordingError(
            f"{record.where}: how many tokens it has is not recorded; give the model's tokenizer "
            "with --tokenizer NAME|PATH to count them"
        )
    if truncated:
        return counted
    return min(counted + 1, record.budget or counted + 1)


def _places(
    record: Record, tokens: TextTokens | None, total: int, ended: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids, and where in the text each ends, for ``total`` tokens."""
    length = len(record.text)
    last = 1 if ended and total > 1 else 0
    hidden = min(record.hidden, max(total - last - 1, 0))
    shown = total - hidden - last
    if tokens is None:
        ids, offsets = (UNKNOWN_ID,) * shown, _spread(shown, length)
    elif len(tokens.ids) == shown:
        ids, offsets = tokens
    else:
        # The record's own count is the model's; the tokenizer's places are stretched to it.
        ids = (UNKNOWN_ID,) * shown
        count = len(tokens.ids)
        offsets = tuple(
            tokens.offsets[-(-(k * count) // shown) - 1] if count else 0
            for k in range(1, shown + 1)
        )
    unseen = (UNKNOWN_ID,) * hidden
    return (
        unseen + ids + (UNKNOWN_ID,) * last,
        (0,) * hidden + offsets + (length,) * last,
    )


def _spread(count: int, length: int) -> tuple[int, ...]:
    return tuple(length * k // count for k in range(1, count + 1))
