"""A pack: wheels, models, notebooks, install scripts and a manual in one folder."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from minillama.atomic_file import atomic_write, make_folder
from minillama.course.copies.student_labs import check_empty, chosen_labs, lab_names
from minillama.course.packing.pack_labs import model_files, student_files
from minillama.course.packing.pack_texts import pack_texts
from minillama.course.packing.pip_runner import PipRunner, run_pip
from minillama.course.packing.student_wheel import write_student_wheel
from minillama.course.packing.wheelhouse import (
    LOCK,
    chunks,
    fill_wheelhouse,
    folder_size,
    free_bytes,
    lock_text,
    sha256,
    size_text,
)
from minillama.engine.loading.model_files import labs_folder
from minillama.errors import ResourceError

WHEELS_SIZE = 400_000_000  # bytes, about: 282 MB in November 2026, and room for packages that grow
SUMS = "SHA256SUMS"
STEPS = 4

Say = Callable[[str], None]


@dataclass(frozen=True)
class Pack:
    """A finished pack: its folder and the sizes of the parts."""

    folder: Path
    sizes: Mapping[str, int]

    @property
    def size(self) -> int:
        return sum(self.sizes.values())


def make_pack(
    folder: Path,
    *,
    labs: str | None = None,
    models: Sequence[Path] = (),
    pip: PipRunner = run_pip,
    say: Say = lambda line: None,
    progress: Say = lambda line: None,
) -> Pack:
    """Fill a new or empty folder; an error or Ctrl-C leaves nothing.

    labs: numbers such as `00-06,09`; None for all. models: GGUF files to add. say: called with a line before each
    part. progress: called with a line for each package. Raises MinillamaError.
    """
    notebooks = labs_folder()
    names = chosen_labs(lab_names(notebooks), labs)
    chosen, files = model_files(models), student_files(notebooks, names)
    check_empty(folder)
    _check_space(folder, sum(path.stat().st_size for path in chosen.values()))
    existed = folder.exists()
    try:
        _fill(folder, files, chosen, pip, say, progress)
    except BaseException:
        _empty(folder, remove=not existed)
        raise
    sizes = {path.name: folder_size(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    return Pack(folder, sizes)


def _fill(
    folder: Path, files: Mapping[str, Path], models: Mapping[str, Path], pip: PipRunner, say: Say, progress: Say
) -> None:
    wheels = folder / "wheels"
    make_folder(wheels)
    say(f"1 of {STEPS}: the wheel of minillama, with {_count(files)} notebooks")
    wheel = write_student_wheel(wheels, files, pip)
    say(f"2 of {STEPS}: the wheels of what it needs, about {size_text(WHEELS_SIZE)}; minutes, by the network")
    found = fill_wheelhouse(wheels, wheel, pip, progress)
    say(f"3 of {STEPS}: {len(models)} models, {size_text(sum(path.stat().st_size for path in models.values()))}")
    for name, path in models.items():
        copy_file(path, folder / "models" / name)
    for name, path in files.items():
        copy_file(path, folder / "notebooks" / name)
    _write(folder / LOCK, lock_text(found))
    say(f"4 of {STEPS}: scripts, and hashes of all files")
    for name, text in pack_texts(len(found), folder_size(folder)).items():
        _write(folder / name, text, executable=name.endswith(".sh"))
    _write(folder / SUMS, _sums(folder))


def copy_file(source: Path, target: Path) -> None:
    """Copy the content of a file, with new folders above it."""
    make_folder(target.parent)
    with atomic_write(target) as file:
        for piece in chunks(source):
            file.write(piece)


def _write(path: Path, text: str, *, executable: bool = False) -> None:
    with atomic_write(path, mode=0o755 if executable else None) as file:
        file.write(text.encode())


def _sums(folder: Path) -> str:
    """Lines for `sha256sum -c`."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return "".join(f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths)


def _count(files: Mapping[str, Path]) -> int:
    return sum(name.endswith(".ipynb") for name in files)


def _check_space(folder: Path, models: int) -> None:
    free, needed = free_bytes(folder), WHEELS_SIZE + models
    if free < needed:
        raise ResourceError(
            f"{folder} takes about {size_text(needed)}, and {size_text(free)} are free; "
            "free some space, or name another disk"
        )


def _empty(folder: Path, *, remove: bool) -> None:
    """Remove what an unfinished pack has left."""
    for path in folder.iterdir() if folder.is_dir() else ():
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if remove and folder.is_dir():
        folder.rmdir()
