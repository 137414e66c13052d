"""A fake model that thinks: steps, a close tag, an answer; forced early, it answers wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pytest_tokenbudget.core.engine import Decoding, Engine, Generated, Prompt, Request
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.tasks.registry import load_task

EOS = 0
# The embedded model's own.
TAGS = {1022: "<think>", 1023: "</think>"}
IDS = {text: token for token, text in TAGS.items()}


class ThinkingEngine(Engine):
    """Thinks ``steps`` tokens; the n-th problem that it sees 10 n more.

    Args:
        each: Called with each request before it is answered.
        reopens: Whether it thinks again after a forced close.
        ignores_off: Whether it thinks although thinking is switched off.
        opens: Whether its prompts open the block.
    """

    context = 2048

    def __init__(
        self,
        each: Callable[[Request], None] = lambda request: None,
        *,
        reopens: bool = False,
        ignores_off: bool = False,
        opens: bool = False,
    ) -> None:
        self.each, self.reopens, self.ignores_off, self.opens = each, reopens, ignores_off, opens
        self.seen: list[Request] = []
        self.encoded: list[str] = []
        problems = load_task("word-problems").problems(12)
        self.answers = {p.question: p.answer for p in problems}
        self.order = list(self.answers)

    def render(self, messages, thinking=None) -> Prompt:
        text = "".join(f"{m['content']}\n" for m in messages)
        if thinking is False:
            text += "<think>\n\n</think>\n\n"
        elif self.opens:
            text += "<think>\n"
        return Prompt(self.encode_text(text), text)

    def encode(self, text: str) -> tuple[int, ...]:
        self.encoded.append(text)
        return self.encode_text(text)

    def encode_text(self, text: str) -> tuple[int, ...]:
        ids: list[int] = []
        while text:
            tag = next((t for t in IDS if text.startswith(t)), None)
            ids.append(IDS[tag] if tag else ord(text[0]))
            text = text[len(tag) if tag else 1 :]
        return tuple(ids)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(TAGS.get(i) or chr(i) for i in ids if i != EOS)

    def rows(self, prompt: int, total: int) -> int:
        return 4

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[Generated]:
        for request in requests:
            self.each(request)
            self.seen.append(request)
            whole = (*self.encode_text(self.written(self.decode(request.prompt_ids))), EOS)
            ids = whole[: request.cap]
            ended = StopReason.EOS if ids[-1] == EOS else StopReason.LENGTH
            yield Generated(request, ids, ended, ended.value)

    def written(self, prompt: str) -> str:
        question = next(q for q in self.order if q in prompt)
        number, right = self.order.index(question), f"#### {self.answers[question]}"
        said = prompt[prompt.index(question) + len(question) :]
        steps = "." * (20 + 10 * number)
        before, closed, _ = said.rpartition("</think>")
        if closed:
            if "<think>\n\n</think>" in said:
                return f"<think>\nhm\n</think>\n\n{right}" if self.ignores_off else f"So: {right}"
            enough = before.count(".") >= len(steps) // 2
            answer = right if enough else "#### 12345"
            return f"<think>\nhm\n</think>\n\n{answer}" if self.reopens else answer
        if "Wait" in said:
            return f"....\n</think>\n\n{right}"
        start = "" if "<think>" in said else "<think>\n"
        return f"{start}{steps}\n</think>\n\n{right}"

    def close(self) -> None: ...
