"""Settings that JAX reads when it starts: XLA flags, cores, platform, compile cache, virtual devices.

Standard library only and quick to import: `import minillama` calls `prepare()` before any code can start JAX. XLA reads
these settings once, when its backend starts. A change after that raises OptionError.
"""

import hashlib
import logging
import os
import platform as _platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from minillama.errors import OptionError
from minillama.machine import (
    Machine,
    allowed_cores,
    core_ids,
    cpu_flags,
    cpu_model,
    current_affinity,
    describe,
    pick_cores,
    usable_cores,
)
from minillama.printable_text import PrintableRecords
from minillama.private_files import UntrustedError, ensure_private, warn_untrusted

__all__ = [
    "CPU_KERNELS", "MINILLAMA", "Machine", "allowed_cores", "backend_started", "cache_dir", "caches_executables",
    "cpu_kernels", "describe", "kernel_cache_dir", "lock_file", "models_dir", "own_secret_file", "prepare",
    "thread_limits", "xla_flags",
]  # fmt: skip

logger = logging.getLogger("minillama")
logger.addFilter(PrintableRecords())

MINILLAMA = (sys.executable, "-m", "minillama")  # starts the command `minillama`, installed or not

# XLA:CPU of jax 0.10.2 silently miscomputes some fused reductions (jax-ml/jax#39103). This flag is the workaround, and
# harmless with 0.12. An empty list instead of `-reduce` makes small matrix products ten times slower.
_YNN_REDUCE_FLAG = "--xla_cpu_experimental_ynn_fusion_type=-reduce"
# XLA prefers 256-bit vectors. Quantised matrix-vector products run 1.5 to 2 times faster with 512 bits.
_VECTOR_WIDTH_FLAG = "--xla_cpu_prefer_vector_width=512"
# XLA's concurrency scheduler keeps the temporaries of all layers at once: 888 MiB instead of 93 MiB for a prompt of 512
# tokens on a model of 1.2 billion weights, at the same speed.
_SCHEDULER_FLAG = "--xla_cpu_enable_concurrency_optimized_scheduler=false"

CPU_KERNELS = ("auto", "amx", "avx512", "avx-vnni", "avx2", "neon-i8mm", "neon-dotprod", "generic", "off")
_caches_executables = False
_threads = [0, 0]  # requested for a token and for a prompt; 0: all cores, and the same as for a token


def prepare(
    *,
    threads: int | None = None,
    threads_batch: int | None = None,
    platform: str | None = None,
    cpu_devices: int | None = None,
    cache_executables: bool = False,
    skip_cores: int = 0,
) -> None:
    """Apply the settings that JAX reads at its start; variables of the user are kept.

    threads: number of processor cores to compute on; None or less than 1 keeps the current choice.
    threads_batch: the same for prompts, if different. The process is bound to the larger number of cores; the smaller
    number limits matmul and attention only.
    platform: `cpu`, `cuda` or `tpu`; None lets JAX choose.
    cpu_devices: number of virtual CPU devices of JAX, to practise sharding on one machine.
    cache_executables: load complete executables that an earlier process stored, and store new ones.
    skip_cores: with `threads`, the number of cores to leave to other processes of the same group on this machine.
    Raises OptionError if JAX has already started and an option would change a setting.
    """
    global _caches_executables
    _caches_executables = _caches_executables or cache_executables
    _set_xla_flags()
    _set_pool_size()
    _set_compile_cache()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several notebooks share a GPU
    if platform is not None:
        _set("jax_platforms", platform if platform == "cpu" else f"{platform},cpu", "platform", platform)
    if cpu_devices is not None:
        if cpu_devices < 1:
            raise OptionError(f"cpu_devices is {cpu_devices}; expected 1 or more virtual devices")
        _set("jax_num_cpu_devices", cpu_devices, "cpu_devices", cpu_devices)
    if max(threads or 0, threads_batch or 0) > 0:
        _set_threads(max(threads or 0, 0), max(threads_batch or 0, 0), skip_cores)


def backend_started() -> bool:
    """True if JAX has started its backend: from then on, `prepare` cannot change a setting."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bridge.backends_are_initialized()


def cache_dir() -> Path | None:
    """Folder of JAX's compilation cache, or None.

    The default folder is specific to the user and the processor model. A program compiled for one processor may use
    instructions that another one lacks, and several machines may share a home folder.
    """
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    return Path(chosen) if chosen and "://" not in chosen else None  # such as gs://bucket


def python_path() -> str:
    """PYTHONPATH of child processes that run this minillama."""
    here = str(Path(__file__).resolve().parents[1])
    return os.pathsep.join(part for part in (here, os.environ.get("PYTHONPATH", "")) if part)


def cpu_kernels() -> str:
    """Choice of CPU kernels: `auto`, an instruction set, or `off` for XLA's own.

    Of x86: `amx`, `avx512`, `avx-vnni`, `avx2`; of ARM: `neon-i8mm`, `neon-dotprod`; of any processor: `generic`.
    Read from the environment variable MINILLAMA_CPU_KERNELS. Raises OptionError for any other value.
    """
    choice = os.environ.get("MINILLAMA_CPU_KERNELS", "auto")
    if choice not in CPU_KERNELS:
        raise OptionError(f"MINILLAMA_CPU_KERNELS is {choice!r}; expected one of {', '.join(CPU_KERNELS)}")
    return choice


def kernel_cache_dir() -> Path | None:
    """Folder of compiled kernels inside the compilation cache, or None."""
    folder = cache_dir()
    return None if folder is None else folder / "kernels"


def caches_executables() -> bool:
    """True if complete executables are stored on disk for the next process."""
    return _caches_executables


def lock_file() -> Path | None:
    """Lock file of measurements, one for all users; None without a writable folder.

    MINILLAMA_LOCK_FILE: another one; empty: none.
    """
    if (given := os.environ.get("MINILLAMA_LOCK_FILE")) is not None:
        return Path(given) if given else None
    folder = Path(tempfile.gettempdir())
    return folder / "minillama-measuring.lock" if os.access(folder, os.W_OK) else None


def thread_limits() -> tuple[int, int]:
    """Maximum number of kernel threads for a token and for a prompt."""
    return _limits(_threads, usable_cores(current_affinity()))


def xla_flags() -> tuple[str, ...]:
    """The active XLA flags: the user's and those of minillama."""
    return tuple(os.environ.get("XLA_FLAGS", "").split())


def models_dir() -> Path:
    """Folder of model files that a worker received; it may not exist yet."""
    return _user_cache() / "minillama" / "models"


def own_secret_file() -> Path:
    """File of this user's own secret for workers on loopback; it may not exist yet."""
    return _user_cache() / "minillama" / "worker-secret"


def _set_xla_flags() -> None:
    required = [_YNN_REDUCE_FLAG, _SCHEDULER_FLAG]
    if "avx512f" in cpu_flags():
        required.append(_VECTOR_WIDTH_FLAG)
    present = os.environ.get("XLA_FLAGS", "")
    names = {flag.split("=")[0] for flag in present.split()}
    missing = [flag for flag in required if flag.split("=")[0] not in names]
    if not missing:
        return
    os.environ["XLA_FLAGS"] = " ".join([present, *missing]).strip()
    if backend_started():
        logger.warning(
            "JAX was used before minillama was imported, so XLA may miscompute some sums (jax-ml/jax#39103); "
            "restart and import minillama first"
        )


def _set_pool_size() -> None:
    """Limit the threads that XLA starts to the quota; by itself it reads the affinity."""
    if (cores := usable_cores(current_affinity())) < len(current_affinity()):
        os.environ.setdefault("NPROC", str(cores))


def _set_compile_cache() -> None:
    """Set up JAX's compilation cache on disk, if there is a private, writable folder."""
    jax = sys.modules.get("jax")
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or (jax is not None and jax.config.jax_compilation_cache_dir):
        return
    mark = hashlib.sha256(" ".join([cpu_model(), *sorted(cpu_flags())]).encode()).hexdigest()[:12]
    folder = _user_cache() / "minillama" / f"jax-{mark}"
    try:
        ensure_private(folder)
    except UntrustedError as problem:
        warn_untrusted(str(problem))
        return
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
    """Set one JAX option, whether JAX is not imported yet or imported but not started."""
    jax = sys.modules.get("jax")
    if jax is not None:
        if jax.config.values[name] == value:
            return
        if backend_started():
            raise OptionError(f"{option}={given} comes too late: JAX has already started; restart and set it first")
        jax.config.update(name, value)
    os.environ[name.upper()] = str(value)


def _set_threads(threads: int, threads_batch: int, skip: int) -> None:
    """Set the kernels' two thread limits and bind XLA to the larger; 0 keeps one."""
    requested = ((name, number) for name, number in (("threads", threads), ("threads_batch", threads_batch)) if number)
    option = ", ".join(f"{name}={number}" for name, number in requested)
    allowed = allowed_cores()
    usable = usable_cores(allowed)
    if max(threads, threads_batch) > usable:
        logger.warning("%s, but this process may use %d cores; using %d", option, usable, usable)
    counts = [threads or _threads[0], threads_batch or _threads[1]]
    limits = _limits(counts, usable)
    chosen = pick_cores(allowed, core_ids(), max(limits), skip)
    bound = sys.platform == "linux"
    if (limits != thread_limits() or (bound and chosen != current_affinity())) and backend_started():
        raise OptionError(f"{option} comes too late: JAX has already started; restart and set it first")
    _threads[:] = counts
    if bound:
        _set_affinity(chosen)
    elif max(limits) < len(allowed):
        logger.warning(
            "%s limits only matmul and attention: %s cannot bind a process to cores", option, _platform.system()
        )


def _limits(requested: Sequence[int], cores: int) -> tuple[int, int]:
    """Requested threads for a token and for a prompt, limited to the number of cores."""
    token, prompt = requested
    return min(token or cores, cores), min(prompt or token or cores, cores)


def _set_affinity(chosen: tuple[int, ...]) -> None:
    """Bind the process to cores; XLA starts one thread for each core of this affinity."""
    if chosen != current_affinity():
        os.sched_setaffinity(0, chosen)


def _user_cache() -> Path:
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"])
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"])
    home = Path(os.path.expanduser("~"))
    return home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"
