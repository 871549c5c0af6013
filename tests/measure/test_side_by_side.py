"""Interleaved A/B measurement: ratios, shares and tables."""

import json
from dataclasses import replace
from pathlib import Path

from bench_example import RECORD

from minillama.measure.host.child_process import ProcessStats
from minillama.measure.speed.bench_plan import Plan, Setup, Workload
from minillama.measure.speed.bench_tables import comparison_columns, start_columns
from minillama.measure.speed.side_by_side import Round, StartComparison, compare_rounds
from minillama.measure.tables import md_row
from minillama.measure.trial import Trial


def comparison_of(ours: list[float], theirs: list[float]) -> tuple[Round, ...]:
    trial = Trial(0, 64)
    record = replace(RECORD, n_prompt=0, n_gen=64, bytes_per_token=1e9)
    return tuple(
        Round({trial: replace(record, avg_ts=a)}, {trial: b}, "abc (1)") for a, b in zip(ours, theirs, strict=True)
    )


def test_comparison_takes_the_median_of_the_pairs_ratios() -> None:
    setup, workload = Setup(Path("m"), 1), Workload((), (64,))
    # The machine slows down by half on the way: every pair still says 1.2, 1.0 or 0.9.
    (found,) = compare_rounds(setup, workload, comparison_of([12.0, 10.0, 4.5], [10.0, 10.0, 5.0]), 20e9)
    assert found.ratio == 1.0 and found.spread == (0.9, 1.2)
    values = json.loads(json.dumps(found.as_dict()))
    assert values["ours"] == {
        "build": "minillama", "samples_ts": [12.0, 10.0, 4.5], "median_ts": 10.0, "bandwidth_share": 0.5,
    }  # fmt: skip
    assert values["theirs"]["build"] == "abc (1)" and values["ratios"] == [1.2, 1.0, 0.9]
    table = comparison_columns(Plan((Path("m"),), (1,)), "JAX CPU")
    cells = [cell.strip() for cell in md_row(table, found).split("|")[6:-1]]
    assert cells == ["tg64", "10.00", "10.00", "1.00", "0.90 - 1.20", "50 %", "50 %"]
    assert compare_rounds(setup, workload, (), 20e9) == ()


def test_a_prompt_has_no_share_of_the_bandwidth() -> None:
    trial = Trial(8, 0)
    (found,) = compare_rounds(
        Setup(Path("m"), 1), Workload((8,), ()), (Round({trial: RECORD}, {trial: 1.0}, ""),), 20e9
    )
    assert found.share(100.0) is None


def test_start_table(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(bytes(1 << 20))
    mib = 1 << 20
    start = StartComparison(
        Setup(path, 2),
        (ProcessStats(1.0, 2.0, mib), ProcessStats(3.0, 4.0, 3 * mib)),
        (ProcessStats(2.0, 2.5, mib),) * 2,
    )
    cells = [cell.strip() for cell in md_row(start_columns(), start).split("|")[1:-1]]
    assert cells == ["m.gguf", "1.00 MiB", "2", "2.00 s", "2.00 s", "1.00", "2.00 MiB", "1.00 MiB"]
    assert json.loads(json.dumps(start.as_dict()))["ours"]["peak_bytes"] == [mib, 3 * mib]
