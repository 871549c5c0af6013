"""Fields of requests: llama-server's names, types, ranges and errors; wild values give a value or one error."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import CONTROL, spm_metadata

from minillama.sampling import Sampling
from minillama.server.http_errors import RequestError, encode_json
from minillama.server.request_body import parse_json
from minillama.server.requests.fields import COUNTS, FLAGS, SAMPLING, read_fields
from minillama.server.requests.generation_request import read_request
from minillama.server.requests.prompt_input import read_prompts
from minillama.server.requests.token_options import (
    read_biases,
    read_breakers,
    read_samplers,
    read_stop,
    select_fields,
)
from minillama.server.settings import ServerSettings
from minillama.tokenizer import load_tokenizer

PIECES = {"▁once": -1.0, "▁upon": -2.0, "▁a": -3.0, "▁": -4.0, "a": -5.0, "o": -6.0, "n": -7.0}
TOKENIZER = load_tokenizer(spm_metadata(PIECES, [("<end>", CONTROL)]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
NAMES = [name for field in (*FLAGS, *COUNTS, *SAMPLING) for name in field.names]
OTHERS = ["seed", "stop", "logit_bias", "samplers", "dry_sequence_breakers", "n", "n_cmpl", "id_slot", "stream_options",
          "response_fields", "lora", "reasoning_format"]  # fmt: skip


class Llm:
    """The part of a model that reads requests."""

    tokenizer, draft = TOKENIZER, None

    def sampling(self, **options: object) -> Sampling:
        return Sampling(**{"dry_sequence_breakers": (5,), **options})


def read(body: dict[str, object], **settings: object) -> object:
    return read_request(body, (1, 2), Llm(), ServerSettings(slots=2, **settings))


@pytest.mark.parametrize(
    "body, message",
    [
        ({"temperature": "x"}, "Field 'temperature': type must be number, but is string"),
        ({"stream": "yes"}, "Field 'stream': type must be boolean, but is string"),
        ({"n_predict": -5}, "Field 'n_predict': Value must be between -1 <= value <= 2147483647, but got -5"),
        ({"max_tokens": 1e12}, "Field 'max_tokens': Value must be between -1 <= value <= 2147483647, but got 1000000"),
        ({"n": 9}, "Field 'n': Value must be between 1 <= value <= 2, but got 9"),
        ({"repeat_last_n": -1}, "Field 'repeat_last_n': Value must be between 0"),
        ({"stop": ["", 5]}, "Field 'stop': type must be string, but is number"),
        (
            {"dry_sequence_breakers": []},
            "Field 'dry_sequence_breakers': Error: dry_sequence_breakers must be a non-emp",
        ),
        ({"n_probs": 10**6}, "Field 'n_probs': 1000000 likeliest tokens; ask for at most 100"),
        ({"n_indent": 2}, "Field 'n_indent': a least indentation is not supported"),
        ({"lora": [{"id": 0}]}, "Field 'lora': LoRA adapters are not supported"),
    ],
)
def test_errors(body: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(body)
    assert str(caught.value).startswith(message)
    assert caught.value.kind.status in (400, 501)


def test_clamped_and_absent_values() -> None:
    found = read({"top_p": 7, "min_p": -1, "top_k": 1e30, "temperature": -2, "seed": 2**40 + 3, "typical_p": None,
                  "dry_base": 0.5, "mirostat": 1.9})  # fmt: skip
    sampling = found.sampling
    assert (sampling.top_p, sampling.min_p, sampling.top_k, sampling.temp) == (1.0, 0.0, 2**31 - 1, 0.0)
    assert (sampling.seed, sampling.typical, sampling.dry_base, sampling.mirostat) == (3, 1.0, 1.75, 1)
    assert read({"seed": -1}).sampling.seed == -1 == read({"seed": 2**32 - 1}).sampling.seed


def test_aliases_and_defaults() -> None:
    assert read({"max_tokens": 5}).most_tokens == read({"max_completion_tokens": 5}).most_tokens == 5
    assert read({"n_predict": 3, "max_tokens": 5}).most_tokens == 3
    assert read({}, n=7).most_tokens == read({"n_predict": -1}, n=7).most_tokens == 7
    assert read({"n_predict": 0}).most_tokens == 1  # as llama-server
    assert read({}, stop=("x",)).stop == read({"stop": []}, stop=("x",)).stop == ("x",)
    assert read({}, sampling={"top_k": 3}).sampling.top_k == 3
    assert read({"id_slot": 7}).slot is None and read({"id_slot": 1}).slot == 1


def test_ignored_ends_are_biases() -> None:
    assert read({"ignore_eos": True, "logit_bias": [[4, 1]]}).sampling.logit_bias == ((4, 1.0), (2, -math.inf))


@settings(max_examples=25)
@given(st.dictionaries(st.sampled_from(NAMES + OTHERS), JSON, max_size=6))
def test_wild_bodies_give_a_request_or_an_error(body: dict[str, object]) -> None:
    try:
        found = read(body)
    except RequestError as error:
        assert 400 <= error.kind.status <= 501 and len(encode_json(error.body)) < 1000
    else:
        assert isinstance(found.sampling, Sampling) and found.most_tokens >= -1


@settings(max_examples=25)
@given(JSON)
def test_wild_prompts(prompt: object) -> None:
    try:
        found = read_prompts(prompt, TOKENIZER, 64)
    except RequestError as error:
        assert error.kind.status == 400
    else:
        assert found and all(ids and all(0 <= token < TOKENIZER.size for token in ids) for ids in found)


@settings(max_examples=25)
@given(JSON, st.sampled_from(["logit_bias", "stop", "samplers", "breakers"]))
def test_wild_lists(value: object, name: str) -> None:
    readers = {
        "logit_bias": lambda: read_biases(value, TOKENIZER),
        "stop": lambda: read_stop(value),
        "samplers": lambda: read_samplers(value),
        "breakers": lambda: read_breakers(value, TOKENIZER),
    }
    try:
        readers[name]()
    except RequestError as error:
        assert error.kind.status == 400


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("once", [TOKENIZER.encode("once")]),
        ("", [[1]]),
        ([1, 5], [[1, 5]]),
        (["once", "a"], [TOKENIZER.encode("once"), TOKENIZER.encode("a")]),
        ([[1, 5], "a"], [[1, 5], TOKENIZER.encode("a")]),
        ([1, "a", 5], [[1, *TOKENIZER.encode("a", add_special=False), 5]]),
        ({"prompt_string": "once"}, [TOKENIZER.encode("once")]),
    ],
)
def test_prompts(prompt: object, expected: list[list[int]]) -> None:
    assert [list(ids) for ids in read_prompts(prompt, TOKENIZER, 64)] == expected


@pytest.mark.parametrize(
    "prompt", [1.5, None, [], {"x": 1}, [1, 99999], [[]], {"prompt_string": "", "multimodal_data": "x"}]
)
def test_refused_prompts(prompt: object) -> None:
    with pytest.raises(RequestError):
        read_prompts(prompt, TOKENIZER, 64)


def test_biases_by_text_and_id() -> None:
    upon = TOKENIZER.encode("upon", add_special=False)
    assert read_biases([[5, False], ["upon", -1], [5], [99999, 1], [6, True]], TOKENIZER) == (
        (5, -math.inf), *((token, -1.0) for token in upon)
    )  # fmt: skip
    assert read_biases({"5": 2, "upon": False}, TOKENIZER) == ((5, 2.0), *((token, -math.inf) for token in upon))


def test_samplers_skip_unknown_names() -> None:
    assert read_samplers(["top_k", "nope", "temperature"]) == "top_k;temperature;"
    assert read_samplers("k?t") == "kt" and read_samplers(3) is None


def test_selected_fields() -> None:
    answer = {"content": "x", "timings": {"predicted_n": 3}}
    assert select_fields(answer, ("content", "timings/predicted_n", "nope")) == {
        "content": "x",
        "timings/predicted_n": 3,
    }
    assert select_fields(answer, ()) == answer


@pytest.mark.parametrize("text", [b"nonsense", b"[1, NaN]", b"\xff", b"[" * 100_000, b"1" * 5000, b""])
def test_malformed_json(text: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        parse_json(text)
    assert caught.value.kind.status == 500


def test_json_of_any_text() -> None:
    assert json.loads(encode_json({"a": "\udcff é"})) == {"a": "? é"}


def test_plain_fields() -> None:
    assert read_fields({"verbose": True, "n_probs": None, "logprobs": 3}, (*FLAGS, *COUNTS)) == {
        "verbose": True,
        "n_probs": 3,
    }
