"""What the Transformers engine loads, renders and refuses."""

from __future__ import annotations

import functools
import json
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from engine_helpers import (
    GREEDY,
    SPEC,
    collect,
    ids_of,
    make_engine,
    reference,
    requests,
)

from pytest_tokenbudget.core.engine import EngineError, Request
from pytest_tokenbudget.engines.transformers import weights
from pytest_tokenbudget.engines.transformers.engine import TransformersEngine
from pytest_tokenbudget.models.resolution import ModelSpec
from pytest_tokenbudget.texts.detokenizer import text_and_offsets


@pytest.fixture
def engine() -> Iterator[TransformersEngine]:
    engine = make_engine()
    yield engine
    engine.close()


def test_rendering_opens_the_answer_and_switches_thinking(engine):
    messages = [{"role": "user", "content": "What is 1 + 2?"}]
    plain, thinking = engine.render(messages, thinking=False), engine.render(messages, True)
    assert thinking.text.endswith("<|im_start|>assistant\n")
    assert plain.text == thinking.text + "<think>\n\n</think>\n\n"
    assert engine.render(messages) == thinking
    assert thinking.ids.count(engine.tokenizer.convert_tokens_to_ids("<|im_start|>")) == 2
    assert engine._model is None


def test_no_switch_no_argument():
    """A template that reads another variable must not be told one that it ignores."""
    spec = replace(SPEC, thinking=replace(SPEC.thinking, switch=None))
    messages = [{"role": "user", "content": "1 + 2?"}]
    assert not make_engine(spec=spec).render(messages, thinking=False).text.endswith("\n\n")


def test_text_keeps_thinking_tags_and_drops_ends(engine):
    encode = functools.partial(engine.tokenizer.encode, add_special_tokens=False)
    ids = encode("<think>\n3\n</think>\n\n#### 3<|im_end|><|endoftext|>")
    assert engine.decode(ids) == "<think>\n3\n</think>\n\n#### 3"
    text, offsets = text_and_offsets(engine.decode, ids)
    assert len(offsets) == len(ids)
    assert offsets[-3:] == (len(text),) * 3


def copy_model(target: Path, *left_out: str) -> ModelSpec:
    shutil.copytree(SPEC.source, target, ignore=shutil.ignore_patterns(*left_out))
    return replace(SPEC, alias=target.name, source=str(target))


def test_without_chat_template_nothing_is_made_up(tmp_path):
    spec = copy_model(tmp_path / "base-model", "chat_template*")
    with pytest.raises(EngineError, match="base-model: its tokenizer has no chat template"):
        make_engine(spec=spec).render([{"role": "user", "content": "1 + 2?"}])


def test_a_template_that_refuses_is_quoted(tmp_path):
    spec = copy_model(tmp_path / "strict", "chat_template*")
    template = "{{ raise_exception('system role not supported') }}"
    (tmp_path / "strict" / "chat_template.jinja").write_text(template)
    with pytest.raises(EngineError, match="system role not supported"):
        make_engine(spec=spec).render([{"role": "system", "content": "Be short."}])


def test_rendering_needs_no_weights_and_generation_says_so(tmp_path):
    engine = make_engine(spec=copy_model(tmp_path / "hollow", "*.safetensors"))
    prompt = engine.render([{"role": "user", "content": "1 + 2?"}])
    with pytest.raises(EngineError, match=r"hollow: .*safetensors"):
        collect(engine, [Request("a", prompt.ids, 4)])


def test_pickled_weights_are_never_loaded(tmp_path):
    spec = copy_model(tmp_path / "pickled", "*.safetensors")
    torch.save({}, tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(EngineError, match="pickled ones are never loaded"):
        collect(make_engine(spec=spec), requests(1, 4))


def test_code_of_a_model_is_never_run(tmp_path):
    spec = copy_model(tmp_path / "foreign")
    path = tmp_path / "foreign" / "config.json"
    config = json.loads(path.read_text())
    config["model_type"] = "foreign"
    config["auto_map"] = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    path.write_text(json.dumps(config))
    (tmp_path / "foreign" / "own.py").write_text("raise SystemExit('this code ran')")
    with pytest.raises(EngineError, match="foreign"):
        collect(make_engine(spec=spec), requests(1, 4))


def test_every_end_of_turn_counts(tmp_path):
    """A tokenizer may know an end of turn that neither configuration names."""
    spec = copy_model(tmp_path / "forgetful", "generation_config.json")
    path = tmp_path / "forgetful" / "config.json"
    config = json.loads(path.read_text())
    config["eos_token_id"] = None
    path.write_text(json.dumps(config))
    assert make_engine(spec=spec).eos_ids == make_engine().eos_ids == {0, 2}


def test_a_model_that_is_not_cached_and_no_network(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    spec = ModelSpec("far", "nobody/far-away", revision="main", context=100)
    with pytest.raises(EngineError, match=r"far: nobody/far-away .*not in the local cache"):
        make_engine(spec=spec).render([{"role": "user", "content": "1 + 2?"}])


def test_a_gated_model_says_where_to_ask(monkeypatch):
    import transformers

    def refuse(*args: Any, **options: Any) -> None:
        raise OSError("You are trying to access a gated repo.\nMake sure to have access to it")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    spec = ModelSpec("llama", "org/llama", revision="main", context=100)
    with pytest.raises(EngineError, match=r"gated.*https://huggingface.co/org/llama.*HF_TOKEN"):
        make_engine(spec=spec).decode([1])


def test_weights_that_do_not_fit_say_what_to_do(monkeypatch, engine):
    import transformers

    def run_out(*args: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", run_out)
    with pytest.raises(EngineError, match=r"weights do not fit.*--quantization 4bit"):
        collect(engine, requests(1, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "allowed are auto, cpu, cuda"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"device": "meta"}, "not supported"),
        ({"dtype": "int3"}, "allowed are auto, float32"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_bad_options_fail_before_anything_is_loaded(options, message):
    with pytest.raises(EngineError, match=message):
        make_engine(**options)


def test_loading_is_quiet_and_leaves_settings_alone(capfd):
    from transformers.utils import logging

    logging.set_verbosity_warning()
    logging.enable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine = make_engine()
        collect(engine, requests(2, 4))
        long = engine.render([{"role": "user", "content": "one more " * 3000}])
    assert len(long.ids) > engine.context
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert logging.get_verbosity() == logging.WARNING
    assert logging.is_progress_bar_enabled()


def write_gguf(path: Path) -> ModelSpec:
    """The embedded model as a GGUF file, weights in float32."""
    from safetensors.torch import load_file

    source = Path(SPEC.source)
    config = json.loads((source / "config.json").read_text())
    bpe = json.loads((source / "tokenizer.json").read_text())
    layers = config["num_hidden_layers"]
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(layers)
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    tokens = bpe["model"]["vocab"] | {
        added["content"]: added["id"] for added in bpe["added_tokens"]
    }
    special = {added["id"] for added in bpe["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(sorted(tokens, key=tokens.__getitem__))
    writer.add_token_types([3 if i in special else 1 for i in range(len(tokens))])
    writer.add_token_merges([" ".join(merge) for merge in bpe["model"]["merges"]])
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, layers)
    for name, tensor in load_file(source / "model.safetensors").items():
        if name != "lm_head.weight":
            own = names.get_name(name, try_suffixes=(".weight",))
            writer.add_tensor(own, tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return ModelSpec("nano-gguf", str(path), kind="gguf")


def test_a_gguf_file_generates_what_its_weights_say(tmp_path, capfd):
    spec = write_gguf(tmp_path / "nano.gguf")
    engine = make_engine(spec=spec)
    wanted = reference(GREEDY)
    short = [replace(request, cap=40) for request in requests(3)]
    made = collect(engine, short)
    assert engine.context == 2048
    assert ids_of(made) == {key: wanted[key].output_ids[:40] for key in made}
    assert capfd.readouterr().err == ""
    with pytest.raises(EngineError, match="--quantization none"):
        collect(make_engine(spec=spec, quantization="4bit"), short)


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_bitsandbytes_generates_on_the_cpu(quantization):
    engine = make_engine(quantization=quantization)
    results = collect(engine, requests(2, 6))
    kinds = {type(module).__name__ for module in engine._model.modules()}
    assert {"4bit": "Linear4bit", "8bit": "Linear8bitLt"}[quantization] in kinds
    assert all(len(done.output_ids) == 6 for done in results.values())


def test_bfloat16_only_where_the_card_has_it(monkeypatch):
    for real, wanted in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation, real=real: real
        )
        assert weights.choose_dtype("auto", "cuda:0") is wanted
    assert make_engine().dtype == "float32"
    assert make_engine(dtype="bfloat16").dtype == "bfloat16"
    assert make_engine(spec=replace(SPEC, dtype="float16")).dtype == "float16"


def test_context_comes_from_the_configuration_where_nobody_says():
    assert make_engine(spec=replace(SPEC, context=None)).context == 2048
