"""Registry of kernels: choose the instruction set, compile, register with XLA."""

import ctypes
import threading
from collections.abc import Callable
from functools import cache, lru_cache, wraps
from pathlib import Path

import jax
from gguf import GGMLQuantizationType as Type
from llvmlite import binding

from minillama import env
from minillama.errors import OptionError
from minillama.kernels.cpu.runtime import ffi_handlers, grouped_handler, thread_pool
from minillama.kernels.cpu.runtime.arm_features import best_neon, on_arm64
from minillama.kernels.cpu.runtime.ffi_frame import Api, read_api
from minillama.kernels.cpu.runtime.kernel_roles import Role, kernel_number
from minillama.kernels.cpu.runtime.machine_code import compile_kernels
from minillama.kernels.cpu.simd import Isa, Module, request_tile_permission

_lock = threading.RLock()


def run_once(load: Callable[..., None]) -> Callable[..., None]:
    """Decorator: run a function once for its arguments; other threads wait for the first.

    XLA refuses to register a name again with another address, which a second thread would have.
    """
    remembered = cache(load)

    @wraps(load)
    def call(*arguments: object) -> None:
        with _lock:
            remembered(*arguments)

    return call


loaded: list[tuple[Callable[..., None], object]] = []  # functions that loaded kernels, and the specifications of these


def remember(load: Callable[..., None], spec: object) -> None:
    """Record a kernel that programs call by its name.

    A process that reads a program from disk loads its kernels first.
    """
    loaded.append((load, spec))


def load_handler(target: str, define: Callable[[Module, Api], None], handler: str) -> None:
    """Compile a handler with kernels of its own, and register it with XLA as `target`.

    Its kernels run on the common thread pool.
    """
    register()
    find = compile_handlers(target, define)
    link = (ctypes.c_int64 * 2).from_address(find(thread_pool.POOL_LINK))
    link[0], link[1] = handlers()("parallel"), handlers()(ffi_handlers.THREADS)
    register_target(target, find(handler))


def available_isas() -> tuple[Isa, ...]:
    """The instruction sets of this processor, best first."""
    features = binding.get_host_cpu_features()
    avx2 = all(features.get(name) for name in ("avx2", "fma", "f16c"))
    avx512 = avx2 and all(features.get(name) for name in ("avx512f", "avx512bw", "avx512vl", "avx512vnni"))
    tiles = avx512 and all(features.get(name) for name in ("amx-tile", "amx-bf16", "avx512bf16"))
    neon = best_neon(features) if on_arm64() else Isa.GENERIC
    found = {
        Isa.AMX: tiles and request_tile_permission(),
        Isa.AVX512: avx512,
        Isa.AVX_VNNI: avx2 and bool(features.get("avxvnni")),
        Isa.AVX2: avx2,
        Isa.NEON_I8MM: neon is Isa.NEON_I8MM,
        Isa.NEON_DOTPROD: neon.is_neon,
        Isa.GENERIC: True,
    }
    return tuple(isa for isa in Isa if found[isa])


def detect_isa() -> Isa:
    """The best instruction set of this processor."""
    return available_isas()[0]


@lru_cache
def chosen_isa() -> Isa:
    """The instruction set in use: MINILLAMA_CPU_KERNELS, or the best of the processor.

    Raises OptionError if the processor does not have it.
    """
    available, option = available_isas(), env.cpu_kernels()
    if option != "auto" and Isa(option) not in available:
        names = ", ".join(isa.value for isa in available)
        raise OptionError(f"MINILLAMA_CPU_KERNELS is {option}, which this processor lacks; it has {names}")
    return available[0] if option == "auto" else Isa(option)


@run_once
def register() -> None:
    """Register the FFI handlers with XLA, and set their numbers of threads."""
    find = handlers()
    for name in ("product", "rows", "grouped_product"):
        register_target(f"minillama_{name}", find(name))
    threads = (ctypes.c_int64 * 2).from_address(find(ffi_handlers.THREADS))
    threads[0], threads[1] = env.thread_limits()


@run_once
def load_kernels(kind: Type) -> None:
    """Compile the kernels of a type and enter them in the table of the handlers."""
    register()
    table = (ctypes.c_int64 * ffi_handlers.KERNEL_COUNT).from_address(handlers()(ffi_handlers.KERNELS))
    find = type_kernels(kind, chosen_isa(), env.kernel_cache_dir())
    for role in Role:
        table[kernel_number(kind, role)] = find(role.name)


def type_kernels(kind: Type, isa: Isa, folder: Path | None) -> Callable[[str], int]:
    """Addresses of the kernels of a type, by the names of their roles."""

    def define(module: Module) -> None:  # imported for a compilation: machine code of the cache needs no definitions
        from minillama.kernels.cpu.runtime.kernel_definitions import define_kernels

        define_kernels(module, kind)

    return compile_kernels(kind.name, isa, define, folder)


def register_target(name: str, address: int) -> None:
    """Register the address of an FFI handler with XLA."""
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    jax.ffi.register_ffi_target(name, new(address, None, None), platform="cpu")


@cache
def handlers() -> Callable[[str], int]:
    """Addresses of the FFI handlers and of their global arrays, by name."""

    def define(module: Module, api: Api) -> None:
        ffi_handlers.define_handlers(module, api)
        grouped_handler.define_grouped_handler(module, api)

    return compile_handlers("handlers", define)


def compile_handlers(name: str, define: Callable[[Module, Api], None]) -> Callable[[str], int]:
    """Compile FFI handlers for the call frames of this jaxlib."""
    api = _api()
    key = f"{name}-{api.major}-{api.minor}-{api.schedule}"
    return compile_kernels(key, chosen_isa(), lambda module: define(module, api), env.kernel_cache_dir())


@cache
def _api() -> Api:
    return read_api(Path(jax.ffi.include_dir()))
