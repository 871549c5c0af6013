"""The labs of a pack: the learners' notebooks, in all languages, and the models."""

import re
from collections.abc import Sequence
from pathlib import Path

from minillama.engine.loading.model_files import BUILTIN_MODELS, data_file, shards
from minillama.errors import OptionError, quoted
from minillama.text_language import CHINESE

_PART = re.compile(r"(\d{1,2})(?:-(\d{1,2}))?")


def chosen_numbers(text: str, known: Sequence[str]) -> list[str]:
    """The labs of a list such as `00-06,9`; raises OptionError."""
    chosen: set[str] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise OptionError(f"--labs {quoted(text)}: {quoted(part)} is no lab; write numbers and ranges: 00-06,09")
        first, last = int(match[1]), int(match[2] or match[1])
        wanted = [f"{number:02}" for number in range(first, last + 1)]
        unknown = [number for number in wanted if number not in known]
        if unknown or not wanted:
            named = f"there is no lab {unknown[0]}" if unknown else "the range is empty"
            raise OptionError(f"--labs {quoted(text)}: {named}; the labs are {known[0]} to {known[-1]}")
        chosen.update(wanted)
    return sorted(chosen)


def lab_numbers(folder: Path) -> list[str]:
    """Numbers of the labs of a folder, in order."""
    return sorted(path.name[:2] for path in folder.glob("[0-9][0-9]_*.ipynb"))


def student_files(folder: Path, numbers: Sequence[str]) -> dict[str, Path]:
    """Learners' notebooks and images of these labs, by their names in the pack.

    Solutions, sources and catalogues are left out.
    """
    found = [
        path
        for notebooks in (folder, folder / CHINESE)
        for number in numbers
        for path in sorted(notebooks.glob(f"{number}_*.ipynb"))
    ]
    found += sorted(path for path in (folder / "images").glob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found}


def model_files(others: Sequence[Path]) -> dict[str, Path]:
    """Built-in models and those of --model, with all parts, by name."""
    found = {name: data_file(name) for name in sorted(set(BUILTIN_MODELS.values()))}
    for given in others:
        for name in shards(given.name):
            path = given.with_name(name)
            _check_model(path)
            if name in found and not path.samefile(found[name]):
                raise OptionError(f"--model {path}: the pack has a model {name} already; rename the file")
            found[name] = path
    return found


def _check_model(path: Path) -> None:
    if not path.is_file():
        raise OptionError(f"--model {path}: no such file; name a GGUF file")
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise OptionError(f"--model {path}: {error.strerror or error}; name a GGUF file that you may read") from None
    if start != b"GGUF":
        raise OptionError(f"--model {path}: it begins with {quoted(start)}, not with GGUF; name a GGUF file")
