"""Malformed GGUF files: each is one clear error, never a crash, a hang or a huge allocation."""

import os
import re
import struct
import tracemalloc
from pathlib import Path

import gguf_bytes
import numpy as np
import pytest
from gguf_bytes import build, pair, string, tensor, value
from hypothesis import given, settings
from hypothesis import strategies as st

from minillama.errors import FormatError, MinillamaError, ResourceError, UnsupportedError
from minillama.gguf import dequantize, header_cursor, open_gguf
from minillama.gguf.header_parser import parse_header
from minillama.gguf.imatrix_file import read_imatrix
from minillama.random_models.model_writer import write_random_model

F32, Q4_0, Q4_K = 0, 2, 12
HUGE = 2**63 + 5


def small() -> bytes:
    """A valid file with every kind of entry; its last tensor ends with the file."""
    pairs = [
        pair("general.architecture", 8, "llama"),
        pair("general.alignment", 4, 32),
        pair("numbers", 9, (5, [1, -2, 3])),
        pair("words", 9, (8, ["a", "", "é", "four"])),
        pair("flags", 9, (7, [True, False])),
        pair("double", 12, 1.5),
        pair("long", 10, 2**40),
    ]
    tensors = [tensor("norm", [8], F32, 0), tensor("blk.0.w", [64, 2], Q4_0, 32), tensor("k", [256], Q4_K, 128)]
    return build(pairs, tensors, np.arange(32 + 96 + 144, dtype=np.uint8).tobytes())


def test_truncation_at_every_byte(tmp_path: Path) -> None:
    content = small()
    whole = parse_header(content, "whole")
    assert whole.tensors[-1].offset + whole.tensors[-1].nbytes == len(content)
    for length in range(len(content)):
        with pytest.raises(FormatError) as caught:
            parse_header(content[:length], "short.gguf")
        assert "\n" not in str(caught.value)
    for length in range(0, len(content), 37):
        path = tmp_path / "short.gguf"
        path.write_bytes(content[:length])
        with pytest.raises(FormatError):
            open_gguf(path)


HOSTILE = {
    "more tensors than bytes": (build(counts=(HUGE, 0)), "tensors do not fit in"),
    "more metadata than bytes": (build(counts=(0, HUGE)), "metadata values do not fit in"),
    "a long key": (build([struct.pack("<Q", HUGE) + b"key"]), "metadata key 0 ends at byte"),
    "a long text": (build([string("a") + struct.pack("<IQ", 8, 2**62)]), "a ends at byte"),
    "a long text in an array": (
        build([string("a") + struct.pack("<IIQQ", 9, 8, 1, 2**64 - 1) + b"x" * 64]),
        "truncated or malformed: a ends",
    ),
    "many texts": (build([string("a") + struct.pack("<IIQ", 9, 8, 2**60) + b"\0" * 64]), "a of [0-9]+ strings"),
    "many numbers": (build([string("a") + struct.pack("<IIQ", 9, 12, 2**61)]), "a ends at byte"),
    "arrays in an array": (build([string("a") + struct.pack("<IIQ", 9, 9, 1) + b"\0" * 32]), "array of arrays"),
    "an unknown value type": (build([string("a") + struct.pack("<I", 13) + b"\0" * 16]), "unknown value type 13"),
    "an unknown element type": (
        build([string("a") + struct.pack("<IIQ", 9, 77, 0) + b"\0" * 16]),
        "unknown value type 77",
    ),
    "a key twice": (build([pair("a", 4, 1), pair("a", 4, 2)]), "key a appears twice"),
    "a key that is not UTF-8": (build([pair(b"\xff\xfe", 4, 1)]), "is not UTF-8: b'.xff.xfe'"),
    "a key over two lines": (build([pair("a\nb", 4, 1), pair("a\nb", 4, 2)]), r"key 'a\\nb' appears twice"),
    "a name that is not UTF-8": (build([], [tensor(b"\xc3(", [4], F32, 0)], bytes(16)), "tensor 0 is not UTF-8"),
    "a name twice": (build([], [tensor("t", [4], F32, 0), tensor("t", [4], F32, 32)], bytes(64)), "t appears twice"),
    "no dimension": (build([], [tensor("t", [], F32, 0) + b"\0" * 8], bytes(64)), "t has 0 dimensions"),
    "five dimensions": (build([], [tensor("t", [1] * 5, F32, 0)], bytes(64)), "t has 5 dimensions"),
    "very many dimensions": (
        build([], [string("t") + struct.pack("<I", 2**32 - 1) + bytes(64)]),
        "t has 4294967295 dimensions",
    ),
    "a dimension of 0": (build([], [tensor("t", [4, 0], F32, 0)], bytes(64)), r"dimension of 0 in \[4, 0\]"),
    "a retired type": (build([], [tensor("t", [32], 31, 0)], bytes(64)), r"retired type Q4_0_4_4 \(31\)"),
    "an unknown type": (build([], [tensor("t", [32], 999, 0)], bytes(64)), "unknown type 999; known: F32, F16"),
    "a broken block": (build([], [tensor("t", [48], Q4_0, 0)], bytes(64)), "48 is not a multiple of the Q4_0 block"),
    "a misaligned offset": (build([], [tensor("t", [4], F32, 8)], bytes(64)), "offset 8, not a multiple of 32"),
    "an offset beyond the file": (build([], [tensor("t", [4], F32, 2**40)], bytes(64)), "truncated or malformed"),
    "an offset that wraps": (build([], [tensor("t", [4], F32, 2**64 - 32)], bytes(64)), "truncated or malformed"),
    "a size that wraps": (build([], [tensor("t", [2**32, 2**32, 4], F32, 0)], bytes(64)), "truncated or malformed"),
    "a tensor that is too long": (build([], [tensor("t", [17], F32, 0)], bytes(64)), "t ends at byte"),
    "tensors on one another": (
        build([], [tensor("a", [16], F32, 0), tensor("b", [4], F32, 32)], bytes(64)),
        "a and b overlap",
    ),
    "tensors in one place": (
        build([], [tensor("a", [4], F32, 0), tensor("b", [4], F32, 0)], bytes(64)),
        "a and b overlap",
    ),
    "alignment 0": (build([pair("general.alignment", 4, 0)]), "general.alignment is 0"),
    "alignment 24": (build([pair("general.alignment", 4, 24)]), "general.alignment is 24"),
    "alignment as text": (build([pair("general.alignment", 8, "32")]), "general.alignment is 32, not a power"),
    "alignment as a long array": (
        build([pair("general.alignment", 9, (5, [32] * 900))]),
        r"is 'array\(\[32, 32.{40,60}\.\.\., not a",
    ),
    "a very long key": (build([pair("k" * 9000, 4, 1)] * 2), "k{64}... appears twice"),
    "a very long name": (build([], [tensor("n" * 9000, [0], F32, 0)]), "n{64}... has a dimension of 0"),
    "a split that is no number": (build([pair("split.count", 8, "three")]), "split.count is three, not a number"),
    "a split that is a list": (build([pair("split.count", 9, (5, [3, 3]))]), "split.count is array"),
    "a negative split": (build([pair("split.count", 5, -3)]), "split.count is -3"),
    "version 1": (build(version=1), "GGUF version 1; supported: 2, 3"),
    "version 0": (build(version=0), "GGUF version 0; supported: 2, 3"),
    "version 4": (build(version=4), "GGUF version 4; supported: 2, 3"),
    "big-endian": (build(version=0x03000000), "is a big-endian GGUF file; convert it"),
    "nothing": (b"", "is empty"),
    "three bytes": (b"GGU", "is not a GGUF file"),
    "only the magic": (b"GGUF", "truncated"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "safetensors": (struct.pack("<Q", 99) + b'{"__metadata__":{}}', "is a safetensors file; convert it"),
    "a pickle": (b"\x80\x02}q\x00.", "is a Python pickle"),
    "a zip": (b"PK\x03\x04" + bytes(60), "is a PyTorch or zip file"),
    "old GGML": (b"lmgg" + bytes(60), "old GGML format"),
    "old GGJT": (b"tjgg" + bytes(60), "old GGJT format"),
    "a web page": (b"<!DOCTYPE html><html>", "is a web page"),
    "zeros": (bytes(4096), "begins with zeros"),
    "a text": (b"Once upon a time", "begins with b'Once', not b'GGUF'"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_one_clear_line(tmp_path: Path, case: str) -> None:
    content, message = HOSTILE[case]
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises((FormatError, UnsupportedError), match=message) as caught:
            open_gguf(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))


def test_huge_metadata_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    content = build([pair("words", 9, (8, ["word"] * 100)), pair("number", 4, 1)])
    assert parse_header(content, "a file").metadata["number"] == 1
    monkeypatch.setattr(header_cursor, "MAX_HEADER_BYTES", 512)
    with pytest.raises(FormatError, match=r"the header goes on beyond 512 bytes \(words"):
        parse_header(content, "a file")


def test_paths_that_are_not_files(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"no file .*absent\.gguf"):
        open_gguf(tmp_path / "absent.gguf")
    with pytest.raises(ResourceError, match=r"is a folder; name the \.gguf file in it"):
        open_gguf(tmp_path)
    with pytest.raises(ResourceError, match="cannot be a file name"):
        open_gguf("a\0b.gguf")
    with pytest.raises(ResourceError, match="cannot read"):
        open_gguf("x" * 5000 + ".gguf")
    with pytest.raises(ResourceError, match="is not an ordinary file"):
        open_gguf("/dev/null")
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ResourceError, match="is not an ordinary file"):
        open_gguf(tmp_path / "pipe.gguf")


def test_gaps_and_disorder_are_allowed() -> None:
    tensors = [tensor("b", [4], F32, 128), tensor("a", [4], F32, 0)]
    header = parse_header(build([], tensors, bytes(144)), "a file")
    assert [info.name for info in header.tensors] == ["b", "a"]
    assert header.tensors[0].offset - header.tensors[1].offset == 128


def read_everything(path: Path) -> None:
    """Read everything from an open file; the only allowed failure is a MinillamaError."""
    with open_gguf(path) as file:
        for found in file.tensors.values():
            assert found.data.nbytes == found.nbytes
            dequantize(found)


def mutate(content: bytes, edits: list[tuple[int, bytes, bool]]) -> bytes:
    """Overwrite or insert a few bytes at places that wrap around."""
    changed = bytearray(content)
    for place, new, insert in edits:
        at = place % len(changed)
        changed[at : at if insert else at + len(new)] = new
    return bytes(changed)


EDITS = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            st.sampled_from([struct.pack("<Q", number) for number in (0, 2**31, 2**32, 2**62, 2**63, 2**64 - 1)]),
            st.integers(0, 60).map(lambda number: struct.pack("<I", number)),
        ),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of valid files to damage: the small one, and the header of a whole model (its weights are cut off)."""
    folder = tmp_path_factory.mktemp("fuzz")
    model = write_random_model(folder / "tiny.gguf", "tiny", "Q4_K_M")
    (folder / "0.gguf").write_bytes(small())
    (folder / "1.gguf").write_bytes(model.read_bytes()[:20_000])
    return folder


def fuzz(seeds: Path, which: int, edits: list[tuple[int, bytes, bool]]) -> None:
    path = seeds / "damaged.gguf"
    path.write_bytes(mutate((seeds / f"{which}.gguf").read_bytes(), edits))
    try:
        read_everything(path)
    except MinillamaError as error:
        assert re.fullmatch(r"[^\n]{10,1000}", str(error))


@given(which=st.integers(0, 1), edits=EDITS)
@settings(max_examples=400)
def test_damaged_files(seeds: Path, which: int, edits: list[tuple[int, bytes, bool]]) -> None:
    fuzz(seeds, which, edits)


@pytest.mark.slow
@given(which=st.integers(0, 1), edits=EDITS)
@settings(max_examples=10_000)
def test_many_damaged_files(seeds: Path, which: int, edits: list[tuple[int, bytes, bool]]) -> None:
    fuzz(seeds, which, edits)


@given(st.binary(max_size=400))
def test_noise_after_the_magic(noise: bytes) -> None:
    for content in (noise, b"GGUF\x03\0\0\0" + noise):
        try:
            parse_header(content, "noise")
        except MinillamaError as error:
            assert "\n" not in str(error)


def test_the_byte_writer_agrees_with_the_format() -> None:
    """The tests of damaged files are meaningful only if the undamaged files are right."""
    assert value(4, 7) == bytes([4, 0, 0, 0, 7, 0, 0, 0])
    assert len(gguf_bytes.build()) == 32
    header = parse_header(small(), "small")
    assert header.metadata["words"] == ("a", "", "é", "four")
    assert [info.shape for info in header.tensors] == [(8,), (2, 64), (256,)]


def test_numbers_beyond_float32(tmp_path: Path) -> None:
    """They become infinite without a warning of numpy."""
    path = tmp_path / "f64.gguf"
    path.write_bytes(build([], [tensor("t", [2], 28, 0)], struct.pack("<2d", 1e300, 1.5)))
    assert dequantize(open_gguf(path).tensors["t"]).tolist() == [np.inf, 1.5]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (b"a\nb", b"\0\0\x80\x7f", r"importances of 'a\\nb' are not all finite"),
        (b"nan", b"\x01\0\x80\x7f", "importances of nan are not all finite"),
        (b"\x1b[31m", b"", r"values of '\\x1b\[31m' ends after the file"),
    ],
)
def test_hostile_importance_matrices(tmp_path: Path, name: bytes, values: bytes, message: str) -> None:
    path = tmp_path / "imatrix.dat"
    path.write_bytes(struct.pack("<ii", 1, len(name)) + name + struct.pack("<ii", 2, 1) + values)
    with pytest.raises(FormatError, match=message):
        read_imatrix(path)
