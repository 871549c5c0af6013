"""The rooms of the house: imports go down only, and what must not be known is not known."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "minillama"

# Ground floor first. A room may import itself and what stands before it; the last ones do not know each other.
FLOORS = [
    {"errors"}, {"env"}, {"gguf"}, {"tokenizer"}, {"kernels"}, {"model"}, {"sampling"}, {"parallel"}, {"engine"},
    {"measure"}, {"cli", "lab", "server"},
]  # fmt: skip
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
WITHOUT_JAX = {"errors", "env", "gguf", "tokenizer"}
LIGHT = {"jax", "numpy", "gguf", "huggingface_hub", "tokenizers", "jinja2", "regex", "tqdm", "psutil"}
OUTSIDE_WORLD = {"cli", "lab", "server"}  # rooms that print, parse arguments and read the environment

SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem in LEVEL)
NAMES = [path.relative_to(PACKAGE).as_posix() for path in SOURCES]


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, *, everywhere: bool) -> Iterator[tuple[str, int]]:
    """Full names of imported modules; with everywhere=False only what runs when the module is imported."""

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            if not everywhere and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if not everywhere and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            yield child
            yield from walk(child)

    for node in walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.module or "", node.lineno
            if node.module == "minillama":
                yield from ((f"minillama.{alias.name}", node.lineno) for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_imports_go_down(path: Path) -> None:
    room = room_of(path)
    for name, line in imports(path, everywhere=True):
        parts = name.split(".")
        if parts[0] != "minillama" or len(parts) == 1 or parts[1] not in LEVEL or parts[1] == room:
            continue
        assert LEVEL[parts[1]] < LEVEL[room], f"{path}:{line}: {room} must not import {name}"


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_no_jax_where_none_belongs(path: Path) -> None:
    room = room_of(path)
    if room in WITHOUT_JAX:
        found = [name for name, _ in imports(path, everywhere=True) if name.split(".")[0] in ("jax", "jaxlib")]
        assert not found, f"{path} imports {found}"
    if room == "cli" or room in ("errors", "env"):
        heavy = [name for name, _ in imports(path, everywhere=False) if name.split(".")[0] in LIGHT]
        assert not heavy, f"{path} imports {heavy} before it has to"


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_only_the_skins_touch_the_outside_world(path: Path) -> None:
    room = room_of(path)
    if room in OUTSIDE_WORLD:
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "input"), f"{where}: {node.func.id}()"
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "argv"):
            assert room == "env", f"{where}: {ast.unparse(node)}"
    assert "argparse" not in [name for name, _ in imports(path, everywhere=True)], f"{path} parses arguments"


def test_every_room_is_known() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith(("_", "."))}
    assert folders <= set(LEVEL), f"rooms without a floor: {folders - set(LEVEL)}"
