"""Every hint of every check can appear: no mistake hides another one."""

import importlib
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
from lab_checks import SOURCES, assert_hints_appear, solutions

from minillama.lab.distributed.virtual_devices import DEVICES
from minillama.lab.grading.check import Item, Mistake, expect_equal, graded

LABS = [path.name[:2] for path in sorted(SOURCES.glob("[0-9][0-9]_*.py"))]
ITEMS = [item for lab in LABS for item in importlib.import_module(f"minillama.lab.checks.lab{lab}").ITEMS]

# Items without a table of mistakes: they check recorded numbers or PartitionSpecs, or derive hints from counters.
WITHOUT_TABLE = {
    ("00", "bench"), ("02", "read_string"), ("07", "int8_rows"), ("08", "gain"), ("08", "changes"), ("09", "specs"),
    ("11", "fair_time"), ("14", "release"),
    ("12", "target"), ("12", "trade_offs"), ("12", "look_back"),
}  # fmt: skip
ON_DEVICES = {("09", "by_columns"), ("09", "feed_forward")}  # tests/lab/test_lab09.py runs these on eight devices


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: f"{item.lab}-{item.name}")
def test_every_hint_can_appear(item: Item, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if (item.lab, item.name) in WITHOUT_TABLE:
        pytest.skip("no table of mistakes")
    if (item.lab, item.name) in ON_DEVICES and len(jax.devices("cpu")) < DEVICES:
        pytest.skip("needs eight devices")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert assert_hints_appear(item, solutions(item.lab)[item.name]) >= 3


def test_tables_that_hide_a_hint_fail() -> None:
    @graded("99", "the square")
    def square(answer: Callable[..., object]) -> str:
        mistakes = (Mistake("twice?", lambda x: 2.0 * x), Mistake("a sum?", lambda x: x + x))
        expect_equal(answer, (3.0,), lambda x: x * x, mistakes)
        return "well done"

    with pytest.raises(AssertionError, match=r"'a sum\?' is hidden by 'twice\?'"):
        assert_hints_appear(square, lambda x: x * x)
