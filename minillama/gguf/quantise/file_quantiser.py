"""Quantise a GGUF file: read rows, quantise them on all cores, write them in order."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from minillama import env
from minillama.atomic_file import atomic_write, check_room
from minillama.errors import FormatError, OptionError, UnsupportedError
from minillama.gguf.header_writer import alignment_of, header_bytes, padded_size
from minillama.gguf.imatrix_file import ImportanceMatrix
from minillama.gguf.quantisation_mixes import Mix
from minillama.gguf.quantise.quantise_plan import QuantiseOptions, QuantisePlan, QuantiseStep, plan_file
from minillama.gguf.quantise.row_quantiser import quantise_rows
from minillama.gguf.reader import GGUF, Tensor, dequantize, open_gguf

Progress = Callable[[QuantiseStep, int], None]  # (the tensor, number of its weights that were just written)

# Weights of one chunk of work: few enough for a core's cache, enough to make Python's overhead small.
CHUNK_WEIGHTS = 2**17


@dataclass(frozen=True, eq=False)
class QuantiseReport:
    """Result of a run: the file and its plan; `bits` per weight, without metadata."""

    path: Path
    plan: QuantisePlan

    @property
    def bits(self) -> float:
        return 8 * self.plan.bytes_after / self.plan.parameters


@dataclass(frozen=True)
class _RowChunk:
    """Rows `start` to `end` of a tensor as a matrix, all of one expert."""

    step: QuantiseStep
    start: int
    end: int
    importance: np.ndarray | None


def quantise_file(
    source: str | Path,
    target: str | Path,
    mix: Mix | None,
    options: QuantiseOptions = QuantiseOptions(),  # noqa: B008  (frozen)
    progress: Progress | None = None,
) -> QuantiseReport:
    """Quantise the matrices of `source` as the mix says and write `target`; None copies.

    A split model becomes one file. An existing target is replaced at the end; after an error or Ctrl-C it is unchanged.
    Memory: a few MB for each thread. Raises the errors of `open_gguf` and `plan_file`, OptionError (source and target
    are the same), FormatError (weights that are not finite or too large), ResourceError (no space, not writable).
    """
    source, target = Path(source), Path(target)
    file = open_gguf(source)
    plan = plan_file(file, mix, options)
    _check_target(file, target, plan)
    with atomic_write(target) as out:
        _write(out, file, plan, options, progress or (lambda step, count: None))
    return QuantiseReport(target, plan)


def _check_target(file: GGUF, target: Path, plan: QuantisePlan) -> None:
    for part in file.mapped:
        if target.exists() and target.samefile(part):
            raise OptionError(f"{target} is the source file; name another target")
    check_room(target, plan.bytes_after)


def _write(out: BinaryIO, file: GGUF, plan: QuantisePlan, options: QuantiseOptions, progress: Progress) -> None:
    alignment = alignment_of(plan.metadata)
    out.write(header_bytes(plan.metadata, plan.kinds, [step.target for step in plan.steps]))
    threads = options.threads or env.thread_limits()[1]
    with ThreadPoolExecutor(threads, "quantise") as pool:
        waiting: deque[tuple[_RowChunk, Future[np.ndarray]]] = deque()

        def finish() -> None:
            chunk, future = waiting.popleft()
            tensor, rows = chunk.step.source, future.result()
            out.write(memoryview(rows).cast("B"))
            progress(chunk.step, (chunk.end - chunk.start) * tensor.shape[-1])
            if chunk.end == _as_matrix(tensor).shape[0]:
                size = chunk.step.target.nbytes
                out.write(b"\0" * (padded_size(size, alignment) - size))

        try:
            for chunk in _row_chunks(file, plan, options.importance):
                waiting.append((chunk, pool.submit(_quantise_chunk, chunk)))
                if len(waiting) > 2 * threads:
                    finish()
            while waiting:
                finish()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _row_chunks(file: GGUF, plan: QuantisePlan, importance: ImportanceMatrix | None) -> Iterator[_RowChunk]:
    for step in plan.steps:
        file.check_unchanged()
        tensor = step.source
        rows, row = _as_matrix(tensor).shape[0], tensor.shape[-1]
        per_expert = tensor.shape[-2] if len(tensor.shape) > 2 else rows
        importances = None if step.copied else _tensor_importances(tensor, importance)
        count = max(1, CHUNK_WEIGHTS // row)
        for first in range(0, rows, per_expert):
            part = None if importances is None else importances[first // per_expert]
            for start in range(first, first + per_expert, count):
                yield _RowChunk(step, start, min(start + count, first + per_expert), part)


def _tensor_importances(tensor: Tensor, importance: ImportanceMatrix | None) -> np.ndarray | None:
    """Importances of a tensor as [experts, columns]; None if it has none."""
    values = importance.entries.get(tensor.name) if importance else None
    if values is None:
        return None
    row = tensor.shape[-1]
    experts = math.prod(tensor.shape[:-2])
    if values.size != experts * row:
        if tensor.name == "token_embd.weight":  # some imatrix files include it by mistake
            return None
        raise FormatError(
            f"{importance.file if importance else ''} has {values.size} importances for {tensor.name}, not "
            f"{experts * row}; compute the matrix with this model"
        )
    return values.reshape(experts, row).astype(np.float32)


def _quantise_chunk(chunk: _RowChunk) -> np.ndarray:
    """Bytes of a chunk, uint8 [rows, bytes of a row]; runs on a thread."""
    tensor, kind = chunk.step.source, chunk.step.target.type
    raw = _as_matrix(tensor)[chunk.start : chunk.end]
    try:
        weights = dequantize(replace(tensor, data=raw, shape=(len(raw), tensor.shape[-1])))
    except UnsupportedError:
        if chunk.step.copied:
            return raw
        raise
    odd = np.argwhere(~np.isfinite(weights))
    if odd.size:
        row, column = odd[0]
        raise FormatError(
            f"{tensor.name} has {weights[row, column]} at column {column} of row {chunk.start + row}; "
            "the model is damaged"
        )
    if chunk.step.copied:
        return raw
    try:
        return quantise_rows(weights, kind, chunk.importance)
    except FormatError as error:
        raise FormatError(f"{tensor.name}: {error}; keep it with --tensor-type {tensor.name}=f32") from error


def _as_matrix(tensor: Tensor) -> np.ndarray:
    return tensor.data.reshape(-1, tensor.data.shape[-1])
