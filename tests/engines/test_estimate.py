"""The memory estimate against what the embedded model really used, and architectures by hand."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pytest_tokenbudget.common import xdist
from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.engines import loading
from pytest_tokenbudget.engines.memory_estimate import (
    cache_bytes,
    estimate_memory,
    suggested_rows,
)
from pytest_tokenbudget.engines.transformers import weights
from pytest_tokenbudget.estimate import main, size
from pytest_tokenbudget.models.resolution import DEFAULT_MODEL, load_catalogue, resolve_model

WITHIN = 0.15


@pytest.fixture(scope="module")
def spec():
    return resolve_model(DEFAULT_MODEL, load_catalogue())


@pytest.fixture(scope="module")
def config(spec):
    return loading.load_config(spec)


def storages(model):
    """Bytes of all storages behind a model, the scales of quantised ones included."""
    found = {}
    for module in model.modules():
        for tensor in [*module._parameters.values(), *module._buffers.values()]:
            if tensor is None:
                continue
            state = getattr(tensor, "quant_state", None)
            nested = getattr(state, "state2", None)
            parts = [tensor.data, getattr(tensor, "SCB", None)]
            parts += [getattr(state, name, None) for name in ("absmax", "code", "offset")]
            parts += [getattr(nested, name, None) for name in ("absmax", "code")]
            for part in parts:
                if isinstance(part, torch.Tensor):
                    storage = part.untyped_storage()
                    found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def generate(model, rows, prompt, budget):
    ids = torch.arange(rows * prompt, device=model.device).reshape(rows, prompt) % 1000 + 5
    mask = torch.ones_like(ids)
    # As in the engine's batches, not all rows are equally long.
    mask[0, : prompt // 4] = 0
    with torch.inference_mode():
        return model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=budget,
            min_new_tokens=budget,
            do_sample=False,
            return_dict_in_generate=True,
        )


def peak_on_cpu(run):
    """The most bytes that tensors made by ``run`` had at once, by the allocator's own account."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        result = run()
    steps = []

    def collect(events):
        for event in events:
            if event.tag.name == "Allocation":
                steps.append((event.start_time_ns, event.extra_fields.alloc_size))
            collect(event.children)

    collect(profile.profiler.kineto_results.experimental_event_tree())
    held = most = 0
    for _, bytes_ in sorted(steps):
        held += bytes_
        most = max(most, held)
    return result, most


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
def test_weights_are_counted_exactly(spec, config, quantization):
    model = weights.load_weights(spec, config, "cpu", torch.float32, quantization)
    counted = estimate_memory(config, budget=1, dtype="float32", quantization=quantization)
    assert counted.weights == storages(model)
    if quantization == "none":
        assert counted.parameters == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(("rows", "prompt", "budget"), [(8, 100, 16), (4, 300, 8), (8, 40, 80)])
def test_the_estimate_covers_what_the_embedded_model_used(spec, config, rows, prompt, budget):
    model = weights.load_weights(spec, config, "cpu", torch.float32, "none")
    told = estimate_memory(config, budget=budget, prompt=prompt, rows=rows, dtype="float32")
    result, peak = peak_on_cpu(lambda: generate(model, rows, prompt, budget))
    cache = sum(layer.keys.nbytes + layer.values.nbytes for layer in result.past_key_values.layers)
    assert told.cache == cache
    used = storages(model) + peak
    assert told.total == pytest.approx(used, rel=WITHIN)
    # The weights alone would not hide an estimate of the rows that is far off.
    assert told.total - told.weights == pytest.approx(peak, rel=WITHIN)


@pytest.mark.gpu
@pytest.mark.skipif(not xdist.visible_gpus(), reason="needs a CUDA GPU; none is visible")
@pytest.mark.parametrize("quantization", ["none", "4bit"])
def test_the_estimate_covers_what_a_gpu_used(spec, config, quantization):
    """The embedded model at sizes where its rows, not CUDA's own workspaces, fill the memory."""
    model = weights.load_weights(spec, config, "cuda", torch.float32, quantization)
    rows, prompt, budget = 128, 512, 64
    generate(model, 2, 8, 2)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    generate(model, rows, prompt, budget)
    used = torch.cuda.max_memory_allocated()
    told = estimate_memory(
        config, budget=budget, prompt=prompt, rows=rows, dtype="float32", quantization=quantization
    )
    assert told.total == pytest.approx(used, rel=WITHIN)


def test_more_of_anything_needs_more(config):
    def total(**changes):
        return estimate_memory(config, **({"budget": 512, "prompt": 64, "rows": 4} | changes)).total

    assert total(budget=1024) > total() > total(rows=2) > total(rows=2, budget=256)
    assert total(dtype="float32") > total() > total(quantization="8bit")
    assert total(quantization="8bit") > total(quantization="4bit")


def test_the_largest_batch_fits_and_one_more_does_not(config):
    told = estimate_memory(config, budget=1000, prompt=100)
    memory = 10**8
    rows = told.largest_batch(memory, reserve=0)
    assert estimate_memory(config, budget=1000, prompt=100, rows=rows).total <= memory
    assert estimate_memory(config, budget=1000, prompt=100, rows=rows + 1).total > memory
    assert told.largest_batch(memory) < rows
    assert told.largest_batch(told.weights // 2) == 0


def test_a_sliding_window_stops_growing():
    sliding = AutoConfig.for_model(
        "gpt_oss", num_hidden_layers=4, hidden_size=64, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, sliding_window=128,
    )  # fmt: skip
    a_token = 2 * 2 * 16 * 2
    bytes_, notes = cache_bytes(sliding, torch.bfloat16, 1000)
    assert bytes_ == a_token * (2 * 1000 + 2 * 127)
    assert notes == ["2 of 4 layers keep a window of 128 tokens"]
    assert cache_bytes(sliding, torch.bfloat16, 100)[0] == a_token * 4 * 100


@pytest.mark.parametrize(("shared", "kept"), [(0, 12), (6, 6)])
def test_layers_that_differ_are_counted_one_by_one(shared, kept):
    """Gemma 4's: windows with many narrow heads, full attention with few wide ones."""
    config = AutoConfig.for_model(
        "gemma4_text", hidden_size=64, intermediate_size=128, num_hidden_layers=12,
        layer_types=(["sliding_attention"] * 5 + ["full_attention"]) * 2, sliding_window=16,
        num_attention_heads=4, num_key_value_heads=2, num_global_key_value_heads=1,
        head_dim=16, global_head_dim=32, attention_k_eq_v=True, num_kv_shared_layers=shared,
        vocab_size=300, vocab_size_per_layer_input=300, hidden_size_per_layer_input=8,
        pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    result = generate(model, 1, 40, 9)
    layers = [layer for layer in result.past_key_values.layers if layer.keys is not None]
    assert len(layers) == kept
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    assert cache_bytes(config, torch.float32, 48)[0] == held
    assert estimate_memory(config, budget=9, prompt=40, dtype="float32").cache == held


def test_latent_attention_is_counted_unfolded_and_said():
    latent = AutoConfig.for_model("deepseek_v3", num_hidden_layers=2)
    bytes_, notes = cache_bytes(latent, torch.bfloat16, 10)
    assert bytes_ == 2 * 128 * (128 + 64 + 128) * 2 * 10
    assert "latent attention: 0 MiB a row in engines that keep the latent" in notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 0}, "budget must be at least 1, not 0"),
        ({"rows": 0}, "rows must be at least 1, not 0"),
        ({"dtype": "int4"}, "unknown dtype 'int4'; allowed are float32, bfloat16, float16"),
    ],
)
def test_bad_estimates_are_refused(config, change, message):
    with pytest.raises(EngineError, match=message):
        estimate_memory(config, **({"budget": 10} | change))


def test_the_rule_of_thumb():
    assert [suggested_rows(tokens) for tokens in (512, 4096, 8192, 64_000)] == [4, 4, 2, 1]


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("24GB", 24 * 10**9), ("80GiB", 80 * 2**30), ("512 MiB", 2**29), ("1.5g", 15 * 10**8)],
)
def test_sizes_of_memory_are_read(text, bytes_):
    assert size(text) == bytes_


def test_the_command_line(capsys, tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    context = config.max_position_embeddings
    much = ["--budget", "64", str(context), "--memory", "24GB", "--batch", "2"]
    assert main([str(tmp_path), *much]) == 0
    shown = capsys.readouterr().out
    assert f"{estimate_memory(config, budget=1).parameters:,} parameters" in shown
    assert "rule of thumb" in shown
    assert f"{context + 512:,} tokens are more than the model's context of {context:,}" in shown
    assert main([str(tmp_path), "--budget", "64", "--json", "--memory", "24GB"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["total"] == told["weights"] + told["cache"] + told["working"]
    assert told["largest_batch"] > 1000


def test_the_command_line_says_what_is_wrong(capsys, tmp_path):
    assert main([str(tmp_path)]) == 4
    assert "holds no config.json" in capsys.readouterr().err
    assert main(["no-such-model"]) == 4
    assert "unknown model 'no-such-model'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["nano-reasoner", "--memory", "much"])
    assert stopped.value.code == 2
    assert "'much' is no size; write 24GB or 80GiB" in capsys.readouterr().err
