"""Answers by kind: what texts declare, what they do not, and that cuts agree with the whole.

The texts are in data/answers.jsonl. ``reads`` is the number that a text gives, null for none;
``accepts`` and ``rejects`` are expected answers that the text does, or does not, answer.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_tokenbudget.tasks.answers import declarations, extract_number
from pytest_tokenbudget.tasks.numbers import parse_number, plain
from pytest_tokenbudget.tasks.ruled import judge_answer

DATA = Path(__file__).parents[1] / "data"
LINES = (DATA / "answers.jsonl").read_text(encoding="utf-8").splitlines()
CASES = [json.loads(line) for line in LINES]
READ = [pytest.param(c["text"], c["reads"], id=c["kind"]) for c in CASES if "reads" in c]
JUDGED = [
    pytest.param(case["text"], answer, key == "accepts", id=case["kind"])
    for case in CASES
    for key in ("accepts", "rejects")
    for answer in case.get(key, ())
]


def number(text, truncated=False):
    found = extract_number(text, truncated)
    return None if found is None else plain(found.value)


@pytest.mark.parametrize(("text", "reads"), READ)
def test_what_a_text_declares(text, reads):
    assert number(text) == reads


@pytest.mark.parametrize(("text", "answer", "right"), JUDGED)
def test_what_a_text_answers(text, answer, right):
    assert judge_answer(answer, text, False).correct is right


@pytest.mark.parametrize("text", sorted({case["text"] for case in CASES}))
def test_no_cut_of_a_text_gives_another_number(text):
    """A cut gives nothing, what the whole gives, or what the whole declared before it."""
    whole = extract_number(text, False)
    declared = {found.value for found in declarations(text, False)}
    for end in range(len(text) + 1):
        found = extract_number(text[:end], True)
        assert found is None or found == whole or found.value in declared
        assert found is None or found.end < end


FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")


def last_of_flexible_filter(text):
    """The answer by the flexible filter that lm-evaluation-harness has for GSM8K."""
    found = FLEXIBLE.findall(text)
    written = (found[-1][0] or found[-1][1]).translate(str.maketrans("", "", "$,")) if found else ""
    return parse_number(written.rstrip("."))


def real_texts(gsm8k):
    """Expected answers with completed texts: of the embedded model in recordings, and of GSM8K."""
    for path in sorted((DATA / "recorded").glob("lm_eval_*/*/samples_*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            yield str(record["target"]), record["resps"][0][0]
    for line in gsm8k.read_text(encoding="utf-8").splitlines():
        solution = json.loads(line)["answer"]
        expected = solution.rpartition("####")[2].strip()
        yield expected, solution
        prose = re.sub("<<.*?>>", "", solution.rpartition("####")[0]).replace("\n", " ")
        yield expected, f"{prose}The answer is ${expected}."
        yield expected, f"Answer: {prose}\n\n**Final Answer: {expected}**"


def test_never_below_the_flexible_filter(gsm8k_path):
    ours = theirs = 0
    for expected, text in real_texts(gsm8k_path):
        value = parse_number(expected)
        found = extract_number(text, False)
        ours += found is not None and found.value == value
        theirs += last_of_flexible_filter(text) == value
    assert ours >= theirs > 3 * 1319


# Composed texts

VALUES = st.sampled_from(["18", "3", "1,250", "0.5", "7/2", "-4", "12,5", "2^3"])
ASCII_UNITS = ["", " apples", " kg", "km/h", "%", " dollars per hour", " m^2", "\u00b0C", " x", "k"]
UNITS = st.sampled_from(
    [*ASCII_UNITS, " dozen", " hundred", "K", " million", "\u00b2", "\u03c0", "!"]
)
JOINS = st.sampled_from(
    [
        " or ",
        " and ",
        " to ",
        ", ",
        " : ",
        " \u00b1 ",
        " - ",
        " + ",
        " \u00d7 ",
        " / ",
        " = ",
        " in ",
    ]
)
ENDS = ["", ".", " because of that.", ", after a while.", " (checked)", "!", " ~~12~~", " in all\n"]
HOLDERS = st.sampled_from(
    [
        "#### {}\n",
        "**#### {}**\n",
        "The answer is {}",
        "The answer is **{}**",
        "The answer is ${}$",
        "Answer: {}",
        "**Final Answer**\n\n{}\n",
        "<answer>{}</answer>",
        '{{"answer": {}}}',
        "So it makes\nAns: {} ",
        "\u7b54\u6848\u662f{}\u3002",
        "The answer is ~~5~~ {}",
        r"The answer is \({}\)",
    ]
)
contents = st.lists(st.tuples(VALUES, UNITS, JOINS), min_size=1, max_size=3).map(
    lambda parts: "".join(map("".join, parts))[: -len(parts[-1][2])]
)


@settings(max_examples=600)
@given(HOLDERS, contents, st.sampled_from(ENDS))
def test_a_cut_of_one_declaration_gives_its_number_or_none(holder, content, end):
    text = holder.format(content) + end
    whole = number(text)
    for place in range(len(text) + 1):
        assert number(text[:place], True) in (None, whole), text[:place]


DIGITS = {
    "full-width": "\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19",
    "Arabic": "\u0660\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669",
    "Persian": "\u06f0\u06f1\u06f2\u06f3\u06f4\u06f5\u06f6\u06f7\u06f8\u06f9",
    "Devanagari": "\u0966\u0967\u0968\u0969\u096a\u096b\u096c\u096d\u096e\u096f",
    "Bengali": "\u09e6\u09e7\u09e8\u09e9\u09ea\u09eb\u09ec\u09ed\u09ee\u09ef",
    "Thai": "\u0e50\u0e51\u0e52\u0e53\u0e54\u0e55\u0e56\u0e57\u0e58\u0e59",
    "bold": "".join(chr(0x1D7CE + digit) for digit in range(10)),
}


@given(st.integers(0, 10**6), st.sampled_from(sorted(DIGITS)), st.booleans(), st.booleans())
def test_digits_of_all_scripts_are_read(value, script, negative, declared):
    written = "".join(DIGITS[script][int(digit)] for digit in str(value))
    text = f"{'#### ' if declared else 'So it is '}{chr(0x2212) if negative else ''}{written}"
    found = extract_number(text, False)
    assert found is not None
    assert found.value == (-value if negative else value)
    assert text[found.start : found.end].lstrip("\u2212") == written


SCALES = {"K": 10**3, "M": 10**6, " thousand": 10**3, " million": 10**6, " billion": 10**9}
SCALES |= {" dozen": 12, " hundred": 100, "": 1, " apples": 1}


@given(st.integers(1, 999), st.sampled_from(sorted(SCALES)), HOLDERS)
def test_scales_multiply(value, scale, holder):
    if holder.startswith("{"):
        scale = ""
    assert number(holder.format(f"{value}{scale}")) == str(value * SCALES[scale])


OPERANDS = st.sampled_from(["3", "$4", "(5 - 2)", "12 apples", "0.5", "1/2", "20%", "7 days"])
SIGNS = st.sampled_from([" + ", " - ", " * ", " \u00d7 ", r" \times ", " / ", "+", " x "])


@given(st.lists(st.tuples(OPERANDS, SIGNS), min_size=2, max_size=4), st.integers(0, 99), HOLDERS)
def test_an_expression_counts_by_what_it_equals(parts, result, holder):
    expression = "".join(map("".join, parts))[: -len(parts[-1][1])]
    if holder.startswith("{"):
        return
    assert number(holder.format(f"{expression} = {result}")) == str(result)
    # A division alone is a fraction.
    if parse_number(expression) is None:
        assert number(holder.format(expression)) is None


@given(VALUES, st.sampled_from([" or ", " to ", ", ", " : ", " \u00b1 ", "\u2013"]), HOLDERS)
def test_several_numbers_are_none(value, join, holder):
    if not holder.startswith("{"):
        assert number(holder.format(f"{value}{join}21")) is None


@given(
    st.sampled_from(["x", "n", "y", "\u03c0", "\u221a2", r"\pi", r"\sqrt{3}", "\u00b2"]), HOLDERS
)
def test_a_number_before_a_symbol_is_none(symbol, holder):
    if not holder.startswith("{"):
        assert number(holder.format(f"3{symbol}")) is None


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("Answer: (B) Rome", "Rome", True),
        ("Answer: (B) Rome", "B", True),
        ("Answer: (B) Rome", "A", False),
        ("The answer is A or B.", "A", False),
        ("The answer is A, B.", "A", False),
        ("The answer is a car.", "A", False),
        ("The answer is **B**.", "B", True),
        ("b) Rome", "B", True),
        ("(B)", "B", True),
        ("A train leaves.", "A", False),
        ('{"answer": "Rome", "steps": 2}', "Rome", True),
        ("The answer is `x = 1`.", "x = 1", True),
        ("The answer is Rome, because it is old.", "Rome", True),
        ("The answer is red, white and blue.", "red", False),
        ("The answer is Rome (the capital).", "Rome", True),
        ("#### Rome\n\nQuestion: And of France?\n#### Paris", "Rome", True),
        ("#### Rome\n\nQuestion: And of France?\n#### Paris", "Paris", False),
        ("The answer is \u201cnew\u00a0York\u201d.", "New York", True),
        ("The answer is ~~Rome~~ Paris.", "Paris", True),
        ("\u7b54\u6848\u662f\u6771\u4eac\u3002", "\u6771\u4eac", True),
        (r"\boxed{\text{New York}}", "New York", True),
        ("The answer is 3-4.", "3\u20134", True),
    ],
)
def test_texts_and_choices(text, answer, right):
    assert judge_answer(answer, text, False).correct is right


@given(st.sampled_from([c["text"] for c in CASES if "accepts" in c]), st.data())
def test_a_cut_of_a_text_is_right_only_as_the_whole_is(text, data):
    answer = data.draw(st.sampled_from(next(c["accepts"] for c in CASES if c["text"] == text)))
    for end in range(len(text)):
        verdict = judge_answer(answer, text[:end], True)
        assert not verdict.correct or judge_answer(answer, text, False).correct
