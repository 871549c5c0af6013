"""From a kernel's LLVM code to machine code, kept between processes."""

import ctypes
import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from llvmlite import binding

from minillama.kernels.cpu.simd import Isa, Module
from minillama.kernels.disk_cache import read_cached, write_cached

_OPTIMISE = 3
_one_at_a_time = threading.Lock()  # what is being written is known to the whole process
_loaded: list[binding.ExecutionEngine] = []  # machine code lives as long as the process


def compile_kernels(name: str, isa: Isa, write: Callable[[Module], None], folder: Path | None) -> Callable[[str], int]:
    """Addresses of the functions of one kernel.

    name: names everything that `write` depends on beside the source code of this package's kernels.
    folder: where machine code is kept for the next process, or None.
    """
    key = hashlib.sha256(f"{_sources()} {name} {isa.value} {_target(isa)} {binding.llvm_version_info}".encode())
    kept = None if folder is None else folder / f"{name}-{isa.value}-{key.hexdigest()[:16]}.o"
    machine_code = None if kept is None else read_cached(kept)
    if machine_code is None:
        with _one_at_a_time:
            machine_code = _compile(isa, write)
        if kept is not None:
            with suppress(OSError):  # never fatal
                write_cached(kept, machine_code)
    return _load(machine_code, isa)


def _compile(isa: Isa, write: Callable[[Module], None]) -> bytes:
    _start_llvm()
    module = Module(isa)
    write(module)
    machine = _machine(isa)
    parsed = binding.parse_assembly(str(module.ir))
    parsed.verify()
    options = binding.create_pipeline_tuning_options(_OPTIMISE)
    options.loop_vectorization = options.slp_vectorization = False  # the kernels say themselves what is a vector
    options.loop_unrolling = False
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    return machine.emit_object(parsed)


def _load(machine_code: bytes, isa: Isa) -> Callable[[str], int]:
    _start_llvm()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _machine(isa))
    engine.add_object_file(binding.ObjectFileRef.from_data(machine_code))
    engine.finalize_object()
    _loaded.append(engine)
    return engine.get_function_address


def _target(isa: Isa) -> tuple[str, str]:
    """LLVM's names for the processor and its features."""
    x86 = binding.get_process_triple().startswith(("x86_64", "amd64"))
    if isa is Isa.AVX2:
        return "haswell", ""
    if isa is Isa.GENERIC and x86:
        return "x86-64", ""
    return binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()


def _machine(isa: Isa) -> binding.TargetMachine:
    cpu, features = _target(isa)
    target = binding.Target.from_default_triple()
    return target.create_target_machine(cpu=cpu, features=features, opt=_OPTIMISE, reloc="pic", jit=True)


@cache
def _start_llvm() -> None:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()


@cache
def _sources() -> str:
    """A mark of the source code that kernels are written in."""
    mark = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        mark.update(file.read_bytes())
    return mark.hexdigest()


def callable_at(address: int, arguments: int) -> Callable[..., int]:
    """A compiled function to be called from Python, for tests and labs."""
    return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * arguments)(address)
