"""The start of a command: it imports little before the first token, and programs are there when they are used."""

import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jaxtyping
import pytest
from tiny_models import write_tiny

from minillama import array_types
from minillama.lazy_imports import jax_packages_only

# Modules that another command or option uses.
NOT_NEEDED = (
    "minillama.engine.batching", "minillama.engine.grammar", "minillama.measure", "minillama.server", "minillama.lab",
    "minillama.convert", "minillama.random_models", "minillama.parallel.workers.leader", "tqdm", "regex", "jinja2",
    "huggingface_hub", "safetensors", "matplotlib", "jaxtyping", "minillama.tokenizer.chat.tool_calls",
)  # fmt: skip

PROGRAM = """
import sys
from minillama.cli import main
from minillama.engine.compile import executable_cache

prefetch = executable_cache.prefetch_executables
engine = []
def noted(*args):
    engine.append("minillama.engine.load" in sys.modules)
    prefetch(*args)
executable_cache.prefetch_executables = noted
assert main(sys.argv[1:]) == 0
print(engine[0], *sys.modules)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """`True` if the engine was imported before programs were fetched, and the modules after a token of `run`."""
    model = write_tiny(tmp_path_factory.mktemp("start") / "m.gguf", "llama")
    words = ["run", "-m", str(model), "-no-cnv", "-c", "256", "-p", "a b", "-n", "1"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()


@pytest.mark.parametrize("name", NOT_NEEDED)
def test_the_first_token_does_not_need(found: list[str], name: str) -> None:
    assert "minillama.engine.load" in found and "jax" in found
    assert not [module for module in found if module == name or module.startswith(f"{name}.")]


def test_programs_are_fetched_while_the_engine_is_imported(found: list[str]) -> None:
    assert found[0] == "False"


def test_annotations_are_checked_in_tests_only() -> None:
    assert array_types.Float is jaxtyping.Float
    plain = "from minillama.array_types import Float, UInt8; print(Float[str, 'B T'], UInt8[int, '_'] | None)"
    done = subprocess.run([sys.executable, "-c", plain], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "<class 'str'> int | None\n"


def install(folder: Path, name: str) -> None:
    """A package of this name, as an installer records it."""
    (folder / f"{name.replace('-', '_')}-1.0.dist-info").mkdir(parents=True)
    (folder / f"{name.replace('-', '_')}-1.0.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")


def test_jax_sees_its_own_packages_only_while_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("jax-rocm7-plugin", "other"):
        install(tmp_path, name)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with jax_packages_only():
        inside = {package.metadata["Name"] for package in metadata.distributions()}
    outside = {package.metadata["Name"] for package in metadata.distributions()}
    assert {"jax", "jax-rocm7-plugin"} <= inside and all(name.startswith("jax") for name in inside)
    assert {"jax-rocm7-plugin", "other", "numpy"} <= outside


def test_the_command_reads_the_metadata_of_jax_only() -> None:
    program = """if True:
        from importlib import metadata
        read = []
        get = metadata.Distribution.metadata.fget
        metadata.Distribution.metadata = property(lambda self: read.append(self._path.name) or get(self))
        from minillama.cli.arguments.model_from_args import prepare_machine
        prepare_machine("cpu", None)
        import jax
        print(*read)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert all(name.startswith("jax") for name in done.stdout.split())
