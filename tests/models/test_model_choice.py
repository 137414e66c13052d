from dataclasses import replace

import pytest

from pytest_tokenbudget.models.choice import choose_models, engine_of
from pytest_tokenbudget.models.resolution import ModelError, load_catalogue
from pytest_tokenbudget.settings.endpoints import (
    Endpoint,
    Facts,
    identity_of,
    read_address,
    shown_address,
)
from pytest_tokenbudget.settings.read_settings import find_project, read_settings

A, B = "http://a:8000/v1", "http://b:8000/v1"


@pytest.fixture
def chosen(pytester):
    def choose(*arguments, rootdir="."):
        config = pytester.parseconfig("--rootdir", rootdir, *arguments)
        project = find_project(config)
        settings = read_settings(config, project)
        return settings, choose_models(settings, load_catalogue(config=project.user))

    return choose


def refused(chosen, *arguments):
    with pytest.raises(pytest.UsageError) as caught:
        chosen(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("http://host:8000/v1", "http://host:8000/v1"),
        ("HTTP://Host:8000/v1/", "http://host:8000/v1"),
        ("http://host:8000", "http://host:8000/v1"),
        ("http://host:8000/", "http://host:8000/v1"),
        ("https://host/api/v2", "https://host/api/v2"),
        ("http://[::1]:80/v1", "http://[::1]:80/v1"),
    ],
)
def test_an_address_has_one_form(given, read):
    assert read_address(given) == read


@pytest.mark.parametrize(
    "given",
    ["host:8000", "ftp://host/v1", "http://", "http://host:port/v1", "http://host:99999/v1"],
)
def test_what_is_no_address_is_told(given):
    with pytest.raises(ValueError, match="allowed: http://HOST:PORT/v1"):
        read_address(given)


@pytest.mark.parametrize("given", ["http://me:sesame@host/v1", "http://host/v1?key=sesame"])
def test_a_key_in_an_address_is_refused_and_not_shown(chosen, given):
    for flag in ("--base-url", "--model"):
        text = refused(chosen, flag, given)
        assert "TOKENBUDGET_API_KEY" in text
        assert "sesame" not in text
    assert "sesame" not in shown_address(given)


def test_an_address_is_a_served_model(chosen):
    settings, (spec,) = chosen("--model", "http://host:8000")
    assert (spec.alias, spec.kind, spec.source) == ("host-8000", "server", "http://host:8000/v1")
    assert spec.endpoint == Endpoint(("http://host:8000/v1",))
    assert engine_of(settings, spec) == "server"


def test_each_address_is_a_model_of_its_own(chosen):
    _, specs = chosen("--model", f"{A},nano-reasoner,{B}")
    assert [spec.alias for spec in specs] == ["a-8000", "nano-reasoner", "b-8000"]
    assert [spec.endpoint is None for spec in specs] == [False, True, False]


def test_several_base_urls_serve_one_model(chosen):
    _, (spec,) = chosen("--base-url", f"{A},{B}", "--served-model", "org/Name")
    assert spec.alias == "Name"
    assert spec.endpoint == Endpoint((A, B), "org/Name")


def test_a_named_model_says_where_the_tokenizer_is(chosen):
    _, (local,) = chosen("--model", "nano-reasoner")
    _, (spec,) = chosen("--model", "nano-reasoner", "--base-url", A, "--server-api", "chat")
    assert spec == replace(local, endpoint=Endpoint((A,), None, "chat"))
    _, (other,) = chosen("--base-url", A, "--tokenizer", "nano-reasoner")
    assert other == replace(local, alias="a-8000", endpoint=Endpoint((A,)))
    _, (third,) = chosen("--model", A, "--tokenizer", "nano-reasoner")
    assert third == other


def test_a_served_model_in_the_configuration_file(chosen, pytester):
    (pytester.path / "tokenbudget.toml").write_text(
        f'[models.mine]\nbase = "nano-reasoner"\nbase_url = ["{A}", "{B}/"]\nserved = "x"\n'
        f'[models.bare]\nbase_url = "{A}"\nserver_api = "chat"\n'
    )
    _, (mine, bare) = chosen("--model", "mine,bare")
    assert mine.endpoint == Endpoint((A, B), "x")
    assert (mine.kind, mine.context) == ("directory", 2048)
    assert (bare.kind, bare.endpoint) == ("server", Endpoint((A,), None, "chat"))
    _, (mine,) = chosen("--model", "mine", "--server-api", "ids", "--served-model", "y")
    assert mine.endpoint == Endpoint((A, B), "y", "ids")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('base_url = "host"', "base_url cannot be used"),
        ("base_url = 5", "base_url must be"),
        ("base_url = []", "base_url must be"),
        (f'base_url = "{A}"\nserver_api = "ids "', "unknown server_api"),
        (f'base_url = "{A}"\nserver = "x"', "unknown key 'server'"),
    ],
)
def test_a_served_model_that_is_written_wrongly(chosen, pytester, line, word):
    (pytester.path / "tokenbudget.toml").write_text(f"[models.mine]\n{line}\n")
    with pytest.raises(ModelError, match=word) as caught:
        chosen("--model", "mine")
    assert "tokenbudget.toml: models.mine" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--base-url", A, "--model", B], ["--base-url", "one of the two"]),
        (["--base-url", A, "--model", "nano-reasoner,qwen-1.5b"], ["--base-url", "names 2"]),
        (["--engine", "server"], ["--engine", "nano-reasoner", "no address"]),
        (["--engine", "vllm", "--model", A], ["--engine", "vllm", A]),
        (["--engine", "transformers", "--base-url", A], ["--engine", "transformers", A]),
        (["--tokenizer", "nano-reasoner"], ["--tokenizer", "--recorded"]),
        (["--served-model", "x"], ["--served-model", "--base-url"]),
        (["--server-api", "chat"], ["--server-api", "--base-url"]),
        (["--model", A, "--tokenizer", "nano-resoner"], ["--tokenizer", "nano-reasoner"]),
        (["--model", A, "--tokenizer", B], ["--tokenizer", "no tokenizer"]),
    ],
)
def test_options_that_contradict_each_other(chosen, arguments, words):
    text = refused(chosen, *arguments)
    for word in words:
        assert word in text


FACTS = Facts(
    kind="vllm", version="1", served="m", context=2048, fingerprint="f", ids=True, tokenizes=True
)


def identity(urls=(A,), api="auto", tokenizer="t", **facts):
    return identity_of(Endpoint(urls, None, api, replace(FACTS, **facts)), tokenizer)


def test_a_server_that_moves_is_the_same_model():
    assert identity((A,)) == identity((B,)) == identity((A, B), version="2")


@pytest.mark.parametrize(
    "change",
    [
        {"served": "other"},
        {"fingerprint": "other"},
        {"kind": "sglang"},
        {"api": "chat"},
        {"tokenizer": "other"},
        {"ids": False},
    ],
)
def test_what_makes_another_model_of_it(change):
    assert identity(**change) != identity()


def test_a_server_that_says_nothing_of_its_weights_is_known_by_its_address():
    assert identity((A,), fingerprint="") != identity((B,), fingerprint="")
    assert identity((A, B), fingerprint="") == identity((B, A), fingerprint="")
