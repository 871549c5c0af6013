"""`minillama bench --against`: ours and llama.cpp's by turns, and what comes of it."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minillama.cli import INTERRUPTED
from minillama.cli.output.terminal import note, write_text
from minillama.measure.speed.bench_plan import Plan, Setup

if TYPE_CHECKING:
    from minillama.measure.speed.side_by_side import Comparison, Start

UNWEIGHED = "minillama: no llama-completion beside {}: no whole processes are timed and weighed"

Advance = Callable[[str], None]


def run_against(args: argparse.Namespace, plan: Plan) -> int:
    """Alternate, setup by setup; print each as soon as it is done."""
    from tqdm import tqdm

    from minillama.measure.speed.side_by_side import find_completion, find_program

    bench = find_program(args.against)
    completion = find_completion(bench) if args.start else None
    if args.start and completion is None:
        note(UNWEIGHED.format(bench))
    setups = list(plan.setups())
    bar = tqdm(
        total=len(setups) * args.rounds * (1 + (completion is not None)),
        unit="round",
        leave=False,
        disable=not (args.progress or sys.stderr.isatty()),
    )

    def advance(name: str) -> None:
        bar.set_description(name, refresh=False)
        bar.update()

    printer = _Printer(args.output == "json", plan)
    status = 0
    try:
        with bar:
            _run(args, plan, setups, bench, completion, printer, advance)
    except KeyboardInterrupt:
        note("minillama: interrupted; what was measured is here")
        status = INTERRUPTED
    finally:
        printer.close()
    return status


def _run(
    args: argparse.Namespace,
    plan: Plan,
    setups: Sequence[Setup],
    bench: Path,
    completion: Path | None,
    printer: "_Printer",
    advance: Advance,
) -> None:
    from minillama.measure.host.child_process import in_own_process
    from minillama.measure.limits.bandwidth import read_bandwidth
    from minillama.measure.speed.side_by_side import Start, alternate, alternate_starts, compare

    bandwidths = {threads: in_own_process(read_bandwidth, threads) for threads in dict.fromkeys(plan.n_threads)}
    printer.bandwidths = bandwidths
    repetitions = 1 if args.repetitions is None else args.repetitions
    for setup in setups:
        rounds = []
        turns = alternate(
            setup,
            plan.workload,
            args.rounds,
            bench,
            repetitions=repetitions,
            warmup=args.warmup,
            device=args.device,
        )
        try:
            for turn in turns:
                rounds.append(turn)
                advance(f"{setup.model.name}, {setup.n_threads} threads")
        finally:  # an interrupt leaves the rounds that both have run
            for comparison in compare(setup, plan.workload, rounds, bandwidths[setup.n_threads]):
                printer.show(comparison)
    for setup in setups if completion is not None else ():
        lives = []
        try:
            for pair in alternate_starts(setup, args.rounds, completion, device=args.device):
                lives.append(pair)
                advance(f"{setup.model.name}, start")
        finally:
            if lives:
                ours, theirs = zip(*lives, strict=True)
                printer.show_start(Start(setup, ours, theirs))


class _Printer:
    """Prints comparisons as they come in Markdown, and all of them at the end as one JSON object."""

    def __init__(self, as_json: bool, plan: Plan) -> None:
        self.bandwidths: dict[int, float] = {}
        self._json, self._plan = as_json, plan
        self._comparisons: list[Comparison] = []
        self._starts: list[Start] = []

    def show(self, comparison: "Comparison") -> None:
        from minillama.measure.speed import bench_tables

        self._comparisons.append(comparison)
        if self._json:
            return
        table = bench_tables.comparison_columns(self._plan, comparison.record.backends)
        if len(self._comparisons) == 1:
            write_text(bench_tables.md_head(table))
        write_text(bench_tables.md_row(table, comparison))

    def show_start(self, start: "Start") -> None:
        from minillama.measure.speed import bench_tables

        self._starts.append(start)
        if self._json:
            return
        table = bench_tables.start_columns()
        if len(self._starts) == 1:
            write_text("\n" + bench_tables.md_head(table))
        write_text(bench_tables.md_row(table, start))

    def close(self) -> None:
        """Everything as JSON; in Markdown what it was measured with."""
        if self._json:
            whole = {
                "memory_bandwidth": {str(threads): value for threads, value in self.bandwidths.items()},
                "tests": [comparison.as_dict() for comparison in self._comparisons],
                "start": [start.as_dict() for start in self._starts],
            }
            write_text(json.dumps(whole, indent=2) + "\n")
        elif self._comparisons:
            first = self._comparisons[0]
            count = len(first.ratios)
            rounds = f"medians of {count} round{'s' * (count > 1)}; ratio: the median of the rounds' own ratios"
            memory = ", ".join(
                f"{value / 1e9:.1f} GB/s ({threads} thread{'s' * (threads > 1)})"
                for threads, value in self.bandwidths.items()
            )
            write_text(f"\n{rounds}\nmemory read: {memory}\nbuilds: {first.record.build_commit}; {first.build}\n")
