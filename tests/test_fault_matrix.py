"""Faults of the surroundings x commands, as a table: full disk, foreign caches, cold starts at once.

Each cell is a whole process. A fault of the cache never changes the output; a fault of the output is one line and
status 2, and leaves no file. The tests of workers and of the command line have the signals.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import write_tiny

from minillama.env import MINILLAMA

pytestmark = pytest.mark.slow
TEXT = "word1 word2 the tea on word3 and the one " * 20
LARGEST = 20 * 1024  # bytes of a file on the full disk; less than every output below

READERS = {
    "run": ["run", "-m", "tiny.gguf", "-n", "4", "--temp", "0", "-c", "64", "-p", "the tea", "--no-perf"],
    "perplexity": ["perplexity", "-m", "tiny.gguf", "-f", "text.txt", "-c", "64"],
}
WRITERS = {
    "quantize": ["quantize", "tiny.gguf", "out.gguf", "Q8_0"],
    "imatrix": ["imatrix", "-m", "wide.gguf", "-f", "text.txt", "-c", "64", "-o", "out.gguf"],
    "perplexity --save-all-logits": [*READERS["perplexity"], "--save-all-logits", "out.gguf"],
    "synth": ["synth", "tiny", "-o", "out.gguf"],
}


def break_nothing(cache: Path) -> None:
    cache.mkdir(mode=0o700)


def open_to_all(cache: Path) -> None:
    cache.mkdir(mode=0o700)
    cache.chmod(0o777)


def put_a_file(cache: Path) -> None:
    cache.write_text("not a folder")


def give_away(cache: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives folders away")
    cache.mkdir()
    os.chown(cache, 12345, 12345)


CACHES: dict[str, Callable[[Path], None]] = {
    "empty": break_nothing,
    "writable by all": open_to_all,
    "foreign": give_away,
    "a file": put_a_file,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny(folder / "tiny.gguf", "llama")
    write_tiny(folder / "wide.gguf", "llama", feed=3000)
    (folder / "text.txt").write_text(TEXT)
    return folder


def start(words: list[str], folder: Path, cache: Path, *, full_disk: bool = False) -> subprocess.Popen[str]:
    """A command with a cache of its own, as a user starts it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")}
    environment |= {"XDG_CACHE_HOME": str(cache), "JAX_PLATFORMS": "cpu"}
    # Not preexec_fn: it forks this process, and JAX warns of forks.
    limit = ["bash", "-c", f"trap '' XFSZ; ulimit -f {LARGEST // 1024}; exec \"$@\"", "-"] if full_disk else []
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*limit, *MINILLAMA, *words], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe,
        text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=300)
    assert "Traceback" not in errors, errors
    return process.returncode, out, errors


@pytest.fixture(scope="module")
def expected(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The outputs without a fault."""
    cache = tmp_path_factory.mktemp("cache")
    found = {name: finish(start(words, models, cache)) for name, words in READERS.items()}
    assert {name: status for name, (status, _, _) in found.items()} == dict.fromkeys(READERS, 0)
    return {name: comparable(out) for name, (_, out, _) in found.items()}


def comparable(out: str) -> str:
    """Without the lines of times."""
    return "\n".join(line for line in out.splitlines() if "second" not in line and "time" not in line)


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("fault", CACHES)
def test_caches(command: str, fault: str, models: Path, expected: dict[str, str], tmp_path: Path) -> None:
    CACHES[fault](tmp_path / "cache")
    status, out, errors = finish(start(READERS[command], models, tmp_path / "cache"))
    assert status == 0, errors
    assert comparable(out) == expected[command]
    assert max(map(len, errors.splitlines()), default=0) < 600


@pytest.mark.parametrize("command", READERS)
def test_a_cache_on_a_full_disk(command: str, models: Path, expected: dict[str, str], tmp_path: Path) -> None:
    status, out, errors = finish(start(READERS[command], models, tmp_path, full_disk=True))
    assert status == 0, errors
    assert comparable(out) == expected[command]
    unfinished = [path for path in tmp_path.rglob("*") if path.name.startswith((".", "tmp")) and path.is_file()]
    assert not unfinished


@pytest.mark.parametrize("command", READERS)
def test_cold_starts_at_once(command: str, models: Path, expected: dict[str, str], tmp_path: Path) -> None:
    """Three processes write one cache; a fourth reads what they have left."""
    processes = [start(READERS[command], models, tmp_path) for _ in range(3)]
    for process in processes:
        status, out, errors = finish(process)
        assert status == 0, errors
        assert comparable(out) == expected[command]
    status, out, errors = finish(start(READERS[command], models, tmp_path))
    assert status == 0 and comparable(out) == expected[command], errors


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("old", [None, b"the old content"], ids=["new file", "old file"])
def test_an_output_on_a_full_disk(command: str, old: bytes | None, models: Path, tmp_path: Path) -> None:
    for file in models.iterdir():
        (tmp_path / file.name).symlink_to(file)
    words = WRITERS[command]
    if old is not None:
        (tmp_path / "out.gguf").write_bytes(old)
        words = [*words, *(["--force"] if command in ("quantize", "synth", "imatrix") else [])]
    before = sorted(os.listdir(tmp_path))
    status, _, errors = finish(start(words, tmp_path, tmp_path / "cache", full_disk=True))
    wrong = [line for line in errors.splitlines() if line.startswith("minillama: error: ")]
    assert status == 2 and len(wrong) == 1, errors
    assert "cannot write" in wrong[0] and "out.gguf" in wrong[0]
    assert sorted(name for name in os.listdir(tmp_path) if name != "cache") == before
    if old is not None:
        assert (tmp_path / "out.gguf").read_bytes() == old
