"""How much texts have to do with a question: BM25, which needs no model."""

from __future__ import annotations

import re
from functools import lru_cache

# Chinese, Japanese and Korean have no spaces between words, or not where a search wants them.
_EAST = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(f"[{_EAST}]|[^\\W{_EAST}]+")


def words(text: str) -> list[str]:
    """Words of a text as they are compared."""
    return _WORD.findall(text.casefold())


# Every limit of a conversation asks the same, and making an index takes a millisecond.
@lru_cache(maxsize=256)
def relevance(texts: tuple[str, ...], query: str) -> tuple[float, ...]:
    """BM25 score of each text, higher for those that share rare words with the query.

    Args:
        texts: Among which words are rare or common.
        query: What is looked for.

    Returns:
        A score for each text, 0 where it shares no word with the query.
    """
    found = [words(text) for text in texts]
    filled = [i for i, each in enumerate(found) if each]
    vocabulary = {word for each in found for word in each}
    asked = [word for word in words(query) if word in vocabulary]
    scores = [0.0] * len(texts)
    if asked:
        import bm25s  # type: ignore[import-untyped]

        ranker = bm25s.BM25()
        ranker.index([found[i] for i in filled], show_progress=False)
        for i, score in zip(filled, ranker.get_scores(asked).tolist(), strict=True):
            scores[i] = score
    return tuple(scores)
