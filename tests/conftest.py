"""What every test runs under: strict JAX, run-time checked shapes, and no network or user settings leaking in."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import strict_jax  # first of all, for it sets what JAX reads when it is imported
from device_processes import Check, process_with_devices
from hypothesis import HealthCheck, settings
from memory_bound import bound_memory
from recorded_kernels import RECORDED_KERNELS
from tiers import assign, is_shorter

ROOT = strict_jax.ROOT

# nbformat imports jsonschema, which compiles the grammar of Internet addresses: three seconds a process.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

# Under nohup, and in some CI runners, Ctrl-C is ignored, and child processes would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["MINILLAMA_LANG"] = "en"  # in any locale
os.environ["MINILLAMA_LOCK_FILE"] = ""  # tests do not wait for each other's measurements

settings.register_profile("here", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("here"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        assign(item)
    items.sort(key=is_shorter)


@pytest.hookimpl(trylast=True)  # after the fixtures of the module
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem is not None and nextitem.path != item.path:
        bound_memory()


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


@pytest.fixture(scope="session")
def apart() -> Iterator[Check]:
    """Run a function in a process with four devices."""
    with process_with_devices() as run:
        yield run


@pytest.fixture(scope="session")
def rounded_to_8_bits() -> Iterator[Check]:
    """Run a function where kernels round activations to 8 bits, as llama.cpp's did for the recorded numbers. XLA
    compiles as for users: without LLVM's optimisation, f32 sums differ by 1e-5."""
    with process_with_devices(RECORDED_KERNELS, optimised=True) as run:
        yield run


@pytest.fixture(scope="session")
def without_kernels() -> Iterator[Check]:
    """The same where XLA multiplies, as it does on GPUs."""
    with process_with_devices("off") as run:
        yield run
