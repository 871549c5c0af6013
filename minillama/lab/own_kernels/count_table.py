"""Instructions of the GEMV kernels by type and instruction set, on any machine.

`python -m minillama.lab.own_kernels.count_table` prints the table of docs/performance.md; types may follow. It takes
half a minute.
"""

import sys
from collections.abc import Iterator, Sequence

from gguf import GGMLQuantizationType as Type

from minillama.errors import OptionError
from minillama.kernels.cpu.formats import FLOAT_FORMATS, FORMATS
from minillama.kernels.cpu.matmul import gemm_neon
from minillama.kernels.cpu.runtime.machine_code import Target, compile_listing
from minillama.kernels.cpu.simd import Isa
from minillama.lab.own_kernels.instruction_counts import count_instructions, innermost_loops, kind_of
from minillama.lab.own_kernels.package_kernels import define_gemv, loop_weights

WEIGHTS = 32  # of a count
PROCESSORS = {  # one of each instruction set
    Isa.AVX2: Target("x86_64-unknown-linux-gnu", "haswell"),
    Isa.AVX_VNNI: Target("x86_64-unknown-linux-gnu", "haswell", "+avxvnni"),
    Isa.AVX512: Target("x86_64-unknown-linux-gnu", "icelake-server"),
    Isa.NEON_DOTPROD: Target("aarch64-unknown-linux-gnu", "apple-m1"),
    Isa.NEON_I8MM: Target("aarch64-unknown-linux-gnu", "neoverse-v1"),
}


def instructions(kind: Type, isa: Isa) -> float:
    """Instructions for 32 weights in the longest loop of a type's GEMV for one token.

    Compiled for a processor of `PROCESSORS`. Raises RuntimeError if this LLVM cannot compile for it.
    """
    listing = compile_listing(isa, lambda module: define_gemv(module, kind), PROCESSORS[isa])
    return count_instructions(listing).total * WEIGHTS / loop_weights(kind, isa)


def prompt_instructions(isa: Isa) -> float:
    """Instructions for 32 weights and a token in the loop of prompts, Q4_0 on ARM.

    Raises RuntimeError if this LLVM cannot compile for the processor.
    """
    form = FORMATS[Type.Q4_0]
    listing = compile_listing(isa, lambda module: gemm_neon.define_quantised(module, "gemm", form), PROCESSORS[isa])
    loops = innermost_loops(listing.assembly)
    longest = max(loops, key=lambda loop: sum(kind_of(each) == "multiplies" for each in loop))
    return len(longest) * WEIGHTS / (form.group * gemm_neon.ROWS * gemm_neon.PANEL_TOKENS)


def table(kinds: Sequence[Type]) -> Iterator[str]:
    """Lines of a Markdown table: a row for each type."""
    yield f"| | {' | '.join(f'{isa.value} ({target.cpu})' for isa, target in PROCESSORS.items())} |"
    yield "|---|" + "---:|" * len(PROCESSORS)
    for kind in kinds:
        yield f"| {kind.name} | {' | '.join(f'{instructions(kind, isa):.1f}' for isa in PROCESSORS)} |"


def chosen_types(names: Sequence[str]) -> list[Type]:
    """The types of these names, or all.

    Raises OptionError for another name.
    """
    known = {kind.name: kind for kind in (*FORMATS, *FLOAT_FORMATS)}
    if wrong := [name for name in names if name not in known]:
        raise OptionError(f"{wrong[0]} is not a type with kernels; choose from {', '.join(known)}")
    return [known[name] for name in names] or list(known.values())


def main(names: Sequence[str]) -> int:
    """Print the table; the exit status is 2 for a wrong name."""
    try:
        for line in table(chosen_types(names)):
            print(line, flush=True)
        found = [f"{isa.value} {prompt_instructions(isa):.1f}" for isa in PROCESSORS if isa.is_neon]
        print(f"\nQ4_0 in prompts, for 32 weights and a token: {', '.join(found)}")
    except OptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
