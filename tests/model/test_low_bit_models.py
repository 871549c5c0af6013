"""Whole models of tensor types that are only read, and of matrices with scales, against float64 numpy."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from numpy_forward import forward as slow_forward
from scaled_models import write_scaled
from test_forward import CTX, EXACT, IDS, logits_of, open_model, worst

from minillama.engine.loading.load_params import unused_tensors
from minillama.gguf import dequantize
from minillama.gguf.quantisation_mixes import ALL_MIX_NAMES, MIX_NAMES
from minillama.kernels import load_weights
from minillama.model import empty_cache
from minillama.random_models.model_writer import write_random_model

# the CPU kernels round activations to 8 bits, XLA does not
BOUNDS = {"kernels": 0.03, "xla": 1e-4}


@pytest.mark.parametrize("way", BOUNDS)
@pytest.mark.parametrize("name", ALL_MIX_NAMES[len(MIX_NAMES) :])
def test_logits_are_those_of_the_dequantised_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, way: str
) -> None:
    if way == "xla":
        monkeypatch.setattr(load_weights, "reads_in_place", lambda device, kind: False)
    file, config, params = open_model(write_random_model(tmp_path / "tiny.gguf", "tiny", name))
    tensors = {name: dequantize(tensor).astype(np.float64) for name, tensor in file.tensors.items()}
    expected = slow_forward(file.metadata, tensors, IDS.tolist(), CTX)
    got, _ = logits_of(params, config, jnp.asarray(IDS[None]), empty_cache(config, 32, EXACT))
    difference = np.asarray(got[0]) - expected
    assert np.sqrt((difference**2).mean()) / expected.std() < BOUNDS[way]


@pytest.mark.parametrize("variant", ["qwen2moe", "phi3"])
def test_scales_of_matrices(tmp_path: Path, variant: str) -> None:
    """The scales of activations, which llama.cpp reads, have no effect."""
    found = []
    for path in write_scaled(tmp_path, variant):
        file, config, params = open_model(path)
        assert not unused_tensors(file, config)
        cache = empty_cache(config, 32, EXACT)
        found.append(np.asarray(logits_of(params, config, jnp.asarray(IDS[None]), cache)[0]))
    assert worst(found[0], found[1]) < 1e-5
