"""Layering of the package: imports point down, no circles, and only the outer rooms touch the outside world."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "minillama"

# Lowest layer first. A room may import itself and lower layers, but not another room of its own layer.
LAYERS = [
    {"printable_text", "start_guard", "lazy_imports", "array_types"}, {"errors"},
    {"atomic_file", "option_values", "private_files", "text_language"},
    {"machine"}, {"env"}, {"gguf"}, {"tokenizer"}, {"convert"}, {"kernels"}, {"model"},
    {"sampling", "random_models"}, {"parallel"}, {"engine"}, {"measure"}, {"server"}, {"lab"}, {"course"},
    {"cli"},
]  # fmt: skip
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
FIRST = {
    "printable_text", "start_guard", "lazy_imports", "array_types", "errors", "atomic_file", "option_values",
    "private_files", "text_language", "machine", "env",
}  # fmt: skip
WITHOUT_JAX = FIRST | {"gguf", "tokenizer", "convert", "random_models"}
LIGHT_ROOMS = FIRST | {"cli"}  # importing these is quick: `minillama --help` imports no numpy
HEAVY = {
    "jax", "jaxlib", "numpy", "gguf", "huggingface_hub", "tokenizers", "safetensors", "jinja2", "regex", "tqdm",
    "psutil",
}  # fmt: skip
OUTSIDE_WORLD = {"cli", "course", "lab", "server"}  # rooms that print, parse arguments and read the environment
# `atomic_file` writes files; the others have a lock file and standard streams.
WRITERS = {"atomic_file", "measurement_lock", "model_from_args", "standard_streams"}
WRITING = {
    "os.replace", "os.rename", "os.fdopen", "tempfile.NamedTemporaryFile", "tempfile.mkstemp",
    "shutil.copy", "shutil.copy2", "shutil.copyfile", "shutil.move", "np.save", "np.savez", "nbformat.write",
}  # fmt: skip
WRITING_METHODS = {".write_text", ".write_bytes", ".tofile", ".rename"}
MOST_FILES = 12  # modules of one folder, without __init__, the commands of cli and the checks, one for each lab

SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem in LEVEL)


@cache
def parsed(path: Path) -> ast.Module:
    """The tree of a module; collection of the suite does not pay for it."""
    return ast.parse(path.read_text(encoding="utf-8"))


def nodes(path: Path, words: str) -> Iterator[ast.AST]:
    """All nodes of a module that has one of these words (a pattern) in its text; none of the others."""
    return ast.walk(parsed(path)) if re.search(words, path.read_text(encoding="utf-8")) else iter(())


def module_name(path: Path) -> str:
    """`minillama.cli.bench` of a path; a folder's name for its `__init__.py`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def place(path: Path, line: int = 0) -> str:
    return f"{path.relative_to(PACKAGE.parent)}:{line}" if line else str(path.relative_to(PACKAGE.parent))


def statements(node: ast.AST, everywhere: bool) -> Iterator[ast.AST]:
    """The statements below a node, in order; see `imports`."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            continue  # an expression contains no import
        if not everywhere and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not everywhere and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from statements(child, everywhere)


@cache
def imports(path: Path, *, everywhere: bool = True) -> tuple[tuple[str, int], ...]:
    """Full names of imported modules with their lines.

    everywhere: also those inside functions and under TYPE_CHECKING; otherwise only what runs on import.
    """
    found: list[tuple[str, int]] = []
    for node in statements(parsed(path), everywhere):
        if isinstance(node, ast.Import):
            found += ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{place(path, node.lineno)}: relative import"
            for alias in node.names:  # `from package import module` is an import of the module
                full = f"{node.module}.{alias.name}"
                found.append((full if full in MODULES else node.module or "", node.lineno))
    return tuple(found)


def edges() -> dict[str, set[str]]:
    """Module -> modules of the same room that it imports, anywhere in the file."""
    found: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        mine = {other for other, _ in imports(path) if other in MODULES and room_of(MODULES[other]) == room_of(path)}
        found[name] = mine - {name}
    return found


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one node."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen, waiting = set(), [start]
        while waiting:
            for other in graph.get(waiting.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
        reach[start] = seen
    groups = {tuple(sorted(b for b in reach[a] if a in reach.get(b, ()))) for a in graph if a in reach[a]}
    return [list(group) for group in sorted(groups)]


def test_imports_point_down() -> None:
    problems = []
    for path in SOURCES:
        room = room_of(path)
        for name, line in imports(path):
            parts = name.split(".")
            other = parts[1] if parts[0] == "minillama" and len(parts) > 1 else room
            if other in LEVEL and other != room and LEVEL[other] >= LEVEL[room]:
                problems.append(f"{place(path, line)}: {room} must not import {name}")
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith(("_", "."))}
    problems += [f"room without a layer: {folder}" for folder in sorted(folders - set(LEVEL))]
    assert not problems, "\n".join(problems)


def test_heavy_imports_come_late() -> None:
    problems = []
    for path in SOURCES:
        room = room_of(path)
        forbidden = {"jax", "jaxlib"} if room in WITHOUT_JAX else set()
        found = [(name, line) for name, line in imports(path) if name.split(".")[0] in forbidden]
        if room in LIGHT_ROOMS:
            found += [(name, line) for name, line in imports(path, everywhere=False) if name.split(".")[0] in HEAVY]
        problems += [f"{place(path, line)}: {room} must not import {name} here" for name, line in found]
    assert not problems, "\n".join(problems)


def test_only_the_outer_rooms_touch_the_outside_world() -> None:
    problems = []
    for path in SOURCES:
        room = room_of(path)
        if room in OUTSIDE_WORLD:
            continue
        for node in nodes(path, r"print|input|environ|getenv|argv"):
            where = place(path, getattr(node, "lineno", 0))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "input"):
                problems.append(f"{where}: {node.func.id}()")
            if (
                isinstance(node, ast.Attribute)
                and node.attr in ("environ", "getenv", "argv")
                and room not in ("env", "start_guard")
            ):
                problems.append(f"{where}: {ast.unparse(node)}")
        problems += [f"{place(path, line)}: argparse" for name, line in imports(path) if name == "argparse"]
    assert not problems, "\n".join(problems)


def test_one_module_writes_files() -> None:
    problems = []
    words = "|".join(name.rpartition(".")[2] for name in [*WRITING, *WRITING_METHODS])
    for path in SOURCES:
        for node in nodes(path, f"open|{words}"):
            if not isinstance(node, ast.Call) or path.stem in WRITERS:
                continue
            called = ast.unparse(node.func)
            method = f".{called.rpartition('.')[2]}" if "." in called else ""
            modes = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
            opened = called == "open" or method == ".open"
            writes = opened and any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes)
            if writes or called in WRITING or method in WRITING_METHODS:
                problems.append(f"{place(path, node.lineno)}: {called}; use atomic_write")
    assert not problems, "\n".join(problems)


def test_no_circles() -> None:
    """Neither between the modules of a room nor between its sub-rooms, imports inside functions included."""
    graph = edges()
    problems = [" <-> ".join(circle) for circle in circles(graph)]
    folders: dict[str, set[str]] = defaultdict(set)
    for name, others in graph.items():
        for other in others:
            folder, imported = sub_room(name), sub_room(other)
            if folder and imported and not is_inside(folder, imported) and not is_inside(imported, folder):
                folders[folder].add(imported)
    problems += ["sub-rooms " + " <-> ".join(circle) for circle in circles(folders)]
    assert not problems, "\n".join(problems)


def sub_room(module: str) -> str | None:
    """The folder of a module inside its room; None for modules that lie in the room itself."""
    folder = MODULES[module].parent
    return None if folder == PACKAGE or folder.parent == PACKAGE else module_name(folder / "__init__.py")


def is_inside(folder: str, other: str) -> bool:
    """True if a folder is the other one or lies in it; a folder and its parent may import each other's modules."""
    return f"{folder}.".startswith(f"{other}.")


def test_names_and_sizes_of_rooms() -> None:
    folders = (PACKAGE / "cli", PACKAGE / "cli" / "course")
    commands = {path for path in SOURCES if path.parent in folders and "def add_parser" in path.read_text()}
    modules = [path for path in SOURCES if path.stem != "__init__" and path not in commands]
    counts = Counter(path.stem for path in modules)
    problems = [
        f"{name}.py is there {count} times: {', '.join(place(path) for path in modules if path.stem == name)}"
        for name, count in sorted(counts.items())
        if count > 1
    ]
    listed = [path for path in modules if path.parent != PACKAGE / "lab" / "checks"]
    sizes = Counter(path.parent for path in listed if path.parent != PACKAGE)
    problems += [
        f"{place(folder)} has {count} modules; at most {MOST_FILES}"
        for folder, count in sorted(sizes.items())
        if count > MOST_FILES
    ]
    assert not problems, "\n".join(problems)
