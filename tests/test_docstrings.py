"""First docstring lines: at most 15 words of plain English in standard terms (docs/contributing.md)."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATTERNS = {
    "begins with a question word": r"^(What|Who|Whoever|Where|Which|How)\b",
    "'for' as a conjunction": r", for (?!example|each|every|all|both|one|two|many|any|a |an |the )",
    "say 'after' or 'past' in place of 'behind'": r"\bbehind\b",
    "say 'next to' or 'with' in place of 'beside'": r"\bbesides?\b",
    "'of which'": r"\bof (which|whom)\b",
    "code is not a person": r"\b(nobody|whoever|wish(es)?|its own business|asks|knows|sees to it)\b",
    "dialect": r"\b(by turns|told apart|so many|twins?|has it that|as it lies|says so)\b",
}
MOST_WORDS = 15


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Line number and first line of every docstring of a file."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.excepthandler)]
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text.split("\n", 1)[0]


def problems(folder: Path) -> list[str]:
    found = []
    for path in sorted(folder.rglob("*.py")):
        for line, text in docstrings(path):
            reasons = [reason for reason, pattern in PATTERNS.items() if re.search(pattern, text)]
            plain = re.sub(r"`[^`]*`|\([^)]*\)", "x", text)  # code, sources and shapes are not prose
            if len(plain.split()) > MOST_WORDS:
                reasons.append(f"{len(plain.split())} words")
            if reasons:
                found.append(f"{path.relative_to(ROOT)}:{line}: {text!r}: {', '.join(reasons)}")
    return found


def test_first_lines() -> None:
    found = problems(ROOT / "minillama")
    assert not found, "\n".join(found)
