"""Instruction sets of an ARM processor, as LLVM and its system report them."""

from collections.abc import Mapping

from llvmlite import binding

from minillama.kernels.cpu.simd import Isa
from minillama.machine import cpu_flags

_FLAGS = {"dotprod": "asimddp", "i8mm": "i8mm"}  # LLVM's name of a feature -> Linux's


def on_arm64() -> bool:
    """Whether this process runs on ARM with 64 bits."""
    return binding.get_process_triple().startswith(("aarch64", "arm64"))


def best_neon(found: Mapping[str, bool]) -> Isa:
    """The best instruction set of this ARM processor.

    found: the features that LLVM finds by itself; on some systems it finds none.
    """
    flags = cpu_flags()
    has = {name for name, flag in _FLAGS.items() if found.get(name) or flag in flags}
    if "dotprod" not in has:
        return Isa.GENERIC
    return Isa.NEON_I8MM if "i8mm" in has else Isa.NEON_DOTPROD


def neon_features(isa: Isa, found: Mapping[str, bool]) -> str:
    """LLVM's list of features: those that it finds, and those of the instruction set.

    LLVM aborts the process for an instruction that it believes is missing.
    """
    needed = {"neon": True, "dotprod": True} | ({"i8mm": True} if isa is Isa.NEON_I8MM else {})
    return ",".join(f"{'+' if has else '-'}{name}" for name, has in sorted({**found, **needed}.items()))
