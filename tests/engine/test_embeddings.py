"""Embeddings: llama-server's vectors, and each way to pool and to scale."""

from pathlib import Path

import numpy as np
import pytest

import minillama as ml
from minillama.engine.evaluation.text_embeddings import file_pooling, scaled

TEXT = "Once upon a time there was a cat"
# First numbers of llama-server's vectors of stories260K (-ctk f32 -ctv f32 -fa off), by pooling, not scaled.
LLAMA_SERVER = {
    "mean": [0.11451, -0.72215, -0.54187, -1.26617, 0.84891, -4.26474],
    "last": [3.0147, -2.23842, -0.97984, -0.03069, -1.65898, -4.96557],
    "cls": [1.029, -1.32735, 0.18011, -1.72074, 0.10423, -5.94863],
}
# The same of the mean, by norm.
SCALED = {
    0: [621.85425, -3921.75171, -2942.72754, -6876.17383],
    1: [0.00194, -0.01221, -0.00916, -0.02141],
    2: [0.0104, -0.06556, -0.04919, -0.11495],
    3: [0.01511, -0.0953, -0.07151, -0.16709],
}


@pytest.fixture(scope="module")
def llm(reference: Path) -> ml.LLM:
    path = reference / "real" / "stories260K.gguf"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return ml.load(path, progress=False, cache_type_k="f32", cache_type_v="f32")


def test_vectors_of_llama_server(llm: ml.LLM) -> None:
    for pooling, expected in LLAMA_SERVER.items():
        [vector] = llm.embed([TEXT], pooling=pooling, normalize=-1)
        assert vector.shape == (llm.config.embedding_length,)
        np.testing.assert_allclose(vector[:6], expected, atol=2e-4)
    for norm, expected in SCALED.items():
        [vector] = llm.embed([TEXT], normalize=norm)
        np.testing.assert_allclose(vector[:4], expected, rtol=1e-3, atol=1e-5)


def test_rows_of_all_tokens_are_the_states_before_the_output(llm: ml.LLM) -> None:
    [states] = llm.embed([TEXT], pooling="none")
    np.testing.assert_allclose(states, llm.trace(TEXT)["result_norm"], atol=1e-3)
    [mean] = llm.embed([TEXT], pooling="mean", normalize=-1)
    np.testing.assert_allclose(mean, states.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"pooling": "rank"}, "pooling is 'rank'; use one of none, mean, cls, last"),
        ({"normalize": -2}, "normalize is -2"),
    ],
)
def test_impossible_options_are_refused(llm: ml.LLM, options: dict[str, object], reason: str) -> None:
    with pytest.raises(ml.OptionError, match=reason):
        llm.embed([TEXT], **options)  # type: ignore[arg-type]


def test_a_vector_of_zeros_stays_one() -> None:
    for norm in (-1, 0, 1, 2, 3):
        assert not scaled(np.zeros(4, np.float32), norm).any()


def test_the_pooling_of_a_file() -> None:
    metadata = {"general.architecture": "qwen3", "qwen3.pooling_type": 3}
    assert file_pooling(metadata) == "last"
    assert file_pooling({**metadata, "qwen3.pooling_type": 4}) == "none"
    assert file_pooling({"general.architecture": "qwen3"}) == "none"
