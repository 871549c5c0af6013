"""Parameters in few arrays: what comes out is what went in, with every file there once."""

from pathlib import Path

import jax
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from tiny_models import VARIANTS, write_tiny

import minillama as ml
from minillama.engine.backends.packed_params import PackedParams, pack
from minillama.kernels import cpu_kernels_error

# Models with convolutions, biases of experts, or two matrices made of one in the file: at most four arrays a layer
OTHER_ARRAYS = (
    "deepseek2-2024",
    "gpt-oss",
    "granitehybrid",
    "nemotron_h",
    "lfm2",
    "lfm2moe",
    "qwen35",
    "qwen35moe",
    "qwen3next",
)


@pytest.mark.parametrize("name", ["llama3", "qwen2", "mixtral", "gemma3"])
def test_what_was_packed_comes_out_to_the_bit(tmp_path: Path, name: str) -> None:
    params = ml.load(write_tiny(tmp_path / "m.gguf", name, Type.Q8_0), progress=False).params
    out = jax.jit(PackedParams.unpack)(pack(params))
    assert jax.tree.structure(out) == jax.tree.structure(params)
    for before, after in zip(jax.tree.leaves(params), jax.tree.leaves(out), strict=True):
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(np.asarray(after), np.asarray(before))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_file_and_all_vectors_are_an_array_each(tmp_path: Path, name: str) -> None:
    """Other arrays are what a layer has in another form than its file: convolutions, biases of experts, latents."""
    if cpu_kernels_error() is not None:
        pytest.skip("without kernels every weight has arrays of its own")
    params = ml.load(write_tiny(tmp_path / "m.gguf", name, Type.Q8_0), progress=False).params
    leaves = jax.tree.leaves(params)
    file = max(leaves, key=lambda leaf: leaf.nbytes)
    others = {id(leaf) for leaf in leaves if leaf.ndim > 1 or leaf.dtype.kind != "f"} - {id(file)}
    assert len(pack(params).arrays) == 2 + len(others)
    assert len(others) <= (4 * len(params.blocks) if name in OTHER_ARRAYS else 0)
    assert len(leaves) > 10
