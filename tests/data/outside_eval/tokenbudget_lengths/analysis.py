"""The numbers: the share of answers that ended within each limit."""

from dataclasses import dataclass

LIMITS = (96, 192)


@dataclass(frozen=True)
class LengthPoint:
    budget: int
    ended: int
    answers: int

    @property
    def share(self):
        return self.ended / self.answers


def limits(session, spec):
    """The limits that tests run for: those that the model's context has room for."""
    return tuple(limit for limit in LIMITS if spec.context is None or limit < spec.context)


def longest_limit(session, spec):
    """Traces must reach to the longest limit, whatever --budgets says."""
    return max(limits(session, spec), default=0)


def analyse(study):
    """One point for each limit that the traces reach to."""
    points = []
    for limit in study.usable(LIMITS):
        judged = study.judged(limit)
        ended = sum(not answer.cut.truncated for answer in judged)
        points.append(LengthPoint(limit, ended, len(judged)))
    return tuple(points)
