"""The labs of a pack: the learners' notebooks, in all languages, and the models."""

from collections.abc import Sequence
from pathlib import Path

from minillama.engine.loading.model_files import BUILTIN_MODELS, data_file, shards
from minillama.errors import OptionError, quoted
from minillama.text_language import LANGUAGES


def student_files(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Learners' notebooks in all languages, and images, by their names in the pack.

    Solutions, sources and catalogues are left out.
    """
    found = [notebooks / name for notebooks in (folder, *(folder / each for each in LANGUAGES)) for name in names]
    found += sorted((folder / "images").glob("*"))
    return {path.relative_to(folder).as_posix(): path for path in found if path.is_file()}


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
