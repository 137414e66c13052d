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

Words count as whole words: "so" is not found in "also", nor "check" in "checkers". Each pattern is
possessive or bounded where it could otherwise try a long stretch twice, so the time stays linear in
the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

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


def _any_of(*alternatives: str) -> re.Pattern[str]:
    """Any of the alternatives as whole words: "so" is not in "also"."""
    return re.compile(rf"(?<![\w'])(?:{'|'.join(alternatives)})(?![\w])", re.IGNORECASE)


# What may stand before a sentence's first word: quotes, list signs, Markdown, ticks.
_OPENING = r"\A[\s>*_#(\[\"'\u2705\u2713\u2714-]*+"

DECLARATION = re.compile(
    r"\A[\s>*_\"'-]*+\#\#\#\#[ \t*_]*+(?:(?:US)?\\?[$£€¥₹(\[-]|\\)*+(?:[0-9.]|\Z)"
    r"(?![0-9]*+[.):][ \t]+\w)"
    r"|\#\#\#\#[ \t]*+[$£€-]?[0-9][0-9,.]*+\s*+\Z"
    r"|\\boxed(?![A-Za-z])"
    r"|(?<![A-Za-z])(?:answers?|the\s++(?:final\s++)?solution)[\s*_]*+"
    r"(?:(?:is|are|would\s++be|will\s++be)(?![A-Za-z])|[:=])",
    re.IGNORECASE,
)

HEADING = re.compile(
    r"\A\s*+(?:\#{1,6}[ \t]+(?P<hash>[^\n]{1,80})"
    r"|(?:[0-9]{1,2}[.)][ \t]*+)?\*\*(?P<bold>[^*\n]{1,60})\*\*:?"
    r"|(?P<line>[A-Z][\w \t'-]{1,40}):)\s*+\Z"
)
COLON_LINE = re.compile(r"[\w \t'-]++:")

HEADS_VERIFICATION = _any_of(r"verif\w*", r"check\w*", r"double[- ]check\w*", "proof", "sanity")
HEADS_ANSWER = _any_of("answer", "conclusion", "result")
HEADS_SETUP = _any_of(
    r"givens?|set[- ]?up|understand\w*|problem|known|unknowns?|plan|identify\w*|define|information",
    "variables",
)
HEADS_COMPUTATION = _any_of(
    "solution", r"solv\w+", r"calculat\w+", r"comput\w+", r"step\w*", r"find\w*", r"work\w*"
)

CHECK = re.compile(
    _OPENING + r"(?:[0-9]{1,2}[.)][\s*_]*+)?"
    r"(?:(?:and|now|so|okay|ok|wait|hmm|finally|then|next|also|first|but|alright)[, ]+)*+"
    r"(?:(?:quick|sanity)[- ]check"
    r"|(?:double|re)?[- ]?check(?:ing)?(?![\w-])(?!\s++(?:is|was|for|of)(?!\w))"
    r"|verify(?:ing)?(?!\w)|verification(?!\w)"
    r"|to\s++(?:double[- ]?|re)?check(?!\w)|to\s++(?:verify|confirm)(?!\w)"
    r"|as\s++a\s++(?:sanity\s++|quick\s++)?check(?!\w)|plugging\s++(?:\w++\s++){0,4}?back)",
    re.IGNORECASE,
)
CHECKING_ASKED = _any_of(
    r"let(?:'s|\u2019s|\s++me|\s++us)\s++\w++\s++(?:double[- ]?check|re-?check|check|verify"
    r"|confirm|make\s++sure|re-?verify|test\s++(?:this|it|that)|plug\s++(?:\w++\s++){1,4}?back)",
    r"let(?:'s|\u2019s|\s++me|\s++us)\s++(?:double[- ]?check|re-?check|check|verify|confirm"
    r"|make\s++sure|re-?verify|test\s++(?:this|it|that)|plug\s++(?:\w++\s++){1,4}?back)",
    r"(?:we|i)\s++(?:can|should|could|will|must|need\s++to|want\s++to|have\s++to)\s++"
    r"(?:also\s++|now\s++)?(?:double[- ]?check|re-?check|check|verify|confirm|make\s++sure)",
    r"double[- ]check(?:ing|ed)?",
    r"re-?check(?:ing|ed)?",
    r"sanity\s++check",
)
CHECKING_REPORTED = _any_of(
    r"it\s++fits",
    r"(?:which|this|that|it|these)\s++(?:fits|matches|checks\s++out|agrees\s++with)",
    r"(?:everything|all)\s++(?:fits|matches|checks\s++out|adds\s++up)",
    r"checks\s++out",
    r"(?:is|seems|looks)\s++(?:indeed\s++)?(?:consistent\s++with|correct|right)"
    r"(?=\s*+(?:[.!,)]|\Z))",
    r"(?:does|do)\s++not\s++(?:match|fit)",
    r"doesn't\s++(?:match|fit)",
    r"as\s++(?:required|expected)",
    r"satisf(?:y|ies)\s++(?:the|all|both|our|this)",
)
TICK = re.compile("[\u2705\u2713\u2714]")

CHAT = re.compile(
    _OPENING + r"(?:sure|certainly|of\s++course|absolutely|great|happy\s++to|okay|ok|alright|hello"
    r"|hi|i\s++hope|hope\s++this|let\s++me\s++know|feel\s++free|if\s++you\s++have\s++any|thank"
    r"|good\s++luck|let(?:'s|\u2019s)\s++(?:solve|think|work|break|go)"
    r"|here(?:'s|\u2019s|\s++is)\s++(?:the|a|how))(?!\w)",
    re.IGNORECASE,
)

NAMING = _any_of(
    r"let(?:'s|\u2019s|\s+us|\s+me)?\s+(?:\w+\s+){0,3}?"
    r"(?:be|denote|represent|mark|equal|assume|define|call|say|suppose|=)",
    r"let\s+[A-Za-z]\s*=",
    r"if\s+we\s+let",
    r"(?:denote|define|suppose|assume)(?:\s+that)?",
    r"we\s+(?:(?:first|now)\s+)?(?:need|have|want|must|are\s+going)\s+(?:to\s+)?"
    r"(?:know|find|determine|figure|calculate|be\s+sure|compare)",
    r"(?:we|you)\s+(?:know|are\s+(?:given|told|asked))",
    r"(?:the\s+)?(?:question|problem)\s+(?:asks|says|states|wants|gives)",
    r"(?:we|i|you|must|to)\s+(?:must\s+)?(?:figure\s+out|determine|find\s+out)",
    r"first,?\s+(?:figure|find|determine)",
    r"given(?:\s+that)?(?=\s)",
    r"is\s+(?:represented|given)\s+by\s+the\s+equation",
    r"the\s+equation\s+is",
)
TRANSFORM = _any_of(
    r"substitut\w+|simplif\w+|combin\w+|expand\w*|factor\w*|isolat\w+|distribut\w+|rearrang\w+",
    r"cancel\w*|solv(?:e|es|ing)|(?:we|you|i)\s+get|gives?(?:\s+us)?|(?:divid|subtract|multiply)\w*",
    r"add(?:ing)?(?=[^.]{0,40}both\s+sides)",
    r"both\s+sides|each\s+side|like\s+terms|now\s+we\s+know",
)
INFERENCE = _any_of(
    r"so|thus|hence|therefore|then|because|means|there\s+must\s+be|must\s+be|since|this\s+is",
    r"that\s+is|which\s+is|in\s+total|altogether|a\s+total\s+of|consequently",
)

NUMBER = re.compile(r"(?<![\w.])\$?-?(?:[0-9]++(?:,[0-9]{3})*+(?:\.[0-9]++)?|\.[0-9]++)")
PIECE = re.compile(r"[A-Za-z0-9]")
SIGN = re.compile(r"[=\u2248]|\\approx(?![A-Za-z])|(?<!\w)(?:equals?|is\s+equal\s+to)(?!\w)")
_OPERAND = r"(?:\$?[0-9.]|\(|\[|\\frac|\\\()"
OPERATION = re.compile(
    r"[0-9)\]}%](?:\s*+[+*\u00d7\u00f7\u00b7]|\s++[-/\u2212\u2013x]"
    rf"|\s*+\\(?:times|cdot|div)(?![A-Za-z]))\s*+{_OPERAND}"
    r"|[0-9%][ ](?:[a-z]+[ ]){0,3}(?:[+*/\u00d7\u00f7x]|[-\u2212\u2013])[ ]\$?[0-9]"
    r"|<<[^<>\n]{1,200}>>"
    r"|[0-9][ ](?:times|plus|minus|(?:divided|multiplied)\s+by)[ ]\$?[.0-9]"
    r"|[0-9]\([0-9.]"
)
# A letter that stands for a number: beside a number, a sign, a parenthesis or "=". Not the article
# "a", nor "x" as a sign of multiplication.
LETTER = re.compile(
    r"(?<![A-Za-z'\u2019\\])(?:[0-9)]\s?\*?\s?)?[A-Zb-z]"
    r"(?:\s*+[=+*/]|\s++[-\u2212\u2013]\s)(?!\s*+\Z)"
    r"|[=+*/(]\s*+(?:[0-9.]++\s?\*?\s?)?[A-Zb-wyz](?![A-Za-z'\u2019.]\S)(?![A-Za-z'\u2019])"
    r"|[=+*/(]\s*+(?:[0-9.]++\*?)?x(?![A-Za-z0-9'\u2019]|\s*+[0-9$])"
    r"|(?<![A-Za-z0-9.])[0-9.]*[0-9][A-Za-z](?![A-Za-z0-9])(?=[\s=+*/),.])"
)
SYMBOL = re.compile(r"(?<![A-Za-z'\u2019])[A-Zb-z](?![A-Za-z'\u2019])")
CHAINED = re.compile(r"[=\u2248]\s*[^=\u2248]{0,80}(?<![A-Za-z])[=\u2248]")

_HEADING_KINDS = (
    (SegmentKind.VERIFICATION, HEADS_VERIFICATION),
    (SegmentKind.ANSWER, HEADS_ANSWER),
    (SegmentKind.SETUP, HEADS_SETUP),
    (SegmentKind.COMPUTATION, HEADS_COMPUTATION),
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
    """The kind of each sentence of a solution."""
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
        if DECLARATION.search(text) and not CHECK.match(text):
            self.checking = ""
            return SegmentKind.ANSWER
        heading = _heading(text) if unit.starts_line else None
        if heading is not None:
            self.checking = ""
            if heading is SegmentKind.VERIFICATION:
                self.checking = "paragraph" if COLON_LINE.fullmatch(text) else "section"
                self.checked = False
            return heading
        if cut and len(PIECE.findall(text)) < 2 and not unit.computed:
            return SegmentKind.VERIFICATION if self.checking else SegmentKind.OTHER
        if CHECK.match(text) or CHECKING_ASKED.search(text):
            if self.checking != "section":
                self.checking = "paragraph" if text.endswith(":") else "line"
                self.checked = False
            return SegmentKind.VERIFICATION
        reports = CHECKING_REPORTED.search(unit.text) or TICK.search(unit.text)
        if self.checking or ((self.computed or self.declared) and reports):
            return SegmentKind.VERIFICATION
        if (CHAT.match(text) and not NUMBER.search(text)) or not PIECE.search(text):
            return SegmentKind.OTHER
        return self._content(unit, text)

    def _content(self, unit: RuleSentence, text: str) -> SegmentKind:
        numbers = bool(NUMBER.search(text))
        calculates = bool(unit.operations or OPERATION.search(text))
        sign = bool(SIGN.search(text))
        if LETTER.search(text):
            return self._unknown(text, unit, sign)
        if NAMING.search(text) and not calculates:
            return SegmentKind.SETUP
        if calculates:
            return SegmentKind.COMPUTATION
        if numbers and (INFERENCE.search(text) or TRANSFORM.search(text)):
            return SegmentKind.COMPUTATION
        if sign and numbers and self.computed:
            return SegmentKind.COMPUTATION
        if self.declared:
            return SegmentKind.OTHER
        return SegmentKind.SETUP if numbers or not self.computed else SegmentKind.OTHER

    def _unknown(self, text: str, unit: RuleSentence, sign: bool) -> SegmentKind:
        """Rule 7: sentences with a letter that stands for a number."""
        if "<<" in text and not NAMING.search(text):
            self.related = True
            return SegmentKind.COMPUTATION
        if not sign:
            return SegmentKind.COMPUTATION if TRANSFORM.search(text) else SegmentKind.SETUP
        if TRANSFORM.search(text):
            self.related = True
            return SegmentKind.COMPUTATION
        if NAMING.search(text):
            self.related |= bool(unit.operations)
            return SegmentKind.SETUP
        if CHAINED.search(text) or _rewrites(text):
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
    left, right = (set(SYMBOL.findall(side)) for side in _sides(text))
    return bool(left) and left == right


def _equals_number(text: str) -> bool:
    """Whether a side of an equation is a number, units aside."""
    return any(NUMBER.search(side) and not SYMBOL.search(side) for side in _sides(text))


def _heading(text: str) -> SegmentKind | None:
    found = HEADING.match(text)
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
        if units[index].operations or units[index].computed or OPERATION.search(text):
            return
        numbers = {plain_number(n) for n in NUMBER.findall(text)}
        if not numbers & known or LETTER.search(text):
            return
        kinds[index] = SegmentKind.ANSWER


def plain_number(text: str) -> str:
    """A number as written, without what does not change its value: ``$1,234.50`` -> ``1234.5``."""
    digits = text.replace("$", "").replace(",", "")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits
