"""`minillama course`: the instructor's kit, one module per subcommand."""

import argparse
from importlib import import_module
from importlib.util import find_spec

# Subcommand -> module in this folder with `add_parser(subparsers)` and `run(args) -> int`.
SUBCOMMANDS = {"build": "build", "grade": "grade", "collect": "collect", "pack": "pack"}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "course", help="for instructors: copies, marks and packs of the labs", description=__doc__
    )
    nested = parser.add_subparsers(dest="subcommand", metavar="COMMAND", title="commands", required=True)
    for module in SUBCOMMANDS.values():
        if find_spec(f"{__name__}.{module}") is not None:
            import_module(f"{__name__}.{module}").add_parser(nested)


def run(args: argparse.Namespace) -> int:
    return import_module(f"{__name__}.{SUBCOMMANDS[args.subcommand]}").run(args)
