"""Wrong, hostile or unusual metadata: one clear error or a warning, never a crash."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vocabularies import MERGES, WORDS, bpe_metadata, spm_metadata

from minillama.errors import FormatError, MinillamaError, UnsupportedError
from minillama.tokenizer import load_chat_template, load_tokenizer

SPM, BPE = spm_metadata(WORDS), bpe_metadata(MERGES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "the file has no tokenizer"),
        ({"tokens": None}, "tokenizer.ggml.tokens is missing"),
        ({"tokens": ()}, "tokenizer.ggml.tokens is empty"),
        ({"tokens": ("a", 1)}, "tokenizer.ggml.tokens holds something that is not a text"),
        ({"tokens": "abc"}, "tokenizer.ggml.tokens is missing or not a list"),
        ({"tokens": np.zeros(5)}, "tokenizer.ggml.tokens is missing or not a list"),
        ({"scores": np.zeros(3, np.float32)}, "tokenizer.ggml.scores must hold 276 numbers"),
        ({"scores": np.full(276, np.nan, np.float32)}, "tokenizer.ggml.scores must hold 276 numbers"),
        ({"scores": ("1",) * 276}, "tokenizer.ggml.scores must hold 276 numbers"),
        ({"token_type": np.zeros(275, np.int32)}, "tokenizer.ggml.token_type must hold 276 numbers"),
        ({"token_type": np.zeros((276, 1), np.int32)}, "tokenizer.ggml.token_type must hold 276 numbers"),
        ({"eos_token_id": "2"}, "tokenizer.ggml.eos_token_id is '2', not a token id"),
        ({"eos_token_id": np.zeros(300)}, "tokenizer.ggml.eos_token_id is array([0., 0.,"),
        ({"add_bos_token": ("x" * 900,) * 900}, "tokenizer.ggml.add_bos_token is ('xxx"),
        ({"eos_token_id": True}, "tokenizer.ggml.eos_token_id is True, not a token id"),
        ({"add_bos_token": 1}, "tokenizer.ggml.add_bos_token is 1, not a boolean"),
        ({"token_type": np.full(276, 6, np.int32)}, "tokenizer.ggml.tokens has '<unk>' for a byte"),
    ],
)
def test_malformed_metadata(changes: dict[str, object], message: str) -> None:
    metadata = SPM | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    with pytest.raises(FormatError, match=re.escape(message)) as caught:
        load_tokenizer({key: value for key, value in metadata.items() if value is not None})
    assert "\n" not in str(caught.value)


def test_byte_pairs_need_merges() -> None:
    with pytest.raises(FormatError, match=r"tokenizer\.ggml\.merges is missing"):
        load_tokenizer({key: value for key, value in BPE.items() if not key.endswith("merges")})
    with pytest.raises(FormatError, match="not a text"):
        load_tokenizer(BPE | {"tokenizer.ggml.merges": (b"a b",)})


@pytest.mark.parametrize("model", ["bert", "none", 7])
def test_an_unknown_model_is_an_error(model: object) -> None:
    with pytest.raises(UnsupportedError, match=rf"{model}.*supported: llama, gpt2"):
        load_tokenizer({"tokenizer.ggml.model": model})


def test_common_mistakes_of_real_files_are_tolerated(caplog: pytest.LogCaptureFixture) -> None:
    nothing = 0xFFFFFFFF  # a converter's "there is none"
    odd = {"seperator_token_id": nothing, "padding_token_id": nothing, "eot_token_id": nothing, "bos_token_id": nothing}
    tokenizer = load_tokenizer(SPM | {f"tokenizer.ggml.{key}": value for key, value in odd.items()})
    assert tokenizer.bos == 1 and not caplog.records
    load_tokenizer(SPM | {"tokenizer.ggml.eot_token_id": 999})
    assert "tokenizer.ggml.eot_token_id is 999, outside" in caplog.text


@pytest.mark.parametrize("wrong", [276, 10**6, -5])
@pytest.mark.parametrize(("role", "default"), [("bos", "1"), ("eos", "2"), ("unknown", "0"), ("eot", "none")])
def test_special_token_outside_the_vocabulary(
    role: str, default: str, wrong: int, caplog: pytest.LogCaptureFixture
) -> None:
    """llama.cpp warns and uses the default id of the tokenizer; a published file named EOS 32000 of 32000 tokens."""
    key = f"tokenizer.ggml.{role}_token_id"
    found, without = (load_tokenizer(metadata) for metadata in (SPM | {key: wrong}, without_key(key)))
    assert f"{key} is {wrong}, outside the vocabulary of 276 tokens; {default} is used" in caplog.text
    assert (found.bos, found.eos, found.eog) == (without.bos, without.eos, without.eog)
    assert found.encode("the cat") == without.encode("the cat")


def without_key(key: str) -> dict[str, object]:
    return {name: value for name, value in SPM.items() if name != key}


def test_default_outside_a_tiny_vocabulary() -> None:
    """The default ids 1 and 2 are no tokens here."""
    tiny = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ("a",), "tokenizer.ggml.bos_token_id": 7}
    tokenizer = load_tokenizer(tiny)
    assert tokenizer.bos is None and tokenizer.eos is None


def test_numbers_past_the_last_token_are_dropped() -> None:
    """As in llama.cpp, which refuses only lists that are too short."""
    longer = {key: np.append(SPM[key], SPM[key][-1]) for key in ("tokenizer.ggml.scores", "tokenizer.ggml.token_type")}
    assert load_tokenizer(SPM | longer).encode("the cat") == load_tokenizer(SPM).encode("the cat")


def test_equal_and_empty_tokens(caplog: pytest.LogCaptureFixture) -> None:
    tokens = (*SPM["tokenizer.ggml.tokens"][:-2], "", "at")
    tokenizer = load_tokenizer(SPM | {"tokenizer.ggml.tokens": tokens})
    assert tokenizer.tokens[-2] == "[EMPTY_274]" and "text of another token" in caplog.text
    assert tokenizer.encode("xat", add_special=False)[-1] == tokenizer.size - 1


def test_missing_scores_and_types(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = load_tokenizer({key: value for key, value in SPM.items() if not key.endswith(("scores", "token_type"))})
    assert "tokenizer.ggml.scores" in caplog.text
    assert tokenizer.decode(tokenizer.encode("the cat", add_special=False)) == "the cat"


KEYS = ("model", "pre", "tokens", "scores", "token_type", "merges", "bos_token_id", "eot_token_id", "add_bos_token")
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2**32), st.floats(), st.text(max_size=5),
    st.lists(st.text(max_size=4), max_size=9).map(tuple), st.lists(st.integers(-9, 9), max_size=9).map(np.array),
)  # fmt: skip


@given(st.sampled_from([SPM, BPE]), st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4), st.text(max_size=9))
def test_random_metadata_works_or_raises(metadata: dict, changes: dict[str, object], text: str) -> None:
    metadata = metadata | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    metadata |= {"tokenizer.chat_template": changes.get("pre", "")}
    for load in (load_tokenizer, load_chat_template):
        try:
            loaded = load(metadata)
        except MinillamaError as error:
            assert "\n" not in str(error)
            continue
        if load is load_tokenizer:
            ids = loaded.encode(text)
            assert all(0 <= index < loaded.size for index in ids) and isinstance(loaded.decode(ids), str)
