"""An engine that fits on a screen: what it writes depends on prompt and sample only.

Run as a program it gathers ``COUNT`` traces: STORE RUN COUNT LOG [name=value ...].
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pytest_tokenbudget.core.engine import Decoding, Engine, Generated, Prompt, Request
from pytest_tokenbudget.core.gather import gather, render
from pytest_tokenbudget.core.plan import Plan
from pytest_tokenbudget.core.store import TraceStore
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.tasks.problem import Problem

EOS = 0
LENGTHS = (5, 9, 20, 33)


class FakeEngine(Engine):
    context = 4096

    def __init__(
        self,
        rows: int = 4,
        delay: float = 0.0,
        each: Callable[[Request], None] = lambda request: None,
    ) -> None:
        self._rows, self._delay, self._each = rows, delay, each
        self.batches: list[int] = []
        self.seen: list[Request] = []

    def render(self, messages, thinking=None) -> Prompt:
        text = "".join(message["content"] for message in messages)
        return Prompt(tuple(text.encode()), text)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(96 + i) for i in ids if i != EOS)

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode())

    def rows(self, prompt: int, total: int) -> int:
        return self._rows

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[Generated]:
        self.batches.append(len(requests))
        for request in requests:
            self.seen.append(request)
            time.sleep(self._delay)
            self._each(request)
            whole = written(request.prompt_ids, request.sample)
            assert whole[: len(request.prefix_ids)] == request.prefix_ids
            ids = whole[: request.cap]
            ended = StopReason.EOS if ids[-1] == EOS else StopReason.LENGTH
            yield Generated(request, ids, ended, ended.value)

    def close(self) -> None: ...


def written(prompt_ids: Sequence[int], sample: int = 0) -> tuple[int, ...]:
    """Everything that the fake model writes."""
    seed = zlib.crc32(bytes(prompt_ids) + bytes([sample]))
    length = LENGTHS[seed % len(LENGTHS)]
    return (*(1 + (seed >> (i % 24)) % 26 for i in range(length - 1)), EOS)


def make_problems(count: int) -> tuple[Problem, ...]:
    return tuple(
        Problem(f"p{i}", f"problem {i}", "1", "any", ({"role": "user", "content": f"problem {i}"},))
        for i in range(count)
    )


def make_plan(cap: int = 16, **changes) -> Plan:
    values = {
        "alias": "fake",
        "identity": {"model": "fake"},
        "model": "fake-model",
        "where": "here",
        "task": "any",
        "limit": None,
        "samples": 1,
        "thinking": None,
        "format": None,
        "decoding": Decoding(),
        "budgets": (cap,),
        "left_out": (),
        "margin": 0.02,
    }
    return Plan(**(values | changes))


def gather_all(store: TraceStore, engine: Engine, count: int = 8, cap: int = 16, **options) -> None:
    plan, problems = make_plan(cap), make_problems(count)
    prompts = render(store, plan, problems, lambda: engine)
    gather(store, plan, plan.wants(problems, prompts), lambda: engine, **options)


if __name__ == "__main__":
    path, run, count, log = sys.argv[1:5]
    given = {name: json.loads(value) for name, value in (a.split("=") for a in sys.argv[5:])}

    def note(request: Request) -> None:
        with Path(log).open("a", encoding="utf-8") as lines:
            lines.write(f"{request.key} {len(request.prefix_ids)} {run}\n")

    fake = FakeEngine(given.pop("rows", 4), given.pop("delay", 0.0), note)
    gather_all(TraceStore(Path(path), run, run), fake, int(count), **given)
