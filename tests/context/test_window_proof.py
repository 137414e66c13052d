"""No window is longer than its limit: a thousand conversations, every template and strategy."""

from __future__ import annotations

import random

import pytest
from window_chats import NAMES, chat, conversation

from pytest_tokenbudget.context.window import ContextError, Conversation
from pytest_tokenbudget.context.window_strategies import STRATEGIES
from pytest_tokenbudget.context.window_summary import Summary

pytestmark = pytest.mark.slow

# Five templates with all of the conversations; the others are so like them that a few will do.
CONVERSATIONS = {name: 1000 if number < 5 else 100 for number, name in enumerate(NAMES)}
TOKENS = "newest", "first", "ends"


def summarise(request):
    """A summary that is at times far too long, and at times empty."""
    said = " ".join(message["content"] for message in request.messages)
    return said * (len(said) % 3)


def all_strategies():
    return [*(make() for make in STRATEGIES.values()), Summary(summarise)]


def tokens_of(whole, pieces) -> int:
    return len(whole.chat.render(whole.compose(pieces)).ids)


def is_subsequence(part, whole) -> bool:
    rest = iter(whole)
    return all(each in rest for each in part)


@pytest.mark.parametrize("name", NAMES)
def test_no_prompt_is_longer_than_its_limit(name):
    here = chat(name)
    made = refused = 0
    for seed in range(CONVERSATIONS[name]):
        whole = Conversation(conversation(seed), here)
        length = len(whole.whole.ids)
        limit = random.Random(seed).randrange(1, length + 3)
        least = [*whole.system, *whole.newest]
        required = tokens_of(whole, least)
        with_first = tokens_of(whole, [*least, *whole.units[0]] if whole.units else least)
        for strategy in all_strategies():
            where = f"{name}, conversation {seed}, limit {limit}, strategy {strategy.name}"
            try:
                window = strategy.window(whole, limit)
            except ContextError:
                # Only where what must stay does not fit.
                assert strategy.name not in TOKENS, where
                needed = with_first if strategy.name == "system-first-newest" else required
                assert needed > limit, where
                refused += 1
                continue
            made += 1
            assert len(window.ids) <= limit, where
            kept = [each for a, b in window.kept for each in whole.whole.ids[a:b]]
            assert is_subsequence(kept, window.ids), where
            assert window.added >= 0, where
            assert window.truncated or window.ids == whole.whole.ids, where
            if strategy.name in TOKENS:
                assert len(window.ids) == min(limit, length), where
                assert tuple(kept) == window.ids, where
            else:
                # The count is that of the messages as they are posed.
                assert here.render(window.messages).ids == window.ids, where
                assert window.system_whole is not False, where
                assert window.question_whole is not False or strategy.name == "sentences", where
    assert made > 3 * CONVERSATIONS[name]
    assert refused > 0
