"""Importance matrix of llama-imatrix: squared activations that enter each weight matrix.

A column with large activations costs more accuracy when it is rounded, so quantisation gives its errors more weight.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from minillama.engine.backends.finite import check_finite
from minillama.engine.llm import LLM
from minillama.errors import OptionError, UnsupportedError
from minillama.model.cache import Cache, empty_cache
from minillama.model.config import Config
from minillama.model.forward import forward
from minillama.model.params import Params

# Activation -> matrices of its layer that take it as input.
CONSUMERS: dict[str, tuple[str, ...]] = {
    "attn_norm": ("attn_q", "attn_k", "attn_v", "attn_qkv"),
    "kqv_out": ("attn_output",),
    "ffn_norm": ("ffn_gate", "ffn_up"),
    "ffn_swiglu": ("ffn_down",),
    "ffn_geglu": ("ffn_down",),
}
HEAD = "result_norm"


def split_chunks(llm: LLM, ids: Sequence[int], size: int, *, first: int = 0, most: int | None = None) -> np.ndarray:
    """Split the tokens of a text into chunks: int32 [chunks, size].

    BOS replaces the first token of each chunk if the model needs it. As in llama-imatrix, an incomplete last chunk is
    dropped, `first` chunks are skipped, and at most `most` are taken. Raises OptionError for a text of fewer than two
    chunks.
    """
    if size < 1 or first < 0:
        raise OptionError(f"chunks of {size} tokens from chunk {first}: both must be positive")
    if len(ids) - first * size < 2 * size:
        raise OptionError(
            f"{len(ids)} tokens, and {(first + 2) * size} are needed for two chunks of {size}; "
            "give a longer text or a smaller chunk size"
        )
    count = len(ids) // size
    chunks = np.asarray(ids[: count * size], np.int32).reshape(count, size)[first:][:most]
    if llm.tokenizer.add_bos and llm.tokenizer.bos is not None:
        chunks[:, 0] = llm.tokenizer.bos
    return chunks


def sums_of_squares(
    llm: LLM, chunks: np.ndarray, *, head: bool = False, progress: Callable[[], None] = lambda: None
) -> dict[str, np.ndarray]:
    """Sums of squared inputs over all tokens, by matrix name: float32 [columns].

    head: include output.weight. Raises UnsupportedError for models with experts, OptionError if the layers are on
    several devices, and NonFiniteError for NaN and infinite activations.
    """
    if llm.config.expert_count:
        raise UnsupportedError("imatrix does not support models with experts yet; use llama-imatrix")
    totals: dict[str, np.ndarray] = {}
    for chunk in chunks:
        llm.check_file()
        cache = empty_cache(llm.config, chunks.shape[1], llm.cache_types)
        for name, values in _squares(llm.params, llm.config, jnp.asarray(chunk[None]), cache).items():
            squares = np.asarray(values, np.float64)
            check_finite(squares, f"{name} activations")
            totals[name] = totals.get(name, np.float64(0)) + squares
        progress()
    found = {}
    for name, values in totals.items():
        activation, _, layer = name.rpartition("-")
        consumers = ("output",) if name == HEAD and head else CONSUMERS.get(activation, ())
        for consumer in consumers:
            matrix = f"blk.{layer}.{consumer}.weight" if layer.isdecimal() else f"{consumer}.weight"
            if matrix in llm.file.tensors:
                found[matrix] = values.astype(np.float32)
    return found


@partial(jax.jit, static_argnames="config")
def _squares(params: Params, config: Config, ids: Array, cache: Cache) -> dict[str, Array]:
    found: dict[str, Array] = {}

    def tap(name: str, value: Array) -> Array:
        if name == HEAD or name.rpartition("-")[0] in CONSUMERS:
            found[name] = jnp.sum(jnp.square(value), axis=(0, 1))
        return value

    forward(params, config, ids, cache, tap)
    return found
