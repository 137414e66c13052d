# ruff: noqa: RUF001
"""Lines of text in which tokenizers tend to differ: made of the same pieces in every run."""

from __future__ import annotations

import random

CODE = [
    "def f(x: int = 0) -> str:",
    "    return f'{x!r:>10}'",
    "\tfor (int i = 0; i < n; ++i) { a[i] += b[i] * 2.5e-3; }",
    "if (x != null && x.y?.z === undefined) throw new Error(`bad ${x}`);",
    "SELECT COUNT(*) FROM t WHERE a >= 10 AND b LIKE '%x_%';",
    "<div class=\"a-b\" id='c'>&nbsp;&amp;</div><br/>",
    '{"key": [1, 2.50, -3e+10, true, null], "näme": "v\\n\\u00e9"}',
    "#include <stdio.h>\r\nint main(void)\r\n{\r\n\treturn 0;\r\n}\r\n",
    "x=y<<2|~z^0xFF&0b1010;//TODO:fix",
    "std::vector<std::pair<int,int>>v{{1,2},{3,4}};",
    "$ grep -rnE '^\\s*(\\w+)=' . | awk '{print $1}' > /dev/null 2>&1",
    "HTTPServerError getHTTPResponseCode2 snake_case_name CONSTANT_VALUE camelCaseName",
    "\\frac{1}{2}\\sum_{i=0}^{n} x_i^2 \\leq \\boxed{42}",
    "https://example.org/a/b?c=d&e=%20f#g",
    "### Title\n\n- item *one*\n  1. `two`\n\n```py\nprint(1)\n```",
]
WORDS = [
    *("the The THE of and apples budget reasoning token's it's it'S IT'S we'll WE'LL I'd".split()),
    *("they're THEY'RE I've I'VE I'm I'M can't CAN'T 'tis ' '' 'a 's 'x o'clock l'eau".split()),
    *("don\u2019t \u201cquoted\u201d na\u00efve caf\u00e9 cafe\u0301 Stra\u00dfe".split()),
    *("STRASSE \u0130stanbul \u01c5 \ufb01n o\u0308 A\u030a".split()),
    *("\u03b1\u03b2\u03b3 \u039a\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1".split()),
    *("\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440 \u0401\u043b\u043a\u0430".split()),
    *("z\u0142oty \u0111\u1ed3ng ti\u1ebfng Vi\u1ec7t \u010de\u0161tina T\u00fcrk\u00e7e".split()),
    *("\u01c6ivot \u02bcn \u2019s \u02bb\u014dlelo e\u0301\u0302 W\u0327".split()),
]
SCRIPTS = [
    "日本語のテキスト、カタカナ。",
    "東京は24℃です！",
    "中文分词测试：“引号”，（括号）、《书名》……",
    "繁體字 與 简体字混排ABC123",
    "한국어 문장입니다. 12월 25일",
    "مرحبا بالعالم، كيف الحال؟",
    "الأرقام ١٢٣٤٥ و ۱۲۳",
    "قَالَ مُحَمَّدٌ",
    "שלום עולם, מה שלומך?",
    "हिन्दी में लिखा हुआ पाठ १२३।",
    "বাংলা লেখা ৪৫৬",
    "ภาษาไทยไม่มีเว้นวรรค ๗๘๙",
    "தமிழ் எழுத்து",
    "ქართული ენა",
    "አማርኛ",
    "ᏣᎳᎩ ꮳꮃꭹ",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛 𐐷",
]
EMOJI = [
    "😀",
    "👍🏽",
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "🇩🇪🇯🇵",
    "❤️",
    "1️⃣",
    "☃",
    "✅❌",
    "🤷🏿‍♀️",
    "→←⇒",
    "★☆",
    "░▒▓█",
]
NUMBERS = [
    *("0 7 12 123 1234 12345 123456 1234567890 3.14159 -1,234.50 $960 50% 1e-9 0x1F 007".split()),
    *("1/2 2024-01-31 12:34:56 +49-30-123 192.168.0.1 10km 5th v1.2.3rc4 x2y3".split()),
    *("#### 1,000,000".split()),
    *("\u00bd \u00b2\u00b3 \u2167 \u2460 \u0663\u0664 \u0967\u0968 \uff11\uff12\uff13".split()),
    *("\u3007\u4e00\u4e8c\u4e09 \u5341\u4e8c 1\u20442 \u215b".split()),
]
SPACES = [
    *(" ", "  ", "   ", "    ", " " * 8, " " * 17, "\t", "\t\t", " \t ", "\n", "\n\n", "\n\n\n"),
    *("\r\n", "\r", " \n", "\n ", "  \n  ", "\u00a0", "\u2003", "\u3000", "\u2028", "\u200b"),
    *("\x0b", "\x0c", "\u0085", "\n\t\n", "   \n\n   ", "\u202f", " \u00a0 "),
]
MARKUP = [
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "<unk>", "<think>", "</think>"),
    *("<|user|>", "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n<think>\n"),
    *("<|im_start", "|im_end|>", "<thin", "</think", "<|im_|>", "<0x0A>", "< s>", "<|eot_id|>"),
]
SIGNS = [
    *("...", "!!!", "?!", " ,", ";;", "--", "\u2014", "\u2013", "\u2026", "()", "[]", "{}", "@#"),
    *("~^`", "\\", "|", "\u00ab\u00bb", "\u00a7\u00b6", "\u20ac\u00a3\u00a5", "+=", "\u00d7\u00f7"),
    *("\u2264\u2265", "\u221a\u222b", "/*", "*/", "//", "'\"'", "\u00ac", "\u00b0", "_", "__"),
    *("a/b/c", "\n/", "!\n", ".\r\n", ")\n\n", "\u0000", "\x01", "\x7f", "\ufeff", "\ufffd"),
    *("\u0301", "\u200d", "\ufe0f", "\u202e", "\U0001d11e", "\ue000"),
]
KINDS = [CODE, WORDS, WORDS, WORDS, SCRIPTS, EMOJI, NUMBERS, NUMBERS, SPACES, SPACES, MARKUP, SIGNS]
BETWEEN = [" ", " ", " ", "", "", "  ", "\n", ", "]


def varied_lines(count: int = 2000, seed: int = 0) -> list[str]:
    """Different texts; the first are the pieces themselves."""
    chance = random.Random(seed)

    def pick(choices: list) -> object:
        # What random() gives is the same in every version of Python; choice() need not be.
        return choices[int(chance.random() * len(choices))]

    found = dict.fromkeys(["", *(piece for kind in KINDS for piece in kind)])
    while len(found) < count:
        parts: list[str] = []
        for _ in range(1 + int(chance.random() * 9)):
            parts += [pick(pick(KINDS)), pick(BETWEEN)]
        found["".join(parts[: len(parts) - int(chance.random() * 2)])] = None
    return list(found)[:count]
