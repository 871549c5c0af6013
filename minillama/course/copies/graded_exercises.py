"""The graded exercises of a notebook: cell, check and lines of the solution."""

import ast
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from minillama.course.copies.exercise_points import BY_READER, points_of
from minillama.course.copies.student_labs import Notebook
from minillama.errors import FormatError

STUB = "raise NotImplementedError"


@dataclass(frozen=True)
class Exercise:
    """One exercise of a lab, with the places of its cells in the learner's notebook."""

    lab: str
    name: str
    cell: int
    check: int
    points: float

    @property
    def by_reader(self) -> bool:
        """True if a reader gives the points, not the check."""
        return (self.lab, self.name) in BY_READER


def source_of(cell: Notebook) -> str:
    """A cell's text; a file may hold a list of lines."""
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)


def tags_of(cell: Notebook) -> Sequence[str]:
    """The tags of a cell."""
    return cell.get("metadata", {}).get("tags", [])


def exercises_of(lab: str, notebook: Notebook) -> list[Exercise]:
    """Exercises in order; each check belongs to the cell that defines the function it gets.

    Raises FormatError for a check without such a cell.
    """
    cells: dict[str, int] = {}
    found = []
    for place, cell in enumerate(notebook["cells"]):
        if "exercise" in tags_of(cell):
            cells |= {name: place for name, _ in _functions(source_of(cell))}
        if "check" in tags_of(cell):
            name = _checked(source_of(cell))
            if name not in cells:
                raise FormatError(f"lab {lab}: the check of {name} has no exercise cell; build the notebook again")
            found.append(Exercise(lab, name, cells[name], place, points_of(lab, name)))
    return found


def solved(exercise: Exercise, stub: str, solutions: Notebook, begin: str, end: Sequence[str]) -> str:
    """The stub with its solution in the place of `raise NotImplementedError`, between marks.

    begin, end: lines before and after the solution. Raises FormatError if the solution has another form.
    """
    head, mark, rest = stub.rpartition(STUB)
    if not mark or rest.strip():
        raise FormatError(f"lab {exercise.lab}: the stub of {exercise.name} does not end in {STUB!r}")
    indent = head[head.rfind("\n") + 1 :]
    body = textwrap.indent(textwrap.dedent(_body(exercise, solutions)), indent)
    return "\n".join([head.rstrip(), indent + begin, body, *(indent + line for line in end)])


def required_check(exercise: Exercise, cell: Notebook, shown: bool, seed: int | None = None) -> str:
    """Lines of a check that raise unless the answer passes.

    shown: with the lines before it, and display its result; else as a test, with its own imports.
    """
    seeded = "" if seed is None else f", seed={seed}"
    if not shown:
        return (
            f"from minillama.lab.checks import lab{exercise.lab}\n"
            f"_ = lab{exercise.lab}.{exercise.name}.require({exercise.name}{seeded})"
        )
    source = source_of(cell)
    own = source[: source.rindex(f"check.{exercise.name}(")]
    imported = f"from minillama.lab.checks import lab{exercise.lab} as check\n"
    return f"{'' if imported in own else imported}{own}display(check.{exercise.name}.require({exercise.name}{seeded}))"


def _functions(source: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """The functions that a cell defines; none for text that is not Python."""
    try:
        nodes = ast.parse(source).body
    except SyntaxError:
        return
    yield from ((node.name, node) for node in nodes if isinstance(node, ast.FunctionDef))


def _checked(source: str) -> str:
    """The function that the last line of a check's cell gets: `check.rope(rope)`."""
    last = ast.parse(source).body[-1]
    match last:
        case ast.Expr(ast.Call(ast.Attribute(ast.Name("check"), item), [ast.Name(answer)])) if item == answer:
            return answer
    raise FormatError(f"the check {ast.unparse(last)[:60]!r} is not of the form check.name(name)")


def _body(exercise: Exercise, solutions: Notebook) -> str:
    """The lines of the solution's function, after the cell's other lines, such as imports."""
    for cell in solutions["cells"]:
        if "solution" not in tags_of(cell):
            continue
        source = source_of(cell)
        node = dict(_functions(source)).get(exercise.name)
        if node is None:
            continue
        lines = source.splitlines()
        first = node.body[1 if ast.get_docstring(node) is not None and len(node.body) > 1 else 0].lineno
        # Comments between the docstring and the first statement belong to the body.
        start = first - 1
        while lines[start - 1].strip().startswith("#"):
            start -= 1
        others = [*lines[: node.lineno - 1], *lines[node.end_lineno or len(lines) :]]
        before = [line for line in others if line.strip()]
        return "\n".join([*before, textwrap.dedent("\n".join(lines[start : node.end_lineno]))])
    raise FormatError(f"lab {exercise.lab}: no solution of {exercise.name} in the solved notebook; build it again")
