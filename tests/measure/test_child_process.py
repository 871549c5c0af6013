"""Child processes: programs that fail, peak memory, calls of functions."""

import sys
from pathlib import Path

import numpy as np
import pytest

from minillama.cli.arguments.values import numbers
from minillama.errors import ResourceError
from minillama.measure.host import child_process
from minillama.measure.host.child_process import measure_process, run_for_json


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; sys.exit('first\\nno such model\\n')", "failed with status 1: no such model"),
        ("print('| model |')", "printed no JSON"),
        ("print('{}')", "no list of results"),
        ("print('[1]')", "no list of results"),
    ],
)
def test_programs_that_fail_are_one_line(program: str, message: str) -> None:
    with pytest.raises(ResourceError, match=message) as problem:
        run_for_json([sys.executable, "-c", program])
    assert "\n" not in str(problem.value)


def test_a_program_that_cannot_start(tmp_path: Path) -> None:
    (tmp_path / "odd").write_text("not a program")
    (tmp_path / "odd").chmod(0o755)
    with pytest.raises(ResourceError, match="cannot start"):
        run_for_json([str(tmp_path / "odd")])


@pytest.mark.skipif(sys.platform == "win32", reason="no wait4")
def test_a_whole_process_is_weighed_alone() -> None:
    """Its peak is its own, not that of the process that starts it."""
    here = np.ones(300 << 20, np.uint8)
    small = measure_process([sys.executable, "-S", "-c", "print('x')"])
    large = measure_process([sys.executable, "-S", "-c", "print('x', flush=True); b = b'1' * (200 << 20)"])
    assert small.peak < here.nbytes // 2
    assert 200 << 20 < large.peak < 300 << 20
    assert 0 < large.first_text < large.seconds
    silent = measure_process([sys.executable, "-S", "-c", "print()"])
    assert silent.first_text == silent.seconds
    with pytest.raises(ResourceError, match="status 3: gone"):
        measure_process([sys.executable, "-c", "import sys; print('gone', file=sys.stderr); sys.exit(3)"])


def test_own_process_gives_plain_values_back() -> None:
    assert child_process.call_in_child(numbers, "1-3") == [1, 2, 3]
    with pytest.raises(ResourceError, match="numbers failed: ValueError: 'x' should be"):
        child_process.call_in_child(numbers, "x")
