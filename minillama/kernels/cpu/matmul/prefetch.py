"""Software prefetch of the weights that a GEMM kernel unpacks next."""

from dataclasses import dataclass

from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.simd import Value, if_, prefetch, select

CACHE_LINE = 64  # bytes


@dataclass(frozen=True)
class RowChunk:
    """The part of a row that is unpacked at a time."""

    weights: int
    bytes: int  # in the file


@dataclass(frozen=True)
class Prefetch:
    """Software prefetch of a chunk of some rows, spread over `steps` iterations.

    The CPU tracks few outstanding cache misses, so that each iteration issues only its share.
    """

    start: Value  # address of the first row's chunk
    row_bytes: Value
    rows: int
    chunk_bytes: int
    steps: int
    enabled: Value  # a bit; only the first panel of tokens prefetches

    def issue(self, step: Value) -> None:
        """Prefetch the cache lines of one step."""
        lines = -(-self.chunk_bytes // CACHE_LINE)
        lines_per_step = -(-self.rows * lines // self.steps)
        with if_(self.enabled):
            for i in range(lines_per_step):
                line = step * lines_per_step + i
                prefetch(self.start + line // lines * self.row_bytes + line % lines * CACHE_LINE)


def next_chunk(args: MatmulArgs, chunk: RowChunk, row: Value, k: Value, unpacked_rows: Value) -> Value:
    """Address of the chunk after that of a row at weight k.

    After the last chunk of the row it is the first chunk of the row that is `unpacked_rows` further on.
    """
    next_rows = args.row_bytes * unpacked_rows
    offset = select(k + chunk.weights < args.width, k // chunk.weights * chunk.bytes + chunk.bytes, next_rows)
    return args.weights + row * args.row_bytes + offset
