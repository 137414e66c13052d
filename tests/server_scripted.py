"""A server that speaks vLLM's protocol, or plain OpenAI's, and writes what it was told to write."""

import json

from engine_helpers import SPEC
from loopback import Listener, chunk, fields, message, respond

from pytest_tokenbudget.core.engine import Decoding
from pytest_tokenbudget.engines.server.server_state import ServerTiming
from pytest_tokenbudget.models.resolution import complete

NANO = complete(SPEC)
EOS = 2
GREEDY = Decoding()
MESSAGES = ({"role": "user", "content": "How many apples?"},)
QUICK = ServerTiming(
    first=0.01, longest=0.05, retry_after=0.3, look=0.05, look_timeout=0.3, all_down=0.5
)


def one(engine, request, decoding=GREEDY):
    """The result of one request."""
    (result,) = engine.generate([request], decoding)
    return result


class ScriptedServer(Listener):
    """Writes the same output for every prompt.

    Args:
        ids: The output's token ids, one an event; an output that goes on does so where the prompt
            ends, as a model would.
        prompt: How many ids prompts have.
        word: Its word for the end.
        stop: What it says has stopped it.
        deltas: Of a chat answer, one an event.
        usage: Its counts.
        kind: What it says to be.
        gives_ids: Whether its events hold ids.
        names: The models that it lists.
    """

    def __init__(
        self,
        *,
        ids=(),
        prompt=0,
        word="stop",
        stop=None,
        deltas=(),
        usage=None,
        kind="vllm",
        gives_ids=True,
        names=("m",),
        root="somewhere/else",
        key=None,
    ):
        super().__init__()
        self.ids, self.prompt = list(ids), prompt
        self.word, self.stop = word, stop
        self.deltas, self.usage = deltas, usage
        self.kind, self.gives_ids, self.names, self.root = kind, gives_ids, names, root
        self.key = key
        self.bodies: list[dict] = []

    @property
    def url(self):
        return self.origin + "/v1"

    async def answer(self, reader, writer):
        head, body = await message(reader)
        _, path, _ = head[0].decode().split(" ", 2)
        if self.key and fields(head).get("authorization") != f"Bearer {self.key}":
            error = {"error": {"message": f"Incorrect API key provided: {self.key}"}}
            await respond(writer, "401 Unauthorized", json.dumps(error), "application/json", {})
        elif path == "/v1/models":
            models = [
                {"id": name, "owned_by": self.kind, "root": self.root, "max_model_len": 2048}
                for name in self.names
            ]
            await respond(writer, "200 OK", json.dumps({"data": models}), "application/json", {})
        elif path == "/v1/completions":
            self.bodies.append(asked := json.loads(body))
            await self._stream(writer, self._completion(asked))
        elif path == "/v1/chat/completions":
            self.bodies.append(json.loads(body))
            await self._stream(writer, self._chat())
        else:
            await respond(writer, "404 Not Found", '{"detail":"Not Found"}', "application/json", {})

    def _completion(self, asked):
        rest = self.ids[len(asked["prompt"]) - self.prompt :][: asked["max_tokens"]]
        for place, token_id in enumerate(rest):
            last = place == len(rest) - 1
            more = {"token_ids": [token_id]} if self.gives_ids else {}
            done = {"finish_reason": self.word, "stop_reason": self.stop} if last else {}
            yield {"choices": [{"index": 0, "text": f" t{token_id}", **more, **done}]}
        if self.usage:
            yield {"choices": [], "usage": self.usage}

    def _chat(self):
        for delta in self.deltas:
            yield {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        yield {"choices": [{"index": 0, "delta": {}, "finish_reason": self.word}]}
        if self.usage:
            yield {"choices": [], "usage": self.usage}

    async def _stream(self, writer, events):
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        for event in events:
            writer.write(chunk(f"data: {json.dumps(event)}\n\n".encode()))
            await writer.drain()
        writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()
