"""A checkpoint whose tensors are not those that its configuration asks for is refused."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fixtures.training.gguf_export import export
from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.engines import loading
from pytest_tokenbudget.engines.transformers import weights
from pytest_tokenbudget.models.resolution import ModelSpec, load_catalogue

SOURCE = Path(load_catalogue()["nano-reasoner"].source)
WEIGHTS = load_file(SOURCE / "model.safetensors")
LAYER = "model.layers.1.mlp.up_proj.weight"
EXTRA = "model.layers.9.mlp.up_proj.weight"
QUANTIZED = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def checkpoint(folder: Path, weights: dict[str, torch.Tensor], shards: int = 1, **config: object):
    """The embedded model's directory with other weights and changes to its configuration."""
    folder.mkdir()
    for file in SOURCE.iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copy(file, folder)
    described = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(described))
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        places = {}
        for number in range(shards):
            names = list(weights)[number::shards]
            file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
            part = {name: weights[name] for name in names}
            save_file(part, folder / file, metadata={"format": "pt"})
            places.update(dict.fromkeys(names, file))
        index = {"metadata": {}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return ModelSpec(folder.name, str(folder), kind="directory")


def load(spec: ModelSpec, quantization: str = "none"):
    config = loading.load_config(spec)
    return weights.load_weights(spec, config, "cpu", torch.float32, quantization)


def without(*names: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in WEIGHTS.items() if name not in names}


FAULTS = {
    "head": (WEIGHTS, {"tie_word_embeddings": False}, ["1 tensor missing: lm_head.weight."]),
    "layer": (without(LAYER), {}, [f"1 tensor missing: {LAYER}."]),
    "embedding": (without("model.embed_tokens.weight"), {}, ["missing", "embed_tokens.weight"]),
    "extra": (WEIGHTS | {EXTRA: torch.zeros(2, 2)}, {}, [f"1 tensor unexpected: {EXTRA}."]),
    "shape": (
        WEIGHTS | {LAYER: torch.zeros(3, 192)},
        {},
        [f"of the wrong shape: {LAYER} (3x192 in the file, 512x192 by the configuration)"],
    ),
    "too-few-layers": (WEIGHTS, {"num_hidden_layers": 3}, ["11 tensors unexpected", "6 more"]),
    "too-many-layers": (WEIGHTS, {"num_hidden_layers": 5}, ["11 tensors missing", "layers.4."]),
    "vocabulary": (WEIGHTS, {"vocab_size": 2048}, ["embed_tokens.weight (1024x192 in the file"]),
    "renamed": (
        without(LAYER) | {LAYER.replace("up", "upward"): WEIGHTS[LAYER]},
        {},
        [f"missing: {LAYER};", "1 tensor unexpected: model.layers.1.mlp.upward_proj.weight"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("shards", [1, 3])
def test_wrong_tensors_are_refused_by_name(tmp_path, fault, shards):
    weights, config, parts = FAULTS[fault]
    spec = checkpoint(tmp_path / fault, weights, shards, **config)
    with pytest.raises(EngineError) as caught:
        load(spec)
    assert all(part in str(caught.value) for part in (f"model {fault}: ", *parts))


@QUANTIZED
@pytest.mark.parametrize("fault", ["head", "layer", "extra", "shape"])
@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_quantised_loading_refuses_the_same(tmp_path, fault, quantization):
    weights, config, parts = FAULTS[fault]
    spec = checkpoint(tmp_path / fault, weights, **config)
    with pytest.raises(EngineError) as caught:
        load(spec, quantization)
    assert all(part in str(caught.value) for part in parts)


@pytest.mark.parametrize("fault", ["layer", "embedding", "shape"])
def test_gguf_files_with_wrong_tensors_are_refused(tmp_path, fault):
    weights, config, parts = FAULTS[fault]
    source = Path(checkpoint(tmp_path / fault, weights, **config).source)
    file = export(source, tmp_path / "changed.gguf")
    with pytest.raises(EngineError) as caught:
        load(ModelSpec(fault, str(file), kind="gguf"))
    assert all(part in str(caught.value) for part in parts)


def test_a_gguf_file_with_more_layers_than_it_says_is_refused(tmp_path):
    file = export(SOURCE, tmp_path / "whole.gguf")
    spec = ModelSpec("whole", str(file), kind="gguf")
    assert len(load(spec).model.layers) == 4
    entry = b"qwen3.block_count" + struct.pack("<I", 4)  # the type's number, then the value
    data = file.read_bytes()
    assert data.count(entry + struct.pack("<I", 4)) == 1
    file.write_bytes(data.replace(entry + struct.pack("<I", 4), entry + struct.pack("<I", 3)))
    with pytest.raises(EngineError, match=r"11 tensors unexpected: blk\.3\.attn_k\.weight"):
        load(spec)


@pytest.mark.parametrize("shards", [1, 2])
def test_tied_weights_may_be_absent_or_there(tmp_path, shards):
    head = WEIGHTS["model.embed_tokens.weight"].clone()
    absent = load(checkpoint(tmp_path / "absent", WEIGHTS, shards))
    there = load(checkpoint(tmp_path / "there", WEIGHTS | {"lm_head.weight": head}, shards))
    apart = checkpoint(
        tmp_path / "apart", WEIGHTS | {"lm_head.weight": head}, shards, tie_word_embeddings=False
    )
    for model in (absent, there, load(apart)):
        assert torch.equal(model.lm_head.weight, head)


def test_what_an_architecture_ignores_is_no_fault(tmp_path):
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(16)}
    assert load(checkpoint(tmp_path / "old", WEIGHTS | old)) is not None


@pytest.mark.slow
def test_a_run_with_such_a_model_fails_and_names_the_tensor(pytester, tmp_path):
    spec = checkpoint(tmp_path / "broken", without(LAYER))
    result = pytester.runpytest_subprocess(
        "--pyargs",
        "pytest_tokenbudget.evals",
        "-m",
        "phase1",
        f"--model={spec.source}",
        "--num-samples=2",
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    shown = " ".join(result.outlines)
    assert LAYER in shown
