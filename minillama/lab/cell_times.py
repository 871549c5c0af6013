"""Execute labs and print their times, their longest cells and their longest silences.

    python -m minillama.lab.cell_times 04 05          # the solved notebooks
    python -m minillama.lab.cell_times --learner 04   # the learners' notebooks
    python -m minillama.lab.cell_times --cells 04     # each cell with a longer silence than SILENCE seconds
    python -m minillama.lab.cell_times --model m.gguf 05  # with a learner's own model

A silence is the time of a running cell without an output: from its start to its first output, between two outputs, or
from the last one to its end. A redrawn figure and a moving progress bar are outputs. All times are the kernel's, from
the headers of its messages.
"""

import argparse
import ast
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from nbclient import NotebookClient
from nbformat import NotebookNode

from minillama.lab.build import client_of, kernel_environment, learner, solution, sources
from minillama.measure.tables import plain_table

SILENCE = 3.0  # seconds after which a reader asks if a cell still runs
CELL_SECONDS = 1200
OUTPUTS = {
    "stream", "display_data", "update_display_data", "execute_result", "error", "clear_output", "comm_open", "comm_msg",
}  # fmt: skip
NO_CELL = "-"
NO_MODEL = re.compile(r"^MODEL = None\b", re.MULTILINE)


@dataclass
class CellTimes:
    """One executed cell; moments in seconds since the epoch: its start, its outputs, its end."""

    number: int  # among the code cells, from 1
    title: str
    moments: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From the start to the end."""
        return self.moments[-1] - self.moments[0] if self.moments else 0.0

    @property
    def silence(self) -> float:
        """The longest time without an output, in seconds."""
        return max((later - earlier for earlier, later in pairwise(self.moments)), default=0.0)


class TimedClient(NotebookClient):
    """A client that keeps the moments of each cell's messages in `times`."""

    def __init__(self, nb: NotebookNode, **options: object) -> None:
        super().__init__(nb, **options)
        code = [(index, cell) for index, cell in enumerate(nb.cells) if cell.cell_type == "code"]
        self.times = {
            index: CellTimes(number, title_of(cell.source)) for number, (index, cell) in enumerate(code, start=1)
        }

    def process_message(self, msg: dict, cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        """Keep the moment of a message of a running cell."""
        is_state = msg["msg_type"] == "status" and msg["content"]["execution_state"] in ("busy", "idle")
        if is_state or msg["msg_type"] in OUTPUTS:
            self.times[cell_index].moments.append(msg["header"]["date"].timestamp())
        return super().process_message(msg, cell, cell_index)


def title_of(source: str) -> str:
    """First line of the first statement that is no import; at most 40 characters.

    The first line of a cell of imports, or of one that is not plain Python.
    """
    lines = source.splitlines() or [""]
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        statements = []
    starts = [each.lineno for each in statements if not isinstance(each, ast.Import | ast.ImportFrom)]
    return lines[starts[0] - 1 if starts else 0][:40]


def with_model(notebook: NotebookNode, model: Path) -> NotebookNode:
    """The notebook with a learner's own model in the place of None."""
    for cell in notebook.cells:
        cell.source = NO_MODEL.sub(lambda _: f"MODEL = {str(model)!r}", cell.source)
    return notebook


def cell_times(notebook: NotebookNode, folder: Path) -> list[CellTimes]:
    """Execute a notebook in `folder`; the times of its code cells.

    Raises nbclient.exceptions.CellExecutionError at the first cell that fails.
    """
    client = client_of(notebook, folder, kind=TimedClient, seconds=CELL_SECONDS)
    client.execute(env=kernel_environment())
    return list(client.times.values())


def row(name: str, cells: Sequence[CellTimes]) -> tuple[str, ...]:
    """Name, computing time, longest cell, longest silence, and the number of too long ones."""
    if not cells:
        return name, "0.0", NO_CELL, NO_CELL, "0"
    longest, silent = max(cells, key=lambda cell: cell.seconds), max(cells, key=lambda cell: cell.silence)
    return (
        name,
        f"{sum(cell.seconds for cell in cells):.1f}",
        f"{longest.seconds:.1f} (cell {longest.number})",
        f"{silent.silence:.1f} (cell {silent.number}: {silent.title})",
        str(sum(cell.silence > SILENCE for cell in cells)),
    )


def silent_lines(cells: Sequence[CellTimes]) -> list[str]:
    """A line for each cell with a silence of more than `SILENCE` seconds."""
    return [
        f"  cell {cell.number}: silent for {cell.silence:.1f} of {cell.seconds:.1f} s: {cell.title}"
        for cell in cells
        if cell.silence > SILENCE
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; prints a row for each lab as it ends."""
    parser = argparse.ArgumentParser(
        prog="python -m minillama.lab.cell_times", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("labs", nargs="*", help="numbers of labs, for example 02 04 (default: all)")
    parser.add_argument("--learner", action="store_true", help="the learners' notebooks, without solutions")
    parser.add_argument("--model", type=Path, metavar="FILE", help="a GGUF file as the learner's own model")
    parser.add_argument("--cells", action="store_true", help="also list the cells with a long silence")
    options = parser.parse_args(arguments)
    found = sources(wanted=options.labs)
    if not found:
        parser.error(f"no lab {options.labs[0]}: give numbers of labs, for example 04")
    rows, lines = [], []
    for source in found:
        notebook = (learner if options.learner else solution)(source)
        if options.model:
            notebook = with_model(notebook, options.model.absolute())
        with tempfile.TemporaryDirectory() as folder:
            cells = cell_times(notebook, Path(folder))
        rows.append(row(source.stem, cells))
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
        if options.cells:
            lines += [source.stem, *silent_lines(cells)]
    header = ("lab", "computes s", "longest cell s", "longest silence s", f"cells silent > {SILENCE:g} s")
    print(plain_table(header, rows, right=(1, 4)))
    print("\n".join(lines), end="\n" if lines else "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
