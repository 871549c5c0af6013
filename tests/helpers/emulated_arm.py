"""Kernels for ARM, run by QEMU's user mode in memory that this process shares.

The memory has the same addresses in both processes. So arguments are packed as for kernels of this process.
"""

import atexit
import ctypes
import hashlib
import mmap
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from minillama import env
from minillama.kernels.cpu.runtime.machine_code import Target, compiled_object
from minillama.kernels.cpu.simd import Isa, Module

_QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
_COMPILER = shutil.which("aarch64-linux-gnu-gcc")
_RUNNER = Path(__file__).with_name("arm_runner.c")
_ADDRESS, _SIZE = 0x2000_0000_0000, 256 << 20  # free in both processes
_MAP_FIXED_NOREPLACE = 0x100000
_LINUX = "aarch64-unknown-linux-gnu"

needs_emulator = pytest.mark.skipif(
    _QEMU is None or _COMPILER is None,
    reason="needs qemu-user-static and gcc-aarch64-linux-gnu: apt-get install them to run kernels for ARM",
)


@dataclass(frozen=True)
class Processor:
    """What LLVM compiles for, and QEMU's processor that runs it, the smallest one that there is."""

    isa: Isa
    target: Target
    qemu: str


PROCESSORS = {
    "apple-m1": Processor(Isa.NEON_DOTPROD, Target(_LINUX, "apple-m1"), "max"),
    "neoverse-v1": Processor(Isa.NEON_I8MM, Target(_LINUX, "neoverse-v1"), "max"),
    "armv8.2": Processor(Isa.NEON_DOTPROD, Target(_LINUX, "generic", "+v8.2a,+dotprod"), "neoverse-n1"),
    "armv8.6": Processor(Isa.NEON_I8MM, Target(_LINUX, "generic", "+v8.2a,+dotprod,+i8mm"), "max"),
    "armv8.0": Processor(Isa.GENERIC, Target(_LINUX, "generic"), "cortex-a57"),
}


class EmulatedArm:
    """Memory and calls of some kernels on a processor; a context manager.

    Arrays live until the next one starts.
    """

    def __init__(self, processor: Processor, name: str, write: Callable[[Module], None], cached: bool = True) -> None:
        folder = env.kernel_cache_dir() if cached else None
        code = compiled_object(name, processor.isa, write, folder, processor.target)
        command = [_QEMU, "-cpu", processor.qemu, _linked(code), _memory()[0], hex(_ADDRESS), hex(_SIZE)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._used = 0

    def __enter__(self) -> "EmulatedArm":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def guarded(self, array: np.ndarray) -> np.ndarray:
        """A copy that ends before a page that no access survives, as `guard_pages.guarded`."""
        page = mmap.PAGESIZE
        pages = -(-array.nbytes // page)
        end = self._used + pages * page
        self._used = end + page
        self._send(f"protect {_ADDRESS + end} {page}")
        copy = _memory()[1][end - array.nbytes : end].view(array.dtype).reshape(array.shape)
        copy[...] = array
        return copy

    def call(self, name: str, args: np.ndarray, *numbers: int) -> int:
        """Call a function with the address of a copy of its arguments, and some numbers."""
        return self.call_numbers(name, self.guarded(args).ctypes.data, *numbers)

    def call_numbers(self, name: str, *numbers: int) -> int:
        """Call a function with numbers."""
        self._send(" ".join(map(str, ("call", name, len(numbers), *numbers))))
        answer = self._process.stdout.readline()
        if not answer:
            raise AssertionError(f"{name} ended the process: {self._end()}")
        return int(answer)

    def _send(self, line: str) -> None:
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise AssertionError(f"the process has ended: {self._end()}") from error

    def _end(self) -> str:
        return f"status {self._process.wait()}, {self._process.stderr.read().decode().strip()}"


@cache
def _folder() -> Path:
    """Files of this process's emulated kernels, until it ends."""
    folder = Path(tempfile.mkdtemp(prefix="minillama-arm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _memory() -> tuple[str, np.ndarray]:
    """The file of the shared memory, and its bytes at the address that is the same in all processes."""
    call, number = ctypes.CDLL(None, use_errno=True).mmap, ctypes.c_int
    call.restype = ctypes.c_void_p
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, number, number, number, ctypes.c_long]
    flags = mmap.MAP_SHARED | _MAP_FIXED_NOREPLACE
    path = _folder() / "memory"
    with path.open("w+b") as file:
        file.truncate(_SIZE)
        if call(_ADDRESS, _SIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags, file.fileno(), 0) != _ADDRESS:
            raise OSError(ctypes.get_errno(), "mmap at a fixed address")
    return str(path), np.frombuffer((ctypes.c_uint8 * _SIZE).from_address(_ADDRESS), np.uint8)


@cache
def _linked(code: bytes) -> str:
    """An executable of the runner and an object file."""
    stem = _folder() / hashlib.sha256(code).hexdigest()[:16]
    kernels, table = stem.with_suffix(".o"), stem.with_suffix(".table.c")
    kernels.write_bytes(code)
    listed = subprocess.run(["aarch64-linux-gnu-nm", kernels], capture_output=True, text=True, check=True).stdout
    names = re.findall(r" T (\w+)$", listed, re.MULTILINE)
    lines = [f"extern long {name}(long, long, long, long);" for name in names]
    entries = ", ".join(f'{{"{name}", {name}}}' for name in names)
    lines.append(f"struct {{ const char *name; void *function; }} table[] = {{{entries}, {{0, 0}}}};")
    table.write_text("\n".join(lines))
    subprocess.run([_COMPILER, "-O1", "-w", "-static", "-o", stem, _RUNNER, table, kernels], check=True)
    return str(stem)
