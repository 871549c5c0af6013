"""RMSNorm of channels that several devices share."""

import jax
import numpy as np
import pytest

from minillama.model.norm import rms_norm_in_parts

EPSILON = 1e-5


@pytest.mark.parametrize("sharing", [1, 2, 4])
def test_devices_with_parts_of_the_same_channels(sharing: int) -> None:
    """Four devices with 6 channels each; `sharing` neighbours have the channels of one norm."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((4, 2, 3, 6)).astype(np.float32), rng.uniform(1, 2, (4, 6)).astype(np.float32)

    def of_device(x: jax.Array, weight: jax.Array) -> jax.Array:
        return rms_norm_in_parts(x, weight, EPSILON, "tensor", sharing)

    found = jax.vmap(of_device, axis_name="tensor")(x, weight)
    squares = (x**2).mean(-1).reshape(4 // sharing, sharing, 2, 3).mean(1, keepdims=True)
    mean = np.broadcast_to(squares, (4 // sharing, sharing, 2, 3)).reshape(4, 2, 3, 1)
    np.testing.assert_allclose(found, x / np.sqrt(mean + EPSILON) * weight[:, None, None], rtol=1e-5)
