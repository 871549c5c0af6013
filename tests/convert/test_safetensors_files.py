"""Reading safetensors: values of every type, several files with an index, damaged files."""

import json
import struct
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hf_folders import digests, write_folder, write_json, write_safetensors
from hypothesis import given
from hypothesis import strategies as st

from minillama.convert import plan_folder, write_plan
from minillama.convert.folder import safetensors_files
from minillama.convert.folder.safetensors_files import read_checkpoint
from minillama.convert.folder.stored_values import STORED_TYPES
from minillama.convert.weights.lazy_weight import LazyWeight
from minillama.errors import FormatError, MinillamaError, UnsupportedError


@pytest.mark.parametrize(
    ("name", "kind"),
    [("BF16", "bfloat16"), ("F16", "float16"), ("F8_E4M3", "float8_e4m3fn"), ("F8_E5M2", "float8_e5m2")],
)
def test_every_code_of_the_small_floats(name: str, kind: str) -> None:
    raw_type, decode = STORED_TYPES[name]
    codes = np.arange(2 ** (8 * raw_type.itemsize)).astype(f"<u{raw_type.itemsize}")
    expected = codes.view(getattr(ml_dtypes, kind, None) or np.dtype(kind)).astype(np.float32)
    np.testing.assert_array_equal(decode(codes.view(raw_type)), expected)


def test_a_tensor_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_files, "PIECE_VALUES", 10)
    values = np.arange(40, dtype=np.float32).reshape(10, 4)
    scalar = np.array(7, np.int64)
    write_safetensors(
        tmp_path / "model.safetensors", {"b": (values, "F32"), "a": (scalar, "I64"), "c": (values[:0], "F32")}
    )
    a, b, c = read_checkpoint(tmp_path)
    assert [part.shape for part in b.pieces()] == [(2, 4)] * 5
    np.testing.assert_array_equal(np.concatenate(list(b.pieces())), values)
    assert (a.shape, next(a.pieces()), next(c.pieces()).shape) == ((), np.float32(7), (0, 4))


def split_folder(folder: Path) -> Path:
    """The llama folder with three files and an index."""
    write_folder(folder, "llama")
    tensors = {tensor.name: (tensor.whole(), "F32") for tensor in _weights(folder)}
    (folder / "model.safetensors").unlink()
    where = {name: f"model-{index % 3 + 1:05}-of-00003.safetensors" for index, name in enumerate(tensors)}
    for file in set(where.values()):
        write_safetensors(folder / file, {name: tensors[name] for name in tensors if where[name] == file})
    write_json(folder / "model.safetensors.index.json", {"weight_map": where})
    return folder


def _weights(folder: Path) -> list:
    return [LazyWeight(tensor.name, tensor.shape, tensor.pieces) for tensor in read_checkpoint(folder)]


def test_several_files_give_the_same(tmp_path: Path) -> None:
    whole = write_plan(plan_folder(write_folder(tmp_path / "whole", "llama"), "f32"), tmp_path / "whole.gguf")
    split = write_plan(plan_folder(split_folder(tmp_path / "split"), "f32"), tmp_path / "split.gguf")
    assert digests(split) == digests(whole)


def test_damaged_indexes(tmp_path: Path) -> None:
    folder = split_folder(tmp_path / "split")
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())["weight_map"]
    name = next(iter(content))
    for changed, message in (
        ({**content, name: "../../etc/passwd"}, "has no weight_map from tensors to files of this folder"),
        ({**content, name: "other.safetensors"}, r"has no other\.safetensors, which .* names; download it"),
        ({**content, "more": content[name]}, "disagree about more"),
        ({key: value for key, value in content.items() if key != name}, f"disagree about {name}"),
    ):
        write_json(index, {"weight_map": changed})
        with pytest.raises(FormatError, match=message):
            read_checkpoint(folder)


def test_pickles_are_refused(tmp_path: Path) -> None:
    for name, message in (
        ("pytorch_model.bin", "pickled weights"),
        ("consolidated.safetensors", "Mistral's own layout"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).touch()
        with pytest.raises(UnsupportedError, match=message):
            read_checkpoint(folder)
    write_safetensors(tmp_path / "model.safetensors", {"a": (np.zeros((2, 2), np.complex64), "C64")})
    with pytest.raises(UnsupportedError, match=r"a in .* has values of type C64"):
        read_checkpoint(tmp_path)


@given(st.binary(max_size=200), st.integers(0, 400))
def test_damaged_bytes(noise: bytes, start: int) -> None:
    """Another file with some bytes replaced is read, or refused with one line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        write_safetensors(path, {"a": (np.ones((8, 8), np.float32), "F32")})
        raw = bytearray(path.read_bytes())
        raw[start : start + len(noise)] = noise
        path.write_bytes(raw)
        try:
            for tensor in read_checkpoint(Path(folder)):
                assert sum(part.size for part in tensor.pieces()) == np.prod(tensor.shape)
        except MinillamaError as error:
            assert "\n" not in str(error)


def test_a_header_that_promises_more(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(FormatError, match="is no safetensors file"):
        read_checkpoint(tmp_path)
