"""`minillama bench --compare`: compare a run with stored results, or two stored files."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from minillama.cli.output.terminal import note, write_text
from minillama.errors import OptionError, ResourceError
from minillama.measure.speed.bench_output import Markdown
from minillama.measure.speed.bench_plan import Plan
from minillama.measure.speed.bench_record import Record
from minillama.measure.speed.compare_runs import (
    RunComparison,
    compare_results,
    read_results,
    result_of,
    run_comparison_columns,
)
from minillama.measure.tables import md_table

METHOD = "ratio: of the means, by the base's; interval: Welch's for the logarithm of the ratio"


class ComparedMarkdown(Markdown):
    """A run and its comparison with stored results, as tables or one JSON object."""

    def __init__(self, plan: Plan, stored: Path, *, as_json: bool) -> None:
        super().__init__(plan)
        self._base, self._json = read_results(stored), as_json
        self._records: list[Record] = []

    def show(self, record: Record) -> str:
        self._records.append(record)
        text = super().show(record)
        return "" if self._json else text

    def end(self) -> str:
        found = compare_results(self._base, [result_of(record) for record in self._records])
        if self._json:
            results = [record.as_dict() for record in self._records]
            return json.dumps({"results": results, "comparison": _plain(found)}, indent=2) + "\n"
        missing = len(self._records) - len(found)
        if missing:
            note(f"minillama: {missing} of {len(self._records)} tests are not in the stored results")
        return super().end() + ("\n" + _table(found) if found else "")


def stored_files(args: argparse.Namespace) -> list[Path]:
    """The files of --compare: none, one or two."""
    names = [name for group in args.compare or () for name in group]
    if len(names) > 2:
        raise OptionError(f"--compare with {len(names)} files; give one or two")
    for name in names:
        if not Path(name).is_file():
            raise ResourceError(f"--compare {name}: no such file; store results with -o json > {name}")
    return [Path(name) for name in names]


def compare_stored(stored: Sequence[Path], *, as_json: bool) -> int:
    """Compare two files of results; the first is the base."""
    found = compare_results(*map(read_results, stored))
    if not found and not as_json:
        raise OptionError(f"--compare: {stored[0]} and {stored[1]} have no model, test and number of threads in common")
    write_text(json.dumps({"comparison": _plain(found)}, indent=2) + "\n" if as_json else _table(found))
    return 0


def _table(found: Sequence[RunComparison]) -> str:
    return md_table(run_comparison_columns(), found) + f"\n{METHOD}\n"


def _plain(found: Sequence[RunComparison]) -> list[dict[str, object]]:
    return [each.as_dict() for each in found]
