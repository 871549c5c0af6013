"""The hidden states of a text as one vector, pooled and scaled as in llama.cpp."""

from collections.abc import Mapping, Sequence

import numpy as np

from minillama.array_types import Float32
from minillama.engine.backends.base import Backend
from minillama.engine.backends.finite import check_finite
from minillama.engine.backends.programs import text_programs
from minillama.engine.session import LEAST_CHUNK
from minillama.errors import OptionError, quoted
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.option_values import as_int

POOLINGS = ("none", "mean", "cls", "last")
INT16 = 32760.0  # llama.cpp scales the largest number to this for normalize=0


def hidden_states(
    backend: Backend, cache_types: CacheTypes, ids: Sequence[int], ubatch_size: int
) -> Float32[np.ndarray, "T D"]:
    """The states after the last norm, one for each token id.

    The text is evaluated from an empty context, at most `ubatch_size` tokens at once. Sizes are padded to powers of
    two, so that texts of all lengths share a few programs.
    """
    chunk = LEAST_CHUNK
    while chunk < min(len(ids), ubatch_size):
        chunk *= 2
    capacity = chunk
    while capacity < len(ids):
        capacity *= 2
    cache = backend.new_cache(capacity, cache_types)
    parts = []
    for start in range(0, len(ids), chunk):
        part = ids[start : start + chunk]
        row = np.zeros((1, chunk), np.int32)
        row[0, : len(part)] = part
        states, cache = backend.call(text_programs.hidden, cache, row, np.array([len(part)], np.int32))
        parts.append(np.asarray(states)[0, : len(part)])
    found = np.concatenate(parts).astype(np.float32)
    check_finite(found, "hidden states")
    return found


def pooled(states: Float32[np.ndarray, "T D"], pooling: str, normalize: int) -> Float32[np.ndarray, "..."]:
    """One scaled vector [D]: the first state (`cls`), the `last` one, or the mean.

    With `none` the states as they are, [T, D].
    """
    if pooling == "none":
        return states
    return scaled(_one_vector(states, pooling), normalize)


def _one_vector(states: Float32[np.ndarray, "T D"], pooling: str) -> Float32[np.ndarray, "D"]:
    if pooling == "mean":
        return states.mean(axis=0)
    return states[0 if pooling == "cls" else -1]


def scaled(vector: Float32[np.ndarray, "D"], normalize: int) -> Float32[np.ndarray, "D"]:
    """The vector with norm 1, by llama.cpp's number of the norm.

    -1: as it is, 0: largest number 32760, 1: sum of absolute values, 2: Euclidean, p > 2: p-norm.
    """
    if normalize < 0:
        return vector
    size = np.abs(vector.astype(np.float64))
    norm = size.max() / INT16 if normalize == 0 else (size**normalize).sum() ** (1 / normalize)
    return (vector / norm if norm > 0 else np.zeros_like(vector)).astype(np.float32)


def check_pooling(pooling: object) -> str:
    """A known way to pool; raises OptionError for another one."""
    if pooling not in POOLINGS:
        raise OptionError(f"pooling is {quoted(pooling)}; use one of {', '.join(POOLINGS)}")
    return str(pooling)


def check_normalize(normalize: object) -> int:
    """A number of a norm; raises OptionError for another value."""
    number = as_int(normalize)  # type: ignore[arg-type]
    if number is None or not -1 <= number <= 1000:
        raise OptionError(f"normalize is {quoted(normalize)}; use -1 (none), 0 (largest), 1, 2 (Euclidean) or p")
    return number


def file_pooling(metadata: Mapping[str, object]) -> str:
    """The pooling of a file's key `pooling_type`, `none` where it has none or ranks texts."""
    number = metadata.get(f"{metadata.get('general.architecture')}.pooling_type")
    return POOLINGS[number] if isinstance(number, int) and 0 <= number < len(POOLINGS) else POOLINGS[0]
