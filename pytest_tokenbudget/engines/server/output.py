"""What has come of one output, and how values of an answer are read, whatever they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pytest_tokenbudget.engines.server.payload import Joiner, whole

# By which names servers call text that comes apart as reasoning, in a message or in its parts.
REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_text")
# No output and no prompt has as many tokens: a larger count is a defect of the server.
MOST_TOKENS = 100_000_000
LENGTH_WORDS = frozenset({"length", "max_tokens", "model_length"})
STOP_WORDS = frozenset({"stop", "eos", "end_turn", "eos_token", "stop_sequence"})
# Words for an output that somebody stopped on purpose: asked again, it ends in the same way.
FILTERED = frozenset(
    {"content_filter", "content_filtered", "safety", "recitation", "prohibited_content"}
    | {"blocklist", "spii", "sensitive", "guardrail_intervened", "language"}
)
TOOLS = frozenset({"tool_calls", "tool_call", "tool_use", "function_call"})
REFUSED = frozenset({"refusal"})


class NoIdsError(Exception):
    """A server that was taken to give token ids gave text without any."""


class MalformedError(Exception):
    """An event that cannot be what was asked for; the message says why."""


class End(StrEnum):
    """What a server's word for the end means."""

    EOS = "eos"
    STOP = "stop"
    LENGTH = "length"
    OTHER = "other"


@dataclass
class ServerOutput:
    """What has come of one output so far.

    Attributes:
        ids: Output ids; empty where the server gives none.
        content: Text of the answer as the server calls it.
        reasoning: Text that came apart as reasoning; None while nothing came apart.
        end: What its end amounts to; None while it goes on.
        finish_reason: The server's own word for that.
        matched: The stop string, or the id, that ended it, where the server says which.
        usage: The server's own counts.
        prompt_ids: Ids of the prompt as the server says.
        id_count: How many ids the server counts up to here, where it says so with each event.
        new_text: Text that the last event of an ids stream added.
        implausible_counts: Counts of the server that cannot be true, such as negative ones.
        refusal: Text in which the model refuses to answer, where the server sets it apart.
        tools: Names of the tools that the model asks for.
        repeated: Text of deltas that equal the one before them: sent twice, or written twice.
    """

    ids: list[int] = field(default_factory=list)
    content: str = ""
    reasoning: str | None = None
    end: End | None = None
    finish_reason: str = ""
    matched: object = None
    usage: dict[str, int] = field(default_factory=dict)
    prompt_ids: tuple[int, ...] | None = None
    id_count: int | None = None
    new_text: str = ""
    implausible_counts: dict[str, int] = field(default_factory=dict)
    refusal: str = ""
    tools: list[str] = field(default_factory=list)
    repeated: str = ""
    _last: tuple[str, str] = ("", "")
    _joiners: dict[str, Joiner] = field(default_factory=dict, repr=False)

    def joined(self, name: str, piece: str) -> str:
        """What a piece adds to a text; half a character at its end waits for the next piece."""
        return self._joiners.setdefault(name, Joiner()).add(piece) if piece else ""

    def add(self, delta: Mapping[str, Any]) -> None:
        """Take the text of one delta or message; a MalformedError where the output has ended."""
        before = len(self.refusal), len(self.tools)
        answer, reasoning = split_reasoning(delta.get("content"))
        self.content += self.joined("content", answer)
        names = (text for name in REASONING if (text := reasoning_of(delta.get(name))))
        # A server that sends several names says the same several times.
        reasoning = reasoning or next(names, "") or reasoning_of(delta.get("reasoning_details"))
        if reasoning:
            self.reasoning = (self.reasoning or "") + self.joined("reasoning", reasoning)
        self.refusal += self.joined("refusal", text_of(delta.get("refusal")))
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else [delta.get("function_call")]:
            tool = mapping(mapping(call).get("function", call))
            if name := text_of(tool.get("name")):
                self.tools.append(whole(name))
        if answer or reasoning or (len(self.refusal), len(self.tools)) != before:
            self.check_open()
        if answer or reasoning:
            self.repeated += answer + reasoning if (answer, reasoning) == self._last else ""
            self._last = answer, reasoning

    def check_open(self) -> None:
        """Raise a MalformedError if the output has ended: nothing may be added after its end."""
        if self.end is not None:
            raise MalformedError(
                f"went on with an output after it had ended it with {self.finish_reason!r}"
            )

    def count(self, usage: object) -> None:
        """Take the server's own counts, those aside that cannot be true."""
        for name, value in read_usage(usage).items():
            plausible = 0 <= value <= MOST_TOKENS
            (self.usage if plausible else self.implausible_counts)[name] = value

    @property
    def total(self) -> int | None:
        """Output tokens as the server counts them, its reasoning included; None without a count.

        Some servers count reasoning inside of the completion, some beside it.
        """
        written = self.usage.get("completion_tokens", self.usage.get("output_tokens"))
        if not written:
            # Servers that do not count say 0.
            return None
        reasoning = self.usage.get("reasoning_tokens", 0)
        beside = self.usage.get("total_tokens", 0) - self.usage.get("prompt_tokens", 0)
        if reasoning > written or beside == written + reasoning:
            return written + reasoning
        return written

    def finish(self, word: object, matched: object = None) -> None:
        """Take an OpenAI word for the end, None while the output goes on; some servers repeat it.

        Raises:
            MalformedError: If another word has ended the output before.
        """
        if not isinstance(word, str) or not word:
            return
        if self.end is not None and word.lower() != self.finish_reason.lower():
            raise MalformedError(
                f"ended an output twice, with {self.finish_reason!r} and {whole(word)!r}"
            )
        self.finish_reason, self.matched = whole(word), self.matched if matched is None else matched
        if word.lower() in LENGTH_WORDS:
            self.end = End.LENGTH
        elif word.lower() in STOP_WORDS:
            self.end = End.STOP if isinstance(matched, str) else End.EOS
        else:
            self.end = End.OTHER
        # Half a character at the end has no other half.
        rest = {name: joiner.end() for name, joiner in self._joiners.items()}
        self.content += rest.get("content", "")
        self.refusal += rest.get("refusal", "")
        if rest.get("reasoning"):
            self.reasoning = (self.reasoning or "") + rest["reasoning"]

    @property
    def withheld(self) -> str:
        """Why there is no answer though the server ended it as it meant to; else empty."""
        word = self.finish_reason.lower()
        if self.refusal or word in REFUSED:
            text = f": {' '.join(self.refusal.split())[:300]!r}" if self.refusal else ""
            return f"gave a refusal of the model in place of an answer{text}"
        if word in FILTERED:
            return (
                "withheld the rest of an answer: a content filter stopped it "
                f"({self.finish_reason!r})"
            )
        if word in TOOLS:
            named = ", ".join(dict.fromkeys(self.tools))[:100]
            which = f" {named!r}" if named else ""
            return (
                f"gave a call of the tool{which} in place of an answer ({self.finish_reason!r}), "
                "though no tool was offered: start it without a tool parser, or without tools of "
                "its own"
            )
        return ""


def read_usage(value: object) -> dict[str, int]:
    """Counts by name, nested ones too, such as reasoning tokens; empty where there are none."""
    counts: dict[str, int] = {}
    for name, part in mapping(value).items():
        if isinstance(part, Mapping):
            counts |= read_usage(part)
        elif (count := number(part)) is not None:
            counts[name] = count
    return counts


def ids_of(value: object) -> list[int] | None:
    """A list of token ids, None where it is none."""
    if isinstance(value, list) and all(number(item) is not None for item in value):
        return list(value)
    return None


def output_ids(value: object, text: str) -> list[int]:
    """The ids of an event, whose text is ``text``.

    Raises:
        NoIdsError: If there is text and no list.
        MalformedError: If they are no integers.
    """
    ids = ids_of(value)
    if ids is None and isinstance(value, list):
        raise MalformedError("gave token ids that are no integers")
    if ids is None and text:
        raise NoIdsError
    return ids or []


def size_of(value: object) -> int | None:
    """A number of tokens, None where it is none or cannot be true."""
    count = number(value)
    return count if count is not None and 0 < count <= MOST_TOKENS else None


def number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def split_reasoning(content: object) -> tuple[str, str]:
    """The answer and the reasoning in a content, whose parts may be either."""
    if not isinstance(content, list):
        return text_of(content), ""
    answer, reasoning = "", ""
    for part in map(mapping, content):
        if part.get("type") in (*REASONING, "reasoning.text"):
            names = [name for name in (*REASONING, "text", "summary") if part.get(name)]
            reasoning += reasoning_of(part[names[0]]) if names else ""
        else:
            answer += text_of(part.get("text"))
    return answer, reasoning


def reasoning_of(value: object) -> str:
    """Text of reasoning: a string, parts, or details whose texts have names of their own."""
    return text_of(value, ("text", "thinking", "summary"))


def text_of(value: object, names: Sequence[str] = ("text",)) -> str:
    """Text of a content, which some servers give in parts; ``names`` are those of their texts."""
    if isinstance(value, list):
        texts = (next(filter(None, map(part.get, names)), "") for part in map(mapping, value))
        return "".join(map(text_of, texts))
    return value if isinstance(value, str) else ""
