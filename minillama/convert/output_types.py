"""Types of the output file: which tensor gets which, and how its values are encoded."""

import re
from enum import Enum

import numpy as np
from gguf import quants

from minillama.convert.folder.safetensors_files import StoredTensor
from minillama.convert.weights.lazy_weight import LazyWeight
from minillama.errors import OptionError
from minillama.gguf.types import BLOCKS, FileType, TensorType

# Small tensors whose exact values matter.
_ALWAYS_F32 = re.compile(
    r"(.*_norm\.weight|blk\.\d+\.(ffn_gate_inp|ffn_gate_inp_shexp|ssm_conv1d|shortconv\.conv)\.weight)"
)


class OutputType(Enum):
    """Type of most matrices of the output file, as --outtype names it."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"

    @property
    def tensor_type(self) -> TensorType:
        return TensorType[self.name]

    @property
    def file_type(self) -> FileType:
        return FileType["ALL_F32" if self is OutputType.F32 else f"MOSTLY_{self.name}"]


def named_output_type(name: str, tensors: list[StoredTensor]) -> OutputType:
    """The output type of a name; `auto` is the checkpoint's 16-bit type, or f16."""
    if name == "auto":
        stored = next((t.dtype for t in tensors if len(t.shape) > 1 and t.dtype in ("F16", "BF16")), "F16")
        return OutputType[stored]
    try:
        return OutputType(name.lower())
    except ValueError:
        names = ", ".join(kind.value for kind in OutputType)
        raise OptionError(f"--outtype {name}: no such type; known: auto, {names}") from None


def tensor_type(weight: LazyWeight, output: OutputType) -> TensorType:
    """Type of a tensor: F32 for vectors and some matrices, else the chosen one.

    A row that is not whole blocks of the chosen type becomes F16, as in llama.cpp.
    """
    if weight.blocks is not None:
        return weight.blocks
    if len(weight.shape) < 2 or not weight.name.endswith(".weight") or _ALWAYS_F32.fullmatch(weight.name):
        return TensorType.F32
    kind = output.tensor_type
    return TensorType.F16 if weight.shape[-1] % BLOCKS[kind][0] else kind


def encode(values: np.ndarray, kind: TensorType) -> bytes:
    """Values as bytes of a type; blocks are bytes already."""
    if kind is TensorType.MXFP4:
        return np.ascontiguousarray(values).tobytes()
    return quants.quantize(np.ascontiguousarray(values, _float(values)), kind).tobytes()


def _float(values: np.ndarray) -> type:
    return np.float16 if values.dtype == np.float16 else np.float32
