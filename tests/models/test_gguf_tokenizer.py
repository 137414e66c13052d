"""Tokenizers from GGUF files give the ids that llama.cpp gives, family by family."""

import hashlib
import json
import subprocess
import sys
import unicodedata
from dataclasses import replace
from itertools import combinations

import gguf
import pytest
from gguf_files import (
    FAMILIES,
    differing,
    digests,
    read_vocabulary,
    server_ids,
    stored,
    write_family,
    write_gguf,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import NANO
from varied_text import MARKUP, varied_lines

from pytest_tokenbudget.core.engine import EngineError
from pytest_tokenbudget.engines.text import ModelText
from pytest_tokenbudget.models.gguf_rules import SPLIT_RULES
from pytest_tokenbudget.models.gguf_tokenizer import (
    CANNOT,
    GgufTokenizerError,
    extract_eos_ids,
    load_gguf_tokenizer,
    merges_from_scores,
)
from pytest_tokenbudget.models.resolution import ModelSpec, load_catalogue, resolve_model

pytest_plugins = ["servers"]

KEYS = gguf.Keys.Tokenizer
LINES = varied_lines()
# llama.cpp leaves the combining marks out of what these say of words.
WITHOUT_MARKS = ("gpt-4o", "tekken")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A function that writes a family's file, once."""
    folder = tmp_path_factory.mktemp("families")

    def write(name):
        path = folder / f"{name}.gguf"
        return path if path.exists() else write_family(path, name)

    return write


def encoder(tokenizer, ends=False):
    return lambda text: tokenizer.encode(text, add_special_tokens=ends).ids


def has_marks(text):
    return any(unicodedata.category(char).startswith("M") for char in text)


def unlike(tokenizer, expected, name):
    """The lines whose ids are not those of llama.cpp, without those that it is known to split."""
    lines = [LINES[i] for i in differing(digests(encoder(tokenizer), LINES), expected)]
    if name in WITHOUT_MARKS:
        return [line for line in lines if not has_marks(line)]
    if name == "phi-3":
        # It looks for spaces byte by byte.
        return [line for line in lines if not any(c.isspace() and c > "\x7f" for c in line)]
    return lines


def test_the_stored_ids_are_of_these_lines():
    known = stored("ids.json")
    assert len(LINES) == len(set(LINES)) == 2000
    assert known.pop("lines") == hashlib.sha256("\0".join(LINES).encode()).hexdigest()
    assert set(known) == {*FAMILIES, "nano-reasoner", "smollm2"}
    # A test of one family would notice the rule of another.
    for one, other in combinations(known, 2):
        assert differing(known[one], known[other]), (one, other)


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_are_those_of_llamacpp(files, name):
    assert unlike(load_gguf_tokenizer(files(name)).tokenizer, stored("ids.json")[name], name) == []


def test_ids_of_the_embedded_model(embedded_gguf):
    tokenizer = load_gguf_tokenizer(embedded_gguf).tokenizer
    assert unlike(tokenizer, stored("ids.json")["nano-reasoner"], "nano-reasoner") == []


def test_ids_of_smollm2(smollm2_gguf):
    found = load_gguf_tokenizer(smollm2_gguf)
    assert unlike(found.tokenizer, stored("ids.json")["smollm2"], "smollm2") == []
    assert found.eos_ids == {0, 2}
    assert found.special["bos"] == "<|im_start|>"
    assert "{% for message in messages %}" in found.chat_template


@pytest.mark.llamacpp
@pytest.mark.parametrize("name", FAMILIES)
def test_a_server_gives_the_same_ids(files, start_server, name):
    """Also with BOS and EOS, and for texts that nobody chose."""
    server = start_server("llamacpp", model=files(name), slots=1, context=256)
    tokenizer = load_gguf_tokenizer(files(name)).tokenizer
    known = stored("ids.json")[name]
    assert digests(lambda text: server_ids(server, text), LINES[::10]) == "".join(
        known[2 * i : 2 * i + 2] for i in range(0, len(LINES), 10)
    )
    for text in ("", "Hello", " a", "<s>a</s>"):
        assert encoder(tokenizer, ends=True)(text) == server_ids(server, text, ends=True)

    # Surrogates cannot be sent; which characters are letters differs for those yet unassigned.
    outside = ["Cs", "Cn", "Co"]
    outside += ["Lu", "Lt", "Mn", "Mc", "Me"] if name in WITHOUT_MARKS else []
    letters = st.text(st.characters(exclude_categories=outside, exclude_characters="\u017f"))

    @settings(max_examples=100, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(st.sampled_from(MARKUP) | letters, max_size=6).map("".join))
    def same(text):
        assert encoder(tokenizer)(text) == server_ids(server, text)

    if name != "phi-3":
        same()


@pytest.mark.parametrize("name", FAMILIES)
def test_text_comes_back(files, name):
    tokenizer = load_gguf_tokenizer(files(name)).tokenizer
    lost = []
    for line in LINES:
        text = tokenizer.decode(encoder(tokenizer)(line), skip_special_tokens=False)
        # Each text after a special token gets a space in front, and only the first is taken away
        # again; a byte's name in text is that byte, as it is to llama.cpp.
        pieces = FAMILIES[name].vocabulary != "bytes"
        if text != line and not (pieces and any(each in line for each in MARKUP)):
            lost.append((line, text))
    assert lost == []


@pytest.mark.slow
def test_every_pre_tokenizer_that_is_known_can_be_built(tmp_path):
    vocabulary = read_vocabulary("bytes")
    for name in SPLIT_RULES:
        path = write_gguf(tmp_path / "any.gguf", vocabulary, name, weights=False)
        tokenizer = load_gguf_tokenizer(path).tokenizer
        assert tokenizer.decode(encoder(tokenizer)("it's 12345 €\n\n  x")) == "it's 12345 €\n\n  x"


def test_an_embedded_tokenizer_is_taken_as_it_is(tmp_path):
    text = (NANO / "tokenizer.json").read_text(encoding="utf-8")
    vocabulary = read_vocabulary("bytes")
    path = tmp_path / "embedded.gguf"
    write_gguf(path, vocabulary, "no-such", {KEYS.HF_JSON: text, KEYS.EOS_ID: 2, KEYS.BOS_ID: 0})
    found = load_gguf_tokenizer(path)
    assert found.embedded
    assert found.eos_ids == {0, 2}
    assert found.special["eos"] == "<|im_end|>"
    assert json.loads(found.tokenizer.to_str()) == json.loads(
        type(found.tokenizer).from_str(text).to_str()
    )


def test_an_empty_one_is_rebuilt_and_called_so(tmp_path):
    path = tmp_path / "blank.gguf"
    write_gguf(path, read_vocabulary("bytes"), "gpt-2", {KEYS.HF_JSON: " "})
    assert not load_gguf_tokenizer(path).embedded


BYTES, PIECES = read_vocabulary("bytes"), read_vocabulary("pieces")


@pytest.mark.parametrize(
    ("vocabulary", "metadata", "reason"),
    [
        (BYTES, {KEYS.PRE: "klingon"}, "pre-tokenizer 'klingon' is not known; known are gpt-2"),
        (BYTES, {KEYS.MODEL: "bert"}, "its kind is 'bert'; only gpt2"),
        (BYTES, {KEYS.MODEL: None}, "its kind is None"),
        (BYTES, {KEYS.MERGES: None}, "no merges"),
        (BYTES, {KEYS.LIST: None}, "no tokens"),
        (PIECES, {KEYS.SCORES: None}, "no score for each token"),
        (PIECES, {KEYS.SCORES: [0.5]}, "no score for each token"),
        (replace(PIECES, tokens=["a", *PIECES.tokens[:-1]]), {}, "twice"),
        (BYTES, {KEYS.HF_JSON: "{}"}, "tokenizer.json in it cannot be read"),
    ],
)
def test_what_is_not_enough_is_said(tmp_path, vocabulary, metadata, reason):
    path = write_gguf(tmp_path / "poor.gguf", vocabulary, "gpt-2", metadata, weights=False)
    with pytest.raises(GgufTokenizerError) as caught:
        load_gguf_tokenizer(path)
    assert str(caught.value) == CANNOT
    assert CANNOT == "GGUF: embedded tokenizer not found and cannot reconstruct from metadata"
    assert reason in caught.value.reason
    with pytest.raises(EngineError, match=r"poor: GGUF: embedded tokenizer not found .* use the"):
        ModelText(ModelSpec("poor", str(path), kind="gguf")).encode("a")


def test_a_file_that_ends_too_early(tmp_path, files):
    whole = files("llama").read_bytes()
    for size in (10, 300, 5000, 30000):
        path = tmp_path / "cut.gguf"
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="in the middle of its metadata"):
            load_gguf_tokenizer(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="empty"):
        load_gguf_tokenizer(path)
    path.write_bytes(b"GGML" + whole[4:])
    with pytest.raises(ValueError, match="letters GGUF"):
        load_gguf_tokenizer(path)


@pytest.mark.parametrize(
    ("name", "metadata", "before", "after"),
    [
        ("gpt-2", {}, [], []),
        ("gpt-2", {KEYS.ADD_BOS: True, KEYS.ADD_EOS: True}, ["<s>"], ["</s>"]),
        ("llama-bpe", {}, ["<s>"], []),
        ("llama-bpe", {KEYS.ADD_BOS: False}, [], []),
        ("llama-bpe", {KEYS.BOS_ID: None}, [], []),
        ("llama", {}, ["<s>"], []),
        ("llama", {KEYS.ADD_EOS: True, KEYS.BOS_ID: 3}, ["<|im_start|>"], ["</s>"]),
        ("llama", {KEYS.ADD_BOS: False, KEYS.ADD_EOS: True}, [], ["</s>"]),
    ],
)
def test_begin_and_end_as_the_file_wants(tmp_path, name, metadata, before, after):
    family = FAMILIES[name]
    vocabulary = read_vocabulary(family.vocabulary)
    path = write_gguf(tmp_path / "ends.gguf", vocabulary, family.pre, metadata, weights=False)
    tokenizer = load_gguf_tokenizer(path).tokenizer
    inner = tokenizer.encode("a 1", add_special_tokens=False)
    assert tokenizer.encode("a 1").tokens == [*before, *inner.tokens, *after]
    pair = tokenizer.encode("a 1", "a 1").ids
    assert pair == tokenizer.encode("a 1").ids * 2


def test_all_ends_of_all_places():
    tokens = {"<|endoftext|>": 0, "<|im_end|>": 2, "<|eot_id|>": 7, "<think>": 8}
    assert extract_eos_ids({}, {}) == set()
    assert extract_eos_ids({}, tokens) == {0, 2, 7}
    named = {KEYS.EOS_ID: 20, KEYS.EOT_ID: 21, KEYS.EOM_ID: 22, KEYS.PAD_ID: 23}
    assert extract_eos_ids(named, {}) == {20, 21, 22}
    assert extract_eos_ids(named, tokens, {"eos_token_id": [30, 31]}) == {
        *(0, 2, 7, 20, 21, 22, 30, 31)
    }
    assert extract_eos_ids({}, {}, {"eos_token_id": 5}) == {5}
    assert extract_eos_ids({KEYS.EOS_ID: "2"}, {}, {"eos_token_id": None}) == set()


def test_an_end_of_a_part_is_no_end():
    harmony = {"<|start|>": 1, "<|end|>": 2, "<|return|>": 3, "<|call|>": 4}
    assert extract_eos_ids({KEYS.EOS_ID: 3}, harmony) == {3, 4}
    assert extract_eos_ids({}, {"<|end|>": 2, "<|user|>": 1}) == {2}
    assert extract_eos_ids({}, {"<turn|>": 1, "<|tool_response>": 2, "</s>": 3}) == {1, 2}


def test_merges_follow_the_scores():
    tokens = ["a", "b", "ab", "aab", "aa"]
    assert merges_from_scores(tokens, [0, 0, -2.0, -3.0, -1.0]) == [
        *(("a", "a"), ("a", "b"), ("aa", "b"), ("a", "ab")),
    ]


def test_an_ordinary_token_is_no_special_one(tmp_path):
    """Converters write a number for BOS where there is none; here it is a comma's."""
    comma = BYTES.tokens.index(",")
    path = tmp_path / "comma.gguf"
    write_gguf(path, BYTES, "gpt-2", {KEYS.BOS_ID: comma, KEYS.PAD_ID: 10**6}, weights=False)
    found = load_gguf_tokenizer(path)
    assert found.special == {"eos": "</s>", "unk": "<unk>"}


def test_engines_take_it(embedded_gguf):
    """As the model's own directory: its text is split digit by digit, its ends are all known."""
    texts = [
        ModelText(resolve_model(each, load_catalogue()))
        for each in (str(embedded_gguf), "nano-reasoner")
    ]
    messages = [{"role": "user", "content": "What is 1/2 of 1234? ¡Olé! 日本"}]
    for thinking in (False, True):
        one, other = (text.render(messages, thinking) for text in texts)
        assert one == other
    one, other = texts
    assert [one.encode(line) for line in LINES] == [other.encode(line) for line in LINES]
    assert one.decode(one.encode("a <think> b<|im_end|>")) == "a <think> b"
    assert one.eos_ids == other.eos_ids == {0, 2}
    for part in ("pad_token_id", "eos_token_id", "chat_template"):
        assert getattr(one.tokenizer, part) == getattr(other.tokenizer, part)
    assert one.tokenizer.get_added_vocab() == other.tokenizer.get_added_vocab()


@pytest.mark.parametrize("name", ["llama", "llama-bpe"])
def test_engines_change_nothing_of_it(files, name):
    own = load_gguf_tokenizer(files(name))
    text = ModelText(ModelSpec(name, str(files(name)), kind="gguf"))
    assert [list(text.encode(line)) for line in LINES] == [
        encoder(own.tokenizer)(line) for line in LINES
    ]
    assert text.tokenizer.encode("a") == encoder(own.tokenizer, ends=True)("a")
    tokens = (PIECES if name == "llama" else BYTES).tokens
    assert text.tokenizer.eos_token == "</s>"
    # The last one is not marked as a control token; its name is enough.
    ends = {"</s>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>"} & set(tokens)
    assert text.eos_ids == own.eos_ids == {tokens.index(end) for end in ends}


def test_nothing_heavy_is_imported():
    code = (
        "import sys, pytest_tokenbudget.models.gguf_tokenizer; "
        "print([m for m in ('torch', 'transformers', 'pytest', 'tokenizers', 'gguf', 'numpy') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
