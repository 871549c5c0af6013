"""Values given as token ids or as text: accepted, or one line that names the first wrong one."""

import re

import numpy as np
import pytest
from vocabularies import WORDS, spm_metadata

from minillama.errors import OptionError
from minillama.tokenizer import Tokenizer, load_tokenizer
from minillama.tokenizer.token_ids import checked_ids

SIZE = 276


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(spm_metadata(WORDS))


@pytest.mark.parametrize(
    "values",
    [[3, 275], (3, 275), range(3, 5), np.array([3, 275]), np.array([3, 275], np.uint16), [np.int64(3), 275],
     (token for token in (3, 275)), [], np.array([], np.int32)],
)  # fmt: skip
def test_sequences_of_ids(values: object) -> None:
    found = checked_ids(values, SIZE)
    assert found in ([3, 275], [3, 4], []) and all(type(token) is int for token in found)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("text", "ids is of type str; expected a sequence of token ids"),
        (b"Once", "ids is of type bytes; expected"),
        (bytearray(b"x"), "ids is of type bytearray; expected"),
        ({3: 4}, "ids is of type dict; expected"),
        ({3}, "ids is of type set; expected"),
        (None, "ids is of type NoneType; expected"),
        (5, "ids is of type int; expected"),
        (np.int64(5), "ids is an array of 0 axes; give token ids in one axis"),
        (np.ones((1, 3), int), "ids is an array of 2 axes; give token ids in one axis"),
        ([[1, 2]], "ids[0] is [1, 2]; expected a token id"),
        ([1, 2.0], "ids[1] is 2.0; expected a token id"),
        (np.array([1.0]), "ids[0] is 1.0; expected a token id"),
        ([True], "ids[0] is True; expected a token id"),
        (np.array([True]), "ids[0] is True; expected a token id"),
        (["the"], "ids[0] is 'the'; expected a token id"),
        ([{"role": "user"}], "ids[0] is {'role': 'user'}; expected a token id"),
        ([1, None], "ids[1] is None; expected a token id"),
        ([1, 276], "token id 276 is outside the vocabulary of 276"),
        ([-1], "token id -1 is outside"),
        ([10**30], "token id 1000000000000000000000000000000 is outside"),
    ],
)  # fmt: skip
def test_other_values(tokenizer: Tokenizer, values: object, message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        checked_ids(values, SIZE)
    with pytest.raises(OptionError, match=re.escape(message)) as caught:
        tokenizer.decode(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("id", [276, -1, 1.0, True, "a", None, [1], np.array([1, 2])])
def test_one_id(tokenizer: Tokenizer, id: object) -> None:
    assert tokenizer.piece(np.int32(3)) == tokenizer.piece(3)
    with pytest.raises(OptionError, match=r"no token has the id|expected a token id"):
        tokenizer.piece(id)


@pytest.mark.parametrize("text", [b"Once", bytearray(b"Once"), None, 5, ["Once"], [1, 2]])
def test_text_is_a_str(tokenizer: Tokenizer, text: object) -> None:
    fix = r"\.decode\('utf-8'\)" if isinstance(text, bytes | bytearray) else "expected a str"
    with pytest.raises(OptionError, match=rf"the text is of type {type(text).__name__}; .*{fix}"):
        tokenizer.encode(text)
