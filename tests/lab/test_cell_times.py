"""Times of cells: silences before, between and after outputs."""

from pathlib import Path

import nbformat
import pytest

from minillama.lab import cell_times as module
from minillama.lab.cell_times import CellTimes, cell_times, row, silent_lines, title_of

CELLS = (
    "import time",
    "# waits, then prints\ntime.sleep(0.8)\nprint('late')",
    "for _ in range(4):\n    time.sleep(0.4)\n    print('on the way', flush=True)",
    "print('at once', flush=True)\ntime.sleep(1.2)",
    "from minillama.lab.widgets import running_line",
    "running_line.INTERVAL = 0.2\nwith running_line.running('work', seconds=2):\n    time.sleep(1.6)",
)


def test_a_made_up_notebook(tmp_path: Path) -> None:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("Text")])
    made.cells += [nbformat.v4.new_code_cell(source) for source in CELLS]
    cells = cell_times(made, tmp_path)
    assert [cell.number for cell in cells] == [1, 2, 3, 4, 5, 6]
    assert [cell.title for cell in cells][1:3] == ["time.sleep(0.8)", "for _ in range(4):"]
    _, late, steady, end, _, line = cells
    assert late.silence >= 0.8 and end.silence >= 1.0
    assert steady.seconds >= 1.6 and steady.silence < steady.seconds - 0.7, "outputs end a silence"
    assert line.seconds >= 1.6 and line.silence < 1.0, "a line moves in its cell"


def test_an_own_model_takes_the_place_of_none() -> None:
    sources = ["import json\nMODEL = None  # or a path\nOTHER_MODEL = None", "x = MODEL = None"]
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    cells = module.with_model(made, Path("/m/it's.gguf")).cells
    assert cells[0].source.splitlines()[1:] == ['MODEL = "/m/it\'s.gguf"  # or a path', "OTHER_MODEL = None"]
    assert cells[1].source == sources[1]


def test_a_row_names_the_longest() -> None:
    cells = [CellTimes(1, "a = 1", [0.0, 0.5]), CellTimes(2, "slow()", [1.0, 2.0, 6.0, 6.5]),
             CellTimes(3, "long()", [7.0, 9.0, 11.0, 13.0])]  # fmt: skip
    assert row("04", cells) == ("04", "12.0", "6.0 (cell 3)", "4.0 (cell 2: slow())", "1")
    assert silent_lines(cells) == ["  cell 2: silent for 4.0 of 5.5 s: slow()"]
    assert row("05", []) == ("05", "0.0", "-", "-", "0")


def test_titles_say_something() -> None:
    assert title_of("import numpy\n# a comment\n\nx = 1") == "x = 1" and title_of("# only this") == "# only this"
    assert (
        title_of("from numpy import (\n    array,\n    ones,\n)\n\nfor x in ones(3):\n    array(x)")
        == "for x in ones(3):"
    )
    assert title_of("import time") == "import time" and title_of("!ls") == "!ls" and title_of("") == ""


def test_an_unknown_lab_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        module.main(["77"])
    assert ended.value.code == 2 and "no lab 77" in capsys.readouterr().err
