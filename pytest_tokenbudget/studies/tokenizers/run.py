"""What the tokenizers eval measures of one model; no weights are loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tokenbudget.engines.planning import SetupError

if TYPE_CHECKING:
    from pytest_tokenbudget.engines.token_counter import TokenCounter
    from pytest_tokenbudget.session import Session
    from pytest_tokenbudget.studies.tokenizers.analysis import (
        LimitFits,
        RoundTrip,
        ServerCounts,
        TemplateCost,
        TextRates,
    )

# Characters of a change that are shown.
_SHOWN = 24


class Tokenization:
    """Measures one model's tokenizer and chat template, each part once.

    Args:
        session: The state of this pytest process.
        counter: Counts the model's tokens.
    """

    def __init__(self, session: Session, counter: TokenCounter) -> None:
        self._session, self._counter = session, counter
        self._ids: dict[str, list[tuple[int, ...]]] = {}

    def record(self, **found: object) -> dict[str, object]:
        """What ``record_metrics`` takes as ``tokenizers``: the result, and of what it is."""
        return {"about": self.about, **found}

    @cached_property
    def about(self) -> Mapping[str, Any]:
        """Model and tokenizer, as result files name them."""
        from pytest_tokenbudget.engines.text import ModelText

        counter = self._counter
        spec, tokens = counter.spec, counter.tokens
        here = tokens.tokenizer if isinstance(tokens, ModelText) else None
        with _or_fail():
            return {
                "model": spec.alias,
                "source": spec.source,
                "revision": spec.revision,
                "by": "its server" if here is None else "a tokenizer here",
                "tokenizer": None if here is None else type(here).__name__,
                "vocabulary": None if here is None else len(here),
                "context": counter.context,
                "thinking": counter.thinking,
            }

    def text(self, name: str) -> TextRates:
        """Tokens a character and a word of a kind of text; ``name`` is a key of ``SAMPLES``."""
        from pytest_tokenbudget.studies.tokenizers.analysis import TextRates, ratio_estimate
        from pytest_tokenbudget.studies.tokenizers.samples import REFERENCE, SAMPLES, count_words

        sample = SAMPLES[name]
        tokens, characters = self._tokens(name), [len(text) for text in sample.passages]
        words = [count_words(text) for text in sample.passages] if sample.spaced else None
        rates = [t / c for t, c in zip(tokens, characters, strict=True)]
        joined = "\n".join(" ".join(map(str, ids)) for ids in self._encoded(name))
        return TextRates(
            name=name,
            passages=len(sample.passages),
            characters=sum(characters),
            bytes=sum(len(text.encode()) for text in sample.passages),
            words=sum(words) if words else None,
            tokens=sum(tokens),
            per_character=ratio_estimate(tokens, characters),
            per_word=ratio_estimate(tokens, words) if words else None,
            least=min(rates),
            most=max(rates),
            against=ratio_estimate(tokens, self._tokens(REFERENCE)) if sample.parallel else None,
            digest=hashlib.sha256(joined.encode()).hexdigest()[:16],
        )

    def round_trip(self, name: str) -> RoundTrip:
        """Whether a kind of text comes back from its ids as it was."""
        from pytest_tokenbudget.studies.tokenizers.analysis import RoundTrip
        from pytest_tokenbudget.studies.tokenizers.samples import SAMPLES

        passages = SAMPLES[name].passages
        with _or_fail():
            back = self._counter.decode_all(self._encoded(name))
        pairs = list(zip(passages, back, strict=True))
        changed = next((pair for pair in pairs if pair[0] != pair[1]), None)
        return RoundTrip(
            name=name,
            passages=len(passages),
            same=sum(text == again for text, again in pairs),
            change=shown_change(*changed) if changed else "",
        )

    def why_no_template(self) -> str:
        """Why the chat template cannot be measured; empty where it can."""
        from pytest_tokenbudget.engines.server.tokens import ServerText
        from pytest_tokenbudget.engines.text import ModelText

        tokens = self._counter.tokens
        if isinstance(tokens, ModelText) and not tokens.tokenizer.chat_template:
            return f"{self._counter.spec.alias} has no chat template"
        if isinstance(tokens, ServerText) and not tokens.renders:
            return (
                f"its server ({tokens.facts.kind}) renders no messages; name a tokenizer with "
                "--tokenizer NAME|PATH"
            )
        return ""

    @cached_property
    def template(self) -> TemplateCost:
        """What the chat template costs, found by rendering."""
        from pytest_tokenbudget.studies.tokenizers.template_cost import template_cost

        with _or_fail():
            return template_cost(self._counter)

    def limit(self, name: int | str) -> int:
        """Tokens of a limit; ``context`` is what the model has."""
        context = self.about["context"]
        return int(context if isinstance(name, str) else name)

    def why_not_limit(self, name: int | str) -> str:
        """Why a limit is not of use for the model; empty where it is."""
        from pytest_tokenbudget.studies.tokenizers.analysis import LIMITS

        context = self.about["context"]
        if isinstance(name, str):
            return (
                f"its context of {context:,} tokens is tried already" if context in LIMITS else ""
            )
        return f"its context has {context:,} tokens" if name > context else ""

    def fits(self, name: int | str) -> LimitFits:
        """How many characters of each kind of text fit a limit, as one question."""
        from pytest_tokenbudget.studies.tokenizers.analysis import LimitFits, characters_that_fit
        from pytest_tokenbudget.studies.tokenizers.samples import SAMPLES

        limit = self.limit(name)
        overhead = 0 if self.why_no_template() else self.template.question
        texts = {
            sample.name: characters_that_fit(
                limit - overhead,
                self._tokens(sample.name),
                [len(text) for text in sample.passages],
            )
            for sample in SAMPLES.values()
        }
        return LimitFits(str(name), limit, overhead, texts)

    def why_no_server(self) -> str:
        """Why no server can be asked what it counts; empty where one can."""
        if self._counter.spec.endpoint is None:
            return "no server counts: it runs in this process"
        return self.why_no_template()

    def server_counts(self) -> ServerCounts:
        """What the server counts of prompts that were counted before; one token is generated."""
        from pytest_tokenbudget.core.engine import EngineError
        from pytest_tokenbudget.core.probes import Ask, probed
        from pytest_tokenbudget.engines.text import thinking_variables
        from pytest_tokenbudget.studies.tokenizers.analysis import ServerCounts
        from pytest_tokenbudget.studies.tokenizers.template_cost import conversations

        counter = self._counter
        template = thinking_variables(counter.spec, counter.thinking)
        asks = [Ask(1, tuple(messages), template=template) for messages in conversations()]
        with _or_fail():
            engine, _ = self._session.engine_for(counter.spec)
            ours = [counter.count(ask.messages) for ask in asks]
            replies = probed(engine).ask(asks, at_once=2)
            if all(reply.error for reply in replies):
                raise EngineError(f"model {counter.spec.alias}: {replies[0].error}")
        theirs = [reply.usage.get("prompt_tokens") for reply in replies]
        return ServerCounts(
            asked=len(asks),
            said=sum(count is not None for count in theirs),
            agreed=sum(a == b for a, b in zip(ours, theirs, strict=True)),
            ours=tuple(ours),
            theirs=tuple(theirs),
        )

    def _encoded(self, name: str) -> list[tuple[int, ...]]:
        from pytest_tokenbudget.studies.tokenizers.samples import SAMPLES

        if name not in self._ids:
            with _or_fail():
                self._ids[name] = self._counter.encode_all(SAMPLES[name].passages)
        return self._ids[name]

    def _tokens(self, name: str) -> list[int]:
        return [len(ids) for ids in self._encoded(name)]


@contextmanager
def _or_fail() -> Iterator[None]:
    """A failed test with one sentence where tokenizer or server cannot be used."""
    __tracebackhide__ = True
    from pytest_tokenbudget.core.engine import EngineError
    from pytest_tokenbudget.core.store import StoreError
    from pytest_tokenbudget.models.resolution import ModelError

    try:
        yield
    except (SetupError, EngineError, ModelError, StoreError) as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def shown_change(text: str, again: str) -> str:
    """Where two texts begin to differ, for people."""
    place = next(
        (i for i, (a, b) in enumerate(zip(text, again, strict=False)) if a != b),
        min(len(text), len(again)),
    )
    start = max(place - 4, 0)
    before, after = text[start : start + _SHOWN], again[start : start + _SHOWN]
    return f"{before!r} becomes {after!r} at character {place:,}"
