"""Tensors of a Hugging Face folder: one safetensors file, or many with an index.

The package `safetensors` checks the headers. The values are read through a memory map, because it has no BF16 and FP8
in numpy. Format: https://huggingface.co/docs/safetensors
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from minillama.convert.folder.json_files import read_json
from minillama.convert.folder.stored_values import STORED_TYPES
from minillama.errors import FormatError, ResourceError, UnsupportedError

INDEX = "model.safetensors.index.json"
PIECE_VALUES = 2**22  # values of a part of a tensor that are in memory at a time


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a safetensors file: where its bytes lie, and how to read them."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # the format's name of the type, such as BF16
    path: Path
    offset: int

    def pieces(self) -> Iterator[np.ndarray]:
        """Decoded values in parts along the first axis: float32, float16 or uint8."""
        kind, decode = STORED_TYPES[self.dtype]
        try:
            raw = np.memmap(self.path, kind, "r", self.offset, self.shape) if math.prod(self.shape) else None
        except (OSError, ValueError) as error:
            raise ResourceError(f"cannot read {self.path}: {error}") from error
        if raw is None:
            yield np.zeros(self.shape, np.float32)
        elif len(self.shape) < 2:
            yield decode(np.array(raw).reshape(self.shape))
        else:
            rows = max(1, PIECE_VALUES // math.prod(self.shape[1:]))
            for start in range(0, self.shape[0], rows):
                yield decode(np.asarray(raw[start : start + rows]))


def read_checkpoint(folder: Path) -> list[StoredTensor]:
    """All tensors of a folder, by file, then by name, as llama.cpp's converter has them.

    Raises FormatError (damaged, incomplete), UnsupportedError (pickled weights) and ResourceError.
    """
    index = folder / INDEX
    listed: dict[str, str] = {}
    if index.is_file():
        listed = _weight_map(index)
        names = sorted(set(listed.values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise FormatError(f"{folder} has no {', '.join(missing)}, which {INDEX} names; download it")
    else:
        names = sorted(path.name for path in folder.glob("model*.safetensors") if path.is_file())
        if not names:
            raise _no_weights(folder)
    tensors = [tensor for name in names for tensor in _read_file(folder / name)]
    found = {tensor.name for tensor in tensors}
    if listed and found != listed.keys():
        odd = sorted(found ^ listed.keys())[0]
        raise FormatError(f"{INDEX} and the files of {folder} disagree about {odd}; download the folder again")
    return tensors


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor -> file name, from the index."""
    found = read_json(index).get("weight_map")
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(file, str) and file == Path(file).name for name, file in found.items()
    ):
        raise FormatError(f"{index} has no weight_map from tensors to files of this folder; download it again")
    return found


def _no_weights(folder: Path) -> Exception:
    if any(folder.glob("pytorch_model*.bin")):
        return UnsupportedError(
            f"{folder} has pickled weights (pytorch_model.bin), which run code when they are read; "
            "use a revision of the model with model.safetensors"
        )
    if any(folder.glob("consolidated*.safetensors")):
        return UnsupportedError(
            f"{folder} has Mistral's own layout (consolidated.safetensors); use the files model*.safetensors"
        )
    return ResourceError(f"{folder} has no model.safetensors; name a folder of a Hugging Face model")


def _read_file(path: Path) -> list[StoredTensor]:
    """The tensors of one file, by name."""
    try:
        with path.open("rb") as file:
            offset = 8 + int.from_bytes(file.read(8), "little")
        with safe_open(path, framework="numpy") as content:
            tensors = []
            for name in content.offset_keys():  # the tensors follow each other without gaps
                part = content.get_slice(name)
                shape, dtype = tuple(part.get_shape()), part.get_dtype()
                if dtype not in STORED_TYPES:
                    raise UnsupportedError(
                        f"{name} in {path} has values of type {dtype}; supported: {', '.join(STORED_TYPES)}"
                    )
                tensors.append(StoredTensor(name, shape, dtype, path, offset))
                offset += math.prod(shape) * STORED_TYPES[dtype][0].itemsize
    except SafetensorError as error:
        raise FormatError(f"{path} is no safetensors file ({error}); download it again") from error
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror or error}") from error
    return sorted(tensors, key=lambda tensor: tensor.name)
