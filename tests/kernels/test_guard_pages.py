"""The kernels' tests with operands next to guard pages: no kernel reads or writes outside of its operands."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from guard_pages import MODES, guarded
from strict_jax import ROOT

FORMATS = "Q4_0 or Q8_0 or Q4_K or Q6_K or IQ or MXFP4 or NVFP4 or TQ or F16 or BF16 or F32"
# Reads one byte after or before an array of 100 bytes.
OUTSIDE = """
import ctypes, sys
import numpy as np
from guard_pages import guarded
array = guarded(np.arange(100, dtype=np.uint8), sys.argv[1])
assert array.sum() == 4950
ctypes.string_at(array.ctypes.data + (100 if sys.argv[1] == "end" else -1), 1)
"""


@pytest.mark.parametrize("side", MODES)
def test_a_guarded_array_is_a_copy(side: str) -> None:
    array = np.arange(6000, dtype=np.int32).reshape(20, 300)
    copy = guarded(array, side)
    np.testing.assert_array_equal(copy, array)
    copy[0, 0] = 7
    assert array[0, 0] == 0 and copy.flags.c_contiguous


@pytest.mark.skipif(sys.platform != "linux", reason="macOS ends the process with another signal")
@pytest.mark.parametrize("side", MODES)
def test_an_access_outside_ends_the_process(side: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "helpers")}
    done = subprocess.run([sys.executable, "-c", OUTSIDE, side], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGSEGV, done.stderr.decode()


@pytest.mark.nightly
def test_kernels_at_the_other_side() -> None:
    """Every kernel of the processor's own instruction sets, and attention; other tests have the page at the end."""
    chosen = f"TestEveryKernel and not generic and ({FORMATS} or f16 or f32)"
    command = [sys.executable, "-m", "pytest", "-n0", "-m", "slow or not slow", "-k", chosen]
    files = [f"tests/kernels/test_cpu_{name}.py" for name in ("matmul", "attention")]
    environment = os.environ | {"GUARD_PAGES": "start"}
    done = subprocess.run([*command, *files], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout or "100%" in done.stdout
