"""Texts of the command line to translate, as JSON: `python -m minillama.cli.command_messages`.

The help comes from the parsers. The errors come from the code: a template for each raised f-string, with a field for
each value. `minillama.lab.build --lang zh_CN --update-po command-line` writes them into the catalogues.
"""

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

from minillama.cli import build_parser
from minillama.cli.arguments.parser import USAGE
from minillama.cli.translation.command_texts import ERRORS, HELP, LOCALE_FOLDER

PACKAGE = Path(__file__).parents[1]
# Modules with the errors that users of the command line get most.
SOURCES = (
    "cli/**/*.py", "atomic_file.py", "env.py", "option_values.py", "text_language.py", "gguf/header_*.py",
    "gguf/reader.py", "engine/backends/choose.py", "engine/load.py", "engine/load_options.py",
    "engine/loading/layer_placement.py", "engine/loading/memory_budget.py", "engine/loading/model_files.py",
    "engine/session.py", "measure/device/device_report.py", "measure/host/*.py", "measure/quality/text_windows.py",
    "measure/serving/batched_bench.py", "measure/serving/event_stream.py", "measure/speed/latency.py",
    "server/listen.py",
)  # fmt: skip
CALLS = {"error", "warning"}  # methods of the parser and of loggers
RETURNING = {"_explain", "_missing"}  # functions that return the text of an error
# Texts that the code puts together in other ways, and those of argparse and of the system.
OTHERS = (
    "invalid argument: {name}; see {program} --help",
    "invalid argument: {name} (did you mean {near}?); see {program} --help",
    "argument {name}: {message}",
    "the following arguments are required: {names}",
    "the Python package {name} is missing; install it: pip install {name}",
    "No such file or directory",
    "Permission denied",
    "Is a directory",
    "Not a directory",
    "File exists",
    "No space left on device",
    "Connection refused",
    "Address already in use",
)


def help_messages() -> dict[str, str]:
    """Texts of all help pages, each with the command that has it first."""
    found = {USAGE: "minillama"}
    for parser_of_help in _parsers(build_parser()):
        for text in _texts_of_help(parser_of_help):
            found.setdefault(text, parser_of_help.prog)
    return found


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser with those of its subcommands, and of theirs."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _parsers(inner)


def _texts_of_help(parser: argparse.ArgumentParser) -> Iterator[str]:
    texts = [paragraph for text in (parser.description, parser.epilog) if text for paragraph in text.split("\n\n")]
    for group in parser._action_groups:
        shown = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        texts += [group.title, group.description] if shown else []
        for action in shown:
            choices = action._choices_actions if isinstance(action, argparse._SubParsersAction) else []
            texts += [action.help, *(choice.help for choice in choices)]
    return (text for text in texts if text)


def error_messages(package: Path = PACKAGE) -> dict[str, str]:
    """Templates of errors and warnings, each with the file that has it first."""
    found = {}
    for pattern in SOURCES:
        for path in sorted(package.glob(pattern)):
            file = path.relative_to(package).as_posix()
            for text in templates(path.read_text(encoding="utf-8")):
                found.setdefault(text, file)
    for parser in _parsers(build_parser()):
        for action in parser._actions:
            reason = getattr(getattr(action, "_option", None), "reason", "")
            if reason:
                found.setdefault(escaped(reason), "cli/arguments/ignored_options.py")
    return found | {text: found.get(text, "cli/command_messages.py") for text in OTHERS}


def templates(code: str) -> Iterator[str]:
    """Templates of the errors and warnings in the code of a module."""
    for node in ast.walk(ast.parse(code)):
        for text in _texts_of(node):
            literal = re.sub(r"\{\w+\}", "\0", text)
            is_recognisable = len(re.findall("[A-Za-z]{2,}", literal)) >= 2 or literal == "\0: \0"
            if is_recognisable and "\0\0" not in literal:
                yield text


def _texts_of(node: ast.AST) -> list[str]:
    """The templates of one statement or call."""
    if isinstance(node, ast.FunctionDef) and node.name in RETURNING:
        returned = [each.value for each in ast.walk(node) if isinstance(each, ast.Return) and each.value]
        return [text for value in returned for text in expanded(value)]
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
        name = ast.unparse(node.exc.func)
        return expanded(node.exc.args[0]) if name.endswith("Error") else []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS and node.args:
        text = node.args[0]
        if node.func.attr == "warning" and isinstance(text, ast.Constant):
            return [_of_record(str(text.value), node.args[1:])]
        return expanded(text)
    return []


def _of_record(text: str, values: Iterable[ast.expr]) -> str:
    """The template of a log record, which has percent signs."""
    names = _names(values)
    return re.sub(r"%[-.\d]*[a-z]", lambda match: f"{{{next(names)}}}", escaped(text))


def expanded(text: ast.expr) -> list[str]:
    """Templates of an expression, one for each of its branches."""
    return [_with_fields(parts) for parts in _branches(text)]


Part = str | ast.expr  # of a text: constant characters or a value


def _branches(text: ast.expr) -> list[list[Part]]:
    if isinstance(text, ast.Constant) and isinstance(text.value, str):
        return [[text.value]]
    if isinstance(text, ast.IfExp):
        return _branches(text.body) + _branches(text.orelse)
    if isinstance(text, ast.BinOp) and isinstance(text.op, ast.Add):
        return [left + right for left, right in product(_branches(text.left), _branches(text.right))]
    if isinstance(text, ast.JoinedStr):
        choices = [_branches_of_part(part) for part in text.values]
        return [[part for parts in chosen for part in parts] for chosen in product(*choices)]
    return []


def _branches_of_part(part: ast.expr) -> list[list[Part]]:
    if not isinstance(part, ast.FormattedValue):
        return _branches(part)
    found = _branches(part.value) if isinstance(part.value, ast.IfExp) else []
    return found if len(found) > 1 else [[part.value]]


def _with_fields(parts: list[Part]) -> str:
    names = _names(part for part in parts if not isinstance(part, str))
    return "".join(escaped(part) if isinstance(part, str) else f"{{{next(names)}}}" for part in parts)


def _names(values: Iterable[ast.expr]) -> Iterator[str]:
    """A field's name for each value; only equal values share a name."""
    names: dict[str, str] = {}
    for value in values:
        source, name = ast.unparse(value), _name(value)
        if source not in names:
            count = sum(re.fullmatch(rf"{name}\d*", other) is not None for other in names.values())
            names[source] = f"{name}{count + 1}" if count else name
        yield names[source]


def _name(value: ast.expr) -> str:
    """A name for a value: that of its variable, attribute or first argument."""
    if isinstance(value, ast.Name):
        return value.id
    if isinstance(value, ast.Attribute):
        return value.attr
    if isinstance(value, ast.Call) and value.args:
        return _name(value.args[0])
    inner = {ast.BoolOp: "values", ast.BinOp: "left", ast.Subscript: "value", ast.GeneratorExp: "elt"}
    if type(value) in inner:
        found = getattr(value, inner[type(value)])
        return _name(found[0] if isinstance(found, list) else found)
    return "value"


def escaped(text: str) -> str:
    """A text as a template: braces are doubled."""
    return text.replace("{", "{{").replace("}", "}}")


def main() -> int:
    """Print the folder of the catalogues, and for each catalogue the texts with their places."""
    texts = {HELP: help_messages(), ERRORS: error_messages()}
    json.dump({"folder": str(LOCALE_FOLDER), "catalogues": texts}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
