"""The logits after each token of a text."""

from collections.abc import Sequence

import numpy as np

from minillama.array_types import Float32
from minillama.engine.backends.base import Backend
from minillama.engine.backends.finite import check_finite
from minillama.engine.backends.programs import text_programs
from minillama.engine.session import LEAST_CHUNK
from minillama.gguf.kv_cache_types import CacheTypes


def text_logits(
    backend: Backend, cache_types: CacheTypes, ids: Sequence[int], ubatch_size: int
) -> Float32[np.ndarray, "T V"]:
    """Logits of a text, evaluated from an empty context.

    At most `ubatch_size` tokens run at once. Raises NonFiniteError for NaN and infinite logits.
    """
    padded = -(-len(ids) // LEAST_CHUNK) * LEAST_CHUNK
    cache = backend.new_cache(padded, cache_types)
    row = np.zeros((1, padded), np.int32)
    row[0, : len(ids)] = ids
    parts = []
    for start in range(0, padded, ubatch_size):
        part = row[:, start : start + ubatch_size]
        states, cache = backend.call(text_programs.hidden, cache, part, None)
        parts.append(np.asarray(backend.call(text_programs.logits, states))[0])
    found = np.concatenate(parts)[: len(ids)]
    check_finite(found)
    return found
