"""What tests of whole runs of the context eval share."""

from __future__ import annotations

import json

from fake_engine import FakeEngine
from runs import QUIET

from pytest_tokenbudget.core.engine import Generated, Prompt
from pytest_tokenbudget.core.trace import StopReason

EVAL = ("--pyargs", "pytest_tokenbudget.evals.test_context", *QUIET)
SHORT = ("--context-turns=4,12", "--truncation=newest,system-newest")
FAKE = (*SHORT, "--context-limits=50%", "--num-samples=3", "--answer-tokens=64")

# Words of a tokenizer that every engine has.
KNOWN: dict[str, int] = {}


class Talker(FakeEngine):
    """Knows where words are, as a real tokenizer does; fails where it is told to."""

    def __init__(self, fails=lambda request: False):
        super().__init__()
        self.fails = fails

    def render(self, messages, thinking=None):
        said = "".join(f"<{m['role']}>{m['content']}\n" for m in messages) + "<assistant>"
        words = said.replace("\n", " \n ").replace(">", "> ").split(" ")
        return Prompt(tuple(self.ids(words)), " ".join(words))

    def ids(self, words):
        return [KNOWN.setdefault(word, 100 + len(KNOWN)) for word in words]

    def decode_prompt(self, ids):
        names = {number: word for word, number in KNOWN.items()}
        return " ".join(names[i] for i in ids)

    def generate(self, requests, decoding):
        for request in requests:
            self.seen.append(request)
            if self.fails(request):
                yield Generated(request, (), StopReason.ERROR, "", error="the server is gone")
            else:
                yield Generated(request, (1, 2, 0), StopReason.EOS, "stop")


def found(pytester):
    path = pytester.path / "reports" / "results" / "context_nano-reasoner.json"
    return json.loads(path.read_text())


def point(record, arm, strategy, limit):
    (one,) = (
        p
        for p in record["points"]
        if (p["arm"], p["strategy"], p["limit"]) == (arm, strategy, limit)
    )
    return one
