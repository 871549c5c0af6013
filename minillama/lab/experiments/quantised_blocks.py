"""Hex dumps, and the fields and decoded values of quantised blocks."""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from gguf import quants

from minillama.array_types import Float, UInt8
from minillama.gguf import BLOCKS, TensorType
from minillama.gguf.block_layouts import LAYOUTS, pack_nibbles, pack_scales_and_minima
from minillama.lab.language import message, translate
from minillama.lab.widgets.figure import BLUE, GREY, ORANGE, Figure, apply_layout, format_number, text_table

SHOWN_TYPES = (TensorType.Q8_0, TensorType.Q5_0, TensorType.Q4_0, TensorType.Q4_1, TensorType.Q4_K)


@dataclass(frozen=True)
class BlockField:
    """A named byte range of a block."""

    name: str
    start: int
    size: int
    meaning: str


FIELDS: dict[TensorType, tuple[BlockField, ...]] = {
    TensorType.Q8_0: (
        BlockField("d", LAYOUTS[TensorType.Q8_0].d, 2, message("scale, float16")),
        BlockField("qs", LAYOUTS[TensorType.Q8_0].qs, 32, message("32 codes, int8: value = d * q")),
    ),
    TensorType.Q5_0: (
        BlockField("d", LAYOUTS[TensorType.Q5_0].d, 2, message("scale, float16")),
        BlockField("qh", LAYOUTS[TensorType.Q5_0].qh, 4, message("the fifth bit of each of the 32 codes")),
        BlockField("qs", LAYOUTS[TensorType.Q5_0].qs, 16, message("low and high nibbles: value = d * (q - 16)")),
    ),
    TensorType.Q4_0: (
        BlockField("d", LAYOUTS[TensorType.Q4_0].d, 2, message("scale, float16")),
        BlockField(
            "qs",
            LAYOUTS[TensorType.Q4_0].qs,
            16,
            message("low nibbles are weights 0..15, high nibbles 16..31: value = d * (q - 8)"),
        ),
    ),
    TensorType.Q4_1: (
        BlockField("d", LAYOUTS[TensorType.Q4_1].d, 2, message("scale, float16")),
        BlockField("m", LAYOUTS[TensorType.Q4_1].m, 2, message("minimum, float16")),
        BlockField("qs", LAYOUTS[TensorType.Q4_1].qs, 16, message("low and high nibbles: value = d * q + m")),
    ),
    TensorType.Q4_K: (
        BlockField("d", LAYOUTS[TensorType.Q4_K].d, 2, message("scale of the scales, float16")),
        BlockField("dmin", LAYOUTS[TensorType.Q4_K].m, 2, message("scale of the minima, float16")),
        BlockField("scales", LAYOUTS[TensorType.Q4_K].scales, 12, message("8 scales and 8 minima of 6 bits each")),
        BlockField(
            "qs",
            LAYOUTS[TensorType.Q4_K].qs,
            128,
            message("256 codes of 4 bits: value = d * scale * q - dmin * minimum"),
        ),
    ),
}


def hexdump(data: bytes, start: int = 0) -> str:
    """Hex dump, 16 bytes a line: offset, hexadecimal, printable characters."""
    lines = []
    for place in range(0, len(data), 16):
        row = data[place : place + 16]
        codes = " ".join(f"{byte:02x}" for byte in row)
        signs = "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in row)
        lines.append(f"{start + place:08x}  {codes:<47}  {signs}")
    return "\n".join(lines)


def encode(values: Float[np.ndarray, "n"], kind: TensorType) -> UInt8[np.ndarray, "m"]:
    """Quantise values to whole blocks; Q4_K uses the simple `encode_q4_k`."""
    if kind is TensorType.Q4_K:
        return encode_q4_k(values)
    return quants.quantize(values.astype(np.float32), kind)


def encode_q4_k(values: Float[np.ndarray, "n"]) -> UInt8[np.ndarray, "m"]:
    """Quantise to Q4_K with the range from minimum to maximum of each 32 values.

    llama-quantize searches for a better scale and minimum of each sub-block. The layout is the same.
    """
    parts = values.astype(np.float32).reshape(-1, 8, 32)
    minimum = np.maximum(0, -parts.min(axis=2))
    step = np.maximum(0, parts.max(axis=2) + minimum) / 15
    d = (step.max(axis=1, keepdims=True) / 63).astype(np.float16).astype(np.float32)
    dmin = (minimum.max(axis=1, keepdims=True) / 63).astype(np.float16).astype(np.float32)
    scale = np.clip(np.rint(_divide(step, d)), 0, 63).astype(np.uint8)
    offset = np.clip(np.rint(_divide(minimum, dmin)), 0, 63).astype(np.uint8)
    codes = np.rint(_divide(parts + (dmin * offset)[:, :, None], (d * scale)[:, :, None]))
    codes = np.clip(codes, 0, 15).astype(np.uint8)
    nibbles = pack_nibbles(codes.reshape(-1, 4, 64)).reshape(-1, 128)
    front = [part.astype(np.float16).view(np.uint8) for part in (d, dmin)]
    return np.concatenate([*front, pack_scales_and_minima(scale, offset), nibbles], axis=1).reshape(-1)


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape, np.float32), where=below > 0)


def relative_error(values: Float[np.ndarray, "n"], kind: TensorType) -> float:
    """RMS of the quantisation error divided by the RMS of the values."""
    lost = quants.dequantize(encode(values, kind), kind).reshape(-1) - values
    return float(np.sqrt(np.mean(lost**2) / np.mean(values**2)))


def bits_per_weight(kind: TensorType) -> float:
    """Bits per weight, scales included."""
    count, size = BLOCKS[kind]
    return 8 * size / count


def block_figure(values: Float[np.ndarray, "n"], kind: TensorType, start: int) -> Figure:
    """One block of `kind` at `values[start]`: fields, weights before and after."""
    count, _ = BLOCKS[kind]
    start = min(start - start % count, values.size - count)
    inside = values[start : start + count].astype(np.float32)
    block = encode(inside, kind)
    outside = quants.dequantize(block, kind).reshape(-1)
    places = list(range(start, start + count))
    figure = go.Figure()
    figure.add_scatter(
        x=places,
        y=inside.tolist(),
        name=translate("the weight"),
        mode="markers",
        marker={"color": GREY, "symbol": "circle-open", "size": 9},
    )
    figure.add_scatter(
        x=places,
        y=outside.tolist(),
        name=translate("after {kind}", kind=kind.name),
        mode="markers",
        marker={"color": BLUE, "size": 5},
    )
    figure.add_bar(x=places, y=(outside - inside).tolist(), name=translate("error"), marker={"color": ORANGE})
    loss = relative_error(inside, kind) if np.any(inside) else 0.0
    title = translate(
        "{kind}: {count} weights in {size} bytes, {bits:.4g} bits a weight, error {loss:.2%}",
        kind=kind.name, count=count, size=block.size, bits=bits_per_weight(kind), loss=loss,
    )  # fmt: skip
    apply_layout(figure, title, translate("weight number in the tensor"), translate("value"), height=400)
    figure.update_layout(showlegend=True)
    rows = []
    for field in FIELDS[kind]:
        stretch = block[field.start : field.start + field.size]
        codes = " ".join(f"{byte:02x}" for byte in stretch[:12]) + (" …" if field.size > 12 else "")
        rows.append((field.name, f"{field.start}..{field.start + field.size - 1}", codes, translate(field.meaning)))
    first = ", ".join(
        f"{format_number(float(a))} -> {format_number(float(b))}" for a, b in zip(inside[:4], outside[:4], strict=True)
    )
    head = (translate("field"), translate("bytes"), translate("content"), translate("meaning"))
    return Figure(figure, f"{title}\n{text_table(head, rows)}\n" + translate("first weights: {first}", first=first))
