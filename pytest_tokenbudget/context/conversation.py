"""A conversation in parts that can be left out: turns, or the passages of a long document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple

from pytest_tokenbudget.common.messages import described, mapping
from pytest_tokenbudget.context.chat import Chat, Layout, Message, Rendered
from pytest_tokenbudget.settings.context_limits import ContextError
from pytest_tokenbudget.texts.sentences import sentences

# Chinese, Japanese and Korean have no spaces between words, or not where a search wants them.
_EAST = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(f"[{_EAST}]|[^\\W{_EAST}]+")


def words(text: str) -> list[str]:
    """Words of a text as they are compared."""
    return _WORD.findall(text.casefold())


# Every limit of a conversation asks the same, and making an index takes a millisecond.
@lru_cache(maxsize=256)
def relevance(texts: tuple[str, ...], query: str) -> tuple[float, ...]:
    """BM25 score of each text for a query, which needs no model; 0 where they share no word.

    It is higher for texts that share words with the query that are rare among the texts.
    """
    found = [words(text) for text in texts]
    filled = [i for i, each in enumerate(found) if each]
    vocabulary = {word for each in found for word in each}
    asked = [word for word in words(query) if word in vocabulary]
    scores = [0.0] * len(texts)
    if asked:
        import bm25s  # type: ignore[import-untyped]

        ranker = bm25s.BM25()
        ranker.index([found[i] for i in filled], show_progress=False)
        for i, score in zip(filled, ranker.get_scores(asked).tolist(), strict=True):
            scores[i] = score
    return tuple(scores)


SYSTEM_ROLES = frozenset({"system", "developer"})
# Characters that a passage may have before it is divided at the ends of sentences.
PASSAGE = 800


class Piece(NamedTuple):
    """A part of what a message says: characters of its content from ``start`` to below ``end``."""

    message: int
    start: int
    end: int


Unit = tuple[Piece, ...]


class Conversation:
    """Messages, divided into what must stay and what may go.

    A turn is a user message with all that follows before the next one: what goes goes as whole
    turns, because many templates refuse a conversation that begins with an answer.

    Args:
        messages: Chat messages with ``role`` and ``content``.
        chat: The model's renderer.

    Attributes:
        system: The system messages at the beginning.
        units: What may be left out, the oldest first.
        newest: The newest turn, or the question about a document with what stands around it.
        question: What is asked: the newest user message, or the question about a document.
        query: The same as text, that importance is measured by.

    Raises:
        ContextError: If there are no messages.
    """

    system: Unit
    units: tuple[Unit, ...]
    newest: Unit
    question: Unit
    query: str

    def __init__(self, messages: Sequence[Message], chat: Chat) -> None:
        if isinstance(messages, str) or not isinstance(messages, Sequence):
            raise ContextError(f"messages must be a list of dicts, not {described(messages)}")
        if not messages:
            raise ContextError("a conversation without messages has no window")
        for place, message in enumerate(messages, 1):
            mapping(f"message {place}", message, error=ContextError)
            for key in ("role", "content"):
                if not isinstance(message.get(key), str):
                    raise ContextError(
                        f"message {place}: {key} must be a text, not {described(message.get(key))}"
                    )
        if not isinstance(chat, Chat):
            raise ContextError(f"chat must be a Chat, not {described(chat)}")
        self.messages = tuple(messages)
        self.chat = chat
        roles = [message["role"] for message in self.messages]
        begin = next((i for i, role in enumerate(roles) if role not in SYSTEM_ROLES), len(roles))
        users = [i for i in range(begin, len(roles)) if roles[i] == "user"]
        starts = users or range(begin, len(roles))
        edges = sorted({begin, *starts, len(roles)})
        *older, newest = [tuple(map(self.piece, range(*edge))) for edge in pairwise(edges)] or [()]
        self.system = tuple(map(self.piece, range(begin)))
        self.units, self.newest = tuple(older), newest
        self.question = (self.piece(users[-1]),) if users else ()
        self.query = self.messages[users[-1]]["content"] if users else ""

    @classmethod
    def of_document(
        cls,
        document: str,
        question: str,
        chat: Chat,
        *,
        system: str = "",
        layout: str = "{document}\n\n{question}",
    ) -> Conversation:
        """A long text with a question about it, as one user message; see
        `ContextWindow.of_document`.

        The passages of the document take the place of turns: paragraphs, long ones divided.
        """
        for name, value in (("document", document), ("question", question)):
            if not isinstance(value, str):
                raise ContextError(f"{name} must be a text, not {described(value)}")
        if layout.count("{document}") != 1 or "{question}" not in layout:
            raise ContextError(
                f"layout {layout!r} must have {{document}} exactly once, and {{question}}"
            )
        head, tail = (part.replace("{question}", question) for part in layout.split("{document}"))
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": head + document + tail})
        made = cls(messages, chat)
        index, start = len(messages) - 1, len(head)
        made.units = tuple(
            (Piece(index, start + first, start + end),) for first, end in passages(document)
        )
        end = start + len(document)
        length = end + len(tail)
        around = (Piece(index, 0, start), Piece(index, end, length))
        made.newest = made.question = tuple(piece for piece in around if piece.start < piece.end)
        made.query = question
        return made

    @cached_property
    def whole(self) -> Rendered:
        """The prompt that all messages make."""
        return self.chat.render(self.messages)

    @cached_property
    def layout(self) -> Layout:
        """Where the messages stand in it."""
        return self.chat.layout(self.messages)

    @cached_property
    def relevance(self) -> tuple[float, ...]:
        """How much each unit has to do with the question, by BM25."""
        return relevance(tuple(self.text(unit) for unit in self.units), self.query)

    def piece(self, index: int) -> Piece:
        return Piece(index, 0, len(self.messages[index]["content"]))

    def text(self, unit: Unit) -> str:
        """What a unit says."""
        return "\n".join(self.messages[i]["content"][start:end] for i, start, end in unit)

    def compose(self, pieces: Iterable[Piece]) -> tuple[Message, ...]:
        """Messages that say what the pieces say, in the order of the conversation."""
        made: list[Message] = []
        for index, spans in joined(pieces).items():
            message = self.messages[index]
            content = message["content"]
            if spans != [(0, len(content))]:
                text = "".join(content[start:end] for start, end in spans)
                message = {**message, "content": text}
            made.append(message)
        return tuple(made)

    def shortened(self, unit: Unit) -> Iterator[Unit]:
        """The unit without its oldest sentence, without its two oldest, and so on.

        One sentence of each message stays, so that nobody's turn is missing.
        """
        pieces = list(unit)
        for number, (index, start, end) in enumerate(unit):
            content = self.messages[index]["content"]
            for first, _ in sentences(content[start:end])[1:]:
                pieces[number] = Piece(index, start + first, end)
                yield tuple(pieces)


def joined(pieces: Iterable[Piece]) -> dict[int, list[tuple[int, int]]]:
    """Parts of each message's content that pieces cover, those that touch as one."""
    result: dict[int, list[tuple[int, int]]] = {}
    for index, start, end in sorted(pieces):
        spans = result.setdefault(index, [])
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    return result


def passages(document: str) -> list[tuple[int, int]]:
    """Passages of a text in order: they touch, and together they are all of it."""
    made: list[tuple[int, int]] = []
    ends_paragraph = True
    for start, end in sentences(document):
        if made and not ends_paragraph and end - made[-1][0] <= PASSAGE:
            made[-1] = (made[-1][0], end)
        else:
            made.append((start, end))
        tail = document[start:end]
        ends_paragraph = tail[len(tail.rstrip()) :].count("\n") > 1
    return made
