"""Context windows over ids and messages: what is kept, what is lost, what room is left."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from window_chats import (
    NAMES,
    Prompt,
    bos_id,
    chat,
    conversation,
    decode,
    encode,
    renderer,
    say,
    tokenizer,
)

from pytest_tokenbudget.context.chat import complement, dropped_ranges, merged
from pytest_tokenbudget.context.window import (
    Chat,
    ContextError,
    ContextWindow,
    Conversation,
    generation_cap,
    generation_room,
    prompt_room,
)
from pytest_tokenbudget.context.window_strategies import (
    KeepEnds,
    KeepFirst,
    KeepNewest,
    SystemNewest,
)
from pytest_tokenbudget.core.engine import Request
from pytest_tokenbudget.engines.rows import impossible

IDS = st.lists(st.integers(0, 9), max_size=40)
LIMITS = st.integers(0, 45)
TOKEN_STRATEGIES = st.one_of(
    st.just(KeepNewest()), st.just(KeepFirst()), st.floats(0, 1).map(KeepEnds)
)


class TestFormulas:
    @pytest.mark.parametrize(
        ("context", "max_new", "room"),
        [
            (4096, None, 3584),
            (4096, 0, 3584),
            (4096, 100, 3996),
            (4096, 64, 4032),
            (4096, 10, 4032),
            (4096, 3000, 2458),
            (1280, None, 768),
            (1279, None, 768),
            (160, None, 96),
            (159, None, 95),
            (66, None, 2),
            (65, None, 1),
            (64, None, 1),
            (1, None, 1),
        ],
    )
    def test_prompt_room(self, context, max_new, room):
        assert prompt_room(context, max_new) == room

    @given(st.integers(1, 10**7), st.none() | st.integers(0, 10**7))
    def test_prompt_room_is_the_formula(self, context, max_new):
        reserve = max(64, min(max_new or 512, math.floor(0.4 * context)))
        assert prompt_room(context, max_new) == max(1, context - reserve)

    @given(st.integers(66, 10**6), st.integers(1, 10**6))
    def test_a_prompt_that_has_its_room_leaves_some(self, context, max_new):
        assert generation_cap(context, prompt_room(context, max_new), max_new) >= 1

    @pytest.mark.parametrize(
        ("context", "used", "max_new", "cap"),
        [
            (100, 50, 20, 20),
            (100, 50, 49, 49),
            (100, 50, 50, 50),
            (100, 50, 51, 50),
            (100, 99, 50, 1),
            (1, 0, 9, 1),
        ],
    )
    def test_generation_cap(self, context, used, max_new, cap):
        assert generation_cap(context, used, max_new) == cap

    @given(st.integers(2, 4096), st.data())
    def test_engines_allow_exactly_the_room(self, context, data):
        used = data.draw(st.integers(1, context - 1))
        room = generation_room(context, used)
        most = Request(key="a", prompt_ids=(1,) * used, cap=room)
        assert impossible(most, "m", context) is None
        with pytest.raises(ValueError, match="more than the context"):
            impossible(replace(most, cap=room + 1), "m", context)

    @pytest.mark.parametrize("used", [100, 101, 5000])
    def test_no_room_for_a_new_token(self, used):
        with pytest.raises(ContextError, match=r"no room is left.*99 tokens at most"):
            generation_cap(100, used, 20)

    def test_what_is_no_size(self):
        with pytest.raises(ContextError, match="at least one new token"):
            generation_cap(100, 10, 0)
        with pytest.raises(ContextError, match="cannot be negative"):
            prompt_room(100, -1)
        with pytest.raises(ContextError, match="at least 1"):
            prompt_room(0)


class TestOfIds:
    def test_newest(self):
        window = ContextWindow.of_ids(range(10), limit=4, strategy=KeepNewest(), bos_id=0)
        assert window.ids == (6, 7, 8, 9)
        assert window.original_length == 10
        assert window.dropped.ranges == ((0, 6),)
        assert window.dropped.tokens == 6
        assert window.kept == ((6, 10),)
        assert window.bos_whole is False
        assert window.truncated
        assert window.text is None
        assert window.room is None

    def test_first(self):
        window = ContextWindow.of_ids(range(10), limit=4, strategy=KeepFirst(), bos_id=0)
        assert window.ids == (0, 1, 2, 3)
        assert window.dropped.ranges == ((4, 10),)
        assert window.bos_whole is True

    @pytest.mark.parametrize(
        ("share", "kept"),
        [(0.5, ((0, 2), (8, 10))), (0.25, ((0, 1), (7, 10))), (0, ((6, 10),)), (1, ((0, 4),))],
    )
    def test_both_ends(self, share, kept):
        assert ContextWindow.of_ids(range(10), limit=4, strategy=KeepEnds(share)).kept == kept

    @pytest.mark.parametrize("limit", [0, 10, 11])
    def test_all_of_it(self, limit):
        window = ContextWindow.of_ids(range(10), limit=limit, strategy=KeepFirst(), context=20)
        assert window.ids == tuple(range(10))
        assert not window.truncated
        assert window.dropped.ranges == ()
        assert window.room == 10

    def test_bos_that_was_not_there(self):
        assert ContextWindow.of_ids([1, 2], limit=0, strategy=KeepNewest()).bos_whole is None
        window = ContextWindow.of_ids([1, 2], limit=0, strategy=KeepNewest(), bos_id=7)
        assert window.bos_whole is None

    def test_text(self):
        ids = encode("One two three.")
        window = ContextWindow.of_ids(ids, limit=2, strategy=KeepNewest(), decode=decode)
        assert window.text == decode(ids[-2:])

    def test_no_room_for_a_new_token(self):
        strategy = KeepNewest()
        assert ContextWindow.of_ids(range(8), limit=0, strategy=strategy, context=10).room == 2
        assert ContextWindow.of_ids(range(9), limit=0, strategy=strategy, context=10).room == 1
        with pytest.raises(ContextError, match="no room is left"):
            ContextWindow.of_ids(range(10), limit=0, strategy=strategy, context=10)
        assert ContextWindow.of_ids(range(9), limit=8, strategy=strategy, context=10).room == 2
        with pytest.raises(ContextError, match="no room is left"):
            ContextWindow.of_ids(range(50), limit=10, strategy=strategy, context=10)

    def test_negative_limit(self):
        with pytest.raises(ContextError, match="0 \\(no truncation\\)"):
            ContextWindow.of_ids(range(8), limit=-1, strategy=KeepNewest())

    @given(IDS, LIMITS)
    def test_newest_is_what_it_always_was(self, ids, limit):
        window = ContextWindow.of_ids(ids, limit=limit, strategy=KeepNewest())
        assert list(window.ids) == (ids if limit == 0 else ids[-limit:])

    @given(IDS, LIMITS, TOKEN_STRATEGIES)
    def test_kept_and_dropped_are_all(self, ids, limit, strategy):
        window = ContextWindow.of_ids(ids, limit=limit, strategy=strategy, bos_id=3)
        assert len(window.ids) == (min(limit, len(ids)) if limit else len(ids))
        assert window.ids == tuple(ids[i] for start, end in window.kept for i in range(start, end))
        places = [i for each in (*window.kept, *window.dropped.ranges) for i in range(*each)]
        assert sorted(places) == list(range(len(ids)))
        assert window.dropped.tokens == len(ids) - len(window.ids)
        assert window.added == 0


class TestOfMessages:
    MESSAGES = say("I sold Anna buttons.", "Noted.", "What did I sell Anna?", system="Be brief.")

    def window(self, limit, strategy=None, **options):
        strategy = strategy or KeepNewest()
        return ContextWindow.of_messages(
            self.MESSAGES, chat(), limit=limit, strategy=strategy, **options
        )

    def test_no_truncation(self):
        window = self.window(0, context=200)
        assert window.ids == renderer()(self.MESSAGES).ids
        assert window.text == renderer()(self.MESSAGES).text
        assert list(window.messages) == self.MESSAGES
        assert window.system_whole
        assert window.question_whole
        assert not window.truncated
        assert window.room == 200 - len(window.ids)

    def test_every_limit_says_what_is_lost(self):
        whole = self.window(0)
        contents = [message["content"] for message in self.MESSAGES]
        seen = set()
        for limit in range(1, len(whole.ids)):
            window = self.window(limit)
            assert window.ids == whole.ids[-limit:]
            assert window.text == decode(whole.ids[-limit:])
            gone, cut = window.dropped.messages, window.dropped.shortened
            # The text that is left is the judge: every content that is all there is not lost.
            left = [i for i, each in enumerate(contents) if each in window.text]
            assert left == [i for i in range(4) if i not in gone and i not in cut]
            assert window.system_whole is (0 in left)
            assert window.question_whole is (3 in left)
            assert window.messages == ()
            assert len(cut) <= 1
            seen.add((gone, cut))
        assert {((), (0,)), ((0,), ()), ((0, 1), (2,)), ((0, 1, 2), (3,))} <= seen

    def test_first_loses_the_question(self):
        window = self.window(20, KeepFirst())
        assert window.system_whole
        assert not window.question_whole

    def test_both_ends_lose_the_middle(self):
        length = len(self.window(0).ids)
        window = self.window(length - 3, KeepEnds())
        assert window.system_whole
        assert window.question_whole
        assert len(window.dropped.ranges) == 1
        assert window.dropped.tokens == 3

    @pytest.mark.parametrize("name", NAMES)
    def test_where_messages_stand_in_every_template(self, name):
        for seed in range(40):
            whole = Conversation(conversation(seed), chat(name))
            ids = whole.whole.ids
            if not whole.layout.places:
                pytest.fail(f"the places of {whole.messages} cannot be told")
            for index, place in whole.layout.places.items():
                content = whole.messages[index]["content"]
                assert place.skipped is not None
                said = whole.whole.text[place.start : place.end]
                assert content[place.skipped :].startswith(said)
                tokens = whole.layout.tokens(index, 0, len(content))
                # Of a token that is shared with what stands beside it, more may be there.
                around = decode(ids[slice(*tokens)])
                assert said in around
                assert len(around) <= len(said) + 4

    def test_a_message_that_the_template_leaves_out(self):
        messages = [{"role": "system", "content": "One."}, *self.MESSAGES]
        window = ContextWindow.of_messages(
            messages, chat("minimax-m2"), limit=30, strategy=KeepFirst()
        )
        assert window.system_whole is None
        assert window.question_whole is False

    def test_begin_of_sequence(self):
        # Of these templates only this one writes it.
        strategy = KeepNewest()
        for name, there in (("deepseek-r1", False), ("qwen3", None)):
            window = ContextWindow.of_messages(
                self.MESSAGES, chat(name), limit=10, strategy=strategy
            )
            assert window.bos_whole is there
        window = ContextWindow.of_messages(
            self.MESSAGES, chat("deepseek-r1"), limit=32, strategy=SystemNewest()
        )
        assert window.truncated
        assert window.bos_whole is True
        assert window.ids[0] == bos_id()

    def test_a_template_that_leaves_out_earlier_thoughts(self):
        thought = "<think>\nLong ago.\n</think>\n\nNoted."
        messages = say("One.", thought, "Two?", system="Be brief.")
        window = ContextWindow.of_messages(messages, chat(), limit=0, strategy=KeepNewest())
        assert "Long ago" not in window.text
        cut = ContextWindow.of_messages(
            messages, chat(), limit=len(window.ids) - 1, strategy=KeepNewest()
        )
        assert cut.dropped.messages == cut.dropped.shortened == ()

    def test_a_template_that_writes_around_contents_what_it_likes(self):
        def counting(messages):
            text = "".join(f"{len(each['content'])}|{each['content']}|" for each in messages)
            return Prompt(encode(text), text)

        window = ContextWindow.of_messages(
            self.MESSAGES, Chat(counting, decode), limit=10, strategy=KeepNewest()
        )
        assert window.dropped.tokens > 0
        assert window.system_whole is None
        assert window.question_whole is None

    def test_a_tokenizer_that_does_not_keep_its_text(self):
        def render(messages):
            prompt = renderer()(messages)
            return Prompt(encode(prompt.text.upper()), prompt.text)

        messages = say("ONE.", "Two.", "THREE?", system="FOUR.")
        window = ContextWindow.of_messages(
            messages, Chat(render, decode), limit=80, strategy=KeepNewest()
        )
        assert window.system_whole is False
        assert window.question_whole is True

    def test_no_room_for_a_new_token(self):
        length = len(self.window(0).ids)
        assert self.window(0, context=length + 1).room == 1
        with pytest.raises(ContextError, match="no room is left"):
            self.window(0, context=length)

    def test_no_messages(self):
        with pytest.raises(ContextError, match="without messages"):
            ContextWindow.of_messages([], chat(), limit=0, strategy=KeepNewest())

    def test_renderings_are_shared(self):
        asked = []

        def render(messages):
            asked.append(messages)
            return renderer()(messages)

        here = Chat(render, decode)
        for limit in (20, 25, 30, 20):
            ContextWindow.of_messages(self.MESSAGES, here, limit=limit, strategy=KeepNewest())
        # The whole, and the template without contents.
        assert len(asked) == 2


def test_the_tests_encode_as_the_tokenizer_does():
    for name in NAMES:
        for seed in range(20):
            prompt = renderer(name)(conversation(seed))
            assert list(prompt.ids) == tokenizer().encode(prompt.text).ids


class TestRanges:
    @given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.booleans(), max_size=30))
    def test_what_is_left_comes_again(self, ids, flags):
        """Whatever is taken out of whatever ids, without a hint where."""
        kept = tuple(i for i, stays in zip(ids, [*flags, *[True] * 30], strict=False) if stays)
        ranges = dropped_ranges(tuple(ids), kept, [])
        rest = iter(kept)
        left = [ids[i] for start, end in complement(ranges, len(ids)) for i in range(start, end)]
        assert all(each in rest for each in left)

    def test_with_anchors_it_is_exact(self):
        original, kept = (1, 7, 2, 7, 3, 7, 4, 9), (1, 7, 3, 7, 9)
        assert dropped_ranges(original, kept, [(0, 1), (4, 5)]) == ((2, 4), (6, 7))
        # An anchor whose first token has changed is found by the others.
        assert dropped_ranges((1, 2, 3, 4, 5), (8, 4, 5), [(2, 5)]) == ((0, 3),)

    def test_merged(self):
        assert merged([(3, 5), (0, 1), (1, 2), (4, 4), (4, 8)]) == ((0, 2), (3, 8))


def test_windows_need_nothing_heavy():
    code = (
        "import sys\n"
        "import pytest_tokenbudget.context.window, pytest_tokenbudget.context.window_summary\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'numpy', 'bm25s', 'pytest',"
        " 'pytest_tokenbudget.engines', 'pytest_tokenbudget.tasks'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
