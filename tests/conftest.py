"""What every test runs under: strict JAX, run-time checked shapes, and no network or user settings leaking in."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from devices import Check, process_with_devices

ROOT = Path(__file__).resolve().parents[1]

# Before JAX is imported anywhere; environment variables, so that processes started by tests are strict as well.
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Tests compile much and compute little: LLVM optimises less, which saves a quarter of the time on a fresh clone. An
# empty XLA_FLAGS has it optimise as for users.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
for name in [name for name in os.environ if name.startswith("LLAMA_ARG_")]:
    del os.environ[name]

from hypothesis import HealthCheck, settings  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# Every room that handles arrays; the command line has none, and names types there that it imports only when it runs.
ROOMS = ("env", "gguf", "tokenizer", "kernels", "model", "sampling", "parallel", "engine", "measure", "lab")
install_import_hook([f"minillama.{room}" for room in ROOMS], "beartype.beartype")
import minillama  # noqa: E402, F401  (env.prepare() sets the XLA flags here)
from minillama.kernels.native import instruction_set  # noqa: E402

settings.register_profile("here", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("here"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder of files and numbers made by llama.cpp itself; a user's clone does not have it."""
    folder = ROOT.parent / "shared" / "reference"
    if not folder.is_dir():
        pytest.skip("llama.cpp's reference files are not here")
    return folder


@pytest.fixture(scope="session")
def builtin_model() -> Path:
    """The storyteller that comes with minillama."""
    path = ROOT / "data" / "storyteller-q8_0.gguf"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


@pytest.fixture(scope="module")
def apart() -> Iterator[Check]:
    """Run a function in a process with four devices."""
    with process_with_devices() as run:
        yield run


@pytest.fixture(scope="module")
def rounded_to_8_bits() -> Iterator[Check]:
    """Run a function where kernels round activations to 8 bits, as llama.cpp's did for the recorded numbers; tiles
    (AMX) round them less."""
    if instruction_set() == "amx":
        with process_with_devices("avx512") as run:
            yield run
    else:
        yield lambda check, *arguments: check(*arguments)


@pytest.fixture(scope="module")
def without_kernels() -> Iterator[Check]:
    """The same where XLA multiplies, as it does on GPUs."""
    with process_with_devices("off") as run:
        yield run
