"""Gates of feed-forward networks against their formulas."""

import jax.numpy as jnp
import numpy as np

from minillama.model.architectures import Activation
from minillama.model.layers.gating import gated


def test_clamped_swiglu() -> None:
    """gpt-oss: the gate has an upper bound, the other factor both."""
    gate, up = (a.ravel() for a in np.meshgrid(np.linspace(-20, 20, 41), np.linspace(-20, 20, 41)))
    x, y = np.minimum(gate, 7), np.clip(up, -7, 7)
    expected = x / (1 + np.exp(-1.702 * x)) * (y + 1)
    got = gated(jnp.asarray(gate, jnp.float32), jnp.asarray(up, jnp.float32), Activation.CLAMPED_SWIGLU)
    np.testing.assert_allclose(np.asarray(got), expected, rtol=1e-5, atol=1e-6)
