"""Sessions whose keys and values are quantised: a text may grow, slide, go back, and be spread over devices."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from device_processes import Check
from test_remote_backend import Pair
from tiny_models import VARIANTS, write_tiny
from tiny_variants import with_heads

import minillama as ml
from minillama.engine import text_cache
from minillama.engine.backends.remote import RemoteBackend
from minillama.model.state_sizes import window_capacity

pytestmark = pytest.mark.slow
IDS = np.random.default_rng(0).integers(3, 300, 400).tolist()
OPTIONS = {"ctx_size": 512, "ubatch_size": 32, "progress": False, "cache_type_k": "q4_0", "cache_type_v": "q5_1"}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gemma 4 with heads of 128, and of 64 where a window of 5 slides; layers share keys and values."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, "wide", with_heads(VARIANTS["gemma4"], 128))
        return write_tiny(tmp_path_factory.mktemp("wide") / "m.gguf", "wide")


@pytest.fixture(scope="module")
def llm(path: Path) -> ml.LLM:
    return ml.load(path, **OPTIONS)


def close(got: np.ndarray, expected: np.ndarray) -> bool:
    """Up to numbers that fall to the other code, as a sum has another order; rounding itself is ten times as much."""
    return float(np.sqrt(((got - expected) ** 2).mean())) < 0.02 * float(expected.std())


def test_a_text_grows_slides_and_goes_back(llm: ml.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_cache, "FIRST_CAPACITY", 32)
    expected, session = llm.logits(IDS), llm.session()
    (*_, logits) = session.prefill(IDS[:230])
    found = [np.asarray(logits)[0], *(np.asarray(session.decode(token))[0] for token in IDS[230:380])]
    assert close(np.stack(found), expected[229:380])
    assert {state.keys.capacity for state in session._cache.handle.layers if hasattr(state, "keys")} == {
        window_capacity(5, 32), 512,
    }  # fmt: skip
    other = [*IDS[:240], 7, 8]
    assert session.reuse(other) == 230  # where the checkpoint is
    (*_, logits) = session.prefill(other[230:])
    assert close(np.asarray(logits)[0], llm.logits(other)[-1])
    session.truncate(100)
    assert close(np.asarray(session.decode(IDS[100]))[0], expected[100])


def check_devices(path: Path, counts: Sequence[int]) -> None:
    one = ml.load(path, **OPTIONS)
    for count in counts:
        spread = ml.load(path, tensor_parallel=count, **OPTIONS)
        assert close(spread.logits(IDS), one.logits(IDS))


def test_two_devices_compute_the_same(apart: Check, path: Path) -> None:
    apart(check_devices, path, (2,))


def test_a_worker_computes_the_same(llm: ml.LLM) -> None:
    pair = Pair(llm.backend)
    led = replace(llm, backend=RemoteBackend(pair, llm.config))
    np.testing.assert_array_equal(led.logits(IDS[:40]), llm.logits(IDS[:40]))
    expected, found = (model.generate(IDS[:150], n=40, temp=0, ignore_eos=True) for model in (llm, led))
    assert found.tokens == expected.tokens
    pair.close()


def test_measured_memory_is_that_predicted(llm: ml.LLM) -> None:
    session = llm.session()
    usage = llm.measure(IDS[:40], session=session, n=3).usage
    assert 0 <= usage.cache_held - usage.cache <= 4 * (llm.config.block_count + 1)  # lengths, and where windows begin
