"""What results with one point a budget have in common."""

from __future__ import annotations

from typing import ClassVar, Generic, Protocol, TypeVar


class AtBudget(Protocol):
    """Anything that stands for one budget."""

    @property
    def budget(self) -> int: ...


PointT = TypeVar("PointT", bound=AtBudget)


class ByBudget(Generic[PointT]):
    """Points in rising order of budget.

    Attributes:
        points: The points.
        WHAT: What they are points of, for messages.
    """

    WHAT: ClassVar[str]
    points: tuple[PointT, ...]

    @property
    def budgets(self) -> tuple[int, ...]:
        return tuple(point.budget for point in self.points)

    def at(self, budget: int) -> PointT:
        """The point of one budget.

        Raises:
            ValueError: If there is none, naming those there are.
        """
        for point in self.points:
            if point.budget == budget:
                return point
        there = ", ".join(map(str, self.budgets))
        raise ValueError(f"{self.WHAT} has no budget {budget}; it has {there}")
