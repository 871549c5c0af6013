"""Layers of each kind in sizes of the course; checks count their bytes."""

from dataclasses import replace

from minillama.lab.grading.course_seed import hidden_cases, one_of, whole
from minillama.model.layer_kinds import Attention, DeltaNet, LatentAttention, Layer


def hidden_layers(base: int) -> tuple[Layer, ...]:
    """Attention with grouped heads, a window, latents and a recurrence, from `hidden_seed(base)`."""
    draws = (whole(1, 8), whole(2, 4), one_of(32, 64, 96), one_of(128, 160), one_of(64, 256), whole(3, 5))
    ((kv_heads, group, key, value, size, taps),) = hidden_cases(base, *draws, count=1)
    heads = kv_heads * group
    attention = Attention(heads, kv_heads, key, value, scale=1.0)
    return (
        attention,
        replace(attention, sliding_window=2 * key * group),
        LatentAttention(heads, 4 * key, 32, key, value, scale=1.0),
        DeltaNet(kv_heads, heads, size, taps, grouped=True),
    )
