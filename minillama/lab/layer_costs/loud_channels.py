"""The storyteller with loud channels, and keys rounded with or without rotation.

A pair of channels of every key is multiplied by a factor, and the same pair of every query divided by it. Products stay
the same, and so do the texts: only rounding sees the difference.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache as once
from functools import partial

import gguf
import numpy as np
from gguf.quants import dequantize, quantize

from minillama.array_types import Float
from minillama.engine.loading.model_files import data_file
from minillama.errors import OptionError, quoted
from minillama.gguf import GGUF, open_gguf
from minillama.lab.experiments.quantised_storytellers import Distance, distance
from minillama.lab.llama_numpy import Functions, attention, forward

PAIR = 13  # its angle turns slowly
TYPES = ("q8_0", "q4_0")
Rotate = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Rounding:
    """The storage of keys: a cache type, and a rotation before it (None: none)."""

    type: str
    rotate: Rotate | None = None

    def stored(self, keys: Float[np.ndarray, "*T H"]) -> Float[np.ndarray, "*T H"]:
        """The keys as they come back. The rotation is its own inverse."""
        turn = self.rotate or (lambda x: x)
        return np.asarray(turn(rounded(np.asarray(turn(keys)), self.type)))


def rounded(x: Float[np.ndarray, "*T H"], kind: str) -> Float[np.ndarray, "*T H"]:
    """Numbers after a way through a cache type; raises OptionError for an unknown one."""
    if kind not in TYPES:
        raise OptionError(f"the type of keys is {quoted(kind)}; use one of {', '.join(TYPES)}")
    tensor_type = gguf.GGMLQuantizationType[kind.upper()]
    return dequantize(quantize(np.ascontiguousarray(x, np.float32), tensor_type), tensor_type)


def louder(x: Float[np.ndarray, "*T H"], factor: float) -> Float[np.ndarray, "*T H"]:
    """The same numbers with one pair of channels multiplied."""
    out = np.array(x, dtype=np.float32)
    out[..., 2 * PAIR : 2 * PAIR + 2] *= factor
    return out


def storyteller_logits(
    ids: Sequence[int], rounding: Rounding | None = None, factor: float = 1.0
) -> Float[np.ndarray, "T V"]:
    """Logits of the storyteller in numpy, with keys that are stored in another way."""
    attend = partial(_attend, rounding, factor)
    return forward(_storyteller(), ids, Functions(attention=attend))["result_output"]


def key_distances(
    ids: Sequence[int], ways: dict[str, Rounding], factor: float, base: Float[np.ndarray, "T V"]
) -> dict[str, Distance]:
    """KL divergence from the logits `base`, by the way that keys are stored."""
    return {name: distance(base, storyteller_logits(ids, way, factor)) for name, way in ways.items()}


def keys_of(ids: Sequence[int], layer: int, factor: float = 1.0) -> Float[np.ndarray, "T K H"]:
    """The keys of a layer, with loud channels."""
    return louder(forward(_storyteller(), ids)[f"Kcur-{layer}"], factor)


@once
def _storyteller() -> GGUF:
    return open_gguf(data_file("storyteller-f16.gguf"))


def _attend(rounding: Rounding | None, factor: float, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    q, k = louder(q, 1 / factor), louder(k, factor)
    return attention(q, k if rounding is None else rounding.stored(k), v)
