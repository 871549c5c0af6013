"""Multi-head latent attention: the projection from the latent vector, split for the absorbed form."""

from minillama.convert.weights.lazy_weight import LazyWeight
from minillama.errors import FormatError


def split_latent_projection(weight: LazyWeight, heads: int, key: int, value: int) -> list[LazyWeight]:
    """k_b [heads, latent, key] and v_b [heads, value, latent] of kv_b [heads * (key + value), latent].

    The keys are transposed: the absorbed form multiplies queries with them.
    """
    rows, latent = weight.shape
    if rows != heads * (key + value):
        raise FormatError(f"{weight.name} has {rows} rows; expected {heads} heads of {key} + {value}")
    keys = weight.changed(lambda w: w.reshape(heads, key + value, latent)[:, :key].swapaxes(1, 2), (heads, latent, key))
    values = weight.changed(lambda w: w.reshape(heads, key + value, latent)[:, key:], (heads, value, latent))
    return [
        keys.renamed(weight.name.replace("kv_b_proj", "k_b_proj")),
        values.renamed(weight.name.replace("kv_b_proj", "v_b_proj")),
    ]
