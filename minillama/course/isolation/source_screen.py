"""A screen of source code for checks that must run in the learner's own process.

JAX and the kernel compiler trace a function: it cannot run apart from its check. Such code may only compute. The screen
refuses what reaches the interpreter, the check or the system. It is a hurdle, not a proof.
"""

import ast
from collections.abc import Sequence

MODULES = {
    "collections", "dataclasses", "functools", "itertools", "jax", "math", "minillama", "numpy", "operator", "typing",
}  # fmt: skip
NAMES = {
    "__import__", "breakpoint", "compile", "delattr", "eval", "exec", "exit", "getattr", "globals", "help", "input",
    "locals", "memoryview", "open", "print", "quit", "setattr", "super", "type", "vars", "check", "checks", "grading",
}  # fmt: skip
ATTRIBUTES = {
    "attrsetter", "builtins", "checks", "ctypes", "ctypeslib", "dump", "frompyfunc", "fromfile", "gc", "grading",
    "importlib", "inspect", "io", "lab_record", "load", "memmap", "modules", "os", "pickle", "posix", "pure_callback",
    "io_callback", "callback", "debug", "experimental", "save", "savetxt", "savez", "subprocess", "sys", "tofile",
    "testing", "threading", "tracemalloc", "types",
}  # fmt: skip
ALLOWED_PATHS = {"jax.experimental.pallas", "jax.experimental"}


def refused(sources: Sequence[str]) -> str | None:
    """The first thing in the sources that the screen refuses; None if they pass."""
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if found := _of(node):
                return f"{found} (line {getattr(node, 'lineno', 1)})"
    return None


def _of(node: ast.AST) -> str | None:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return _of_import(node)
    if isinstance(node, ast.Name) and (node.id in NAMES or node.id.startswith("__")):
        return node.id
    if isinstance(node, ast.Attribute):
        if isinstance(node.ctx, ast.Store | ast.Del):
            return f"an assignment to .{node.attr}"
        if node.attr in ATTRIBUTES or node.attr.startswith("_"):
            return f".{node.attr}"
    return "global" if isinstance(node, ast.Global) else None


def _of_import(node: ast.Import | ast.ImportFrom) -> str | None:
    module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
    paths = [f"{module}.{alias.name}".lstrip(".") for alias in node.names]
    for path in paths:
        words = path.split(".")
        is_ours = words[0] == "minillama" and ("checks" in words or "grading" in words or "course" in words)
        if words[0] not in MODULES or is_ours or path.endswith("*"):
            return f"import of {path}"
        if path not in ALLOWED_PATHS and any(word in ATTRIBUTES or word.startswith("_") for word in words):
            return f"import of {path}"
    return None
