"""Sampling options in a model's file: defaults, and tokens that are never sampled."""

from collections.abc import Mapping

import numpy as np

from minillama.errors import FormatError
from minillama.sampling import SamplingOptions

_KEYS: dict[str, str] = {
    "sequence": "samplers",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
    "temp": "temp",
    "penalty_last_n": "repeat_last_n",
    "penalty_repeat": "repeat_penalty",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_ent",
    "mirostat_eta": "mirostat_lr",
}


def file_defaults(metadata: Mapping[str, object]) -> SamplingOptions:
    """Options of `Sampling` that the file overrides: `general.sampling.*`."""
    found = {field: metadata.get(f"general.sampling.{key}") for key, field in _KEYS.items()}
    return SamplingOptions(**{field: value for field, value in found.items() if value is not None})


def suppressed_tokens(metadata: Mapping[str, object], size: int) -> list[int]:
    """Tokens that are never sampled.

    Ids outside the vocabulary of `size` tokens are dropped, as in llama.cpp.
    """
    key = "tokenizer.ggml.suppress_tokens"
    ids = metadata.get(key)
    if ids is None:
        return []
    if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "iu" or ids.ndim != 1:
        raise FormatError(f"{key} is not a list of token ids; convert the model again")
    return np.unique(ids[(ids >= 0) & (ids < size)]).tolist()
