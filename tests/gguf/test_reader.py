"""The GGUF reader against the gguf library's own reader, and against files written byte by byte."""

import dataclasses
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import gguf
import gguf_bytes
import numpy as np
import pytest
from gguf import quants
from hypothesis import given
from hypothesis import strategies as st

from minillama.errors import FormatError, ResourceError, UnsupportedError
from minillama.gguf import GGUF, Tensor, TensorType, dequantize, open_gguf
from minillama.gguf.header_cursor import read_short_strings
from minillama.gguf.header_parser import parse_header

SAMPLES = {
    0: 255, 1: -128, 2: 65535, 3: -32768, 4: 2**32 - 1, 5: -(2**31), 6: 0.1, 7: True, 8: "Grüße 你好",
    10: 2**64 - 1, 11: -(2**63), 12: math.pi,
}  # fmt: skip
WORDS = ["u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def same(ours: object, theirs: object) -> bool:
    if isinstance(ours, np.ndarray):
        return np.array_equal(ours, np.asarray(theirs), equal_nan=True)
    return list(ours) == list(theirs) if isinstance(ours, tuple) else ours == theirs


def reference_files(folder: Path) -> list[Path]:
    # Of the vocabularies only the small one: the gguf library takes 10 s for a large one.
    small = [path for path in sorted(folder.glob("vocab/*.gguf")) if path.stat().st_size < 1e6]
    return (
        sorted(folder.glob("arch/*.gguf"))
        + sorted(folder.glob("quant/*.gguf"))
        + sorted(folder.glob("real/*.gguf"))
        + small
    )


def test_reference_files_read_as_the_gguf_library_reads_them(reference: Path) -> None:
    paths = reference_files(reference)
    assert len(paths) > 20
    for path in paths:
        ours, theirs = open_gguf(path), gguf.GGUFReader(path)
        assert list(ours.metadata) == [key for key in theirs.fields if not key.startswith("GGUF.")]
        for key, found in ours.metadata.items():
            assert same(found, theirs.fields[key].contents()), (path, key)
        assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
        for tensor in theirs.tensors:
            mine = ours.tensors[tensor.name]
            assert mine.shape == tuple(reversed(tensor.shape.tolist()))
            assert (mine.type, mine.nbytes, mine.offset) == (tensor.tensor_type, tensor.n_bytes, tensor.data_offset)
            assert mine.size == tensor.n_elements
            raw = tensor.data.reshape((*mine.shape[:-1], -1)).view(np.uint8)
            assert np.array_equal(mine.data, raw)
            numbers = dequantize(mine)
            assert numbers.shape == mine.shape
            assert numbers.dtype == np.float32
            assert np.array_equal(numbers, quants.dequantize(tensor.data, tensor.tensor_type).reshape(mine.shape))


def test_a_large_vocabulary_is_read_whole(reference: Path) -> None:
    file = open_gguf(reference / "vocab" / "ggml-vocab-llama-bpe.gguf")
    tokens, merges = file.metadata["tokenizer.ggml.tokens"], file.metadata["tokenizer.ggml.merges"]
    assert (len(tokens), len(merges)) == (128256, 280147)
    assert (tokens[0], tokens[128000], merges[0]) == ("!", "<|begin_of_text|>", "Ġ Ġ")
    assert file.kinds["tokenizer.ggml.tokens"] == "string[128256]"
    assert (file.tensors, file.nbytes, file.parameters) == ({}, 0, 0)


@pytest.mark.parametrize("version", [2, 3])
def test_every_value_type(tmp_path: Path, version: int) -> None:
    pairs = [gguf_bytes.pair(f"one.{kind}", kind, content) for kind, content in SAMPLES.items()]
    pairs += [gguf_bytes.pair(f"many.{kind}", 9, (kind, [content, content])) for kind, content in SAMPLES.items()]
    pairs += [gguf_bytes.pair(f"none.{kind}", 9, (kind, [])) for kind in SAMPLES]
    file = open_gguf(write(tmp_path / "a.gguf", gguf_bytes.build(pairs, version=version)))
    assert file.version == version
    for kind, content in SAMPLES.items():
        expected = struct.unpack("<f", struct.pack("<f", content))[0] if kind == 6 else content
        one, many, none = (file.metadata[f"{name}.{kind}"] for name in ("one", "many", "none"))
        assert one == expected
        assert type(one) is type(expected)
        assert list(many) == [expected, expected]
        assert len(none) == 0
        assert isinstance(many, tuple if kind == 8 else np.ndarray)
        assert file.kinds[f"one.{kind}"] == WORDS[kind]
        assert file.kinds[f"many.{kind}"] == f"{WORDS[kind]}[2]"
    assert file.metadata["many.7"].dtype == np.bool_


def one_tensor(tmp_path: Path, *, alignment: int = 32, use_mmap: bool = True) -> GGUF:
    pairs = [gguf_bytes.pair("general.alignment", 4, alignment)]
    numbers = np.arange(24, dtype=np.float32)
    tensors = [gguf_bytes.tensor("first", [4, 3, 2], 0, 0), gguf_bytes.tensor("second", [4], 0, 128)]
    data = numbers.tobytes().ljust(128, b"\0") + numbers[:4].tobytes()
    path = write(tmp_path / "one.gguf", gguf_bytes.build(pairs, tensors, data, alignment=alignment))
    return open_gguf(path, use_mmap=use_mmap)


@pytest.mark.parametrize("use_mmap", [True, False])
@pytest.mark.parametrize("alignment", [1, 8, 32, 64])
def test_tensors_are_views_of_the_whole_file(tmp_path: Path, alignment: int, use_mmap: bool) -> None:
    file = one_tensor(tmp_path, alignment=alignment, use_mmap=use_mmap)
    tensor = file.tensors["first"]
    whole = file.mapped[tensor.file]
    assert whole.ctypes.data % 4096 == 0
    assert whole.tobytes() == file.path.read_bytes()
    assert np.shares_memory(tensor.data, whole)
    assert tensor.data.ctypes.data == whole.ctypes.data + tensor.offset
    assert tensor.offset % alignment == 0
    assert (tensor.shape, tensor.data.shape, tensor.type) == ((2, 3, 4), (2, 3, 16), TensorType.F32)
    assert np.array_equal(dequantize(tensor), np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    for array in (tensor.data, whole, dequantize(tensor)):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


@pytest.mark.parametrize("use_mmap", [True, False])
def test_views_outlive_the_file(tmp_path: Path, use_mmap: bool) -> None:
    with one_tensor(tmp_path, use_mmap=use_mmap) as file:
        data = file.tensors["second"].data
        path = file.path
    assert not file.tensors
    assert not file.mapped
    file.close()
    del file
    path.unlink()
    assert np.array_equal(data.view(np.float32), [0, 1, 2, 3])


def test_require_reports_missing_keys_and_other_types(tmp_path: Path) -> None:
    pairs = [gguf_bytes.pair("count", 4, 7), gguf_bytes.pair("flag", 7, True), gguf_bytes.pair("names", 9, (8, ["a"]))]
    file = open_gguf(write(tmp_path / "a.gguf", gguf_bytes.build(pairs)))
    assert file.require("count", int) == 7
    assert file.require("count", (float, int)) == 7
    assert file.require("flag", bool) is True
    assert file.require("names", tuple) == ("a",)
    with pytest.raises(FormatError, match=r"metadata key llama\.block_count is missing"):
        file.require("llama.block_count", int)
    with pytest.raises(FormatError, match="metadata key count is u32, not float or str"):
        file.require("count", (float, str))
    with pytest.raises(FormatError, match="metadata key flag is bool, not int"):
        file.require("flag", int)
    with pytest.raises(FormatError, match=r"general\.architecture is missing"):
        _ = file.architecture


def test_text_that_is_not_utf8_keeps_its_bytes(tmp_path: Path) -> None:
    raw = b"caf\xe9 \xff\xfe"
    pairs = [gguf_bytes.pair("text", 8, raw), gguf_bytes.pair("texts", 9, (8, [raw, b"plain"]))]
    file = open_gguf(write(tmp_path / "a.gguf", gguf_bytes.build(pairs)))
    assert file.metadata["text"].encode("utf-8", "surrogateescape") == raw
    assert file.metadata["texts"][0] == file.metadata["text"]
    assert file.metadata["texts"][1] == "plain"


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20).filter(lambda key: key != "general.alignment"),
        st.one_of(
            st.tuples(st.just(8), st.text()),
            st.tuples(st.just(12), st.floats(allow_nan=False)),
            st.tuples(st.just(11), st.integers(-(2**63), 2**63 - 1)),
            st.tuples(st.just(7), st.booleans()),
            st.tuples(st.just(9), st.tuples(st.just(8), st.lists(st.text()))),
            st.tuples(st.just(9), st.tuples(st.just(5), st.lists(st.integers(-(2**31), 2**31 - 1)))),
        ),
        max_size=8,
    )
)
def test_any_metadata_comes_back(metadata: dict[str, tuple[int, object]]) -> None:
    content = gguf_bytes.build([gguf_bytes.pair(key, kind, found) for key, (kind, found) in metadata.items()])
    header = parse_header(content, "a file")
    assert list(header.metadata) == list(metadata)
    for key, (kind, found) in metadata.items():
        assert same(header.metadata[key], found[1] if kind == 9 else found)


def slow_strings(raw: bytes, count: int) -> tuple[tuple[str, ...], int] | None:
    texts, position = [], 0
    for _ in range(count):
        if position + 8 > len(raw):
            return None
        start = position + 8
        position = start + int.from_bytes(raw[position:start], "little")
        texts.append(raw[start:position].decode("utf-8", "surrogateescape"))
    return (tuple(texts), position) if position <= len(raw) else None


ODD_TEXTS = st.one_of(st.binary(min_size=1, max_size=4), st.binary(max_size=300), st.text("\0a", max_size=9))


@given(st.lists(ODD_TEXTS, min_size=1, max_size=20), st.binary(max_size=40), st.integers(0, 60))
def test_vectorised_strings_equal_those_read_one_by_one(texts: list[bytes | str], tail: bytes, lost: int) -> None:
    raw = b"".join(map(gguf_bytes.string, texts)) + tail
    raw = raw[: len(raw) - lost]
    found = read_short_strings(raw, len(texts))
    assert found is None or tuple(found) == slow_strings(raw, len(texts))


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=63),
        min_size=1,
        max_size=20,
    )
)
def test_ordinary_strings_are_read_vectorised(texts: list[str]) -> None:
    raw = b"".join(map(gguf_bytes.string, texts))
    assert read_short_strings(raw + b"rest", len(texts)) == (tuple(texts), len(raw))


def test_integer_and_double_tensors_are_dequantised(tmp_path: Path) -> None:
    for kind, dtype in (("I8", "i1"), ("I16", "i2"), ("I32", "i4"), ("I64", "i8"), ("F64", "f8"), ("F16", "f2")):
        numbers = np.array([[-3, 0], [2, 100]], dtype)
        tensors = [gguf_bytes.tensor("t", [2, 2], TensorType[kind], 0)]
        file = open_gguf(write(tmp_path / f"{kind}.gguf", gguf_bytes.build([], tensors, numbers.tobytes())))
        assert dequantize(file.tensors["t"]).dtype == np.float32
        assert np.array_equal(dequantize(file.tensors["t"]), numbers)


def test_a_type_without_a_formula_is_an_error(tmp_path: Path) -> None:
    data = np.zeros((1, 292), np.uint8)
    tensor = Tensor("blk.0.x", (1, 256), TensorType.Q8_K, data, 0, tmp_path)
    with pytest.raises(UnsupportedError, match=r"Q8_K in blk\.0\.x"):
        dequantize(tensor)


def write_split(folder: Path, count: int = 3) -> list[Path]:
    """A model of `count` files with one tensor each, as llama-gguf-split names them."""
    paths = []
    for number in range(count):
        pairs = [gguf_bytes.pair("general.architecture", 8, "llama")] if number == 0 else []
        pairs += [gguf_bytes.pair("split.no", 2, number), gguf_bytes.pair("split.count", 2, count)]
        pairs += [gguf_bytes.pair("split.tensors.count", 5, count)]
        data = np.full(2, number, np.float32).tobytes()
        content = gguf_bytes.build(pairs, [gguf_bytes.tensor(f"t{number}", [2], 0, 0)], data)
        paths.append(write(folder / f"model-{number + 1:05}-of-{count:05}.gguf", content))
    return paths


def test_a_split_model_opens_from_any_of_its_files(tmp_path: Path) -> None:
    paths = write_split(tmp_path)
    for path in paths:
        file = open_gguf(path)
        assert file.path == path
        assert list(file.tensors) == ["t0", "t1", "t2"]
        assert list(file.mapped) == paths
        assert file.architecture == "llama"
        for number, tensor in enumerate(file.tensors.values()):
            assert tensor.file == paths[number]
            assert dequantize(tensor).tolist() == [number, number]
            raw = file.mapped[tensor.file][tensor.offset : tensor.offset + tensor.nbytes]
            assert raw.tobytes() == tensor.data.tobytes()


def test_invalid_split_models(tmp_path: Path) -> None:
    first, second, third = write_split(tmp_path)
    content = third.read_bytes()
    third.unlink()
    with pytest.raises(ResourceError, match=r"model-00003-of-00003\.gguf is missing"):
        open_gguf(first)
    third.write_bytes(second.read_bytes())
    with pytest.raises(FormatError, match="has the number 1 in its metadata, not 2 of 3"):
        open_gguf(first)
    third.write_bytes(content.replace(b"t2", b"t0"))
    with pytest.raises(FormatError, match="tensor t0 is also in"):
        open_gguf(first)
    extra = [gguf_bytes.tensor("t2", [2], 0, 0), gguf_bytes.tensor("t3", [2], 0, 32)]
    pairs = [gguf_bytes.pair("split.no", 2, 2), gguf_bytes.pair("split.count", 2, 3)]
    third.write_bytes(gguf_bytes.build(pairs, extra, b"\0" * 40))
    with pytest.raises(FormatError, match="has 4 tensors, not 3"):
        open_gguf(first)
    third.write_bytes(content)
    intact = first.read_bytes()
    for key, kind, number, message in (
        ("no", 2, 0, "has the number array"),
        ("tensors.count", 5, 3, "3 tensors, not array"),
    ):
        many = gguf_bytes.pair(f"split.{key}", 9, (kind, [number] * 2))
        one = gguf_bytes.pair(f"split.{key}", kind, number)
        assert one in intact
        first.write_bytes(intact.replace(one, many, 1) + bytes(64))
        with pytest.raises(FormatError, match=message):
            open_gguf(first)
    with pytest.raises(FormatError, match="not named like one; rename it NAME-00001-of-00003"):
        open_gguf(first.rename(tmp_path / "model.gguf"))


@pytest.mark.parametrize("name", ["joined.gguf", "model-00001-of-00003.gguf"])
def test_split_models_joined_by_cat(tmp_path: Path, name: str) -> None:
    joined = write(tmp_path / name, b"".join(path.read_bytes() for path in write_split(tmp_path)))
    with pytest.raises(FormatError, match=r"next file of the split model follows at byte \d+; keep the files separate"):
        open_gguf(joined)


class TestChangesOfAnOpenFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        tensors = [gguf_bytes.tensor("t", [2048], 0, 0)]
        return write(tmp_path / "m.gguf", gguf_bytes.build([], tensors, np.ones(2048, np.float32).tobytes()))

    def test_shorter(self, path: Path) -> None:
        """Reading the missing pages would end the process: SIGBUS."""
        file = open_gguf(path)
        file.check_unchanged()
        os.truncate(path, 4096)
        with pytest.raises(ResourceError, match=r"has become shorter since it was opened: 4096 bytes, not 8\d+; load"):
            file.check_unchanged()

    def test_shorter_under_another_name(self, path: Path) -> None:
        file = open_gguf(path)
        os.truncate(path.rename(path.with_name("other")), 4096)
        with pytest.raises(ResourceError, match=r"m\.gguf has become shorter"):
            file.check_unchanged()

    def test_written_to(self, path: Path) -> None:
        file, later = open_gguf(path), path.stat().st_mtime + 5
        with path.open("r+b") as writer:
            writer.seek(-8, os.SEEK_END)
            writer.write(b"12345678")
        os.utime(path, (later, later))
        with pytest.raises(ResourceError, match=r"m\.gguf was written to since it was opened; load the model again"):
            file.check_unchanged()

    def test_replaced_by_another_file(self, path: Path) -> None:
        """The usual way to write a file: the mapping keeps the old one."""
        file = open_gguf(path)
        other = write(path.with_name("new"), path.read_bytes()[:4096])
        other.replace(path)
        file.check_unchanged()
        assert dequantize(file.tensors["t"]).sum() == 2048
        path.unlink()
        file.check_unchanged()

    def test_a_copy_in_memory_cannot_change(self, path: Path) -> None:
        file = open_gguf(path, use_mmap=False)
        os.truncate(path, 64)
        file.check_unchanged()
        assert dequantize(file.tensors["t"]).sum() == 2048


def test_imports_no_jax_and_little_else() -> None:
    code = "import sys, minillama.gguf; print(sorted({'jax', 'tokenizers', 'transformers'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_tensors_and_files_cannot_be_changed(tmp_path: Path) -> None:
    file = one_tensor(tmp_path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        file.path = tmp_path
    with pytest.raises(TypeError):
        file.metadata["new"] = 1
    with pytest.raises(TypeError):
        file.tensors["new"] = file.tensors["first"]
