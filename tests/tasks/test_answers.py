"""The number extractor: what it reads, what it refuses, and that a cut never invents a number."""

import time
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_tokenbudget.tasks.answers import declarations, extract_number
from pytest_tokenbudget.tasks.numbers import parse_number, plain


def value(text, truncated=False):
    found = extract_number(text, truncated)
    return None if found is None else (plain(found.value), found.branch)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#### 18", "18"),
        ("####18", "18"),
        ("#### $960", "960"),
        ("####$960", "960"),
        (r"#### \$960", "960"),
        ("**#### 13**", "13"),
        ("#### **13**", "13"),
        ("#### 1,234", "1234"),
        ("#### 1,234,567.50", "1234567.5"),
        ("#### -5", "-5"),
        ("#### -$5", "-5"),
        ("#### $-5", "-5"),
        ("#### \u22127", "-7"),
        ("#### +7", "7"),
        ("#### .5", "0.5"),
        ("#### 3.50", "3.5"),
        ("#### 1/2", "0.5"),
        ("#### 2 1/2 cups", "2.5"),
        ("#### 1/3", "1/3"),
        ("#### 25%", "25"),
        (r"#### 25\%", "25"),
        ("#### 12 apples", "12"),
        ("#### 12km", "12"),
        ("#### 18.", "18"),
        ("#### 18.\n", "18"),
        ("#### 5e3", "5000"),
        ("#### $1.5 million", "1500000"),
        ("#### 1\u202f000", "1000"),
        ("####\n\n18", "18"),
        ("#### \u20ac 20", "20"),
        ("#### The final answer is 18", "18"),
        ("#### x = 18", "18"),
        ("#### 3 + 4 = 7", "7"),
        ("#### 5-2=3", "3"),
        ("#### 18####", "18"),
    ],
)
def test_hash(text, expected):
    assert value(text) == (expected, "hash")
    assert value(f"First 7, then 8.\n{text}\n") == (expected, "hash")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{42}", "42"),
        (r"$\boxed{42}$.", "42"),
        (r"\boxed{\$1{,}000}", "1000"),
        (r"\boxed{1,\!000}", "1000"),
        (r"\boxed{\frac{1}{2}}", "0.5"),
        (r"\boxed{-\dfrac{1}{2}}", "-0.5"),
        (r"\boxed{\frac{-1}{2}}", "-0.5"),
        (r"\boxed{3\frac12}", "3.5"),
        (r"\boxed{25\%}", "25"),
        (r"\boxed{\text{12 apples}}", "12"),
        (r"\boxed{12 \text{ m}^2}", "12"),
        (r"\boxed{90^\circ}", "90"),
        (r"\boxed{x = 5}", "5"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{3 \times 4 = 12}", "12"),
    ],
)
def test_boxed(text, expected):
    assert value(text) == (expected, "boxed")
    assert value(f"{text}\n", truncated=True) == (expected, "boxed")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is 42", "42"),
        ("The answer is: **42**.", "42"),
        ("**Answer:** 42", "42"),
        ("**Final Answer**: $1,000", "1000"),
        (r"So the answer is \(42\).", "42"),
        ("the answer is $42$.", "42"),
        ("The answer is therefore approximately 3.14.", "3.14"),
        ("The answer is:\n\n42", "42"),
        ("The answer is 3 + 4 = **7** apples.", "7"),
        ("ANSWER: -3", "-3"),
    ],
)
def test_answer_is(text, expected):
    assert value(text) == (expected, "answer_is")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so 3 + 4 = 7", "7"),
        ("16 - 3", "3"),
        ("It is $20.", "20"),
        ("he has 12.5.", "12.5"),
        ("it costs $1,000 (one thousand).", "1000"),
        ("= -3", "-3"),
        ("5 g of H2O", "5"),
        ("the area is 12 m^2", "12"),
        ("#### 1. First step\nand so there are 8", "8"),
        ("#### 2) Sum: 9", "9"),
        ("The answer is:\n1. Take 5\n2. Leave 6", "6"),
        ("the answer is not 5 but 6", "6"),
        ("wait...5", "5"),
    ],
)
def test_last_number(text, expected):
    assert value(text) == (expected, "last_number")
    assert value(text, truncated=True) is None


@pytest.mark.parametrize("lead", ["#### ", "The answer is ", "It is "])
@pytest.mark.parametrize(
    "unclear",
    [
        "250,00",
        "1.234,56",
        "1.234.567",
        "1,23,456",
        "0,500",
        "1 000",
        "1'000",
        "10-20",
        "10\u201320",
        "5:30",
        "3/4/2024",
        "2024-05-01",
        "2\u00bd",
        "2^10",
        "2**10",
        "5/0",
        "1e999999",
        "9" * 5000,
    ],
)
def test_not_guessed(lead, unclear):
    assert value(f"12 and 7. {lead}{unclear}") is None
    assert value(f"12 and 7. {lead}{unclear}.\n", truncated=True) is None


@pytest.mark.parametrize(
    "text",
    ["", "   ", "no number", "####", r"\boxed{}", r"5 \boxed{A}", r"\boxed{5, 6}", "#### 3 + 4"],
)
def test_texts_that_declare_no_answer(text):
    assert value(text) is None


def test_the_last_declaration_wins_whatever_its_form():
    text = "The answer is 1. #### 2\n" + r"\boxed{3}" + "\n#### 4\nthe answer is 5; so"
    assert value(text) == ("5", "answer_is")
    assert value(text.rpartition("the answer")[0]) == ("4", "hash")
    assert value(text.rpartition("####")[0]) == ("3", "boxed")
    assert value("The answer is 1. No, the answer is 5; so") == ("5", "answer_is")


def test_extraction_says_where():
    text = "so\n#### $1,234 dollars"
    found = extract_number(text, False)
    assert text[found.start : found.end] == found.text == "1,234"


@pytest.mark.parametrize(
    "text",
    [
        "#### 250",
        "#### 250,",
        "#### 250,0",
        "#### 250,00",
        "#### 12.",
        "#### 12. ",
        "#### 1/",
        "#### 1 ",
        "#### 2 1",
        "#### 25%",
        "#### 5e",
        "#### 1.5 mill",
        "#### 12 app",
        "#### 3 +",
        "#### 3 + 4",
        "#### 3 + 4 =",
        "#### 3 + 4 = 7",
        r"#### 1{,",
        r"#### 5\fra",
        r"#### 5\frac{1}{2",
        "####",
        "the answer is 25",
        "the answer is 12.",
        # Either can go on: "/ 2 = 9", "or $43$", "are what is left of 20".
        "#### 18 apples ",
        "The answer is $42$",
        "The answer is 5 dozen",
        "#### 15% ",
        "The answer is ~~12",
        "The answer is ~~12. So",
        "Answer: There are 18 apples in 3 bags.\n",
        r"\boxed{12",
        r"\boxed{12}",  # " thousand" may follow
        r"\boxed{12.",
        "He has 5 apples and",
    ],
)
def test_a_number_that_touches_the_cut_is_no_answer(text):
    assert value(text, truncated=True) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#### 18\n", "18"),
        ("#### 18 apples\n", "18"),
        ("**#### 18**\n", "18"),
        ("The answer is **42**.", "42"),
        ("The answer is $42$. ", "42"),
        ("The answer is 42. So", "42"),
        ("\\boxed{42}\n", "42"),
        ("#### 18\nBut wait. #### 2", "18"),
    ],
)
def test_declared_before_the_cut(text, expected):
    assert value(text, truncated=True)[0] == expected


def test_numbers_are_compared_exactly():
    assert parse_number("0.5") == parse_number("1/2")
    assert parse_number("$1,000.00") == Fraction(1000)
    assert parse_number("25%") == 25
    assert parse_number("0.333") != parse_number("1/3")
    assert parse_number("0.1") != Fraction(0.1)
    assert parse_number("x") is None
    assert parse_number("12 apples") is None
    assert parse_number("18.") == 18


decimals = st.decimals(-10_000_000, 10_000_000, places=3).map(Fraction)
numbers = st.one_of(st.integers(-(10**9), 10**9).map(Fraction), decimals)

FORMATS = {
    "hash": ["#### {}", "**#### {}**", "#### ${}", "####{} apples\n", "#### {}.", "#### x = {}"],
    "boxed": [r"\boxed{{{}}}", r"\boxed{{\${}}}", r"so $\boxed{{{} \text{{ km}}}}$."],
    "answer_is": ["The answer is {}", "the answer is: **{}**.", "Answer: ${}\nThat is it."],
    "last_number": ["it makes {}", "That is ${}.", "1 + 2 = {} in all"],
}


@given(number=numbers, commas=st.booleans(), data=st.data())
def test_reads_what_was_written(number, commas, data):
    branch = data.draw(st.sampled_from(sorted(FORMATS)))
    form = data.draw(st.sampled_from(FORMATS[branch]))
    written = plain(number)
    if commas:
        whole, point, rest = written.partition(".")
        written = f"{int(whole):,}{point}{rest}" if whole != "-0" else written
    found = extract_number(f"Start with 7.\n{form.format(written)}", False)
    assert (found.value, found.branch) == (number, branch)


@given(numbers)
def test_plain_is_exact(number):
    assert parse_number(plain(number)) == number


pieces = st.sampled_from(
    [
        *"0123456789",
        *" \n.,:;-+*/=x%$eE^_'(){}!\\",
        *("#### ", "####", "the answer is ", "Answer: ", "\\boxed{", "}", "**", "250,000", "1,234"),
        *("12.5", "1/2", " 1/2", "\\frac{1}{2}", "\\frac12", "{,}", "\\,", "\\times", "\\%", "000"),
        *(" million", " apples", "word", "US$", "\u2212", "\u2013", "\u00a0", "\u202f", "\u00bd"),
        *("x = ", "\\text{", "1. ", " = ", " + ", "e5", "therefore ", "#"),
        *(" or ", " and ", " to ", ", ", ": ", "~~", "<s>", "</s>", "<answer>", "</answer>", "!"),
        *(
            " is ",
            " dozen",
            "K",
            " half",
            "\u0664",
            "\uff12",
            "\u662f",
            "\u7b54\u6848\u662f",
            "x",
            "^2",
            "\u00b1",
        ),
        *("\nQuestion: ", "\nUser: ", "answer", " step", "#### Step 2", "Ans: ", "not ", "minus "),
    ]
)
texts = st.lists(pieces, max_size=14).map("".join)
openings = st.sampled_from(["", "#### ", "the answer is ", "\\boxed{", "Answer:\n"])


@settings(max_examples=1500, deadline=None)
@given(opening=openings, rest=texts)
@example(opening="#### ", rest="0---US$0")
def test_a_cut_never_yields_what_the_whole_does_not_declare(opening, rest):
    text = opening + rest
    whole = declarations(text, truncated=False)
    for end in range(len(text) + 1):
        found = extract_number(text[:end], truncated=True)
        if found is None:
            continue
        assert found.end < end
        assert found in whole


@settings(max_examples=500)
@given(st.one_of(st.text(), texts), st.booleans())
def test_any_text_can_be_read(text, truncated):
    extract_number(text, truncated)


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    [
        "#### 1. ",
        "####",
        "#### ",
        "answer: ",
        "answer is 1 + ",
        "\\boxed{",
        "\\boxed{1",
        "1,",
        "1 ",
        "1 + ",
        "9",
        " ",
        "\n",
        "a",
        "$",
        "*",
        "{",
        "-",
        "1,000 ",
        "\\frac",
        "x =",
        "e",
        "answer is 5 apples or ",
        "Answer: There are 3. ",
        "\nQuestion: 5 ",
        "\nA: 5 or ",
        "~~5",
        "<s>5",
        "<answer>5",
        "\\text{5",
        "\\sout{",
        "answer to ",
        "answer (in ",
        "#### 1 or 2\n",
        "#### Step 2\n",
        "The answer is not 5 but ",
        "\u7b54\u6848\u662f4\u6216",
        "\u0664",
        "5 = ",
        "5! ",
        ". ",
    ],
)
def test_linear_time(unit):
    for opening in ("", "#### ", "the answer is ", "Answer:\n"):
        text = (opening + unit * (200_000 // len(unit)))[:200_000]
        began = time.process_time()
        extract_number(text, False)
        extract_number(text, True)
        # Quadratic time would be minutes here.
        assert time.process_time() - began < 2


@pytest.mark.slow
def test_fast_enough_for_every_budget():
    filler = "She adds 12 apples to the 30 she has, which makes 42. The answer to this is near. "
    text = filler * 100
    seconds = []
    for _ in range(3):  # the quickest, since neighbours take the caches
        began = time.process_time()
        for _ in range(1319):
            extract_number(text, False)
            extract_number(text, True)
        seconds.append(time.process_time() - began)
    # 1,319 texts at 7 budgets are seven times as many.
    assert min(seconds) < 1.5
