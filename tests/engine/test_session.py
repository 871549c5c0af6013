"""Sessions refuse impossible values before they compute, and stay as they are."""

from collections.abc import Callable

import numpy as np
import pytest
from tiny_models import write_tiny

import minillama as ml
from minillama.engine.session import Session

IDS = [1, 5, 6, 7, 8]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> ml.LLM:
    path = write_tiny(tmp_path_factory.mktemp("tiny") / "llama.gguf", "llama")
    return ml.load(path, progress=False, cache_type_k="f32", cache_type_v="f32")


@pytest.fixture
def session(llm: ml.LLM) -> Session:
    session = llm.session()
    list(session.prefill(IDS))
    return session


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.truncate(-3), "count is -3; expected a number of tokens, at least 0"),
        (lambda s: s.truncate(True), "count is True; expected"),
        (lambda s: s.reserve(-1), "positions is -1; expected"),
        (lambda s: s.reserve(10**9), "1000000000 tokens do not fit in a context of 512"),
        (lambda s: s.decode(10**9), "no token has the id 1000000000; expected 0 to 299"),
        (lambda s: s.decode(-1), "no token has the id -1"),
        (lambda s: s.decode(True), "token is True; expected a token id"),
        (lambda s: list(s.prefill([300])), "token id 300 is outside the vocabulary of 300"),
        (lambda s: list(s.prefill([True])), r"ids\[0\] is True; expected a token id"),
        (lambda s: list(s.prefill([5] * 508)), "5 tokens and 508 more do not fit in a context of 512"),
        (lambda s: s.commit(5), "token 5 has not been run; commit follows generate"),
    ],
)
def test_impossible_values(session: Session, call: Callable[[Session], object], message: str) -> None:
    with pytest.raises(ml.OptionError, match=message):
        call(session)
    assert session.tokens == IDS


def test_full_context(llm: ml.LLM) -> None:
    small = ml.load(llm.path, ctx_size=256, progress=False, cache_type_k="f32", cache_type_v="f32").session()
    list(small.prefill([5] * 256))
    with pytest.raises(ml.OptionError, match="256 tokens and 1 more do not fit in a context of 256"):
        small.decode(5)


def test_numpy_integers(session: Session) -> None:
    session.decode(np.int64(9))
    assert session.tokens == [*IDS, 9]
    session.truncate(np.int32(2))
    session.truncate(10**9)  # there are fewer: all are kept
    assert session.tokens == IDS[:2]
