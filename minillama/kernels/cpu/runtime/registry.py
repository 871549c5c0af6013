"""The kernels of this process: chosen for its processor, compiled or found compiled, and made known to XLA."""

import ctypes
import threading
from collections.abc import Callable
from enum import IntEnum
from functools import cache, lru_cache, wraps
from pathlib import Path

import jax
from gguf import GGMLQuantizationType as Type
from llvmlite import binding

from minillama import env
from minillama.errors import OptionError
from minillama.kernels.cpu.attention import attention_op
from minillama.kernels.cpu.matmul import activations, embedding_lookup, gemm, gemm_amx, gemv
from minillama.kernels.cpu.matmul.formats import FLOAT_FORMATS, FORMATS
from minillama.kernels.cpu.runtime import ffi_handlers, thread_pool
from minillama.kernels.cpu.runtime.ffi_frame import Api, read_api
from minillama.kernels.cpu.runtime.machine_code import compile_kernels
from minillama.kernels.cpu.simd import Isa, Module, request_tile_permission

TYPES = (*FORMATS, *FLOAT_FORMATS)
GEMV_TOKENS = (1, 2, 4, 8)  # tokens that a kernel takes in registers; more go through panels
_lock = threading.RLock()
loaded_attention: list[attention_op.AttentionSpec] = []  # sizes that this process has attention for


class Role(IntEnum):
    """What a type's kernels do; a kernel's number is 16 times its type's place in KINDS, plus this."""

    PREPARE_GEMV, GEMV_1, GEMV_2, GEMV_4, GEMV_8, PREPARE_GEMM, GEMM, EMBED = range(8)


GEMV_ROLES = dict(zip(GEMV_TOKENS, (Role.GEMV_1, Role.GEMV_2, Role.GEMV_4, Role.GEMV_8), strict=True))


def run_once(load: Callable[..., None]) -> Callable[..., None]:
    """A function that acts once for its arguments, whatever the threads that call it: a second one waits for the first.

    XLA refuses a name that is registered with another address, and each thread's would be another.
    """
    remembered = cache(load)

    @wraps(load)
    def call(*arguments: object) -> None:
        with _lock:
            remembered(*arguments)

    return call


def kernel_number(kind: Type, role: Role) -> int:
    """A kernel's place in the table: the same in every process, for compiled programs hold it."""
    return 16 * TYPES.index(kind) + role


def activation_terms(kind: Type, isa: Isa) -> int | None:
    """How many bfloat16s an activation is where many tokens are multiplied in tiles; None where they are not."""
    if isa is not Isa.AMX or (kind in FLOAT_FORMATS and FLOAT_FORMATS[kind].bf16_terms > 2):
        return None
    return 1 if kind in FORMATS else 2


def detect_isa() -> Isa:
    """The best instruction set of this processor."""
    features = binding.get_host_cpu_features()
    if all(features.get(name) for name in ("avx512f", "avx512bw", "avx512vl", "avx512vnni")):
        tiles = all(features.get(name) for name in ("amx-tile", "amx-bf16", "avx512bf16"))
        return Isa.AMX if tiles and request_tile_permission() else Isa.AVX512
    if all(features.get(name) for name in ("avx2", "fma", "f16c")):
        return Isa.AVX2
    return Isa.GENERIC


@lru_cache
def chosen_isa() -> Isa:
    """The instruction set in force: the processor's best, or the one that the environment asks for.

    Raises OptionError where the processor lacks that one.
    """
    best, wanted = detect_isa(), env.cpu_kernels()
    here = list(Isa)[list(Isa).index(best) :]
    if wanted != "auto" and Isa(wanted) not in here:
        known = ", ".join(isa.value for isa in here)
        raise OptionError(f"MINILLAMA_CPU_KERNELS is {wanted}, which this processor lacks; it has {known}")
    return best if wanted == "auto" else Isa(wanted)


@run_once
def register() -> None:
    """Make the handlers known to XLA, and tell them how many threads may work."""
    find = _handlers()
    for name in ("product", "rows"):
        _register(f"minillama_{name}", find(name))
    threads = (ctypes.c_int64 * 2).from_address(find(ffi_handlers.THREADS))
    threads[0], threads[1] = env.thread_limits()


@run_once
def load_kernels(kind: Type) -> None:
    """Have the kernels of a type ready, in the table that the handlers look them up in."""
    register()
    table = (ctypes.c_int64 * ffi_handlers.KERNEL_COUNT).from_address(_handlers()(ffi_handlers.KERNELS))
    find = type_kernels(kind, chosen_isa(), env.kernel_cache_dir())
    for role in Role:
        table[kernel_number(kind, role)] = find(role.name)


@run_once
def load_attention(heads: attention_op.AttentionSpec) -> None:
    """Have the attention of a model's sizes ready."""
    register()
    find = _calls(heads.name, lambda module, api: attention_op.define_attention(module, heads, api))
    link = (ctypes.c_int64 * 2).from_address(find(thread_pool.POOL_LINK))
    link[0], link[1] = _handlers()("parallel"), _handlers()(ffi_handlers.THREADS)
    _register(heads.name, find("attention"))
    loaded_attention.append(heads)


def type_kernels(kind: Type, isa: Isa, folder: Path | None) -> Callable[[str], int]:
    """Addresses of a type's kernels by the names of their roles."""
    return compile_kernels(kind.name, isa, lambda module: _write(module, kind), folder)


def _write(module: Module, kind: Type) -> None:
    parts = activation_terms(kind, module.isa)
    if parts is not None:
        gemm_amx.define_factors(module, Role.PREPARE_GEMM.name, parts)
    if kind in FORMATS:
        form = FORMATS[kind]
        activations.define_quantised_rows(module, Role.PREPARE_GEMV.name, form.group, form.permutation)
        for tokens, role in GEMV_ROLES.items():
            gemv.define_quantised(module, role.name, form, tokens)
        if parts is None:
            activations.define_quantised_panels(module, Role.PREPARE_GEMM.name, form.group, form.zero_point)
            gemm.define_quantised(module, Role.GEMM.name, form)
        else:
            gemm_amx.define_quantised(module, Role.GEMM.name, form)
        embedding_lookup.define_quantised(module, Role.EMBED.name, form)
        return
    plain = FLOAT_FORMATS[kind]
    activations.define_no_op(module, Role.PREPARE_GEMV.name)
    for tokens, role in GEMV_ROLES.items():
        gemv.define_float(module, role.name, plain, tokens)
    if parts is None:
        activations.define_float_panels(module, Role.PREPARE_GEMM.name)
        gemm.define_float(module, Role.GEMM.name, plain)
    else:
        gemm_amx.define_float(module, Role.GEMM.name, plain)
    embedding_lookup.define_float(module, Role.EMBED.name, plain)


def _register(name: str, address: int) -> None:
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    jax.ffi.register_ffi_target(name, new(address, None, None), platform="cpu")


@cache
def _handlers() -> Callable[[str], int]:
    return _calls("handlers", ffi_handlers.define_handlers)


def _calls(name: str, define: Callable[[Module, Api], None]) -> Callable[[str], int]:
    """Compile functions that XLA calls, for the frames of this jaxlib."""
    api = _api()
    key = f"{name}-{api.major}-{api.minor}-{api.schedule}"
    return compile_kernels(key, chosen_isa(), lambda module: define(module, api), env.kernel_cache_dir())


@cache
def _api() -> Api:
    return read_api(Path(jax.ffi.include_dir()))
