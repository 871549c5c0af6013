"""`minillama course build`: copies of the labs for students, nbgrader or otter."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minillama.cli.arguments.values import choice, integer_in
from minillama.cli.output.terminal import note
from minillama.text_language import ENGLISH, check_language

if TYPE_CHECKING:
    from minillama.course.copies.graded_exercises import Exercise

EPILOG = """\
student   the notebooks alone: no solutions, no sources
nbgrader  a course folder: source/ with solutions, release/ without, nbgrader_config.py
otter     a notebook for each lab that `otter assign` takes
Each has points.csv, a table of the points.
"""
NEXT = {
    "student": "next: hand out the notebooks",
    "nbgrader": "next, in {out}: nbgrader generate_assignment {lab}, and later nbgrader autograde {lab} --create",
    "otter": "next, in {out}: otter assign {lab}/{name} {lab}/dist",
}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "build", help="copies of the labs for students, nbgrader or otter", description=__doc__, epilog=EPILOG
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; it must be new or empty")
    parser.add_argument("--for", dest="kind", default="student", type=choice(*NEXT), metavar="WHO",
                        help="student, nbgrader or otter (default: student)")  # fmt: skip
    parser.add_argument("--labs", default=None, metavar="LIST", help="labs, such as 00-06,9 (default: all)")
    parser.add_argument("--lang", default=ENGLISH, metavar="LANG", help="en or zh (default: en)")
    parser.add_argument(
        "--seed",
        type=integer_in(0, 2**31 - 1),
        default=None,
        metavar="N",
        help="seed of the course: hidden tests with inputs of its own, for nbgrader and otter",
    )


def run(args: argparse.Namespace) -> int:
    from minillama.course.copies.course_copies import write_copies
    from minillama.course.copies.student_labs import chosen_labs, lab_names, path_in_language
    from minillama.engine.loading.model_files import labs_folder
    from minillama.errors import OptionError

    language = check_language("--lang", args.lang)
    if args.seed is not None and args.kind == "student":
        raise OptionError(
            "--seed: student copies have no hidden tests; for `minillama course grade` set MINILLAMA_COURSE_SEED"
        )
    folder = labs_folder()
    names = chosen_labs(lab_names(folder), args.labs)
    exercises = write_copies(args.kind, folder, names, language, args.out, args.seed)
    for name in names:
        if language != ENGLISH and path_in_language(folder, name, language).parent == folder:
            note(f"{name.removesuffix('.ipynb')} is not translated into {language} yet; this is the English notebook")
    _print_points(exercises)
    print(NEXT[args.kind].format(out=args.out, lab=f"lab{names[0][:2]}", name=names[0]))
    return 0


def _print_points(exercises: "Sequence[Exercise]") -> None:
    for each in exercises:
        print(f"lab {each.lab}  {each.name:22} {each.points:4g}")
    count = len({each.lab for each in exercises})
    labs = f"{count} lab" + "s" * (count != 1)
    print(f"{len(exercises)} exercises of {labs}, {sum(each.points for each in exercises):g} points")
