"""Compile a kernel body, count it, and run it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from minillama.kernels.cpu.runtime.machine_code import Listing, callable_at, compile_listing, load_machine_code
from minillama.kernels.cpu.runtime.registry import chosen_isa
from minillama.kernels.cpu.simd import Isa
from minillama.lab.grading.check import attempt
from minillama.lab.language import translate
from minillama.lab.own_kernels.block_kernels import (
    BLOCK_BYTES,
    BLOCK_WEIGHTS,
    BLOCKS,
    FLOAT,
    FUNCTION,
    STEP,
    Body,
    Shape,
    coded_input,
    float_input,
    write_product,
)
from minillama.lab.own_kernels.guarded_run import guarded_product
from minillama.lab.own_kernels.instruction_counts import InstructionCount, count_instructions, innermost_loops


@dataclass(frozen=True)
class CountedKernel:
    """A compiled product with its counts; `loop_weights` are those of one run of its loop."""

    name: str
    listing: Listing
    isa: Isa
    loop_weights: int = STEP

    @cached_property
    def count(self) -> InstructionCount:
        """Counts of one run of the loop."""
        return count_instructions(self.listing)

    @property
    def loop(self) -> list[str]:
        """Instructions of the loop that is counted."""
        return max(innermost_loops(self.listing.assembly), key=len, default=[])

    @property
    def instructions(self) -> float:
        """Instructions a weight."""
        return self.count.total / self.loop_weights

    @property
    def loaded_bytes(self) -> float:
        """Bytes a weight that the loop loads, from memory and from caches."""
        return self.count.loaded_bytes / self.loop_weights


def isa_in_use() -> Isa:
    """The instruction set in use; AVX-512 in place of AMX, which has the same GEMV."""
    return Isa.AVX512 if chosen_isa() is Isa.AMX else chosen_isa()


def compiled(body: Body, shape: Shape, isa: Isa | None = None) -> CountedKernel:
    """Trace and compile a body.

    isa: None for the instruction set in use. Raises what the body raises; OptionError or RuntimeError if its result
    does not fit.
    """
    chosen = isa or isa_in_use()
    return CountedKernel(
        getattr(body, "__name__", "kernel"), compile_listing(chosen, write_product(body, shape)), chosen
    )


def input_of(shape: Shape, x: np.ndarray) -> np.ndarray:
    """The vector x in the layout of a kernel."""
    return float_input(x) if shape is FLOAT else coded_input(x)


def run_guarded(kernel: CountedKernel, shape: Shape, weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """W x by a kernel in a child process.

    Raises ResourceError if the process does not end well.
    """
    return guarded_product(kernel.listing.machine_code, weights, input_of(shape, x))


def attempt_kernel(body: Body, shape: Shape) -> CountedKernel | None:
    """Compile a learner's body and run it in a child process.

    None, with a printed line, unless its result is right.
    """
    name = getattr(body, "__name__", "kernel")
    weights, x = random_blocks(4, 4 * STEP), np.random.default_rng(4).standard_normal(4 * STEP).astype(np.float32)
    kernel = attempt(compiled, body, shape)
    got = attempt(run_guarded, kernel, shape, weights, x) if isinstance(kernel, CountedKernel) else kernel
    if not isinstance(got, np.ndarray):
        print(f"{name}: {got}")
        return None
    want = dequantised(weights) @ x
    if not np.abs(got - want).max() < 0.05 * np.abs(want).max():
        print(translate("{name}: its result is wrong; see its check", name=name))
        return None
    return kernel


def loaded_product(kernel: CountedKernel, shape: Shape) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The kernel as a function of weights and x in this process.

    It must have passed `run_guarded` before.
    """
    call = callable_at(load_machine_code(kernel.listing.machine_code, kernel.isa)(FUNCTION), 5)

    def product(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
        source, y = input_of(shape, x), np.empty(len(weights), np.float32)
        steps = weights.shape[1] // (BLOCKS * BLOCK_BYTES)
        call(weights.ctypes.data, source.ctypes.data, y.ctypes.data, len(weights), steps)
        return y

    return product


def random_blocks(rows: int, width: int, seed: int = 17) -> np.ndarray:
    """Bytes of a random Q4_0 matrix, [rows, bytes of a row]."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (rows, width // BLOCK_WEIGHTS, BLOCK_BYTES), np.uint8)
    scales = (0.01 + 0.01 * random.random(blocks.shape[:2], np.float32)).astype(np.float16)
    blocks[:, :, :2] = scales[..., None].view(np.uint8)
    return blocks.reshape(rows, -1)


def dequantised(weights: np.ndarray) -> np.ndarray:
    """The float32 weights of Q4_0 bytes, [rows, width]."""
    return dequantize(weights, GGMLQuantizationType.Q4_0)
