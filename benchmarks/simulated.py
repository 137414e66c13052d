"""Studies drawn from a known truth, to count how often intervals cover it and verdicts are wrong.

    python -m benchmarks.simulated          # 500 studies a row: the table of docs/statistics.md
    python -m benchmarks.simulated 2000     # more of them

A problem has a chance of being solved, drawn from a beta distribution. A solved sample is right
from the token on at which its answer comes until, for a few, it turns wrong again. Everything that
the analyses estimate then has a closed form.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from pytest_tokenbudget.core.cliff import CliffStatus, find_cliff
from pytest_tokenbudget.core.saturation import saturation_point
from pytest_tokenbudget.stats.intervals import Estimate
from pytest_tokenbudget.studies.cliff.analysis import SHARES, find_answers
from pytest_tokenbudget.studies.stochastic.analysis import analyse_samples

REACH = 640  # tokens that are simulated one by one
CLIFF_BUDGETS = tuple(range(96, 257, 16))


@dataclass(frozen=True)
class World:
    """What is true.

    Attributes:
        arrivals: Chance that an answer comes at token 1, 2, ...; sums to 1.
        easy: First parameter of the beta distribution of the problems' chances.
        hard: Its second parameter; 0 means that all problems have the chance ``easy``.
        turning: Share of right answers that turn wrong again.
        delay: Such an answer turns wrong after so many tokens at most, each as likely.
    """

    arrivals: np.ndarray
    easy: float = 3.0
    hard: float = 1.0
    turning: float = 0.04
    delay: int = 60

    @property
    def solved(self) -> float:
        """Chance that a sample is solved, over all problems."""
        return self.easy / (self.easy + self.hard) if self.hard else self.easy

    @property
    def right(self) -> np.ndarray:
        """Of the solved samples, the share that is right when stopped after token 0, 1, ..."""
        came = np.concatenate([[0.0], self.arrivals])
        gone = np.convolve(came, np.full(self.delay, 1 / self.delay))[: came.size - 1]
        return np.cumsum(came) - self.turning * np.cumsum(np.concatenate([[0.0], gone]))

    @property
    def accuracy(self) -> np.ndarray:
        """Accuracy when stopped after token 0, 1, ..."""
        return self.solved * self.right

    def draw(self, rng: np.random.Generator, problems: int, samples: int) -> np.ndarray:
        """Problems x samples x (token 0, 1, ...): whether a trace is right when stopped there."""
        shape = (problems, samples)
        chance = rng.beta(self.easy, self.hard, (problems, 1)) if self.hard else self.easy
        solved = rng.random(shape) < chance
        tokens = np.arange(1, self.arrivals.size + 1)
        came = rng.choice(tokens, size=shape, p=self.arrivals)
        turns = rng.random(shape) < self.turning
        gone = np.where(turns, came + rng.integers(1, self.delay + 1, shape), tokens.size + 1)
        stops = np.arange(tokens.size + 1)
        inside = (stops >= came[:, :, None]) & (stops < gone[:, :, None])
        return inside & solved[:, :, None]


def ramp(*parts: tuple[int, int, float]) -> np.ndarray:
    """Arrivals that are even within each (after token, up to token, share); shares sum to 1."""
    arrivals = np.zeros(REACH)
    for low, high, share in parts:
        arrivals[low:high] += share / (high - low)
    assert np.isclose(arrivals.sum(), 1.0)
    return arrivals


def hill(middle: float, spread: float) -> np.ndarray:
    """Arrivals on a smooth hill."""
    height = stats.norm(middle, spread).pdf(np.arange(1, REACH + 1))
    return height / height.sum()


CLIFF = World(ramp((48, 320, 0.7), (176, 192, 0.3)))
HILL = World(hill(184, 34))
EVEN = World(ramp((80, 272, 1.0)), turning=0.0)
# After 256 tokens exactly 2 points are still to come, and none after 512; before, much more.
LOSS = World(ramp((16, 128, 0.6), (128, 256, 0.375), (256, 512, 0.025)), 0.8, 0.0, turning=0.0)
# The same, but everything has come after 256 tokens.
SATURATED = World(ramp((16, 128, 0.6), (128, 256, 0.4)), 0.8, 0.0, turning=0.0)


def chance_of_right(world: World, samples: int, at: float) -> np.ndarray:
    """Chance that 0, 1, ... of a problem's samples are right, where share ``at`` of solved is.

    The problems' chances are beta distributed and then thinned; integrated by quadrature.
    """
    if not world.hard:
        return stats.binom.pmf(np.arange(samples + 1), samples, world.easy * at)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    chances = stats.beta(world.easy, world.hard).ppf((nodes + 1) / 2)
    table = stats.binom.pmf(np.arange(samples + 1)[:, None], samples, chances * at)
    return table @ weights / 2


@dataclass
class Tally:
    """How often each interval held the truth, and how often each verdict was wrong.

    Attributes:
        covered: By name, one share a study: of the intervals of this name that held the truth.
        wrong: By name, one for each study in which a verdict was wrong, else zero.
        found: By name, one for each study in which what there is was found, else zero.
    """

    covered: dict[str, list[float]] = field(default_factory=dict)
    wrong: dict[str, list[float]] = field(default_factory=dict)
    found: dict[str, list[float]] = field(default_factory=dict)

    def holds(self, name: str, estimates: Iterable[Estimate], truths: Iterable[float]) -> None:
        """Count whether each interval holds its truth, rounding aside."""
        held = [e.low - 1e-9 <= t <= e.high + 1e-9 for e, t in zip(estimates, truths, strict=True)]
        self.covered.setdefault(name, []).append(float(np.mean(held)))

    def place(self, name: str, found: tuple[int, int], truth: tuple[int, int]) -> None:
        """Count whether an interval of places holds a window."""
        held = found[0] <= truth[0] and truth[1] <= found[1]
        self.covered.setdefault(name, []).append(float(held))

    def error(self, name: str, wrong: bool) -> None:
        """Count a verdict."""
        self.wrong.setdefault(name, []).append(float(wrong))


def count_rates(tally: Tally, studies: int) -> None:
    """Accuracy, one greedy sample of 200 problems; Wilson."""
    rng = np.random.default_rng(1)
    budgets = (96, 128, 192, 256, 512)
    truths = CLIFF.accuracy[list(budgets)]
    for _ in range(studies):
        right = CLIFF.draw(rng, 200, 1)[:, :, budgets].astype(float)
        found = analyse_samples(budgets, right)
        tally.holds("accuracy, 1 sample", [p.mean_success for p in found.points], truths)
        tally.holds(
            "difference of budgets, 1 sample",
            [d.difference for d in found.differences],
            truths[:-1] - truths[-1],
        )


def count_samples(tally: Tally, studies: int, problems: int = 200, samples: int = 5) -> None:
    """Everything that several samples say, at a budget on the slope and at one where it is over."""
    rng = np.random.default_rng(2)
    budgets = (200, 512)
    right = np.arange(samples + 1)
    chances = [chance_of_right(CLIFF, samples, CLIFF.right[b]) for b in budgets]
    means = [float(c @ right) / samples for c in chances]
    for _ in range(studies):
        drawn = CLIFF.draw(rng, problems, samples)[:, :, budgets].astype(float)
        # All wrong answers alike: a vote is right where more than half are.
        found = analyse_samples(budgets, drawn, np.where(drawn == 1, "right", "wrong"))
        tally.holds(
            "difference of budgets, 5 samples",
            [found.differences[0].difference],
            [means[0] - means[1]],
        )
        for point, chance, mean in zip(found.points, chances, means, strict=True):
            both = float(chance @ (right * (right - 1.0))) / (samples * (samples - 1))
            correlation = (both - mean**2) / (mean - mean**2)
            tally.holds("mean success, 5 samples", [point.mean_success], [mean])
            for each in point.pass_at[1:]:
                misses = [math.comb(samples - c, each.k) for c in right.tolist()]
                truth = 1 - float(chance @ misses) / math.comb(samples, each.k)
                tally.holds(f"pass@{each.k}", [each.rate], [truth])
            named = (
                ("majority vote", point.majority_vote, float(chance[right > samples / 2].sum())),
                ("always solved", point.always, float(chance[-1])),
                ("sometimes solved", point.sometimes, float(chance[1:-1].sum())),
                ("never solved", point.never, float(chance[0])),
                ("intraclass correlation", point.intraclass_correlation, correlation),
            )
            for name, estimate, truth in named:
                assert estimate is not None
                tally.holds(name, [estimate], [truth])


def count_cliff(tally: Tally, studies: int, world: World, name: str, samples: int = 1) -> None:
    """Gains, place and verdict of the cliff, from 200 problems, or 100 with several samples."""
    problems = 200 if samples == 1 else 100
    rng = np.random.default_rng(3)
    gains = np.diff(world.accuracy[list(CLIFF_BUDGETS)])
    top = int(np.argmax(np.round(gains, 9)))
    truth = (CLIFF_BUDGETS[top], CLIFF_BUDGETS[top + 1])
    tied = np.isclose(gains, gains[top]).all()
    for _ in range(studies):
        drawn = world.draw(rng, problems, samples)[:, :, CLIFF_BUDGETS].astype(float)
        found = find_cliff(CLIFF_BUDGETS, drawn)
        assert found.place is not None
        tally.holds(f"gain of a step, {name}", [s.gain for s in found.steps], gains)
        tally.place(f"place of the cliff, {name}", found.place, truth)
        resolved = found.status is CliffStatus.RESOLVED
        missed = not (found.place[0] <= truth[0] and truth[1] <= found.place[1])
        # Where accuracy rises evenly there is no cliff at all.
        tally.error(f"cliff that is none or elsewhere, {name}", resolved and bool(tied or missed))
        if not tied:
            tally.found.setdefault(f"cliff, {name}", []).append(float(resolved and not missed))


def count_answers(tally: Tally, studies: int, world: World, name: str) -> None:
    """The steepest tokens, and the token by which shares of the answers had come."""
    rng = np.random.default_rng(4)
    curve = world.accuracy
    start = int(np.argmax(np.round(curve[16:] - curve[:-16], 9)))
    # What turned wrong never came; it is as likely for every answer whose end is within reach.
    came = np.cumsum(world.arrivals)
    truths = [int(np.searchsorted(came, share)) + 1 for share in SHARES]
    for _ in range(studies):
        found = find_answers(world.draw(rng, 200, 1)[:, :, 1:], 16, replicates=1000)
        assert found.place is not None
        tally.place(f"place of the steepest tokens, {name}", found.place, (start, start + 16))
        tokens = [q.token for q in found.quantiles]
        tally.holds(f"token by which 10 to 90 % came, {name}", tokens, truths)


def count_saturation(tally: Tally, studies: int) -> None:
    """The non-inferiority rule, where the loss is exactly the margin and where there is none.

    With one sample only how many problems were lost and won matters, and tables repeat.
    """
    rng = np.random.default_rng(5)
    known: dict[tuple[int, ...], int | None] = {}
    cases = (
        (LOSS, (256, 512), "loss equal to the margin"),
        (SATURATED, (128, 256, 512), "large loss below the saturation point"),
    )
    for samples, problems in ((1, 400), (5, 400)):
        for world, budgets, name in cases:
            right = world.accuracy[list(budgets)]
            found = []
            for _ in range(studies):
                drawn = world.draw(rng, problems, samples)[:, :, budgets].astype(float)
                change = drawn[:, 0, :-1] - drawn[:, 0, -1:]
                lost, won = (change < 0).sum(axis=0), (change > 0).sum(axis=0)
                key = (*budgets, *lost.tolist(), *won.tolist()) if samples == 1 else ()
                if samples > 1 or key not in known:
                    known[key] = saturation_point(budgets, drawn).budget
                found.append(known[key])
            worse = [b is not None and right[-1] - right[budgets.index(b)] > 0.0199 for b in found]
            which = f"{samples} sample{'s' if samples > 1 else ''}"
            for each in worse:
                tally.error(f"budget called not worse that is, {which}, {name}", each)
            if world is SATURATED:
                tally.found[f"saturation point, {which}"] = [float(b == 256) for b in found]


def count_all(studies: int) -> Tally:
    """Every simulation."""
    tally = Tally()
    count_rates(tally, studies)
    count_samples(tally, studies)
    count_cliff(tally, studies, CLIFF, "one steep window")
    count_cliff(tally, studies, HILL, "smooth hill")
    count_cliff(tally, studies, EVEN, "even rise")
    count_cliff(tally, studies, CLIFF, "one steep window, 5 samples", 5)
    count_answers(tally, studies, CLIFF, "one steep window")
    count_answers(tally, studies, HILL, "smooth hill")
    count_saturation(tally, studies)
    return tally


def table(tally: Tally) -> str:
    """The tally as a table for the documentation."""
    lines = ["| interval | covered |", "|---|---|"]
    lines += [f"| {name} | {100 * np.mean(c):.1f} % |" for name, c in tally.covered.items()]
    lines += ["", "| wrong verdict | in |", "|---|---|"]
    lines += [f"| {name} | {100 * np.mean(w):.1f} % |" for name, w in tally.wrong.items()]
    lines += ["", "| found | in |", "|---|---|"]
    lines += [f"| {name} | {100 * np.mean(f):.1f} % |" for name, f in tally.found.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(count_all(int(sys.argv[1]) if len(sys.argv) > 1 else 500)))
