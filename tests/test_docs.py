"""The documents agree with the code: modules, commands, options, paths and error messages."""

import argparse
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from minillama.cli import ALIASES, COMMANDS, build_parser

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *DOCS]}
MODULES = {
    path.relative_to(ROOT / "minillama").as_posix()
    for path in (ROOT / "minillama").rglob("*.py")
    if path.name != "__init__.py"
}


def test_every_module_is_in_the_architecture_once() -> None:
    listed = re.findall(r"^\| `([\w/]+\.py)` \| \S", TEXTS["docs/architecture.md"], re.MULTILINE)
    assert len(listed) == len(set(listed)), sorted({name for name in listed if listed.count(name) > 1})
    assert MODULES - set(listed) == set(), "not in docs/architecture.md"
    assert set(listed) - MODULES == set(), "in docs/architecture.md, but not in the package"


@pytest.mark.parametrize("name", TEXTS)
def test_paths_exist(name: str) -> None:
    for path in re.findall(r"`((?:[\w.]+/)+\w+\.(?:py|md|yml|txt))`", TEXTS[name]):
        assert "NN" in path or (ROOT / path).exists() or (ROOT / "minillama" / path).exists(), f"{name}: {path}"


@pytest.mark.parametrize("name", TEXTS)
def test_functions_are_where_the_text_says(name: str) -> None:
    for function, path in re.findall(r"`(\w+)` in `((?:\w+/)+\w+\.py)`", TEXTS[name]):
        source = next(folder / path for folder in (ROOT / "minillama", ROOT) if (folder / path).exists())
        pattern = rf"^(?:    )?(?:(?:def|class) {function}\b|{function}\b.*? = )"
        assert re.search(pattern, source.read_text(encoding="utf-8"), re.MULTILINE), f"{name}: {function} in {path}"


def commands(text: str) -> Iterator[list[str]]:
    """Commands of minillama in code blocks and code spans, as lists of words."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    spans = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in [*lines, *spans]:
        if match := re.match(r"(?:\.venv/bin/)?minillama ([a-z].*)", line):
            yield shlex.split(match[1], comments=True)


def options(parser: argparse.ArgumentParser) -> dict[str, set[str]]:
    """Options of every subcommand."""
    subparsers = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {
        name: set(sub._option_string_actions).union(*nested(sub).values()) for name, sub in subparsers.choices.items()
    }


def nested(parser: argparse.ArgumentParser) -> dict[str, set[str]]:
    """Options of a command's own subcommands; none of most commands."""
    has = any(isinstance(action, argparse._SubParsersAction) for action in parser._actions)
    return options(parser) if has else {}


@pytest.mark.parametrize("name", TEXTS)
def test_commands_and_options_exist(name: str) -> None:
    known = options(build_parser())
    for command, *words in commands(TEXTS[name]):
        assert command in COMMANDS or command in ALIASES, f"{name}: minillama {command}"
        given = {word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)}
        assert given <= known[ALIASES.get(command, command)], f"{name}: minillama {command} {words}"


def test_error_messages_exist() -> None:
    """The table of the troubleshooting page quotes messages, with ... for their variable parts."""
    sources = " ".join((ROOT / "minillama" / name).read_text(encoding="utf-8") for name in MODULES)
    sources = re.sub(r'"\s*\n\s*f?"', "", sources)
    rows = re.findall(r"^\| `([^`|]+)` \|", TEXTS["docs/troubleshooting.md"], re.MULTILINE)
    ours = [row for row in rows if row != "requires a different Python"]  # pip's
    assert len(ours) > 5
    for row in ours:
        for part in re.split(r"\.\.\.|\bN\b", row.removeprefix("warning: ")):
            assert part.strip() in sources, f"{row}: {part.strip()!r} is no message of minillama"


def test_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    used = {
        name for text in TEXTS.values() for group in re.findall(r"\.\[([a-z,]+)\]", text) for name in group.split(",")
    }
    assert {"labs", "test", "docs"} <= used <= set(extras)


def test_every_page_is_in_the_navigation() -> None:
    navigation = re.search(
        r"^nav:\n(.*?)^\w", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert navigation is not None
    pages = re.findall(r"[\w./-]+\.md", navigation[1])
    assert sorted(pages) == [path.relative_to(ROOT / "docs").as_posix() for path in DOCS]


def test_the_drawing_has_every_room() -> None:
    drawn = re.findall(
        r"<text[^>]*>([^<]+)</text>", (ROOT / "docs/images/architecture.svg").read_text(encoding="utf-8")
    )
    rooms = {path.parent.name for path in (ROOT / "minillama").glob("*/__init__.py")}
    assert rooms <= set(drawn)
