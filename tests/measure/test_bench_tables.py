"""Tables of llama-bench."""

from dataclasses import replace
from pathlib import Path

from bench_example import RECORD

from minillama.measure.speed.bench_plan import Plan
from minillama.measure.speed.bench_tables import columns
from minillama.measure.tables import md_head, md_row


def test_table_is_that_of_llama_bench() -> None:
    """llama-bench's output on a tiny model equals our table of the same numbers."""
    expected = """\
| model                          |       size |     params | backend    | threads | type_k |            test |                  t/s |
| ------------------------------ | ---------: | ---------: | ---------- | ------: | -----: | --------------: | -------------------: |
| llama ?B all F32               |   5.50 MiB |     1.44 M | CPU        |       1 |   q8_0 |             pp8 |   14111.19 ± 5336.93 |
| llama ?B all F32               |   5.50 MiB |     1.44 M | CPU        |       1 |   q8_0 |       tg2 @ d16 |     6941.78 ± 638.33 |
| llama ?B all F32               |   5.50 MiB |     1.44 M | CPU        |       1 |   q8_0 |         pp8+tg2 |      14355.38 ± 0.00 |
"""  # noqa: E501
    table = columns(Plan((Path("m"),), (1,), type_k=("q8_0",)), "CPU")
    rows = [
        replace(RECORD, type_k="q8_0"),
        replace(RECORD, type_k="q8_0", n_prompt=0, n_gen=2, n_depth=16, avg_ts=6941.78, stddev_ts=638.33),
        replace(RECORD, type_k="q8_0", n_gen=2, avg_ts=14355.38, stddev_ts=0.0),
    ]
    assert md_head(table) + "".join(md_row(table, row) for row in rows) == expected


def test_columns_appear_with_what_varies() -> None:
    def headings(plan: Plan, backend: str) -> list[str]:
        return [column.heading for column in columns(plan, backend)][4:-2]

    one = (Path("m"),)
    assert headings(Plan(one, (2,)), "JAX CPU") == ["threads"]
    assert headings(Plan(one, (2,)), "JAX GPU") == ["ngl"]
    assert headings(Plan(one, (1, 2)), "JAX GPU") == ["ngl", "threads"]
    everything = Plan(one, (1,), (-1,), (64,), (512, 64), ("f32",), ("f16", "f32"), ("none", "mmap"))
    assert headings(everything, "JAX CPU") == ["threads", "n_batch", "n_ubatch", "type_k", "type_v", "lm"]
    assert [column.heading for column in columns(everything, "JAX CPU", bandwidth=True)][-1] == "of bandwidth"
    roofs = ["MB/token", "MFLOP/token", "of bandwidth", "of FLOP/s"]
    assert [column.heading for column in columns(everything, "JAX CPU", roofline=True)][-4:] == roofs
