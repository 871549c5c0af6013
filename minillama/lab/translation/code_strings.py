"""The strings of code cells that a reader sees: questions, labels, titles, printed texts.

A string is found by the argument of the call that shows it, also through a variable that is used for nothing else.
Names of records are never found: the first two arguments of `Prediction` and of `measurement`.
"""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from minillama.lab.translation.markdown_blocks import Lookup

EVERY = 99
# Call -> its parameters in order, with the names of those that show their strings. EVERY: all positional ones.
SHOWN: dict[str, tuple[str, ...] | int] = {
    "Prediction": ("", "", "question"),
    "print": EVERY,
    "running": ("what",),
    "collect": ("", "what"),
    "TextBox": ("", "label", "", "help"),
    "Slider": ("", "label", "", "", "", "", "help"),
    "IntSlider": ("", "label", "", "", "", "help"),
    "Dropdown": ("", "label", "options", "value", "help"),
    "bars": ("labels", "", "title", "axis", "note"),
    "lines": ("series", "", "title", "x", "y"),
    "scatter": ("", "title", "x", "y"),
    "roofline": ("", "", "title"),
    "timeline": ("", "", "title"),
    "power_laws": ("series", "title", "x", "y"),
    "sweep": ("series", "model", "title", "x", "y"),
    "bands": ("", "title", "x", "y"),
    "heat_map": ("", "", "", "title"),
    "waterfall": ("", "", "title", "unit"),
    "text_table": ("header",),
    "treemap": ("", "", "title"),
    "attention_map": ("", "", "title"),
    "pareto": ("", "title", "x", "y"),
    "gantt": ("", "title"),
    "rows_curves": ("", "", "", "title"),
    "two_sided": ("", "left", "title", "x_title", "y_title"),
    "plain_table": ("head", "rows"),
    "device_grid": ("", "", "", "title"),
    "ledger_bars": ("", "title"),
    "scaling": ("", "", "title", "unit"),
    "host_curves": ("", "title"),
    "ratio_intervals": ("", "title", "axis"),
    "Essay": ("", "question"),
    "claim": ("text",),
    "state_figure": ("", "title"),
    "channel_figure": ("", "title"),
    "core_roofline": ("", "", "", "title"),
    "instruction_bars": ("", "title"),
    "speedup_curves": ("", "", "", "", "title"),
    "batch_curve": ("", "", "", "", "", "title"),
}
RETURNED = ("options", "value", "labels", "series")  # code may compare them, or look them up
KEYS = ("Prediction", "measurement")  # their first two arguments are names of records
_WORD = re.compile(r"[^\W\d_]{2}")
_LITERAL = re.compile(r"""([fF]?)(\"""|'''|"|')((?:\\.|(?!\2).)*)\2""", re.DOTALL)


class CodeStringError(ValueError):
    """A translation that does not fit into the code: one line with message and fix."""


@dataclass(frozen=True)
class CodeString:
    """A string in the code: its place in characters, and its message.

    An f-string's message has its fields as they are in the source."""

    cell: int
    start: int
    end: int
    message: str
    is_format: bool


def code_strings(cells: Sequence[str]) -> list[CodeString]:
    """The strings of a notebook's code cells that a reader sees, in order."""
    trees = [ast.parse(cell) for cell in cells]
    shown = _Shown(trees)
    found = []
    for cell, (text, tree) in enumerate(zip(cells, trees, strict=True)):
        nodes = [node for node in ast.walk(tree) if id(node) in shown.literals]
        for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
            string = _code_string(cell, text, node)
            if string is not None and not (id(node) in shown.returned and string.message in shown.kept):
                found.append(string)
    return found


class _Shown:
    """The nodes of literals that calls show.

    returned: those that code may get back, through a variable or as a chosen option. kept: texts that code uses
    elsewhere; a returned literal with such a text must stay.
    """

    def __init__(self, trees: Sequence[ast.Module]) -> None:
        self._trees = trees
        self._nodes = {id(tree): list(ast.walk(tree)) for tree in trees}
        self.literals: set[int] = set()
        self.returned: set[int] = set()
        self._seen: set[int] = set()
        self._names: list[tuple[ast.Module, str]] = []
        for tree in trees:
            for call in self._nodes[id(tree)]:
                if isinstance(call, ast.Call):
                    for argument, name in shown_arguments(call):
                        self._see(tree, argument, name in RETURNED)
        done: set[tuple[int, str]] = set()
        while self._names:
            tree, name = self._names.pop()
            if (id(tree), name) not in done:
                done.add((id(tree), name))
                self._follow(tree, name)
        self.kept = self._texts_of_others()

    def _see(self, tree: ast.Module, node: ast.AST, is_returned: bool) -> None:
        """Find literals and names in an expression that is shown."""
        self._seen.add(id(node))
        if isinstance(node, ast.Name):
            self._names.append((tree, node.id))
        elif isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            self.literals.add(id(node))
            if is_returned:
                self.returned.add(id(node))
        for part in _shown_parts(node):
            self._see(tree, part, is_returned)

    def _follow(self, tree: ast.Module, name: str) -> None:
        """See the values of a variable that is used only where it is shown.

        A variable that its cell does not assign is one of other cells.
        """
        trees, values = [tree], [(tree, value) for value in self._values(tree, name)]
        if not values:
            trees = self._trees
            values = [(other, value) for other in trees for value in _global_values(other, name)]
        if not values or not all(id(use) in self._seen for each in trees for use in self._uses(each, name)):
            return
        for owner, value in values:
            self._see(owner, value, is_returned=True)

    def _uses(self, tree: ast.Module, name: str) -> Iterator[ast.Name]:
        """Uses of a variable's strings.

        The values of a table, and its items by a computed key, are none."""
        harmless = set()
        for node in self._nodes[id(tree)]:
            is_values = isinstance(node, ast.Attribute) and node.attr == "values"
            is_item = isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Constant)
            if is_values or is_item:
                harmless.add(id(node.value))
        for node in self._nodes[id(tree)]:
            is_use = isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)
            if is_use and id(node) not in harmless:
                yield node

    def _values(self, tree: ast.Module, name: str) -> Iterator[ast.AST]:
        """Expressions of the variable's assignments, and of the loops over literals."""
        for node in self._nodes[id(tree)]:
            if isinstance(node, ast.Assign | ast.AugAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                yield from [node.value] if [ast.unparse(target) for target in targets] == [name] else []
            elif isinstance(node, ast.For | ast.comprehension):
                yield from _loop_values(node.target, node.iter, name)

    def _texts_of_others(self) -> set[str]:
        """Texts of literals that are not shown, or that name records."""
        others = set()
        for nodes in self._nodes.values():
            documented = {id(node.body[0].value) for node in nodes if _has_docstring(node)}
            inside = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
            for node in nodes:
                is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
                if is_text and id(node) not in self.literals | documented | inside:
                    others.add(node.value)
        return others


def _shown_parts(node: ast.AST) -> list[ast.AST]:
    """The parts of a shown expression that are shown, too: of a table its keys."""
    match node:
        case ast.JoinedStr():
            fields = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
            return [field for field in fields if isinstance(field, ast.Name)]
        case ast.Dict():
            return [key for key in node.keys if key is not None]
        case ast.List() | ast.Tuple():
            return list(node.elts)
        case ast.IfExp():
            return [node.body, node.orelse]
        case ast.BoolOp():
            return node.values
        case ast.BinOp(op=ast.BitOr()):
            return [node.left, node.right]
        case ast.Starred():
            return [node.value]
        case ast.ListComp() | ast.GeneratorExp():
            return [node.elt]
        case ast.DictComp():
            return [node.key]
        case ast.Call(func=ast.Name(id="list" | "tuple")):
            return list(node.args)
    return []


def _has_docstring(node: ast.AST) -> bool:
    is_documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    return is_documented and ast.get_docstring(node, clean=False) is not None


def _global_values(tree: ast.Module, name: str) -> Iterator[ast.AST]:
    """Expressions that a cell assigns to a variable of the notebook."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
            yield node.value


def _loop_values(target: ast.AST, iterated: ast.AST, name: str) -> Iterator[ast.AST]:
    """The literals that a loop over a written list gives to a variable."""
    if not isinstance(iterated, ast.List | ast.Tuple):
        return
    if isinstance(target, ast.Name) and target.id == name:
        yield from iterated.elts
    elif isinstance(target, ast.Tuple):
        places = [place for place, part in enumerate(target.elts) if isinstance(part, ast.Name) and part.id == name]
        rows = [row for row in iterated.elts if isinstance(row, ast.Tuple) and len(row.elts) == len(target.elts)]
        yield from (row.elts[place] for row in rows for place in places)


def shown_arguments(call: ast.Call) -> Iterator[tuple[ast.AST, str]]:
    """The arguments of a call that a reader sees, with the names of their parameters."""
    names = SHOWN.get(call.func.id) if isinstance(call.func, ast.Name) else None
    if names is None:
        return
    if isinstance(names, int):
        yield from ((argument, "") for argument in call.args[:names])
        return
    yield from ((argument, name) for argument, name in zip(call.args, names, strict=False) if name)
    yield from ((keyword.value, keyword.arg) for keyword in call.keywords if keyword.arg and keyword.arg in names)


def record_names(cells: Sequence[str]) -> set[str]:
    """The source of each argument that names a record: lab, prediction, measurement."""
    calls = [node for cell in cells for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in KEYS]
    return {ast.unparse(argument) for call in named for argument in call.args[:2]}


def _code_string(cell: int, text: str, node: ast.AST) -> CodeString | None:
    """The literal of a node; None if there are no words in it."""
    start, end = _offset(text, node.lineno, node.col_offset), _offset(text, node.end_lineno, node.end_col_offset)
    if isinstance(node, ast.Constant):
        return CodeString(cell, start, end, node.value, False) if _WORD.search(node.value) else None
    parts = [part.value for part in node.values if isinstance(part, ast.Constant)]
    if not any(_WORD.search(part) for part in parts):
        return None
    pieces = [
        match[3] if match[1] else match[3].replace("{", "{{").replace("}", "}}")
        for match in _LITERAL.finditer(text[start:end])
    ]
    return CodeString(cell, start, end, "".join(pieces), True)


def _offset(text: str, line: int, column: int) -> int:
    """Characters before a place that `ast` counts in lines and UTF-8 bytes."""
    lines = text.split("\n")
    before = sum(len(each) + 1 for each in lines[: line - 1])
    return before + len(lines[line - 1].encode()[:column].decode())


def translated_code(cells: Sequence[str], look_up: Lookup) -> list[str]:
    """The code cells with the translations of their strings.

    Raises CodeStringError for a translation with other fields than its message."""
    done = list(cells)
    for string in reversed(code_strings(cells)):
        if (found := look_up(string.message)) is not None:
            text = done[string.cell]
            done[string.cell] = text[: string.start] + literal(string, found) + text[string.end :]
    return done


def literal(string: CodeString, translation: str) -> str:
    """The source of a translated string."""
    if not string.is_format:
        return json.dumps(translation, ensure_ascii=False)  # its escapes are those of Python
    quote = "'" if '"' in string.message else '"'
    if _fields(string.message, quote) != _fields(translation, quote):
        raise CodeStringError(f"the fields differ: {string.message!r} is translated as {translation!r}")
    return f"f{quote}{translation}{quote}"


def _fields(message: str, quote: str) -> list[str]:
    """The fields of an f-string's text, sorted; raises CodeStringError if it is no f-string."""
    try:
        (expression,) = ast.parse(f"f{quote}{message}{quote}").body
    except (SyntaxError, ValueError):
        raise CodeStringError(f"{message!r} is not the text of an f-string with quotes {quote}") from None
    node = getattr(expression, "value", None)
    values = node.values if isinstance(node, ast.JoinedStr) else []
    return sorted(ast.dump(part) for part in values if isinstance(part, ast.FormattedValue))
