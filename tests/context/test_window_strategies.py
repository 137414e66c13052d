"""Which turns, passages and sentences a strategy keeps, and what it says where they do not fit."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from window_chats import chat, conversation, decode, encode, say

from pytest_tokenbudget.context.conversation import passages, relevance, words
from pytest_tokenbudget.context.window import ContextError, ContextWindow, Conversation
from pytest_tokenbudget.context.window_strategies import (
    STRATEGIES,
    Importance,
    KeepEnds,
    KeepNewest,
    Sentences,
    SystemFirstNewest,
    SystemNewest,
)
from pytest_tokenbudget.context.window_summary import INTRODUCTION, Summary, named_strategy
from pytest_tokenbudget.tasks import recall

SYSTEM = "You remember what you are told."
FACTS = (
    "I sold Anna buttons.",
    "I gave Ben cats.",
    "I knitted Carla red socks.",
    "The river was quiet.",
)
QUESTION = "Which colour of socks did I knit Carla?"
MESSAGES = say(*(each for fact in FACTS for each in (fact, "Noted.")), QUESTION, system=SYSTEM)


def size(messages) -> int:
    return len(chat().render(messages).ids)


def without(*gone: int):
    return [message for i, message in enumerate(MESSAGES) if i not in gone]


def window(strategy, limit, messages=MESSAGES, name="nano-reasoner"):
    return ContextWindow.of_messages(messages, chat(name), limit=limit, strategy=strategy)


class TestTurns:
    def test_system_and_newest(self):
        kept = without(1, 2, 3, 4)
        for limit in (size(kept), size(kept) + 1, size(without(1, 2)) - 1):
            made = window(SystemNewest(), limit)
            assert list(made.messages) == kept
            assert made.ids == chat().render(kept).ids
            assert made.text == chat().render(kept).text
            assert made.dropped.messages == (1, 2, 3, 4)
            assert made.dropped.shortened == ()
            assert made.dropped.tokens == size(MESSAGES) - size(kept)
            assert made.added == 0
            assert made.system_whole
            assert made.question_whole

    def test_one_token_less_drops_one_turn_more(self):
        made = window(SystemNewest(), size(without(1, 2, 3, 4)) - 1)
        assert made.dropped.messages == (1, 2, 3, 4, 5, 6)

    def test_first_turn_stays(self):
        kept = without(3, 4, 5, 6)
        made = window(SystemFirstNewest(), size(kept))
        assert list(made.messages) == kept
        assert made.dropped.messages == (3, 4, 5, 6)
        assert made.dropped.tokens == size(MESSAGES) - size(kept)
        assert made.strategy == "system-first-newest"

    def test_all_of_it(self):
        for name in STRATEGIES:
            for limit in (0, size(MESSAGES)):
                made = window(named_strategy(name), limit)
                assert not made.truncated
                assert list(made.messages) == MESSAGES

    def test_what_must_stay_does_not_fit(self):
        least = size([MESSAGES[0], MESSAGES[-1]])
        assert len(window(SystemNewest(), least).ids) == least
        with pytest.raises(ContextError, match=f"need {least} tokens.*limit is {least - 1}"):
            window(SystemNewest(), least - 1)
        with pytest.raises(ContextError, match="the first turn, and the newest turn need"):
            window(SystemFirstNewest(), least)

    def test_answers_go_with_what_they_answer(self):
        messages = [*say("One.", "Two."), {"role": "assistant", "content": "Three."}, *say("Four?")]
        made = window(SystemNewest(), size(messages) - 1, messages)
        assert [message["content"] for message in made.messages] == ["Four?"]

    def test_an_answer_at_the_beginning(self):
        messages = [{"role": "assistant", "content": "Hello, who are you?"}, *say("Ben.", "Hi.")]
        conversation = Conversation(messages, chat())
        assert [len(unit) for unit in conversation.units] == [1]
        made = SystemNewest().window(conversation, size(messages[1:]))
        assert list(made.messages) == messages[1:]
        assert made.system_whole is None

    def test_no_user_at_all(self):
        messages = [{"role": "assistant", "content": each} for each in ("One.", "Two.")]
        made = window(SystemNewest(), size(messages) - 1, messages)
        assert list(made.messages) == messages[1:]
        assert made.question_whole is None
        only_system = MESSAGES[:1]
        assert list(window(SystemNewest(), 0, only_system).messages) == only_system
        with pytest.raises(ContextError, match="system prompt"):
            window(SystemNewest(), 5, only_system)

    def test_ranges_are_where_the_messages_were(self):
        """With a template whose signs differ by role, which no shift of a range hides."""
        for name in ("deepseek-r1", "qwen3"):
            limit = len(chat(name).render(MESSAGES).ids) - 20
            made = window(SystemFirstNewest(), limit, name=name)
            gone = [MESSAGES[i]["content"] for i in made.dropped.messages]
            assert gone
            ids = chat(name).render(MESSAGES).ids
            text = "".join(decode(ids[slice(*each)]) for each in made.dropped.ranges)
            assert all(each in text for each in gone)
            assert not any(
                message["content"] in text
                for message in made.messages
                if (message["content"] not in gone)
            )

    @given(st.integers(0, 300), st.sampled_from([SystemNewest(), SystemFirstNewest()]))
    def test_no_turn_that_would_have_fitted_is_left_out(self, seed, strategy):
        whole = Conversation(conversation(seed), chat())
        limit = random.Random(seed).randrange(1, len(whole.whole.ids) + 1)
        try:
            made = strategy.window(whole, limit)
        except ContextError:
            return
        if made.truncated:
            gone = made.dropped.messages[-1]
            unit = next(each for each in whole.units if each[-1].message == gone)
            kept = [whole.piece(i) for i in range(len(whole.messages))]
            kept = [each for each in kept if each.message not in made.dropped.messages]
            assert len(chat().render(whole.compose([*kept, *unit])).ids) > limit


class TestSentences:
    LONG = say(
        "One cat came. Two dogs came. Three cows came.",
        "I see them. They are nice.",
        "How many dogs?",
        system=SYSTEM,
    )

    def contents(self, limit, messages=None):
        made = window(Sentences(), limit, messages or self.LONG)
        return [message["content"] for message in made.messages], made

    def test_the_oldest_sentences_go_first(self):
        seen = []
        for limit in range(size(self.LONG), size([self.LONG[0], self.LONG[-1]]) - 1, -1):
            contents, made = self.contents(limit)
            assert made.added >= 0
            if contents not in seen:
                seen.append(contents)
        last = "How many dogs?"
        assert seen == [
            [SYSTEM, *(message["content"] for message in self.LONG[1:])],
            [SYSTEM, "Two dogs came. Three cows came.", "I see them. They are nice.", last],
            [SYSTEM, "Three cows came.", "I see them. They are nice.", last],
            [SYSTEM, "Three cows came.", "They are nice.", last],
            [SYSTEM, last],
        ]

    def test_what_is_reported(self):
        _, made = self.contents(size(self.LONG) - 1)
        assert made.dropped.shortened == (1,)
        assert made.dropped.messages == ()
        assert made.system_whole
        assert made.question_whole
        text = chat().render(self.LONG)
        (gone,) = made.dropped.ranges
        assert decode(text.ids[slice(*gone)]).strip() in "One cat came. Two"

    def test_a_newest_turn_that_does_not_fit(self):
        messages = say("It was cold. It was wet. How was it?", system=SYSTEM)
        contents, made = self.contents(size(messages) - 1, messages)
        assert contents == [SYSTEM, "It was wet. How was it?"]
        assert made.question_whole is False
        with pytest.raises(ContextError, match="one sentence of each message"):
            window(Sentences(), 20, messages)


class TestImportance:
    def test_what_the_question_asks_for_stays(self):
        limit = size(without(1, 2, 3, 4, 7, 8))
        made = window(Importance(), limit)
        assert made.dropped.messages == (1, 2, 3, 4, 7, 8)
        assert "red socks" in made.text
        # Where the newest are what is kept, it is lost.
        assert "red socks" not in window(SystemNewest(), limit).text

    def test_of_equals_the_newest(self):
        messages = say("Aa.", "Noted.", "Bb.", "Noted.", "Cc.", "Noted.", "Dd?")
        made = window(Importance(), size(messages) - 1, messages)
        assert made.dropped.messages == (0, 1)

    def test_a_turn_that_is_too_long_is_passed_over(self):
        long = "Socks, socks and socks for Carla. " + "The weather was very long today. " * 8
        messages = say(long, "Noted.", *(each["content"] for each in MESSAGES[1:]))
        made = window(Importance(), size(MESSAGES[1:]) - 20, messages)
        assert made.dropped.messages[:2] == (0, 1)
        assert "red socks" in made.text

    def test_what_must_stay_does_not_fit(self):
        with pytest.raises(ContextError, match="strategy importance"):
            window(Importance(), 10)

    @given(st.integers(0, 300))
    def test_no_turn_that_would_have_fitted_is_left_out(self, seed):
        rng = random.Random(seed)
        messages = recall.make_conversation(rng, recall.distinct_lookups(rng, 3), 6)
        messages.append({"role": "user", "content": "Which animals did I give Ben?"})
        whole = Conversation(messages, chat())
        limit = rng.randrange(60, len(whole.whole.ids))
        made = Importance().window(whole, limit)
        kept = [whole.piece(i) for i in range(len(messages)) if i not in made.dropped.messages]
        for unit in whole.units:
            if unit[0].message in made.dropped.messages:
                assert len(chat().render(whole.compose([*kept, *unit])).ids) > limit

    def test_scores(self):
        scores = relevance(("red socks", "", "blue hats", "red hats"), "Red SOCKS?")
        assert scores[0] > scores[3] > 0
        assert scores[1] == scores[2] == 0
        assert relevance((), "red") == ()
        assert relevance(("", " "), "red") == (0, 0)
        assert relevance(("red",), "") == (0,)

    def test_words_of_the_east_are_signs(self):
        assert words("Rote Socken, 红袜子!") == ["rote", "socken", "红", "袜", "子"]


class TestSummary:
    def summary(self, text="Carla has red socks.", share=0.25):
        self.asked = []

        def summarise(request):
            self.asked.append(request)
            return text

        return Summary(summarise, share)

    def test_stands_in_for_what_is_gone(self):
        made = window(self.summary(share=0.4), 100)
        (request,) = self.asked
        assert request.messages == tuple(MESSAGES[i] for i in made.dropped.messages)
        assert made.summary == "Carla has red socks."
        first, *others = made.messages
        assert first["content"] == f"{SYSTEM}\n\n{INTRODUCTION}{made.summary}"
        assert others == without(0, *made.dropped.messages)
        assert made.system_whole
        assert made.question_whole
        assert made.added > 0
        assert len(made.ids) <= 100
        assert made.ids == chat().render(made.messages).ids

    def test_is_not_asked_where_all_fits(self):
        assert not window(self.summary(), size(MESSAGES)).truncated
        assert self.asked == []

    def test_can_be_asked_for_before(self):
        strategy = self.summary(share=0.4)
        whole = Conversation(MESSAGES, chat())
        request = strategy.request(whole, 100)
        strategy.window(whole, 100)
        assert self.asked == [request]
        assert strategy.request(whole, 0) is None

    def test_as_long_as_was_asked_for_is_not_cut(self):
        strategy = self.summary()
        request = strategy.request(Conversation(MESSAGES, chat()), 110)
        text = decode(encode("red socks and " * 50)[: request.tokens - 2]).strip()
        strategy = self.summary(text)
        assert window(strategy, 110).summary == text

    def test_too_long_a_one_loses_its_end(self):
        long = " ".join(f"Number {i} came." for i in range(50))
        made = window(self.summary(long, 0.4), 100)
        assert long.startswith(made.summary)
        assert made.summary.endswith("came.")
        # One more sentence would not have fitted.
        more = long[: long.index("came.", len(made.summary)) + 5]
        first = {**made.messages[0], "content": f"{SYSTEM}\n\n{INTRODUCTION}{more}"}
        assert size([first, *made.messages[1:]]) > 100

    def test_a_single_sentence_loses_words(self):
        made = window(self.summary("and so on " * 60, 0.4), 100)
        assert made.summary.split()[:3] == ["and", "so", "on"]
        assert made.messages[0]["content"].endswith(made.summary)

    @pytest.mark.parametrize("text", ["", " \n"])
    def test_an_empty_one(self, text):
        made = window(self.summary(text), 100)
        assert made.summary == ""
        assert made.messages[0] == MESSAGES[0]

    def test_without_a_system_prompt(self):
        made = window(self.summary(share=0.4), 90, MESSAGES[1:])
        assert made.messages[0]["role"] == "user"
        assert made.messages[0]["content"].startswith(f"{INTRODUCTION}Carla has red socks.\n\n")

    def test_where_nothing_but_what_must_stay_fits(self):
        least = size([MESSAGES[0], MESSAGES[-1]])
        made = window(self.summary(), least)
        assert self.asked == []
        assert len(made.messages) == 2
        with pytest.raises(ContextError, match=r"strategy summary: .* need"):
            window(self.summary(), least - 1)


class TestDocument:
    PARTS = (
        "Anna lives in Rome. She has two cats.\n\n",
        "The river was quiet this week. The market is full of people.\n\n",
        "Carla wears red socks. She likes the music.\n\n",
        "The train was late again.",
    )
    DOCUMENT = "".join(PARTS)

    def window(self, strategy, limit, **options):
        return ContextWindow.of_document(
            self.DOCUMENT, QUESTION, chat(), limit=limit, strategy=strategy, **options
        )

    def length(self, *parts, system=SYSTEM):
        content = f"{''.join(parts)}\n\n{QUESTION}"
        return size(say(content, system=system))

    def test_all_of_it(self):
        made = self.window(SystemNewest(), 0, system=SYSTEM)
        assert made.messages[1]["content"] == f"{self.DOCUMENT}\n\n{QUESTION}"
        assert not made.truncated

    @pytest.mark.parametrize(
        ("strategy", "kept"),
        [
            (SystemNewest(), (2, 3)),
            (SystemFirstNewest(), (0, 3)),
            (Importance(), (2, 3)),
            (Sentences(), (2, 3)),
        ],
    )
    def test_passages_take_the_place_of_turns(self, strategy, kept):
        parts = [self.PARTS[i] for i in kept]
        made = self.window(strategy, self.length(*parts), system=SYSTEM)
        assert made.messages[1]["content"] == f"{''.join(parts)}\n\n{QUESTION}"
        assert made.dropped.shortened == (1,)
        assert made.dropped.messages == ()
        assert made.system_whole
        assert made.question_whole

    def test_the_oldest_passage_loses_sentences(self):
        text = "She likes the music.\n\n"
        made = self.window(Sentences(), self.length(text, self.PARTS[3]), system=SYSTEM)
        assert made.messages[1]["content"] == f"{text}{self.PARTS[3]}\n\n{QUESTION}"

    def test_importance(self):
        made = self.window(Importance(), self.length(self.PARTS[2]), system=SYSTEM)
        assert made.messages[1]["content"] == f"{self.PARTS[2]}\n\n{QUESTION}"

    def test_tokens(self):
        made = self.window(KeepNewest(), 30, system=SYSTEM)
        assert made.question_whole
        assert made.system_whole is False
        assert made.dropped.shortened == (1,)
        assert not self.window(KeepNewest(), 10).question_whole
        assert self.window(KeepEnds(0.8), 80, system=SYSTEM).system_whole

    def test_summary(self):
        made = self.window(Summary(lambda request: "Socks."), 90, system=SYSTEM)
        assert made.summary == "Socks."
        assert made.question_whole

    def test_layout(self):
        layout = "{question}\n<text>{document}</text>"
        made = self.window(SystemNewest(), self.length(*self.PARTS[2:]), layout=layout)
        (message,) = made.messages
        assert message["content"].startswith(f"{QUESTION}\n<text>")
        assert message["content"].endswith("late again.</text>")
        for wrong in ("{document}", "{question}", "{document}{document}{question}"):
            with pytest.raises(ContextError, match="layout"):
                self.window(SystemNewest(), 50, layout=wrong)

    def test_signs_of_the_layout_in_the_texts_are_text(self):
        made = ContextWindow.of_document(
            "A {question} here.", "What is {document}?", chat(), limit=0, strategy=KeepNewest()
        )
        assert made.messages[0]["content"] == "A {question} here.\n\nWhat is {document}?"

    @given(st.text("ab. \n", max_size=200))
    def test_passages_are_all_of_it(self, document):
        spans = passages(document)
        assert "".join(document[start:end] for start, end in spans) == document

    def test_long_paragraphs_are_divided(self):
        spans = passages("The train was late again. " * 100)
        assert len(spans) > 2
        assert all(400 < end - start <= 800 for start, end in spans[:-1])

    @given(st.integers(0, 200), st.sampled_from(sorted(STRATEGIES)))
    def test_never_too_long(self, seed, name):
        rng = random.Random(seed)
        text = "".join(recall.filler(rng) + rng.choice([" ", "\n\n"]) for _ in range(8))
        whole = Conversation.of_document(text, QUESTION, chat(), system=SYSTEM)
        limit = rng.randrange(60, len(whole.whole.ids) + 2)
        first = whole.chat.render(whole.compose([*whole.system, *whole.units[0], *whole.newest]))
        if name == "system-first-newest" and len(first.ids) > limit:
            with pytest.raises(ContextError, match="the first turn, and the newest turn need"):
                named_strategy(name).window(whole, limit)
        else:
            assert len(named_strategy(name).window(whole, limit).ids) <= limit


class TestNames:
    @pytest.mark.parametrize("name", [*STRATEGIES, "summary", "ends=0.25", "summary=0.1"])
    def test_name_is_kept(self, name):
        assert named_strategy(name, lambda request: "").name == name

    def test_usual_shares_are_not_shown(self):
        assert named_strategy("ends=0.5").name == "ends"
        assert named_strategy("summary=0.25", lambda request: "").name == "summary"

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("newst", "is not known; allowed are newest, first, ends"),
            ("newest=0.2", "has no share"),
            ("ends=half", "'half' is no number"),
            ("ends=1.5", "share 1.5 is not between 0 and 1"),
            ("ends=nan", "share nan is not between"),
            ("summary", "nothing was given that writes summaries"),
        ],
    )
    def test_wrong_names(self, name, words):
        with pytest.raises(ContextError, match=words):
            named_strategy(name)
