"""Tiny models whose matrices have scales apart, `blk.0.attn_q.scale`, as NVFP4 files have them."""

from pathlib import Path

import numpy as np
from tiny_models import write_tiny

from tests.fuzz.gguf_parts import Entry, parse


def write_scaled(folder: Path, variant: str) -> tuple[Path, Path]:
    """A model with scales next to the matrices of its layers, and one with scaled matrices."""
    source, rng = write_tiny(folder / "plain.gguf", variant), np.random.default_rng(0)
    apart, scaled = parse(source), parse(source)
    for entry in scaled.tensors:
        stem, _, end = entry.name.rpartition(b".")
        if len(entry.dims) > 1 and end == b"weight" and stem.startswith(b"blk.") and not stem.endswith(b"ffn_gate_inp"):
            numbers = rng.uniform(0.5, 1.5, entry.dims[2] if len(entry.dims) > 2 else 1).astype(np.float32)
            for extra in (b".scale", b".input_scale"):
                apart.tensors.append(Entry(stem + extra, [len(numbers)], 0, numbers.tobytes()))
            matrices = np.frombuffer(entry.data, np.float32).reshape(len(numbers), -1)
            entry.data = (matrices * numbers[:, None]).tobytes()
    for name, parts in (("apart", apart), ("scaled", scaled)):
        (folder / f"{name}.gguf").write_bytes(parts.to_bytes())
    return folder / "apart.gguf", folder / "scaled.gguf"
