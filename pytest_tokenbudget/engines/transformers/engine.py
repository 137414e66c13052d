"""The in-process engine on Hugging Face Transformers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from pytest_tokenbudget.core.engine import Decoding, EngineError, Generated, Request
from pytest_tokenbudget.core.probes import Ask, Reply
from pytest_tokenbudget.engines import Model, loading, memory
from pytest_tokenbudget.engines.rows import BatchRow, generated
from pytest_tokenbudget.engines.text import InProcessEngine
from pytest_tokenbudget.engines.transformers import weights
from pytest_tokenbudget.engines.transformers.batches import Batch, new_cache
from pytest_tokenbudget.engines.transformers.probes import ask_batch
from pytest_tokenbudget.engines.transformers.shared_prefixes import can_branch, family_order
from pytest_tokenbudget.models.resolution import ModelSpec, choose_quantization


class TransformersEngine(InProcessEngine):
    """Runs one model in this process.

    Rendering and decoding load the tokenizer only; the weights come with the first ``generate``.

    Args:
        spec: The model.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        dtype: ``auto`` or a type; ``auto`` takes the model's own setting, else what suits the
            device.
        quantization: ``none``, ``8bit`` or ``4bit``; None takes the model's own setting.
        batch_size: Rows that decode together, or ``auto`` for as many as fit and pay.
        threads: CPU threads, or None to leave them as they are.
        shares: Whether prompts that begin alike are prefilled once, where the model's cache allows
            it and it pays; see ``shared_prefixes``.
        say: Takes lines for the terminal.

    Raises:
        ModelError: If the quantisation is unknown.
        EngineError: If device or dtype are unknown or not there.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        device: str = "auto",
        dtype: str = "auto",
        quantization: str | None = None,
        batch_size: int | Literal["auto"] = "auto",
        threads: int | None = None,
        shares: bool = True,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        if batch_size != "auto" and batch_size < 1:
            raise EngineError(f"a batch size is auto or at least 1, not {batch_size}")
        super().__init__(spec)
        self.device = weights.choose_device(device)
        self._dtype = weights.choose_dtype(spec.dtype if dtype == "auto" else dtype, self.device)
        self.quantization = choose_quantization(spec, self.device, quantization)
        self._batch_size = batch_size
        self._most_rows: int | None = None
        self._threads = threads
        self._shares = shares
        self._say = say
        self._model: Model = None

    @property
    def engine_name(self) -> str:
        return "transformers"

    @property
    def dtype(self) -> str:
        """Type of the weights, as a name; never ``auto``."""
        return str(self._dtype).removeprefix("torch.")

    @property
    def model(self) -> Model:
        """The Transformers model, loaded on first use."""
        self._load()
        return self._model

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[Generated]:
        """Generate, and yield each result as it ends, longest prompts first.

        Requests whose prompts begin alike come into the same batches. Out of memory, the batch is
        halved and unfinished rows go on from the ids that they have.

        Raises:
            ValueError: If a cap reaches beyond the context.
            EngineError: If the model cannot be loaded, or one row alone does not fit into memory.
        """
        rows: list[BatchRow] = []
        yield from self.begin(requests, decoding, rows)
        if not rows:
            return
        self._load()
        queue = self._ordered(rows)
        while queue:
            size = self._rows_at_once(queue)
            members = [queue.popleft() for _ in range(min(size, len(queue)))]
            yield from self._run(members, queue, decoding)

    def rows(self, prompt: int, total: int) -> int:
        """How many sequences it decodes together: what was asked for, or what fits and pays."""
        if self._batch_size != "auto":
            return self._batch_size
        self._load()  # the weights take their part of the memory
        config = self.config.get_text_config()
        return memory.rows_that_fit(config, self._dtype, self.device, prompt, total)

    def ask(self, asks: Sequence[Ask], at_once: int = 1) -> list[Reply]:
        """Ask all, ``at_once`` in one batch, and give the replies in the order of the asks."""
        replies: list[Reply] = []
        for start in range(0, len(asks), at_once):
            replies += ask_batch(self, asks[start : start + at_once], start)
        return replies

    def close(self) -> None:
        """Free the model."""
        self._model = None
        memory.release(self.device)

    def _load(self) -> None:
        if self._model is not None:
            return
        import torch

        if self._threads is not None:
            torch.set_num_threads(self._threads)
        self._model = weights.load_weights(
            self.spec, self.config, self.device, self._dtype, self.quantization
        )

    def _ordered(self, rows: Sequence[BatchRow]) -> deque[BatchRow]:
        """The longest first: if memory runs out it does so at once, and no long row ends alone.

        Rows that share follow one another, so that they come into one batch.
        """
        if self._shares and can_branch(new_cache(self._model)):
            return deque(rows[i] for i in family_order([row.ids for row in rows]))
        return deque(sorted(rows, key=lambda row: len(row.ids), reverse=True))

    def _rows_at_once(self, queue: Sequence[BatchRow]) -> int:
        """Rows of the next batch, as if all of them were as long as the longest that waits."""
        total = max(len(row.request.prompt_ids) + row.request.cap for row in queue)
        rows = self.rows(max(len(row.ids) for row in queue), total)
        return rows if self._most_rows is None else min(rows, self._most_rows)

    def _run(
        self, members: Sequence[BatchRow], queue: deque[BatchRow], decoding: Decoding
    ) -> Iterator[Generated]:
        """Decode one batch to its end; what memory cannot hold goes back to the queue."""
        started = time.monotonic()
        waiting = dict.fromkeys(members)
        batch: Batch | None = None
        while waiting:
            failure = ""
            try:
                batch = batch or Batch(
                    self._model, members, self.tokenizer.pad_token_id or 0, self._shares
                )
                batch.step(decoding)
            except Exception as error:
                if not memory.is_out_of_memory(error):
                    raise
                failure = loading.first_line(error)
            if self.tally is not None:
                for row in waiting:
                    self.tally(row.request, len(row.output))
            if self.watch is not None:
                for row in waiting:
                    self.watch.wrote(row.request, row.output)
            width = len(waiting)
            for row in [row for row in waiting if row.stop_reason is not None]:
                del waiting[row]
                yield generated(row, time.monotonic() - started)
            if failure and waiting:
                # Outside of the handler, whose traceback would keep the batch's tensors alive.
                batch = None
                memory.release(self.device)
                self._halve(width, list(waiting), len(queue), failure)
                queue.extendleft(reversed(waiting))
                return

    def _halve(self, width: int, unfinished: Sequence[BatchRow], queued: int, failure: str) -> None:
        """Allow half as many rows from now on; raises EngineError if there was one row only."""
        if width == 1:
            request = unfinished[0].request
            raise EngineError(
                f"model {self.spec.alias}: out of memory on {self.device} with a single row "
                f"(prompt {len(request.prompt_ids)} tokens, cap {request.cap}, "
                f"{len(unfinished[0].output)} generated); lower the largest of --budgets, or use "
                f"--quantization 4bit, a smaller --dtype, another --device or a smaller model "
                f"({failure})"
            )
        self._most_rows = width // 2
        self._say(
            f"out of memory with {width} rows on {self.device}: going on with "
            f"{self._most_rows}, {len(unfinished) + queued} traces to finish"
        )
