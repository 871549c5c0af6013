"""Notebooks with nbgrader's cell metadata: a source with solutions, and a release for students."""

import copy
from pathlib import Path

from minillama.atomic_file import atomic_write, make_folder
from minillama.course.copies.graded_exercises import Exercise, required_check, solved, source_of, tags_of
from minillama.course.copies.student_labs import Notebook, write_notebook

SCHEMA = 3  # of nbgrader's metadata
CONFIG = """\
c = get_config()
c.ClearSolutions.code_stub = {"python": "raise NotImplementedError"}
c.Execute.timeout = 300  # seconds of a cell; nbgrader's 30 are too few for a measurement
"""


def write_nbgrader(folder: Path, name: str, exercises: list[Exercise], learner: Notebook, solutions: Notebook,
                   seed: int | None) -> None:  # fmt: skip
    """Write `source/labNN/` and `release/labNN/` of one lab, and nbgrader's configuration."""
    assignment = f"lab{name[:2]}"
    write_notebook(folder / "source" / assignment / name, _source(exercises, learner, solutions, seed))
    write_notebook(folder / "release" / assignment / name, _release(exercises, learner))
    make_folder(folder)
    with atomic_write(folder / "nbgrader_config.py") as file:
        file.write(CONFIG.encode())


def _release(exercises: list[Exercise], learner: Notebook) -> Notebook:
    """Notebook for students, as `nbgrader generate_assignment` makes it of the source."""
    made = copy.deepcopy(learner)
    for each in exercises:
        answer, check = made["cells"][each.cell], made["cells"][each.check]
        answer["metadata"]["nbgrader"] = _metadata(f"exercise-{each.name}", None)
        if each.by_reader:  # nbgrader's "manually graded answer"
            answer["metadata"]["nbgrader"] |= {"grade": True, "points": each.points}
            continue
        check["metadata"]["nbgrader"] = _metadata(f"check-{each.name}", each.points)
        check["source"] = required_check(each, check, shown=True)
        # "Run All" goes on after an error of this cell.
        check["metadata"]["tags"] = [*tags_of(check), "raises-exception"]
    return made


def _source(exercises: list[Exercise], learner: Notebook, solutions: Notebook, seed: int | None) -> Notebook:
    """The same with solutions, and hidden tests with the seed of the course."""
    made = _release(exercises, learner)
    for each in exercises:
        answer, check = made["cells"][each.cell], made["cells"][each.check]
        answer["source"] = solved(each, source_of(answer), solutions, "### BEGIN SOLUTION", ["### END SOLUTION"])
        if seed is not None and not each.by_reader:
            test = f"check.{each.name}.require({each.name}, seed={seed});"
            check["source"] += f"\n### BEGIN HIDDEN TESTS\n{test}\n### END HIDDEN TESTS"
    return made


def _metadata(grade_id: str, points: float | None) -> Notebook:
    """Metadata of a cell to fill in, or of a locked test with points."""
    test = points is not None
    made = {"cell_type": "code", "grade": test, "grade_id": grade_id, "locked": test, "schema_version": SCHEMA,
            "solution": not test, "task": False}  # fmt: skip
    return made | ({"points": points} if test else {})
