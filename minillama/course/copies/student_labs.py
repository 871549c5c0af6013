"""The labs' notebooks to hand out: chosen by number and language, without solutions and sources."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minillama.atomic_file import atomic_write, make_folder
from minillama.errors import FormatError, OptionError, ResourceError, first_line, quoted
from minillama.text_language import ENGLISH, LANGUAGES

Notebook = dict[str, Any]
_NAME = re.compile(r"\d\d_\w+\.ipynb")
_PART = re.compile(r"(\d{1,2})(?:-(\d{1,2}))?")


def lab_names(folder: Path) -> list[str]:
    """File names of the labs in a folder, in order."""
    return sorted(path.name for path in folder.glob("*.ipynb") if _NAME.fullmatch(path.name))


def chosen_labs(names: Sequence[str], wanted: str | None) -> list[str]:
    """Names of the labs that `wanted` lists, such as `00-06,13`; None: all.

    Raises OptionError for another form, and for a number without a lab.
    """
    if wanted is None:
        return list(names)
    there = {int(name[:2]): name for name in names}
    numbers: set[int] = set()
    for part in wanted.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise OptionError(f"--labs is {quoted(wanted)}; give numbers and ranges of labs, such as 00-06,13")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise OptionError(f"--labs has the range {part.strip()}, which ends before it begins; write {last}-{first}")
        numbers |= set(range(first, last + 1))
    if missing := sorted(numbers - set(there)):
        raise OptionError(
            f"--labs {quoted(wanted)}: no lab {missing[0]:02d}; there are {', '.join(name[:2] for name in names)}"
        )
    return [there[number] for number in sorted(numbers)]


def path_in_language(folder: Path, name: str, language: str) -> Path:
    """The notebook in a language; the English one if it is not translated."""
    translated = folder / language / name
    return translated if language != ENGLISH and translated.is_file() else folder / name


def check_empty(out: Path) -> None:
    """Check that a folder is empty or free to create; raises OptionError or ResourceError."""
    try:
        if out.is_dir():
            if any(out.iterdir()):
                raise OptionError(f"{out} is not empty; name a new folder, or empty it")
        elif out.exists() or out.is_symlink():
            raise OptionError(f"{out} is not a folder; name a new one")
    except OSError as error:
        raise ResourceError(f"cannot read {out}: {error.strerror or error}") from None


def read_notebook(path: Path) -> Notebook:
    """A notebook's content; raises FormatError or ResourceError with its path."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not a notebook ({first_line(error, limit=80)}); build it again") from None
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise FormatError(f"{path} is not a notebook: it has no list of cells; build it again")
    return content


def write_notebook(path: Path, notebook: Notebook) -> None:
    """Write a notebook in Jupyter's form, and the folders above."""
    make_folder(path.parent)
    with atomic_write(path) as file:
        file.write(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True).encode() + b"\n")


def copy_student_labs(source: Path, target: Path) -> Path:
    """Copy the notebooks of all languages to a writable folder.

    Existing files, a learner's work, stay."""
    for folder in (source, *(source / language for language in LANGUAGES)):
        for name in lab_names(folder):
            copy = target / folder.relative_to(source) / name
            if not copy.exists():
                make_folder(copy.parent)
                with atomic_write(copy) as file:
                    file.write((folder / name).read_bytes())
    return target
