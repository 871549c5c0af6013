"""The machine of this process: CPU, cores, instruction sets and memory. Standard library only."""

import ctypes
import math
import os
import platform as _platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from minillama.cpu_quota import cpu_quota

_INSTRUCTION_SETS = (
    "sse4_2", "f16c", "fma", "avx", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16",
    "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
_MACOS_FLAGS = {  # macOS's name of a feature of ARM -> Linux's
    "AdvSIMD": "asimd", "arm.FEAT_DotProd": "asimddp", "arm.FEAT_FP16": "asimdhp", "arm.FEAT_I8MM": "i8mm",
    "arm.FEAT_BF16": "bf16",
}  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """CPU, cores and memory of this machine.

    Memory is in bytes, None if the system does not report it.
    """

    system: str
    architecture: str
    cpu: str
    physical_cores: int
    logical_cores: int
    affinity: tuple[int, ...]
    cpu_quota: float | None  # cores that a container's or a hub's limit allows
    instruction_sets: tuple[str, ...]
    memory_total: int | None
    memory_available: int | None
    python: str

    def as_dict(self) -> dict[str, object]:
        """The same as plain values, ready for `json.dumps`."""
        return asdict(self)


def describe() -> Machine:
    """Describe this machine.

    On Linux the details come from /proc and /sys, on other systems from the standard library.
    """
    total, available = _memory()
    allowed = allowed_cores()
    return Machine(
        system=_platform.platform(),
        architecture=_platform.machine(),
        cpu=cpu_model(),
        physical_cores=len(set(core_ids().values())) if core_ids() else len(allowed),
        logical_cores=os.cpu_count() or 1,
        affinity=current_affinity(),
        cpu_quota=cpu_quota(),
        instruction_sets=tuple(name for name in _INSTRUCTION_SETS if name in cpu_flags()),
        memory_total=total,
        memory_available=available,
        python=_platform.python_version(),
    )


@cache
def allowed_cores() -> tuple[int, ...]:
    """Logical cores that this process may use, before `env.prepare` bound it to some."""
    return current_affinity()


def usable_cores(affinity: Sequence[int]) -> int:
    """The number of these cores that this process may keep busy, by its quota."""
    quota = cpu_quota()
    return len(affinity) if quota is None else min(len(affinity), math.ceil(quota))


def current_affinity() -> tuple[int, ...]:
    """Logical cores that this process is bound to; all on systems without CPU affinity."""
    if sys.platform == "linux":
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def pick_cores(
    cores: Sequence[int], core_ids: dict[int, tuple[int, int]], count: int, skip: int = 0
) -> tuple[int, ...]:
    """Choose `count` logical cores, one of each physical core before a second of any.

    core_ids: logical core -> (package, physical core).
    skip: how many cores of that order other processes use; the order wraps around if too few are left.
    """
    seen: dict[tuple[int, int], int] = {}
    ranks = []
    for core in sorted(cores):
        physical = core_ids.get(core, (-1, core))
        seen[physical] = seen.get(physical, -1) + 1
        ranks.append((seen[physical], core))
    order = [core for _, core in sorted(ranks)]
    start = skip % max(len(order), 1)
    return tuple(sorted((order[start:] + order[:start])[:count]))


@cache
def core_ids() -> dict[int, tuple[int, int]]:
    """Logical core -> (package, physical core), from Linux's /sys; empty on other systems."""
    found = {}
    for folder in Path("/sys/devices/system/cpu").glob("cpu[0-9]*"):
        try:
            package = int((folder / "topology" / "physical_package_id").read_text())
            core = int((folder / "topology" / "core_id").read_text())
        except (OSError, ValueError):
            continue
        found[int(folder.name[3:])] = (package, core)
    return found


def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of the processor, as Linux names them.

    Empty on Windows, and on Macs with x86.
    """
    if sys.platform == "darwin":
        return frozenset(flag for name, flag in _MACOS_FLAGS.items() if any(sysctl(f"hw.optional.{name}")))
    info = _cpuinfo()
    return frozenset((info.get("flags") or info.get("Features") or "").split())


def cpu_model() -> str:
    """Model name of the processor, or the best substitute that the system reports."""
    if sys.platform == "darwin" and (name := sysctl("machdep.cpu.brand_string").rstrip(b"\0")):
        return name.decode(errors="replace")
    info = _cpuinfo()
    if "CPU part" in info:  # Linux on ARM: numbers of the maker and of the model
        return f"ARM {info.get('CPU implementer', 'unknown')} part {info['CPU part']}"
    return info.get("model name") or _platform.processor() or _platform.machine() or "unknown"


def sysctl(name: str) -> bytes:
    """The bytes of a named value of macOS's kernel; empty if there is none."""
    call, size, value = ctypes.CDLL(None).sysctlbyname, ctypes.c_size_t(256), ctypes.create_string_buffer(256)
    call.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    problem = call(name.encode(), value, ctypes.byref(size), None, 0)
    return b"" if problem else value.raw[: size.value]


@cache
def _cpuinfo() -> dict[str, str]:
    """First processor's block of /proc/cpuinfo; empty on other systems."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            block = file.read().split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _memory() -> tuple[int | None, int | None]:
    """Total and available bytes, lowered to the control group's limit in containers and hubs."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file}
    except OSError:
        return None, None
    total, available = fields.get("MemTotal"), fields.get("MemAvailable")
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return total, available
    return min(total or limit, limit), min(available or limit, max(limit - used, 0))
