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
    if cpu_kernels_error() is not None:
        pytest.skip("without kernels every weight has arrays of its own")
    params = ml.load(write_tiny(tmp_path / "m.gguf", name, Type.Q8_0), progress=False).params
    assert len(pack(params).arrays) == 2
    assert len(jax.tree.leaves(params)) > 10
