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
    "gguf": Row("gguf_kind", 60),
    "tokenizer": Row("tokenizer_kind", 15),
    "template": Row("template_kind", 7),
    "wire": Row("wire_kind", 8),
    "cli": Row("cli_kind", 5),
    "side_file": Row("side_file_kind", 5),
}


def shares(names: list[str], cases: int) -> dict[str, int]:
    """Number of cases of each kind; the sum is `cases`."""
    total = sum(KINDS[name].share for name in names)
    found = {name: cases * KINDS[name].share // total for name in names}
    found[names[0]] += cases - sum(found.values())
    return found


def create(name: str, folder: Path) -> Kind:
    """Set up a kind in this process."""
    return import_module(f"tests.fuzz.{KINDS[name].module}").KIND(folder)
