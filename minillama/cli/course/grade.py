"""`minillama course grade`: marks, feedback pages and look-alikes of a class's notebooks."""

import argparse
import os
import warnings
from pathlib import Path

from minillama.cli.arguments.values import integer_in
from minillama.cli.output.output_file import check_output_file
from minillama.cli.output.terminal import INTERRUPTED, note, write_text
from minillama.errors import OptionError, ResourceError

LOOK_ALIKES = "look-alikes.html"
EPILOG = """\
SUBMISSIONS holds a folder, a notebook or a zip archive for each learner. Only the cells of exercises run, each lab in a
fresh process with limits, and the package's own checks examine the functions. A learner's results files are not read.
MINILLAMA_COURSE_SEED, if it is set, chooses the hidden inputs.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "grade", help="mark the exercises of a class", description=__doc__, epilog=EPILOG
    )  # fmt: skip
    parser.add_argument("submissions", type=Path, metavar="SUBMISSIONS", help="folder with one submission a learner")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("grades.csv"), metavar="FILE", help="table (default: grades.csv)"
    )
    parser.add_argument(
        "--feedback", type=Path, default=None, metavar="FOLDER",
        help="folder of the pages (default: the table's name and -feedback)",
    )  # fmt: skip
    parser.add_argument("--labs", default=None, metavar="LIST", help="labs that count, such as 00-06,9 (default: all)")
    parser.add_argument(
        "--seconds", type=integer_in(1, 86_400), default=60, metavar="N", help="time of a lab's code (default: 60)"
    )
    parser.add_argument(
        "--memory", type=integer_in(1, 1024), default=4, metavar="GIB", help="memory of a lab's code (default: 4)"
    )
    parser.add_argument("-j", "--jobs", type=integer_in(1, 256), default=1, metavar="N",
                        help="labs to mark at once (default: 1)")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="overwrite the table and the pages")


def run(args: argparse.Namespace) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of learners' code, when it is parsed
        return _grade(args)


def _grade(args: argparse.Namespace) -> int:
    from tqdm.auto import tqdm

    from minillama.course.gradebook.feedback_page import page_name, write_page
    from minillama.course.gradebook.grades_table import write_table
    from minillama.course.gradebook.look_alikes import look_alikes
    from minillama.course.gradebook.look_alikes_page import write_look_alikes
    from minillama.course.isolation.process_limits import landlock_version
    from minillama.course.marking.class_marks import ClassMarker, MarkingOptions, labs_handed_in, read_class
    from minillama.course.marking.lab_exercises import labs_named
    from minillama.course.marking.marks import LearnerMark
    from minillama.course.marking.submissions import entries

    if os.name != "posix":
        raise ResourceError("grading runs on Linux and macOS; on Windows use WSL or a container")
    if not landlock_version():
        note("this system has no Landlock: learners' code can read and write your files; grade in a container")
    given = None if args.labs is None else labs_named(args.labs)
    paths = entries(args.submissions)
    folder = feedback_folder(args)
    learners = read_class(paths, given)
    labs = labs_handed_in(learners) if given is None else given
    marker = ClassMarker(MarkingOptions(args.seconds, args.memory << 30, args.jobs, labs))
    found: dict[int, LearnerMark] = {}
    taken = {LOOK_ALIKES.casefold()}
    pages = [folder / page_name(each.learner, taken) for each in learners]
    status = 0
    try:
        write_table(args.output, labs, [])
        for place, mark in tqdm(marker.marks(learners), total=len(learners), desc="learners", unit="learner"):
            found[place] = mark
            write_page(pages[place], mark)
            write_table(args.output, labs, [found[each] for each in sorted(found)])
    except KeyboardInterrupt:
        note(f"interrupted: {len(found)} of {len(paths)} learners are in {args.output}")
        status = INTERRUPTED
    finally:
        marker.close()
    marks = [found[place] for place in sorted(found)]
    pairs = look_alikes(marks)
    write_look_alikes(folder / LOOK_ALIKES, pairs)
    write_text(f"{args.output}: {len(marks)} learners, {len(labs)} labs; pages in {folder}\n")
    if pairs:
        write_text(f"{len(pairs)} pairs of answers look alike, a hint and not a proof: {folder / LOOK_ALIKES}\n")
    return status


def feedback_folder(args: argparse.Namespace) -> Path:
    """The folder of the pages, made and empty; raises OptionError or ResourceError."""
    from minillama.atomic_file import make_folder

    check_output_file(args.output, force=args.force, option="with -o")
    folder = args.feedback or args.output.with_name(f"{args.output.stem}-feedback")
    if os.path.lexists(folder) and not folder.is_dir():
        raise OptionError(f"--feedback {folder} is a file; name a folder")
    make_folder(folder)
    if any(folder.iterdir()) and not args.force:
        raise OptionError(f"{folder} has files; overwrite them with --force, or name another folder with --feedback")
    return folder
