"""Counts of a program compiled for an accelerator: kernels, loops, graphs, transposes, memory.

On a GPU they come from the thunks of XLA, the launches that the host makes, which XLA writes into a folder of dumps. A
kernel in a loop counts once. On a TPU a program is one launch; its kernels are the instructions of the program.
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from minillama.engine.accelerators.targets import Target
from minillama.engine.compile.executable_cache import without_jax_cache
from minillama.errors import ResourceError

LAUNCHES = "kCustomKernel|kKernel|kGemm|kCublasLtMatmul|kCudnn|kCubSort|kSort|kCustomCall"
KERNELS = re.compile(rf"^\s*\d+: ({LAUNCHES})\b", re.M)
THUNK = r"^\s*\d+: {} "
# instructions of a TPU program that move and compute nothing
FREE = {
    "parameter", "constant", "bitcast", "get-tuple-element", "tuple", "iota", "reshape", "copy-done", "slice-done",
    "after-all", "while", "call", "conditional",
}  # fmt: skip
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = .*? ([a-z][\w\-]*)\(", re.M)
CALLED = re.compile(r"(?:body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)|calls=%?([\w.\-]+)")


@dataclass(frozen=True)
class Counts:
    """Of one compiled program.

    loops: of any kind; where only the device knows the end, as in attention, a GPU's host waits for it.
    graphs: CUDA graphs (command buffers).
    transposes: kernels that only transpose. temporaries: bytes. accessed: bytes that XLA counts, 0 where it does not.
    """

    kernels: int
    loops: int
    graphs: int
    transposes: int
    temporaries: int
    accessed: int = 0


def compiled_counts(lowered: jax.stages.Lowered, target: Target) -> Counts:
    """Compile a lowered program, and count; seconds to minutes."""
    with tempfile.TemporaryDirectory() as folder, without_jax_cache():
        on_gpu = target.platform == "cuda"
        options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True} if on_gpu else {}
        compiled = lowered.compile(compiler_options=options)
        temporaries = compiled.memory_analysis().temp_size_in_bytes
        if on_gpu:
            return counts_of_thunks(_thunks(Path(folder)), temporaries)
    cost: Any = compiled.cost_analysis() or {}
    return counts_of_instructions(compiled.as_text(), temporaries, int(cost.get("bytes accessed", 0)))


def counts_of_thunks(text: str, temporaries: int) -> Counts:
    """Counts of XLA:GPU's list of thunks."""
    return Counts(
        kernels=len(KERNELS.findall(text)),
        loops=len(re.findall(THUNK.format("kWhile"), text, re.M)),
        graphs=len(re.findall(THUNK.format("kCommandBuffer"), text, re.M)),
        transposes=len(re.findall(r"\] (?:wrapped_)?transpose\w* grid", text)),
        temporaries=temporaries,
    )


def counts_of_instructions(text: str, temporaries: int, accessed: int) -> Counts:
    """Counts of a scheduled program in HLO text.

    Of its entry, and of the bodies of its loops and branches.
    """
    found = {}
    for part in re.split(r"\n(?=(?:ENTRY )?%?[\w.\-]+ \([^\n]*\{\n)", text):
        if (name := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(", part)) is not None:
            found["ENTRY" if part.startswith("ENTRY") else name[1]] = part
    operations, waiting, seen = [], ["ENTRY"], set()
    while waiting:
        if (name := waiting.pop()) in seen or name not in found:
            continue
        seen.add(name)
        for line in found[name].splitlines():
            if (operation := INSTRUCTION.match(line)) is not None:
                operations.append(operation[1])
                if operation[1] in ("while", "call", "conditional"):
                    waiting += [one or other for one, other in CALLED.findall(line)]
    return Counts(
        kernels=sum(operation not in FREE for operation in operations),
        loops=operations.count("while"),
        graphs=1,
        transposes=operations.count("transpose"),
        temporaries=temporaries,
        accessed=accessed,
    )


def _thunks(folder: Path) -> str:
    """The last list of thunks that XLA wrote."""
    for ending in ("thunk_sequence_after_thunk_passes.txt", "thunk_sequence.txt"):
        if found := sorted(folder.glob(f"*.{ending}")):
            return found[-1].read_text()
    raise ResourceError("XLA wrote no list of thunks; minillama knows the lists of jax 0.10 and 0.11")
