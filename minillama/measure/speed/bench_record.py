"""One benchmark result: llama-bench's fields in its order, then minillama's own."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, kw_only=True)
class Record:
    """A measured test.

    Names that end in _ns are in nanoseconds; sizes are in bytes, speeds in tokens per second.
    `avg` and `stddev` are the mean and the sample standard deviation over the repetitions. None marks fields of
    llama.cpp that minillama does not have.
    """

    build_commit: str
    build_number: int | None = None
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
    cpu_mask: str = "0x0"
    cpu_strict: bool = False
    poll: int | None = None
    type_k: str
    type_v: str
    n_gpu_layers: int
    n_cpu_moe: int = 0
    split_mode: str | None = None
    main_gpu: int | None = None
    no_kv_offload: bool = False
    flash_attn: int = -1  # llama-bench's number for auto
    devices: str = "auto"
    tensor_split: str | None = None
    tensor_buft_overrides: str = "none"
    load_mode: str = "auto"
    lazy_mode: str | None = None
    embeddings: bool = False
    no_op_offload: int | None = None
    no_host: bool | None = None
    repack: bool = False  # weights stay as they are in the file
    fit_target: int | None = None
    fit_min_ctx: int | None = None
    n_prompt: int
    n_gen: int
    n_depth: int
    test_time: str  # start time, UTC
    avg_ns: int
    stddev_ns: int
    avg_ts: float
    stddev_ts: float
    samples_ns: tuple[int, ...]
    samples_ts: tuple[float, ...]
    load_seconds: float  # this and the next field are not part of the measured times
    compile_seconds: float
    other_load: float | None = None  # share of all cores that other processes used during the test
    bytes_per_token: float | None = None  # read from memory, by formula
    flops_per_token: float | None = None  # floating-point operations, by formula, including attention
    gflops: float | None = None  # per second: flops_per_token x avg_ts / 1e9
    memory_bandwidth: float | None = None  # bytes per second, if measured
    bandwidth_share: float | None = None  # bytes_per_token x avg_ts / memory_bandwidth
    peak_flops: float | None = None  # operations per second of a prompt-sized matmul, if measured
    flops_share: float | None = None  # flops_per_token x avg_ts / peak_flops

    def as_dict(self) -> dict[str, object]:
        """Plain values for `json.dumps`."""
        return asdict(self)


ARRAYS = ("samples_ns", "samples_ts")  # in JSON only, as in llama-bench
NAMES = tuple(field.name for field in fields(Record))
LLAMA_BENCH_FIELDS = NAMES[: NAMES.index("samples_ns")]  # llama-bench's columns in CSV and SQL
MINILLAMA_FIELDS = NAMES[NAMES.index("load_seconds") :]


def from_json(values: Mapping[str, object]) -> Record:
    """Read a record from the plain values of `as_dict`; raises ValueError for a missing field."""
    missing = [name for name in NAMES if name not in values]
    if missing:
        raise ValueError(f"the result has no {missing[0]}")
    lists = {name: tuple(values[name]) for name in ARRAYS}  # type: ignore[arg-type]
    return Record(**{name: values[name] for name in NAMES} | lists)  # type: ignore[arg-type]
