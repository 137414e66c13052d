"""Several servers as one: who gets what, what is tried again, and when it is given up."""

import asyncio
import random
import time
from collections import Counter
from contextlib import ExitStack, aclosing
from itertools import pairwise

import pytest
from faulty_proxy import FaultyProxy, Mischief, always, at_random, every, first, in_order
from tiny_server import TinyServer

from pytest_tokenbudget.engines.server.http import Fault, FaultKind, Key
from pytest_tokenbudget.engines.server.pool import Pool
from pytest_tokenbudget.engines.server.server_state import FIRST, MOST, ServerTiming, Throttle

QUICK = ServerTiming(
    first=0.01,
    longest=0.05,
    retry_after=0.3,
    look=0.05,
    look_timeout=0.3,
    all_down=0.6,
    overloaded=0.6,
    window=0.1,
)


@pytest.fixture
def tiny():
    with TinyServer() as server:
        yield server


@pytest.fixture
def two():
    """Two servers, each behind a proxy that does nothing yet."""
    with ExitStack() as stack:
        servers = [stack.enter_context(TinyServer(delay=0.002)) for _ in range(2)]
        yield [stack.enter_context(FaultyProxy(server.url)) for server in servers]


def pooled(urls, use, **options):
    """What comes of ``use(pool)``."""
    options = {"timeout": 1.0, "timing": QUICK} | options

    async def run():
        pool = Pool([urls] if isinstance(urls, str) else urls, **options)
        try:
            return await asyncio.wait_for(use(pool), 25)
        finally:
            await pool.close()

    return asyncio.run(run())


def asking(pool, prompt="p", tokens=4, sticky=None, tries=5):
    """One completion through the pool: its words, whole or not at all."""

    async def job(server):
        words, whole = [], False
        body = {"prompt": prompt, "max_tokens": tokens, "stream": True}
        async with aclosing(server.stream("completions", body)) as events:
            async for event in events:
                choice = event["choices"][0]
                words.append(choice["text"].strip())
                whole = choice["finish_reason"] is not None
                pool.tick(server, 1)
        if not whole:
            raise server.fault(FaultKind.CUT, "ended the stream before its last event")
        return server.url, words

    return pool.run(job, sticky=sticky, tries=tries)


def ask(urls, **options):
    return pooled(urls, asking, **options)


def failing(urls, **options) -> Fault:
    with pytest.raises(Fault) as caught:
        ask(urls, **options)
    return caught.value


WORDS = ["w0", "w1", "w2", "w3"]
HELPED = [
    Mischief.RATE_LIMIT,
    Mischief.SERVER_ERROR,
    Mischief.BAD_GATEWAY,
    Mischief.LOADING,
    Mischief.RESET,
    Mischief.MALFORMED,
    Mischief.STOPS,
    Mischief.ENDS,
    Mischief.TIMEOUT,
    Mischief.STALLS,
]
FATAL = {Mischief.NO_MODEL: FaultKind.NO_MODEL, Mischief.WRONG_KEY: FaultKind.KEY}


# One server


@pytest.mark.parametrize("what", HELPED)
def test_what_is_asked_again(tiny, what):
    silent = what in (Mischief.TIMEOUT, Mischief.STALLS)
    with FaultyProxy(tiny.url, first(2, what)) as proxy:
        assert ask(proxy.url, timeout=0.4 if silent else 5) == (proxy.url, WORDS)
        assert proxy.counts == {what: 2, "passed": 1}


@pytest.mark.parametrize("what", [*FATAL, Mischief.CONTEXT])
def test_what_is_not_asked_again(tiny, what):
    with FaultyProxy(tiny.url, first(1, what)) as proxy:
        fault = failing(proxy.url)
        assert proxy.counts == {what: 1}
    assert fault.fatal is (what in FATAL)
    assert "asked" not in str(fault)


@pytest.mark.parametrize("what", [Mischief.SERVER_ERROR, Mischief.RESET, Mischief.STOPS])
def test_tries_come_to_an_end(tiny, what):
    with FaultyProxy(tiny.url, always(what)) as proxy:
        fault = failing(proxy.url)
        assert proxy.counts == {what: 5}
    assert not fault.fatal
    assert str(fault).endswith("(asked 5 times)")


def test_other_errors_of_a_job_are_not_swallowed(tiny):
    async def use(pool):
        async def job(server):
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await pool.run(job)
        return await asking(pool)  # its place is free again

    assert pooled(tiny.url, use, in_flight=1)[1] == WORDS


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_kept(tiny, as_date):
    wanted = 2 if as_date else 0.4  # a date has whole seconds
    with FaultyProxy(
        tiny.url, first(1, Mischief.RATE_LIMIT), retry_after=wanted, as_date=as_date
    ) as proxy:
        start = time.monotonic()
        ask(proxy.url, timing=ServerTiming(first=0.01, longest=0.05))
        assert 0.38 <= time.monotonic() - start < 4
        if as_date:
            assert time.monotonic() - start >= 0.9


def test_a_huge_retry_after_is_cut_and_told(tiny):
    told = []
    with FaultyProxy(tiny.url, first(1, Mischief.RATE_LIMIT), retry_after=86400) as proxy:
        start = time.monotonic()
        ask(proxy.url, say=told.append)
        assert 0.28 <= time.monotonic() - start < 3
        assert told == [f"{proxy.url} asks to wait 86,400 s; it is asked again after 0.3 s"]


def test_retry_after_holds_for_all_requests_to_the_server(tiny):
    """Nobody is sent into a pause that the server has asked for."""
    with FaultyProxy(tiny.url, first(1, Mischief.RATE_LIMIT), retry_after=0.25) as proxy:

        async def use(pool):
            refused = asyncio.ensure_future(asking(pool))
            while not proxy.counts:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.03)
            start = time.monotonic()
            await asyncio.gather(refused, *(asking(pool) for _ in range(6)))
            return time.monotonic() - start

        assert pooled(proxy.url, use) >= 0.18
        assert proxy.counts == {"rate limit": 1, "passed": 7}


def test_only_refusals_come_to_an_end(tiny):
    with FaultyProxy(tiny.url, always(Mischief.RATE_LIMIT), retry_after=0.05) as proxy:
        start = time.monotonic()
        fault = failing(proxy.url)
        assert time.monotonic() - start < 5
    assert fault.fatal
    assert "nothing got through for 0.6 s" in str(fault)


@pytest.mark.slow
def test_a_server_that_takes_requests_and_never_answers_ends_the_run(tiny):
    """It passes every look; each of many requests would else wait for all of its tries."""
    with FaultyProxy(tiny.url, always(Mischief.TIMEOUT)) as proxy:

        async def use(pool):
            asked = [asyncio.ensure_future(asking(pool, f"p{n}")) for n in range(40)]
            return await asyncio.gather(*asked, return_exceptions=True)

        begun = time.monotonic()
        faults = pooled(proxy.url, use, timeout=0.1)
    assert time.monotonic() - begun < 8
    assert any(fault.fatal for fault in faults)
    assert all(fault.kind is FaultKind.TIMEOUT for fault in faults)
    assert any("nothing got through for 0.6 s" in str(fault) for fault in faults)


def test_a_person_is_told_once_what_is_tried_again_and_again(tiny):
    told = []
    with FaultyProxy(tiny.url, always(Mischief.SERVER_ERROR)) as proxy:
        failing(proxy.url, say=told.append)
    assert len(told) == 1
    assert told[0].startswith(f"{proxy.url} failed at completions (500)")
    assert told[0].endswith("; it is tried again")


def test_one_that_writes_for_long_while_others_are_refused_ends_nothing():
    """Nothing is done for longer than refusals are endured, but words come all the time."""
    with TinyServer(delay=0.05) as slow, FaultyProxy(slow.url) as proxy:

        async def use(pool):
            long = asyncio.ensure_future(asking(pool, "long", tokens=40))
            await asyncio.sleep(0.2)
            proxy.plan = always(Mischief.RATE_LIMIT)
            other = asyncio.ensure_future(asking(pool, "other", tries=50))
            await asyncio.sleep(1.4)
            proxy.plan = in_order()
            return await asyncio.gather(long, other)

        (_, words), _ = pooled(proxy.url, use)
    assert len(words) == 40


def test_one_request_that_is_always_refused_does_not_wait_for_ever(tiny):
    """Others get through, this one is too much for the server's limit."""
    with FaultyProxy(tiny.url, always(Mischief.RATE_LIMIT), retry_after=0) as proxy:
        fault = failing(proxy.url, timing=ServerTiming(first=0.001, longest=0.002, overloaded=100))
        assert proxy.counts == {"rate limit": 20}
    assert fault.kind is FaultKind.OVERLOADED
    assert not fault.fatal


def test_a_server_that_loads_its_model_is_waited_for(tiny):
    told = []
    with FaultyProxy(
        tiny.url, always(Mischief.LOADING), paths=("/health", "completions"), retry_after=None
    ) as proxy:

        async def use(pool):
            asked = asyncio.ensure_future(asking(pool))
            await asyncio.sleep(0.3)
            proxy.plan = in_order()
            return await asked

        assert pooled(proxy.url, use, say=told.append)[1] == WORDS
        generations = [path for _, path, _ in proxy.log if "completions" in path]
    assert len(generations) == 2
    assert "still loading its model" in told[0]
    assert "answers again" in told[-1]


def test_a_server_that_never_ends_loading(tiny):
    with FaultyProxy(
        tiny.url, always(Mischief.LOADING), paths=("/health", "completions"), retry_after=None
    ) as proxy:
        fault = failing(proxy.url)
    assert fault.fatal
    assert "loading its model" in str(fault)


# Servers that die and come back


def test_a_server_that_comes_back(two):
    one, told = two[0], []

    async def use(pool):
        await asking(pool)
        one.die()
        asked = [asyncio.ensure_future(asking(pool, tries=2)) for _ in range(8)]
        await asyncio.sleep(0.25)
        one.return_()
        return await asyncio.gather(*asked)

    assert [words for _, words in pooled(one.url, use, say=told.append)] == [WORDS] * 8
    assert len(told) == 2
    assert "nothing answers" in told[0]
    assert "waiting for it" in told[0]
    assert "answers again" in told[1]


def test_a_listener_that_fails_does_not_stop_the_looks(two):
    one = two[0]

    def fail(line):
        raise RuntimeError("nobody listens")

    async def use(pool):
        await asking(pool)
        one.die()
        asked = asyncio.ensure_future(asking(pool, tries=2))
        await asyncio.sleep(0.25)
        one.return_()
        return await asyncio.wait_for(asked, 20)

    assert pooled(one.url, use, say=fail)[1] == WORDS


def test_all_servers_down(two):
    for proxy in two:
        proxy.die()

    async def use(pool):
        return await asyncio.gather(*(asking(pool) for _ in range(6)), return_exceptions=True)

    start = time.monotonic()
    faults = pooled([proxy.url for proxy in two], use)
    assert 0.5 < time.monotonic() - start < 6
    assert len(faults) == 6
    for fault in faults:
        assert fault.fatal
        assert str(fault).startswith("no server is left: nothing answers at")
        assert all(proxy.url in str(fault) for proxy in two)


def test_down_for_good_does_not_wait_again(two):
    two[0].die()

    async def use(pool):
        with pytest.raises(Fault, match="no server is left"):
            await asking(pool)
        start = time.monotonic()
        with pytest.raises(Fault, match="no server is left"):
            await asking(pool)
        assert time.monotonic() - start < 0.1
        two[0].return_()
        await asyncio.sleep(0.3)
        return await asking(pool)

    assert pooled(two[0].url, use)[1] == WORDS


def test_one_of_two_is_killed_in_the_middle(two):
    """All answers are there, none of them twice; the other server takes over; it is used again."""
    urls, told = [proxy.url for proxy in two], []

    async def use(pool):
        async def many(numbers):
            return await asyncio.gather(
                *(asking(pool, f"p{n}", 20, sticky=n, tries=2) for n in numbers)
            )

        running = asyncio.ensure_future(many(range(40)))
        while sum(proxy.counts["passed"] for proxy in two) < 16:
            await asyncio.sleep(0.005)
        two[0].die()
        await asyncio.sleep(0.2)
        two[0].return_()
        done = await running
        await asyncio.sleep(0.2)
        before = Counter(two[0].counts)
        await many(range(40, 60))
        assert two[0].counts["passed"] > before["passed"], "not used again"
        return done, pool.states

    done, states = pooled(urls, use, in_flight=4, say=told.append)
    assert [words for _, words in done] == [[f"w{i}" for i in range(20)]] * 40
    assert {url for url, _ in done} == set(urls)
    assert states[urls[0]].faults
    assert set(states[urls[0]].faults) <= {"connection", "stream cut"}
    assert not states[urls[1]].faults
    assert sum(state.done for state in states.values()) == 60
    assert "its requests go to the others" in told[0]
    assert "answers again" in told[1]


def test_a_broken_connection_is_no_try_while_another_server_is_up(two):
    two[0].die()
    urls = [proxy.url for proxy in two]

    async def use(pool):
        return [await asking(pool, tries=1) for _ in range(3)]

    assert {url for url, _ in pooled(urls, use)} == {urls[1]}


def test_a_server_that_only_looks_alive(two):
    """It answers looks and resets every request: the work is done elsewhere, and it ends."""
    two[0].plan = always(Mischief.RESET)
    urls = [proxy.url for proxy in two]

    async def use(pool):
        return await asyncio.gather(*(asking(pool, sticky=n) for n in range(30)))

    done = pooled(urls, use, in_flight=2)
    assert {url for url, _ in done} == {urls[1]}
    assert two[0].done < 30  # none of them met it twice
    two[1].plan = always(Mischief.RESET)
    assert failing(urls).tried <= 7


def test_a_hung_server_is_left_out(two):
    """Accepts everything, answers nothing, not even a look."""
    two[0].plan = always(Mischief.TIMEOUT)
    two[0]._paths = ("/",)
    urls = [proxy.url for proxy in two]

    async def use(pool):
        return await asyncio.gather(*(asking(pool) for _ in range(20)))

    start = time.monotonic()
    done = pooled(urls, use, timeout=0.3, in_flight=2)
    assert {url for url, _ in done} == {urls[1]}
    assert time.monotonic() - start < 6


def test_faults_at_random_lose_nothing(two):
    kinds = [k for k in HELPED if k not in (Mischief.TIMEOUT, Mischief.STALLS, Mischief.LOADING)]
    for seed, proxy in enumerate(two):
        proxy.plan = at_random(0.25, seed, *kinds)

    async def use(pool):
        done = await asyncio.gather(*(asking(pool, f"p{n}", sticky=n, tries=10) for n in range(80)))
        return done, pool.states

    done, states = pooled([proxy.url for proxy in two], use, timeout=0.5)
    assert [words for _, words in done] == [WORDS] * 80
    assert sum(state.done for state in states.values()) == 80
    made = sum(proxy.done for proxy in two)
    assert made >= 15
    assert sum(sum(state.faults.values()) for state in states.values()) == made
    assert sum(proxy.counts["passed"] for proxy in two) == 80


# Who gets what


def test_work_is_spread(two):
    urls = [proxy.url for proxy in two]

    async def use(pool):
        return await asyncio.gather(*(asking(pool, tokens=10) for _ in range(20)))

    counts = Counter(url for url, _ in pooled(urls, use, in_flight=5))
    assert sorted(counts.values())[0] >= 8


def test_prompts_stay_with_their_server(two):
    urls = [proxy.url for proxy in two]

    async def use(pool):
        prompts = [n for n in range(10) for _ in range(6)]
        random.Random(1).shuffle(prompts)
        gate = asyncio.Semaphore(6)

        async def one(n):
            async with gate:
                return n, (await asking(pool, tokens=3, sticky=n))[0]

        return await asyncio.gather(*(one(n) for n in prompts))

    placed = Counter(pooled(urls, use, in_flight=6))
    own = sum(max(placed[n, url] for url in urls) for n in range(10))
    assert own >= 54, placed
    assert len({url for _, url in placed}) == 2


@pytest.mark.parametrize("in_flight", [1, 2])
def test_one_prompt_does_not_keep_the_others_idle(two, in_flight):
    urls = [proxy.url for proxy in two]

    async def use(pool):
        return await asyncio.gather(*(asking(pool, tokens=5, sticky="same") for _ in range(24)))

    counts = Counter(url for url, _ in pooled(urls, use, in_flight=in_flight))
    assert min(counts.values()) >= 5
    assert len(counts) == 2


@pytest.mark.parametrize("sticky", [None, "p"])
def test_the_next_try_is_made_elsewhere(two, sticky):
    two[0].plan = always(Mischief.SERVER_ERROR)
    urls = [proxy.url for proxy in two]

    async def use(pool):
        return [await asking(pool, sticky=sticky, tries=2) for _ in range(3)]

    assert {url for url, _ in pooled(urls, use)} == {urls[1]}
    assert two[0].done == 3


def test_a_prompt_of_a_dead_server_gets_a_new_one(two):
    urls = [proxy.url for proxy in two]

    async def use(pool):
        (home, _) = await asking(pool, sticky="p")
        two[urls.index(home)].die()
        moved = [await asking(pool, sticky="p") for _ in range(3)]
        two[urls.index(home)].return_()
        await asyncio.sleep(0.2)
        moved.append(await asking(pool, sticky="p"))
        return home, {url for url, _ in moved}

    home, moved = pooled(urls, use)
    assert moved == set(urls) - {home}


def test_the_same_url_twice_is_one_server(tiny):
    async def use(pool):
        await asking(pool)
        return pool.states

    states = pooled([tiny.url, tiny.url + "/", tiny.origin], use, in_flight=3)
    (state,) = states.values()
    assert list(states) == [tiny.url]
    assert (state.done, state.tokens, dict(state.faults), state.throttle.limit) == (1, 4, {}, 3)


def test_the_bound_is_kept(tiny):
    tiny.delay = 0.003

    async def use(pool):
        await asyncio.gather(*(asking(pool, tokens=3) for _ in range(30)))

    pooled(tiny.url, use, in_flight=3)
    assert tiny.most_working == 3
    assert tiny.prompts == {"p": 30}


def test_cancelled_requests_give_their_places_back(tiny):
    tiny.delay = 0.01

    async def use(pool):
        tasks = [asyncio.ensure_future(asking(pool, tokens=1000)) for _ in range(10)]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return await asyncio.gather(*(asking(pool) for _ in range(4)))

    assert len(pooled(tiny.url, use, in_flight=2)) == 4


def test_a_key_goes_to_the_server(tiny):
    ask(tiny.url, key=Key("sk-pool-123456"))
    assert tiny.asked[-1].headers["authorization"] == "Bearer sk-pool-123456"


# How many at once


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def simulate(rate, seconds, throttle=None, clock=None, noise=0.0, demand=10_000):
    """A server that gives ``rate(n)`` tokens a second to n requests at once."""
    clock = clock or Clock()
    throttle = throttle or Throttle(clock=clock)
    draw = random.Random(3)
    limits = []
    end = clock.now + seconds
    while clock.now < end:
        clock.now += 0.1
        n = min(throttle.limit, demand)
        if demand < throttle.limit:
            throttle.spare()
        throttle.tick(round(100 * rate(n) * draw.uniform(1 - noise, 1 + noise)))
        limits.append(throttle.limit)
    return throttle, clock, limits


@pytest.mark.parametrize("slots", [4, 8, 16, 64, 200])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_limit_settles_where_more_no_longer_helps(slots, noise):
    _, _, limits = simulate(lambda n: min(n, slots), 120, noise=noise)
    tail = sorted(limits[600:])
    assert slots * 0.75 <= tail[len(tail) // 2] <= slots * 2


def test_a_server_with_one_place():
    _, _, limits = simulate(lambda n: 1, 60)
    assert limits[-1] <= FIRST + 1
    assert max(limits) == 2 * FIRST
    assert limits.count(FIRST) > len(limits) / 2


def test_the_limit_ends_at_the_most():
    _, _, limits = simulate(lambda n: n, 60)
    assert limits[-1] == max(limits) == MOST


def test_no_demand_no_growth():
    _, _, limits = simulate(lambda n: n, 60, demand=3)
    assert set(limits) == {FIRST}


def test_complaints_halve_it_once_a_burst():
    throttle, clock, _ = simulate(lambda n: n, 60)
    for _ in range(50):
        throttle.shrink()
    assert throttle.limit == MOST // 2
    clock.now += 10
    throttle.shrink()
    assert throttle.limit == MOST // 4
    for _ in range(20):
        clock.now += 10
        throttle.shrink()
    assert throttle.limit == 1
    # It grows again, in small steps.
    _, _, limits = simulate(lambda n: min(n, 40), 200, throttle, clock)
    steps = [b - a for a, b in pairwise(limits)]
    assert max(limits) > 16
    assert all(step <= max(1, limit // 4) for step, limit in zip(steps, limits, strict=False))


def test_a_fixed_limit_stays():
    clock = Clock()
    throttle, _, limits = simulate(lambda n: n, 30, Throttle(7, clock=clock), clock)
    throttle.shrink()
    assert set(limits) == {7}
    assert throttle.limit == 7


def test_requests_are_the_measure_where_nobody_counts_tokens():
    clock = Clock()
    throttle = Throttle(clock=clock)
    for _ in range(400):
        clock.now += 0.1
        for _ in range(throttle.limit):
            throttle.ended()
    assert throttle.limit > 4 * FIRST


@pytest.mark.slow
def test_a_pool_finds_out_what_a_server_sustains():
    """16 places: the pool gets well above its first 4, and the server is kept busy."""
    # Where others keep the cores busy, a quick server's rate does not grow with what it is given.
    for delay in (0.01, 0.03, 0.1):
        with TinyServer(delay=delay, slots=16) as server:

            async def use(pool, server=server):
                await asyncio.gather(*(asking(pool, tokens=20) for _ in range(160)))
                return pool.states[server.url]

            load = pooled(server.url, use, timeout=20)
        assert load.done == 160
        assert load.tokens == 3200
        if 8 <= server.most_working <= 64:
            return
    raise AssertionError(f"{server.most_working} at once, where 16 would do")


def test_complaints_make_a_pool_send_less(tiny):
    tiny.delay = 0.002
    with FaultyProxy(tiny.url, every(3, Mischief.RATE_LIMIT), retry_after=0.02) as proxy:

        async def use(pool):
            await asyncio.gather(*(asking(pool, tokens=10, tries=10) for _ in range(40)))
            return pool.states[proxy.url]

        load = pooled(proxy.url, use)
    assert load.done == 40
    assert load.faults["overloaded"] == proxy.done > 0
    assert load.throttle.limit < FIRST


# The proxy itself: what it says it did is what it did


def test_plans():
    a, b = Mischief.RESET, Mischief.STOPS
    assert [first(2, a)(n) for n in range(4)] == [a, a, None, None]
    assert [first(3, a, b)(n) for n in range(4)] == [a, b, a, None]
    assert [every(3, a, b)(n) for n in range(7)] == [None, None, a, None, None, b, None]
    assert [in_order(None, a)(n) for n in range(3)] == [None, a, None]
    draws = [at_random(0.3, 7, a, b)(n) for n in range(1000)]
    assert draws == [at_random(0.3, 7, a, b)(n) for n in range(1000)]
    assert draws != [at_random(0.3, 8, a, b)(n) for n in range(1000)]
    assert 250 < sum(d is not None for d in draws) < 350
    assert {a, b} < set(draws)
