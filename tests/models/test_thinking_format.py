"""Where thinking stands in an output: every oddity, by handmade tokens, at every cut."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tokenbudget.core.trace import StopReason, Trace
from pytest_tokenbudget.models.thinking_formats import builtin_formats, detect
from pytest_tokenbudget.texts.thinking_blocks import OutputPart, ThinkingFormat, parse, parse_tags

TOKENS = {"<think>": 1, "</think>": 2}
HARMONY = {
    "<|channel|>": 200005,
    "<|start|>": 200006,
    "<|end|>": 200007,
    "<|message|>": 200008,
    "<|constrain|>": 200003,
}
THINK = builtin_formats()["think"].resolved(TOKENS)
BY_TEXT = replace(THINK, ids=())
MINIMAX = builtin_formats()["minimax-m2"].resolved(TOKENS)
GPT_OSS = builtin_formats()["gpt-oss"].resolved(HARMONY)
NESTED = replace(THINK, nests=True)
ANALYSIS = ["<|channel|>", "analysis", "<|message|>"]
FINAL = ["<|start|>", "assistant", "<|channel|>", "final", "<|message|>"]
EOS = "<eos>"


def make(*pieces, opened=False):
    """A trace of a token a piece; ``~`` spells a tag with one ordinary token."""
    written = [p.removeprefix("~") for p in pieces if p != EOS]
    ids = [0 if p == EOS else {**TOKENS, **HARMONY}.get(p, 1000 + i) for i, p in enumerate(pieces)]
    offsets, length = [], 0
    for piece in pieces:
        length += 0 if piece == EOS else len(piece.removeprefix("~"))
        offsets.append(length)
    ended = bool(pieces) and pieces[-1] == EOS
    return Trace(
        problem_id="p",
        sample=0,
        prompt_ids=(9,),
        output_ids=tuple(ids),
        stop_reason=StopReason.EOS if ended else StopReason.LENGTH,
        cap=len(ids) + 50 if ended else len(ids),
        text="".join(written),
        offsets=tuple(offsets),
        opened_by_prompt=opened,
    )


def whole(trace, form=THINK):
    return trace.cut(max(len(trace.output_ids), 1), form)


def counts(cut):
    return cut.thinking_tokens, cut.answer_tokens


def flags(cut):
    """Those that are set."""
    names = ("opened", "closed", "reopened", "spilled", "in_thinking")
    return {name for name in names if getattr(cut, name)}


class TestOddities:
    def test_an_ordinary_answer(self):
        cut = whole(make("<think>", "so ", "4", "</think>", "\n", "4", EOS))
        assert (cut.thinking, cut.answer) == ("so 4", "\n4")
        assert flags(cut) == {"opened", "closed"}
        assert counts(cut) == (4, 2)  # the end of the sequence is neither

    def test_no_thinking_at_all(self):
        cut = whole(make("4", " apples", EOS))
        assert (cut.thinking, cut.answer, flags(cut)) == ("", "4 apples", set())
        assert counts(cut) == (0, 2)

    def test_a_model_without_a_format(self):
        cut = whole(make("<think>", "4", EOS), None)
        assert (cut.thinking, cut.answer, flags(cut)) == ("", "<think>4", set())
        assert counts(cut) == (0, 2)

    def test_unclosed(self):
        cut = whole(make("<think>", "so ", "4"))
        assert (cut.thinking, cut.answer) == ("so 4", "")
        assert flags(cut) == {"opened", "in_thinking"}
        assert counts(cut) == (3, 0)

    def test_end_of_sequence_inside_thinking(self):
        cut = whole(make("<think>", "so ", "4", EOS))
        assert not cut.truncated
        assert flags(cut) == {"opened", "in_thinking"}
        assert counts(cut) == (3, 0)

    def test_the_prompt_opened_the_block(self):
        cut = whole(make("so ", "</think>", "4", EOS, opened=True))
        assert (cut.thinking, cut.answer) == ("so ", "4")
        assert flags(cut) == {"opened", "closed"}
        assert counts(cut) == (2, 1)
        assert flags(make("so ", "</think>", "4", opened=True).cut(1, THINK)) == {
            "opened",
            "in_thinking",
        }

    def test_the_model_opens_again_what_the_prompt_opened(self):
        cut = whole(make("<think>", "so", "</think>", "4", EOS, opened=True))
        assert (cut.thinking, cut.answer) == ("so", "4")
        assert cut.blocks.nested
        assert not cut.reopened

    def test_an_empty_block(self):
        cut = whole(make("<think>", "\n\n", "</think>", "\n\n", "4", EOS))
        assert (cut.thinking, cut.answer) == ("\n\n", "\n\n4")
        assert counts(cut) == (3, 2)
        bare = whole(make("<think>", "</think>", EOS))
        assert (bare.thinking, bare.answer, counts(bare)) == ("", "", (2, 0))
        assert flags(bare) == {"opened", "closed"}

    def test_reopened(self):
        trace = make("<think>", "a", "</think>", "4", "<think>", "b", "</think>", "5", EOS)
        cut = whole(trace)
        assert (cut.thinking, cut.answer) == ("a4b", "5")
        assert flags(cut) == {"opened", "closed", "reopened"}
        assert counts(cut) == (7, 1)
        assert (trace.cut(4, THINK).answer, flags(trace.cut(4, THINK))) == (
            "4",
            {"opened", "closed"},
        )
        assert flags(trace.cut(5, THINK)) == {"opened", "closed", "reopened", "in_thinking"}

    def test_spilled(self):
        """Thinking went on after a forced close, and was then closed once more."""
        trace = make("<think>", "a", "</think>", " wait, 4", "</think>", "5", EOS)
        cut = whole(trace)
        assert (cut.thinking, cut.answer) == ("a wait, 4", "5")
        assert flags(cut) == {"opened", "closed", "spilled"}
        assert counts(cut) == (5, 1)
        assert flags(trace.cut(4, THINK)) == {"opened", "closed"}

    def test_close_without_open(self):
        cut = whole(make("so ", "</think>", "4", EOS))
        assert (cut.thinking, cut.answer) == ("so ", "4")
        assert flags(cut) == {"closed"}
        assert counts(cut) == (2, 1)
        twice = whole(make("so ", "</think>", "4", "</think>", "5", EOS))
        assert (twice.thinking, twice.answer, twice.spilled) == ("so 4", "5", True)
        opened = whole(make("so ", "</think>", "4", "<think>", "b"))
        assert flags(opened) == {"opened", "closed", "reopened", "in_thinking"}

    def test_an_open_tag_inside_a_block(self):
        """Without nesting the first close tag ends it, whatever was opened."""
        pieces = ["<think>", "a", "<think>", "b", "</think>", "c", "</think>", "4", EOS]
        cut = whole(make(*pieces))
        assert (cut.thinking, cut.answer) == ("abc", "4")
        assert flags(cut) == {"opened", "closed", "spilled"}
        assert cut.blocks.nested
        nested = whole(make(*pieces), NESTED)
        assert (nested.thinking, nested.answer) == ("abc", "4")
        assert flags(nested) == {"opened", "closed"}
        assert flags(make(*pieces).cut(6, NESTED)) == {"opened", "in_thinking"}
        assert flags(make(*pieces).cut(6, THINK)) == {"opened", "closed"}

    def test_interleaved(self):
        """Blocks that repeat by design: the text between them is for the reader."""
        pieces = ["a", "</think>", "I look. ", "<think>", "b", "</think>", "4", EOS]
        cut = whole(make(*pieces, opened=True), MINIMAX)
        assert (cut.thinking, cut.answer) == ("ab", "4")
        assert flags(cut) == {"opened", "closed", "reopened"}
        assert counts(cut) == (5, 2)
        assert counts(whole(make(*pieces, opened=True))) == (6, 1)

    def test_budget_at_the_close_tag(self):
        trace = make("<think>", "so ", "</think>", "4", EOS)
        before, at, after = (trace.cut(b, THINK) for b in (2, 3, 4))
        assert flags(before) == {"opened", "in_thinking"}
        assert (flags(at), at.answer, at.truncated) == ({"opened", "closed"}, "", True)
        assert [counts(cut) for cut in (before, at, after)] == [(2, 0), (3, 0), (3, 1)]
        assert after.answer == "4"

    def test_a_token_without_text(self):
        """Part of a character after the close tag is a token of the answer."""
        trace = make("<think>", "", "a", "</think>", "", "\u00e4", "")
        assert [counts(trace.cut(b, THINK)) for b in range(1, 8)] == [
            (1, 0), (2, 0), (3, 0), (4, 0), (4, 1), (4, 2), (4, 3),
        ]  # fmt: skip


class TestTokensOfTags:
    def test_a_spelled_tag_closes_nothing_where_there_is_a_token_for_it(self):
        trace = make("<think>", "they write ", "</", "think", ">", " there", "</think>", "4", EOS)
        cut = whole(trace)
        assert (cut.thinking, cut.answer) == ("they write </think> there", "4")
        assert (cut.blocks.spelled, cut.spilled) == (1, False)
        assert flags(trace.cut(6, THINK)) == {"opened", "in_thinking"}
        assert whole(make("~<think>", "4", EOS)).answer == "<think>4"
        assert whole(make("<think>", "~</think>", "4", EOS)).in_thinking

    def test_a_tag_across_tokens_counts_where_there_is_no_token_for_it(self):
        trace = make("<", "think", ">so", " 4<", "/think", ">\n", "4", EOS)
        cut = whole(trace, BY_TEXT)
        assert (cut.thinking, cut.answer) == ("so 4", "\n4")
        # A token belongs to where it begins.
        assert counts(cut) == (6, 1)
        assert trace.cut(5, BY_TEXT).in_thinking
        assert not trace.cut(2, BY_TEXT).opened

    def test_nothing_is_told_apart_before_somebody_has_looked(self):
        assert ThinkingFormat().ids is None
        assert not whole(make("~<think>", "a", "~</think>", "4"), ThinkingFormat()).blocks.spelled

    def test_only_one_of_the_tags_has_a_token(self):
        form = ThinkingFormat().resolved({"</think>": 2, "<other>": 3})
        assert form.ids == (("</think>", 2),)
        cut = whole(make("~<think>", "a", "~</think>", "b", "</think>", "4", EOS), form)
        assert (cut.thinking, cut.answer, cut.blocks.spelled) == ("a</think>b", "4", 1)

    def test_the_longer_of_two_tokens_is_the_tag_s(self):
        form = ThinkingFormat().resolved({"<think": 5, "<think>": 1, "</think>": 2, "</": 6})
        assert form.ids == THINK.ids

    def test_a_broken_character_before_the_tag(self):
        """The token of the tag brings the text of the bytes before it."""
        trace = replace(make("<think>", "", "\ufffd</think>", "4"), output_ids=(1, 7, 2, 8))
        assert whole(trace).answer == "4"

    def test_of_an_embedded_models_own_tokenizer(self):
        from tokenizers import Tokenizer

        from pytest_tokenbudget.models.resolution import (
            DEFAULT_MODEL,
            load_catalogue,
            resolve_model,
        )
        from pytest_tokenbudget.texts.detokenizer import text_and_offsets

        spec = resolve_model(DEFAULT_MODEL, load_catalogue())
        tokenizer = Tokenizer.from_file(f"{spec.source}/tokenizer.json")
        special = tokenizer.encode("<think>so</think>4").ids
        spelled = [
            i for piece in ("<think", ">so</", "think>4") for i in tokenizer.encode(piece).ids
        ]

        def cut(ids):
            text, offsets = text_and_offsets(
                lambda some: tokenizer.decode(some, skip_special_tokens=False), ids
            )
            trace = Trace("p", 0, (1,), tuple(ids), StopReason.LENGTH, len(ids), text, offsets)
            assert text == "<think>so</think>4"
            return whole(trace, spec.thinking)

        assert (cut(special).thinking, cut(special).answer) == ("so", "4")
        assert cut(spelled).answer == "<think>so</think>4"


class TestChannels:
    def test_analysis_and_final(self):
        """The example of the published format, with the ids that it gives."""
        trace = make(*ANALYSIS, "Simple", ".", "<|end|>", *FINAL, "2 + 2 = ", "4", ".", EOS)
        cut = whole(trace, GPT_OSS)
        assert (cut.thinking, cut.answer) == ("Simple.", "2 + 2 = 4.")
        assert flags(cut) == {"opened", "closed"}
        assert counts(cut) == (11, 3)
        found = [trace.cut(b, GPT_OSS) for b in range(1, 15)]
        assert [b for b, c in enumerate(found, 1) if c.in_thinking] == [3, 4, 5]
        assert [c.answer for c in found[:11]] == [""] * 11

    def test_a_header_that_is_spelled_is_no_header(self):
        cut = whole(make(*ANALYSIS, "~<|channel|>", "final", "~<|message|>", "4"), GPT_OSS)
        assert (cut.in_thinking, cut.blocks.spelled) == (True, 1)

    def test_commentary_is_no_answer(self):
        commentary = [
            "<|start|>",
            "assistant",
            "<|channel|>",
            "commentary",
            "<|message|>",
            "I look",
        ]
        cut = whole(
            make(*ANALYSIS, "a", "<|end|>", *commentary, "<|end|>", *FINAL, "4", EOS), GPT_OSS
        )
        assert cut.answer == "4"
        # Any message ends with the tag that ends the analysis.
        assert flags(cut) == {"opened", "closed"}
        first = whole(make(*commentary[2:], "<|end|>", EOS), GPT_OSS)
        assert (first.answer, first.opened) == ("", False)

    def test_a_final_answer_without_analysis(self):
        cut = whole(make(*FINAL[2:], "4", EOS), GPT_OSS)
        assert (cut.answer, cut.opened) == ("4", False)

    def test_an_answer_in_json_has_another_header(self):
        header = ["<|channel|>", "final ", "<|constrain|>", "json", "<|message|>"]
        assert whole(make(*header, "{}", EOS), GPT_OSS).answer == "{}"

    def test_analysis_again_after_the_answer(self):
        pieces = [*FINAL[2:], "4", "<|end|>", "<|start|>", "assistant", *ANALYSIS, "b"]
        trace = make(*pieces, "<|end|>", *FINAL, "5", EOS)
        assert trace.cut(5, GPT_OSS).answer == "4"
        assert trace.cut(len(pieces), GPT_OSS).in_thinking
        assert whole(trace, GPT_OSS).answer == "5"

    def test_a_header_ends_analysis_that_was_not_closed(self):
        cut = whole(make(*ANALYSIS, "a", *FINAL[2:], "4", EOS), GPT_OSS)
        assert (cut.answer, flags(cut)) == ("4", {"opened", "closed"})

    def test_an_answer_after_a_closer_with_the_header(self):
        cut = whole(make("4", " apples", EOS), GPT_OSS)
        assert (cut.answer, counts(cut)) == ("4 apples", (0, 2))


PIECES = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "~<think>", "~</think>", "<thi", "nk>", "</th", "ink>", "a", "4",
         "", *ANALYSIS, *FINAL, "<|end|>"]
    ),
    max_size=14,
)  # fmt: skip
FORMS = st.sampled_from([THINK, BY_TEXT, MINIMAX, NESTED, GPT_OSS, ThinkingFormat()])


@given(PIECES, st.booleans(), st.booleans(), FORMS)
def test_every_cut_is_its_parts(pieces, ended, opened, form):
    trace = make(*(pieces or ["a"]), *([EOS] if ended else []), opened=opened)
    spans = parse_tags(trace.tags(form), trace.text, form, opened).open_at
    for budget in range(1, len(trace.output_ids) + 1):
        cut = trace.cut(budget, form)
        blocks = cut.blocks
        assert "".join(cut.text[s.start : s.end] for s in blocks.spans) == cut.text
        assert all(s.start < s.end for s in blocks.spans)
        used = trace.offsets[:budget]
        alone = parse(cut.text, form, opened, ids=trace.output_ids[:budget], offsets=used)
        assert alone == blocks
        assert cut.in_thinking == any(a <= len(cut.text) < b for a, b in spans)
        assert cut.in_thinking <= cut.opened
        assert not (cut.in_thinking and cut.answer)
        assert cut.reopened <= (cut.closed and cut.opened)
        at_end = ended and budget == len(trace.output_ids)
        assert cut.thinking_tokens + cut.answer_tokens == budget - at_end
        assert min(counts(cut)) >= 0
        if form.answer == ():
            assert cut.text.endswith(cut.answer)
        shown = "".join(
            cut.text[s.start : s.end] for s in blocks.spans if s.part is OutputPart.ANSWER
        )
        assert shown.endswith(cut.answer) or form.answer
        if not form.repeats:
            assert bool(cut.answer) <= bool(cut.answer_tokens)


class TestFormat:
    @pytest.mark.parametrize("name", builtin_formats())
    def test_comes_back_from_json(self, name):
        form = builtin_formats()[name].resolved({**TOKENS, **HARMONY})
        assert ThinkingFormat(**json.loads(json.dumps(asdict(form)))) == form

    @pytest.mark.parametrize("name", builtin_formats())
    def test_every_closer_leads_to_an_answer(self, name):
        form = builtin_formats()[name]
        assert [closer.name for closer in form.closers] == ["bare", "sentence", "s1"]
        for closer in form.closers:
            blocks = parse(f"so{closer.text} 4", form, opened_by_prompt=True)
            assert blocks.closed
            assert not blocks.left_open
            assert blocks.answer_start is not None
            assert not form.left_open(f"{form.open}so{closer.text}")

    def test_closers_by_name(self):
        assert THINK.closer() == THINK.closer("bare") == ("bare", "\n</think>\n\n")
        with pytest.raises(ValueError, match="no closer 'short'; there are bare, sentence, s1"):
            THINK.closer("short")
        assert ThinkingFormat("<a>", "</a>").closers == (("bare", "\n</a>\n\n"),)

    @pytest.mark.parametrize("tags", [("", "</a>"), ("<a>", "<a>"), ("<a>", "x<a>")])
    def test_tags_that_cannot_be_told_apart(self, tags):
        with pytest.raises(ValueError, match="told apart"):
            ThinkingFormat(*tags)

    @pytest.mark.parametrize(
        ("prompt", "opened"),
        [
            ("<|im_start|>assistant\n<think>\n", True),
            ("<|im_start|>assistant\n<think>\nOkay, ", True),
            ("]~b]ai\n<think>\n", True),
            ("<|im_start|>assistant\n", False),
            ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
            ("<|user|>What is <think>?<|assistant|>", False),
            ("[INST] What is <think>? [/INST]", False),
            ("<seed:bos>user\nWhat is <think>?<seed:eos>assistant", False),
            ("<|user|>What is </think>?<|assistant|><think>", True),
        ],
    )
    def test_whether_a_prompt_leaves_it_open(self, prompt, opened):
        assert THINK.left_open(prompt) is opened

    def test_of_several_tokens_only_those_in_the_tags_are_kept(self):
        form = builtin_formats()["gpt-oss"].resolved({**HARMONY, **TOKENS, "<|call|>": 200012})
        assert dict(form.ids) == {
            k: v for k, v in HARMONY.items() if k not in ("<|start|>", "<|constrain|>")
        }


TEMPLATES = {
    "qwen3": "<|im_start|>{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}",
    "deepseek-r1": "{% if add_generation_prompt %}<\uff5cAssistant\uff5c><think>{% endif %}",
    "glm-4": "[gMASK]<sop>{{ '<think></think>' if not enable_thinking else '' }}",
    "minimax-m2": "{% if add_generation_prompt %}{{ ']~b]ai\n<think>\n' }}{% endif %}",
    "gpt-oss": "<|channel|>analysis<|message|>a<|end|><|channel|>final<|message|>",
}


# The end of each family's template that begins an answer, and an output as the family writes it.
NEW = {
    "mistral": ("[/INST]{{ '[THINK]' }}", "[THINK]7 + 3[/THINK]#### 10"),
    "cohere": (
        "{% if add_generation_prompt %}<|START_THINKING|>{% if reasoning is false %}"
        "<|END_THINKING|>{% endif %}{% endif %}",
        "<|START_THINKING|>7 + 3<|END_THINKING|><|START_RESPONSE|>#### 10<|END_RESPONSE|>",
    ),
    "gemma-4": (
        "<|turn>system{% if enable_thinking %}<|think|>{% endif %}<turn|><|channel>thought",
        "<|channel>thought\n7 + 3<channel|>#### 10",
    ),
    "exaone-deep": ("[|assistant|]<thought>", "<thought>\n7 + 3</thought>#### 10"),
    "thinking": ("<thinking>", "<thinking>7 + 3</thinking>#### 10"),
    "minimax-m3": (
        "]~b]ai{% if thinking_mode %}<mm:think>{% endif %}",
        "<mm:think>7 + 3</mm:think>#### 10",
    ),
    "hunyuan-3": (
        "{% if add_generation_prompt %}<think:opensource>{% endif %}",
        "7 + 3</think:opensource>#### 10",
    ),
    "longcat": (
        "{% if enable_thinking %}<longcat_think>{% endif %}",
        "<longcat_think>7 + 3</longcat_think>#### 10",
    ),
    "kimi-k3": (
        "{% if add_generation_prompt %}<|open|>think<|sep|>{% endif %}",
        "7 + 3<|close|>think<|sep|><|open|>response<|sep|>#### 10",
    ),
    "solar-open": (
        "<|begin|>assistant<|think|>7<|end|><|begin|>assistant<|content|>",
        "<|think|>7 + 3<|end|><|begin|>assistant<|content|>#### 10",
    ),
    "apertus": (
        "{% if enable_thinking %}<|inner_prefix|>{% endif %}",
        "<|inner_prefix|>7 + 3<|inner_suffix|>#### 10",
    ),
    "apriel": (
        "[BEGIN FINAL RESPONSE]{{ messages[-1].content }}"
        "{% if add_generation_prompt %}Here are my reasoning steps:\n{% endif %}",
        "7 + 3\n[BEGIN FINAL RESPONSE]#### 10",
    ),
}


@pytest.mark.parametrize("name", NEW)
def test_formats_of_families_are_known_and_read(name):
    template, text = NEW[name]
    form = detect(template, ())
    known = builtin_formats()[name]
    assert (form.open, form.close, form.answer) == (known.open, known.close, known.answer)
    assert form.prompt_opens or name not in ("hunyuan-3", "kimi-k3", "apriel")
    assert form.switch == known.switch
    opened = known.open not in text
    found = parse(text, form, opened)
    assert text[found.answer_start : found.answer_end].startswith("#### 10")
    # Cut before the block is closed there is no answer.
    cut = parse(text[: text.index("3") + 1], form, opened)
    assert cut.answer_start is None


@pytest.mark.parametrize(
    ("template", "switch"),
    [
        ("<think>{% if enable_thinking %}a{% endif %}", "enable_thinking"),
        ("<think>{%- if not enable_thinking is defined %}{% set enable_thinking = true %}"
         "{% endif %}{% if enable_thinking %}a{% endif %}", "enable_thinking"),
        ("<think>{% set ns = namespace(enable_thinking = true) %}{% if '/no_think' in m %}"
         "{% set ns.enable_thinking = false %}{% endif %}{% if ns.enable_thinking %}a{% endif %}",
         None),
        ("<think>{% set enable_thinking = true %}{% if '/no_think' in m %}"
         "{% set enable_thinking = false %}{% endif %}{% if enable_thinking %}a{% endif %}", None),
        ("</think>{% if not thinking %}a{% endif %}", "thinking"),
    ],
)  # fmt: skip
def test_a_variable_that_the_template_sets_itself_is_no_switch(template, switch):
    assert detect(template, ()).switch == switch


def test_a_lone_close_tag_in_the_template_is_of_a_model_that_thinks():
    form = detect("{% if not thinking %}{{ '</think>' }}{% endif %}", ())
    assert (form.open, form.close) == ("<think>", "</think>")


@pytest.mark.parametrize(
    "header",
    [
        "<|channel|>final<|message|>",
        "<|channel|>final <|constrain|>json<|message|>",
        "<|channel|>final <|constrain|> json <|message|>",
        "<|channel|>final<|constrain|>yaml<|message|>",
    ],
)
def test_a_final_header_may_name_the_kind_of_content(header):
    text = f"<|channel|>analysis<|message|>7<|end|><|start|>assistant{header}#### 10"
    found = parse(text, builtin_formats()["gpt-oss"])
    assert text[found.answer_start : found.answer_end] == "#### 10"


class TestDetection:
    @pytest.mark.parametrize("name", TEMPLATES)
    def test_families_are_known_by_their_templates(self, name):
        assert detect(TEMPLATES[name], ()) == builtin_formats()[name]

    @pytest.mark.parametrize(
        ("end", "opens"),
        [
            ("{{ '<think>\\n' }}", True),
            ("{{ '</think>' if not enable_thinking else '<think>' }}", True),
            ("{{ '\\n<think></think>' if not enable_thinking else '' }}", False),
            ("{{ '<think>\\n\\n</think>\\n\\n' }}", False),
            ("{{ '<think>\n\n</think>\n\n' }}", False),
        ],
    )
    def test_whether_the_template_opens_the_block(self, end, opens):
        begin = "<think>{{ messages[-1].content }}{% if add_generation_prompt %}"
        template = begin + end + "{% endif %}"
        assert detect(template, ()).prompt_opens is opens

    @pytest.mark.parametrize(
        ("file", "name"),
        [*((n, n) for n in [*TEMPLATES, "seed-oss"] if n != "glm-4"), ("glm-4.5", "glm-4")],
    )
    def test_packaged_templates_are_recognised(self, file, name):
        path = Path(__file__).parents[2] / "fixtures" / "templates" / f"{file}.jinja"
        assert detect(path.read_text(encoding="utf-8"), ()) == builtin_formats()[name]

    def test_comments_of_a_template_say_nothing(self):
        assert detect("{# no enable_thinking,\nno <think> #}{{ messages }}", ()) is None

    def test_a_model_that_does_not_think(self):
        assert detect("<|im_start|>{{ messages }}", ["<|im_end|>"]) is None


def test_every_format_is_in_the_guide_as_it_is():
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.-]+)` \| `(.*?)` `(.*?)` \| (.*?) \| (.*?) \|$", guide, re.M)
    assert [row[0] for row in rows] == list(builtin_formats())
    for name, opening, closing, begins, switch in rows:
        form = builtin_formats()[name]
        assert (opening.replace("\\|", "|"), closing.replace("\\|", "|")) == (form.open, form.close)
        assert begins == ("the prompt" if form.prompt_opens else "the model")
        assert switch == (f"`{form.switch}`" if form.switch else "no")
    for closer in builtin_formats()["think"].closers:
        assert f"`{closer.name}`" in guide
