"""Slots on disk: what is saved is restored, and damaged, foreign and hostile files are refused."""

import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.engine.batching.device.slot_file import read_slot, write_slot
from minillama.errors import MinillamaError

TOKENS = (5, 7, 11)
ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.arange(6).astype(ml_dtypes.bfloat16).reshape(2, 3),
    np.zeros((2, 0), np.int8),
]


def like(count: int) -> list[np.ndarray]:
    return ARRAYS


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("slots") / "slot.bin"
    size = write_slot(path, TOKENS, "model", ARRAYS)
    data = path.read_bytes()
    assert size == len(data)
    return data


def test_what_is_saved_is_restored(tmp_path: Path, saved: bytes) -> None:
    path = tmp_path / "slot.bin"
    path.write_bytes(saved)
    found = read_slot(path, "model", like, 3)
    assert found.tokens == TOKENS
    assert found.nbytes == len(saved)
    for array, expected in zip(found.arrays, ARRAYS, strict=True):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == expected.dtype


def test_a_plain_list_of_tokens_is_read_too(tmp_path: Path, saved: bytes) -> None:
    path = tmp_path / "slot.bin"
    plain = saved[:8] + struct.pack("<I", len(TOKENS)) + saved[24:]  # as llama-server's older files
    path.write_bytes(plain)
    assert read_slot(path, "model", like, 3).tokens == TOKENS


@pytest.mark.parametrize(
    ("model", "most", "reason"), [("other", 3, "of another model"), ("model", 2, "context of a slot has 2|damaged")]
)
def test_foreign_files_are_refused(tmp_path: Path, saved: bytes, model: str, most: int, reason: str) -> None:
    path = tmp_path / "slot.bin"
    path.write_bytes(saved)
    with pytest.raises(MinillamaError, match=reason):
        read_slot(path, model, like, most)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MinillamaError, match=r"nothing\.bin: No such file"):
        read_slot(tmp_path / "nothing.bin", "model", like, 3)


@given(st.data())
def test_damaged_files_are_refused(tmp_path_factory: pytest.TempPathFactory, saved: bytes, data: st.DataObject) -> None:
    damaged = bytearray(saved)
    kind = data.draw(st.sampled_from(["cut", "byte", "more"]))
    if kind == "cut":
        del damaged[data.draw(st.integers(0, len(saved) - 1)) :]
    elif kind == "more":
        damaged += b"x"
    else:
        damaged[data.draw(st.integers(0, len(saved) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    path.write_bytes(damaged)
    with pytest.raises(MinillamaError):
        read_slot(path, "model", like, 1000)
