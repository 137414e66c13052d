"""Words around numbers, by language: scales, signs, and what gives a number another meaning."""

# ruff: noqa: RUF001, E501

from __future__ import annotations

import re

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
_BLANK = r"[ \t\u00a0\u202f\u2009]"
SCALE = re.compile(
    rf"{_BLANK}*+-?(?P<closed>[)\]$\"']*+){_BLANK}*+"
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
