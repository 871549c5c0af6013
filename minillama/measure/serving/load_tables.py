"""Markdown table of load tests: one row per server and load."""

from collections.abc import Callable
from typing import NamedTuple

from minillama.measure.serving.load_figures import LoadFigures
from minillama.measure.tables import Column


class LoadRow(NamedTuple):
    """The figures of a server under a load."""

    label: str
    load: str
    found: LoadFigures


def load_columns(labels: list[str], *, goodput: bool) -> list[Column[LoadRow]]:
    """The columns; times in milliseconds. labels: the names of all servers."""
    columns = [
        Column[LoadRow]("server", max(6, *map(len, labels)), lambda row: row.label, left=True),
        Column[LoadRow]("load", 10, lambda row: row.load),
        Column[LoadRow]("requests", 8, lambda row: str(row.found.requests)),
        Column[LoadRow]("errors", 6, lambda row: str(row.found.errors)),
        _figure("req/s", 7, 2, lambda found: found.requests_per_second),
        _figure("tok/s", 8, 1, lambda found: found.output_tokens_per_second),
        _figure("TTFT p50", 8, 1, lambda found: found.ttft_ms.p50),
        _figure("TTFT p95", 8, 1, lambda found: found.ttft_ms.p95),
        _figure("ITL p50", 7, 2, lambda found: found.itl_ms.p50),
        _figure("ITL p95", 7, 2, lambda found: found.itl_ms.p95),
        _figure("ITL p99", 7, 2, lambda found: found.itl_ms.p99),
        _figure("E2EL p50", 8, 0, lambda found: found.e2el_ms.p50),
        _figure("E2EL p95", 8, 0, lambda found: found.e2el_ms.p95),
        _figure("in flight", 9, 1, lambda found: found.in_flight),
        Column[LoadRow]("cached", 11, lambda row: f"{row.found.cached_tokens}/{row.found.prompt_tokens}"),
    ]
    return columns + ([_figure("goodput", 7, 2, lambda found: found.goodput or 0.0)] if goodput else [])


def _figure(heading: str, width: int, digits: int, value: Callable[[LoadFigures], float]) -> Column[LoadRow]:
    return Column(heading, width, lambda row: f"{value(row.found):.{digits}f}")
