"""Code that lies beside a model is never run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from engine_helpers import GREEDY, SPEC, make_engine, requests

from pytest_tokenbudget.core.engine import EngineError

MARKER = "was_run"
CODE = """
import pathlib
pathlib.Path({marker!r}).write_text("{name}")
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
class Config(PretrainedConfig):
    model_type = "own"
class Model(PreTrainedModel):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
def generate(model, *args, **kwargs):
    pathlib.Path({marker!r}).write_text("generate")
    raise RuntimeError("run")
"""
AUTO_MAP = {
    "AutoConfig": "own_code.Config",
    "AutoModelForCausalLM": "own_code.Model",
    "AutoTokenizer": ["own_code.Tokenizer", "own_code.Tokenizer"],
}


def change(file: Path, **fields: object) -> None:
    found = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**found, **fields}))


@pytest.fixture
def own_code(tmp_path):
    """A copy of the embedded model that holds code of its own in every place for it."""
    folder = tmp_path / "model"
    shutil.copytree(SPEC.source, folder)
    marker = tmp_path / MARKER
    code = {name: CODE.format(marker=str(marker), name=name) for name in ("own_code", "generate")}
    (folder / "own_code.py").write_text(code["own_code"])
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code["generate"])
    (folder / "custom_generate" / "requirements.txt").write_text("no-such-package-anywhere\n")
    for name in ("config.json", "tokenizer_config.json"):
        change(folder / name, auto_map=AUTO_MAP)
    change(folder / "generation_config.json", custom_generate=str(folder))
    yield folder
    assert not marker.exists(), marker.read_text()
    assert "own_code" not in " ".join(sys.modules)


def spec_of(folder, **fields):
    return replace(SPEC, source=str(folder), **fields)


def test_code_beside_a_model_that_transformers_knows_is_not_run(own_code):
    engine = make_engine(spec=spec_of(own_code))
    plain = make_engine()
    try:
        wanted = requests(3, 24)
        ours = {r.request.key: r.output_ids for r in engine.generate(wanted, GREEDY)}
        theirs = {r.request.key: r.output_ids for r in plain.generate(wanted, GREEDY)}
        assert ours == theirs
        assert engine.encode("3 + 4") == plain.encode("3 + 4")
    finally:
        engine.close()
        plain.close()


@pytest.mark.slow
def test_the_code_would_leave_its_mark(own_code, tmp_path):
    """What the other tests look for is there where somebody trusts the code."""
    script = (
        "import sys; from transformers.models.auto.configuration_auto import AutoConfig; "
        "AutoConfig.from_pretrained(sys.argv[1], trust_remote_code=True)"
    )
    command = [sys.executable, "-c", script, str(own_code)]
    modules = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, env={**os.environ, **modules}, check=True, capture_output=True)
    (tmp_path / MARKER).unlink()


@pytest.mark.parametrize("place", ["model", "tokenizer"])
def test_a_model_that_needs_its_own_code_is_refused_in_a_sentence(own_code, place):
    if place == "model":
        change(own_code / "config.json", model_type="own", architectures=["Model"])
    else:
        change(own_code / "tokenizer_config.json", tokenizer_class="Tokenizer")
        (own_code / "tokenizer.json").unlink()
    engine = make_engine(spec=spec_of(own_code))
    with pytest.raises(EngineError, match="model nano-reasoner: ") as error:
        list(engine.generate(requests(1, 8), GREEDY))
    assert len(str(error.value)) < 500
    if place == "model":
        assert "runs code of its own, which is never executed here" in str(error.value)


def test_pickled_weights_are_not_loaded(own_code):
    """Unpickling them would run what they name."""
    marker = own_code.parent / MARKER
    for file in own_code.glob("*.safetensors"):
        file.unlink()
    program = f"cpathlib\nPath.touch\n(cpathlib\nPath\n(V{marker}\ntRtR."
    (own_code / "pytorch_model.bin").write_bytes(program.encode())
    engine = make_engine(spec=spec_of(own_code))
    with pytest.raises(EngineError, match="no usable weights in safetensors format"):
        list(engine.generate(requests(1, 8), GREEDY))


@pytest.mark.slow
def test_a_run_of_the_suite_runs_none_of_it(own_code, pytester):
    result = pytester.runpytest_subprocess(
        *("--pyargs", "pytest_tokenbudget.evals", "-m", "phase1", "-q"),
        *("--num-samples=2", "--budgets=32,64", f"--model={own_code}"),
    )
    result.assert_outcomes(passed=result.parseoutcomes().get("passed", 0))
    assert result.ret == 0
