"""`minillama course`: the instructor's kit, one module per subcommand."""

import argparse
from importlib import import_module

# Modules of this folder with `add_parser(subparsers)` and `run(args) -> int`.
SUBCOMMANDS = ("build", "grade", "collect", "pack")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "course", help="for instructors: copies, marks and packs of the labs", description=__doc__
    )
    nested = parser.add_subparsers(dest="subcommand", metavar="COMMAND", title="commands", required=True)
    for command in SUBCOMMANDS:
        import_module(f"{__name__}.{command}").add_parser(nested)


def run(args: argparse.Namespace) -> int:
    return import_module(f"{__name__}.{args.subcommand}").run(args)
