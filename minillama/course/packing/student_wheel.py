"""minillama's own wheel with the chosen learners' notebooks in place of all labs.

In a clone pip builds the wheel; an installed package is put together again from its files.
"""

import base64
import hashlib
import importlib.metadata
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from minillama import __version__
from minillama.atomic_file import atomic_write
from minillama.course.packing.pip_runner import PipRunner
from minillama.engine.loading.model_files import PACKAGE
from minillama.errors import ResourceError

LABS = "minillama/_labs/"
BUILD = "1student"  # of the wheel's name: it is not the wheel of a release
_OF_THE_INSTALLER = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
_OLDEST = (1980, 1, 1, 0, 0, 0)  # of a zip file

Content = tuple[str, bytes]


def write_student_wheel(folder: Path, labs: Mapping[str, Path], pip: PipRunner) -> Path:
    """Write the wheel into a folder, with these files of the labs and no others."""
    path = folder / f"minillama-{__version__}-{BUILD}-py3-none-any.whl"
    with tempfile.TemporaryDirectory() as scratch:
        contents = _built(Path(scratch), pip) if (PACKAGE.parent / "pyproject.toml").is_file() else _installed()
        _write(path, _with_labs(contents, labs))
    return path


def _built(scratch: Path, pip: PipRunner) -> Iterator[Content]:
    """The files of a wheel that pip builds of this clone."""
    for _ in pip(["wheel", "--no-deps", "--wheel-dir", str(scratch), str(PACKAGE.parent)]):
        pass
    made = sorted(scratch.glob("minillama-*.whl"))
    if not made:
        raise ResourceError(f"pip has built no wheel of {PACKAGE.parent}; run: pip wheel --no-deps {PACKAGE.parent}")
    with zipfile.ZipFile(made[0]) as archive:
        for name in archive.namelist():
            if not name.endswith(("/", ".dist-info/RECORD")):
                yield name, archive.read(name)


def _installed() -> Iterator[Content]:
    """The files of the installed package, as its wheel had them."""
    files = importlib.metadata.distribution("minillama").files
    if not files:
        raise ResourceError(
            "minillama's list of installed files is missing; run: pip install --force-reinstall minillama"
        )
    for file in files:
        if file.parts[0] == ".." or "__pycache__" in file.parts or file.name in _OF_THE_INSTALLER:
            continue
        yield file.as_posix(), Path(str(file.locate())).read_bytes()


def _with_labs(contents: Iterator[Content], labs: Mapping[str, Path]) -> Iterator[Content]:
    for name, content in contents:
        if name.endswith(".dist-info/WHEEL"):
            yield name, content.rstrip(b"\n") + f"\nBuild: {BUILD}\n".encode()
        elif not name.startswith(LABS):
            yield name, content
    for name, path in labs.items():
        yield LABS + name, path.read_bytes()


def _write(path: Path, contents: Iterator[Content]) -> None:
    """Write a wheel with its RECORD; the same files give the same bytes."""
    lines, info = [], ""
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(contents):
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{_quoted(name)},sha256={digest},{len(content)}")
            info = name.partition("/")[0] if name.partition("/")[0].endswith(".dist-info") else info
            _add(archive, name, content)
        record = f"{info}/RECORD"
        _add(archive, record, "\n".join([*lines, f"{record},,", ""]).encode())


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _OLDEST)
    entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    archive.writestr(entry, content)


def _quoted(name: str) -> str:
    return f'"{name}"' if "," in name else name
