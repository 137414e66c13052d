"""What an engine must know to load a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pytest_tokenbudget.common.outside_text import printable_name
from pytest_tokenbudget.models.prices import Price
from pytest_tokenbudget.settings.endpoints import Endpoint
from pytest_tokenbudget.texts.thinking_blocks import ThinkingFormat

Quantization = Literal["none", "8bit", "4bit"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
Kind = Literal["hub", "directory", "gguf", "recorded", "server"]
OwnSettings = tuple[tuple[str, object], ...]


@dataclass(frozen=True)
class ModelSpec:
    """What an engine must know to load a model.

    Attributes:
        alias: The name shown to people, used in test ids and file names.
        source: Hub id, or absolute path of a directory or of a ``.gguf`` file.
        revision: Branch, tag or commit on the hub; None for files on disk.
        quantization: What the catalogue wants on CUDA; :func:`choose_quantization` decides.
        dtype: Type of the weights while they run; ``auto`` leaves it to the device.
        context: Tokens that prompt and output may have together; None if it is not known.
        thinking: How the model marks its thinking; None where it does not think.
        kind: Where the model lies; of one that is served, where its tokenizer lies, ``server``
            where only the server has that.
        endpoint: Where the model is served; None where it runs in this process.
        price: What its tokens cost; None where nobody has said it.
        generation: Settings of its own, by name: those of ``[models.NAME.generation]``.
        detect: Whether nobody has said how it thinks, so that :func:`complete` may look.
    """

    alias: str
    source: str
    revision: str | None = None
    quantization: Quantization = "none"
    dtype: DType = "auto"
    context: int | None = None
    thinking: ThinkingFormat | None = None
    kind: Kind = "hub"
    endpoint: Endpoint | None = None
    price: Price | None = None
    generation: OwnSettings = ()
    detect: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "alias", printable_name(self.alias))

    @property
    def model_id(self) -> str:
        """What its makers call the model, as far as that is known: a hub id, a path, an address."""
        if self.kind == "server" and self.endpoint is not None:
            facts = self.endpoint.facts
            said = (facts.root or facts.served) if facts else self.endpoint.served
            return said or self.source
        return self.source
