"""The in-process engine on vLLM.

vLLM's ``AsyncLLM`` runs the model in processes of its own and batches by itself: everything is
submitted at once, results come as they end. ``data_parallel`` above 1 needs it, too: vLLM's
synchronous classes refuse that within one process, while ``AsyncLLM`` starts as many engines and
gives each request to the one with the least to do.

Outputs depend on the batch: vLLM's kernels are not batch-invariant by default, so a rerun may
diverge where two tokens are nearly as likely. Its noise is keyed by a seed for each request, which
draws the same numbers again; a sample that is gone on from draws new ones from there, so that it
is a fair sample and not the one that a single pass would have given.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from pytest_tokenbudget.core.engine import Decoding, EngineError, Generated, Prompt, Request
from pytest_tokenbudget.core.probes import Ask, ProbeOutput, Reply
from pytest_tokenbudget.core.trace import StopReason
from pytest_tokenbudget.engines.background import Background
from pytest_tokenbudget.engines.loading import first_line
from pytest_tokenbudget.engines.rows import BatchRow, generated
from pytest_tokenbudget.engines.sampling import request_seed
from pytest_tokenbudget.engines.text import InProcessEngine
from pytest_tokenbudget.engines.vllm.process import VllmProcess
from pytest_tokenbudget.models.resolution import ModelSpec

# All that is missing goes to the scheduler, which knows best how much fits; more than this at a
# time would only make claims longer.
MOST_AT_ONCE = 4096
PROMPT_SHOWN = 8
# What vLLM's own server answers to a request that vLLM does not take.
REFUSED = 400
# vLLM's own names for that; before it had them it raised ValueError.
_REFUSALS = {"VLLMClientError", "VLLMValidationError"}

Ids = Sequence[int]
# Told the number of a submission, and its output ids so far.
Show = Callable[[int, Ids], None]
# vLLM's own types differ from version to version.
Output = Any
Parameters = dict[str, Any]


class EndedSubmission(NamedTuple):
    """A submission that has ended.

    Attributes:
        number: Its place among the submissions.
        output: What vLLM gave, or what it raised.
        seconds: From the submission to the end.
    """

    number: int
    output: Output
    seconds: float


class VllmEngine(InProcessEngine):
    """Runs one model with vLLM, on as many GPUs as its parallel sizes take.

    Rendering and decoding load the tokenizer only; vLLM starts with the first ``generate`` or
    ``ask``. It is told to report no usage, and its log goes to a file, which is deleted in the end.

    Args:
        spec: The model.
        dtype: Type of the weights, or ``auto``.
        quantization: ``none``, ``4bit`` (bitsandbytes, where vLLM or its plugin has it) or
            ``8bit`` (vLLM's own weight-only int8). Weights that are quantised on disk are loaded
            as they are with ``none``.
        tensor_parallel: GPUs that share each layer.
        data_parallel: Copies of the model that share the requests.
        memory_share: Share of a GPU's memory that this engine may take; less than 1 where several
            workers share a GPU.
        say: Takes lines for the terminal.

    Raises:
        EngineError: If the model is a GGUF file.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        dtype: str = "auto",
        quantization: str = "none",
        tensor_parallel: int = 1,
        data_parallel: int = 1,
        memory_share: float = 1.0,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        if spec.kind == "gguf":
            raise EngineError(
                f"model {spec.alias}: vLLM itself loads no GGUF files; use --engine transformers, "
                f"the model's safetensors files, or serve it with llama.cpp and name its URL"
            )
        super().__init__(spec)
        self.dtype, self.quantization = dtype, quantization
        self.tensor_parallel, self.data_parallel = tensor_parallel, data_parallel
        self.memory_share = memory_share
        self._say = say
        self._numbers = itertools.count()
        self._process: VllmProcess | None = None
        self._background: Background | None = None

    @property
    def engine_name(self) -> str:
        return "vllm"

    def rows(self, prompt: int, total: int) -> int:
        """How many sequences it likes to be given at once: many, since it schedules by itself."""
        return MOST_AT_ONCE

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[Generated]:
        """Generate all at once, and yield each result as it ends.

        Raises:
            ValueError: If a cap reaches beyond the context.
            EngineError: If vLLM cannot be started, or ends while it works.
        """
        rows: list[BatchRow] = []
        yield from self.begin(requests, decoding, rows)
        if not rows:
            return
        submissions = [(row.ids, parameters(row.request, decoding, self.eos_ids)) for row in rows]
        watch = self.watch

        def show(number: int, ids: Ids) -> None:
            request = rows[number].request
            if watch is not None and watch.follows(request):
                watch.wrote(request, [*request.prefix_ids, *map(int, ids)])

        for ended in self._run(submissions, show=show if watch is not None else None):
            yield _result(rows[ended.number], ended)

    def ask(self, asks: Sequence[Ask], at_once: int = 1) -> list[Reply]:
        """Ask all, ``at_once`` at a time, and give the replies in the order of the asks.

        The fields of an ask are sampling parameters; vLLM refuses those that it does not have.
        """
        replies: dict[int, Reply] = {}
        submissions: list[tuple[Ids, Parameters]] = []
        submitted: list[tuple[int, Prompt]] = []
        for number, ask in enumerate(asks):
            wanted = probe_parameters(ask, self.eos_ids)
            try:
                prompt = (
                    Prompt(ask.prompt_ids, self.decode_prompt(ask.prompt_ids))
                    if ask.prompt_ids
                    else self.render(ask.messages, variables=ask.template)
                )
            except EngineError as error:
                replies[number] = Reply(wanted, error=str(error))
                continue
            submissions.append((prompt.ids, wanted))
            submitted.append((number, prompt))
        for ended in self._run(submissions, at_once) if submissions else ():
            number, prompt = submitted[ended.number]
            replies[number] = self._reply(submissions[ended.number], prompt, ended.output)
        return [replies[number] for number in range(len(asks))]

    def close(self) -> None:
        """End vLLM's processes, which frees the model, and the thread that talks to them."""
        process, self._process = self._process, None
        background, self._background = self._background, None
        try:
            if process is not None:
                process.close()
        finally:
            if background is not None:
                background.close()

    def _run(
        self,
        submissions: Sequence[tuple[Ids, Parameters]],
        at_once: int | None = None,
        show: Show | None = None,
    ) -> Iterator[EndedSubmission]:
        """Submit all, ``at_once`` at a time where that is given, and give each as it ends."""
        process, background = self._started()
        for ended in background.stream(self._submitted(process, submissions, at_once, show)):
            if process.is_dead(ended.output):
                message = process.explain("ended while it generated", ended.output)
                self.close()
                raise EngineError(message)
            yield ended

    def _started(self) -> tuple[VllmProcess, Background]:
        if self._process is None or self._background is None:
            self._process = VllmProcess(
                self.spec,
                context=self.context,
                dtype=self.dtype,
                quantization=self.quantization,
                tensor_parallel=self.tensor_parallel,
                data_parallel=self.data_parallel,
                memory_share=self.memory_share,
                say=self._say,
            )
            self._background = Background("tokenbudget-vllm")
        return self._process, self._background

    async def _submitted(
        self,
        process: VllmProcess,
        submissions: Sequence[tuple[Ids, Parameters]],
        at_once: int | None,
        show: Show | None,
    ) -> AsyncGenerator[EndedSubmission, None]:
        ended: asyncio.Queue[EndedSubmission] = asyncio.Queue()
        gate = asyncio.Semaphore(at_once or len(submissions))

        async def submit(number: int, ids: Ids, wanted: Parameters) -> None:
            async with gate:
                started = time.monotonic()
                output: Output
                try:
                    name = f"tokenbudget-{next(self._numbers)}"
                    show_this = partial(show, number) if show is not None else None
                    output = await process.generate(ids, wanted, name, show_this)
                except Exception as error:
                    output = error
                ended.put_nowait(EndedSubmission(number, output, time.monotonic() - started))

        tasks = [
            asyncio.create_task(submit(number, ids, wanted))
            for number, (ids, wanted) in enumerate(submissions)
        ]
        try:
            for _ in tasks:
                yield await ended.get()
        finally:
            # vLLM drops a request whose task is cancelled.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _reply(self, submission: tuple[Ids, Parameters], prompt: Prompt, output: Output) -> Reply:
        ids, wanted = submission
        sent = {"prompt_token_ids": _shown(ids), **wanted}
        if isinstance(output, Exception):
            names = {kind.__name__ for kind in type(output).__mro__}
            refused = isinstance(output, ValueError) or not names.isdisjoint(_REFUSALS)
            status = REFUSED if refused else None
            return Reply(sent, error=first_line(output), status=status, prompt_tokens=len(ids))
        thinking = self.spec.thinking
        opened = thinking is not None and thinking.left_open(prompt.text)
        choices = tuple(
            ProbeOutput(
                tuple(choice.token_ids),
                choice.text,
                str(choice.finish_reason),
                text=self.decode(choice.token_ids),
                opened=opened,
            )
            for choice in sorted(output.outputs, key=lambda choice: int(choice.index))
        )
        return Reply(sent, choices, prompt_tokens=len(ids))


def parameters(request: Request, decoding: Decoding, eos_ids: frozenset[int]) -> Parameters:
    """The sampling parameters of a request, by vLLM's names.

    All end-of-sequence ids are named, so that vLLM ends where the other engines do. Text is only
    made where stop strings have to be found in it, and with its special tokens, as elsewhere.
    """
    wanted: Parameters = {
        "max_tokens": request.cap - len(request.prefix_ids),
        "temperature": decoding.temperature,
        "stop_token_ids": sorted(eos_ids),
        "detokenize": bool(decoding.stop),
        "skip_special_tokens": False,
    }
    if decoding.stop:
        wanted["stop"] = list(decoding.stop)
    if not decoding.greedy:
        wanted["top_p"] = decoding.top_p
        ids = (*request.prompt_ids, *request.prefix_ids)
        wanted["seed"] = request_seed(decoding.seed, ids, request.sample)
    return wanted


def probe_parameters(ask: Ask, eos_ids: frozenset[int]) -> Parameters:
    """The sampling parameters of a probe's request; its own fields come before all others."""
    wanted: Parameters = {
        "n": ask.n,
        "max_tokens": ask.max_tokens,
        "temperature": ask.temperature,
        "top_p": ask.top_p,
        "stop_token_ids": sorted(eos_ids),
    }
    if ask.seed is not None:
        wanted["seed"] = ask.seed
    if ask.stop:
        wanted["stop"] = list(ask.stop)
    return wanted | dict(ask.fields)


def _result(row: BatchRow, ended: EndedSubmission) -> Generated:
    """What became of a row: its stop reason is found in the ids, as for any other engine."""
    output = ended.output
    if isinstance(output, Exception):
        return generated(row, ended.seconds, error=f"vLLM refused it: {first_line(output)}")
    (choice,) = output.outputs
    for token_id in choice.token_ids:
        row.append(int(token_id))
        if row.stop_reason is not None:
            break
    reason = str(choice.finish_reason)
    if row.stop_reason is None and reason == "stop" and isinstance(choice.stop_reason, str):
        # vLLM's streaming decoder finds a stop string where the window of ours begins in a letter.
        row.stop_reason = StopReason.STOP
    error = f"vLLM ended it with {reason!r} after {len(row.output)} of {row.request.cap} tokens"
    return generated(row, ended.seconds, reason, error)


def _shown(ids: Ids) -> list[int | str]:
    """Ids of a prompt, shortened for people."""
    if len(ids) <= 2 * PROMPT_SHOWN:
        return list(ids)
    left_out = f"... {len(ids) - 2 * PROMPT_SHOWN} more ..."
    return [*ids[:PROMPT_SHOWN], left_out, *ids[-PROMPT_SHOWN:]]
