"""The code of each exercise in a learner's notebook, to be run and checked."""

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from minillama.course.copies.exercise_points import BY_READER
from minillama.course.isolation.learner_process import CELL
from minillama.course.learner_texts import learner_text
from minillama.course.marking.code_slices import Piece, pieces, sliced, without_magics
from minillama.course.marking.lab_exercises import Exercise, Lab, all_labs, defined_functions, is_stub
from minillama.course.marking.marks import State
from minillama.course.marking.submissions import Cell, Notebook

LAB_CELL = "<the lab's cells>"
OTHER_CELL = "<your other cells>"
STUB = "fill in the cell, and run its check"
LONGEST = 100_000  # characters of an exercise's cell

# Checks that trace the function: they run in the learner's process, after a screen of the source.
TRACED = {
    ("05", "step"), ("09", "by_columns"), ("09", "feed_forward"), ("17", "dequantise_product"),
    ("17", "integer_product"), ("17", "pallas_kernel"),
}  # fmt: skip
STARTS_PROCESSES = {("17", "dequantise_product"), ("17", "integer_product")}
CPU_DEVICES = {"09": 8}


@dataclass(frozen=True)
class Program:
    """The code of one exercise, or the state that needs no run."""

    exercise: Exercise
    source: str
    parts: tuple[tuple[str, str], ...] = ()  # file and code, in the order in which they run
    state: State | None = None
    message: str = ""
    note: str = ""

    def job(self) -> dict[str, object]:
        """The program as JSON."""
        key = self.exercise.lab, self.exercise.item
        return {
            "item": self.exercise.item,
            "function": self.exercise.function,
            "parts": self.parts,
            "state": self.state,
            "message": self.message,
            "traced": key in TRACED,
            "processes": key in STARTS_PROCESSES,
            "cpu_devices": CPU_DEVICES.get(self.exercise.lab, 1) if key in TRACED else 0,
        }


def lab_of(notebook: Notebook) -> str | None:
    """The lab of a notebook: by its cells' ids, metadata, name or functions."""
    labs = all_labs()
    ids = {cell.id for cell in notebook.cells}
    counts = {number: len(ids & lab.ids) for number, lab in labs.items()}
    best = max(counts, key=lambda number: counts[number])
    if counts[best] >= 3:
        return best
    if notebook.lab in labs:
        return notebook.lab
    name = notebook.path.rsplit("/", 1)[-1]
    if (named := next((number for number, lab in labs.items() if lab.name in name), None)) is not None:
        return named
    functions = {name for cell in notebook.cells for name in defined_functions(cell.source)}
    shares = {
        number: sum(each.function in functions for each in lab.exercises) / len(lab.exercises)
        for number, lab in labs.items()
        if lab.exercises
    }
    best = max(shares, key=lambda number: shares[number])
    return best if shares[best] >= 0.5 else None


def tried(notebook: Notebook, lab: Lab) -> int:
    """The number of exercises whose cell is no stub."""
    found = [find(notebook, exercise)[0] for exercise in lab.exercises]
    return sum(
        cell is not None and not is_stub(cell.source, exercise)
        for cell, exercise in zip(found, lab.exercises, strict=True)
    )


def find(notebook: Notebook, exercise: Exercise) -> tuple[Cell | None, str]:
    """The cell of an exercise, by its id, or by its function with a note."""
    by_id = next((cell for cell in notebook.cells if cell.id == exercise.cell), None)
    defining = [cell for cell in notebook.cells if exercise.function in defined_functions(without_magics(cell.source))]
    if by_id is not None and (by_id in defining or not defining):
        return by_id, ""
    if not defining:
        return None, ""
    others = [cell for cell in defining if not is_stub(cell.source, exercise)]
    why = "has no such function" if by_id is not None else "is missing"
    text = f"the cell with the id {{cell}} {why}; found by the name `{{function}}`"
    note = learner_text(notebook.language, text, cell=exercise.cell, function=exercise.function)
    return (others or defining)[-1], note


def programs(notebook: Notebook, lab: Lab) -> list[Program]:
    """The programs of a lab's exercises in a notebook."""
    found = {exercise: find(notebook, exercise) for exercise in lab.exercises}
    cells = [cell for cell, _ in found.values() if cell is not None]
    others = [cell.source for cell in notebook.cells if cell not in cells]
    groups = [pieces(lab.context), pieces(cell.source for cell in cells), pieces(others)]
    text = partial(learner_text, notebook.language)
    return [_program(exercise, *found[exercise], groups, text) for exercise in lab.exercises]


def _program(
    exercise: Exercise, cell: Cell | None, note: str, groups: Sequence[Sequence[Piece]], text: Callable[..., str]
) -> Program:
    if cell is None:
        missing = "no cell has the id {cell} or defines `{function}`"
        message = text(missing, cell=exercise.cell, function=exercise.function)
        return Program(exercise, "", state=State.MISSING, message=message)
    if (exercise.lab, exercise.item) in BY_READER:
        message = text("uses your own measurements; a reader gives the points")
        return Program(exercise, cell.source, state=State.BY_READER, message=message, note=note)
    if is_stub(cell.source, exercise):
        return Program(exercise, cell.source, state=State.NOT_TRIED, message=text(STUB), note=note)
    if len(cell.source) > LONGEST:
        message = text("the cell has {count:,} characters; an exercise takes a few lines", count=len(cell.source))
        return Program(exercise, "", state=State.NOT_YET, message=message, note=note)
    source = without_magics(cell.source)
    try:
        ast.parse(source)
        needed = sliced(source, groups)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
        message = text("the cell is not Python: {error}", error=f"{getattr(error, 'msg', None) or error}{line}")
        return Program(exercise, cell.source, state=State.NOT_YET, message=message[:300], note=note)
    if needed.unknown and not note:
        note = text("this name is not in the code that grading runs: {names}", names=", ".join(needed.unknown))
    trusted = {piece.code for piece in groups[0]}
    before = tuple((LAB_CELL if code in trusted else OTHER_CELL, code) for code in needed.code)
    return Program(exercise, cell.source, (*before, (CELL, source)), note=note)
