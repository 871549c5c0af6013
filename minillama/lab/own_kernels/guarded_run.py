"""Run a learner's kernel in a child process with a time limit."""

import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from minillama.errors import ResourceError
from minillama.lab.language import translate
from minillama.lab.own_kernels import guarded_child
from minillama.lab.own_kernels.block_kernels import BLOCK_BYTES, BLOCKS, FUNCTION

SECONDS = 20.0  # a kernel of the checks takes less than a millisecond, its process half a second


def guarded_product(machine_code: bytes, weights: np.ndarray, x: np.ndarray, *, seconds: float = SECONDS) -> np.ndarray:
    """W x, float32 [rows], by a compiled product.

    weights: bytes of Q4_0, [rows, bytes of a row]; x: in the layout of the kernel.
    Raises ResourceError, with one line, if the process ends by a signal or does not end.
    """
    rows, row_bytes = weights.shape
    job = {"machine_code": machine_code, "function": FUNCTION, "weights": weights, "x": x,
           "rows": rows, "steps": row_bytes // (BLOCKS * BLOCK_BYTES)}  # fmt: skip
    command = (sys.executable, str(Path(guarded_child.__file__)))
    try:
        done = subprocess.run(command, input=pickle.dumps(job), capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise ResourceError(
            translate("your kernel did not end within {seconds:g} s; is a loop in it endless?", seconds=seconds)
        ) from None
    if done.returncode:
        raise ResourceError(_end(done.returncode, done.stderr))
    if len(done.stdout) != 4 * rows:
        raise ResourceError(
            translate(
                "the process of your kernel gave {got} bytes, and not {want}", got=len(done.stdout), want=4 * rows
            )
        )
    return np.frombuffer(done.stdout, np.float32)


def _end(status: int, errors: bytes) -> str:
    """One line about a process that failed."""
    if status == guarded_child.EXIT_WROTE_OUTSIDE:
        return translate("your kernel wrote outside of its result; return the sums, and store nothing")
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        return translate(
            "your kernel ended its process with {name}; it read or wrote at an address of its own", name=name
        )
    lines = errors.decode(errors="replace").strip().splitlines()
    last = lines[-1][:200] if lines else translate("no message")
    return translate("the process of your kernel failed with status {status}: {last}", status=status, last=last)
