"""The traces that go on from natural ones: which there are, and how they are kept and found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from pytest_tokenbudget.core.engine import Engine, Request
from pytest_tokenbudget.core.forcing import WAIT, Branch, Ids, closing_texts, extended_prompt, force
from pytest_tokenbudget.core.plan import Plan, text_key
from pytest_tokenbudget.core.store import StoredPrompt, TraceStore
from pytest_tokenbudget.core.trace import Trace
from pytest_tokenbudget.tasks.problem import Problem

Traces = Mapping[tuple[str, int], Trace]


class ForcedAnswerKey(NamedTuple):
    """What a forced answer stands for."""

    closer: str
    budget: int
    problem_id: str


@dataclass(frozen=True)
class Continuation:
    """A trace that goes on from another one; ``cap`` output tokens are allowed."""

    key: str
    branch: Branch
    cap: int
    problem_id: str

    @property
    def want(self) -> Request:
        return Request(self.key, self.branch.prompt_ids, self.cap, problem_id=self.problem_id)


def text_ids(
    store: TraceStore, plan: Plan, wanted: Sequence[str], engine: Callable[[], Engine] | None
) -> dict[str, Ids]:
    """Token ids by text, from the store or, where they are new, from the engine.

    ``engine`` is called only if something has to be encoded; None leaves out what is not there.
    """
    keys = {text: text_key(text) for text in wanted}
    known = store.prompts(plan.model, list(keys.values()))
    missing = [text for text in keys if keys[text] not in known] if engine else []
    if missing and engine:
        new = {keys[text]: StoredPrompt(engine().encode(text), False) for text in missing}
        store.put_prompts(plan.model, new)
        known.update(new)
    return {text: known[key].ids for text, key in keys.items() if key in known}


def plan_texts(plan: Plan) -> list[str]:
    """The texts that a plan of natural traces puts into prompts."""
    assert plan.forcing is not None
    assert plan.format is not None
    return closing_texts(plan.forcing.closers, plan.forcing.waits, plan.format)


def forced_answers(
    plan: Plan, problems: Sequence[Problem], natural: Traces, ids: Mapping[str, Ids]
) -> dict[ForcedAnswerKey, Continuation]:
    """Every forced answer of a plan for the natural traces that are there.

    Problem by problem, the longest prompt first, so that prompts that begin alike come into the
    same batches.
    """
    forcing, form = plan.forcing, plan.format
    assert forcing is not None
    assert form is not None
    known = [(p, natural[p.id, 0]) for p in problems if (p.id, 0) in natural]
    known = [(p, t) for p, t in known if t.covers(plan.cap) and not t.error]
    known.sort(key=lambda pair: -len(pair[1].prompt_ids) - len(pair[1].output_ids))
    found: dict[ForcedAnswerKey, Continuation] = {}
    for problem, trace in known:
        for budget in reversed(forcing.budgets):
            for closer in forcing.closers:
                branch = force(trace, budget, form, closer, ids.__getitem__)
                if branch is not None:
                    found[ForcedAnswerKey(closer.name, budget, problem.id)] = Continuation(
                        plan.key(branch.prompt_ids), branch, forcing.answer_tokens, problem.id
                    )
    return found


class ExtendableTrace(NamedTuple):
    """A trace that may be sent on, and the output tokens that it was allowed."""

    trace: Trace
    cap: int


def extend_thinking(
    plan: Plan,
    problems: Sequence[Problem],
    before: Mapping[str, ExtendableTrace],
    ids: Mapping[str, Ids],
) -> dict[str, Continuation]:
    """The traces of one more round of "Wait", by problem id, for those of the round before.

    A round has what is left of the tokens that the one before it was allowed.
    """
    assert plan.format is not None
    found: dict[str, Continuation] = {}
    for problem in problems:
        if problem.id not in before or before[problem.id].trace.error:
            continue
        trace, cap = before[problem.id]
        branch = extended_prompt(trace, plan.format, ids[WAIT])
        if branch is not None and (left := cap - branch.kept - len(ids[WAIT])) > 0:
            found[problem.id] = Continuation(plan.key(branch.prompt_ids), branch, left, problem.id)
    return found


def wait_rounds(
    store: TraceStore,
    plan: Plan,
    problems: Sequence[Problem],
    natural: Traces,
    ids: Mapping[str, Ids],
    *,
    gather: Callable[[Mapping[str, Continuation]], None] = lambda continuations: None,
) -> Iterator[dict[str, tuple[Trace, Continuation]]]:
    """Round after round of "Wait": the traces that are there, by problem id.

    ``gather`` ensures that a round's traces are there before they are loaded.
    """
    assert plan.forcing is not None
    before = {
        p.id: ExtendableTrace(natural[p.id, 0], plan.cap) for p in problems if (p.id, 0) in natural
    }
    for _ in range(plan.forcing.waits):
        extended = extend_thinking(plan, problems, before, ids)
        gather(extended)
        found = load_continuations(store, {c.key: c for c in extended.values()}, opens=True)
        there = {
            pid: (with_problem(found[c.key], pid), c)
            for pid, c in extended.items()
            if c.key in found
        }
        yield there
        before = {pid: ExtendableTrace(trace, c.cap) for pid, (trace, c) in there.items()}


def load_continuations(
    store: TraceStore, continuations: Mapping[str, Continuation], opens: bool
) -> dict[str, Trace]:
    """The traces that are there, by key; ``opens`` says whether their prompts end in thinking."""
    prompts = {key: StoredPrompt(c.branch.prompt_ids, opens) for key, c in continuations.items()}
    found: dict[str, Trace] = {}
    for cap in {c.cap for c in continuations.values()}:
        names = {key: (key, 0) for key, c in continuations.items() if c.cap == cap}
        found |= {key: trace for (key, _), trace in store.load(names, prompts, cap).items()}
    return found


def with_problem(trace: Trace, problem_id: str) -> Trace:
    return replace(trace, problem_id=problem_id)
