"""Write the GGUF file of a plan, tensor after tensor."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import gguf
import numpy as np

from minillama.atomic_file import atomic_write, check_room
from minillama.convert.conversion_plan import ConversionPlan
from minillama.convert.folder.json_files import checked
from minillama.convert.output_types import encode
from minillama.errors import FormatError
from minillama.gguf.header_parser import DEFAULT_ALIGNMENT
from minillama.gguf.header_writer import METADATA_ROOM, TensorSpec, padded_size

Progress = Callable[[TensorSpec, int], None]  # (the tensor, bytes of it that were just written)
CHUNK_VALUES = 2**22  # values that are encoded at a time


def write_plan(plan: ConversionPlan, path: str | Path, progress: Progress | None = None) -> Path:
    """Write the file of a plan; an existing file is replaced at the end.

    After an error or Ctrl-C nothing new is left. Memory: one tensor at most, and a few MB for those that no change
    touches. Raises ResourceError (no room, not writable) and FormatError (a tensor of another shape than its header).
    """
    path = Path(path)
    check_room(path, plan.nbytes + METADATA_ROOM)
    with atomic_write(path) as file:
        _write_header(Path(file.name), plan)
        file.seek(0, os.SEEK_END)
        if plan.tensors:
            file.write(b"\0" * (-file.tell() % DEFAULT_ALIGNMENT))
        _write_tensors(file, plan, progress or (lambda tensor, count: None))
    return path


def output_path(plan: ConversionPlan, name: str | None) -> Path:
    """The output file: the name with `{ftype}` filled in, or one in the folder.

    The latter is the name that llama.cpp's converter would choose.
    """
    kind = plan.output.name
    if name is not None:
        for word in ("ftype", "outtype"):
            name = name.replace(f"{{{word}}}", kind.lower()).replace(f"{{{word.upper()}}}", kind)
        return Path(name)
    card = plan.card
    size, kind = (card.size_label, kind) if plan.tensors else (None, None)
    role = None if plan.tensors else "vocab"
    found = gguf.naming_convention(card.name, card.basename, card.finetune, card.version, size, kind, role)
    return plan.folder / f"{found}.gguf"


def _write_header(path: Path, plan: ConversionPlan) -> None:
    writer = gguf.GGUFWriter(path, plan.architecture)
    try:
        with checked("README.md, generation_config.json or tokenizer_config.json"):
            writer.add_type(gguf.GGUFType.MODEL)
            plan.card.set_gguf_meta_model(writer)
            for key, entry in plan.entries.items():
                writer.add_key_value(key, entry.value, entry.type)
        for tensor in plan.tensors:
            kind = np.dtype(np.float32)
            writer.add_tensor_info(tensor.name, tensor.shape, kind, tensor.nbytes, raw_dtype=tensor.type)
        writer.write_header_to_file()
        with checked("README.md, generation_config.json or tokenizer_config.json"):
            writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def _write_tensors(file: BinaryIO, plan: ConversionPlan, progress: Progress) -> None:
    for weight, tensor in zip(plan.weights, plan.tensors, strict=True):
        written = 0
        with checked(f"config.json, for {tensor.name},"):
            for part in (part for values in weight.pieces() for part in _chunks(values)):
                raw = encode(part, tensor.type)
                file.write(raw)
                written += len(raw)
                progress(tensor, len(raw))
        if written != tensor.nbytes:
            raise FormatError(f"{tensor.name} has {written} bytes, not {tensor.nbytes}; the checkpoint is damaged")
        file.write(b"\0" * (padded_size(written) - written))


def _chunks(values: np.ndarray) -> list[np.ndarray]:
    """Rows of a large array in parts; a small one whole."""
    if values.ndim < 2 or values.size <= CHUNK_VALUES:
        return [values]
    rows = values.reshape(-1, values.shape[-1])
    count = max(1, CHUNK_VALUES // values.shape[-1])
    return [rows[start : start + count] for start in range(0, len(rows), count)]
