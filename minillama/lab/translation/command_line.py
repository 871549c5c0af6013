"""Catalogues of the command line: `minillama/cli/locale/zh_CN/LC_MESSAGES/minillama-cli*.po`.

The texts come from a process of `minillama.cli.command_messages`: the labs do not import the command line.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import minillama
from minillama.lab.translation import catalogue_files as files

COMMAND_LINE = "command-line"  # in place of a lab's number
UPDATE = f"run python -m minillama.lab.build --lang {{}} --update-po {COMMAND_LINE}"


@dataclass(frozen=True)
class Texts:
    """The folder of the catalogues, and the messages of each."""

    folder: Path
    messages: dict[str, list[files.Message]]


@cache
def texts() -> Texts:
    """The texts of the help, and the templates of the errors."""
    root = Path(minillama.__file__).parents[1]
    path = os.pathsep.join(part for part in (str(root), os.environ.get("PYTHONPATH", "")) if part)
    command = [sys.executable, "-m", "minillama.cli.command_messages"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=True)
    found = json.loads(done.stdout)
    messages = {
        name: [files.Message(text, place, "command line") for text, place in places.items()]
        for name, places in found["catalogues"].items()
    }
    return Texts(Path(found["folder"]), messages)


def catalogue_path(name: str, language: str) -> Path:
    """The .po file of a catalogue; gettext reads the .mo file next to it."""
    return texts().folder / language / "LC_MESSAGES" / f"{name}.po"


def update(language: str) -> list[str]:
    """Refresh the catalogues from the sources, and compile them; returns a line for each."""
    for name, messages in texts().messages.items():
        path = catalogue_path(name, language)
        catalogue = files.updated(files.read_catalogue(path, language), messages, language)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_catalogue(catalogue, path, f"{language} of {name}", language)
        files.write_compiled(catalogue, path.with_suffix(".mo"))
    return counts(language)


def write(language: str) -> list[str]:
    """Write the .mo files that gettext reads; returns a line for each."""
    for name in texts().messages:
        path = catalogue_path(name, language)
        files.write_compiled(files.read_catalogue(path, language), path.with_suffix(".mo"))
    return counts(language)


def counts(language: str) -> list[str]:
    """A line for each catalogue with its numbers of translated, fuzzy and missing messages."""
    return [
        f"{name}: {files.counts(files.read_catalogue(catalogue_path(name, language), language), messages)}"
        for name, messages in texts().messages.items()
    ]


def out_of_step(language: str) -> list[str]:
    """A line with file and fix for each outdated catalogue, and for each lost field."""
    lines = []
    for name, messages in texts().messages.items():
        path = catalogue_path(name, language)
        catalogue = files.read_catalogue(path, language)
        if late := files.unknown(catalogue, messages):
            lines.append(
                f"{path.name} has other messages than the command line, such as {late[0][:60]!r}: "
                f"{UPDATE.format(language)}"
            )
        if files.translations(catalogue) != files.compiled(path.with_suffix(".mo")):
            lines.append(f"{path.stem}.mo is not that of {path.name}: {UPDATE.format(language)}")
        lines += [f"{path.name}: {problem}" for problem in files.problems(catalogue)]
    return lines
