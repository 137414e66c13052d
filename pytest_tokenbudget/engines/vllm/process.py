"""vLLM itself: starting it quietly, asking it, ending it, and saying what went wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import logging
import multiprocessing
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.engines import loading, memory
from pytest_tokenbudget.models.resolution import ModelSpec

# vLLM's own default: what it leaves is for what it does not count.
SHARE_OF_GPU = 0.9
# On a CPU it would take that share of all memory for keys and values.
SHARE_OF_FREE_CPU = 0.25
MOST_GIB_CPU = 8
END_SECONDS = 20

NOT_INSTALLED = (
    "--engine vllm: vLLM is not installed; pip install 'vllm>=0.19.1', or use --engine transformers"
)

# Never any usage reports. Forking would copy this process's threads and locks.
ALWAYS = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
AT_START = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}

# What a loader of vLLM calls weights that it quantises while it loads them.
METHODS = {"4bit": "bitsandbytes", "8bit": "int8_per_channel_weight_only"}
IN_PLACE_OF = {
    "4bit": "`pip install vllm-bnb-plugin` adds it to versions that come without",
    "8bit": "use --quantization 4bit, a newer vLLM, or weights that are quantised on disk",
}

MEMORY = re.compile(
    r"OutOfMemoryError|out of memory|Free memory on device|Available memory on node"
    r"|No available memory for the cache|larger than the maximum number of tokens"
    r"|KV cache is needed",
    re.IGNORECASE,
)
UNKNOWN = re.compile(r"architectures? \[[^\]]*\].*not supported", re.IGNORECASE)
# How pydantic says that an argument of vLLM's is wrong.
CHECKED = re.compile(r"^\s*(?:Value|Assertion) error, (.+?)(?: \[type=|$)", re.MULTILINE)
RAISED = re.compile(r"^([\w.]*(?:Error|Exception))(?:: (.+))?$", re.MULTILINE)
# What vLLM raises where something in another process was the cause.
ELSEWHERE = re.compile(r"root cause|stack trace", re.IGNORECASE)


class VllmProcess:
    """A running vLLM.

    Args:
        spec: The model.
        context: Tokens that prompt and output may have together.
        dtype: Type of the weights, or ``auto``.
        quantization: ``none``, ``8bit`` or ``4bit``.
        tensor_parallel: GPUs that share each layer.
        data_parallel: Copies of the model.
        memory_share: Share of a device's memory that it may take.
        say: Takes lines for the terminal.

    Raises:
        EngineError: If it cannot be started; vLLM's log is kept then, and named.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        context: int,
        dtype: str,
        quantization: str,
        tensor_parallel: int,
        data_parallel: int,
        memory_share: float,
        say: Callable[[str], None],
    ) -> None:
        self.spec = spec
        self._directory = Path(tempfile.mkdtemp(prefix="tokenbudget-vllm-"))
        self._log = self._directory / "vllm.log"
        self._named = False
        self._llm: Any = None
        say(f"{spec.alias}: vLLM starts, which takes a minute or more")
        os.environ.update(ALWAYS)
        try:
            environment = self._environment(memory_share / (tensor_parallel * data_parallel))
            # Its processes keep the file for their output.
            with _environment_of(environment), _output_to(self._log), loading.quiet():
                _import_vllm()
                options = self._options(context, dtype, quantization, say) | {
                    "tensor_parallel_size": tensor_parallel,
                    "data_parallel_size": data_parallel,
                    "gpu_memory_utilization": SHARE_OF_GPU * memory_share,
                }
                self._start(options)
        except BaseException:
            self._forget_log()
            raise

    async def generate(
        self,
        ids: Sequence[int],
        wanted: dict[str, Any],
        name: str,
        show: Callable[[Sequence[int]], None] | None = None,
    ) -> Any:  # noqa: ANN401
        """Generate from prompt ids with sampling parameters; what vLLM gives in the end.

        ``show`` is told the output ids so far, as they come.

        Raises:
            ValueError: If a parameter is unknown to vLLM.
            Exception: Whatever vLLM raises.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        known = [name for name in SamplingParams.__struct_fields__ if not name.startswith("_")]
        unknown = sorted(set(wanted) - set(known))
        if unknown:
            raise ValueError(f"vLLM's sampling parameters have no {', '.join(unknown)}")
        kind = RequestOutputKind.CUMULATIVE if show else RequestOutputKind.FINAL_ONLY
        chosen = SamplingParams(**(wanted | {"output_kind": kind}))
        # With its type a prompt counts as rendered, and vLLM has nothing to do with it.
        prompt = {"type": "token", "prompt_token_ids": list(ids)}
        last = None
        async for output in self._llm.generate(prompt, chosen, name):
            last = output
            if show:
                show(output.outputs[0].token_ids)
        if last is None:
            raise RuntimeError("vLLM gave no output")
        return last

    def is_dead(self, output: object) -> bool:
        """Whether an output is an error after which vLLM answers nothing any more."""
        from vllm.v1.engine.exceptions import EngineDeadError

        return isinstance(output, EngineDeadError)

    def explain(self, what: str, error: BaseException) -> str:
        """What went wrong, for people, from the error and from vLLM's log."""
        alias = self.spec.alias
        log = self._log.read_text("utf-8", "replace") if self._log.is_file() else ""
        cause = _cause(error, log)
        text = f"{error}\n{cause}"
        if UNKNOWN.search(text):
            return (
                f"model {alias}: this vLLM does not know its architecture; use --engine "
                f"transformers or a newer vLLM ({cause})"
            )
        if MEMORY.search(text):
            return (
                f"model {alias}: vLLM has not enough memory ({cause}); lower `context` for it in "
                f"tokenbudget.toml, use --quantization 4bit, more GPUs with --tensor-parallel, "
                f"fewer workers, or a smaller model"
            )
        self._named = True
        return f"model {alias}: vLLM {what} ({cause}); its log is {self._log}"

    def close(self) -> None:
        """End all processes of this vLLM."""
        llm, self._llm = self._llm, None
        if llm is not None:
            # Without time to end in, its processes are killed; older versions wait by themselves.
            takes_time = "timeout" in inspect.signature(llm.shutdown).parameters
            llm.shutdown(**({"timeout": END_SECONDS} if takes_time else {}))
            # Asking for them is how those that have ended leave the list of processes.
            multiprocessing.active_children()
        self._forget_log()

    def _environment(self, memory_share: float) -> dict[str, str]:
        """Environment variables that are read while vLLM starts; what the user set stays."""
        config = self._directory / "logging.json"
        config.write_text(json.dumps(_logging(self._log)), "utf-8")
        gib = memory.free_bytes("cpu") / loading.GIGA * SHARE_OF_FREE_CPU * memory_share
        settings = AT_START | {
            "VLLM_LOGGING_CONFIG_PATH": str(config),
            "VLLM_CPU_KVCACHE_SPACE": str(max(1, min(MOST_GIB_CPU, int(gib)))),
        }
        if "OMP_NUM_THREADS" in os.environ:
            # Somebody shares the cores out; vLLM would bind to all of them.
            settings["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        return {name: os.environ.get(name, value) for name, value in settings.items()}

    def _options(
        self, context: int, dtype: str, quantization: str, say: Callable[[str], None]
    ) -> dict[str, Any]:
        """Arguments of vLLM's engine, those left out that this version does not have."""
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform

        spec = self.spec
        thinking = spec.thinking
        options: dict[str, Any] = {
            "model": spec.source,
            "revision": spec.revision,
            "tokenizer_revision": spec.revision,
            "dtype": dtype,
            "max_model_len": context,
            "enable_prefix_caching": True,
            # Sampling parameters are all ours, and pickled weights are never loaded.
            "generation_config": "vllm",
            "load_format": "safetensors",
            "trust_remote_code": False,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            # Compiling for a CPU takes longer than what is generated on one.
            "enforce_eager": current_platform.is_cpu(),
        }
        if thinking is not None:
            # What a thinking budget given as a sampling parameter needs.
            options["reasoning_config"] = {
                "reasoning_start_str": thinking.open,
                "reasoning_end_str": thinking.close,
            }
        if quantization != "none":
            options["quantization"] = self._method(quantization)
            if quantization == "4bit":
                options["load_format"] = "auto"
            else:
                say(f"{spec.alias}: vLLM's 8bit is {options['quantization']}, not bitsandbytes")
        known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
        return {name: value for name, value in options.items() if name in known}

    def _method(self, quantization: str) -> str:
        from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
        from vllm.plugins import load_general_plugins

        load_general_plugins()
        method = METHODS[quantization]
        if method not in QUANTIZATION_METHODS:
            raise EngineError(
                f"model {self.spec.alias}: this vLLM cannot quantise to {quantization} while it "
                f"loads (it has no {method}); {IN_PLACE_OF[quantization]}, or use --quantization "
                f"none"
            )
        return method

    def _start(self, options: dict[str, Any]) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        try:
            self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**options))
        except Exception as error:
            raise EngineError(self.explain("could not be started", error)) from error

    def _forget_log(self) -> None:
        """Delete the log, unless an error has named it."""
        logger = logging.getLogger("vllm")
        for handler in list(logger.handlers):
            if isinstance(handler, logging.FileHandler):
                logger.removeHandler(handler)
                handler.close()
        if not self._named:
            shutil.rmtree(self._directory, ignore_errors=True)


def _import_vllm() -> None:
    try:
        import vllm  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise EngineError(f"vLLM cannot be imported: {loading.first_line(error)}") from error
        raise EngineError(NOT_INSTALLED) from None
    except Exception as error:
        raise EngineError(f"vLLM cannot be imported: {loading.first_line(error)}") from error


def _logging(file: Path) -> dict[str, Any]:
    """A configuration of Python's logging that writes all that vLLM says into a file."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": "%(levelname)s %(name)s: %(message)s"}},
        "handlers": {
            "file": {"class": "logging.FileHandler", "filename": str(file), "formatter": "plain"}
        },
        "loggers": {"vllm": {"handlers": ["file"], "level": "INFO", "propagate": False}},
    }


@contextlib.contextmanager
def _environment_of(settings: dict[str, str]) -> Iterator[None]:
    """Set variables for a while, and undo whatever was changed meanwhile."""
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Write what vLLM prints here, and all that its processes write, into a file.

    This process's own output stays where it is: progress is shown there meanwhile.
    """
    plain = BaseProcess.start
    with path.open("a", buffering=1, encoding="utf-8") as file:

        def start(process: BaseProcess) -> None:
            with _descriptors_of(file.fileno()):
                plain(process)

        BaseProcess.start = start  # type: ignore[method-assign, assignment]
        try:
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                yield
        finally:
            BaseProcess.start = plain  # type: ignore[method-assign]


@contextlib.contextmanager
def _descriptors_of(file: int) -> Iterator[None]:
    """Let processes that are started meanwhile inherit a file as their output."""
    kept = [(number, os.dup(number)) for number in (1, 2)]
    try:
        for number, _ in kept:
            os.dup2(file, number)
        yield
    finally:
        for number, copy in kept:
            os.dup2(copy, number)
            os.close(copy)


def _cause(error: BaseException, log: str) -> str:
    """What began it: what vLLM says of its arguments, or what was raised in one of its processes.

    The processes that wait for others fail after them, and say so.
    """
    if checked := CHECKED.search(str(error)):
        return checked[1].strip()
    raised = [line for line in RAISED.finditer(log) if not ELSEWHERE.search(line[0])]
    if not ELSEWHERE.search(str(error)) or not raised:
        return loading.first_line(error)
    name, message = raised[-1].groups()
    name = name.rpartition(".")[2]
    return f"{name}: {message.strip()}" if message else name
