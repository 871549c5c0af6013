"""Markdown tables of latency and memory usage."""

from collections.abc import Sequence

from minillama.engine.memory_usage import Usage
from minillama.gguf.display_names import format_bytes
from minillama.measure.speed.latency import PERCENTILES, ColdStart, Latency, percentiles
from minillama.measure.tables import Column, md_table


def cold_table(found: Sequence[ColdStart]) -> str:
    """Time to first token of a fresh process, by phase, in milliseconds."""
    parts = ("start", "load", "compile", "prompt", "first_step", "total")
    return md_table(
        [
            Column("cold, ms", 12, lambda c: f"{c.prompt_tokens} tokens"),
            *(Column(part.replace("_", " "), 10, lambda c, part=part: _ms(getattr(c, part))) for part in parts),
        ],
        found,
    )


def warm_table(found: Sequence[Latency]) -> str:
    """Percentiles of time to first token, time between tokens and total time, in milliseconds."""
    headings = {"first_token": "first token", "prompt": "its prompt", "first_step": "its step", "total": "total"}
    medians = [
        Column(heading, 11, lambda w, name=name: _ms(percentiles(getattr(w, name))[0]))
        for name, heading in headings.items()
    ]
    between = [
        Column(f"next p{p}", 9, lambda w, i=i: _ms(percentiles(w.between)[i]) if w.between else "")
        for i, p in enumerate(PERCENTILES)
    ]
    size = Column("warm, ms (medians)", 18, lambda w: f"{w.prompt_tokens} + {w.generated_tokens} tokens")
    return md_table([size, *medians[:3], *between, medians[3]], found)


def usage_table(usage: Usage) -> str:
    """Memory by formula, next to the memory in use."""
    rows = [
        ("weights", usage.weights, usage.weights_held),
        ("key/value cache", usage.cache, usage.cache_held),
        ("compute buffers", usage.compute, usage.compute_held),
        ("process, resident", None, usage.resident),
        ("  of it files", None, usage.resident_file),
        ("process, peak", None, usage.peak),
        ("device, in use", None, usage.device_in_use),
        ("device, peak", None, usage.device_peak),
    ]
    shown = [row for row in rows if row[1] is not None or row[2] is not None]
    return md_table(
        [
            Column("memory", 18, lambda r: r[0], left=True),
            Column("by formula", 11, lambda r: _size(r[1])),
            Column("held", 11, lambda r: _size(r[2])),
        ],
        shown,
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"


def _size(size: int | None) -> str:
    return "" if size is None else format_bytes(size)
