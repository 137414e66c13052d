"""Equations in texts, on handmade ones, GSM8K's solutions, and texts made to be slow."""

import json
import re
from fractions import Fraction

import pytest
from growth import grows_linearly
from hypothesis import given
from hypothesis import strategies as st
from slow_cases import mostly_slow

from pytest_tokenbudget.tasks.equations import LONGEST_MARK, equations, wrong_equations

ANSWER = """Nils saved 38 dollars.
1. Nils pays Yuki 5 dollars: 38 - 5 = 33
2. Nils earns 11 dollars: 33 + 11 = 44
3. Nils works 4 hours for 2 dollars each: 4 * 2 = 8, 44 + 8 = 52
Check: 52 - 8 = 44, 44 - 11 = 33, 33 + 5 = 38. It fits.
#### 52"""


def verdicts(text, truncated=False):
    return [e.right for e in equations(text, truncated)]


@pytest.mark.parametrize(
    "text",
    [
        "5 + 3 = 8",
        "5 apples + 3 apples = 8 apples",
        "5 \u00d7 3 \u2212 1 = 14",
        "4 x 3 = 12",
        "4x3=12",
        "84 ÷ 4 = 21",
        "(3 + 4) * 2 = 14",
        "2(3 + 4) = 14",
        "3 * -2 = -6",
        "20% of 50 = 10",
        "$100 * 20% = $20",
        "100% - 20% = 80%",
        "100% - 20% = 80",
        "5 / 20 * 100 = 25%",
        "32 types / 96 types * 100% = 33.3",
        "3/4 of 20 = 15",
        "1/2 + 1/4 = 3/4",
        "1 1/2 / 1/2 = 3",
        "10/3 = 3.33",
        "2 / 3 ≈ 0.667",
        "2.5 * 3 = 8",
        "$1,234.50 + $0.50 = $1,235",
        "1000 + 1 = 1,001",
        r"\frac{48}{2} = 24",
        r"\(5 \times 3 = \boxed{15}\)",
        r"\frac{3+4}{2} \div 7 = 0.5",
        "2^3 = 8",
        "2**3 = 8",
        "**5 * 3 = 15**",
        "- 5 + 3 = 8",
        "1. 5 + 3 = 8",
        "Total: 60 minutes * 2 = 120",
        "$600/month * 12 months/year = $7200",
        "3 friends x 8 slices of pizza = 24 slices",
        "(3 + 4 = 7)",
        r"2\frac{1}{2} + 1 = 3.5",
        r"2\frac12 \times 4 = 10",
        r"1 \frac{3}{4} + \frac{1}{4} = 2",
        r"4\dfrac{1}{2} - 2\cfrac{1}{4} = 2\frac{1}{4}",
        "1 000 + 500 = 1 500",
        "1 200 000 * 2 = 2 400 000",
        "1\u202f000 * 2 = 2\u202f000",
        "500 * 2 = 1 000",
        "5 and 2/3 + 1/3 = 6",
        "5 and 2/3 = 17/3",
        "10 / 3 = 3.333...",
        "10 / 3 = 3.33\u2026",
        "-5 + 3 = 8",
        "-5 + 3 = -2",
        "- 5 + 3 = -2",
        "1. -5 + 3 = 8",
        "- 20 * 3 = 60",
        "1-2 = -1",
        "3x + 4x = 7x",
    ],
)
def test_right_equations_are_recomputed(text):
    assert verdicts(text) == [True]


@pytest.mark.parametrize(
    ("text", "computed"),
    [
        ("5 + 3 = 9", 8),
        ("5 apples + 3 apples = 9 apples", 8),
        ("**5 * 3 = 16**", 15),
        ("2 / 3 = 0.66", Fraction(2, 3)),
        ("7 / 2 = 3", Fraction(7, 2)),
        ("10 / 3 = 3.34", Fraction(10, 3)),
        ("20% of 50 = 1000", 10),
        ("5 hours * $15 = $76", 75),
        ("$1,000 - $1 = $99", 999),
        (r"\frac{48}{2} = 25", 24),
        ("5m * 3 = 16m", 15),
        ("2 - 5 = 3", -3),
        ("10 - 2 * 3 = 24", 4),
        (r"4\frac{1}{2} - 2\frac{1}{4} = 3", Fraction(9, 4)),
        ("1\u202f000 * 2 = 2\u202f001", 2000),
        ("- 5 + 3 = 9", 8),
        ("so 9-5 = 3", 4),
        ("9-5 = 3", 4),
        ("2 - 5 = 4", -3),
        ("5 m + 3 m = 9 m", 8),
        ("5 + 3 = 9...", 8),
    ],
)
def test_wrong_equations_are_found(text, computed):
    (equation,) = equations(text)
    assert equation.right is False
    assert equation.computed == computed


@pytest.mark.parametrize(
    "text",
    [
        "x + 5 = 8",
        "2x = 10",
        "2x = 2",
        "16/y = 4",
        "3x + 5 = 20",
        "60 minutes * 2 = 2 hours",
        "100 cents * 3 = $3",
        "2 dozen * 3 = 72",
        "half of 20 + 5 = 15",
        "5/0 = 0",
        "Step 10 = 5",
        "6 nephews = 96/6",
        "Total = 5 + 3",
        "1 1/2 (68) + 10 = 44",
        "√16 + 1 = 5",
        "25 boys + his 1 friend + 1 = 27",
        "1" * 40 + "^20 = 5",
        "7x + 70 = 11x",
        "7a+70=11a",
        "7*x + 70 = 11*x",
        "7m + 70 = 11m",
        "2y = 10 + y",
        "0.5x + 3 = 2x",
        "3\\frac{5}{2} = 7.5",
        "Room 12 345 + 5 = 350",
        "1 000 + 500 = 1 600",
        "5 and 2/3 + 1 = 8",
        "2/3 = 0.666...",
        "1/3 + 1/3 = 0.6666\u2026",
        "0.1(6) * 6 = 1",
        "0.3\u0305 * 3 = 1",
        "Weeks 1-2 = 14 days",
        "Days 1\u20135 = 40 pages",
        "Chapters 1 - 3 = 60 pages",
        "Hours 9-5 = 8",
        "ages 3-5 = 12 children",
        "2-3 = 14",
        "(" * 400 + "1" + ")" * 400 + " = 1",
        "(1+" * 400 + "1" + ")" * 400 + " = 401",
        "(-" * 300 + "5" + ")" * 300 + " = 5",
        "\\frac{1}{" * 300 + "2" + "}" * 300 + " = 3",
    ],
)
def test_cannot_be_recomputed(text):
    found = equations(text)
    assert found
    assert all(e.right is None and e.computed is None for e in found)


@pytest.mark.parametrize(
    "text",
    [
        *("", "no sign", "5 == 5", "a <= 5", "x != 3", "1,5 + 1 = 2,5", "3 + 4 = many", "= 5"),
        *("a = b", "1/6 = 0.1(6)", r"2/3 = 0.\overline{6}", "1/3 = 0.3\u0307"),
        "\\frac{" * 300 + "1}{2} = 3",
    ],
)
def test_no_equation(text):
    assert equations(text) == []


def test_real_answer_of_the_embedded_model():
    found = equations(ANSWER)
    assert len(found) == 7
    assert all(e.right for e in found)
    broken = ANSWER.replace("33 + 11 = 44", "33 + 11 = 45")
    (first,) = wrong_equations(broken)
    assert broken[first.start : first.end] == first.text == "33 + 11 = 45"
    assert (first.left, first.value, first.computed) == ("33 + 11", 45, 44)


def test_chain_is_one_equation_a_sign_and_counts_each_operation_once():
    found = equations("3 + 4 = 2 * 3 + 1 = 8 - 1 = 7")
    assert [e.right for e in found] == [True, True, True]
    assert sum(e.operations for e in found) == 4
    assert verdicts("3 + 4 = 7 = 8") == [True, False]


def test_running_total():
    assert verdicts("5 * 3 = 15 + 2 = 17") == [True, True]
    assert verdicts("5 * 3 = 14 + 2 = 16") == [False, True]


def test_minus_after_a_word():
    assert verdicts("so -1 + 3 = 2") == [True]
    assert verdicts("x -1 + 3 = 8") == [None]


def test_lines_that_begin_with_the_sign():
    found = equations("Total\n= 5 + 3\n= 8")
    assert [e.right for e in found] == [None, True]


def test_calculator_marks():
    text = "Natalia sold 48/2 = <<48/2=24>>24 clips"
    (equation,) = equations(text)
    assert (equation.left, equation.value, equation.right) == ("48/2", 24, True)
    assert verdicts("half of it is <<48/2=25>>25") == [False]
    # The mark is right, and what is written around it is not.
    assert verdicts("48/2 = <<48/2=24>>25") == [False, True]
    # A label before the sign, and the mark that computes.
    assert verdicts("Clips in May = <<48/2=24>>24") == [True]


def test_an_equation_that_touches_the_cut_is_left_out():
    assert equations("34 - 20 = 1", truncated=True) == []
    assert equations("34 - 20 = 1 * ", truncated=True) == []
    assert equations("34 - 20 = <<34-20=1", truncated=True) == []
    assert verdicts("34 - 20 = 14\n", truncated=True) == [True]
    assert verdicts("34 - 20 = 1 so", truncated=True) == [False]


def test_gsm8k_solutions(gsm8k_path):
    """Of GSM8K's own equations, only those are said to be wrong that are wrong there."""
    counts = {True: 0, False: 0, None: 0}
    said = {}
    with gsm8k_path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            for equation in equations(json.loads(line)["answer"]):
                counts[equation.right] += 1
                if equation.right is False:
                    said[number] = equation.text
    assert said == {501: "364 / 4 = <<3/4*364=273>>273", 1024: "32 - $20 = $300"}
    assert counts[True] > 4500
    assert counts[None] < 0.06 * counts[True]


def test_every_damaged_mark_of_gsm8k_is_found(gsm8k_path):
    """One digit more in the result of each solution's first mark with an operation is noticed."""
    missed = tried = 0
    with gsm8k_path.open(encoding="utf-8") as lines:
        for line in lines:
            answer = json.loads(line)["answer"]
            mark = re.search(r"<<[^<>=]*[0-9.)]\s*[-+*/][^<>=]*=[^<>=]*>>", answer)
            if mark is None or wrong_equations(answer):
                continue
            tried += 1
            missed += not wrong_equations("It is " + mark[0].replace(">>", "7>>"))
    assert tried > 1200
    assert missed == 0


@given(
    st.integers(-999, 9999),
    st.integers(-999, 9999),
    st.sampled_from("+-*"),
    st.integers(-3, 3),
    st.sampled_from(["{a} {op} {b} = {c}", "so: {a}{op}({b})={c}.", "<<{a}{op}{b}={c}>>"]),
)
def test_integers(a, b, op, off, form):
    exact = {"+": a + b, "-": a - b, "*": a * b}[op]
    found = equations(form.format(a=a, b=b, op=op, c=exact + off))
    assert [e.right for e in found] == [off == 0]


@given(st.text(alphabet="0123456789+-*/=().,%$<> x\n\\abf{}^²½", max_size=200))
def test_any_text(text):
    found = equations(text)
    places = [(e.start, e.end) for e in found]
    assert places == sorted(places)
    for e in found:
        assert text[e.start : e.end] == e.text
        assert (e.computed is None) == (e.right is None)


PIECES = ["(", "1+", "1*", "=", "<<", "1=", "\\frac{", "1 a ", "-", "((1)", "\n", "1^9", "1 1/2 "]
PIECES += ["1% of ", "1,000", "(1)(", "a/", "1.", ".", "<<1", "9" * LONGEST_MARK + "*", "1" * 70]


@pytest.mark.parametrize("piece", mostly_slow(PIECES, lambda piece: piece in ("(", "1+", "<<")))
def test_time_is_linear(piece):
    """Twice the text takes about twice the time; far from four times."""
    assert grows_linearly(lambda text: equations(text + " = 5"), piece, 10_000)
