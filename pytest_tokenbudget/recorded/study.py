"""A study of recorded generations: the same analyses, and what is known less surely said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from pytest_tokenbudget.core.scoring import JudgedCut, judge, judge_by
from pytest_tokenbudget.core.study import Study
from pytest_tokenbudget.core.trace import Cut, Outcome, StopReason, Trace
from pytest_tokenbudget.recorded.records import Recording, Runs
from pytest_tokenbudget.recorded.traces import Measured
from pytest_tokenbudget.tasks.base import NO_ANSWER, AnswerVerdict
from pytest_tokenbudget.tasks.problem import Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ScorerAgreement(NamedTuple):
    """How many verdicts of a scorer were compared with ours, and are right for one side alone."""

    scorer: str
    compared: int
    ours_only: int
    theirs_only: int

    @property
    def differ(self) -> int:
        return self.ours_only + self.theirs_only


@dataclass(eq=False, kw_only=True)
class RecordedStudy(Study):
    """A study whose traces were recorded as text.

    At a recorded budget every generation stands as it was recorded. Other budgets are cuts of the
    largest one's text, where a tokenizer says where its tokens end; of independent runs there are
    none.

    Attributes:
        recording: What was read.
        measured: Every record as a trace, by recorded budget. `traces` are those of the largest,
            and reach to it.
        tokenizer: Name of the tokenizer that counted, empty where none did.
        cliff_series: The study of what was recorded for the cliff alone, where that is a series of
            its own; None where the cliff is looked for here.
        scorer: The record's scorer whose verdicts are used, where this suite cannot judge; empty
            where it judges itself.
        longest_is_cap: Whether no limit was recorded, so that the longest answer stands for it.
    """

    recording: Recording
    measured: Mapping[int, Mapping[tuple[str, int], Measured]] = field(repr=False)
    tokenizer: str = ""
    cliff_series: RecordedStudy | None = None
    scorer: str = ""
    longest_is_cap: bool = False

    @property
    def cliff_study(self) -> Study:
        """What was recorded for the cliff alone, else this study."""
        return self.cliff_series or self

    @property
    def runs(self) -> Runs:
        return self.recording.runs

    @property
    def by_token_available(self) -> bool:
        """Whether accuracy at every token count is known, and cuts at any budget can be made."""
        return bool(self.tokenizer) and self.runs is not Runs.INDEPENDENT

    def usable(self, budgets: Iterable[int]) -> tuple[int, ...]:
        """Those of ``budgets`` that generations can be judged at, rising."""
        return tuple(
            budget
            for budget in sorted(set(budgets))
            if budget in self.measured or (self.by_token_available and 1 <= budget <= self.reach)
        )

    @cached_property
    def complete(self) -> tuple[Problem, ...]:
        """Problems whose samples were recorded at, or can be cut at, every budget."""
        return tuple(
            problem
            for problem in self.problems
            if all(
                self._has((problem.id, sample), budget)
                for sample in range(self.samples)
                for budget in self.budgets
            )
        )

    def _has(self, key: tuple[str, int], budget: int) -> bool:
        if self.by_token_available and key not in self.traces:
            return False
        return key in self.measured[budget] if budget in self.measured else key in self.traces

    @property
    def errors(self) -> tuple[Trace, ...]:
        """Generations that ended in an error, at whatever budget."""
        return tuple(
            measured.trace
            for measured in self._all_measured()
            if measured.trace.stop_reason is StopReason.ERROR
        )

    def judged(self, budget: int) -> tuple[JudgedCut, ...]:
        """Every generation of the complete problems at ``budget``, judged.

        Raises:
            ValueError: If the budget was not recorded and cannot be cut.
        """
        if budget not in self._judged:
            if not self.usable([budget]):
                known = ", ".join(map(str, sorted(self.measured)))
                raise ValueError(f"budget {budget} was not recorded; there are {known}")
            self._judged[budget] = tuple(
                self._judge(problem, (problem.id, sample), budget)
                for problem in self.complete
                for sample in range(self.samples)
            )
        return self._judged[budget]

    def _judge(self, problem: Problem, key: tuple[str, int], budget: int) -> JudgedCut:
        cut = self._cut(key, budget)
        if not self.scorer:
            return judge(self.task, problem, cut)
        source = self.measured[budget if budget in self.measured else max(self.measured)]
        right = source[key].record.verdicts.get(self.scorer, False)

        def as_recorded(text: str, truncated: bool) -> AnswerVerdict:
            # The verdict is on the whole text and says nothing of one that was cut.
            return NO_ANSWER if truncated else AnswerVerdict("as recorded", self.scorer, right)

        return judge_by(as_recorded, problem, cut)

    def _cut(self, key: tuple[str, int], budget: int) -> Cut:
        recorded = self.measured.get(budget)
        if recorded is None:
            cut = self.traces[key].cut(budget, self.thinking)
            # Another limit may have cut it before the largest budget.
            own = self.measured[max(self.measured)][key].trace
            return replace(cut, tokens_used=min(cut.tokens_used, len(own.output_ids)))
        # Not Trace.cut: an engine may have stopped below the budget, or gone beyond it.
        one = recorded[key]
        trace = one.trace
        used = len(trace.output_ids)
        return Cut(trace, budget, used, trace.text, one.truncated, self.thinking)

    def correct_by_token(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Which generations are right at each token count.

        Raises:
            ValueError: Where that is not known; see `by_token_available`.
        """
        if self.scorer and self.by_token_available:
            return self._ended_by_token()
        if not self.by_token_available:
            raise ValueError(
                "which answers are right at each token count is not known: "
                + (
                    "the budgets were generated independently"
                    if self.runs is Runs.INDEPENDENT
                    else "give the model's tokenizer with --tokenizer NAME|PATH"
                )
            )
        return super().correct_by_token()

    def _ended_by_token(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        # The record's verdict is on the whole text: before its end nothing is right.
        import numpy as np

        tokens = np.arange(1, self.reach + 1, dtype=np.int64)
        whole = self.judged(max(self.measured))
        used = np.array([judged.cut.tokens_used for judged in whole])
        right = np.array([judged.correct for judged in whole], dtype=bool)
        return tokens, right[:, None] & (tokens[None, :] >= used[:, None])

    def accuracy_by_token(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Accuracy at every token count; NaN but at the budgets where no more is known."""
        if self.by_token_available:
            return super().accuracy_by_token()
        import numpy as np

        accuracy = np.full(self.reach, np.nan)
        for point in self.curve.points if self.complete else ():
            accuracy[point.budget - 1] = point.accuracy.value
        return np.arange(1, self.reach + 1, dtype=np.int64), accuracy

    @property
    def tokens_generated(self) -> int:
        every = self.recording.runs is Runs.INDEPENDENT
        budgets = self.measured if every else [max(self.measured)]
        return sum(len(one.trace.output_ids) for b in budgets for one in self.measured[b].values())

    def _tokens_at(self, budget: int) -> int:
        return sum(judged.cut.tokens_used for judged in self.judged(budget))

    def _all_measured(self) -> list[Measured]:
        return [one for at in self.measured.values() for one in at.values()]

    @cached_property
    def agreements(self) -> tuple[ScorerAgreement, ...]:
        """How often the record's own verdicts and ours differ, by scorer of the record."""
        compared: Counter[str] = Counter()
        ours: Counter[str] = Counter()
        theirs: Counter[str] = Counter()
        for budget in self.budgets:
            for judged in self.judged(budget) if budget in self.measured else ():
                key = judged.problem.id, judged.cut.trace.sample
                verdicts = self.measured[budget][key].record.verdicts
                for scorer, right in (
                    verdicts.items() if judged.outcome is not Outcome.ERROR else ()
                ):
                    if scorer == self.scorer:
                        continue
                    compared[scorer] += 1
                    ours[scorer] += judged.correct and not right
                    theirs[scorer] += right and not judged.correct
        return tuple(ScorerAgreement(s, compared[s], ours[s], theirs[s]) for s in compared)

    @cached_property
    def source(self) -> dict[str, object]:
        """Where the numbers come from and how sure they are, for the results."""
        every = [one for one in self._all_measured() if not one.record.error]
        held, pairs = self.recording.prefixes
        differ = [one.differs for one in every if one.differs]
        return {
            "source": "recorded",
            "formats": list(self.recording.formats),
            "files": dict(self.recording.files),
            "runs": self.runs.value,
            "recorded_budgets": sorted(self.measured),
            "prefixes": {"held": held, "pairs": pairs},
            "tokens": {
                "from_record": sum(not one.counted for one in every),
                "counted": sum(one.counted for one in every),
                "placed": sum(one.placed for one in every),
                "tokenizer": self.tokenizer or None,
                "counts_differ": len(differ),
                "largest_difference": max(map(abs, differ), default=0),
            },
            "truncation": {
                "from_record": sum(not one.inferred for one in every),
                "inferred": sum(one.inferred for one in every),
                "limit_assumed": sum(one.record.assumed for one in every),
            },
            "beyond_budget": self.beyond_budget,
            "agreement": [each._asdict() for each in self.agreements],
        }

    @property
    def beyond_budget(self) -> int:
        """Generations that used more tokens than their budget: it was not kept."""
        return sum(
            len(one.trace.output_ids) > budget
            for budget, at in self.measured.items()
            for one in at.values()
        )

    @property
    def _declaration(self) -> str:
        return "[formats.NAME]"

    @property
    def origin(self) -> list[str]:
        """Where the traces come from and what was assumed about them, in sentences."""
        every = [one for one in self._all_measured() if not one.record.error]
        counted = sum(one.counted for one in every)
        inferred = sum(one.inferred for one in every)
        held, pairs = self.recording.prefixes
        n = len(every)
        said = [f"recorded generations ({', '.join(self.recording.formats)}), none was generated"]
        if self.runs is Runs.CUTS:
            said.append("the budgets are cuts: every text is a prefix of the next budget's")
        elif self.runs is Runs.INDEPENDENT:
            said.append(
                "the budgets were generated independently and are paired by problem only; "
                f"{held:,} of {pairs:,} texts are prefixes of the next budget's"
            )
        cut = [budget for budget in self.budgets if budget not in self.measured]
        if cut:
            shown = ", ".join(map(str, cut))
            said.append(f"cut from the text by counted tokens, not recorded: {shown}")
        if counted:
            said.append(f"tokens counted with {self.tokenizer} for {counted:,} of {n:,}")
        if not self.tokenizer:
            said.append(
                "no tokenizer was given: where in a text its tokens end is not known, and spread "
                "evenly where a place is needed"
            )
        differ = [abs(one.differs) for one in every if one.differs]
        if differ:
            said.append(
                f"{self.tokenizer} counts other than the record in {len(differ):,} of {n:,}, by up "
                f"to {max(differ):,} tokens; the record's counts are used"
            )
        if inferred:
            said.append(f"truncation inferred from the token count for {inferred:,} of {n:,}")
        said += self._assumptions(every)
        for each in self.agreements:
            said.append(
                f"our verdict and {each.scorer!r} of the record differ in {each.differ:,} of "
                f"{each.compared:,} ({each.ours_only:,} right for us only, "
                f"{each.theirs_only:,} for the record only)"
            )
        return said

    def _assumptions(self, every: Sequence[Measured]) -> list[str]:
        """What stands in for something that was not recorded."""
        said = []
        assumed = {one.record.budget for one in every if one.record.assumed}
        if assumed:
            said.append(
                f"no token limit is recorded: {max(filter(None, assumed))} is the tool's own"
            )
        if self.beyond_budget:
            n = len(every)
            said.append(f"{self.beyond_budget:,} of {n:,} used more tokens than their budget")
        if self.longest_is_cap:
            said.append(
                f"no token limit is recorded: the longest answer, {max(self.measured):,} tokens, "
                "stands for it"
            )
        if not self.decoding.known:
            said.append("how tokens were chosen is not recorded")
        if self.scorer:
            said.append(
                f"this suite cannot judge these answers: the verdicts of the record's scorer "
                f"{self.scorer!r} are used"
            )
        return said
