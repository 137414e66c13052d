"""Loading configuration and tokenizer, with errors that say what to do."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.engines import Config, Tokenizer
from pytest_tokenbudget.engines.memory import free_bytes, is_out_of_memory, release
from pytest_tokenbudget.models import hub
from pytest_tokenbudget.models.gguf_header import read_gguf_header
from pytest_tokenbudget.models.gguf_tokenizer import (
    GgufTokenizerError,
    extract_eos_ids,
    load_gguf_tokenizer,
)
from pytest_tokenbudget.models.resolution import ModelSpec
from pytest_tokenbudget.texts.end_tokens import END_OF_TURN

GIGA = 1 << 30


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Transformers' progress bars and warnings off the terminal, and put all back after."""
    import huggingface_hub
    from transformers import utils

    logging: Any = utils.logging
    hub: Any = huggingface_hub.utils
    verbosity = logging.get_verbosity()
    bars, hub_bars = logging.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        # The call above switches the hub's bars on with its own.
        if not hub_bars:
            hub.disable_progress_bars()


def pretrained_arguments(spec: ModelSpec) -> tuple[str, dict[str, Any]]:
    """First argument and keywords of ``from_pretrained`` for a model."""
    if spec.kind == "gguf":
        directory, file = os.path.split(spec.source)
        return directory, {"gguf_file": file}
    if spec.kind == "hub":
        return spec.source, {"revision": spec.revision or "main"}
    return spec.source, {}


def load_config(spec: ModelSpec) -> Config:
    """The model's configuration; raises EngineError if it cannot be loaded."""
    from transformers import AutoConfig

    source, options = pretrained_arguments(spec)
    with explained(spec, "configuration"), quiet(), hub.access(spec.kind == "hub"):
        config: Config = AutoConfig.from_pretrained(source, trust_remote_code=False, **options)
        if spec.kind == "gguf":
            header = read_gguf_header(Path(spec.source))
            size = header.get(f"{header.get('general.architecture')}.attention.key_length")
            text = config.get_text_config()
            # Transformers does not read the size of attention heads for some architectures.
            if isinstance(size, int) and getattr(text, "head_dim", None) is not None:
                text.head_dim = size
    return config


def load_tokenizer(spec: ModelSpec) -> Tokenizer:
    """The model's tokenizer; raises EngineError if it cannot be loaded."""
    from transformers import AutoTokenizer

    source, options = pretrained_arguments(spec)
    with explained(spec, "tokenizer"), quiet(), hub.access(spec.kind == "hub"):
        if spec.kind == "gguf":
            return _gguf_tokenizer(spec)
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)


def _gguf_tokenizer(spec: ModelSpec) -> Tokenizer:
    """A GGUF file's own; Transformers' rebuild does not heed which pre-tokenizer the file names."""
    import transformers

    try:
        own = load_gguf_tokenizer(Path(spec.source))
    except GgufTokenizerError as error:
        raise EngineError(
            f"model {spec.alias}: {error} ({error.reason}); use the model's directory or hub id"
        ) from error
    factory: Any = transformers.PreTrainedTokenizerFast
    return factory(
        tokenizer_object=own.tokenizer,
        chat_template=own.chat_template,
        clean_up_tokenization_spaces=False,
        **{f"{role}_token": token for role, token in own.special.items()},
    )


def _generation_config(spec: ModelSpec) -> Config | None:
    """The model's generation configuration; None where it has none."""
    if spec.kind == "gguf":
        return None
    from transformers import GenerationConfig

    source, options = pretrained_arguments(spec)
    with (
        explained(spec, "generation configuration"),
        quiet(),
        hub.access(spec.kind == "hub"),
        contextlib.suppress(OSError),
    ):
        return GenerationConfig.from_pretrained(source, **options)
    return None


def end_ids(spec: ModelSpec, config: Config, tokenizer: Tokenizer) -> frozenset[int]:
    """Every id that ends a sequence or a turn, from all places that name one."""
    ids: set[int] = set()
    for place in (_generation_config(spec), config.get_text_config(), tokenizer):
        value = getattr(place, "eos_token_id", None)
        if value is not None:
            ids.update(value if isinstance(value, list | tuple) else [value])
    added = tokenizer.get_added_vocab()
    if spec.kind == "gguf":
        return extract_eos_ids(read_gguf_header(Path(spec.source)), added) | ids
    ids.update(added[token] for token in END_OF_TURN if token in added)
    return frozenset(ids)


@contextlib.contextmanager
def explained(spec: ModelSpec, part: str, device: str = "cpu") -> Iterator[None]:
    """Turn whatever goes wrong while ``part`` is loaded into a sentence for people."""
    try:
        yield
    except EngineError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            message = (
                f"its weights do not fit into the memory of {device} "
                f"({free_bytes(device) / GIGA:.1f} GiB free); use --quantization 4bit, a smaller "
                f"model or another --device"
            )
            release(device)
        else:
            message = _explanation(spec, part, error)
        raise EngineError(f"model {spec.alias}: {message}") from error


def _explanation(spec: ModelSpec, part: str, error: Exception) -> str:
    from huggingface_hub import errors

    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    words = " ".join(str(cause) for cause in causes).lower()
    page = f"https://huggingface.co/{spec.source}"
    revision = spec.revision or "main"
    if any(isinstance(cause, errors.GatedRepoError) for cause in causes) or "gated" in words:
        return (
            f"{spec.source} is gated; accept its terms at {page}, then run `hf auth login` or "
            f"set HF_TOKEN"
        )
    if any(isinstance(cause, errors.RevisionNotFoundError) for cause in causes):
        return f"{spec.source} has no revision {revision!r}; see {page}/tree/main"
    if any(isinstance(cause, errors.RepositoryNotFoundError) for cause in causes):
        return (
            f"there is no model {spec.source} on the hub, or it is private; check the name, or "
            f"run `hf auth login` if it is yours"
        )
    if "trust_remote_code" in words or "custom code" in words:
        return (
            f"{spec.source} runs code of its own, which is never executed here; use a model whose "
            f"architecture Transformers knows"
        )
    if "safetensors" in words and part == "weights":
        return (
            f"{spec.source} has no usable weights in safetensors format, and pickled ones are "
            f"never loaded ({first_line(error)})"
        )
    offline = (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError)
    if spec.kind == "hub" and (
        any(isinstance(cause, offline) for cause in causes) or "couldn't connect" in words
    ):
        return hub.missing_model(spec)
    if "bitsandbytes" in words:
        return f"bitsandbytes failed ({first_line(error)}); use --quantization none"
    return f"its {part} cannot be loaded from {spec.source}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """An exception's kind and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
