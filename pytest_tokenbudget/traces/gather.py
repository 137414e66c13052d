"""Who generates what is missing.

Every process that needs traces helps to make them: it claims a share of what is missing in the
store, generates it, commits each trace as it ends, and goes on until nothing is missing. Nobody
directs the work, so it does not matter how tests are scheduled, and a killed process costs only the
traces that it had not finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from pytest_tokenbudget.context.stream import text_and_offsets
from pytest_tokenbudget.engines.base import Engine, EngineError, Generated, Request, Watch
from pytest_tokenbudget.tasks.problem import Problem
from pytest_tokenbudget.traces.journal import Journal
from pytest_tokenbudget.traces.plan import Plan
from pytest_tokenbudget.traces.store import StoredPrompt, TraceStore, Want
from pytest_tokenbudget.traces.tally import GENERATING, PUBLISH_SECONDS, Tally, published

POLL_SECONDS = 0.1


class Audience(Watch, Protocol):
    """Who is shown traces while they are being written."""

    def begin(self, plan: Plan, engine: Engine, missing: int) -> None:
        """Be told what the next outputs are for, and how many traces are missing."""

    def ended(self, result: Generated, text: str, offsets: Sequence[int]) -> None:
        """Take a result as it is stored."""

    def leave(self) -> None:
        """Be told that nothing more comes for now."""


def render(
    store: TraceStore, plan: Plan, problems: Sequence[Problem], engine: Callable[[], Engine]
) -> dict[str, StoredPrompt]:
    """Rendered prompts by problem id, from the store or, where they are new, from the engine.

    Args:
        store: Where rendered prompts are kept.
        plan: Names the model and the mode.
        problems: Their messages are rendered.
        engine: Gives the engine; called only if something has to be rendered.
    """
    renders = plan.renders(problems)
    known = store.prompts(plan.model, list(dict.fromkeys(renders.values())))
    new: dict[str, StoredPrompt] = {}
    for problem in problems:
        key = renders[problem.id]
        if key in known or key in new:
            continue
        prompt = engine().render(problem.messages, plan.thinking)
        opens = plan.format is not None and plan.format.left_open(prompt.text)
        new[key] = StoredPrompt(prompt.ids, opens)
    if new:
        store.put_prompts(plan.model, new)
    known.update(new)
    return {problem_id: known[key] for problem_id, key in renders.items()}


def gather(
    store: TraceStore,
    plan: Plan,
    wants: Sequence[Want],
    engine: Callable[[], Engine],
    *,
    lease: float = 60.0,
    fresh: bool = False,
    workers: int = 1,
    planned: bool = True,
    audience: Audience | None = None,
) -> None:
    """Generate every wanted trace that is not in the store, together with other processes.

    Args:
        store: Where traces are kept and shares are claimed.
        plan: What they are for.
        wants: The traces that are needed.
        engine: Gives the engine; called only if this process has to generate.
        lease: Seconds after which others take over the share of a process that went silent.
        fresh: Whether traces of earlier runs count as missing.
        workers: How many processes of this run are expected to help.
        planned: Whether the run's progress display and its reports are told of the plan.
        audience: Who is shown the traces that this process generates while they are being written.

    Raises:
        EngineError: If the engine cannot generate; claims are given up first.
        StoreError: If the store cannot be used.
    """
    store.want(wants)
    if damage := store.damage_report():
        store.note(damage)
    missing = store.missing(fresh)
    if planned:
        store.put_plan(plan.name, plan.to_json(), missing)
    by_key = {want.key: want for want in wants}
    try:
        while missing:
            # No model is loaded only to wait for others.
            if store.unclaimed(fresh):
                share = _share(store, engine(), missing, by_key, workers)
                claimed = store.claim(share, lease, fresh)
            else:
                claimed = {}
            if claimed:
                goes_on = engine().continues
                requests = [
                    _request(by_key[key], ids if goes_on else ()) for key, ids in claimed.items()
                ]
                tally = Tally(requests)
                with (
                    _kept(store, plan, lease, tally),
                    _watched(engine(), plan, missing, audience, tally),
                ):
                    _generate(
                        store,
                        plan,
                        engine(),
                        requests,
                        tally,
                        fresh=fresh,
                        planned=planned,
                        audience=audience,
                    )
            else:
                time.sleep(POLL_SECONDS)
            missing = store.missing(fresh)
            if planned:
                store.note_missing(plan.name, missing)
    except EngineError as error:
        lacking = store.missing(fresh) + store.failed()
        raise EngineError(
            f"{str(error).rstrip('.')}. {lacking:,} of {len(wants):,} traces are "
            "missing: run the same command again, it goes on with those only"
        ) from error
    finally:
        # Ctrl-C may come at any place, also just after a claim.
        store.release()


def _request(want: Want, prefix: tuple[int, ...]) -> Request:
    return Request(
        key=want.key,
        prompt_ids=want.prompt_ids,
        cap=want.cap,
        sample=want.sample,
        prefix_ids=prefix,
        messages=want.messages,
        thinking=want.thinking,
        problem_id=want.problem_id,
        opens_thinking=want.opens_thinking,
    )


def _share(
    store: TraceStore, engine: Engine, missing: int, wants: Mapping[str, Want], workers: int
) -> int:
    """A batch, or less where there are too few for all, so that nobody waits for the last one."""
    prompt = max(len(want.prompt_ids) for want in wants.values())
    total = max(len(want.prompt_ids) + want.cap for want in wants.values())
    helpers = max(workers, store.claimants() + 1)
    return max(1, min(engine.rows(prompt, total), -(-missing // helpers)))


def _generate(
    store: TraceStore,
    plan: Plan,
    engine: Engine,
    requests: Sequence[Request],
    tally: Tally,
    *,
    fresh: bool,
    planned: bool,
    audience: Audience | None,
) -> None:
    for result in engine.generate(requests, plan.decoding):
        if result.text is None or result.offsets is None:
            text, offsets = text_and_offsets(engine.pieces or engine.decode, result.output_ids)
        else:
            text, offsets = result.text, result.offsets
        store.commit(plan.model, result, text, offsets, fresh)
        tally.ended(result.request)
        if planned:
            store.note_missing(plan.name, store.missing(fresh))
        if audience is not None:
            audience.ended(result, text, offsets)


@contextmanager
def _watched(
    engine: Engine, plan: Plan, missing: int, audience: Audience | None, tally: Tally
) -> Iterator[None]:
    """Have an engine report its tokens, and let an audience watch it."""
    engine.tally = tally
    if audience is not None:
        audience.begin(plan, engine, missing)
        engine.watch = audience
    try:
        yield
    finally:
        engine.tally = engine.watch = None
        if audience is not None:
            audience.leave()


@contextmanager
def _kept(store: TraceStore, plan: Plan, lease: float, tally: Tally) -> Iterator[None]:
    """Renew this process's claims and publish its tokens while it works, and then give up both."""
    renewed = time.monotonic()

    def renew(own: Journal) -> None:
        # A renewal that fails is tried again; at worst somebody else takes the share over.
        nonlocal renewed
        if time.monotonic() - renewed >= lease / 3:
            own.renew(lease)
            renewed = time.monotonic()

    def state() -> object:
        return {"plan": plan.name, "lengths": tally.lengths()}

    seconds = min(lease / 3, PUBLISH_SECONDS)
    try:
        with published(store, GENERATING, state, seconds, renew):
            yield
    finally:
        store.release()
