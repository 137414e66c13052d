r"""One number as it is written, its value, and the words around it that give it another meaning.

Values are exact fractions: ``3.50``, ``7/2``, ``3 1/2`` and ``\frac{7}{2}`` are equal. ``,``
separates thousands and ``.`` decimals. ``250,00``, ``1.234,56``, ``10-20``, ``5:30``, ``2^10`` and
``2½`` can be read in more than one way or are no plain number: they have no value here. What may
follow a number is a scale that multiplies it, a unit, or a symbol that takes its value.
"""

# ruff: noqa: RUF001, E501

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from pytest_tokenbudget.tasks.text_views import ascii_view

LONGEST_NUMBER = 64
SPACE = r"[ \t\u00a0\u202f\u2009]"

MINUS = "-\u2013"  # hyphen, en dash; `ascii_view` writes the minus sign as a hyphen
CURRENCIES = "$£€¥₹₩₽₺฿"
VULGAR = "\u00bc-\u00be\u2150-\u215e\u2189"
_GROUP = r"(?:,(?:\\!)?|\{,\}|\\[, ]|[\u00a0\u202f\u2009])"
# What makes two runs of digits one thing that is not a plain number.
_JOINT = rf"(?:{_GROUP}|[.':/_~\u2013\u2014]|\^\{{?|\*\*|[eE][+-]?|[ ](?=[0-9]{{3}}(?![0-9])))"
_SIGN = rf"[{MINUS}+]"
_MONEY = rf"(?:US|AU|CA)?\\?[{CURRENCIES}]"

NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![0-9A-Za-z_)\]}}%]){_SIGN})?
    (?:{_MONEY}[ ]?(?P<inner_sign>{_SIGN})?)?
    (?P<digits>
        (?:(?P<latex_whole>[0-9]++)[ ]?)?\\[dtc]?frac
        (?:\{{[ ]?(?P<over>-?[0-9]++)[ ]?\}}\{{[ ]?(?P<under>[0-9]++)[ ]?\}}
          |(?P<over1>[0-9])(?P<under1>[0-9]))
      | (?:(?P<whole>[0-9]++)[ ])?(?P<numerator>[0-9]++)[ ]?/[ ]?(?P<denominator>[0-9]++)
      | (?P<decimal>
            (?:[1-9][0-9]{{0,2}}(?:{_GROUP}[0-9]{{3}})++|[0-9]++)(?:\.[0-9]++)?
          | (?<![\w.])\.[0-9]++
        )
        (?:[eE](?P<exponent>[+-]?[0-9]{{1,2}}))?
    )
    (?![0-9{VULGAR}])(?!{_JOINT}[0-9])
    """,
    re.VERBOSE,
)
"""A number with its sign and currency, in an `ascii_view`."""

UNREADABLE = re.compile(
    rf"(?:{_SIGN}|{_MONEY})*+(?:[0-9]++(?:{_JOINT}[0-9]++)*+[{VULGAR}]?|[{VULGAR}])"
)
"""Digits that are no number with one meaning."""

ANY_NUMBER = re.compile(f"(?P<good>{NUMBER.pattern})|(?P<bad>{UNREADABLE.pattern})", re.VERBOSE)


def literal_value(number: re.Match[str]) -> Fraction | None:
    """The value of a match of `NUMBER`; None for what no answer is (n/0, 100 digits)."""
    if number.end() - number.start() > LONGEST_NUMBER:
        return None
    part = number.groupdict()
    if part["decimal"] is not None:
        digits = re.sub(r"[^0-9.]", "", part["decimal"])
        value = Fraction(digits) * Fraction(10) ** int(part["exponent"] or 0)
    else:
        under = int(part["under"] or part["under1"] or part["denominator"])
        if under == 0:
            return None
        value = Fraction(int(part["over"] or part["over1"] or part["numerator"]), under)
        value += int(part["latex_whole"] or part["whole"] or 0)
    negative = any(sign and sign in MINUS for sign in (part["sign"], part["inner_sign"]))
    return -value if negative else value


_ENDING = re.compile(r"(?:[ ]?\\?%)?(?:[ ](?P<scale>thousand|million|billion|trillion))?")
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, None: 1}


@lru_cache(maxsize=4096)
def parse_number(text: str) -> Fraction | None:
    """The number that ``text`` is, currency and percent sign aside; None where it is none."""
    view = ascii_view(text.strip().removesuffix("."))
    match = NUMBER.match(view)
    ending = _ENDING.fullmatch(view, match.end()) if match else None
    value = literal_value(match) if match else None
    if value is None or ending is None:
        return None
    return value * _SCALES[ending["scale"]]


def plain(value: Fraction) -> str:
    """The shortest exact way to write ``value``: ``960``, ``3.5``, ``1/3``."""
    if value.denominator == 1:
        return str(value.numerator)
    rest, places = value.denominator, 0
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest //= prime
            power += 1
        places = max(places, power)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


_SCALE_TABLE = {
    10: "decena decenas dizaine dizaines dezena dezenas decina decine десяток десятка десятков",
    12: "dozen dozens doz dutzend docena docenas douzaine douzaines dúzia dúzias dozzina dozzine "
    "дюжина дюжины дюжин düzine lusin",
    100: "hundred hundreds hundert centaine centaines centena centenas centinaio centinaia сотня "
    "сотни сотен yüz trăm",
    10**3: "thousand thousands tausend mille mila miles millier milliers milhar milhares migliaio "
    "migliaia тысяча тысячи тысяч тысячу тыс tsd nghìn ngàn ribu",
    10**4: "vạn",
    10**5: "lakh lakhs",
    10**6: "million millions millionen millones millón milhão milhões milione milioni mln mio "
    "миллион миллиона миллионов млн milyon triệu juta",
    10**7: "crore crores",
    10
    ** 9: "billion billions bn bln bilhão bilhões milliard milliards milliarde milliarden miliardo "
    "miliardi mrd миллиард миллиарда миллиардов млрд milyar tỷ tỉ miliar",
    10**12: "trillion trillions trilyon billionen billones триллион триллиона триллионов трлн",
}
# Of scripts that join words, or whose vowel signs are no letters: no blank need follow.
_JOINED_TABLE = {
    10: "十 สิบ",
    12: "ダース 다스 โหล ডজন दर्जन",
    100: "百 백 ร้อย সো শত सौ వంద مئة مائة",
    10**3: "千 천 พัน হাজার हज़ार हज़ार हजार వేల ألف آلاف هزار",
    10**4: "万 萬 만 หมื่น",
    10**5: "แสน লাখ লক্ষ लाख లక్ష",
    10**6: "ล้าน মিলিয়ন मिलियन మిలియన్ مليون ملايين میلیون",
    10**7: "কোটি करोड़ करोड़ करोड కోటి కోట్ల",
    10**8: "亿 億 억",
    10**9: "अरब বিলিয়ন مليار میلیارد",
}
SCALES = {word: factor for factor, words in _SCALE_TABLE.items() for word in words.split()}
SCALES |= {word: factor for factor, words in _JOINED_TABLE.items() for word in words.split()}


def _longest_first(words: str) -> str:
    return "|".join(sorted(map(re.escape, words.split()), key=len, reverse=True))


_SPACED = _longest_first(" ".join(_SCALE_TABLE.values()))
_JOINED = _longest_first(" ".join(_JOINED_TABLE.values()))
SCALE = re.compile(
    rf"{SPACE}*+-?(?P<closed>[)\]$\"']*+){SPACE}*+"
    rf"(?P<scale>(?:{_SPACED})(?!\w)(?:(?<=\bтыс)\.|(?<=\bмлн)\.|(?<=\bмлрд)\.|(?<=\btsd)\."
    rf"|(?<=\bmio)\.|(?<=\bmrd)\.)?|(?:{_JOINED}))",
    re.IGNORECASE,
)
"""A scale after a number, over marks that close the number."""

_SIGN_SPACED = "negative minus минус menos moins meno negativo eksi âm trừ hasi negativ négatif"
_SIGN_JOINED = "负 負 零下 マイナス 마이너스 سالب ناقص ऋणात्मक ऋण माइनस ঋণাত্মক মাইনাস మైనస్ ติดลบ ลบ"
SIGN = rf"(?:{_longest_first(_SIGN_SPACED)})\s++|(?:{_longest_first(_SIGN_JOINED)})\s*+"

_NOT_EXACT = r"""at[ ]least|at[ ]most|(?:less|more|fewer|greater|larger|smaller|higher|lower|bigger)[ ]than
  |up[ ]to|no[ ](?:less|more|fewer)[ ]than|(?:al|por[ ]lo|pelo)[ ]me[nñ]os|al[ ]meno|au[ ]moins
  |(?:menos|m[aá]s|mais|menor|maior|mayor)[ ](?:de|que|do[ ]que)|moins[ ]de|plus[ ]de|(?:pi[uù]|meno)[ ]di
  |mindestens|h[oö]chstens|(?:mehr|weniger)[ ]als|(?:не[ ])?(?:менее|более|меньше|больше)(?:[ ]чем)?
  |en[ ]az|en[ ]fazla|[ií]t[ ]nhất|nhiều[ ]nhất|nhỏ[ ]hơn|lớn[ ]hơn|angalau"""
_NOT_EXACT_JOINED = (
    "至少|最少|最多|不少于|不超过|超过|少于|多于|大于|小于|少なくとも|最大でも|최소|최대|적어도|على[ ]الأقل|أكثر[ ]من|أقل[ ]من"
    "|कम[ ]से[ ]कम|অন্তত|কমপক্ষে|อย่างน้อย|ไม่เกิน|มากกว่า|น้อยกว่า|కనీసం"
)
_NEGATED = r"not|isn't|never|n't|cannot[ ]be|nicht|não|không(?:[ ]phải)?(?:[ ]là)?|не|değil"
_NEGATED_JOINED = "不是|并非|非|不为|不等于|ليس|ليست|नहीं|ไม่ใช่|아니"
_OPERATIONS = r"""twice|thrice|double|triple|half|root|roots|square|cube|sqrt|cbrt|log|ln|lg|sin|cos|tan|exp|abs
  |factorial|opposite|inverse|reciprocal|absolute[ ]value|third|quarter|elfu|laki|milioni|корень|raíz|racine
  |wurzel|căn|karekök"""
CHANGED_BEFORE = re.compile(
    rf"""(?:
        (?<![^\W_])(?:{_NOT_EXACT}|{_NEGATED}|(?:{_OPERATIONS})(?:[ ](?:of|de|di|aus|из))?(?:[ ]the)?)[\s(]*+
      | (?:{_NOT_EXACT_JOINED}|{_NEGATED_JOINED})\s*+
      | [√∛∜∑∏∫^\u2264\u2265\u2260\u00b1\u2213\u00d7\u00f7<][\s({{$-]*+
      | \|\s*+(?=\Z|-)-?
      | \\(?:[dtc]?frac|sqrt|binom|log|ln|l[et]q?|g[et]q?|neq?|pm|mp|lvert|times|cdot)(?![A-Za-z])
        (?:\[[^\]\n]{{0,9}}\])?[^0-9\n=]{{0,30}}
    )\Z""",
    re.VERBOSE | re.IGNORECASE,
)
"""What ends right before a number and gives it another meaning."""
CHANGED_AFTER = re.compile(
    r"""[\s)\]}$"'*-]*+(?:
        (?:squared|cubed|factorial|pi|tau|choose|raised|then|or[ ](?:more|less|fewer|higher|lower|above)
          |al[ ]cuadrado|ao[ ]quadrado|al[ ]quadrato|au[ ]carré|hoch|в[ ](?:квадрате|кубе|степени)
          |to[ ]the[ ](?:power|[0-9]++(?:st|nd|rd|th)?|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|nth)
          |in[ ](?:thousands|millions|billions|hundreds)|değil|nicht
        )(?![A-Za-z])(?!(?<=then)(?!\s*[$(]?[0-9]))
      | 的(?:平方|立方)|次方|乗|제곱|以上|以下|ではな|でな|ではあ|じゃな|가[ ]?아[니닙]|이[ ]?아[니닙]|नहीं|নয়|కాదు
      | ;\s*+[$(\\-]{0,3}[0-9] | \^[{(]?[0-9A-Za-z-] | [\u00b2\u00b3]
    )
    | [-](?=\s*(?:\Z|[.,;\n])) | \+(?=\s*(?:\Z|[.,;\n]|[A-Za-z]))""",
    re.VERBOSE | re.IGNORECASE,
)
"""What follows a number directly and gives it another meaning, or adds another number."""
CHANGED_AFTER_UNIT = re.compile(
    r"\s*+(?:or[ ](?:more|less|fewer|higher|lower|above)|and[ ]a[ ]half|then\s+[$(]?[0-9]|et[ ]demie?"
    r"|y[ ]medi[ao]|e[ ]mezz[oa]|e[ ]meia|с[ ]половиной|buçuk|rưỡi|değil)(?![A-Za-z])"
    r"|\s*+[^\W\d_]*?(?:以上|以下|以内|未满|未満|이상|이하|미만|초과|ではな|ではあ|じゃな|아니|아닙|半|ครึ่ง)|\s*+(?:नहीं|নয়|కాదు)",
    re.IGNORECASE,
)
"""What follows a number over its unit and gives it another meaning."""
_DENIED = re.compile(
    r"""答案(?:并)?(?:不是|不为|不等于|并非|非) | الجواب\s+ليس | คำตอบไม่ใช่ | (?:정답|답)은?\s*아[니닙]
      | (?i:(?:respuesta|resposta|risposta)[\s*_]+(?:final[\s*_]+)?(?:no[ ]es|não[ ]é|non[ ]è)
      | réponse[\s*_]+n['’]est[ ]pas | antwort[\s*_]+(?:ist|lautet)[ ]nicht | ответ[\s*_:]+не(?!\w)
      | đáp[ ]án[\s*_:]+không | jibu[ ]si)""",
    re.VERBOSE,
)
_DENIED_NEEDLES = (
    "案 الجواب คำตอบ 답 no|es ão|é non|è est|pas nicht не không jibu|si Jibu|si".split()
)
# A literal is found much faster than the pattern.
_DENIED_LITERALS = tuple(needle.replace("|", " ") for needle in _DENIED_NEEDLES)
_DENIED_ASCII = tuple(filter(str.isascii, _DENIED_LITERALS))
_DENIED_IN_ENGLISH = re.compile(
    r"nswer[\s*_]+(?:isn't|(?:can|could|should|would|must|will)(?:not|n't| not) be)"
)


def is_denied_anywhere(view: str, end: int) -> bool:
    """Whether the text says what the answer is not."""
    if ("n't" in view or "not" in view) and _DENIED_IN_ENGLISH.search(view, 0, end):
        return True
    literals = _DENIED_ASCII if view.isascii() else _DENIED_LITERALS
    return any(each in view for each in literals) and bool(_DENIED.search(view, 0, end))


# Capital letters are scales, small ones only after money: 3 m may be metres.
_SCALE_LETTERS = {"K": 10**3, "M": 10**6, "B": 10**9}
_MONEY_LETTERS = {"k": 10**3, "m": 10**6, "b": 10**9, "T": 10**12}
# "mil" is a million in English and a thousand in Spanish; quarters are coins, and halves of games.
_AMBIGUOUS = frozenset(
    """mil bin gross score grand half halves quarter quarters thirds fourths
    fifths sixths sevenths eighths ninths tenths hundredths thousandths""".split()
)
_UNIT_LETTERS = frozenset("mgshlL")
_SHORT_UNITS = frozenset(
    """cm mm km kg mg lb lbs oz ft yd mi hr hrs min sec ms ml dl cl st nd rd th am pm kw gb mb tb
    kb mph kmh kph usd eur gbp rs pt qt px yr yrs""".split()
)
_VARIABLES = re.compile(r"(?:pi|sin|cos|tan|log|ln|exp|mod|sqrt|[xyz]+|[abc]+|[ijk]+|[nmk]+)\Z")

_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]++")
_FACTOR = rf"{SPACE}*+(?:\\?[{CURRENCIES}]{SPACE}?)?[0-9(.\\]"
_MULTIPLIED = re.compile(rf"[xX](?={_FACTOR})")
_AND_A_HALF = re.compile(r"[ ]and[ ](?:a|one)[ ](half|third|quarter|fourth)(?![A-Za-z])")
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4}
_WORD = re.compile(rf"{SPACE}++([^\W\d_]++)")
_PERCENT = re.compile(rf"{SPACE}*+(?:\\?%|(?:percent|per[ ]cent|pct)(?![A-Za-z]))")
_DEGREES = re.compile(rf"{SPACE}*+(?:\^\{{?(?:\\circ|°)\}}?|\\(?:circ|degree)(?![A-Za-z])|[°℃℉º])")
_POWER_OR_FACTORIAL = re.compile(r"[\u00b2\u00b3\u00b9\u2070-\u2079^!‰]")
_SYMBOL = re.compile(
    rf"{SPACE}*+(?:[√∛∜∞∑∏∫∂\u0370-\u03ff]|\\(?!times|cdot|div|pm|mp|approx|simeq|implies|to"
    rf"|Rightarrow|[$%])[A-Za-z]++)"
)
_VARIABLE = re.compile(rf"{SPACE}++([A-Za-z])(?![\w'&./])(?!{_FACTOR})")


class Number(NamedTuple):
    """A number with all that belongs to it.

    Attributes:
        value: Its value with sign and scale; None where it has none, or several.
        start: Where it begins: its currency aside, its sign included.
        end: Where it ends, its scale and percent sign included.
        divided: Whether it is written as a division.
        decimals: How many decimals it shows.
    """

    value: Fraction | None
    start: int
    end: int
    divided: bool
    decimals: int


def with_suffix(match: re.Match[str], text: str, end: int, maths: bool) -> Number:
    """The number of a match of `NUMBER` in a text with what follows it before ``end``.

    In a formula (``maths``) single letters are variables.
    """
    value = literal_value(match)
    begin = match.start() if match["sign"] or match["inner_sign"] else match.start("digits")
    value, stop = (None, match.end()) if value is None else _scaled(value, match, text, end, maths)
    decimals = len((match["decimal"] or "").partition(".")[2])
    return Number(value, begin, stop, match["decimal"] is None, decimals)


def _scaled(
    value: Fraction, match: re.Match[str], text: str, end: int, maths: bool
) -> tuple[Fraction | None, int]:
    at = match.end()
    letters = _LATIN.match(text, at, end)
    if letters and not _MULTIPLIED.match(text, at, end):
        factor = _factor_of(letters[0], _is_money(match, text, end), maths)
        if factor is None or (factor != 1 and _POWER_OR_FACTORIAL.match(text, letters.end(), end)):
            return None, letters.end()
        value, at = value * factor, letters.end()
    elif part := _AND_A_HALF.match(text, at, end):
        added = Fraction(1, _PARTS[part[1]])
        return (value + added if value >= 0 else value - added), part.end()
    while at < end:
        word = _WORD.match(text, at, end)
        if scale := SCALE.match(text, at, end):
            value, at = value * SCALES[scale["scale"].lower().rstrip(".")], scale.end()
        elif word and word[1].lower() in _AMBIGUOUS:
            return None, word.end()
        else:
            break
    # "3 thousand five hundred" goes on.
    if at > match.end() and _NUMBER_WORD.match(text, at, end):
        return None, at
    if ending := _PERCENT.match(text, at, end) or _DEGREES.match(text, at, end):
        return value, ending.end()
    if not letters and _POWER_OR_FACTORIAL.match(text, at, end):
        return None, at
    if CHANGED_AFTER.match(text, at, end):
        return None, at
    variable = _VARIABLE.match(text, at, end)
    units = _UNIT_LETTERS if maths else _UNIT_LETTERS | {"a", "A", "I"}
    if _SYMBOL.match(text, at, end) or (variable and variable[1] not in units):
        return None, at
    return value, at


_NUMBER_WORD = re.compile(
    r"[\s,-]*+(?:and\s)?\s*+(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty"
    r"|hundred)(?![A-Za-z])",
    re.IGNORECASE,
)


def _is_money(match: re.Match[str], text: str, end: int) -> bool:
    """Whether a sign of currency stands before the number, and no formula ends after it."""
    before = text[max(0, match.start() - 2) : match.start("digits")].rstrip(" -+")
    return before[-1:] in tuple(CURRENCIES) and text.find("$", match.end(), end) < 0


def _factor_of(letters: str, money: bool, maths: bool) -> int | Fraction | None:
    """What letters right after a number mean: a scale, a unit (1), or a symbol (None)."""
    lower = letters.lower()
    if letters in _SCALE_LETTERS:
        return _SCALE_LETTERS[letters]
    if money and letters in _MONEY_LETTERS:
        return _MONEY_LETTERS[letters]
    if lower in SCALES:
        return SCALES[lower]
    if len(letters) == 1:
        if letters == "k" and not maths:
            return 1000
        return 1 if letters in _UNIT_LETTERS and not maths else None
    if lower in _SHORT_UNITS:
        return 1
    symbol = len(letters) == 2 or _VARIABLES.match(lower) or lower in _AMBIGUOUS
    return None if symbol else 1
