"""Sliding windows and checkpoints: a text may go on, go back and go elsewhere, and computes what a whole pass does."""

from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import write_tiny

import minillama as ml
from minillama.engine.generation import checkpoints
from minillama.engine.generation.checkpoints import Checkpoint, Checkpoints
from minillama.engine.session import Session
from minillama.model import cache_bytes
from minillama.model.state_sizes import window_capacity
from minillama.model.states.window import can_go_back, first_held

WINDOW = 5  # of the tiny model
IDS = np.random.default_rng(0).integers(3, 300, 400).tolist()
PROMPT = 230


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> ml.LLM:
    path = write_tiny(tmp_path_factory.mktemp("tiny") / "gemma2.gguf", "gemma2")
    return ml.load(path, ctx_size=512, ubatch_size=32, progress=False, cache_type_k="f32", cache_type_v="f32")


@pytest.fixture(scope="module")
def expected(llm: ml.LLM) -> np.ndarray:
    return llm.logits(IDS)


@pytest.fixture
def session(llm: ml.LLM) -> Session:
    session = llm.session()
    list(session.prefill(IDS[:PROMPT]))
    return session


def test_windows_do_not_grow(llm: ml.LLM, session: Session, expected: np.ndarray) -> None:
    for place in range(PROMPT, 300):
        got = np.asarray(session.decode(IDS[place]))[0]
        np.testing.assert_allclose(got, expected[place], atol=1e-4)
    sizes = {state.keys.capacity for state in session._cache.handle.layers}
    assert sizes == {window_capacity(WINDOW, 32), 512}
    bookkeeping = {leaf.nbytes for leaf in jax.tree.leaves(session._cache.handle) if leaf.ndim < 4}
    assert bookkeeping == {4}
    exact = cache_bytes(llm.config, 512, llm.cache_types, chunk=32)
    assert 0 < session.nbytes - exact <= 4 * (llm.config.block_count + 1)


@pytest.mark.parametrize(
    ("count", "reused"),
    [(378, 378), (240, PROMPT), (PROMPT, PROMPT), (100, 0)],
    ids=["within the window", "from a checkpoint", "at a checkpoint", "from the beginning"],
)
def test_another_text_with_the_same_beginning(
    session: Session, expected: np.ndarray, count: int, reused: int, llm: ml.LLM
) -> None:
    list(session.prefill(IDS[PROMPT:270]))
    for token in IDS[270:380]:
        session.decode(token)
    other = [*IDS[:count], 7, 8]
    assert session.reuse(other) == reused
    (*_, logits) = session.prefill(other[reused:])
    np.testing.assert_allclose(np.asarray(logits)[0], llm.logits(other)[-1], atol=1e-4)
    session.truncate(min(count, 100))  # runs what a checkpoint does not hold
    assert session.tokens == IDS[: min(count, 100)]
    np.testing.assert_allclose(np.asarray(session.decode(IDS[len(session.tokens)]))[0], expected[100], atol=1e-4)


@given(st.integers(1, 300), st.integers(1, 200), st.integers(0, 1000), st.integers(1, 60))
def test_a_window_holds_what_the_next_tokens_see(window: int, chunk: int, length: int, draft: int) -> None:
    first = first_held(window, length)
    assert length + chunk - first <= window_capacity(window, chunk)  # so a chunk fits
    for kept in range(max(0, length - draft), length + 1):  # a draft may be dropped
        assert can_go_back(window, first, kept)
    for later in range(length, length + chunk):
        assert all(first <= seen for seen in range(max(0, later - window + 1), later + 1))
    assert can_go_back(0, 0, length)  # without windows


def test_the_oldest_checkpoint_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "MOST_BYTES", 3000)
    kept = Checkpoints(state_bytes=1000)
    for tokens in (10, 20, 30, 40):
        kept.add(Checkpoint(tokens, f"after {tokens}", 0))
    assert [kept.newest(at) and kept.newest(at).tokens for at in (9, 19, 20, 35, 99)] == [None, None, 20, 30, 40]
    kept.forget_after(25)
    assert kept.newest(99).states == "after 20"
    assert not kept.wants(20, ends_prompt=True) and kept.wants(21, ends_prompt=True)
    assert not kept.wants(21, ends_prompt=False) and kept.wants(20 + checkpoints.STEP, ends_prompt=False)
    assert checkpoints.most_checkpoints(1 << 40) == 1 and checkpoints.most_checkpoints(0) == checkpoints.MOST


def test_a_model_without_such_layers_needs_none(tmp_path: Path) -> None:
    llm = ml.load(write_tiny(tmp_path / "llama.gguf", "llama"), progress=False)
    assert llm.session()._cache._checkpoints is None
