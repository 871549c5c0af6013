"""What has to be decided before JAX starts: XLA flags, processor cores, platform, compile cache, virtual devices.

Standard library only, and quick to import: `import minillama` runs `prepare()` before anything can touch JAX.
XLA reads these settings once, when its backend starts, so a later change either comes in time or raises.
"""

import hashlib
import logging
import os
import platform as _platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from minillama.errors import OptionError

logger = logging.getLogger("minillama")

MINILLAMA = (sys.executable, "-m", "minillama")  # starts the command `minillama`, installed or not

# XLA:CPU of jax 0.10.2 silently miscomputes some fused reductions (jax-ml/jax#39103); this is the cure, and harmless
# on 0.12. Clearing the whole list instead of `-reduce` would make small matrix products ten times slower.
_CURE_FLAG = "--xla_cpu_experimental_ynn_fusion_type=-reduce"
# XLA prefers 256-bit vectors; quantised matrix-vector products run 1.5 to 2 times faster with 512.
_WIDE_FLAG = "--xla_cpu_prefer_vector_width=512"
# XLA's schedule for concurrency keeps the temporaries of all layers at once: 888 MiB against 93 for a prompt of 512
# tokens on a model of 1.2 billion weights, and no faster.
_LEAN_FLAG = "--xla_cpu_enable_concurrency_optimized_scheduler=false"

_CPU_KERNELS = ("auto", "amx", "avx512", "avx2", "generic", "off")
_keeps_programs = False
_threads = [0, 0]  # asked for: for a token, for a prompt; 0 for as many as there are cores, and as for a token

_INSTRUCTION_SETS = (
    "sse4_2", "f16c", "fma", "avx", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16",
    "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """The machine as this process sees it; memory in bytes, None where the system does not tell."""

    system: str
    architecture: str
    cpu: str
    physical_cores: int
    logical_cores: int
    affinity: tuple[int, ...]
    instruction_sets: tuple[str, ...]
    memory_total: int | None
    memory_available: int | None
    python: str

    def as_dict(self) -> dict[str, object]:
        """The same as plain values, ready for `json.dumps`."""
        return asdict(self)


def prepare(
    *,
    threads: int | None = None,
    threads_batch: int | None = None,
    platform: str | None = None,
    cpu_devices: int | None = None,
    keep_programs: bool = False,
    skip_cores: int = 0,
) -> None:
    """Settle what JAX reads when it starts; settings that the user made in the environment are left alone.

    threads: number of processor cores to compute on; None or below 1 leaves the choice as it is.
    threads_batch: the same for prompts, where it differs; the process is bound to the larger number of cores, and the
    smaller one holds for products and attention.
    platform: `cpu`, `cuda` or `tpu`; None lets JAX choose.
    cpu_devices: how many devices JAX shows on the processor, to practise sharding on one machine.
    keep_programs: look for compiled programs that an earlier process wrote down whole, and write down new ones.
    skip_cores: with `threads`, how many cores to leave to other processes that share the work on this machine.
    Raises OptionError where JAX has already started and an option would have changed something.
    """
    global _keeps_programs
    _keeps_programs = _keeps_programs or keep_programs
    _set_xla_flags()
    _set_compile_cache()
    if platform is not None:
        _set("jax_platforms", platform if platform == "cpu" else f"{platform},cpu", "platform", platform)
    if cpu_devices is not None:
        if cpu_devices < 1:
            raise OptionError(f"cpu_devices is {cpu_devices}; it counts virtual devices, so 1 or more")
        _set("jax_num_cpu_devices", cpu_devices, "cpu_devices", cpu_devices)
    if max(threads or 0, threads_batch or 0) > 0:
        _set_threads(max(threads or 0, 0), max(threads_batch or 0, 0), skip_cores)


def allowed_cores() -> tuple[int, ...]:
    """The cores that this process was given, whatever `prepare` has chosen among them."""
    return _allowed_cores()


def backend_started() -> bool:
    """Whether JAX has started its backend, after which nothing of `prepare` can change."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bridge.backends_are_initialized()


def cache_dir() -> Path | None:
    """Folder of compiled programs in force, or None: one a user and a processor model, for a program compiled for one
    processor may use instructions that another lacks (home folders travel between machines)."""
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    return Path(chosen) if chosen else None


def cpu_kernels() -> str:
    """Which kernels multiply on the processor: `auto`, `amx`, `avx512`, `avx2`, `generic`, or `off` for XLA's own.

    Taken from the environment variable MINILLAMA_CPU_KERNELS; raises OptionError for another word.
    """
    wanted = os.environ.get("MINILLAMA_CPU_KERNELS", "auto")
    if wanted not in _CPU_KERNELS:
        raise OptionError(f"MINILLAMA_CPU_KERNELS is {wanted!r}; expected one of {', '.join(_CPU_KERNELS)}")
    return wanted


def kernel_cache_dir() -> Path | None:
    """Folder of compiled kernels, beside JAX's compiled programs, or None."""
    folder = cache_dir()
    return None if folder is None else folder / "kernels"


def keeps_programs() -> bool:
    """Whether compiled programs are written down whole for the next process."""
    return _keeps_programs


def lock_file() -> Path | None:
    """The file that measurements lock, one a user and a machine (home folders are shared); None without a place."""
    folder = _user_cache() / "minillama"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder / f"measuring-{_platform.node() or 'here'}.lock" if os.access(folder, os.W_OK) else None


def thread_limits() -> tuple[int, int]:
    """Threads that the kernels may use for a token, and for a prompt."""
    return _limits(_threads, len(_current_affinity()))


def xla_flags() -> tuple[str, ...]:
    """The XLA flags in force, the user's and ours."""
    return tuple(os.environ.get("XLA_FLAGS", "").split())


def describe() -> Machine:
    """Look at the machine: Linux in full from /proc and /sys, other systems as far as the standard library sees."""
    total, available = _memory()
    allowed = _allowed_cores()
    return Machine(
        system=_platform.platform(),
        architecture=_platform.machine(),
        cpu=_cpu_model(),
        physical_cores=len(set(_core_ids().values())) if _core_ids() else len(allowed),
        logical_cores=os.cpu_count() or 1,
        affinity=_current_affinity(),
        instruction_sets=tuple(name for name in _INSTRUCTION_SETS if name in _cpu_flags()),
        memory_total=total,
        memory_available=available,
        python=_platform.python_version(),
    )


def models_dir() -> Path:
    """Folder of model files that a worker was sent; it may not exist yet."""
    return _user_cache() / "minillama" / "models"


def spread(cores: Sequence[int], core_ids: dict[int, tuple[int, int]], count: int, skip: int = 0) -> tuple[int, ...]:
    """Choose `count` logical processors, one of every physical core before a second of any.

    skip: how many of that order others have; where too few are left, it begins again from the start.
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


def _set_xla_flags() -> None:
    wanted = [_CURE_FLAG, _LEAN_FLAG]
    if "avx512f" in _cpu_flags():
        wanted.append(_WIDE_FLAG)
    present = os.environ.get("XLA_FLAGS", "")
    names = {flag.split("=")[0] for flag in present.split()}
    missing = [flag for flag in wanted if flag.split("=")[0] not in names]
    if not missing:
        return
    os.environ["XLA_FLAGS"] = " ".join([present, *missing]).strip()
    if backend_started():
        logger.warning(
            "JAX was used before minillama was imported, so XLA may miscompute some sums (jax-ml/jax#39103); "
            "restart and import minillama first"
        )


def _set_compile_cache() -> None:
    """Keep compiled programs between processes. Never fatal: without a writable folder there is no cache."""
    jax = sys.modules.get("jax")
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or (jax is not None and jax.config.jax_compilation_cache_dir):
        return
    mark = hashlib.sha256(" ".join([_cpu_model(), *sorted(_cpu_flags())]).encode()).hexdigest()[:12]
    folder = _user_cache() / "minillama" / f"jax-{mark}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(folder, os.W_OK):
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    if jax is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update(
            "jax_persistent_cache_min_compile_time_secs",
            float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]),
        )


def _set(name: str, value: str | int, option: str, given: str | int) -> None:
    """Set one JAX option for a JAX that is not imported yet, and for one that is but has not started."""
    jax = sys.modules.get("jax")
    if jax is not None:
        if jax.config.values[name] == value:
            return
        if backend_started():
            raise OptionError(f"{option}={given} comes too late: JAX has already started; restart and give it first")
        jax.config.update(name, value)
    os.environ[name.upper()] = str(value)


def _set_threads(threads: int, threads_batch: int, skip: int) -> None:
    """Two numbers for the kernels, and the larger one for XLA; 0 leaves a number as it is."""
    asked = ((name, number) for name, number in (("threads", threads), ("threads_batch", threads_batch)) if number)
    option = ", ".join(f"{name}={number}" for name, number in asked)
    allowed = _allowed_cores()
    if max(threads, threads_batch) > len(allowed):
        logger.warning("%s, but this process may use %d cores; using %d", option, len(allowed), len(allowed))
    wanted = [threads or _threads[0], threads_batch or _threads[1]]
    limits = _limits(wanted, len(allowed))
    chosen = spread(allowed, _core_ids(), max(limits), skip)
    bound = sys.platform == "linux"
    if (limits != thread_limits() or (bound and chosen != _current_affinity())) and backend_started():
        raise OptionError(f"{option} comes too late: JAX has already started; restart and give it first")
    _threads[:] = wanted
    if bound:
        _set_affinity(chosen)
    elif max(limits) < len(allowed):
        logger.warning(
            "%s holds for products and attention alone: %s cannot bind a process to cores", option, _platform.system()
        )


def _limits(asked: Sequence[int], cores: int) -> tuple[int, int]:
    """Of what was asked for, threads for a token and threads for a prompt."""
    token, prompt = asked
    return min(token or cores, cores), min(prompt or token or cores, cores)


def _set_affinity(chosen: tuple[int, ...]) -> None:
    """XLA starts one thread per core that the process may use, and follows nothing but this affinity."""
    if chosen != _current_affinity():
        os.sched_setaffinity(0, chosen)


@cache
def _allowed_cores() -> tuple[int, ...]:
    """The cores that this process was given, remembered from before `prepare` narrowed them."""
    return _current_affinity()


def _current_affinity() -> tuple[int, ...]:
    if sys.platform == "linux":
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


@cache
def _core_ids() -> dict[int, tuple[int, int]]:
    """Logical processor -> (package, physical core), from Linux's /sys; empty elsewhere."""
    found = {}
    for folder in Path("/sys/devices/system/cpu").glob("cpu[0-9]*"):
        try:
            package = int((folder / "topology" / "physical_package_id").read_text())
            core = int((folder / "topology" / "core_id").read_text())
        except (OSError, ValueError):
            continue
        found[int(folder.name[3:])] = (package, core)
    return found


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


def _cpu_flags() -> frozenset[str]:
    info = _cpuinfo()
    return frozenset((info.get("flags") or info.get("Features") or "").split())


def _cpu_model() -> str:
    return _cpuinfo().get("model name") or _platform.processor() or _platform.machine() or "unknown"


def _user_cache() -> Path:
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"])
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"])
    home = Path(os.path.expanduser("~"))
    return home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"


def _memory() -> tuple[int | None, int | None]:
    """Total and available bytes, lowered to the control group's limit where there is one (containers, hubs)."""
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
