"""A recipe as settings for vLLM, SGLang, llama.cpp and Transformers.

What each engine keeps is stated as its documentation and source had it in autumn 2026; whether the
version at hand does is what ``pytest evals -m conformance`` measures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

from pytest_tokenbudget.models.thinking_off import OffVerdict, shows_thinking, thinking_disabled
from pytest_tokenbudget.recipes.recipe import RecipeError, Serving
from pytest_tokenbudget.recipes.settings import ChatTemplate, EngineSettings, Keeping
from pytest_tokenbudget.texts.thinking_blocks import ThinkingFormat

VLLM_DOCS: Final = "https://docs.vllm.ai/en/latest/features/reasoning_outputs/"
VLLM_BUDGET: Final = "https://github.com/vllm-project/vllm/pull/20859 (merged 2026-03-25)"
VLLM_END: Final = "https://github.com/vllm-project/vllm/issues/39697 (open 2026-08)"
VLLM_RUNNER: Final = "https://github.com/vllm-project/vllm/issues/50473"
VLLM_RUNNER_MENDED: Final = "https://github.com/vllm-project/vllm/pull/46727"
VLLM_MTP: Final = "https://github.com/vllm-project/vllm/issues/54906 (open 2026-09)"
VLLM_EXTRA: Final = (
    "https://discuss.vllm.ai/t/thinking-token-budget-silently-ignored-when-passed-via-extra-args-"
    "in-vllm-0-18-0/2533"
)
SGLANG_DOCS: Final = "https://docs.sglang.io/docs/advanced_features/thinking_budget"
SGLANG_BUG: Final = "https://github.com/sgl-project/sglang/issues/25536 (0.5.11 and 0.5.12)"
LLAMA_DOCS: Final = "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md"
LLAMA_BUDGET: Final = "https://github.com/ggml-org/llama.cpp/pull/20297 (March 2026)"
LLAMA_REQUEST: Final = "https://github.com/ggml-org/llama.cpp/pull/23673"
HARMONY: Final = "https://github.com/kekzl/imp/pull/800"

TEMPLATE_BUDGETS: Final = ("max_thinking_tokens", "thinking_budget", "reasoning_budget")
_ZERO: Final = "budget 0 was unbounded, or leaked a tag into the answer, in some versions; prove it"


def vllm_settings(serving: Serving, template: ChatTemplate | None) -> EngineSettings:
    """The ``vllm serve`` command line and the fields of each request."""
    family, thinking, tokens = serving.family, serving.thinking, serving.tokens
    command = ["vllm", "serve", serving.model, "--served-model-name", serving.recipe.id]
    if thinking is None:
        return _nothing_known("vllm", serving, command, "refuses thinking_token_budget (HTTP 400)")
    if family is not None and family.vllm_parser:
        command += ["--reasoning-parser", family.vllm_parser]
    # What ends thinking for good: the close tag, with a header if any.
    end = thinking.closer("bare").text.strip()
    marks = {"reasoning_start_str": thinking.open, "reasoning_end_str": end}
    command += ["--reasoning-config", json.dumps(marks, ensure_ascii=False)]
    off, fields = _off(serving, template)
    request = {"model": serving.recipe.id, "thinking_token_budget": tokens, **fields}
    warnings = [
        "the field stands at the top level of the body (with the openai client: in extra_body); in "
        "chat_template_kwargs or in extra_args it is dropped without an error",
        "older versions whose model runner V2 refuses the field (HTTP 400) need "
        "VLLM_USE_V2_MODEL_RUNNER=0; before 0.19 the field does not exist; with MTP speculative "
        "decoding, model runner V2 was seen to ignore it",
        "put no closing sentence into reasoning_end_str: vLLM's model runner V1 then does not see "
        "that the model closed its thinking itself, goes on counting, and writes the sentence into "
        "the answer (0.32 still does)",
    ]
    if family is None:
        parser = _usual_parser(thinking)
        warnings.append(
            "no --reasoning-parser is known for this model: thinking stays part of the content"
            + (f"; {parser} splits off what stands in <think>" if parser else "")
        )
    if tokens == 0:
        warnings.append(_ZERO)
    keeping = Keeping.ENFORCED
    because = f"after {tokens:,} thinking tokens the closing tag is the only token that may come"
    sources = [VLLM_DOCS, VLLM_BUDGET, VLLM_END, VLLM_RUNNER, VLLM_RUNNER_MENDED, VLLM_MTP]
    sources.append(VLLM_EXTRA)
    if _is_harmony(serving):
        sources.append(HARMONY)
        keeping = Keeping.UNPROVEN
        because = (
            "vLLM documents no budget for harmony channels; the end that is written here opens the "
            "final channel, since a bare <|end|> lets the model open another analysis"
        )
    return EngineSettings(
        "vllm",
        keeping,
        _with_off(because, off),
        command=tuple(command),
        request=request,
        warnings=tuple(warnings),
        sources=tuple(sources),
    )


def sglang_settings(serving: Serving, template: ChatTemplate | None) -> EngineSettings:
    """The SGLang server's command line and the fields of each request."""
    family, tokens = serving.family, serving.tokens
    command = ["python", "-m", "sglang.launch_server", "--model-path", serving.model]
    command += ["--served-model-name", serving.recipe.id]
    if serving.thinking is None:
        return _nothing_known("sglang", serving, command, "drops thinking_budget")
    off, fields = _off(serving, template)
    request: dict[str, object] = {"model": serving.recipe.id, **fields}
    # Template variables that tell the model its budget, where the template reads one; the switch
    # for thinking is needed with a budget of 0 only, so there are never both.
    switches = template.switches if template and tokens else ()
    hints = {s.name: tokens for s in switches if s.name in TEMPLATE_BUDGETS and s.works}
    if hints:
        request["chat_template_kwargs"] = hints
    if family is None or family.sglang_parser is None:
        told = (
            f"the template is told the budget ({', '.join(hints)}), and nothing enforces it"
            if hints
            else "and its template reads no budget"
        )
        because = (
            "SGLang has no reasoning parser for this model, so strict thinking cannot be used; "
            + told
        )
        return EngineSettings(
            "sglang",
            Keeping.SOFT if hints else Keeping.IGNORED,
            _with_off(because, off),
            command=tuple(command),
            request=request,
            sources=(SGLANG_DOCS,),
        )
    command += ["--reasoning-parser", family.sglang_parser, "--enable-strict-thinking"]
    request["custom_params"] = {"thinking_budget": tokens}
    keeping = Keeping.ENFORCED
    because = f"strict thinking: after {tokens:,} tokens only the closing tag may come"
    warnings = [
        "without --enable-strict-thinking, or with --grammar-backend none, the budget is dropped; "
        "send it with each request: as a server-wide preferred sampling parameter it was not kept"
    ]
    if _is_harmony(serving):
        keeping = Keeping.SOFT
        because = (
            "strict thinking forces <|end|>, which closes one analysis message; the model may open "
            "another one, and that is not counted"
        )
    if tokens == 0:
        warnings.append(_ZERO)
    return EngineSettings(
        "sglang",
        keeping,
        _with_off(because, off),
        command=tuple(command),
        request=request,
        warnings=tuple(warnings),
        sources=(SGLANG_DOCS, SGLANG_BUG) + ((HARMONY,) if _is_harmony(serving) else ()),
    )


def llama_settings(serving: Serving, template: ChatTemplate | None) -> EngineSettings:
    """The llama.cpp server's command line and the fields of each request."""
    family, tokens = serving.family, serving.tokens
    warnings = []
    model = serving.model
    where = ["-m", model]
    if not model.lower().endswith(".gguf"):
        if model.lower().endswith("-gguf"):
            where = ["-hf", model]
        else:
            warnings.append(
                "llama.cpp loads GGUF files: put a converted file of this model in place of "
                f"{model}, or name one as model_path"
            )
    command = ["llama-server", *where, "--alias", serving.recipe.id, "--jinja"]
    off, fields = _off(serving, template)
    command += ["--reasoning", "off" if tokens == 0 else "on", "--reasoning-budget", str(tokens)]
    if family is not None and family.message and tokens:
        command += ["--reasoning-budget-message", family.message]
    warnings += [
        "the template must show where thinking begins and ends (llama.cpp looks for the tags in "
        "what it renders); with one that does not, the budget is dropped without a word",
        "in some versions a --reasoning-budget at the start made the request's field void (not in "
        "build 11434); leave the option out to set budgets by request only",
    ]
    if "--reasoning-budget-message" in command:
        warnings.append(
            "a request that switches thinking off gets a piece of the message into its answer "
            "(build 11434): leave the message out where such requests come"
        )
    if tokens == 0:
        warnings.append(_ZERO)
    marks = serving.thinking or ThinkingFormat()
    if serving.thinking is None:
        keeping = Keeping.UNPROVEN
        because = "nobody knows how this model marks its thinking; llama.cpp reads its template"
    elif _is_harmony(serving):
        keeping = Keeping.UNPROVEN
        because = "llama.cpp documents no budget for harmony channels"
    elif (
        tokens
        and template is not None
        and template.own
        and not shows_thinking(template.render, marks.open, marks.close)
    ):
        keeping = Keeping.IGNORED
        because = (
            f"{template.label} neither opens a thinking block nor renders reasoning_content, so "
            f"llama.cpp does not know the tags and drops the budget; --chat-template-file with a "
            f"template that renders it helps"
        )
    else:
        keeping = Keeping.ENFORCED
        because = (
            f"after {tokens:,} thinking tokens the message and the closing tag are forced; "
            f"counting begins anew with each block, so a model that opens several gets it each time"
        )
    return EngineSettings(
        "llama.cpp",
        keeping,
        _with_off(because, off),
        command=tuple(command),
        request={"model": serving.recipe.id, "thinking_budget_tokens": tokens, **fields},
        warnings=tuple(warnings),
        sources=(LLAMA_DOCS, LLAMA_BUDGET, LLAMA_REQUEST),
    )


def transformers_settings(serving: Serving, template: ChatTemplate | None) -> EngineSettings:
    """Two passes, as this suite's own thinking eval makes them."""
    tokens, thinking = serving.tokens, serving.thinking or ThinkingFormat()
    off, _ = _off(serving, template)
    answer = serving.recipe.answer_tokens
    sentence = serving.family.sentence if serving.family else None
    # The user's own format of a known model need not have the family's words.
    known = sentence in [closer.name for closer in thinking.closers]
    closer = thinking.closer(sentence if known else None).text
    steps = [
        f"1. generate with thinking on and max_new_tokens={tokens}"
        if tokens
        else "1. no first pass: the budget is 0",
        "2. if thinking is still open there, append the closer " + json.dumps(closer),
        f"3. generate the answer with max_new_tokens={answer}",
        f"measured: pytest evals -m thinking --model {serving.recipe.model_path} "
        f"--thinking-budgets {tokens} --answer-tokens {answer}",
    ]
    return EngineSettings(
        "transformers",
        Keeping.ENFORCED,
        _with_off(
            "generate() itself knows no thinking budget; two passes keep it to the token", off
        ),
        text="\n".join(f"# {step}" for step in steps),
        warnings=()
        if serving.thinking
        else (f"nobody knows how this model marks its thinking; {thinking.close} is a guess",),
        sources=("docs/thinking.md of this project", "https://arxiv.org/abs/2501.19393"),
    )


Writer = Callable[[Serving, ChatTemplate | None], EngineSettings]
WRITERS: Final[Mapping[str, Writer]] = {
    "vllm": vllm_settings,
    "sglang": sglang_settings,
    "llama.cpp": llama_settings,
    "transformers": transformers_settings,
}


def off_verdict(serving: Serving, template: ChatTemplate | None) -> OffVerdict | None:
    """Whether the model's template can switch thinking off; None where none is at hand."""
    if template is None:
        return None
    thinking = serving.thinking or ThinkingFormat()
    return thinking_disabled(template.render, thinking.open, thinking.close)


def _is_harmony(serving: Serving) -> bool:
    """Whether the answer needs a header of its own, so that closing alone ends nothing."""
    return bool(serving.thinking and serving.thinking.answer)


def _off(serving: Serving, template: ChatTemplate | None) -> tuple[str, Mapping[str, object]]:
    """For a budget of 0: what the template says to it, and the switch as a request's field."""
    if serving.tokens:
        return "", {}
    verdict = off_verdict(serving, template)
    if verdict is None or template is None:
        return "no chat template at hand says whether the prompt can be without thinking", {}
    fields = {"chat_template_kwargs": verdict.variables} if verdict.variables else {}
    return f"{template.label}: {verdict.sentence()}", fields


def _usual_parser(thinking: ThinkingFormat | None) -> str:
    """The parser of vLLM for the most common tags; empty for others."""
    usual = ThinkingFormat()
    if thinking is None or (thinking.open, thinking.close) != (usual.open, usual.close):
        return ""
    return f"--reasoning-parser {'deepseek_r1' if thinking.prompt_opens else 'qwen3'}"


def _with_off(because: str, off: str) -> str:
    return f"{because}. The prompt: {off}" if off else because


def _nothing_known(engine: str, serving: Serving, command: list[str], does: str) -> EngineSettings:
    if not serving.model:
        raise RecipeError(f"recipe {serving.recipe.id!r} names no model")
    return EngineSettings(
        engine,
        Keeping.IGNORED,
        f"nobody knows how {serving.model} marks its thinking, and without a reasoning parser "
        f"{engine} {does}; name the marks in tokenbudget.toml (models.ALIAS.thinking)",
        command=tuple(command),
        request={"model": serving.recipe.id},
        sources=(VLLM_DOCS if engine == "vllm" else SGLANG_DOCS,),
    )
