"""`minillama bench --against`: interleaved A/B runs of minillama and llama.cpp, and their output."""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minillama.cli.arguments.bench_flags import device_flags, setup_flags, workload_flags
from minillama.cli.output.terminal import INTERRUPTED, note, write_text
from minillama.env import MINILLAMA
from minillama.errors import OptionError
from minillama.measure.speed.bench_plan import Plan, Setup

if TYPE_CHECKING:
    from minillama.measure.speed.side_by_side import Comparison, StartComparison

NO_COMPLETION = "minillama: no llama-completion in the folder of {}: the start of whole processes is not measured"
START_PROMPT = "Once upon a time, in a small house at the edge of a forest, there lived"

Advance = Callable[[str], None]


def run_against(args: argparse.Namespace, plan: Plan) -> int:
    """Measure setup by setup, and print each result when it is complete."""
    from tqdm import tqdm

    bench = find_program(args.against)
    completion = find_completion(bench) if args.start else None
    if args.start and completion is None:
        note(NO_COMPLETION.format(bench))
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
            _compare_speeds(args, plan, setups, bench, printer, advance)
            if completion is not None:
                _compare_starts(args, setups, completion, printer, advance)
    except KeyboardInterrupt:
        note("minillama: interrupted; the results so far are printed")
        status = INTERRUPTED
    finally:
        printer.close()
    return status


def find_program(path: str) -> Path:
    """The program of --against; raises OptionError if it cannot be executed."""
    if Path(path).is_dir():
        raise OptionError(f"--against {path}: a folder; name the llama-bench in it")
    found = shutil.which(path)
    if found is None:
        why = "it cannot be executed" if Path(path).is_file() else "no such program"
        raise OptionError(f"--against {path}: {why}; name a llama-bench binary")
    return Path(found)


def find_completion(bench: Path) -> Path | None:
    """The llama-completion in the folder of a llama-bench; None on Windows, without wait4."""
    found = shutil.which(str(bench.absolute().with_name("llama-completion" + bench.suffix)))
    return Path(found) if found is not None and sys.platform != "win32" else None


def _compare_speeds(
    args: argparse.Namespace, plan: Plan, setups: Sequence[Setup], bench: Path, printer: "_Printer", advance: Advance
) -> None:
    from minillama.measure.host.child_process import call_in_child
    from minillama.measure.limits.bandwidth import bandwidth_of_threads
    from minillama.measure.speed.side_by_side import compare_rounds, interleave_benchmarks

    bandwidths = {threads: call_in_child(bandwidth_of_threads, threads) for threads in dict.fromkeys(plan.n_threads)}
    printer.bandwidths = bandwidths
    repetitions = 1 if args.repetitions is None else args.repetitions
    switches = ("-r", str(repetitions), *(() if args.warmup else ("--no-warmup",)))
    for setup in setups:
        flags = (*setup_flags(setup), *workload_flags(plan.workload), *switches)
        ours = (*MINILLAMA, "bench", *flags, *device_flags(args.device), "-o", "json", "--inner")
        theirs = (str(bench), *flags, "-o", "json")
        rounds = []
        try:
            for each in interleave_benchmarks(ours, theirs, plan.workload.trials(), args.rounds):
                rounds.append(each)
                advance(f"{setup.model.name}, {setup.n_threads} threads")
        finally:  # after an interrupt: the complete rounds
            for comparison in compare_rounds(setup, plan.workload, rounds, bandwidths[setup.n_threads]):
                printer.show(comparison)


def _compare_starts(
    args: argparse.Namespace, setups: Sequence[Setup], completion: Path, printer: "_Printer", advance: Advance
) -> None:
    from minillama.measure.speed.side_by_side import START_CONTEXT, StartComparison, interleave_starts

    options = ("-c", str(START_CONTEXT), "-p", START_PROMPT, "-n", "1", "--temp", "0", "-s", "1", "-no-cnv",
               "--no-display-prompt")  # fmt: skip
    for setup in setups:
        flags = (*setup_flags(setup), *options)
        ours, theirs = (*MINILLAMA, "run", *flags, *device_flags(args.device)), (str(completion), *flags)
        pairs = []
        try:
            for pair in interleave_starts(ours, theirs, args.rounds):
                pairs.append(pair)
                advance(f"{setup.model.name}, start")
        finally:
            if pairs:
                printer.show_start(StartComparison(setup, *zip(*pairs, strict=True)))


class _Printer:
    """Prints comparisons one by one in Markdown, or at the end as JSON."""

    def __init__(self, as_json: bool, plan: Plan) -> None:
        self.bandwidths: dict[int, float] = {}
        self._json, self._plan = as_json, plan
        self._comparisons: list[Comparison] = []
        self._starts: list[StartComparison] = []

    def show(self, comparison: "Comparison") -> None:
        """Print the row of one test."""
        from minillama.measure.speed.bench_tables import comparison_columns
        from minillama.measure.tables import md_head, md_row

        self._comparisons.append(comparison)
        if self._json:
            return
        columns = comparison_columns(self._plan, comparison.record.backends)
        write_text((md_head(columns) if len(self._comparisons) == 1 else "") + md_row(columns, comparison))

    def show_start(self, start: "StartComparison") -> None:
        """Print the row of one setup's process start."""
        from minillama.measure.speed.bench_tables import start_columns
        from minillama.measure.tables import md_head, md_row

        self._starts.append(start)
        if self._json:
            return
        columns = start_columns()
        write_text(("\n" + md_head(columns) if len(self._starts) == 1 else "") + md_row(columns, start))

    def close(self) -> None:
        """Print everything as JSON, or the notes under the Markdown tables."""
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
