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

from minillama import env
from minillama.lab.translation import catalogue_files as files

COMMAND_LINE = "command-line"  # in place of a lab's number
UPDATE = f"python -m minillama.lab.build --lang {{}} --update-po {COMMAND_LINE}"


@dataclass(frozen=True)
class Texts:
    """The folder of the catalogues, and the messages of each."""

    folder: Path
    messages: dict[str, list[files.Message]]


@cache
def texts() -> Texts:
    """The texts of the help, and the templates of the errors."""
    command = [sys.executable, "-m", "minillama.cli.command_messages"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": env.python_path()}, capture_output=True, check=True)
    found = json.loads(done.stdout)
    messages = {
        name: [files.Message(text, place, "command line") for text, place in places.items()]
        for name, places in found["catalogues"].items()
    }
    return Texts(Path(found["folder"]), messages)


def catalogues(language: str) -> dict[str, files.CompiledCatalogue]:
    """The catalogues by name."""
    folder, fix = texts().folder / language / "LC_MESSAGES", UPDATE.format(language)
    return {
        name: files.CompiledCatalogue(folder / f"{name}.po", language, messages, "the command line", fix)
        for name, messages in texts().messages.items()
    }


def update(language: str) -> list[str]:
    """Refresh the catalogues from the sources, and compile them; returns a line for each."""
    for name, catalogue in catalogues(language).items():
        catalogue.update(f"{language} of {name}")
    return counts(language)


def write(language: str) -> list[str]:
    """Write the .mo files that gettext reads; returns a line for each."""
    for catalogue in catalogues(language).values():
        catalogue.compile()
    return counts(language)


def counts(language: str) -> list[str]:
    """A line for each catalogue with its numbers of translated, fuzzy and missing messages."""
    return [f"{name}: {catalogue.counts()}" for name, catalogue in catalogues(language).items()]


def out_of_step(language: str) -> list[str]:
    """A line with file and fix for each outdated catalogue, and for each lost field."""
    return [line for catalogue in catalogues(language).values() for line in catalogue.out_of_step()]
