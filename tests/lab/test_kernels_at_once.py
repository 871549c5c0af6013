"""Kernels of one lab at the same time: all end, and none measures during another's measurement."""

import json
from pathlib import Path

import pytest
from kernels_at_once import kernels_at_once, overlaps, spans

LAB = "05"


def written(folder: Path, *times: tuple[str, str]) -> Path:
    """A folder of records with measurements at these times of a day."""
    entries = {
        f"number {place}": {"value": 1.0, "unit": "s", "other_load": 0.25,
                            "begun": f"2026-01-01T{begun}+00:00", "ended": f"2026-01-01T{ended}+00:00"}
        for place, (begun, ended) in enumerate(times)
    }  # fmt: skip
    (folder / "results").mkdir(parents=True)
    content = {"measurements": entries | {"counted": {"value": 3.0, "unit": "tokens"}}}
    (folder / "results" / f"lab{LAB}.json").write_text(json.dumps(content))
    return folder


def test_overlaps_are_found(tmp_path: Path) -> None:
    first = written(tmp_path / "0", ("10:00:00.000001", "10:00:02.000000"), ("10:00:01.000000", "10:00:03.000000"))
    second = written(tmp_path / "1", ("10:00:03.000000", "10:00:04.500000"), ("10:00:02.900000", "10:00:02.950000"))
    found = spans([first, second], LAB)
    assert len(found) == 4 and {span.other_load for span in found} == {0.25}
    (both,) = overlaps(found)
    assert [(span.kernel, span.name) for span in both] == [(0, "number 1"), (1, "number 1")]


def test_two_kernels_measure_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kernels of lab 05 end; each recorded number says when it was measured, and under which load."""
    for name in ("JAX_NUMPY_DTYPE_PROMOTION", "JAX_NUMPY_RANK_PROMOTION", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    found = kernels_at_once(2, tmp_path, LAB)
    for kernel in range(2):
        content = json.loads((tmp_path / f"kernel{kernel}" / "results" / f"lab{LAB}.json").read_text())
        assert all(content["checks"].values()) and len(content["measurements"]) >= 5
        assert all({"begun", "ended", "other_load"} <= entry.keys() for entry in content["measurements"].values())
        assert len({span.begun for span in found if span.kernel == kernel}) >= 3, "several measurements"
    assert all(span.begun < span.ended and span.other_load is not None for span in found)
    assert overlaps(found) == []
