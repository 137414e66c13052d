"""The time to read an answer grows with the length of the text, whatever a model repeats."""

from __future__ import annotations

from functools import partial

import pytest
from growth import grows_linearly

from pytest_tokenbudget.tasks.answers import declarations, extract_number
from pytest_tokenbudget.tasks.ruled import judge_text, number_stretches, text_stretches

OPENERS = [
    *("#### ", "####", "**#### ", "\\boxed{", "\\boxed{}", "$\\boxed{", "**", "$", "|", "_"),
    *("The answer is ", "the answer is: ", "Answer:", "**Answer:** ", "answer\n", "answer is not "),
    *("**Final Answer**\n\n", "Ans: ", "\nA: ", "<answer>", "<answer></answer>", "[answer]"),
    *('{"answer": ', "The final answer is: $\\boxed{", "\nQuestion: ", "\nUser: ", "~~", "<s>"),
    *("answer to the ", "at least ", "minus ", "- ", "-\\boxed{", "\\frac{", "\\sqrt{", "; ", ", "),
    *(
        "答案是",
        "答案不是",
        "答: ",
        "正解は",
        "答えは",
        "정답은 ",
        "답은 ",
        "الجواب هو ",
        "الإجابة: ",
    ),
    *("উত্তর হল ", "उत्तर: ", "సమాధానం ", "คำตอบคือ", "La respuesta es ", "La réponse est "),
    *("La resposta é ", "La risposta è ", "Die Antwort ist ", "Ответ: ", "Cevap: ", "Jibu ni "),
    *("Đáp án là ", "La respuesta no es ", "La réponse n'est pas ", "Ответ не "),
]


@pytest.mark.slow
@pytest.mark.parametrize("lead", ["", "The answer is "])
@pytest.mark.parametrize("opener", OPENERS)
def test_repeated_openers_take_linear_time(opener, lead):
    for truncated in (False, True):
        read = partial(extract_number, truncated=truncated)
        assert grows_linearly(lambda text, read=read: read(lead + text), opener, 20_000)


@pytest.mark.slow
@pytest.mark.parametrize("opener", OPENERS)
def test_other_readers_of_openers_take_linear_time(opener):
    for function in (
        lambda text: declarations(text, False),
        lambda text: judge_text("Rome", text, False),
        lambda text: judge_text("B", text, False),
        lambda text: number_stretches("5", text),
        lambda text: text_stretches("Rome", text),
    ):
        assert grows_linearly(function, opener, 10_000)
