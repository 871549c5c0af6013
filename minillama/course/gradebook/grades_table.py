"""The table of marks: a CSV file, one row a learner."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from minillama.atomic_file import atomic_write
from minillama.course.marking.marks import LearnerMark
from minillama.printable_text import printable_line

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so is a formula in a spreadsheet
LONGEST_REMARKS = 1500  # characters


def write_table(path: Path, labs: Sequence[str], marks: Sequence[LearnerMark]) -> None:
    """Write the table: learner, points of each lab, total, points possible, remarks.

    A lab without exercises that a program can mark has no points.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["learner", *(f"lab {lab}" for lab in labs), "total", "of", "remarks"])
    for mark in marks:
        points = [f"{mark.labs[lab].earned:g}" if lab in mark.labs else "0" for lab in labs]
        remarks = "; ".join(mark.remarks())
        if len(remarks) > LONGEST_REMARKS:
            remarks = f"{remarks[:LONGEST_REMARKS]}..."
        writer.writerow([_cell(mark.learner), *points, f"{mark.earned:g}", f"{mark.possible:g}", _cell(remarks)])
    with atomic_write(path) as file:
        file.write(text.getvalue().encode("utf-8", "replace"))


def _cell(text: str) -> str:
    """A printable text that no spreadsheet computes."""
    shown = printable_line(text)
    return f"'{shown}" if shown.startswith(FORMULA) else shown
