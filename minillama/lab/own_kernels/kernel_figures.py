"""Figures of kernels: the roofline of one core, and instructions by kind."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from minillama.lab.language import translate
from minillama.lab.own_kernels.core_limits import CoreLimits
from minillama.lab.own_kernels.instruction_counts import KINDS
from minillama.lab.own_kernels.traced_kernels import CountedKernel
from minillama.lab.widgets.figure import (
    BLUE,
    GREY,
    PALETTE,
    SYMBOLS,
    Figure,
    apply_layout,
    format_number,
    text_table,
)

PER_CYCLE = (1, 2, 4)  # instructions a cycle of the falling lines


@dataclass(frozen=True)
class KernelDot:
    """A kernel in the figure: instructions and bytes a weight, weights a second."""

    instructions: float
    loaded_bytes: float
    rate: float


def core_roofline(core: CoreLimits, weight_bytes: float, dots: Mapping[str, KernelDot], title: str) -> Figure:
    """Weights a second by instructions a weight.

    Memory is the flat roof, cycles are the falling ones.
    weight_bytes: from memory, of a weight.
    """
    memory = core.memory_rate(weight_bytes)
    places = [dot.instructions for dot in dots.values()] or [1.0]
    low, high = min(0.05, *places, 1.0) / 1.5, max(*places, 2.0) * 1.5
    figure = go.Figure()
    figure.add_scatter(x=[low, high], y=[memory / 1e9] * 2, mode="lines", name=translate("memory"),
                       line={"color": BLUE, "width": 3})  # fmt: skip
    if core.one_stream:
        figure.add_scatter(x=[low, high], y=[core.one_stream / weight_bytes / 1e9] * 2, mode="lines",
                           name=translate("memory, one stream"),
                           line={"color": BLUE, "width": 2, "dash": "dash"})  # fmt: skip
    for per_cycle, dash in zip(PER_CYCLE, ("dot", "dash", "solid"), strict=True):
        figure.add_scatter(
            x=[low, high], y=[core.core_rate(at, per_cycle) / 1e9 for at in (low, high)], mode="lines",
            name=translate("{count} a cycle", count=per_cycle), line={"color": GREY, "dash": dash},
        )  # fmt: skip
    for number, (name, dot) in enumerate(dots.items()):
        figure.add_scatter(
            x=[dot.instructions], y=[dot.rate / 1e9], mode="markers", name=name,
            marker={"color": PALETTE[1 + number % 6], "symbol": SYMBOLS[number % len(SYMBOLS)], "size": 13},
        )  # fmt: skip
    x, y = translate("instructions a weight"), translate("billions of weights a second")
    apply_layout(figure, title, x, y, height=440)
    rates = [memory / 1e9, *(dot.rate / 1e9 for dot in dots.values())]
    ends = min(rates) / 3, max(rates) * 2.5
    figure.update_xaxes(type="log", range=[math.log10(low), math.log10(high)], **_ticks(low, high))
    figure.update_yaxes(type="log", range=[math.log10(end) for end in ends], **_ticks(*ends))
    return Figure(figure, f"{title}\n{_roof_line(core, weight_bytes)}\n{_dot_table(core, weight_bytes, dots)}")


def _roof_line(core: CoreLimits, weight_bytes: float) -> str:
    memory = core.memory_rate(weight_bytes)
    return translate(
        "memory: {bandwidth:.1f} GB/s, {size:.4g} bytes a weight, {memory:.1f} billions of "
        "weights a second, {stream:.1f} in one stream; {frequency:.2f} GHz",
        bandwidth=core.bandwidth / 1e9, size=weight_bytes, memory=memory / 1e9,
        stream=core.one_stream / weight_bytes / 1e9, frequency=core.frequency / 1e9,
    )  # fmt: skip


def _dot_table(core: CoreLimits, weight_bytes: float, dots: Mapping[str, KernelDot]) -> str:
    header = (
        translate("kernel"), translate("instructions"), translate("bytes loaded"), translate("billions/s"),
        translate("of memory"), translate("of one stream"), translate("a cycle"),
    )  # fmt: skip
    memory, stream = core.memory_rate(weight_bytes), core.one_stream / weight_bytes
    rows = [
        (name, f"{dot.instructions:.2f}", f"{dot.loaded_bytes:.2f}", f"{dot.rate / 1e9:.2f}",
         f"{dot.rate / memory:.0%}", f"{dot.rate / stream:.0%}" if stream else "",
         f"{dot.rate * dot.instructions / core.frequency:.1f}")
        for name, dot in dots.items()
    ]  # fmt: skip
    return text_table(header, rows)


def _ticks(low: float, high: float) -> dict[str, list]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [tick for decade in decades for digit in (1, 2, 5) if low <= (tick := digit * 10.0**decade) <= high]
    return {"tickvals": ticks, "ticktext": [format_number(tick) for tick in ticks]}


def instruction_bars(kernels: Sequence[CountedKernel], title: str) -> Figure:
    """Instructions a weight of some kernels, stacked by kind."""
    figure = go.Figure()
    names = [f"{kernel.name}, {kernel.isa.value}" for kernel in kernels]
    for number, kind in enumerate(KINDS):
        amounts = [kernel.count.kinds[kind] / kernel.loop_weights for kernel in kernels]
        figure.add_bar(y=names, x=amounts, orientation="h", name=translate(kind), marker={"color": PALETTE[number]})
    apply_layout(figure, title, translate("instructions a weight"), height=170 + 44 * len(kernels))
    figure.update_layout(barmode="stack", showlegend=True)
    figure.update_yaxes(categoryorder="array", categoryarray=names, range=[len(names) - 0.5, -0.5])
    return Figure(figure, f"{title}\n{count_table(kernels)}")


def count_table(kernels: Sequence[CountedKernel]) -> str:
    """A row for each kernel: instructions a weight by kind, and loaded bytes."""
    rows = [
        (f"{kernel.name}, {kernel.isa.value}",
         *(f"{kernel.count.kinds[kind] / kernel.loop_weights:.3f}" for kind in KINDS),
         f"{kernel.instructions:.3f}", f"{kernel.loaded_bytes:.2f}")
        for kernel in kernels
    ]  # fmt: skip
    kinds = (translate(kind) for kind in KINDS)
    head = (translate("instructions a weight"), *kinds, translate("all"), translate("bytes loaded"))
    return text_table(head, rows)
