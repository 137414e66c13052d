r"""The rules by which a sentence of a solution is setup, computation, verification or answer.

Their version is `RULES`; any change of what they decide is a new version. A sentence is looked at
with what came before it. The first rule that applies decides:

1.  *Fragment*: less than two letters and no sign of a calculation, at the end of a text that was
    cut off: **other**. (``3``, where "3. Tom buys" was to follow.)
2.  *Declaration*: ``#### 42``, ``\boxed{``, "the answer is", "Answer:": **answer**. A heading with
    more hashes or words (``#### Step 1``) declares nothing.
3.  *Heading* (Markdown, or a line all in bold, or a short line that ends in a colon): it takes the
    kind that its words name, and a heading that names verification makes **verification** of what
    follows, up to the next heading or declaration.
4.  *Verification*: words of checking where they ask for it or report it ("Check:", "let me
    double-check", "to verify", "it fits", "which matches"), never the noun ("writes a check"). What
    follows on the same line belongs to it; after "Check:" at a line's end, the paragraph does.
5.  *Pleasantries* ("Sure!", "I hope this helps"), and what holds neither letter nor digit:
    **other**.
6.  *Naming*: "Let x be", "we need to find", "we know that", "the question asks": **setup**, unless
    a number is computed from numbers in it.
7.  *Unknowns*: an equation with a letter in it that puts the question into a formula: **setup**,
    that is, where nothing is solved for or transformed in it. The first equation between an
    expression with the unknown and a number is the question's; a later one is **computation**.
8.  *Calculation*: an equation with an operation, ``<<...>>``, an operation between numbers, or in
    words ("8 times .25 equals 2"): **computation**.
9.  *Inference*: "so", "thus", "therefore", "this means", "must be" with a number: **computation**.
10. Else: before the declaration it is **setup** where it holds a number, an unknown, or stands
    before the first computation; else **other**.

Afterwards, *repeated results*: sentences that stand right before the declaration (or, where there
is none, at the end of a complete text), calculate nothing and state a number that was computed
before, are **answer**.

Words count as whole words: "so" is not found in "also", nor "check" in "checkers".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pytest_tokenbudget.studies.structure import words

RULES = "structure/1"


class SegmentKind(StrEnum):
    """What a segment of a solution does."""

    SETUP = "setup"
    COMPUTATION = "computation"
    VERIFICATION = "verification"
    ANSWER = "answer"
    OTHER = "other"


KINDS = tuple(SegmentKind)
PARTS = (SegmentKind.SETUP, SegmentKind.COMPUTATION, SegmentKind.VERIFICATION, SegmentKind.ANSWER)
"""The parts of a solution, in the order in which they usually come."""


_HEADING_KINDS = (
    (SegmentKind.VERIFICATION, words.HEADS_VERIFICATION),
    (SegmentKind.ANSWER, words.HEADS_ANSWER),
    (SegmentKind.SETUP, words.HEADS_SETUP),
    (SegmentKind.COMPUTATION, words.HEADS_COMPUTATION),
)


@dataclass(frozen=True)
class RuleSentence:
    """A sentence as the rules see it.

    Attributes:
        text: Its text.
        computed: Values of the equations in it, as plain numbers in text form.
        operations: Operations of the equations in it.
        starts_line: Whether a line begins with it.
        new_paragraph: Whether an empty line stands before it.
    """

    text: str
    computed: tuple[str, ...]
    operations: int
    starts_line: bool
    new_paragraph: bool


def classify(units: Sequence[RuleSentence], complete: bool) -> list[SegmentKind]:
    """The kind of each sentence of a solution.

    Args:
        units: Its sentences in order.
        complete: Whether the text came to its end by itself.
    """
    state = _State()
    kinds = [
        state.kind(unit, cut=not complete and index == len(units) - 1)
        for index, unit in enumerate(units)
    ]
    _repeated_results(units, kinds, complete)
    return kinds


class _State:
    """What came before a sentence, as far as rules ask for it."""

    def __init__(self) -> None:
        self.checked = False  # whether anything followed what opened a verification
        self.checking = ""  # how far a verification reaches: "line", "paragraph", "section"
        self.declared = False
        self.related = False  # whether the question was put into an equation
        self.computed = False

    def kind(self, unit: RuleSentence, cut: bool) -> SegmentKind:
        kind = self._kind(unit, cut)
        self.declared |= kind is SegmentKind.ANSWER
        self.computed |= kind is SegmentKind.COMPUTATION
        return kind

    def _kind(self, unit: RuleSentence, cut: bool) -> SegmentKind:
        text = unit.text.strip()
        if (self.checking == "line" and unit.starts_line) or (
            self.checking == "paragraph" and self.checked and unit.new_paragraph
        ):
            self.checking = ""
        self.checked = True
        if words.DECLARATION.search(text) and not words.CHECK.match(text):
            self.checking = ""
            return SegmentKind.ANSWER
        heading = _heading(text) if unit.starts_line else None
        if heading is not None:
            self.checking = ""
            if heading is SegmentKind.VERIFICATION:
                self.checking = "paragraph" if words.COLON_LINE.fullmatch(text) else "section"
                self.checked = False
            return heading
        if cut and len(words.PIECE.findall(text)) < 2 and not unit.computed:
            return SegmentKind.VERIFICATION if self.checking else SegmentKind.OTHER
        if words.CHECK.match(text) or words.CHECKING_ASKED.search(text):
            if self.checking != "section":
                self.checking = "paragraph" if text.endswith(":") else "line"
                self.checked = False
            return SegmentKind.VERIFICATION
        if self.checking or ((self.computed or self.declared) and self._reports(unit)):
            return SegmentKind.VERIFICATION
        if (words.CHAT.match(text) and not words.NUMBER.search(text)) or not words.PIECE.search(
            text
        ):
            return SegmentKind.OTHER
        return self._content(unit, text)

    def _reports(self, unit: RuleSentence) -> bool:
        return bool(words.CHECKING_REPORTED.search(unit.text) or words.TICK.search(unit.text))

    def _content(self, unit: RuleSentence, text: str) -> SegmentKind:
        numbers = bool(words.NUMBER.search(text))
        calculates = bool(unit.operations or words.OPERATION.search(text))
        sign = bool(words.SIGN.search(text))
        if words.LETTER.search(text):
            return self._unknown(text, unit, sign)
        if words.NAMING.search(text) and not calculates:
            return SegmentKind.SETUP
        if calculates:
            return SegmentKind.COMPUTATION
        if numbers and (words.INFERENCE.search(text) or words.TRANSFORM.search(text)):
            return SegmentKind.COMPUTATION
        if sign and numbers and self.computed:
            return SegmentKind.COMPUTATION
        if self.declared:
            return SegmentKind.OTHER
        return SegmentKind.SETUP if numbers or not self.computed else SegmentKind.OTHER

    def _unknown(self, text: str, unit: RuleSentence, sign: bool) -> SegmentKind:
        """Rule 7: sentences with a letter that stands for a number."""
        if "<<" in text and not words.NAMING.search(text):
            self.related = True
            return SegmentKind.COMPUTATION
        if not sign:
            return SegmentKind.COMPUTATION if words.TRANSFORM.search(text) else SegmentKind.SETUP
        if words.TRANSFORM.search(text):
            self.related = True
            return SegmentKind.COMPUTATION
        if words.NAMING.search(text):
            self.related |= bool(unit.operations)
            return SegmentKind.SETUP
        if words.CHAINED.search(text) or _rewrites(text):
            return SegmentKind.COMPUTATION
        if not _equals_number(text):
            return SegmentKind.SETUP
        first, self.related = not self.related, True
        return SegmentKind.SETUP if first else SegmentKind.COMPUTATION


def _sides(text: str) -> list[str]:
    """What stands left and right of the last ``=``, as far as it looks like a formula."""
    left, _, right = text.rpartition("=")
    return [" ".join(left[-80:].split()[-8:]), " ".join(right[:80].split()[:8])]


def _rewrites(text: str) -> bool:
    """Whether both sides of an equation hold the same unknown and nothing else: ``x + x = 2x``."""
    left, right = (set(words.SYMBOL.findall(side)) for side in _sides(text))
    return bool(left) and left == right


def _equals_number(text: str) -> bool:
    """Whether a side of an equation is a number, units aside."""
    return any(words.NUMBER.search(side) and not words.SYMBOL.search(side) for side in _sides(text))


def _heading(text: str) -> SegmentKind | None:
    found = words.HEADING.match(text)
    if found is None:
        return None
    said = found.group("hash") or found.group("bold") or found.group("line")
    for kind, pattern in _HEADING_KINDS:
        if pattern.search(said):
            return kind
    return None if found.group("line") else SegmentKind.OTHER


def _repeated_results(
    units: Sequence[RuleSentence], kinds: list[SegmentKind], complete: bool
) -> None:
    declared = [index for index, kind in enumerate(kinds) if kind is SegmentKind.ANSWER]
    if not declared and not complete:
        return
    last = declared[0] if declared else len(kinds)
    known: set[str] = set()
    for unit in units[:last]:
        known.update(unit.computed)
    for index in range(last - 1, -1, -1):
        text = units[index].text
        if kinds[index] not in (SegmentKind.SETUP, SegmentKind.COMPUTATION, SegmentKind.OTHER):
            return
        if units[index].operations or units[index].computed or words.OPERATION.search(text):
            return
        numbers = {plain_number(n) for n in words.NUMBER.findall(text)}
        if not numbers & known or words.LETTER.search(text):
            return
        kinds[index] = SegmentKind.ANSWER


def plain_number(text: str) -> str:
    """A number as written, without what does not change its value: ``$1,234.50`` -> ``1234.5``."""
    digits = text.replace("$", "").replace(",", "")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits
