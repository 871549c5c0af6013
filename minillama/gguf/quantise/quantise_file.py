"""Quantise a GGUF file: read rows, round them on all cores, write them in order."""

import math
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from minillama import env
from minillama.errors import FormatError, OptionError, ResourceError, UnsupportedError
from minillama.gguf.header_writer import alignment_of, header, padded, replacing
from minillama.gguf.imatrix_file import Importance
from minillama.gguf.quantisation_mixes import Mix
from minillama.gguf.quantise.quantise_rows import quantise_rows
from minillama.gguf.quantise.tensor_types import Options, Plan, Step, plan_file
from minillama.gguf.reader import GGUF, Tensor, dequantize, open_gguf

Progress = Callable[[Step, int], None]  # (the tensor, how many of its weights were just written)

# Weights of one piece of work: few enough to stay in a core's cache, enough to make Python's part small.
PIECE = 2**17


@dataclass(frozen=True, eq=False)
class Report:
    """What was written: `bits` are those of a weight, metadata not counted."""

    path: Path
    plan: Plan

    @property
    def bits(self) -> float:
        return 8 * self.plan.bytes_after / self.plan.parameters


@dataclass(frozen=True)
class _Piece:
    """Rows `start` to `end` of a tensor seen as a matrix, all of one expert."""

    step: Step
    start: int
    end: int
    importance: np.ndarray | None


def quantise_file(
    source: str | Path,
    target: str | Path,
    mix: Mix | None,
    options: Options = Options(),  # noqa: B008  (frozen)
    progress: Progress | None = None,
) -> Report:
    """Write `source` with its matrices rounded as `mix` says; None copies. A split model becomes one file.

    An existing `target` is replaced, at the very end; after an error or Ctrl-C nothing new is there. Memory: a few MB
    for each thread. Raises what `open_gguf` and `plan_file` raise, OptionError (source and target are the same),
    FormatError (weights that are not finite or too large), ResourceError (no room, not writable).
    """
    source, target = Path(source), Path(target)
    file = open_gguf(source)
    plan = plan_file(file, mix, options)
    _check_target(file, target, plan)
    with replacing(target) as out:
        _write(out, plan, options, progress or (lambda step, count: None))
    return Report(target, plan)


def _check_target(file: GGUF, target: Path, plan: Plan) -> None:
    for part in file.mapped:
        if target.exists() and target.samefile(part):
            raise OptionError(f"{target} is the file to read from; name another to write to")
    if not target.parent.is_dir():
        raise ResourceError(f"no folder {target.parent}; make it, or name another file")
    free = shutil.disk_usage(target.parent).free
    if plan.bytes_after > free:
        needed = plan.bytes_after / 2**30
        raise ResourceError(
            f"{target} takes {needed:.2f} GiB and {target.parent} has {free / 2**30:.2f} GiB free; make room"
        )


def _write(out: BinaryIO, plan: Plan, options: Options, progress: Progress) -> None:
    alignment = alignment_of(plan.metadata)
    out.write(header(plan.metadata, plan.kinds, [step.target for step in plan.steps]))
    threads = options.threads or env.thread_limits()[1]
    with ThreadPoolExecutor(threads, "quantise") as pool:
        waiting: deque[tuple[_Piece, Future[np.ndarray]]] = deque()

        def finish() -> None:
            piece, future = waiting.popleft()
            tensor, rows = piece.step.source, future.result()
            out.write(memoryview(rows).cast("B"))
            progress(piece.step, (piece.end - piece.start) * tensor.shape[-1])
            if piece.end == _matrix(tensor).shape[0]:
                size = piece.step.target.nbytes
                out.write(b"\0" * (padded(size, alignment) - size))

        try:
            for piece in _pieces(plan, options.importance):
                waiting.append((piece, pool.submit(_rounded, piece)))
                if len(waiting) > 2 * threads:
                    finish()
            while waiting:
                finish()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _pieces(plan: Plan, importance: Importance | None) -> Iterator[_Piece]:
    for step in plan.steps:
        tensor = step.source
        rows, row = _matrix(tensor).shape[0], tensor.shape[-1]
        per_expert = tensor.shape[-2] if len(tensor.shape) > 2 else rows
        important = None if step.copied else _important(tensor, importance)
        count = max(1, PIECE // row)
        for first in range(0, rows, per_expert):
            part = None if important is None else important[first // per_expert]
            for start in range(first, first + per_expert, count):
                yield _Piece(step, start, min(start + count, first + per_expert), part)


def _important(tensor: Tensor, importance: Importance | None) -> np.ndarray | None:
    """Importances of a tensor as [experts, columns]; None where there are none."""
    values = importance.entries.get(tensor.name) if importance else None
    if values is None:
        return None
    row = tensor.shape[-1]
    experts = math.prod(tensor.shape[:-2])
    if values.size != experts * row:
        if tensor.name == "token_embd.weight":  # some matrices have it by mistake
            return None
        raise FormatError(
            f"{importance.file if importance else ''} has {values.size} importances for {tensor.name}, not "
            f"{experts * row}; compute the matrix with this very model"
        )
    return values.reshape(experts, row).astype(np.float32)


def _rounded(piece: _Piece) -> np.ndarray:
    """The bytes of a piece, uint8 [rows, bytes of a row]; runs on a thread."""
    tensor, kind = piece.step.source, piece.step.target.type
    raw = _matrix(tensor)[piece.start : piece.end]
    try:
        weights = dequantize(replace(tensor, data=raw, shape=(len(raw), tensor.shape[-1])))
    except UnsupportedError:
        if piece.step.copied:
            return raw
        raise
    odd = np.argwhere(~np.isfinite(weights))
    if odd.size:
        row, column = odd[0]
        raise FormatError(
            f"{tensor.name} has {weights[row, column]} at column {column} of row {piece.start + row}; "
            "the model is damaged"
        )
    if piece.step.copied:
        return raw
    try:
        return quantise_rows(weights, kind, piece.importance)
    except FormatError as error:
        raise FormatError(f"{tensor.name}: {error}; keep it with --tensor-type {tensor.name}=f32") from error


def _matrix(tensor: Tensor) -> np.ndarray:
    return tensor.data.reshape(-1, tensor.data.shape[-1])
