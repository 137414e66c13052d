"""Thinking that is ended by force, or sent on: its prompts, and where its traces are kept.

A forced answer is a trace of its own. Its prompt is that of the natural trace, the thinking up to
the budget as it was generated, and a closer. Where the thinking had ended by itself within the
budget nothing is forced, and the natural answer stands.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from pytest_tokenbudget.core.engine import Engine, Request
from pytest_tokenbudget.core.plan import Plan, text_key
from pytest_tokenbudget.core.store import StoredPrompt, TraceStore
from pytest_tokenbudget.core.trace import StopReason, Trace
from pytest_tokenbudget.tasks.problem import Problem
from pytest_tokenbudget.texts.thinking_blocks import (
    Closer,
    Mark,
    Tag,
    ThinkingFormat,
    find_tags,
    parse_tags,
)

WAIT = "Wait"

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Branch:
    """A prompt that goes on from a trace; ``kept`` output tokens of it are in the prompt."""

    prompt_ids: Ids
    kept: int


def opened_text(thinking: ThinkingFormat, closer: Closer) -> str:
    """What ends thinking that has not begun: a block that is opened and closed at once.

    One text, since tokens may reach over the join: with the bare closer it is what templates
    write where thinking is switched off.
    """
    return f"{thinking.open}\n{closer.text}"


def closing_texts(closers: Sequence[Closer], waits: int, thinking: ThinkingFormat) -> list[str]:
    """All texts whose token ids are needed."""
    needed = [text for c in closers for text in (c.text, opened_text(thinking, c))]
    return [*needed, *([WAIT] if waits else [])]


def ended_within(trace: Trace, budget: int, thinking: ThinkingFormat) -> int | None:
    """Output tokens after which thinking had ended by itself, if that was within ``budget``.

    A trace that ended within the budget has ended its thinking, closed or not; one that never
    thinks has ended it before it began. The natural trace must reach to the budget, which may be 0.
    """
    length = len(trace.output_ids)
    tags = trace.tags(thinking)
    whole = parse_tags(tags, trace.text, thinking, trace.opened_by_prompt)
    if not (whole.opened or whole.closed):
        return 0
    over = not trace.capped and length <= budget
    used = min(budget, length)
    text = trace.text if over else trace.text[: trace.offsets[used - 1]] if used else ""
    blocks = parse_tags(tags, text, thinking, trace.opened_by_prompt)
    if over and (blocks.left_open or not blocks.closed):
        return length
    if blocks.left_open or not blocks.closed:
        return None
    closes = [tag.end for tag in tags if tag.mark is Mark.CLOSE and tag.end <= len(text)]
    ends = [end for _, end in blocks.open_at]
    # With headers any message ends with the same tag, so only that of a block is looked at.
    end = max(ends or closes, default=0) if thinking.answer else max(closes or ends, default=0)
    return min(bisect_left(trace.offsets, end) + 1, length)


@dataclass(frozen=True)
class ForcedTrace(Trace):
    """A natural trace up to a budget, what ended its thinking, and the answer that followed.

    It is as long as it was allowed to become: a larger budget cuts nothing off. What ended the
    thinking (``inserted``) was part of a prompt, so it is in the text and has no tokens. ``kept``
    are the output tokens of the natural trace.
    """

    kept: int = 0
    inserted: str = ""

    def covers(self, budget: int) -> bool:
        return True

    @property
    def inserted_span(self) -> tuple[int, int]:
        """Where what ended the thinking begins and ends in the text."""
        start = self.offsets[self.kept - 1] if self.kept else 0
        return start, start + len(self.inserted)

    def ends(self, count: int) -> tuple[int, ...]:
        """Where the first ``count`` tokens end in the text, and what ended the thinking."""
        if count <= self.kept:
            return self.offsets[:count]
        return (*self.offsets[: self.kept], self.inserted_span[1], *self.offsets[self.kept : count])

    def tags(self, thinking: ThinkingFormat | None) -> tuple[Tag, ...]:
        """All tags of its text; those of its parts are told from spelled ones part by part."""
        start, end = self.inserted_span
        ids, offsets = self.output_ids, self.offsets
        parts = (
            (0, find_tags(self.text[:start], thinking, ids[: self.kept], offsets[: self.kept])),
            (start, find_tags(self.inserted, thinking)),
            (
                end,
                find_tags(
                    self.text[end:],
                    thinking,
                    ids[self.kept :],
                    [each - end for each in offsets[self.kept :]],
                ),
            ),
        )
        return tuple(
            Tag(tag.start + shift, tag.end + shift, tag.mark)
            for shift, tags in parts
            for tag in tags
        )


def forced_trace(natural: Trace, answer: Trace, kept: int, inserted: str) -> ForcedTrace:
    """A natural trace and the answer that was forced from it, as one trace.

    ``kept`` output tokens of the natural trace were in its prompt, and the text ``inserted``
    followed.
    """
    start = natural.offsets[kept - 1] if kept else 0
    shift = start + len(inserted)
    ids = (*natural.output_ids[:kept], *answer.output_ids)
    return ForcedTrace(
        problem_id=natural.problem_id,
        sample=natural.sample,
        prompt_ids=natural.prompt_ids,
        output_ids=ids,
        stop_reason=answer.stop_reason,
        cap=len(ids) if answer.capped else kept + answer.cap,
        text=natural.text[:start] + inserted + answer.text,
        offsets=(*natural.offsets[:kept], *(each + shift for each in answer.offsets)),
        opened_by_prompt=natural.opened_by_prompt,
        engine_reason=answer.engine_reason,
        error=answer.error,
        counted=natural.counted or answer.counted,
        kept=kept,
        inserted=inserted,
    )


def ended_trace(natural: Trace, cap: int) -> Trace:
    """A natural trace whose thinking had ended by itself, allowed no more than ``cap`` tokens."""
    if natural.stop_reason is StopReason.ERROR:
        return natural
    if not natural.capped and len(natural.output_ids) <= cap:
        return natural
    ids = natural.output_ids[:cap]
    offsets = natural.offsets[:cap]
    return ForcedTrace(
        problem_id=natural.problem_id,
        sample=natural.sample,
        prompt_ids=natural.prompt_ids,
        output_ids=ids,
        stop_reason=StopReason.LENGTH,
        cap=len(ids),
        text=natural.text[: offsets[-1]] if offsets else "",
        offsets=offsets,
        opened_by_prompt=natural.opened_by_prompt,
        counted=natural.counted,
        kept=len(ids),
    )


def closing_text(
    trace: Trace, budget: int, thinking: ThinkingFormat, closer: Closer
) -> tuple[int, str] | None:
    """Output tokens that are kept, and the text that ends thinking there.

    None where the natural answer stands.
    """
    if ended_within(trace, budget, thinking) is not None:
        return None
    kept = min(budget, len(trace.output_ids))
    text = trace.text[: trace.offsets[kept - 1]] if kept else ""
    if parse_tags(trace.tags(thinking), text, thinking, trace.opened_by_prompt).left_open:
        return kept, closer.text
    # The block is still to be opened: what stands before it is no thinking to go on from.
    return 0, opened_text(thinking, closer)


def force(
    trace: Trace,
    budget: int,
    thinking: ThinkingFormat,
    closer: Closer,
    ids: Callable[[str], Ids],
) -> Branch | None:
    """The prompt of the forced answer, None where the natural answer stands.

    The trace must reach to the budget, which may be 0; ``ids`` gives the token ids of a text.
    """
    closing = closing_text(trace, budget, thinking, closer)
    if closing is None:
        return None
    kept, text = closing
    return Branch((*trace.prompt_ids, *trace.output_ids[:kept], *ids(text)), kept)


def extended_prompt(trace: Trace, thinking: ThinkingFormat, wait: Sequence[int]) -> Branch | None:
    """The prompt that sends thinking on where it had ended; None where it has not.

    ``wait`` are the token ids of what is put in the place of the close tag.
    """
    tags = trace.tags(thinking)
    blocks = parse_tags(tags, trace.text, thinking, trace.opened_by_prompt)
    if not blocks.open_at or blocks.open_at[0][1] > len(trace.text):
        return None
    start = next(tag.start for tag in tags if tag.end == blocks.open_at[0][1])
    kept = bisect_right(trace.offsets, start)
    return Branch((*trace.prompt_ids, *trace.output_ids[:kept], *wait), kept)


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
