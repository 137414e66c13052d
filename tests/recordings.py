"""What the tests of recorded generations share: files made by hand, and loading them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_tokenbudget.recorded.files import load_recordings
from pytest_tokenbudget.recorded.load import recorded_study
from pytest_tokenbudget.recorded.records import RecordingError
from pytest_tokenbudget.recorded.traces import TextTokens

DATA = Path(__file__).parent / "data" / "recorded"


def words(text: str) -> TextTokens:
    """A tokenizer for tests: a token is a run of text that ends in a space."""
    ends = [i + 1 for i, c in enumerate(text) if c == " "]
    if text and (not ends or ends[-1] != len(text)):
        ends.append(len(text))
    return TextTokens(tuple(range(len(ends))), tuple(ends))


def record(number=0, generated="3 + 4 = 7 #### 7", budget=128, **more):
    return {
        "problem_id": f"p{number}",
        "question": f"What is {number} + 7?",
        "ground_truth": str(number + 7),
        "generated": generated,
        "predicted": "7",
        "correct": number == 0,
        "tokens_used": len(words(generated).ids) + 1,
        "budget": budget,
        **more,
    }


def write(path: Path, records: object) -> Path:
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def load(path: Path, **options):
    (recording,) = load_recordings([path]).recordings
    return recorded_study(recording, **options)


def refused(path: Path, **options) -> str:
    with pytest.raises(RecordingError) as caught:
        load(path, **options)
    return str(caught.value)
