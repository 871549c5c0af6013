"""Notebooks for `otter assign`, which makes the students' notebook and the autograder of each."""

import copy
from pathlib import Path

from minillama.course.copies.graded_exercises import STUB, Exercise, required_check, solved, source_of
from minillama.course.copies.student_labs import Notebook, write_notebook

# Without a PDF, which needs LaTeX. A wheel of minillama must be where pip of the autograder's image finds it.
CONFIG = """\
# ASSIGNMENT CONFIG
name: {name}
requirements:
  - minillama[labs]
export_cell:
  pdf: false
  run_tests: false
generate:
  pdf: false
"""
QUESTION = """\
# BEGIN QUESTION
name: {name}
points: {points:g}
"""
PROMPT = ['""" # BEGIN PROMPT', STUB, '"""; # END PROMPT']


def write_otter(folder: Path, name: str, exercises: list[Exercise], learner: Notebook, solutions: Notebook,
                seed: int | None) -> None:  # fmt: skip
    """Write `labNN/NN_name.ipynb`, the notebook that `otter assign` takes."""
    write_notebook(folder / f"lab{name[:2]}" / name, _master(exercises, learner, solutions, seed))


def _master(exercises: list[Exercise], learner: Notebook, solutions: Notebook, seed: int | None) -> Notebook:
    starts, checks = {each.cell: each for each in exercises}, {each.check: each for each in exercises}
    cells = [_raw("config", CONFIG.format(name=f"lab{exercises[0].lab}" if exercises else "lab"))]
    for place, cell in enumerate(copy.deepcopy(learner["cells"])):
        if (each := starts.get(place)) is not None:
            end = ["# END SOLUTION", *PROMPT]
            cell["source"] = solved(each, source_of(cell), solutions, "# BEGIN SOLUTION NO PROMPT", end)
            cells += [
                _raw(f"{each.name}-begin", _question(each)),
                _raw(f"{each.name}-solution", "# BEGIN SOLUTION"), cell,
                _raw(f"{each.name}-solution-end", "# END SOLUTION"),
            ]  # fmt: skip
            continue
        cells.append(cell)
        if (each := checks.get(place)) is not None:
            cells += _tests(each, cell, seed)
    return learner | {"cells": cells}


def _question(exercise: Exercise) -> str:
    kind = "manual: true" if exercise.by_reader else "all_or_nothing: true"
    return QUESTION.format(name=exercise.name, points=exercise.points) + kind


def _tests(exercise: Exercise, cell: Notebook, seed: int | None) -> list[Notebook]:
    """The cells of a question's tests, and its end."""
    if exercise.by_reader:
        return [_raw(f"{exercise.name}-end", "# END QUESTION")]
    tests = [_code(f"{exercise.name}-test", required_check(exercise, cell, shown=False))]
    if seed is not None:
        text = "# HIDDEN\n" + required_check(exercise, cell, shown=False, seed=seed)
        tests.append(_code(f"{exercise.name}-hidden", text))
    return [
        _raw(f"{exercise.name}-tests", "# BEGIN TESTS"), *tests, _raw(f"{exercise.name}-tests-end", "# END TESTS"),
        _raw(f"{exercise.name}-end", "# END QUESTION"),
    ]  # fmt: skip


def _raw(name: str, text: str) -> Notebook:
    return {"cell_type": "raw", "id": f"otter-{name}"[:64], "metadata": {}, "source": text.rstrip("\n")}


def _code(name: str, text: str) -> Notebook:
    cell = {"cell_type": "code", "id": f"otter-{name}"[:64], "metadata": {}, "source": text}
    return cell | {"execution_count": None, "outputs": []}
