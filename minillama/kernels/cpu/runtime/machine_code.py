"""Compile LLVM IR to machine code, with a disk cache."""

import ctypes
import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from llvmlite import binding

from minillama.errors import ResourceError
from minillama.gguf import block_layouts
from minillama.kernels.cpu.runtime.arm_features import neon_features
from minillama.kernels.cpu.simd import Isa, Module
from minillama.kernels.disk_cache import read_cached, write_cached

_OPTIMISE = 3
_lock = threading.Lock()  # the function under construction is global state
_loaded: list[binding.ExecutionEngine] = []  # keeps machine code in memory as long as the process


def compile_kernels(name: str, isa: Isa, write: Callable[[Module], None], folder: Path | None) -> Callable[[str], int]:
    """Compile the functions that `write` defines, or read them from the cache.

    Returns their addresses by name.
    name: identifies everything that `write` depends on, other than the source code of this package's kernels.
    folder: of the cache of machine code, or None.
    """
    return load_machine_code(compiled_object(name, isa, write, folder), isa)


class Target(NamedTuple):
    """Another processor to compile for: LLVM's names of the system, the processor, and more features."""

    triple: str
    cpu: str
    features: str = ""


def compiled_object(
    name: str, isa: Isa, write: Callable[[Module], None], folder: Path | None, target: Target | None = None
) -> bytes:
    """The object file of `compile_kernels`, from the cache if it is there.

    target: another processor, whose machine code does not run here.
    """
    processor = _target(isa) if target is None else target
    key = hashlib.sha256(f"{_sources()} {name} {isa.value} {tuple(processor)} {binding.llvm_version_info}".encode())
    file = None if folder is None else folder / f"{name}-{isa.value}-{key.hexdigest()[:16]}.o"
    machine_code = None if file is None else read_cached(file)
    if machine_code is None:
        with _lock:
            machine_code = _compile(isa, write, target)
        if file is not None:
            with suppress(OSError, ResourceError):  # never fatal
                write_cached(file, machine_code)
    return machine_code


class Listing(NamedTuple):
    """A compiled module: optimised IR, assembly text and machine code."""

    optimised_ir: str
    assembly: str
    machine_code: bytes


def compile_listing(isa: Isa, write: Callable[[Module], None], target: Target | None = None) -> Listing:
    """Compile the functions that `write` defines, as `compile_kernels` does, and keep the texts.

    target: another processor, whose machine code does not run here. Raises RuntimeError if LLVM refuses the IR.
    """
    with _lock:
        parsed, machine = _optimise(isa, write, target)
        return Listing(str(parsed), machine.emit_assembly(parsed.clone()), machine.emit_object(parsed))


def _compile(isa: Isa, write: Callable[[Module], None], target: Target | None) -> bytes:
    parsed, machine = _optimise(isa, write, target)
    return machine.emit_object(parsed)


def _optimise(
    isa: Isa, write: Callable[[Module], None], target: Target | None
) -> tuple[binding.ModuleRef, binding.TargetMachine]:
    """The optimised module of the functions that `write` defines."""
    _start_llvm()
    module = Module(isa, None if target is None else target.triple)
    write(module)
    machine = _machine(isa) if target is None else _other_machine(target)
    parsed = binding.parse_assembly(str(module.ir))
    parsed.verify()
    options = binding.create_pipeline_tuning_options(_OPTIMISE)
    options.loop_vectorization = options.slp_vectorization = False  # kernels are vectorised by hand
    options.loop_unrolling = False
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    return parsed, machine


def load_machine_code(machine_code: bytes, isa: Isa) -> Callable[[str], int]:
    """Load an object file into this process; returns the addresses of its functions by name."""
    _start_llvm()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _machine(isa))
    engine.add_object_file(binding.ObjectFileRef.from_data(machine_code))
    engine.finalize_object()
    _loaded.append(engine)
    return engine.get_function_address


def _target(isa: Isa) -> tuple[str, str]:
    """LLVM's names of the processor and its features."""
    x86 = binding.get_process_triple().startswith(("x86_64", "amd64"))
    if isa.has_avx2:
        return "haswell", "+avxvnni" if isa is Isa.AVX_VNNI else ""
    if isa is Isa.GENERIC and x86:
        return "x86-64", ""
    if isa.is_neon:
        return binding.get_host_cpu_name(), neon_features(isa, binding.get_host_cpu_features())
    return binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()


def _machine(isa: Isa) -> binding.TargetMachine:
    cpu, features = _target(isa)
    target = binding.Target.from_default_triple()
    return target.create_target_machine(cpu=cpu, features=features, opt=_OPTIMISE, reloc="pic", jit=True)


def _other_machine(target: Target) -> binding.TargetMachine:
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    found = binding.Target.from_triple(target.triple)
    return found.create_target_machine(cpu=target.cpu, features=target.features, opt=_OPTIMISE, reloc="pic")


@cache
def _start_llvm() -> None:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()


@cache
def _sources() -> str:
    """Hash of the source code of the kernels and the block layouts."""
    found = hashlib.sha256()
    for file in (*sorted(Path(__file__).parents[1].rglob("*.py")), Path(block_layouts.__file__)):
        found.update(file.read_bytes())
    return found.hexdigest()


def callable_at(address: int, arguments: int) -> Callable[..., int]:
    """Wrap a compiled function as a Python callable (tests and labs use it)."""
    return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * arguments)(address)
