"""From a tensor's bytes to a weight on a device."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from gguf import GGMLQuantizationType as Type
from jax import Array
from jaxtyping import Float, UInt8

from minillama.errors import FormatError, UnsupportedError
from minillama.kernels.decode import DECODERS
from minillama.kernels.weight import Dense, Weight, arrange

SUPPORTED = (Type.F32, Type.F16, Type.BF16, *DECODERS)

_arrange = partial(jax.jit, static_argnames="kind")(arrange)


def load_weight(raw: UInt8[np.ndarray, "*experts N row_bytes"], kind: Type, name: str, device: jax.Device) -> Weight:
    """Put a matrix on a device; only its bytes travel, and decoding happens there.

    Raises UnsupportedError for a type outside `SUPPORTED`; `name` is the tensor's name for the message.
    """
    if kind not in SUPPORTED:
        known = ", ".join(t.name for t in SUPPORTED)
        raise UnsupportedError(f"unsupported tensor type {kind.name} in {name}; supported: {known}")
    if kind is Type.F32:  # as it lies in the file: nothing to compute
        return Dense(jax.device_put(raw.view(np.float32), device))
    # one at a time: with several under way, the bytes of all of them would be in memory beside their weights
    return jax.block_until_ready(_arrange(jax.device_put(raw, device), kind))


def load_vector(raw: UInt8[np.ndarray, "row_bytes"], kind: Type, name: str, device: jax.Device) -> Float[Array, "K"]:
    """Put a norm's weights, a bias or a table of factors on a device as float32.

    Raises FormatError for quantised vectors, which no converter writes.
    """
    dtypes = {Type.F32: np.float32, Type.F16: np.float16}
    if kind is Type.BF16:
        values = raw.view(np.uint16).astype(np.uint32) << 16
        return jax.device_put(values.view(np.float32), device)
    if kind not in dtypes:
        raise FormatError(f"{name} is a vector of type {kind.name}; expected F32, F16 or BF16")
    return jax.device_put(raw.view(dtypes[kind]).astype(jnp.float32), device)
