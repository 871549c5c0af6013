"""Refuse NaN and infinite numbers that a model computes.

A broken file, or an overflow, gives NaN logits. Sampling and sums go on with NaN and show nothing of it.
"""

import numpy as np

from minillama.array_types import Float
from minillama.errors import NonFiniteError


def check_finite(values: Float[np.ndarray, "*axes"], what: str = "logits") -> None:
    """Raise NonFiniteError if a value is NaN or infinite; `what` names the values."""
    if not np.isfinite(values).all():
        raise non_finite(what)


def non_finite(what: str = "logits") -> NonFiniteError:
    """The error of a model that computes NaN or infinite numbers."""
    return NonFiniteError(
        f"the model computes NaN or infinite {what}; the file is broken, or its numbers overflow: download or convert "
        "it again, or load it with cache_type_k and cache_type_v f32 (-ctk f32 -ctv f32)"
    )
