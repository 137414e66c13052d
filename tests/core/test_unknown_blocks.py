"""Blocks of thinking that no format covers: what is reported, and what is an ordinary answer."""

from __future__ import annotations

import json
import time

import pytest
from recordings import load, words

from pytest_tokenbudget.core.unknown_blocks import unknown_block
from pytest_tokenbudget.models.thinking_formats import builtin_formats, read_formats

THINK = builtin_formats()["think"]
BLOCKS = [
    "\u25c1think\u25b7hm",
    "[think]hm",
    "<think type='a'>hm",
    "<think >hm",
    "< think>hm",
    "\u2039\uff5cthink\uff5c>hm",
    "\u2039\uff5cthink\uff5c\u203ahm",
    "<\uff5cthink\uff5c>hm",
    "<\uff5cthinking\uff5c>",
    "<inner-thoughts>x",
    "<inner thoughts>x",
    "<code_reasoning>x",
    "<tool_thinking>x",
    "<reasoning_output>x",
    "<finalthoughts>x",
    "<FinalThoughts>x",
    "<scratchpad>x",
    "<reasoning>",
    "<|reasoning|>x",
    "<|channel>thought x",
    "<|channel|>analysis<|message|>x",
    "<|start_thinking|>x",
    "<|begin_of_thought|>x",
    "[REFLECT]x",
    "[THINKING]x",
    "[BEGIN REASONING]x",
    "[inner monologue] x",
    "[[think]]x",
    "{{think}}x",
    "{think}x",
    "\u3010think\u3011x",
    "\u3010\u601d\u8003\u3011x",
    "\u300a\u601d\u8003\u300bx",
    "<\u601d\u8003>x",
    "<think/>x",
    "<innerMonologue>x",
    "<Cot>x",
    "<chain-of-thought>x",
    "<a:think>x",
    "<think:deep>x",
    '<div class="thinking">x',
    '<details type="reasoning">x',
    "<ponder>x",
    "<foo>x",
    "<|foo|>x",
    "<<think>>x",
    "<!think>x",
    "\xabthink\xbbx",
    "**<think>**x",
    "<analysis>x",
    "<Analysis>x",
    "<deliberation>x",
    "<plan>x",
    "<code_plan>x",
    "<tool_plan>x",
    "<output_reflection>x",
    "[Analysis]x",
    "[SCRATCH_PAD]x",
    "<self-reflection>x",
    "<answer_thinking>x",
    "<unused94>thought",
    "<html_reasoning>x",
    "<thought process>x",
    "<think\xa0>x",
    "\ufeff<think>x",
    "<json_think>x",
]
ORDINARY = [
    "<answer>7",
    "<final_answer>7",
    "<finalAnswer>7",
    "<ANSWER>7",
    '<answer id="1">7',
    "<response>7",
    "<result>7</result>",
    '<tool_call>{"a":1}',
    "<tool_calls>x",
    "<function=get_weather>x",
    "<function_calls>x",
    "<code>x",
    "<json>{}",
    "<html>x",
    "<!DOCTYPE html>x",
    "<div>x",
    '<div class="a">x',
    "<br/>7",
    "<br>7",
    "<p>7",
    "<h1>7",
    "<ul><li>7",
    '<table border="1">x',
    '<img src="a think.png">x',
    "<b>7",
    "<x>7",
    "<T> x",
    '<svg width="3">x',
    '<xml version="1">x',
    '<?xml version="1"?>x',
    "<s>7",
    "<bos>7",
    "<|im_start|>assistant",
    "<|im_start|>x",
    "<|assistant|>7",
    "<|assistant|>Thinking of it, 7",
    "<|start_header_id|>assistant<|end_header_id|>",
    "<|begin_of_text|>7",
    "<\uff5cbegin\u2581of\u2581sentence\uff5c>7",
    "<|python_tag|>x",
    "<|channel|>final<|message|>7",
    "[1, 2]",
    "[7]",
    "[a, b]",
    "[A]",
    "[INST] x",
    "[/INST] x",
    "[SYS]x",
    "[PARIS]",
    "[YES] x",
    "[ANSWER] 7",
    "[FINAL ANSWER] 7",
    "[x]",
    "[ ] do",
    "[I think so] 7",
    "[Analysis](http://a) x",
    "[reasoning]: http://a",
    "[reason, answer]",
    "1 < 2",
    "< 5 and x > 3",
    "<= 7",
    "<x and y> z",
    "<3> z",
    "**Thinking:** x",
    "# Analysis",
    "*thinks* x",
    '{"reasoning": "x", "answer": 7}',
    '{"answer": 7}',
    '{ "thought": 1 }',
    "{x}",
    "\\boxed{7}",
    "$x<y>z$",
    "`<think>` tags",
    "```thinking",
    "- a",
    "> q",
    "<https://think.com> x",
    "<mail@think.com> x",
    "#### 7",
    "Think",
    "(thinking)",
    "\xabParis\xbb x",
    "\u30107\u3011x",
    "\u3010\u7b54\u3011x",
    "\u2039a\u203a x",
    'print("<think>")',
]


@pytest.mark.parametrize("text", BLOCKS)
def test_tags_that_could_open_thinking_are_reported(text):
    tag, count = unknown_block([text], None)
    assert tag in text
    assert count == 1


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_answers_are_not_reported(text):
    assert unknown_block([text], None) is None
    assert unknown_block([text], THINK) is None


def test_the_most_frequent_tag_is_named_with_its_answers():
    texts = ["<ponder>7</ponder>#### 10", "\n<ponder>8", "#### 9", "<answer>7", "<plan>7"]
    assert unknown_block(texts, None) == ("<ponder>", 2)
    assert unknown_block(["<think id='1'>a", "<think id='2'>b", "<x-y>c"], None)[1] == 2


@pytest.mark.parametrize("name", builtin_formats())
def test_tags_of_the_models_own_format_are_known(name):
    form = builtin_formats()[name]
    texts = [f"{form.open}7{form.close}\n#### 7", form.open, form.open[:-1]]
    assert unknown_block(texts, form) is None


def test_a_tag_of_another_format_is_reported():
    assert unknown_block(["<think>7</think>#### 3"], None) == ("<think>", 1)
    assert unknown_block(["[THINK]7[/THINK]#### 3"], THINK) == ("[THINK]", 1)


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [("<", "<"), ("<", "a"), ("[A", "A "), ("<a", " b"), ("<|a|>", "b"), ("<|", " |"), ("", " ")],
)
def test_hostile_texts_take_no_time(begins, goes_on):
    text = begins + goes_on * 200_000
    start = time.perf_counter()
    unknown_block([text], None)
    assert time.perf_counter() - start < 0.5


# --- recordings


def samples(path, text):
    """lm-eval samples, which have the two texts by turns."""
    rows = [
        {
            "doc_id": number,
            "doc": {"question": f"Q{number}"},
            "target": str(number),
            "arguments": {"gen_args_0": {"arg_0": f"Q{number}\nA:", "arg_1": {"max_gen_toks": 64}}},
            "resps": [[text[number % 2].format(number)]],
            "filter": "strict-match",
            "exact_match": 1.0,
        }
        for number in range(6)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["scratchpad", "reasoning"])
def test_recordings_report_unknown_blocks_and_use_declared_ones(tmp_path, name):
    texts = (f"<{name}>guess #### 99, so {{0}}</{name}>\n#### {{0}}", f"<{name}>so #### {{0}}")
    file = samples(tmp_path / "samples_gsm8k_2026-01-01T00-00-00.jsonl", texts)
    study = load(file, count=words)
    assert study.curve.points[-1].accuracy.value == 1
    (said,) = [note for note in study.notes if "begin with" in note]
    assert said.startswith(f"6 of 6 answers begin with <{name}>, which is no tag")
    assert said.endswith(
        f'tokenbudget.toml: [formats.NAME] with open = "<{name}>" and its close tag'
    )
    # As the sentence says; what is not closed is no answer.
    tags = {"open": f"<{name}>", "close": f"</{name}>"}
    declared = load(file, count=words, formats=read_formats({"mine": tags}, {}, "here"))
    assert declared.curve.points[-1].accuracy.value == 0.5
    assert not any("begin with" in note for note in declared.notes)
