"""A learner's own model in a lab: its file, and counts that fit its size.

The first code cell of a lab has `MODEL = None`, or the path of the learner's GGUF file in its place. None is the model
that the lab was written with: the storyteller, or another that comes with minillama.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Unpack

import minillama as ml
from minillama.engine.llm import LLM
from minillama.engine.load_options import LoadKeywords
from minillama.engine.loading.model_files import BUILTIN_MODELS, data_file, resolve
from minillama.errors import MinillamaError, first_line, quoted
from minillama.lab.language import translate
from minillama.measure.limits.work_per_token import weight_bytes

LARGEST_OF_LABS = 80e6  # bytes of weights: the models of the labs have at most as many, and keep all counts
BANDWIDTH = 8e9  # bytes a second that two cores of a small machine read
SHARED = 8  # tokens of a pass that take the time of one at most, because arithmetic is then the limit
MAGIC = b"GGUF"


class ChosenModelError(MinillamaError):
    """A MODEL that is no model; IPython shows its one line."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def model_file(model: str | Path | None, otherwise: Callable[[], Path] | None = None) -> Path:
    """The file of a notebook's MODEL.

    model: a path, the name of a built-in model, or None. otherwise: makes the file for None; without it that is the
    storyteller. Raises ChosenModelError, one line, if there is no such file or it is not a GGUF file.
    """
    if model is None:
        return resolve() if otherwise is None else otherwise()
    if not isinstance(model, str | os.PathLike) or not str(model).strip():
        raise ChosenModelError(
            translate("MODEL is {model}; write the path of a GGUF file in quotes, or None", model=quoted(model))
        )
    path = Path(model).expanduser()
    if path.is_dir():
        raise ChosenModelError(_a_folder(path))
    if not path.is_file():
        if str(model) in BUILTIN_MODELS:
            return data_file(BUILTIN_MODELS[str(model)])
        raise ChosenModelError(
            translate(
                "MODEL is {model}, and there is no such file (paths begin at {folder}); correct it, or write None",
                model=quoted(str(model)), folder=Path.cwd(),
            )
        )  # fmt: skip
    if (found := _first_bytes(path)) != MAGIC:
        raise ChosenModelError(
            translate(
                "MODEL is {model}, which is not a GGUF file: it begins with {found}; name a file that ends in .gguf",
                model=quoted(str(model)), found=found,
            )
        )  # fmt: skip
    return path


def lab_model(
    model: str | Path | None, otherwise: Callable[[], Path] | None = None, **options: Unpack[LoadKeywords]
) -> LLM:
    """Load a notebook's MODEL, without a progress bar.

    model, otherwise: as for `model_file`. options: those of `minillama.load`.
    Raises ChosenModelError, one line, for a MODEL that cannot be loaded.
    """
    path = model_file(model, otherwise)
    try:
        return ml.load(path, **{"progress": False, **options})  # type: ignore[arg-type]
    except MinillamaError as error:
        if model is None:
            raise
        text = translate("MODEL is {model}: {error}", model=quoted(str(model)), error=first_line(error))
        raise ChosenModelError(text) from None


def model_name(model: str | Path | None, built_in: str = "storyteller") -> str:
    """A short name for figures and records: that of the file, or `built_in` for None."""
    if model is None:
        return built_in
    stem = Path(model).name.removesuffix(".gguf")
    return stem if len(stem) <= 24 else f"{stem[:23]}…"


def token_seconds(llm: LLM, rows: int = 1) -> float:
    """Estimated seconds of a token: bytes of weights over 8 GB/s.

    rows: tokens of a pass. Up to eight share the time of reading; more are bound by arithmetic. Nothing is measured, so
    that a notebook has the same counts in each run.
    """
    return weight_bytes(llm.file, llm.config) / BANDWIDTH / min(max(rows, 1), SHARED)


def scaled(count: int, llm: LLM, tokens: float, *, rows: int = 1, seconds: float = 60.0, least: int = 1) -> int:
    """As many of `count` samples as the model computes in `seconds`, at least `least`.

    min(count, max(least, floor(seconds / (tokens * token_seconds)))) with token_seconds = bytes of weights / 8 GB/s /
    min(rows, 8). Models of at most 80 MB, as those of the labs, keep `count`: 0.5 billion weights in Q8_0 take 66 ms.
    tokens: of one sample. rows: tokens of a pass, 1 for generated texts.
    """
    if weight_bytes(llm.file, llm.config) <= LARGEST_OF_LABS:
        return count
    return min(count, max(least, int(seconds / (tokens * token_seconds(llm, rows)))))


def _a_folder(path: Path) -> str:
    shown, files = quoted(str(path)), sorted(path.glob("*.gguf"))
    if files:
        return translate("MODEL is {model}, a folder; name a file in it, such as {file}", model=shown, file=files[0])
    return translate(
        "MODEL is {model}, a folder without a GGUF file; make one with: minillama convert {path}",
        model=shown,
        path=path,
    )


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC))
    except OSError as error:
        raise ChosenModelError(
            translate("MODEL is {model}: {error}", model=quoted(str(path)), error=error.strerror)
        ) from None
