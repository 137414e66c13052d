"""The engine protocol: what turns prompts into traces.

It is small on purpose: a fake engine for tests fits on a screen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pytest_tokenbudget.common.outside_text import PrintableError
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.texts.token_texts import Pieces


class EngineError(PrintableError):
    """An engine could not be started or used; the message is for people."""


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen; part of every trace's key.

    Temperature 0 is greedy; ``top_p`` 1 keeps all; ``stop`` are texts that end generation.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether these settings are known to be those that were used."""
        return True

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def identity(self) -> dict[str, object]:
        """What distinguishes outputs: a greedy run has no seed and no nucleus."""
        if self.greedy:
            return {"temperature": 0, "stop": list(self.stop)}
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "stop": list(self.stop),
        }


class UnrecordedDecoding(Decoding):
    """Stands for the settings of recorded outputs whose files name none."""

    @property
    def known(self) -> bool:
        return False

    @property
    def greedy(self) -> bool:
        return False

    def identity(self) -> dict[str, object]:
        """That it was not recorded; a guess would look like a measurement."""
        return {"recorded": False}


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt: its token ids and the text they were encoded from."""

    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Request:
    """One trace to generate.

    Attributes:
        key: The trace's key in the store; results carry it back.
        cap: Output tokens allowed, those of ``prefix_ids`` included.
        sample: Number of the sample; with the seed and the prompt it keys the sampling noise.
        prefix_ids: Output ids that exist already and are to be continued.
        messages: The chat messages that the prompt was rendered from, for engines that render
            themselves; empty where the prompt goes on from an output.
        thinking: What was asked of the chat template.
        problem_id: The problem that it belongs to: prompts of one problem begin alike.
        opens_thinking: Whether the prompt ends inside a thinking block.
    """

    key: str
    prompt_ids: tuple[int, ...]
    cap: int
    sample: int = 0
    prefix_ids: tuple[int, ...] = ()
    messages: tuple[Mapping[str, str], ...] = field(default=(), compare=False, repr=False)
    thinking: bool | None = None
    problem_id: str = ""
    opens_thinking: bool = False


@dataclass(frozen=True)
class Generated:
    """What an engine made of a request.

    Attributes:
        output_ids: All output ids, those of the request's prefix included.
        stop_reason: Decided from ids and cap, row by row; ``engine_reason`` is the engine's word.
        seconds: Wall time from the start of its batch.
        error: What went wrong, where ``stop_reason`` is ``error``.
        text: Text of the ids where the engine gave text and no ids; None elsewhere.
        offsets: For each id, how many characters of ``text`` stand after it; None without text.
        counted: Whether the ids were counted from the text, so that they are not the model's own.
        usage: The engine's own counts by name, for example ``completion_tokens``.
    """

    request: Request
    output_ids: tuple[int, ...]
    stop_reason: StopReason
    engine_reason: str = ""
    seconds: float = 0.0
    error: str = ""
    text: str | None = None
    offsets: tuple[int, ...] | None = None
    counted: bool = False
    usage: Mapping[str, int] = field(default_factory=dict, compare=False)


class Watch(Protocol):
    """Is told of outputs while they are being written, from any thread; it raises nothing."""

    def follows(self, request: Request) -> bool:
        """Whether it would take something of this output now; to ask is cheap."""

    def wrote(
        self, request: Request, ids: Sequence[int], texts: Sequence[str] | None = None
    ) -> None:
        """Take what there is of an output: all its ids, those of the request's prefix included.

        ``texts`` is what each of them added to the text, from an engine without ``pieces``.
        """

    def wrote_text(self, request: Request, text: str) -> None:
        """Take what there is of an output that comes without ids: all of its text so far."""


class Engine(Protocol):
    """Turns prompts into traces.

    Attributes:
        continues: Whether a prompt may end inside an output, so that one can be gone on from. An
            engine that takes chat messages only generates such an output again from its start.
        watch: Who is told of outputs while they are being written, by engines that can.
        tally: Called with a request and its output tokens so far, those of its prefix included, by
            engines that can; from any thread.
    """

    continues: bool = True
    watch: Watch | None = None
    tally: Callable[[Request, int], None] | None = None

    @property
    def pieces(self) -> Pieces | None:
        """``decode`` with what is learned of it; None where it is not to be asked often."""
        return None

    @property
    def bos_id(self) -> int | None:
        """The id that begins a sequence, where the tokenizer has one."""
        return None

    @property
    def context(self) -> int:
        """Tokens that prompt and output may have together."""

    def render(self, messages: Sequence[Mapping[str, str]], thinking: bool | None = None) -> Prompt:
        """Render chat messages into a prompt that ends where the model begins to write.

        ``thinking`` says whether the model shall think; None leaves it to the chat template.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """Text of output ids: thinking tags are kept, end-of-sequence and padding are not."""

    def decode_prompt(self, ids: Sequence[int]) -> str:
        """Text of prompt ids, with all of their special tokens."""
        return self.decode(ids)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text that is put into a prompt; tags in it become their own tokens."""

    def rows(self, prompt: int, total: int) -> int:
        """How many sequences it likes to do at once, at least 1.

        ``prompt`` has the tokens of the longest prompt, ``total`` those of prompt and output
        together.
        """

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[Generated]:
        """Generate, and yield each result as it ends, in any order."""

    def close(self) -> None: ...
