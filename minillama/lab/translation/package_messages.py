"""The messages of the package that a learner sees: gettext's domain `minillama`."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from minillama.lab.translation.catalogue_files import Message

# Call -> places of its translated arguments. `translate` runs at the call, the others when the text is shown.
CALLS = {"translate": (0,), "message": (0,), "Mistake": (0,), "NotYet": (0,), "graded": (1,)}
_TEMPLATE_TEXT = re.compile(r'\bt\("([^"]+)"')  # a template calls `translate` by this name
SHOWN_NAMES = {"Prediction": (1, 3)}  # names and units of records: a figure shows them translated, a record never


def package_messages(folder: Path, labs: Sequence[str]) -> list[Message]:
    """The messages of modules and templates below a folder; of checks those of these labs."""
    return _module_messages(folder, labs) + [
        Message(text, path.relative_to(folder).as_posix(), "template")
        for path in sorted(folder.rglob("*.jinja"))
        for text in _TEMPLATE_TEXT.findall(path.read_text(encoding="utf-8"))
    ]


def _module_messages(folder: Path, labs: Sequence[str]) -> list[Message]:
    return [
        message
        for path in sorted(folder.rglob("*.py"))
        if path.stem[:3] != "lab" or not path.stem[3:5].isdigit() or path.stem[3:5] in labs
        for message in _messages(path.read_text(encoding="utf-8"), path.relative_to(folder).as_posix(), CALLS)
    ]


def prediction_messages(code: str, file: str) -> list[Message]:
    """Names and units of the predictions in a lab's code."""
    return list(_messages(code, file, SHOWN_NAMES))


def _messages(code: str, file: str, calls: Mapping[str, tuple[int, ...]]) -> Iterator[Message]:
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call | ast.FunctionDef)]
    for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
        if isinstance(node, ast.FunctionDef):
            texts = [value for value in _praise(node) if "graded" in calls]
            kind = "praise"
        else:
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            texts = [node.args[place] for place in calls.get(name, ()) if place < len(node.args)]
            kind = name
        for text in texts:
            if isinstance(text, ast.Constant) and isinstance(text.value, str) and text.value:
                yield Message(text.value, file, kind)


def _praise(function: ast.FunctionDef) -> list[ast.AST]:
    """The returned values of a graded check."""
    is_graded = any(
        isinstance(each, ast.Call) and ast.unparse(each.func) == "graded" for each in function.decorator_list
    )
    returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)] if is_graded else []
    return [value for value in returned if value is not None]
