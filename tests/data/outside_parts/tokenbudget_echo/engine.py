"""An engine that repeats the last message; each byte is a token."""

from pytest_tokenbudget.core.engine import Engine, Generated, Prompt
from pytest_tokenbudget.core.trace import StopReason

START, END = 256, 257


def make_engine(spec, settings, placement, say):
    return EchoEngine()


class EchoEngine(Engine):
    context = 4096

    def render(self, messages, thinking=None):
        text = messages[-1]["content"]
        return Prompt((START, *self.encode(text)), text)

    def encode(self, text):
        return tuple(text.encode())

    def decode(self, ids):
        return bytes(i for i in ids if i < START).decode(errors="replace")

    def rows(self, prompt, total):
        return 8

    def generate(self, requests, decoding):
        for request in requests:
            whole = (*request.prompt_ids[1:], END)
            ids = whole[: request.cap]
            ended = StopReason.EOS if ids == whole else StopReason.LENGTH
            yield Generated(request, ids, ended)

    def close(self):
        """Nothing was loaded."""
