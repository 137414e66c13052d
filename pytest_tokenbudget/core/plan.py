"""What one model has to generate for one task, and the keys under which it is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pytest_tokenbudget.core.context_plan import Cell, ContextPlan
from pytest_tokenbudget.core.engine import Decoding, Request
from pytest_tokenbudget.core.store import StoredPrompt
from pytest_tokenbudget.core.trace import ThinkingFormat
from pytest_tokenbudget.tasks.problem import Message, Problem
from pytest_tokenbudget.texts.thinking_blocks import Closer

# Raised where a strategy, the request for a summary, or what is kept of a window changes: what was
# kept before is then made anew.
WINDOWS = "windows/1"


def digest(value: object) -> str:
    """SHA-256 of a JSON-compatible value in its one canonical form."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def render_key(messages: Sequence[Message], thinking: bool | None) -> str:
    return digest([[dict(m) for m in messages], thinking])


def text_key(text: str) -> str:
    """Key of the token ids of a text that is put into prompts."""
    return digest(["text", text])


def trace_key(model: str, prompt_ids: Sequence[int], decoding: Decoding, sample: int) -> str:
    """Key of a trace: model identity, prompt ids, decoding, sample; never the cap."""
    return digest([model, list(prompt_ids), decoding.identity(), sample])


@dataclass(frozen=True)
class ModeBudget:
    """A budget that the allocation table gives a mode, or ``explicit``, as it is tried here.

    ``tokens`` is None where it cannot be tried; ``reason`` is how it came about, for people.
    """

    mode: str
    tokens: int | None
    reason: str


@dataclass(frozen=True)
class Forcing:
    """At which budgets thinking is ended by force, and how.

    Attributes:
        budgets: Thinking budgets, rising; 0 may be among them.
        answer_tokens: Output tokens of a forced answer.
        closers: What ends the thinking; the first one is the default.
        waits: How often thinking that ends is sent on.
        modes: Budgets of the allocation table's modes; they are among the budgets.
        left_out: Budgets that the context has no room for.
        target: Share of responses that a recommended limit may truncate.
    """

    budgets: tuple[int, ...]
    answer_tokens: int
    closers: tuple[Closer, ...]
    waits: int = 0
    modes: tuple[ModeBudget, ...] = ()
    left_out: tuple[int, ...] = ()
    target: float = 0.01

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Forcing:
        values = dict(data)
        values["closers"] = tuple(Closer(*closer) for closer in values["closers"])
        values["modes"] = tuple(ModeBudget(**mode) for mode in values["modes"])
        for name in ("budgets", "left_out"):
            values[name] = tuple(values[name])
        return cls(**values)


@dataclass(frozen=True)
class Plan:
    """What one model has to generate for one task in one mode.

    Attributes:
        identity: What distinguishes the model (id and revision or file hashes, ...).
        model: Hash of the identity.
        where: What the model is and where it runs, for people.
        limit: How many problems, None for all.
        thinking: What is asked of the chat template; None leaves it to the template.
        format: How the model marks its thinking, None if it has none.
        budgets: Budgets that the selected tests need, rising.
        left_out: Budgets that the model's context has no room for.
        margin: Non-inferiority margin of the saturation point.
        reach: Output tokens that traces must reach to where that is beyond the budgets.
        kind: What the study is made for.
        cliff_budgets: Budgets between which the cliff is looked for.
        forcing: How thinking is ended by force; None for what is not about that.
        context_plan: How conversations are truncated; None for what is not about that.
        from_model_entry: Names of settings that the model's own entry set.
    """

    alias: str
    identity: Mapping[str, str]
    model: str
    where: str
    task: str
    limit: int | None
    samples: int
    thinking: bool | None
    format: ThinkingFormat | None
    decoding: Decoding
    budgets: tuple[int, ...]
    left_out: tuple[int, ...]
    margin: float
    reach: int = 0
    kind: str = "main"
    cliff_budgets: tuple[int, ...] = ()
    forcing: Forcing | None = None
    context_plan: ContextPlan | None = None
    from_model_entry: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Distinguishes the plans of one run."""
        return f"{self.alias} {self.task} {self.mode} {self.kind}"

    @property
    def mode(self) -> str:
        return "thinking" if self.thinking else "plain"

    @property
    def cap(self) -> int:
        """How long traces may become: every budget is a cut."""
        return max(*self.budgets, self.reach)

    def renders(self, problems: Iterable[Problem]) -> dict[str, str]:
        """For each problem id, the key of its rendered prompt."""
        return {p.id: render_key(p.messages, self.thinking) for p in problems}

    def names(
        self, problems: Iterable[Problem], prompts: Mapping[str, StoredPrompt]
    ) -> dict[str, tuple[str, int]]:
        """For each trace key, the problem id and sample that it stands for."""
        return {
            trace_key(self.model, prompts[p.id].ids, self.decoding, sample): (p.id, sample)
            for p in problems
            if p.id in prompts
            for sample in range(self.samples)
        }

    def key(self, prompt_ids: Sequence[int]) -> str:
        """Key of the first sample for a prompt."""
        return trace_key(self.model, prompt_ids, self.decoding, 0)

    def wants(
        self, problems: Sequence[Problem], prompts: Mapping[str, StoredPrompt]
    ) -> list[Request]:
        """All traces needed, longest prompt first so that batches are of like length."""
        posed = {problem.id: problem.messages for problem in problems}
        wants = [
            Request(
                key,
                prompts[pid].ids,
                self.cap,
                sample,
                messages=posed[pid],
                thinking=self.thinking,
                problem_id=pid,
                opens_thinking=prompts[pid].opens_thinking,
            )
            for key, (pid, sample) in self.names(problems, prompts).items()
        ]
        return sorted(wants, key=lambda want: -len(want.prompt_ids))

    def window_key(self, problem: Problem, cell: Cell) -> str:
        """Key of what is kept of a conversation posed in one way.

        A summary is written by the model, so how it chooses tokens belongs to it.
        """
        said = [render_key(problem.messages, self.thinking), *cell]
        return digest([WINDOWS, *said, self.decoding.identity()])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        values = dict(data)
        if values["format"] is not None:
            values["format"] = ThinkingFormat(**values["format"])
        decoding = values["decoding"]
        values["decoding"] = Decoding(**{**decoding, "stop": tuple(decoding["stop"])})
        if values.get("forcing") is not None:
            values["forcing"] = Forcing.from_json(values["forcing"])
        if values.get("context_plan") is not None:
            values["context_plan"] = ContextPlan.from_json(values["context_plan"])
        for name in ("budgets", "left_out", "cliff_budgets", "from_model_entry"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)
