"""From a tensor's bytes to a weight on a device."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from gguf import GGMLQuantizationType as Type
from jax import Array
from jaxtyping import Float, UInt8

from minillama.errors import FormatError, UnsupportedError
from minillama.gguf import Tensor
from minillama.kernels.decode import DECODERS
from minillama.kernels.native import kernel_problem
from minillama.kernels.weight import Dense, Portable, Weight, arrange

SUPPORTED = (Type.F32, Type.F16, Type.BF16, *DECODERS)

_arrange = partial(jax.jit, static_argnames="kind")(arrange)


def load_weight(tensor: Tensor, memory: UInt8[np.ndarray, "bytes"], device: jax.Device) -> Weight:
    """Put a matrix [N, K], or a stack of experts [E, N, K], on a device; `memory` is its file, whole.

    On a processor it stays where it is, and native kernels read it there. On other devices, and where those kernels
    cannot run, only its bytes travel, and they are decoded on the device.
    Raises UnsupportedError for a type outside `SUPPORTED`.
    """
    kind = tensor.type
    if kind not in SUPPORTED:
        known = ", ".join(t.name for t in SUPPORTED)
        raise UnsupportedError(f"unsupported tensor type {kind.name} in {tensor.name}; supported: {known}")
    if device.platform == "cpu" and kernel_problem(kind) is None:
        from minillama.kernels.cpu.mapped import map_weight

        return map_weight(memory, tensor.offset, kind, tensor.shape, device)
    # read past the map, whose pages would count as memory beside the device's copy
    raw = np.fromfile(tensor.file, np.uint8, tensor.nbytes, offset=tensor.offset).reshape(tensor.data.shape)
    return portable_weight(raw, kind, device)


def portable_weight(raw: UInt8[np.ndarray, "*experts N row_bytes"], kind: Type, device: jax.Device) -> Portable:
    """Bytes of rows as a weight that XLA multiplies."""
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
