"""The exercises of the labs, from the notebooks that come with the package.

A cell's id is a hash of its stub. Jupyter keeps it when a learner edits the cell, so it names the exercise.
"""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from minillama.course.copies.graded_exercises import exercises_of, source_of, tags_of
from minillama.course.copies.student_labs import chosen_labs, lab_names, read_notebook
from minillama.engine.loading.model_files import labs_folder


@dataclass(frozen=True)
class Exercise:
    """One exercise: its cell's id, the function to write, and the check's item."""

    lab: str
    cell: str
    function: str
    item: str
    stub: str
    solution: str  # empty if the solutions are not here


@dataclass(frozen=True)
class Lab:
    """A lab's exercises, and the code cells that a learner gets."""

    number: str
    name: str
    exercises: tuple[Exercise, ...]
    context: tuple[str, ...]
    ids: frozenset[str]


@cache
def all_labs(folder: Path | None = None) -> dict[str, Lab]:
    """The labs by number."""
    root = folder or labs_folder()
    return {path.name[:2]: _lab(path) for path in (root / name for name in lab_names(root))}


def labs_named(text: str) -> tuple[str, ...]:
    """Numbers of labs of a list such as `00-06,9`; raises OptionError."""
    return tuple(name[:2] for name in chosen_labs(lab_names(labs_folder()), text))


def _lab(path: Path) -> Lab:
    notebook, solved = read_notebook(path), path.parent / "solutions" / path.name
    solutions = {
        name: source_of(cell)
        for cell in (read_notebook(solved)["cells"] if solved.is_file() else ())
        if "solution" in tags_of(cell)
        for name in defined_functions(source_of(cell))
    }
    exercises = []
    for each in exercises_of(path.name[:2], notebook):
        cell = notebook["cells"][each.cell]
        found = Exercise(each.lab, cell["id"], each.name, each.name, source_of(cell), solutions.get(each.name, ""))
        exercises.append(found)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    context = tuple(source_of(cell) for cell in cells if not {"exercise", "check"} & set(tags_of(cell)))
    return Lab(path.name[:2], path.stem, tuple(exercises), context, frozenset(cell["id"] for cell in cells))


def defined_functions(source: str) -> list[str]:
    """Functions that a cell defines at its top level; none if it is not Python."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def is_stub(source: str, exercise: Exercise) -> bool:
    """True if a cell is the untouched stub, whatever its comments and docstring."""
    try:
        return _shape(source) == _shape(exercise.stub)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _shape(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.body and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
