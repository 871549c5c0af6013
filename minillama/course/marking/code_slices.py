"""The program of one exercise: the learner's cell, and the definitions that it needs.

Only imports, definitions and constants are taken from other cells: no cell that loads a model or measures runs.
"""

import ast
import builtins
import symtable
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

KEPT_CALLS = {"partial", "namedtuple", "TypeVar", "NewType", "frozenset", "tuple", "dict", "set", "range", "slice"}
BUILTINS = frozenset(dir(builtins)) | {"__name__", "__file__", "get_ipython", "display"}


@dataclass(frozen=True)
class Piece:
    """A top-level statement of a cell, with the names it defines and reads."""

    code: str
    defines: frozenset[str]
    reads: frozenset[str]


@dataclass(frozen=True)
class Slice:
    """Code to run before a cell, and names that no piece defines."""

    code: tuple[str, ...]
    unknown: tuple[str, ...]


def without_magics(source: str) -> str:
    """The cell without lines of IPython's own (`%`, `!`, `?`); the line numbers stay."""
    try:
        ast.parse(source)
        return source
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        lines = source.splitlines()
        return "\n".join("" if line.lstrip().startswith(("%", "!", "?")) else line for line in lines)


def pieces(sources: Iterable[str]) -> list[Piece]:
    """The imports, definitions and constants of cells, in their order; unreadable cells have none."""
    found = []
    for source in sources:
        with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            for node in ast.parse(without_magics(source)).body:
                if _is_kept(node):
                    code = ast.unparse(node)
                    found.append(Piece(code, frozenset(_defined(node)), global_reads(code)))
    return found


def sliced(source: str, groups: Sequence[Sequence[Piece]]) -> Slice:
    """The pieces that a cell needs, those of earlier groups first.

    groups: the first with a definition of a name gives it; within one, the last definition counts.
    """
    chosen: dict[tuple[int, int], Piece] = {}
    own = _bound(source)
    waiting, seen, unknown = list(global_reads(source) - own), set(own), []
    while waiting:
        name = waiting.pop()
        if name in seen or name in BUILTINS:
            continue
        seen.add(name)
        place = _place(name, groups)
        if place is None:
            unknown.append(name)
        elif place not in chosen:
            chosen[place] = groups[place[0]][place[1]]
            waiting += chosen[place].reads
    return Slice(tuple(chosen[place].code for place in sorted(chosen)), tuple(sorted(unknown)))


def global_reads(code: str) -> frozenset[str]:
    """Global names that code reads, also inside its functions."""
    return frozenset(_reads(symtable.symtable(code, "<cell>", "exec"), is_module=True))


def _reads(table: symtable.SymbolTable, *, is_module: bool = False) -> Iterator[str]:
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (is_module or symbol.is_global()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _reads(child)


def _bound(code: str) -> set[str]:
    """Names that code binds at its top level."""
    symbols = symtable.symtable(code, "<cell>", "exec").get_symbols()
    return {each.get_name() for each in symbols if each.is_assigned() or each.is_imported()}


def _place(name: str, groups: Sequence[Sequence[Piece]]) -> tuple[int, int] | None:
    for number, group in enumerate(groups):
        for index in range(len(group) - 1, -1, -1):
            if name in group[index].defines:
                return number, index
    return None


def _is_kept(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef):
        return True
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return False
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return all(isinstance(part, ast.Name | ast.Tuple) for part in targets) and all(
        isinstance(each.func, ast.Name) and each.func.id in KEPT_CALLS
        for each in ast.walk(node.value)
        if isinstance(each, ast.Call)
    )


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name.partition(".")[0]
    elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            yield from (each.id for each in ast.walk(target) if isinstance(each, ast.Name))
