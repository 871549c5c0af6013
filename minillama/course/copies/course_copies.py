"""Copies of the labs for a course, and the table of their points."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from minillama.atomic_file import atomic_write, make_folder
from minillama.course.copies.graded_exercises import Exercise, exercises_of
from minillama.course.copies.nbgrader_copies import write_nbgrader
from minillama.course.copies.otter_copies import write_otter
from minillama.course.copies.student_labs import (
    Notebook,
    check_empty,
    path_in_language,
    read_notebook,
    write_notebook,
)

KINDS = ("student", "nbgrader", "otter")
WRITERS = {"nbgrader": write_nbgrader, "otter": write_otter}


def write_copies(
    kind: str, labs: Path, names: Sequence[str], language: str, out: Path, seed: int | None = None
) -> list[Exercise]:
    """Write the copies and `points.csv` into an empty folder; return the exercises.

    kind: one of KINDS. Raises FormatError, ResourceError or OptionError before the first file if something is missing.
    """
    check_empty(out)
    found = []
    for name in names:
        learner = read_notebook(path_in_language(labs, name, language))
        solutions = read_notebook(labs / "solutions" / name) if kind in WRITERS else {}
        found.append((name, exercises_of(name[:2], learner), learner, solutions))
    for name, exercises, learner, solutions in found:
        if kind in WRITERS:
            WRITERS[kind](out, name, exercises, learner, solutions, seed)
        else:
            write_notebook(out / name, _with_points(exercises, learner))
    all_exercises = [each for _, exercises, *_ in found for each in exercises]
    _write_points(out / "points.csv", all_exercises)
    return all_exercises


def _with_points(exercises: Sequence[Exercise], learner: Notebook) -> Notebook:
    """The notebook with name and points in the metadata of each check."""
    for each in exercises:
        facts = {"exercise": each.name, "points": each.points}
        learner["cells"][each.check].setdefault("metadata", {})["minillama"] = facts
    return learner


def _write_points(path: Path, exercises: Sequence[Exercise]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("lab", "exercise", "points"))
    table.writerows((each.lab, each.name, f"{each.points:g}") for each in exercises)
    make_folder(path.parent)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
