"""Flags of a setup and its tests, read back by the parser."""

import argparse
from pathlib import Path

import pytest

from minillama.cli import build_parser
from minillama.cli.arguments.bench_flags import setup_flags, workload_flags
from minillama.cli.bench import _plan
from minillama.errors import OptionError
from minillama.measure.speed.bench_plan import Setup, Workload


def test_flags_say_the_same(builtin_model: Path) -> None:
    """The flags of a child process give the same setup and workload."""
    setup = Setup(builtin_model, 3, 7, 1024, 64, "f32", "q8_0", "mlock")
    workload = Workload((16, 32), (), ((8, 2), (4, 1)), (0, 100))
    args = build_parser().parse_args(["bench", *setup_flags(setup), *workload_flags(workload)])
    plan = _plan(args)
    assert [*plan.setups()] == [setup]
    assert plan.workload.trials() == workload.trials()
    assert "-ngl" not in setup_flags(Setup(builtin_model, 1))  # a llama-bench without a GPU warns about it


def test_nothing_to_measure_is_said(builtin_model: Path) -> None:
    args = build_parser().parse_args(["bench", "-p", "0", "-n", "0"])
    assert isinstance(args, argparse.Namespace)
    with pytest.raises(OptionError, match="nothing to measure"):
        _plan(args)
