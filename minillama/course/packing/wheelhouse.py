"""A folder of wheels for this platform and Python, and its lock file."""

import hashlib
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from minillama.course.packing.pip_runner import PipRunner
from minillama.errors import ResourceError

LOCK = "requirements.lock"
CHUNK = 1 << 20
Line = Callable[[str], None]


def fill_wheelhouse(folder: Path, wheel: Path, pip: PipRunner, progress: Line = lambda line: None) -> list[Path]:
    """Download the wheels that a wheel and its labs need into the folder with it.

    progress: called with a line for each package that pip looks for. Raises ResourceError.
    """
    arguments = ["download", "--only-binary=:all:", "--dest", str(folder), f"{wheel}[labs]"]
    for line in pip(arguments):
        if line.startswith(("Collecting ", "Downloading ", "Processing ")):
            progress(line)
    found = sorted(folder.iterdir())
    strangers = [path.name for path in found if path.suffix != ".whl"]
    if strangers:
        raise ResourceError(f"pip has put {strangers[0]} into {folder}; expected wheels only")
    return found


def lock_text(wheels: list[Path]) -> str:
    """Lines of requirements with the version and hash of every wheel."""
    head = (
        f"# {this_python()} on {this_platform()}; pip install --no-index --find-links wheels --require-hashes -r {LOCK}"
    )
    return "\n".join([head, *sorted(map(_lock_line, wheels), key=str.lower)]) + "\n"


def _lock_line(wheel: Path) -> str:
    name, version = wheel.name.split("-")[:2]
    return f"{name.replace('_', '-')}=={version} --hash=sha256:{sha256(wheel)}"


def sha256(path: Path) -> str:
    """The hash of a file's content."""
    digest = hashlib.sha256()
    for chunk in chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def chunks(path: Path) -> Iterator[bytes]:
    """The content of a file, in pieces."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def size_text(size: int) -> str:
    """A number of bytes for a reader: `7 MB`, `1.2 GB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(size / 1e6, 0.1):.{0 if size >= 1e7 else 1}f} MB"


def this_python() -> str:
    """The Python that the wheels fit, such as `CPython 3.11`."""
    return f"{platform.python_implementation()} {sys.version_info.major}.{sys.version_info.minor}"


def this_platform() -> str:
    """The system and machine that the wheels fit, such as `Linux x86_64`."""
    return f"{platform.system()} {platform.machine()}"


def free_bytes(folder: Path) -> int:
    """Free bytes where a folder is, or will be."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(there).free
