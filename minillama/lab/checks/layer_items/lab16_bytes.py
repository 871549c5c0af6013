"""Graded items of lab 16: bytes that a step reads, positions that a window shows."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from minillama.lab.checks.layer_items.hidden_layers import hidden_layers
from minillama.lab.grading.check import Answer, Mistake, expect_equal, graded
from minillama.lab.grading.course_seed import hidden_cases, whole
from minillama.lab.language import message, translate
from minillama.lab.layer_costs.wide_layers import PASS_TOKENS, bytes_read
from minillama.model.layer_kinds import Attention, DeltaNet, LatentAttention, Layer
from minillama.model.state_sizes import window_capacity

LAB = "16"
LENGTHS = (5000, 700)
LAYERS: dict[str, tuple[Layer, ...]] = {
    message("attention"): (Attention(32, 8, 128, 96, scale=1.0), Attention(12, 12, 64, 64, scale=1.0)),
    message("a window"): (Attention(16, 4, 64, 64, scale=1.0, sliding_window=1024),),
    message("latents"): (LatentAttention(16, 512, 64, 192, 128, scale=1.0),),
    message("a recurrence"): (DeltaNet(16, 32, 128, 4, grouped=True), DeltaNet(4, 4, 64, 3, grouped=False)),
}


def _heads(layer: LatentAttention, heads: int, key: int, value: int) -> Attention:
    return Attention(layer.head_count, heads, key, value, scale=1.0)


def _memory(layer: DeltaNet) -> int:
    return layer.value_heads * layer.size**2


def _tail(layer: DeltaNet) -> int:
    return layer.channels * (layer.taps - 1)


def _seen(layer: Attention, length: int) -> int:
    return bytes_read(replace(layer, sliding_window=0), length)


BYTES_MISTAKES: dict[str, tuple[Mistake, ...]] = {
    "attention": (
        Mistake("only head_count_kv heads have keys and values", lambda c, n: bytes_read(
            replace(c, head_count_kv=c.head_count), n)),
        Mistake("values are read, too", lambda c, n: bytes_read(replace(c, value_length=0), n)),
        Mistake("values have a length of their own, value_length",
                lambda c, n: bytes_read(replace(c, value_length=c.key_length), n)),
        Mistake("these are numbers; in f16 each has two bytes", lambda c, n: bytes_read(c, n) // 2),
        Mistake("the cache is f16, two bytes a number, not four", lambda c, n: bytes_read(c, n) * 2),
        Mistake("these are the bytes of one position, and the step reads all of them", lambda c, n: bytes_read(c, 1)),
        Mistake("the token's own key and value are written before they are read: `length` positions",
                lambda c, n: bytes_read(c, n - 1)),
    ),
    "a window": (
        Mistake("a layer with a sliding_window reads no more than that many positions", _seen),
        Mistake("this is the room that a window has in memory; a step reads only the positions in the window",
                lambda c, n: _seen(c, min(n, window_capacity(c.sliding_window, PASS_TOKENS)))),
        Mistake("a text shorter than the window has fewer positions: the smaller of both",
                lambda c, n: _seen(c, c.sliding_window)),
        Mistake("the token itself is one of the positions of the window",
                lambda c, n: _seen(c, min(n, c.sliding_window + 1))),
    ),
    "latents": (
        Mistake("keys and values of the heads are not kept: only the latent and the rotated part, once for all heads",
                lambda c, n: bytes_read(_heads(c, c.head_count, c.key_length, c.value_length), n)),
        Mistake("all heads read the same row: count it once",
                lambda c, n: bytes_read(_heads(c, c.head_count, c.cached_length, 0), n)),
        Mistake("the values are made of the same latent: the row is read once",
                lambda c, n: bytes_read(_heads(c, 1, c.cached_length, c.cached_length), n)),
        Mistake("the values are made of the same latent, which is read already",
                lambda c, n: bytes_read(_heads(c, 1, c.cached_length, c.kv_lora_rank), n)),
        Mistake("the rotated part of the key is in the row, too: kv_lora_rank + rope_length numbers",
                lambda c, n: bytes_read(replace(c, rope_length=0), n)),
    ),
    "a recurrence": (
        Mistake("the state has the same size for every text: no factor `length`", lambda c, n: n * bytes_read(c, n)),
        Mistake("a recurrent state is f32: four bytes a number", lambda c, n: bytes_read(c, n) // 2),
        Mistake("these are numbers; in f32 each has four bytes", lambda c, n: bytes_read(c, n) // 4),
        Mistake("the last inputs of the convolution are read, too: channels * (taps - 1)", lambda c, n: 4 * _memory(c)),
        Mistake("there is a matrix for each *value* head", lambda c, n: 4 * (c.key_heads * c.size**2 + _tail(c))),
        Mistake("the memory of a head is a matrix: size * size numbers",
                lambda c, n: 4 * (_memory(c) // c.size + _tail(c))),
        Mistake("a convolution of `taps` taps keeps taps - 1 earlier inputs",
                lambda c, n: 4 * (_memory(c) + c.channels * c.taps)),
    ),
}  # fmt: skip


@graded(LAB, "1. bytes that a step reads")
def read_bytes(answer: Answer) -> str:
    """`read_bytes(layer, length) -> bytes of state`, for each kind of layer."""
    chosen = [(kind, layer, length) for kind, layers in LAYERS.items() for layer in layers for length in LENGTHS]
    drawn = hidden_cases(1603, whole(100, 9000), count=len(LAYERS))
    hidden = [(kind, layer, length) for kind, layer, (length,) in zip(LAYERS, hidden_layers(1601), drawn, strict=True)]
    for kind, layer, length in (*chosen, *hidden):
        case = translate("{kind}, {length} tokens", kind=translate(kind), length=length)
        expect_equal(answer, (layer, length), bytes_read, BYTES_MISTAKES[kind], case=case)
    return "whole caches, windows, latents and a state of fixed size."


# ---- the mask of a window ----


def right_mask(start: int, tokens: int, window: int) -> np.ndarray:
    """Whether query t, at position start + t, sees each position; window 0: all."""
    return _mask(start, tokens, lambda ago: (ago >= 0) & ((window == 0) | (ago < window)))


def _mask(start: int, tokens: int, seen: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A mask by the distance from a query back to a position."""
    return seen(start + np.arange(tokens)[:, None] - np.arange(start + tokens)[None])


def _as_numbers(mask: np.ndarray) -> np.ndarray:
    return mask.astype(float)


MASK_MISTAKES = (
    Mistake("queries begin at position `start`, after the cached ones",
            lambda s, t, w: _mask(s, t, lambda ago: (ago >= s) & ((w == 0) | (ago < s + w)))),
    Mistake("a window of 0 means none: all earlier positions are seen",
            lambda s, t, w: _mask(s, t, lambda ago: (ago >= 0) & (ago < w))),
    Mistake("no token sees later ones", lambda s, t, w: _mask(s, t, lambda ago: (w == 0) | (ago < w))),
    Mistake("a window looks back only, not to both sides",
            lambda s, t, w: _mask(s, t, lambda ago: (w == 0) | (abs(ago) < w))),
    Mistake("one position too many: the token itself is one of the window's positions",
            lambda s, t, w: _mask(s, t, lambda ago: (ago >= 0) & ((w == 0) | (ago <= w)))),
    Mistake("a token sees itself", lambda s, t, w: _mask(s, t, lambda ago: (ago > 0) & ((w == 0) | (ago < w)))),
    Mistake("the window moves with each query: it does not cut the text into blocks",
            lambda s, t, w: _blocks(s, t, w)),
    Mistake("True is where a query sees a position, not where it does not",
            lambda s, t, w: ~right_mask(s, t, w)),
    Mistake("rows are queries, columns are positions", lambda s, t, w: right_mask(s, t, w).T),
    Mistake("the earlier positions count, too: start + tokens columns", lambda s, t, w: right_mask(s, t, w)[:, s:]),
)  # fmt: skip


def _blocks(start: int, tokens: int, window: int) -> np.ndarray:
    queries, places = start + np.arange(tokens)[:, None], np.arange(start + tokens)[None]
    return (places <= queries) & ((window == 0) or (queries // max(window, 1) == places // max(window, 1)))


@graded(LAB, "2. what a window shows")
def window_mask(answer: Answer) -> str:
    """`window_mask(start, tokens, window) -> bool [tokens, start + tokens]`."""
    cases = ((5, 4, 3), (0, 6, 2), (4, 3, 0), (7, 1, 4), (2, 5, 100))
    for start, tokens, window in (*cases, *hidden_cases(1602, whole(0, 9), whole(2, 9), whole(1, 9))):
        case = translate("start {start}, {tokens} tokens, window {window}", start=start, tokens=tokens, window=window)
        numbers = [Mistake(each.hint, _numbers_of(each.wrong)) for each in MASK_MISTAKES]
        expect_equal(answer, (start, tokens, window), _numbers_of(right_mask), numbers, case=case)
    return "causal, after a cache, and with the window's last position at the right place."


def _numbers_of(mask: Answer) -> Callable[[int, int, int], np.ndarray]:
    return lambda start, tokens, window: _as_numbers(np.asarray(mask(start, tokens, window)))
