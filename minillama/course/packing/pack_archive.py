"""A pack as one file: .zip or .tar.gz."""

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from minillama.atomic_file import atomic_write

KINDS = ("tar.gz", "zip")
_PACKED = {".whl", ".gguf", ".png"}  # compressed already, or not to be compressed


def archive_path(folder: Path, kind: str) -> Path:
    """Path of the archive, next to the folder."""
    return folder.with_name(f"{folder.name}.{kind}")


def write_archive(folder: Path, kind: str, progress: Callable[[int], None] = lambda size: None) -> Path:
    """Write the archive of a folder.

    progress: called with the bytes of each file that is in it.
    """
    path, files = archive_path(folder, kind), sorted(path for path in folder.rglob("*") if path.is_file())
    with atomic_write(path) as target:
        if kind == "zip":
            with zipfile.ZipFile(target, "w") as archive:
                for file in files:
                    packing = zipfile.ZIP_STORED if file.suffix in _PACKED else zipfile.ZIP_DEFLATED
                    archive.write(file, _inside(folder, file), packing)
                    progress(file.stat().st_size)
        else:
            with tarfile.open(fileobj=target, mode="w:gz", compresslevel=1) as archive:
                for file in files:
                    archive.add(file, _inside(folder, file), filter=_without_owner)
                    progress(file.stat().st_size)
    return path


def _inside(folder: Path, file: Path) -> str:
    return f"{folder.name}/{file.relative_to(folder).as_posix()}"


def _without_owner(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
