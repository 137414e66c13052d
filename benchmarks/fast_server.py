"""A server that costs next to nothing: the same stream of tokens, as vLLM sends it, for everybody.

Run as a program it prints its port and serves until it is killed: TOKENS, those of an answer.
"""

from __future__ import annotations

import asyncio
import json
import sys

EOS = 2


def answer(tokens: int) -> bytes:
    """A whole event stream, in chunks of one event each."""
    events = []
    for place in range(tokens):
        last = place == tokens - 1
        choice = {
            "index": 0,
            "text": "" if last else " word",
            "logprobs": None,
            "finish_reason": "stop" if last else None,
            "stop_reason": None,
            "token_ids": [EOS if last else 5 + place % 100],
            "prompt_token_ids": None,
        }
        event = {"id": "cmpl-1", "object": "text_completion", "model": "m", "choices": [choice]}
        events.append(f"data: {json.dumps(event)}\n\n".encode())
    events.append(b"data: [DONE]\n\n")
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in events)
    return head + b"\r\n" + chunks + b"0\r\n\r\n"


def reply(body: object) -> bytes:
    """A JSON answer."""
    text = json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n"
    return head.encode() + b"\r\n" + text


async def serve(tokens: int) -> None:
    """Serve on a free port until the process is killed."""
    stream = answer(tokens)
    model = {"id": "m", "owned_by": "vllm", "root": "nowhere", "max_model_len": 2048}
    models, other = reply({"data": [model]}), reply({})

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        await reader.readexactly(int(line.partition(b":")[2]))
                path = head.split(b" ")[1]
                known = {b"/v1/completions": stream, b"/v1/models": models}
                writer.write(known.get(path, other))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
