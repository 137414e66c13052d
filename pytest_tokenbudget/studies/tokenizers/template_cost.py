"""What a chat template costs, found by rendering conversations that differ in one part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_tokenbudget.core.engine import EngineError, Prompt
from pytest_tokenbudget.engines.text import ModelText
from pytest_tokenbudget.studies.tokenizers.analysis import TemplateCost
from pytest_tokenbudget.studies.tokenizers.samples import SAMPLES

if TYPE_CHECKING:
    from pytest_tokenbudget.engines.token_counter import Message, TokenCounter

SYSTEM = "Answer in one short sentence."
QUESTION = "Which river flows through the city?"
ANSWER = "The river is called Neva."
NEXT = "How long is it?"
# Texts that conversations are made of, to see whether costs add up.
CONVERSATIONS = ("en", "de", "ru", "hi", "zh", "python", "json", "numbers")
_CHARACTERS = 100
_NOT_ASKED = {"add_generation_prompt": False}


def conversation(*contents: str, system: str = "") -> list[Message]:
    """Messages that user and assistant say in turns, after a system message where there is one."""
    roles = ("user", "assistant")
    said = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
    return [{"role": "system", "content": system}, *said] if system else [*said]


def conversations() -> Iterator[list[Message]]:
    """Conversations of three and five messages in several languages and kinds of text."""
    for number, name in enumerate(CONVERSATIONS):
        # Short enough for any context.
        said = [text[:_CHARACTERS].strip() for text in SAMPLES[name].passages]
        yield conversation(*said[: 3 + 2 * (number % 2)], system=said[5] if number % 4 < 2 else "")


def template_cost(counter: TokenCounter) -> TemplateCost:
    """What the model's chat template adds to what messages say.

    Raises:
        EngineError: If the template refuses a single question, or the server does not answer.
    """
    return _Measured(counter).cost()


class _Measured:
    """One measurement; what the template refuses is collected."""

    def __init__(self, counter: TokenCounter) -> None:
        self._counter = counter
        self._refused: dict[str, str] = {}

    def cost(self) -> TemplateCost:
        counter = self._counter
        asked, after, system = (
            conversation(QUESTION),
            conversation(QUESTION, ANSWER, NEXT),
            conversation(QUESTION, system=SYSTEM),
        )
        first = counter.render(asked)
        question = len(first.ids) - self._content_tokens(asked)
        turn = _less(
            self._whole("an answer in the history", after), question, self._content_tokens(after)
        )
        ruled = _less(
            self._whole("a system message", system), question, self._content_tokens(system)
        )
        generation, user, opening = self._parts(asked, after, len(first.ids))
        checked, exact, largest = self._sums(question, turn, ruled)
        return TemplateCost(
            question=question,
            turn=turn,
            system=ruled,
            empty=self._whole("a conversation without messages", []),
            opening=opening,
            user=user,
            assistant=_less(turn, user),
            generation=generation,
            by_thinking=self._by_thinking(asked),
            bos=self._begins(first),
            before=first.text.partition(QUESTION)[0],
            checked=checked,
            exact=exact,
            largest=largest,
            refused=self._refused,
        )

    def _content_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of what the messages say, each for itself."""
        return sum(self._counter.count_text(message["content"]) for message in messages)

    def _whole(self, part: str, messages: Sequence[Message]) -> int | None:
        """Tokens of a prompt; None where the template refuses it, or writes nothing of it."""
        try:
            prompt = self._counter.render(messages)
        except EngineError as error:
            self._refused[part] = str(error)
            return None
        lost = [m["content"] for m in messages if m["content"] not in prompt.text]
        if lost:
            self._refused[part] = f"the template leaves {lost[0]!r} out"
            return None
        return len(prompt.ids)

    def _parts(
        self, asked: list[Message], after: list[Message], whole: int
    ) -> tuple[int | None, int | None, int | None]:
        """Generation prompt, user message and opening, from prompts that ask for no answer."""
        try:
            plain = self._plain(asked)
        except EngineError as error:
            self._refused["a prompt that asks for no answer"] = str(error)
            return None, None, None
        generation = whole - len(plain.ids)
        if generation == 0 and self._counter.remote:
            self._refused["a prompt that asks for no answer"] = "its server adds it all the same"
            return None, None, None
        user = self._user(plain, after)
        return generation, user, _less(len(plain.ids), user, self._content_tokens(asked))

    def _plain(self, messages: Sequence[Message]) -> Prompt:
        return self._counter.render(messages, variables=_NOT_ASKED)

    def _user(self, plain: Prompt, after: list[Message]) -> int | None:
        """A user message: what it adds to what came before, if that stays as it was."""
        question, answer, further = after
        said = self._content_tokens([further])
        for before in ([question], [question, answer]):
            # Two questions in a row are refused by some templates, and an answer at the end is
            # written otherwise than in the history by others.
            with suppress(EngineError):
                first = plain if len(before) == 1 else self._plain(before)
                longer = self._plain([*before, further])
                if longer.text.startswith(first.text):
                    return len(longer.ids) - len(first.ids) - said
        self._refused["a user message by itself"] = "what is before it changes with it"
        return None

    def _by_thinking(self, asked: list[Message]) -> dict[str, int]:
        form = self._counter.spec.thinking
        if form is None or form.switch is None:
            return {}
        said = self._content_tokens(asked)
        return {
            word: self._counter.count(asked, thinking) - said
            for word, thinking in (("on", True), ("off", False))
        }

    def _begins(self, first: Prompt) -> bool | None:
        tokens = self._counter.tokens
        if not isinstance(tokens, ModelText) or tokens.tokenizer.bos_token_id is None:
            return None
        return bool(first.ids[:1] == (tokens.tokenizer.bos_token_id,))

    def _sums(self, question: int, turn: int | None, system: int | None) -> tuple[int, int, int]:
        """Conversations rendered, those with exactly the sum, and the largest difference."""
        differences = []
        for messages in conversations():
            ruled = messages[0]["role"] == "system"
            if turn is None or (ruled and system is None):
                continue
            turns = sum(message["role"] == "user" for message in messages) - 1
            expected = (
                question + turns * turn + (system or 0) * ruled + self._content_tokens(messages)
            )
            differences.append(self._counter.count(messages) - expected)
        exact = sum(difference == 0 for difference in differences)
        return len(differences), exact, max(differences, key=abs, default=0)


def _less(whole: int | None, *parts: int | None) -> int | None:
    """What is left of a whole; None where a number is not known."""
    known = [part for part in parts if part is not None]
    return None if whole is None or len(known) < len(parts) else whole - sum(known)
