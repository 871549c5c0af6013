"""The exercises of the labs, from the notebooks that come with the package.

A cell's id is a hash of its stub. Jupyter keeps it when a learner edits the cell, so it names the exercise.
"""

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from minillama.course.copies.student_labs import chosen_labs, lab_names
from minillama.engine.loading.model_files import labs_folder

_CHECK = re.compile(r"^check\.(\w+)\((\w+)\)", re.MULTILINE)


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
    return {path.name[:2]: _lab(path) for path in sorted(root.glob("[0-9][0-9]_*.ipynb"))}


def labs_named(text: str) -> tuple[str, ...]:
    """Numbers of labs of a list such as `00-06,9`; raises OptionError."""
    return tuple(name[:2] for name in chosen_labs(lab_names(labs_folder()), text))


def _lab(path: Path) -> Lab:
    cells = _code_cells(path)
    solved = path.parent / "solutions" / path.name
    solutions = {
        name: source
        for _, tags, source in (_code_cells(solved) if solved.is_file() else ())
        if "solution" in tags
        for name in defined_functions(source)
    }
    checks = {function: item for _, tags, text in cells if "check" in tags for item, function in _CHECK.findall(text)}
    exercises = []
    for cell, tags, source in cells:
        names = defined_functions(source) if "exercise" in tags else []
        if names and names[0] in checks:
            name = names[0]
            exercises.append(Exercise(path.name[:2], cell, name, checks[name], source, solutions.get(name, "")))
    context = tuple(source for _, tags, source in cells if not {"exercise", "check"} & set(tags))
    return Lab(path.name[:2], path.stem, tuple(exercises), context, frozenset(cell for cell, _, _ in cells))


def _code_cells(path: Path) -> list[tuple[str, Sequence[str], str]]:
    """Id, tags and source of a notebook's code cells."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [
        (cell["id"], cell["metadata"].get("tags", []), "".join(cell["source"]))
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


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
