"""A translation of any message, and the trees of code without its texts."""

import ast
import re


def shouted(message: str) -> str:
    """A translation of any message: the same fields and code, other letters outside of them."""
    parts = re.split(r"(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}|\\n|`[^`]*`)", message)
    return "".join(part if place % 2 else part.upper() for place, part in enumerate(parts))


def without_texts(code: str) -> str:
    """The tree of a cell in which all texts are equal."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
        if isinstance(node, ast.JoinedStr):  # fields in any order, texts between them or not
            fields = [part for part in node.values if isinstance(part, ast.FormattedValue)]
            node.values = sorted(fields, key=ast.dump)
    return ast.dump(tree)
