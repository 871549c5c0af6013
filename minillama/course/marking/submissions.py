"""Submissions of a class: folders, notebooks or zip archives, one a learner.

Nothing outside of a submission is read: symbolic links are named and left out. Nothing here raises for one learner's
file; the reason is a note of that learner.
"""

import io
import json
import os
import stat
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from minillama.errors import FormatError, MinillamaError, OptionError, ResourceError, first_line, quoted

LARGEST = 32 << 20  # bytes of a notebook or a results file
MOST_FILES = 500  # of a submission
MOST_BYTES = 256 << 20  # of a submission
TOO_MANY = f"more than {MOST_FILES} files or {MOST_BYTES >> 20} MB; the others are left out"
SKIPPED_FOLDERS = {".ipynb_checkpoints", "__MACOSX", "__pycache__", ".git"}


@dataclass(frozen=True)
class Cell:
    """A code cell; the id is empty in notebooks of older formats."""

    id: str
    source: str


@dataclass(frozen=True)
class Notebook:
    """A notebook of a submission."""

    path: str
    cells: tuple[Cell, ...]
    lab: str  # two digits of its metadata; empty if they name no lab
    language: str


@dataclass(frozen=True)
class Submission:
    """One learner's files: names with their bytes, and notes on what was left out."""

    learner: str
    files: dict[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def notebooks(self) -> tuple[list[Notebook], list[str]]:
        """The readable notebooks, and a line for each that is not."""
        found, notes = [], []
        for path, data in sorted(self.files.items()):
            if path.endswith(".ipynb"):
                try:
                    found.append(read_notebook(path, data))
                except FormatError as error:
                    notes.append(str(error))
        return found, notes


def entries(folder: Path) -> list[Path]:
    """Folders, notebooks and zip archives of a folder; raises OptionError or ResourceError."""
    if not folder.exists():
        raise OptionError(f"no folder {folder}; name the folder that holds one submission for each learner")
    if not folder.is_dir():
        raise OptionError(f"{folder} is a file; name the folder that holds one submission for each learner")
    try:
        found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ResourceError(f"cannot read {folder}: {error.strerror}; change its permissions") from error
    found = [path for path in found if path.is_dir() or path.is_symlink() or path.suffix in (".ipynb", ".zip")]
    if not found:
        raise OptionError(f"{folder} is without submissions; put a folder, a notebook or a zip for each learner in it")
    return found


def read_submission(path: Path) -> Submission:
    """One learner's submission; what cannot be read becomes a note."""
    learner = path.name if path.is_dir() and not path.is_symlink() else path.stem
    try:
        if path.is_symlink():
            return Submission(learner, notes=(f"{path.name} is a symbolic link, which is not followed",))
        if path.is_dir():
            files, notes = _from_folder(path)
        elif path.suffix == ".zip":
            files, notes = _from_zip(path)
        else:
            files, notes = {path.name: _read(path)}, []
        return Submission(learner, files, tuple(notes))
    except MinillamaError as error:
        return Submission(learner, notes=(str(error),))
    except OSError as error:
        return Submission(learner, notes=(f"{path.name} cannot be read: {error.strerror or first_line(error)}",))


def _wanted(path: PurePosixPath) -> bool:
    """True for notebooks and results files outside of folders that tools make."""
    if SKIPPED_FOLDERS & set(path.parts[:-1]) or path.name.startswith("."):
        return False
    is_result = path.suffix == ".json" and path.parent.name == "results"
    return path.suffix == ".ipynb" or is_result


def _from_folder(root: Path) -> tuple[dict[str, bytes], list[str]]:
    files: dict[str, bytes] = {}
    notes: list[str] = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS)
        links = [name for name in (*folders, *names) if os.path.islink(os.path.join(folder, name))]
        notes += (f"{Path(folder, name).relative_to(root)} is a symbolic link, which is not followed" for name in links)
        for name in sorted(set(names) - set(links)):
            path = Path(folder, name)
            inside = PurePosixPath(path.relative_to(root).as_posix())
            if not _wanted(inside):
                continue
            if _is_full(files):
                return files, [*notes, TOO_MANY]
            try:
                files[str(inside)] = _read(path)
            except FormatError as error:
                notes.append(str(error))
            except OSError as error:
                notes.append(f"{inside} cannot be read: {error.strerror}")
    return files, notes


def _is_full(files: dict[str, bytes]) -> bool:
    return len(files) >= MOST_FILES or sum(map(len, files.values())) > MOST_BYTES


def _read(path: Path) -> bytes:
    """The bytes of a regular file; raises FormatError for others and for large ones."""
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"{path.name} is not a regular file; it is left out")
        if status.st_size > LARGEST:
            raise FormatError(
                f"{path.name} has {status.st_size >> 20} MB, more than {LARGEST >> 20}; clear its outputs"
            )
        return file.read(LARGEST)


def _from_zip(path: Path) -> tuple[dict[str, bytes], list[str]]:
    """The files of an archive; nothing is written to disk."""
    files: dict[str, bytes] = {}
    notes: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                inside = PurePosixPath(member.filename)
                if member.is_dir() or not _wanted(inside):
                    continue
                if inside.is_absolute() or ".." in inside.parts or stat.S_ISLNK(member.external_attr >> 16):
                    notes.append(f"{quoted(member.filename)} leads out of the archive; it is left out")
                    continue
                if _is_full(files):
                    notes.append(TOO_MANY)
                    break
                with archive.open(member) as file:
                    data = file.read(LARGEST + 1)
                if len(data) > LARGEST:
                    notes.append(f"{member.filename} has more than {LARGEST >> 20} MB; clear its outputs")
                else:
                    files[member.filename] = data
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, zlib.error) as error:
        raise FormatError(f"{path.name} is not a readable zip archive ({first_line(error, limit=80)})") from None
    return files, notes


def read_notebook(path: str, data: bytes) -> Notebook:
    """The code cells of a notebook; raises FormatError."""
    try:
        content = json.load(io.BytesIO(data))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON ({first_line(error, limit=80)}); hand in the .ipynb file") from None
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list):
        raise FormatError(f"{path} has no cells; hand in a notebook of format 4 (nbformat upgrades older ones)")
    metadata = content.get("metadata")
    ours = metadata.get("minillama") if isinstance(metadata, dict) else None
    ours = ours if isinstance(ours, dict) else {}
    source = PurePosixPath(str(ours.get("source", ""))).name
    return Notebook(
        path,
        tuple(cell for each in cells if (cell := _cell(each)) is not None),
        source[:2] if source[:2].isdigit() else "",
        "zh_CN" if ours.get("language") == "zh_CN" else "en",
    )


def _cell(given: object) -> Cell | None:
    """A code cell of JSON; None for other cells and for what is none."""
    if not isinstance(given, dict) or given.get("cell_type") != "code":
        return None
    source = given.get("source", "")
    text = "".join(map(str, source)) if isinstance(source, list) else str(source)
    return Cell(str(given.get("id", ""))[:64], text.replace("\r\n", "\n"))
