"""What the tokenizers eval found of one model, put together from its tests' records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from pytest_tokenbudget.common.text_layout import plural
from pytest_tokenbudget.stats.intervals import Estimate, mean_estimate
from pytest_tokenbudget.studies.tokenizers.samples import SAMPLES

KIND = "tokenizers"
# A model's own context stands among the limits under this name.
CONTEXT = "context"
LIMITS: tuple[int | str, ...] = (512, 2048, 8192, 32768, CONTEXT)


@dataclass(frozen=True)
class TextRates:
    """How many tokens one kind of text takes.

    Attributes:
        name: Name of the sample.
        passages: How many passages.
        characters: Unicode characters (code points) of all passages.
        bytes: The same in UTF-8.
        words: Words; None where the language writes them without spaces.
        tokens: Tokens of all passages.
        per_character: Tokens a character; the interval is over passages.
        per_word: Tokens a word; None without words.
        least: Tokens a character of the passage with the fewest.
        most: Tokens a character of the passage with the most.
        against: Tokens of the same passages in the reference language make 1; None where the text
            is no translation.
        digest: Tells whether another tokenizer gives the same ids.
    """

    name: str
    passages: int
    characters: int
    bytes: int
    words: int | None
    tokens: int
    per_character: Estimate
    per_word: Estimate | None
    least: float
    most: float
    against: Estimate | None
    digest: str


@dataclass(frozen=True)
class RoundTrip:
    """Whether a kind of text comes back from its ids as it was.

    Attributes:
        name: Name of the sample.
        passages: How many passages.
        same: How many came back.
        change: What the first change is, for people; empty where there is none.
    """

    name: str
    passages: int
    same: int
    change: str = ""

    @property
    def lossless(self) -> bool:
        """Whether all came back."""
        return self.same == self.passages


@dataclass(frozen=True)
class TemplateCost:
    """What the chat template adds to what messages say, in tokens.

    Attributes:
        question: A prompt of one user message, without what the message says.
        turn: Each further exchange: an answer and the next question, without what they say.
        system: A system message, without what it says; below 0 where it takes the place of a
            longer one that the template writes by itself.
        empty: A conversation without messages.
        opening: What stands before the first message: the beginning of the sequence, and a system
            message that nobody wrote.
        user: A user message.
        assistant: An answer in the history.
        generation: What asks for an answer, at the end.
        by_thinking: ``question`` with thinking switched ``on`` and ``off``; empty without a switch.
        bos: Whether the prompt begins with the beginning-of-sequence token; None where the
            tokenizer has none, or is not here.
        before: The text before the first question.
        checked: Conversations that were rendered to see whether costs add up.
        exact: How many have exactly the sum.
        largest: The largest difference from the sum, with its sign.
        refused: What the template refuses, with its reason. The number of what it refuses is None.
    """

    question: int
    turn: int | None
    system: int | None
    empty: int | None
    opening: int | None
    user: int | None
    assistant: int | None
    generation: int | None
    by_thinking: Mapping[str, int]
    bos: bool | None
    before: str
    checked: int
    exact: int
    largest: int
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def additive(self) -> bool:
        """Whether the parts add up in every conversation that was tried."""
        return self.exact == self.checked

    def sentence(self) -> str:
        """What one pays for, in a sentence."""
        asks = (
            ""
            if self.generation is None
            else f", {self.generation:,} of them for the head of the answer"
        )
        parts = [f"one question costs {plural(self.question, 'token')} beside its text{asks}"]
        if self.turn is not None:
            parts.append(f"each further exchange {self.turn:,}")
        if self.system is not None:
            less = " less than none" if self.system < 0 else ""
            parts.append(f"a system message {abs(self.system):,}{less}")
        if self.opening:
            parts.append(f"{self.opening:,} stand before the first message")
        return "; ".join(parts)

    def additive_sentence(self) -> str:
        """Whether the parts add up."""
        if self.additive:
            return f"the parts add up exactly in {plural(self.checked, 'conversation')}"
        return (
            f"the parts do not add up: exact in {self.exact} of {self.checked} conversations, "
            f"the largest difference {self.largest:+,}; count whole conversations"
        )


@dataclass(frozen=True)
class CharacterFit:
    """How many characters fit a number of tokens.

    Attributes:
        characters: The estimate for a long text, with its interval; NaN as its upper end where
            nothing bounds it.
        fewest: As many fit even if all is like the passage with the most tokens a character.
        most: As many fit if all is like the passage with the fewest.
    """

    characters: Estimate
    fewest: int
    most: int


@dataclass(frozen=True)
class LimitFits:
    """How much text fits a limit.

    Attributes:
        name: The limit as it is named among ``LIMITS``.
        limit: Tokens of the prompt.
        overhead: What the chat template takes of them.
        texts: What fits of each kind of text, by the sample's name.
    """

    name: str
    limit: int
    overhead: int
    texts: Mapping[str, CharacterFit]


@dataclass(frozen=True)
class ServerCounts:
    """Whether a server counts the tokens of prompts as they were counted before sending.

    Attributes:
        asked: Conversations that were sent.
        said: How many of them the server told the count of.
        agreed: How many counts were the same.
        ours: What was counted here, conversation by conversation.
        theirs: What the server counted; None where it did not say.
    """

    asked: int
    said: int
    agreed: int
    ours: tuple[int, ...]
    theirs: tuple[int | None, ...]

    def sentence(self) -> str:
        """The result, for people."""
        if self.agreed == self.said:
            return f"its server counts the same tokens in {plural(self.said, 'prompt')}"
        pairs = zip(self.ours, self.theirs, strict=True)
        ours, theirs = next((a, b) for a, b in pairs if b not in (None, a))
        return (
            f"its server counts otherwise in {self.said - self.agreed} of {self.said} prompts, "
            f"{theirs:,} tokens where {ours:,} were counted here: its chat template or its "
            "tokenizer is another one"
        )


@dataclass(frozen=True)
class TokenizerReport:
    """All that was measured of one model's tokenizer and chat template.

    Attributes:
        alias: The model's name.
        about: What else is known of it, as plain values.
        texts: Rates by the sample's name, in the order of ``SAMPLES``.
        round_trips: Whether texts come back, by the sample's name.
        template: What the chat template costs; None where that was not measured.
        no_template: Why it was not.
        fits: How much fits each limit, in the order of ``LIMITS``.
        server: What its server counts; None where that was not asked.
        missing: Parts that this run did not measure.
    """

    alias: str
    about: Mapping[str, Any]
    texts: Mapping[str, TextRates]
    round_trips: Mapping[str, RoundTrip]
    template: TemplateCost | None = None
    no_template: str = ""
    fits: tuple[LimitFits, ...] = ()
    server: ServerCounts | None = None
    missing: tuple[str, ...] = ()

    kind: ClassVar[str] = KIND
    variant: ClassVar[str] = ""

    @property
    def lossy(self) -> tuple[RoundTrip, ...]:
        """Texts that do not all come back."""
        return tuple(each for each in self.round_trips.values() if not each.lossless)

    def same_ids(self, other: TokenizerReport) -> bool:
        """Whether both give the same ids for all texts, as far as both were measured on all."""
        mine = {name: each.digest for name, each in self.texts.items()}
        return len(mine) == len(SAMPLES) and mine == {
            name: each.digest for name, each in other.texts.items()
        }


def ratio_estimate(above: ArrayLike, below: ArrayLike, confidence: float = 0.95) -> Estimate:
    """The ratio of two sums over passages, with the linearised interval and the t quantile.

    The ratio is that of the sums, as in one long text, not the mean of ratios: short passages do
    not count for more than they hold. Passages are drawn independently and are the pieces of
    evidence: an interval says how the rate would differ in other texts of the same kind, as far as
    a few passages can say that.

    Raises:
        ValueError: If there is nothing to divide by, or the lengths differ.
    """
    over = np.asarray(above, dtype=np.float64).ravel()
    under = np.asarray(below, dtype=np.float64).ravel()
    if over.size != under.size or over.size == 0 or under.sum() <= 0:
        raise ValueError(f"a ratio needs pairs with a sum above 0: {over.size} and {under.size}")
    ratio = float(over.sum() / under.sum())
    left = mean_estimate((over - ratio * under)[:, None], confidence)
    half = (left.high - left.value) / float(under.mean())
    return Estimate(ratio, max(ratio - half, 0.0), ratio + half, left.n)


def characters_that_fit(
    room: int, tokens: Sequence[int], characters: Sequence[int], confidence: float = 0.95
) -> CharacterFit:
    """How many characters of a kind of text fit ``room`` tokens, none where it is not above 0.

    ``tokens`` and ``characters`` are those of each passage of that kind.
    """
    rate = ratio_estimate(tokens, characters, confidence)
    room = max(room, 0)
    rates = [t / c for t, c in zip(tokens, characters, strict=True)]
    found = Estimate(
        math.floor(room / rate.value),
        math.floor(room / rate.high) if math.isfinite(rate.high) else math.nan,
        math.floor(room / rate.low) if rate.low > 0 else math.nan,
        rate.n,
    )
    least = min(rates)
    most = math.floor(room / least) if least > 0 else math.floor(room / rate.value)
    return CharacterFit(found, math.floor(room / max(rates)), most)


def reports_of(records: Iterable[Mapping[str, Any]]) -> list[TokenizerReport]:
    """The reports that tests' records make, one a model, in the order of their coming."""
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if (part := record.get(KIND)) is not None:
            parts.setdefault(part["about"]["model"], []).append(part)
    return [_report(part) for part in parts.values()]


def _report(parts: list[Mapping[str, Any]]) -> TokenizerReport:
    # The last one of a name counts: a test that failed may have been run again.
    texts = {p["text"]["name"]: _text_from(p["text"]) for p in parts if "text" in p}
    trips = {
        p["round_trip"]["name"]: RoundTrip(**_known(RoundTrip, p["round_trip"]))
        for p in parts
        if "round_trip" in p
    }
    fits = {p["fits"]["name"]: _fits_from(p["fits"]) for p in parts if "fits" in p}
    templates = [
        TemplateCost(**_known(TemplateCost, p["template"])) for p in parts if p.get("template")
    ]
    servers = [_server_from(p["server"]) for p in parts if "server" in p]
    reasons = [p["no_template"] for p in parts if "no_template" in p]
    return TokenizerReport(
        alias=parts[0]["about"]["model"],
        about=parts[0]["about"],
        texts={name: texts[name] for name in SAMPLES if name in texts},
        round_trips={name: trips[name] for name in SAMPLES if name in trips},
        template=templates[-1] if templates else None,
        no_template=reasons[-1] if reasons else "",
        fits=tuple(fits[str(name)] for name in LIMITS if str(name) in fits),
        server=servers[-1] if servers else None,
        missing=(
            *(f"rate of {name}" for name in SAMPLES if name not in texts),
            *(f"round trip of {name}" for name in SAMPLES if name not in trips),
            *([] if templates or reasons else ["cost of the chat template"]),
            *([] if fits else ["characters that fit"]),
        ),
    )


def _text_from(record: Mapping[str, Any]) -> TextRates:
    rates = {
        name: None if record[name] is None else _estimate(record[name])
        for name in ("per_character", "per_word", "against")
    }
    return TextRates(**_known(TextRates, record) | rates)


def _fits_from(record: Mapping[str, Any]) -> LimitFits:
    texts = {
        name: CharacterFit(_estimate(fit["characters"]), fit["fewest"], fit["most"])
        for name, fit in record["texts"].items()
    }
    return LimitFits(**_known(LimitFits, record) | {"texts": texts})


def _server_from(record: Mapping[str, Any]) -> ServerCounts:
    counts = {name: tuple(record[name]) for name in ("ours", "theirs")}
    return ServerCounts(**_known(ServerCounts, record) | counts)


def _estimate(record: Mapping[str, Any]) -> Estimate:
    value, low, high = (
        math.nan if record[name] is None else record[name] for name in ("value", "low", "high")
    )
    return Estimate(value, low, high, record["n"])


def _known(kind: type, record: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: record[field.name] for field in fields(kind) if field.name in record}
