"""Probes of a server whose chat template is another than the one that lies here."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from loopback import Listener, message, respond
from server_scripted import MESSAGES, NANO

from pytest_tokenbudget.core.probes import Ask
from pytest_tokenbudget.engines.server.engine import ServerEngine
from pytest_tokenbudget.settings.endpoints import Endpoint, Facts

ANSWER = {
    "message": {"content": "7", "reasoning_content": "There are 7."},
    "finish_reason": "stop",
    "index": 0,
}


class Templated(Listener):
    """A server that renders, or says that it cannot, and sets reasoning apart."""

    def __init__(self, prompt: str | None) -> None:
        super().__init__()
        self.prompt = prompt

    async def answer(self, reader, writer):
        head, _ = await message(reader)
        path = head[0].decode().split(" ")[1]
        bodies = {"/tokenize": {"tokens": [5]}, "/v1/chat/completions": {"choices": [ANSWER]}}
        if self.prompt is not None:
            bodies["/apply-template"] = {"prompt": self.prompt}
        state = "200 OK" if path in bodies else "404 Not Found"
        body = json.dumps(bodies.get(path, {"detail": "Not Found"}))
        await respond(writer, state, body, "application/json", {})


@pytest.mark.parametrize(
    ("prompt", "opened", "text"),
    [
        ("<|im_start|>assistant\n<think>\n", True, "There are 7.</think>7"),
        ("<|im_start|>assistant\n", False, "<think>There are 7.</think>7"),
        # The template that lies here opens nothing.
        (None, False, "<think>There are 7.</think>7"),
    ],
    ids=["opens", "does not", "not to be had"],
)
def test_the_servers_own_template_says_whether_the_prompt_opens_thinking(prompt, opened, text):
    with Templated(prompt) as server:
        endpoint = Endpoint((server.origin + "/v1",), "m")
        facts = Facts("llamacpp", "b1", "m", 2048, "weights", ids=True, tokenizes=True)
        engine = ServerEngine(replace(NANO, endpoint=endpoint), facts, timeout=5)
        try:
            (reply,) = engine.ask([Ask(16, MESSAGES)])
        finally:
            engine.close()
    (choice,) = reply.choices
    assert (choice.opened, choice.text) == (opened, text)
