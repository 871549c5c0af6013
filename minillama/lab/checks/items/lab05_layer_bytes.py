"""Graded item of lab 05: bytes of a layer's state, by kind of layer."""

from dataclasses import replace

from minillama.gguf.kv_cache_types import CacheType, CacheTypes
from minillama.lab.checks.layer_items.hidden_layers import hidden_layers
from minillama.lab.experiments.cache_models import PASS_TOKENS
from minillama.lab.grading.check import Answer, Mistake, expect_equal, graded
from minillama.lab.grading.course_seed import hidden_cases, whole
from minillama.lab.language import message, translate
from minillama.model.layer_kinds import Attention, DeltaNet, LatentAttention, Layer
from minillama.model.state_sizes import state_bytes, window_capacity

LAYERS: dict[str, tuple[Layer, ...]] = {
    message("attention"): (
        Attention(8, 4, 32, 32, scale=1.0),
        Attention(32, 8, 64, 64, scale=1.0),
        Attention(32, 32, 128, 128, scale=1.0),
        Attention(12, 3, 96, 64, scale=1.0),
    ),
    message("a sliding window"): (
        Attention(4, 1, 256, 256, scale=1.0, sliding_window=512),
        Attention(64, 8, 64, 64, scale=1.0, sliding_window=128),
    ),
    message("latents"): (
        LatentAttention(16, 512, 64, 192, 128, scale=1.0),
        LatentAttention(20, 256, 32, 224, 256, scale=1.0),
    ),
    "DeltaNet": (
        DeltaNet(16, 32, 128, 4, grouped=True),
        DeltaNet(2, 4, 64, 3, grouped=False),
    ),
}
# Two types first: with one type, half the bytes has two explanations.
TYPES = (("q8_0", "f16"), ("f16", "f16"), ("f32", "f32"), ("q8_0", "q8_0"), ("bf16", "q8_0"))
ONE_TYPE = tuple(pair for pair in TYPES if pair[0] == pair[1])  # latents are keys and values at once
POSITIONS = (5000, 100)


def _bytes(layer: Layer, positions: int, type_k: str, type_v: str) -> int:
    types = CacheTypes(CacheType(type_k), CacheType(type_v))
    return state_bytes(layer, positions, types, chunk=PASS_TOKENS)


def flat_bytes(layer: Attention, positions: int, type_k: str, type_v: str) -> int:
    """Bytes of attention with q8_0 as one byte per number."""
    sizes = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 1}
    head = sizes[type_k] * layer.key_length + sizes[type_v] * layer.value_length
    return positions * layer.head_count_kv * head


def _as_attention(layer: LatentAttention, heads: int, key: int, value: int) -> Attention:
    return Attention(layer.head_count, heads, key, value, scale=1.0)


def _memory(layer: DeltaNet) -> int:
    return layer.value_heads * layer.size**2


def _tail(layer: DeltaNet) -> int:
    return layer.channels * (layer.taps - 1)


MISTAKES: dict[str, tuple[Mistake, ...]] = {
    "attention": (
        Mistake(
            "only head_count_kv heads have keys and values: this is grouped-query attention",
            lambda c, *rest: _bytes(replace(c, head_count_kv=c.head_count), *rest),
        ),
        Mistake("q8_0 has a scale of 2 bytes with every 32 numbers: 34 bytes, not 32", flat_bytes),
        Mistake("keys *and* values are kept", lambda c, *rest: _bytes(replace(c, value_length=0), *rest)),
        Mistake("values have a type and a length of their own", lambda c, n, k, v: _bytes(c, n, k, k)),
        Mistake(
            "values have a length of their own, value_length",
            lambda c, *rest: _bytes(replace(c, value_length=c.key_length), *rest),
        ),
        Mistake("these are numbers, not bytes: f16 takes two", lambda c, n, k, v: _bytes(c, n, "f16", "f16") // 2),
        Mistake("q8_0 is not f16: 34 bytes for 32 numbers", lambda c, n, k, v: _bytes(c, n, "f16", "f16")),
        Mistake("bytes, not bits", lambda c, *rest: 8 * _bytes(c, *rest)),
        Mistake("these are the bytes of one position; multiply by `positions`", lambda c, n, k, v: _bytes(c, 1, k, v)),
    ),
    "a sliding window": (
        Mistake(
            "a layer with a sliding_window forgets: at most window_capacity(layer.sliding_window, 512) positions",
            lambda c, *rest: _bytes(replace(c, sliding_window=0), *rest),
        ),
        Mistake(
            "the window alone has no room for the tokens of the next pass: window_capacity(layer.sliding_window, 512)",
            lambda c, n, k, v: _bytes(replace(c, sliding_window=0), min(n, c.sliding_window), k, v),
        ),
        Mistake(
            "a text shorter than the window needs less: the smaller of `positions` and the window's capacity",
            lambda c, n, k, v: _bytes(c, window_capacity(c.sliding_window, PASS_TOKENS), k, v),
        ),
    ),
    "latents": (
        Mistake(
            "the keys and values of the heads are not kept: they are made from the latent, kv_lora_rank + rope_length "
            "numbers for all heads",
            lambda c, *rest: _bytes(_as_attention(c, c.head_count, c.key_length, c.value_length), *rest),
        ),
        Mistake(
            "the latent is there once for all heads",
            lambda c, *rest: _bytes(_as_attention(c, c.head_count, c.cached_length, 0), *rest),
        ),
        Mistake(
            "one row serves keys and values: count it once",
            lambda c, *rest: _bytes(_as_attention(c, 1, c.cached_length, c.cached_length), *rest),
        ),
        Mistake(
            "the values are the first numbers of the same row: count it once",
            lambda c, *rest: _bytes(_as_attention(c, 1, c.cached_length, c.kv_lora_rank), *rest),
        ),
        Mistake(
            "the rotated part of the key is kept too: kv_lora_rank + rope_length numbers",
            lambda c, *rest: _bytes(replace(c, rope_length=0), *rest),
        ),
    ),
    "DeltaNet": (
        Mistake("a recurrent state does not grow: no factor `positions`", lambda c, n, *rest: n * _bytes(c, n, *rest)),
        Mistake("these are numbers, not bytes: f32 takes four", lambda c, *rest: _bytes(c, *rest) // 4),
        Mistake("a recurrent state is f32, whatever -ctk says", lambda c, *rest: _bytes(c, *rest) // 2),
        Mistake(
            "the convolution's last inputs are kept too: channels * (taps - 1) numbers", lambda c, *_: 4 * _memory(c)
        ),
        Mistake(
            "a convolution of `taps` taps needs taps - 1 earlier inputs",
            lambda c, *_: 4 * (_memory(c) + c.channels * c.taps),
        ),
        Mistake(
            "the memory is a matrix for each head: value_heads * size * size numbers",
            lambda c, *_: 4 * (_memory(c) // c.size + _tail(c)),
        ),
        Mistake(
            "there is a matrix for each *value* head",
            lambda c, *_: 4 * (c.key_heads * c.size**2 + _tail(c)),
        ),
    ),
}  # fmt: skip


@graded("05", "5. bytes of a layer's state")
def layer_bytes(answer: Answer) -> str:
    """`layer_bytes(layer, positions, type_k, type_v) -> bytes`, exact for each kind of layer."""
    chosen = [
        (kind, (layer, positions, *types))
        for kind, layers in LAYERS.items()
        for types in (ONE_TYPE if kind == "latents" else TYPES)
        for layer in layers
        for positions in POSITIONS
    ]
    lengths = hidden_cases(506, whole(50, 9000), count=len(LAYERS))
    hidden = [
        (kind, (layer, positions, "q8_0", "q8_0"))
        for kind, layer, (positions,) in zip(LAYERS, hidden_layers(505), lengths, strict=True)
    ]
    for kind, given in (*chosen, *hidden):
        _, positions, type_k, type_v = given
        label = translate(
            "{kind}, {positions} positions, {type_k}/{type_v}",
            kind=translate(kind), positions=positions, type_k=type_k, type_v=type_v,
        )  # fmt: skip
        expect_equal(answer, given, _bytes, MISTAKES[kind], case=label)
    return "exact for grouped heads, windows, latents and recurrent states, and every type."
