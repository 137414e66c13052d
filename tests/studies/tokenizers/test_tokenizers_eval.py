"""What texts and templates cost in tokens, and counts before sending: by the real tokenizers."""

import json
import shutil
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from gguf_files import write_family
from runs import NANO, NO_ENGINE, QUIET, Engines, RealEngines, read
from server_scripted import ScriptedServer
from text_snapshots import TextFile, text_of
from tokenizers import Tokenizer, normalizers

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.engines import token_counter
from pytest_tokenbudget.engines.makers import make_server_engine
from pytest_tokenbudget.engines.token_counter import (
    NoTokenizerError,
    TokenCounter,
    count_tokens,
    open_counter,
)
from pytest_tokenbudget.engines.transformers.engine import TransformersEngine
from pytest_tokenbudget.models.resolution import (
    ModelError,
    ModelSpec,
    load_catalogue,
    resolve_model,
)
from pytest_tokenbudget.report.files import write_bytes
from pytest_tokenbudget.report.json_files import RunInfo
from pytest_tokenbudget.settings.endpoints import Endpoint, Facts
from pytest_tokenbudget.studies.tokenizers.analysis import (
    LIMITS,
    characters_that_fit,
    ratio_estimate,
    reports_of,
)
from pytest_tokenbudget.studies.tokenizers.report import tokenizers_record
from pytest_tokenbudget.studies.tokenizers.run import Tokenization, shown_change
from pytest_tokenbudget.studies.tokenizers.samples import SAMPLES, count_words
from pytest_tokenbudget.studies.tokenizers.template_cost import (
    conversation,
    conversations,
    template_cost,
)

pytest_plugins = ["run_fixtures", "servers"]

EVAL = ("--pyargs", "pytest_tokenbudget.evals.test_tokenizers", *QUIET)
FILE = "tokenizers_nano-reasoner.json"
TESTS = 2 * len(SAMPLES) + 1 + len(LIMITS) + 1
WITH_IDS = ("llamacpp", "vllm")
SERVERS = Engines(make_server_engine)
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def nano():
    return open_counter(thinking=False)


@pytest.fixture
def measure(run, monkeypatch):
    """A function that runs the eval; no engine is made, and figures are empty."""

    def save(draw, path, title):
        return [write_bytes(path.with_name(path.name + end), b"") for end in (".png", ".svg")]

    monkeypatch.setattr("pytest_tokenbudget.studies.tokenizers.figure.save_figure", save)

    def evaluate(*arguments, engines=NO_ENGINE):
        return run(*arguments, base=EVAL, engines=engines)

    return evaluate


@pytest.fixture
def with_template(tmp_path):
    """A function that gives a counter for the embedded tokenizer with another chat template."""

    def counter(template, thinking=None, edit=lambda tokenizer: None):
        folder = tmp_path / "model"
        shutil.copytree(NANO, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        if template is None:
            (folder / "chat_template.jinja").unlink()
        else:
            (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        edit(tokenizer)
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "model.safetensors").symlink_to(NANO / "model.safetensors")
        return open_counter(str(folder), thinking=thinking)

    return counter


# The texts


def test_texts_are_whole_and_parallel():
    for sample in SAMPLES.values():
        assert len(sample.passages) == 6, sample.name
        assert len(set(sample.passages)) == 6
        for text in sample.passages:
            assert text == unicodedata.normalize("NFC", text).strip()
            assert len(text) > 80, (sample.name, text)
    prose = [sample for sample in SAMPLES.values() if sample.parallel]
    assert len({sample.script for sample in prose}) >= 9
    # The same facts in the same order: digits are written alike everywhere.
    for sample in prose:
        assert [("412" in text, "2019" in text) for text in sample.passages] == [
            (place == 2, place == 2) for place in range(6)
        ], sample.name
    assert json.loads(SAMPLES["json"].passages[0])["order"] == 48213
    for text in SAMPLES["json"].passages:
        json.loads(text)
    for text in SAMPLES["python"].passages:
        compile(text, "passage", "exec")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (" ... --", 0),
        ("The cup isn't blue.", 4),
        ("3,141.59 and 2024-01-15", 5),
        ("l'hôpital, à l'est", 3),
        ("हिन्दी में लिखा", 3),
        ("max_tokens=12", 2),
    ],
)
def test_words_are_those_of_unicode(text, count):
    assert count_words(text) == count


# Rates and what fits


def test_a_rate_is_that_of_all_passages_together():
    found = ratio_estimate([10, 40], [10, 20])
    assert found.value == pytest.approx(50 / 30)
    # By hand: deviations -20/3 and 20/3, t quantile of one degree of freedom, mean length 15.
    half = 12.7062047 * (20 / 3) / 15
    assert found.low == pytest.approx(max(found.value - half, 0.0))
    assert found.high == pytest.approx(found.value + half)
    same = ratio_estimate([2, 4, 6], [10, 20, 30])
    assert (same.low, same.value, same.high) == pytest.approx((0.2, 0.2, 0.2))
    assert ratio_estimate([3], [6]).value == 0.5
    with pytest.raises(ValueError, match="pairs"):
        ratio_estimate([1], [0])


@pytest.mark.parametrize("spread", [0.05, 0.2])
def test_six_passages_are_enough_for_an_interval_that_holds(spread):
    chance = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        lengths = chance.integers(200, 450, 6)
        tokens = lengths * np.exp(chance.normal(-1, spread, 6))
        found = ratio_estimate(tokens, lengths)
        held += found.low <= np.exp(spread**2 / 2 - 1) <= found.high
    assert 920 <= held <= 970


def test_characters_said_to_fit_do_fit(nano):
    """The estimate against a text of just that length, encoded; the fewest against the densest."""
    for name in ("en", "ru", "zh", "python", "numbers"):
        passages = SAMPLES[name].passages
        tokens = [len(ids) for ids in nano.encode_all(passages)]
        lengths = [len(text) for text in passages]
        fit = characters_that_fit(2000, tokens, lengths)
        long = "\n".join(passages * 20)[: int(fit.characters.value)]
        assert nano.count_text(long) == pytest.approx(2000, rel=0.03), name
        densest = max(passages, key=lambda text: nano.count_text(text) / len(text))
        assert nano.count_text((densest * 40)[: fit.fewest]) <= 2000 * 1.01, name
        assert fit.fewest <= fit.characters.value <= fit.most
    nothing = characters_that_fit(-5, [2, 3], [4, 5])
    assert (nothing.fewest, nothing.characters.value, nothing.most) == (0, 0, 0)


# Counting before sending


@pytest.mark.parametrize("thinking", ["on", "off"])
def test_the_count_is_that_of_the_prompts_of_a_run(run, pytester, thinking):
    pytester.makepyfile(
        test_mine=f"""
        def test_counts(count_tokens, study, record_metrics):
            assert len(study.traces) == 3
            for problem in study.problems:
                sent = study.traces[problem.id, 0].prompt_ids
                assert count_tokens(problem.messages) == len(sent)
                assert count_tokens(problem.messages, {thinking != "on"}) != len(sent)
                assert count_tokens.room(problem.messages) == 2048 - len(sent)
        """
    )
    engines = RealEngines()
    result = run("test_mine.py", f"--thinking={thinking}", base=QUIET, engines=engines)
    result.assert_outcomes(passed=1)
    assert len(engines.seen) == 3


def test_a_plain_function_counts_what_the_engine_renders():
    engine = TransformersEngine(resolve_model("nano-reasoner", load_catalogue()), device="cpu")
    for messages in (*conversations(), HELLO):
        for thinking in (None, True, False):
            expected = len(engine.render(messages, thinking).ids)
            assert count_tokens(messages, thinking=thinking) == expected
    assert count_tokens(HELLO, str(NANO)) == count_tokens(HELLO)
    with pytest.raises(ModelError, match="nanoreasoner"):
        count_tokens(HELLO, "nanoreasoner")
    with pytest.raises(ModelError, match="address"):
        count_tokens(HELLO, "http://key@host/v1")


def test_an_engine_without_a_tokenizer_is_named(tmp_path):
    recorded = ModelSpec("old", "somewhere.json", kind="recorded")
    with pytest.raises(NoTokenizerError, match="recorded has no tokenizer"):
        TokenCounter(recorded)
    with (
        ScriptedServer(kind="openai") as server,
        pytest.raises(NoTokenizerError, match="--tokenizer NAME"),
    ):
        open_counter(server.url)
    path = write_family(tmp_path / "no-template.gguf", "llama")
    with pytest.raises(EngineError, match="no chat template"):
        count_tokens(HELLO, str(path))
    assert open_counter(str(path)).count_text("Hello") > 0


def test_no_weights_are_needed(with_template):
    counter = with_template("{{ messages[0].content }}")
    (token_counter.Path(counter.spec.source) / "model.safetensors").unlink()
    assert counter.count(HELLO) == counter.count_text("Hello")


def test_ids_and_counts_of_smollm2(smollm2_gguf):
    with open_counter(str(smollm2_gguf)) as counter:
        cost = template_cost(counter)
        assert cost.additive
        # Its template puts a system message in front where nobody wrote one.
        assert "You are a helpful AI assistant" in cost.before
        assert cost.opening == counter.count_text(cost.before.rpartition("<|im_start|>user")[0])
        assert cost.system < 0 < cost.generation
        assert counter.count(conversation("Hi")) == cost.question + counter.count_text("Hi")
        rates = {n: counter.encode_all(SAMPLES[n].passages) for n in ("en", "zh")}
        per = {n: sum(map(len, rates[n])) / sum(map(len, SAMPLES[n].passages)) for n in rates}
        assert per["en"] < 0.3 < 1 < per["zh"]
        assert counter.decode_all(rates["zh"]) == list(SAMPLES["zh"].passages)


# The template


def test_cost_of_the_embedded_template(nano):
    cost = template_cost(nano)
    header = nano.count_text("<|im_start|>user\n<|im_end|>\n")
    assert (cost.user, cost.assistant, cost.opening) == (
        header,
        nano.count_text("<|im_start|>assistant\n<|im_end|>\n"),
        0,
    )
    closed = nano.count_text("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert cost.generation == closed
    assert cost.question == header + closed
    assert cost.turn == cost.user + cost.assistant
    assert cost.system == nano.count_text("<|im_start|>system\n<|im_end|>\n")
    assert cost.by_thinking == {
        "on": header + nano.count_text("<|im_start|>assistant\n"),
        "off": cost.question,
    }
    assert (cost.checked, cost.exact, cost.largest) == (8, 8, 0)
    assert cost.empty is None
    assert len(cost.refused) == 1


NUMBERED = """{% for m in messages %}[{{ loop.index * 1000 }}] {{ m.content }}
{% endfor %}{% if add_generation_prompt %}>{% endif %}"""
NO_SYSTEM = """{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No system') }}
{% endif %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"""
LAST_ONLY = "{% if messages %}<|im_start|>{{ messages[-1].content }}<|im_end|>{% endif %}"


def test_a_template_whose_parts_do_not_add_up(with_template):
    cost = template_cost(with_template(NUMBERED))
    assert not cost.additive
    assert cost.exact < cost.checked == 8
    assert cost.largest != 0
    assert cost.generation == 1


def test_sentences_on_a_template_whose_parts_do_not_add_up(with_template, snapshot):
    cost = template_cost(with_template(NUMBERED))
    said = {"numbered messages": (cost.sentence(), cost.additive_sentence())}
    assert text_of(said) == snapshot(extension_class=TextFile)


def test_what_a_template_refuses_or_leaves_out(with_template):
    cost = template_cost(with_template(NO_SYSTEM))
    assert cost.system is None
    assert "No system" in cost.refused["a system message"]
    assert cost.checked == 4
    assert cost.additive
    assert cost.generation == 0


def test_a_template_that_forgets_the_history(with_template):
    cost = template_cost(with_template(LAST_ONLY))
    assert cost.turn is None
    assert "leaves 'Which river" in cost.refused["an answer in the history"]
    assert cost.checked == 0
    assert cost.additive


# The eval


def test_the_eval_of_the_embedded_model(measure, pytester):
    result = measure()
    # Limits beyond its context, that of its context twice, and no server.
    result.assert_outcomes(passed=TESTS - 4, skipped=4)
    result.stdout.no_fnmatch_line("*reports are not complete*")
    found = read(pytester.path, FILE)
    assert found["complete"] is True
    assert found["missing"] == []
    assert [text["name"] for text in found["texts"]] == list(SAMPLES)
    for text in found["texts"]:
        sample = SAMPLES[text["name"]]
        assert (text["words"] is None) is (text["per_word"] is None) is not sample.spaced
        assert (text["against"] is not None) is sample.parallel
        assert text["round_trip"]["same"] == 6
        assert text["tokens"] == sum(count_text(t) for t in sample.passages)
    assert [limit["limit"] for limit in found["limits"]] == [512, 2048]
    assert found["template"]["question"] == found["limits"][0]["overhead"] == 12
    assert found["server"] is None
    [report] = reports_of(read(pytester.path, "metrics.json"))
    again = tokenizers_record(report, RunInfo())
    for part in ("texts", "template", "limits", "summary"):
        assert again[part] == found[part], part
    other = dict(report.texts, en=replace(report.texts["en"], digest="other"))
    assert report.same_ids(report)
    assert not report.same_ids(replace(report, texts=other))
    names = {path.name for path in (pytester.path / "reports" / "figures").iterdir()}
    assert names == {"tokenizers_nano-reasoner.png", "tokenizers_nano-reasoner.svg"}


def count_text(text):
    return token_counter._cached_counter("nano-reasoner").count_text(text)


def test_part_of_the_eval_says_what_is_missing(measure, pytester):
    result = measure("-k", "test_tokens_of_text and ([zh- or [en-)")
    result.stdout.fnmatch_lines(["* parts not measured in this run: rate of de, ..."])
    found = read(pytester.path, FILE)
    assert found["complete"] is False
    assert "cost of the chat template" in found["missing"]


@pytest.mark.slow
def test_several_models_side_by_side(measure, pytester, tmp_path):
    """One whose tokenizer loses capitals, one without a chat template."""
    lossy = tmp_path / "lossy"
    shutil.copytree(NANO, lossy)
    tokenizer = Tokenizer.from_file(str(lossy / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(lossy / "tokenizer.json"))
    bare = write_family(tmp_path / "bare.gguf", "llama-no-prefix")
    result = measure(f"--model=nano-reasoner,{lossy},{bare}")
    assert not result.parseoutcomes().keys() & {"failed", "errors"}
    result.stdout.fnmatch_lines(
        [
            "not every passage comes back as it was: English 0 of 6,*",
            "bare has no chat template",
            "*- 3 models: tokens a character -*",
            "text *nano-reasoner*lossy*bare",
            "English *",
        ]
    )
    found = read(pytester.path, "tokenizers_comparison.json")
    assert list(found["models"]) == ["nano-reasoner", "lossy", "bare"]
    assert found["same_ids"] == []
    assert set(found["texts"]) == set(SAMPLES)
    trip = read(pytester.path, "tokenizers_lossy.json")["texts"][0]["round_trip"]
    assert trip["same"] == 0
    assert (
        trip["change"] == "'The old harbour wakes be' becomes 'the old harbour wakes be' at "
        "character 0"
    )
    bare_found = read(pytester.path, "tokenizers_bare.json")
    assert bare_found["no_template"] == "bare has no chat template"
    assert bare_found["complete"] is True
    assert bare_found["limits"][0]["overhead"] == 0


def test_servers_without_a_tokenizer_are_skipped(measure):
    with ScriptedServer(kind="openai") as server:
        result = measure(f"--model={server.url}", "-rs", "-k", "[en- or template")
    assert not result.parseoutcomes().keys() & {"passed", "failed", "errors"}
    result.stdout.fnmatch_lines(["SKIPPED*does not tokenize*"])


def test_changes_are_shown_where_they_begin():
    assert shown_change("abcdefg", "abcdeXg") == "'bcdefg' becomes 'bcdeXg' at character 5"
    assert shown_change("abc", "ab") == "'abc' becomes 'ab' at character 2"


def test_a_server_that_only_tokenizes():
    """SGLang: texts are counted, the template is not."""
    facts = Facts("sglang", "", "m", 2048, "", ids=True, tokenizes=True)
    endpoint = Endpoint(("http://127.0.0.1:9/v1",), facts=facts)
    spec = ModelSpec("m", endpoint.urls[0], kind="server", endpoint=endpoint)
    with TokenCounter(spec) as counter:
        measured = Tokenization(None, counter)
        assert "renders no messages" in measured.why_no_template()
        assert measured.why_no_server() == measured.why_no_template()
        assert measured.about["by"] == "its server"
        assert measured.about["context"] == 2048


# Real servers


def test_a_server_counts_what_was_counted_before(measure, server, pytester):
    """The eval by each kind of server: its own tokenizer, or the one here, and its own counts."""
    # Those that do not tokenize need one here.
    tokenizer = [] if server.kind in WITH_IDS else ["--tokenizer=nano-reasoner"]
    result = measure(
        f"--model={server.url}",
        "-k",
        "[en- or server or template or 512",
        *tokenizer,
        engines=SERVERS,
    )
    outcomes = result.parseoutcomes()
    assert "failed" not in outcomes
    assert "errors" not in outcomes
    result.stdout.fnmatch_lines(["its server counts the same tokens in 8 prompts"])
    [path] = (pytester.path / "reports" / "results").glob("tokenizers_*.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["server"]["ours"] == found["server"]["theirs"]
    with open_counter(thinking=False) as here:
        assert found["server"]["ours"] == [here.count(m) for m in conversations()]
        expected = template_cost(here)
    for part in ("question", "turn", "system", "opening", "user", "assistant", "generation"):
        assert found["template"][part] == getattr(expected, part), part
    with open_counter(server.url if server.kind in WITH_IDS else "nano-reasoner") as counter:
        usage = server.call(
            "/v1/chat/completions",
            {"model": server.model, "messages": HELLO, "max_tokens": 1},
        )["usage"]
        assert counter.count(HELLO) == usage["prompt_tokens"]
