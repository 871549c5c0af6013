"""The kinds of cases by name; a process imports only its own."""

from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.case_kind import Kind, Limits


class Row(NamedTuple):
    module: str
    share: int  # of all cases of a run, in percent
    batch: int = 200  # cases between two reports
    limits: Limits = Limits()


KINDS = {
    "gguf": Row("gguf_kind", 50, limits=Limits(growth=4_000)),
    # `tokenizers` 0.23 keeps about a kilobyte of every model that it has encoded a text with, more for a long text
    "tokenizer": Row("tokenizer_kind", 15, limits=Limits(growth=20_000)),
    "template": Row("template_kind", 7),
    # calls of new shapes are compiled
    "wire": Row("wire_kind", 8, limits=Limits(cpu_seconds=30.0, hang_seconds=180.0, memory=512 << 20, growth=10_000)),
    # one in a hundred computes
    "cli": Row("cli_kind", 5, limits=Limits(cpu_seconds=60.0, hang_seconds=240.0, memory=512 << 20, growth=15_000)),
    "side_file": Row("side_file_kind", 5),
    # a megabyte of GBNF takes seconds
    "grammar": Row("grammar_kind", 5, limits=Limits(cpu_seconds=5.0, hang_seconds=120.0)),
    # the client of a case is a thread and an event loop
    "request": Row("request_kind", 5, limits=Limits(growth=20_000)),
}
# Of the harness's own tests
TOY = Row("toy_kind", 0, batch=20, limits=Limits(cpu_seconds=0.3, hang_seconds=3.0, memory=16 << 20))


def row(name: str) -> Row:
    """The row of a kind."""
    return TOY if name == "toy" else KINDS[name]


def shares(names: list[str], cases: int) -> dict[str, int]:
    """Number of cases of each kind; the sum is `cases`."""
    total = sum(KINDS[name].share for name in names)
    found = {name: cases * KINDS[name].share // total for name in names}
    found[names[0]] += cases - sum(found.values())
    return found


def create(name: str, folder: Path) -> Kind:
    """Set up a kind in this process."""
    return import_module(f"tests.fuzz.{row(name).module}").KIND(folder)
