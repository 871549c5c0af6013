"""Figures of lab 16: bytes that a step reads by context, loud channels, times."""

from collections.abc import Mapping, Sequence

import numpy as np

from minillama.lab.language import translate
from minillama.lab.layer_costs.wide_layers import bytes_read, crossing
from minillama.lab.plots.serving_plots import two_sided
from minillama.lab.widgets.controls import Settings
from minillama.lab.widgets.figure import Figure, format_number, text_table
from minillama.model.layer_kinds import Attention, DeltaNet, LatentAttention, Layer

CONTEXTS = tuple(2**power for power in range(7, 18))
MIB = 2**20


def state_figure(layers: Mapping[str, Layer], title: str, *, count: int = 1, marked: int | None = None) -> Figure:
    """MiB that a step reads, over the context; both axes are logarithmic.

    count: layers of each kind. marked: a context with a line.
    """
    curves = {name: [count * bytes_read(layer, at) / MIB for at in CONTEXTS] for name, layer in layers.items()}
    x, y = translate("tokens of context"), translate("MiB read a step")
    return two_sided(CONTEXTS, curves, title, x, y, logarithmic="xy", marked=marked)


def crossings(layers: Mapping[str, Layer]) -> str:
    """A table of the contexts from which on the row reads more than the column.

    Contexts go up to a million tokens.
    """
    rows = [
        (translate(name), *("" if name == other else _crossing(layer, layers[other]) for other in layers))
        for name, layer in layers.items()
        if not isinstance(layer, DeltaNet)
    ]
    return translate("reads more from this context on") + "\n" + text_table(("", *map(translate, layers)), rows)


def _crossing(layer: Layer, other: Layer) -> str:
    found = crossing(layer, other)
    return translate("never") if found is None else translate("always") if found == 1 else format_number(found)


def chosen_layers(settings: Settings) -> dict[str, Layer]:
    """The five kinds with heads of 128, in the sizes of the panel's sliders."""
    heads, shared, window, latent = (int(settings[name]) for name in ("heads", "shared", "window", "latent"))
    kv_heads = max(1, heads // shared)
    return {
        "MHA": Attention(heads, heads, 128, 128, scale=1.0),
        "GQA": Attention(heads, kv_heads, 128, 128, scale=1.0),
        "window": Attention(heads, kv_heads, 128, 128, scale=1.0, sliding_window=window),
        "latent": LatentAttention(heads, latent, 64, 192, 128, scale=1.0),
        "recurrence": DeltaNet(heads, heads, 128, 4, grouped=True),
    }


def panel_figure(settings: Settings) -> Figure:
    """The curves of the panel.

    Names have the bytes at the chosen context, and the context from which on a kind reads more than the recurrence.
    """
    layers, count, context = chosen_layers(settings), int(settings["layers"]), 1024 * int(settings["context"])
    named = {}
    for name, layer in layers.items():
        label = f"{translate(name)} {format_number(count * bytes_read(layer, context) / MIB)} MiB"
        if name != "recurrence":
            label += f" ({_crossing(layer, layers['recurrence'])})"
        named[label] = layer
    title = translate(
        "{count} layers of {heads} heads at {context} tokens (more than the recurrence from)",
        count=count, heads=settings["heads"], context=context,
    )  # fmt: skip
    return state_figure(named, title, count=count, marked=context)


def channel_figure(keys: Mapping[str, np.ndarray], title: str) -> Figure:
    """The largest magnitude of each channel, over all tokens and heads."""
    curves = {name: np.abs(each).max(axis=tuple(range(each.ndim - 1))).tolist() for name, each in keys.items()}
    channels: Sequence[int] = range(len(next(iter(curves.values()))))
    return two_sided(channels, curves, title, translate("channel"), translate("largest magnitude"))
