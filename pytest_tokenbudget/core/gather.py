"""Who generates what is missing.

Every process that needs traces helps to make them: it claims a share of what is missing in the
store, generates it, commits each trace as it ends, and goes on until nothing is missing. Nobody
directs the work, so it does not matter how tests are scheduled, and a killed process costs only the
traces that it had not finished.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Protocol

from pytest_tokenbudget.core.engine import Engine, EngineError, Generated, Request, Watch
from pytest_tokenbudget.core.journal import Journal
from pytest_tokenbudget.core.plan import Plan
from pytest_tokenbudget.core.process_states import (
    GENERATING,
    PUBLISH_SECONDS,
    Tally,
    Waiting,
    published,
)
from pytest_tokenbudget.core.store import EndedTrace, StoredPrompt, StoreError, TraceStore
from pytest_tokenbudget.tasks.problem import Problem
from pytest_tokenbudget.texts.detokenizer import text_and_offsets

MOST_TOGETHER = 500


class Committer:
    """Commits what it is given at once; what arrives during a commit goes into the next one.

    Leaving the block waits until everything is committed. Every method and leaving raise a
    ``StoreError`` if something could not be committed. Traces of earlier runs count as missing
    where ``fresh``; progress is shown for ``plan``, if it is not empty.
    """

    def __init__(self, store: TraceStore, model: str, fresh: bool, plan: str = "") -> None:
        self._store, self._model, self._fresh, self._plan = store, model, fresh, plan
        self._queue: SimpleQueue[EndedTrace | None] = SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="tokenbudget-commits", daemon=True)

    def __enter__(self) -> Committer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        if error is None:
            self._check()

    def put(self, ended: EndedTrace) -> None:
        self._check()
        self._queue.put(ended)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            # SQLite connections do not cross threads.
            with closing(self._store.second_connection()) as own:
                own.make_durable()
                more = True
                while more:
                    ended, more = self._next()
                    if ended:
                        own.check_place()
                        own.commit_all(self._model, ended, self._fresh, self._plan)
        except BaseException as error:  # raised where traces are given
            self._error = error

    def _next(self) -> tuple[list[EndedTrace], bool]:
        """The traces that have arrived, at least one, and whether more will come."""
        ended: list[EndedTrace] = []
        one = self._queue.get()
        while one is not None:
            ended.append(one)
            if len(ended) >= MOST_TOGETHER:
                return ended, True
            try:
                one = self._queue.get_nowait()
            except Empty:
                return ended, True
        return ended, False


POLL_SECONDS = 0.1
LOOK_SECONDS = 1.0
# Looking at all wanted traces may take this share of the time, however many they are.
LOOK_SHARE = 0.02


class TraceObserver(Watch, Protocol):
    """Is shown traces while they are being written."""

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

    ``engine`` is called only if something has to be rendered.
    """
    store.join_plan(plan.name)  # before the engine is loaded, which takes a while
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
    wants: Sequence[Request],
    engine: Callable[[], Engine],
    *,
    lease: float = 60.0,
    fresh: bool = False,
    workers: int = 1,
    planned: bool = True,
    observer: TraceObserver | None = None,
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
        observer: Who is shown the traces that this process generates while they are being written.

    Raises:
        EngineError: If the engine cannot generate; claims are given up first.
        StoreError: If the store cannot be used.
    """
    store.want(wants)
    if damage := store.damage_report():
        store.note(damage)
    count = MissingCount(store, plan.name if planned else "", fresh)
    if planned:
        store.join_plan(plan.name)
        store.put_plan(plan.name, plan.to_json(), count.missing)
    by_key = {want.key: want for want in wants}
    try:
        with closing(Waiting(store, plan.name)) as waiting:
            while count.missing:
                store.check_place()
                store.forget_dead()
                # No model is loaded only to wait for others.
                if store.unclaimed(fresh, most=1):
                    share = _share(
                        store, plan, engine(), missing=count.missing, wants=by_key, workers=workers
                    )
                    claimed = store.claim(share, lease, fresh)
                else:
                    claimed = {}
                if claimed:
                    waiting.close()
                    requests = [
                        replace(by_key[key], prefix_ids=ids if engine().continues else ())
                        for key, ids in claimed.items()
                    ]
                    _generate(
                        store, plan, engine(), requests, count=count, lease=lease, observer=observer
                    )
                else:
                    waiting.note_missing(count.missing)
                    time.sleep(POLL_SECONDS)
                    count.refresh()
    except EngineError as error:
        lacking = store.missing(fresh) + store.failed()
        raise EngineError(
            f"{str(error).rstrip('.')}. {lacking:,} of {len(wants):,} traces are "
            "missing: run the same command again, it goes on with those only"
        ) from error
    finally:
        # What ends the gathering is raised, not what then is wrong with the store as well.
        with suppress(StoreError):
            if count.missing and planned:
                store.note_missing(plan.name, store.missing(fresh))
            store.leave_plan()


class MissingCount:
    """How many wanted traces are missing: counted here, and looked up in the store now and then.

    Where ``fresh``, traces of earlier runs count as missing. The progress of ``plan`` is shown, if
    it is not empty.
    """

    def __init__(self, store: TraceStore, plan: str, fresh: bool) -> None:
        self._store, self.plan, self.fresh = store, plan, fresh
        self.missing = store.missing(fresh)
        self._next = time.monotonic() + LOOK_SECONDS

    def ended(self, traces: int) -> None:
        self.missing -= traces
        if self.missing <= 0 or time.monotonic() >= self._next:
            self.refresh()

    def refresh(self) -> float:
        """Look up what is left, and return the seconds that it took."""
        began = time.monotonic()
        # Only where nothing seems to be left are all wanted traces looked at again.
        self.missing = self._store.remaining(self.fresh) or self._store.missing(self.fresh)
        cost = time.monotonic() - began
        self._next = time.monotonic() + max(LOOK_SECONDS, cost / LOOK_SHARE)
        if self.plan:
            self._store.note_missing(self.plan, self.missing)
        return cost


def _share(
    store: TraceStore,
    plan: Plan,
    engine: Engine,
    *,
    missing: int,
    wants: Mapping[str, Request],
    workers: int,
) -> int:
    """A batch, or less where there are too few for all, so that nobody waits for the last one."""
    prompt = max(len(want.prompt_ids) for want in wants.values())
    total = max(len(want.prompt_ids) + want.cap for want in wants.values())
    own, others = store.helpers(plan.name)
    helpers = max(workers, own + 1) + others
    return max(1, min(engine.rows(prompt, total), -(-missing // helpers)))


def _generate(
    store: TraceStore,
    plan: Plan,
    engine: Engine,
    requests: Sequence[Request],
    *,
    count: MissingCount,
    lease: float,
    observer: TraceObserver | None,
) -> None:
    tally = Tally(requests)
    ended = 0
    with (
        _renewed_claims(store, plan, lease, tally),
        Committer(store, plan.model, count.fresh, count.plan) as committer,
        _observed(engine, plan, count.missing, observer, tally),
    ):
        for result in engine.generate(requests, plan.decoding):
            if result.text is None or result.offsets is None:
                text, offsets = text_and_offsets(engine.pieces or engine.decode, result.output_ids)
            else:
                text, offsets = result.text, result.offsets
            committer.put(EndedTrace(result, text, offsets))
            ended += 1
            tally.ended(result.request)
            if observer is not None:
                observer.ended(result, text, offsets)
    count.ended(ended)


@contextmanager
def _observed(
    engine: Engine, plan: Plan, missing: int, observer: TraceObserver | None, tally: Tally
) -> Iterator[None]:
    engine.tally = tally
    if observer is not None:
        observer.begin(plan, engine, missing)
        engine.watch = observer
    try:
        yield
    finally:
        engine.tally = engine.watch = None
        if observer is not None:
            observer.leave()


@contextmanager
def _renewed_claims(store: TraceStore, plan: Plan, lease: float, tally: Tally) -> Iterator[None]:
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
        with suppress(StoreError):  # at worst others wait for the lease
            store.release()
