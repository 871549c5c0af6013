"""Checks of the installation and the machine, each with its remedy."""

import importlib.metadata
import importlib.util
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from minillama import __version__, env
from minillama.engine.loading.model_files import labs_folder, resolve
from minillama.errors import MinillamaError, first_line
from minillama.private_files import UntrustedError, ensure_private

PACKAGES = ("jax", "jaxlib", "llvmlite", "numpy", "gguf", "tokenizers", "huggingface_hub", "jinja2")
LEAST_MEMORY = 1 << 30  # JAX and the built-in model take about a third of this


class Status(Enum):
    """The outcome of a check; only FAIL makes the exit status 1."""

    GOOD = "good"
    NOTE = "note"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Check:
    """One finding and, unless it is good, what to do."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


def examine() -> Iterator[Check]:
    """Run all checks, the quick ones first.

    An error inside one is that check's failure, not the doctor's.
    """
    for name, check in _CHECKS.items():
        try:
            yield check(name)
        except MinillamaError as error:
            yield Check(name, Status.FAIL, str(error))
        except Exception as error:
            yield Check(name, Status.FAIL, first_line(error, with_type=True))


def versions() -> dict[str, str]:
    """Installed versions of what minillama stands on."""
    found = {"minillama": __version__, "python": ".".join(map(str, sys.version_info[:3]))}
    return found | {name: _version(name) for name in PACKAGES}


def devices() -> list[dict[str, str]]:
    """JAX's devices."""
    import jax

    return [{"id": str(device.id), "platform": device.platform, "kind": device.device_kind} for device in jax.devices()]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _check_python(name: str) -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info < (3, 14):
        return Check(name, Status.GOOD, version)
    return Check(name, Status.FAIL, version, "use Python 3.11, 3.12 or 3.13")


def _check_memory(name: str) -> Check:
    available = env.describe().memory_available
    if available is None:
        return Check(name, Status.NOTE, "this system does not tell how much is free")
    detail = f"{available / 2**30:.1f} GiB free"
    if available >= LEAST_MEMORY:
        return Check(name, Status.GOOD, detail)
    return Check(name, Status.NOTE, detail, "close other programs, or choose a small model and context")


def _check_cache(name: str) -> Check:
    folder = env.cache_dir()
    remedy = "compiling is repeated in every process; set XDG_CACHE_HOME to a folder that you may write"
    if folder is None:
        return Check(name, Status.NOTE, "none: no folder was found that you, and only you, may write", remedy)
    try:
        ensure_private(folder / "programs")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except UntrustedError as error:
        return Check(name, Status.NOTE, str(error), remedy)
    except OSError as error:
        return Check(name, Status.NOTE, f"{folder}: {error.strerror}", remedy)
    size = sum(file.stat().st_size for file in folder.glob("*") if file.is_file())
    return Check(name, Status.GOOD, f"{folder} ({size / 2**20:.0f} MiB)")


def _check_devices(name: str) -> Check:
    found = devices()
    detail = ", ".join(f"{device['platform']}:{device['id']} {device['kind']}" for device in found)
    if all(device["platform"] == "cpu" for device in found) and shutil.which("nvidia-smi"):
        return Check(
            name, Status.NOTE, detail, "there is an NVIDIA driver, but JAX cannot use it: pip install 'minillama[cuda]'"
        )
    return Check(name, Status.GOOD, detail)


def _check_flags(name: str) -> Check:
    return Check(name, Status.GOOD, " ".join(env.xla_flags()) or "none")


def _check_kernels(name: str) -> Check:
    """The processor's own kernels run, without which everything is right but slow."""
    from minillama.kernels import cpu_kernels_error

    problem = cpu_kernels_error()
    if problem is None:
        from minillama.kernels.cpu.runtime.registry import chosen_isa

        token, prompt = env.thread_limits()
        return Check(name, Status.GOOD, f"{chosen_isa().value}; threads: {token} for a token, {prompt} for prompts")
    off = env.cpu_kernels() == "off"
    detail = f"{problem}; XLA multiplies in their place, several times slower"
    return Check(name, Status.NOTE, detail, "unset MINILLAMA_CPU_KERNELS" if off else "pip install llvmlite")


def _check_reductions(name: str) -> Check:
    """A sum that XLA:CPU of jax 0.10.2 fuses wrongly with a small product (jax-ml/jax#39103)."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    last = 32_768
    column = jnp.arange(last + 1, dtype=jnp.float32)
    rows = jnp.stack((column, jnp.zeros_like(column), jnp.zeros_like(column)), axis=1)
    square = jax.jit(jax.vmap(lambda row: jnp.sum((jnp.eye(3, dtype=jnp.float32) @ row) ** 2)))
    computed = np.asarray(square(rows))
    wrong = int(np.sum(computed != np.arange(last + 1, dtype=np.float32) ** 2))
    if not wrong:
        return Check(name, Status.GOOD, f"{last}² = {int(computed[-1])}")
    return Check(
        name,
        Status.FAIL,
        f"{wrong} of {last + 1} sums are wrong, as {last}² = {int(computed[-1])} in place of {last**2}",
        "import minillama before JAX is used, and take xla_cpu_experimental_ynn_fusion_type out of XLA_FLAGS",
    )


def _check_model(name: str) -> Check:
    """The built-in model answers, and greedily twice the same."""
    from minillama.engine.load import load

    started = time.perf_counter()
    llm = load(resolve(), progress=False)
    first, second = (llm.generate("Once upon a time", n=24, temp=0.0) for _ in range(2))
    seconds = time.perf_counter() - started
    if not first.text.strip() or first.tokens != second.tokens:
        return Check(
            name, Status.FAIL, f"two different answers: {first.text!r} and {second.text!r}", "please report this"
        )
    speed = second.timings.generated_per_second
    return Check(name, Status.GOOD, f"{first.text.strip()[:60]!r} ({speed:.0f} tokens/s; all in {seconds:.1f} s)")


def _check_labs(name: str) -> Check:
    missing = [
        package for package in ("jupyterlab", "ipywidgets", "plotly") if importlib.util.find_spec(package) is None
    ]
    if missing:
        return Check(name, Status.NOTE, f"{', '.join(missing)} not installed", "pip install 'minillama[labs]'")
    folder = labs_folder()
    count = len(list(Path(folder).glob("[0-9]*.ipynb")))
    return Check(name, Status.GOOD, f"{count} notebooks in {folder}; open them with: minillama lab")


_CHECKS: dict[str, Callable[[str], Check]] = {
    "Python": _check_python,
    "memory": _check_memory,
    "compile cache": _check_cache,
    "labs": _check_labs,
    "devices": _check_devices,
    "XLA flags": _check_flags,
    "kernels": _check_kernels,
    "sums": _check_reductions,
    "built-in model": _check_model,
}
