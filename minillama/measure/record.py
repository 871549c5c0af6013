"""One result, with llama-bench's names for its fields; minillama's own come last."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class Record:
    """A measured test. Times in nanoseconds where the name says so, sizes in bytes, speeds in tokens a second.

    `avg` and `stddev` are the mean and the sample standard deviation over the repetitions.
    """

    build_commit: str
    cpu_info: str
    gpu_info: str
    backends: str
    model_filename: str
    model_type: str
    model_size: int
    model_n_params: int
    n_batch: int
    n_ubatch: int
    n_threads: int
    type_k: str
    type_v: str
    n_gpu_layers: int
    n_prompt: int
    n_gen: int
    n_depth: int
    test_time: str  # when it began, UTC
    avg_ns: int
    stddev_ns: int
    avg_ts: float
    stddev_ts: float
    samples_ns: tuple[int, ...]
    samples_ts: tuple[float, ...]
    load_seconds: float  # neither this nor the next is in the figures
    compile_seconds: float
    bytes_per_token: float | None = None  # of a tg test: what a decode step reads from memory, by formula
    gflops: float | None = None  # of a pp test: 2 x weights multiplied x tokens a second
    memory_bandwidth: float | None = None  # bytes a second, where it was measured
    bandwidth_share: float | None = None  # bytes_per_token x avg_ts / memory_bandwidth

    def as_dict(self) -> dict[str, object]:
        """The same as plain values, ready for `json.dumps`."""
        return asdict(self)


def from_json(values: Mapping[str, object]) -> Record:
    """The record that `as_dict` and JSON made plain values of; raises ValueError where a field is missing."""
    missing = [field.name for field in fields(Record) if field.name not in values]
    if missing:
        raise ValueError(f"the result has no {missing[0]}")
    lists = {name: tuple(values[name]) for name in ("samples_ns", "samples_ts")}  # type: ignore[arg-type]
    return Record(**{field.name: values[field.name] for field in fields(Record)} | lists)  # type: ignore[arg-type]


def mean(values: Sequence[int] | Sequence[float]) -> float:
    """The arithmetic mean."""
    return math.fsum(values) / len(values)


def deviation(values: Sequence[int] | Sequence[float]) -> float:
    """The sample standard deviation, with n - 1; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))
