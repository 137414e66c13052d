"""The words and signs that the rules of `analysis.structure_rules` look for.

Each pattern is possessive or bounded where it could otherwise try a long stretch twice, so the time
stays linear in the length of the text. A change here is a change of the rules' version.
"""

from __future__ import annotations

import re


def _words(*alternatives: str) -> re.Pattern[str]:
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

HEADS_VERIFICATION = _words(r"verif\w*", r"check\w*", r"double[- ]check\w*", "proof", "sanity")
HEADS_ANSWER = _words("answer", "conclusion", "result")
HEADS_SETUP = _words(
    "given",
    "givens",
    "set[- ]?up",
    r"understand\w*",
    "problem",
    "known",
    "unknowns?",
    "plan",
    r"identify\w*",
    "define",
    "information",
    "variables",
)
HEADS_COMPUTATION = _words(
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
CHECKING_ASKED = _words(
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
CHECKING_REPORTED = _words(
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

NAMING = _words(
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
TRANSFORM = _words(
    r"substitut\w+",
    r"simplif\w+",
    r"combin\w+",
    r"expand\w*",
    r"factor\w*",
    r"isolat\w+",
    r"distribut\w+",
    r"rearrang\w+",
    r"cancel\w*",
    r"solv(?:e|es|ing)",
    r"(?:we|you|i)\s+get",
    r"gives?(?:\s+us)?",
    r"(?:divid|subtract|multiply)\w*",
    r"add(?:ing)?(?=[^.]{0,40}both\s+sides)",
    r"both\s+sides",
    r"each\s+side",
    r"like\s+terms",
    r"now\s+we\s+know",
)
INFERENCE = _words(
    "so",
    "thus",
    "hence",
    "therefore",
    "then",
    "because",
    "means",
    r"there\s+must\s+be",
    r"must\s+be",
    "since",
    r"this\s+is",
    r"that\s+is",
    r"which\s+is",
    r"in\s+total",
    "altogether",
    r"a\s+total\s+of",
    "consequently",
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
