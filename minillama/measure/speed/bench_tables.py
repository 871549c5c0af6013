"""Markdown tables: llama-bench's, and those of both programs side by side."""

from pathlib import Path
from statistics import median

from minillama.gguf.display_names import format_bytes, format_parameters
from minillama.measure.speed.bench_plan import Plan
from minillama.measure.speed.bench_record import Record
from minillama.measure.speed.side_by_side import Comparison, StartComparison
from minillama.measure.tables import Column
from minillama.measure.trial import Trial


def trial_of(record: Record) -> Trial:
    """The test of a record."""
    return Trial(record.n_prompt, record.n_gen, record.n_depth)


def columns(plan: Plan, backend: str, *, bandwidth: bool = False, roofline: bool = False) -> tuple[Column[Record], ...]:
    """llama-bench's columns, then shares of the bandwidth or the roofline if measured."""
    chosen = [
        *_setup_columns(plan, backend),
        Column("test", 15, lambda r: trial_of(r).name),
        Column("t/s", 20, lambda r: f"{r.avg_ts:.2f} ± {r.stddev_ts:.2f}"),
    ]
    if roofline:
        chosen += [
            Column("MB/token", 8, lambda r: _short(r.bytes_per_token, 1e6)),
            Column("MFLOP/token", 11, lambda r: _short(r.flops_per_token, 1e6)),
        ]
    if bandwidth or roofline:
        chosen.append(Column("of bandwidth", 12, lambda r: percent(r.bandwidth_share)))
    if roofline:
        chosen.append(Column("of FLOP/s", 9, lambda r: percent(r.flops_share)))
    return tuple(chosen)


def comparison_columns(plan: Plan, backend: str) -> tuple[Column[Comparison], ...]:
    """Setup, medians of both programs, ratio with its range, and shares of the memory bandwidth."""

    def of_record(column: Column[Record]) -> Column[Comparison]:
        return Column(column.heading, column.width, lambda c: column.cell(c.record), column.left)

    return (
        *(of_record(column) for column in _setup_columns(plan, backend)),
        Column("test", 15, lambda c: c.trial.name),
        Column("minillama t/s", 13, lambda c: f"{median(c.ours):.2f}"),
        Column("llama.cpp t/s", 13, lambda c: f"{median(c.theirs):.2f}"),
        Column("ratio", 5, lambda c: f"{c.ratio:.2f}"),
        Column("min - max", 11, lambda c: f"{c.spread[0]:.2f} - {c.spread[1]:.2f}"),
        Column("of bandwidth", 12, lambda c: percent(c.share(median(c.ours)))),
        Column("llama.cpp's", 11, lambda c: percent(c.share(median(c.theirs)))),
    )


def start_columns() -> tuple[Column[StartComparison], ...]:
    """Medians of time to first token and peak memory of both programs."""
    return (
        Column("file", 30, lambda s: Path(s.setup.model).name, left=True),
        Column("size", 10, lambda s: format_bytes(s.setup.model.stat().st_size)),
        Column("threads", 7, lambda s: str(s.setup.n_threads)),
        Column("first token", 11, lambda s: f"{median(life.first_text for life in s.ours):.2f} s"),
        Column("llama.cpp's", 11, lambda s: f"{median(life.first_text for life in s.theirs):.2f} s"),
        Column("ratio", 5, lambda s: f"{_start_ratio(s):.2f}"),
        Column("peak memory", 11, lambda s: format_bytes(int(median(life.peak for life in s.ours)))),
        Column("llama.cpp's", 11, lambda s: format_bytes(int(median(life.peak for life in s.theirs)))),
    )


def _start_ratio(start: StartComparison) -> float:
    return median(ours.first_text / theirs.first_text for ours, theirs in zip(start.ours, start.theirs, strict=True))


def _setup_columns(plan: Plan, backend: str) -> tuple[Column[Record], ...]:
    """The model, and the parameters that vary or differ from their default.

    The number of threads is always shown on a CPU, the number of GPU layers on other devices.
    """
    on_cpu = backend.endswith("CPU")
    usual = Plan(plan.models, plan.n_threads)
    chosen: list[Column[Record]] = [
        Column("model", 30, lambda r: r.model_type, left=True),
        Column("size", 10, lambda r: format_bytes(r.model_size)),
        Column("params", 10, lambda r: format_parameters(r.model_n_params)),
        Column("backend", 10, lambda r: r.backends, left=True),
    ]
    if not on_cpu:
        chosen.append(Column("ngl", 3, lambda r: str(r.n_gpu_layers)))
    if on_cpu or len(plan.n_threads) > 1:
        chosen.append(Column("threads", 7, lambda r: str(r.n_threads)))
    if plan.n_batch != usual.n_batch:
        chosen.append(Column("n_batch", 7, lambda r: str(r.n_batch)))
    if plan.n_ubatch != usual.n_ubatch:
        chosen.append(Column("n_ubatch", 8, lambda r: str(r.n_ubatch)))
    if plan.type_k != usual.type_k:
        chosen.append(Column("type_k", 6, lambda r: r.type_k))
    if plan.type_v != usual.type_v:
        chosen.append(Column("type_v", 6, lambda r: r.type_v))
    if plan.load_mode != usual.load_mode:
        chosen.append(Column("lm", 10, lambda r: r.load_mode))
    return tuple(chosen)


def percent(share: float | None) -> str:
    """A share as a percentage; empty for None."""
    return "" if share is None else f"{100 * share:.0f} %"


def md_foot(record: Record) -> str:
    """The build, and the limits of the machine if measured."""
    limits = f"\nmemory: {record.memory_bandwidth / 1e9:.1f} GB/s read" if record.memory_bandwidth else ""
    if record.peak_flops and record.memory_bandwidth:
        ridge = record.peak_flops / record.memory_bandwidth
        limits += f"; products: {record.peak_flops / 1e9:.0f} GFLOP/s; they meet at {ridge:.1f} FLOP per byte"
    return f"\nbuild: {record.build_commit}{limits}\n"


def _short(value: float | None, unit: float) -> str:
    """A number with at least three digits; empty for None."""
    if value is None:
        return ""
    number = value / unit
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"
