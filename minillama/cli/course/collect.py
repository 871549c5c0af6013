"""`minillama course collect`: one archive of a class, and its calibration plot."""

import argparse
from pathlib import Path

from minillama.cli.output.output_file import check_output_file
from minillama.cli.output.terminal import note, write_text

EPILOG = """\
The archive has the notebooks and results files of all submissions, and manifest.json with their SHA-256. The plot shows
all learners' predictions against their measurements, as their results files say.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "collect", help="one archive of a class, with its calibration plot", description=__doc__, epilog=EPILOG
    )
    parser.add_argument("submissions", type=Path, metavar="SUBMISSIONS", help="folder with one submission a learner")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("class.zip"), metavar="FILE", help="archive (default: class.zip)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite the archive and the plot")


def run(args: argparse.Namespace) -> int:
    from tqdm.auto import tqdm

    from minillama.course.collecting.class_archive import write_archive
    from minillama.course.collecting.class_calibration import learner_results, write_calibration
    from minillama.course.marking.class_marks import learner_names
    from minillama.course.marking.submissions import entries, read_submission

    paths = entries(args.submissions)
    page = args.output.with_name(f"{args.output.stem}-calibration.html")
    for path in (args.output, page):
        check_output_file(path, force=args.force, option="with -o")
    names = learner_names(paths)
    submissions = [
        (name, read_submission(path))
        for name, path in tqdm(zip(names, paths, strict=True), total=len(paths), desc="learners", unit="learner")
    ]
    manifest = write_archive(args.output, submissions)
    for learner, lines in manifest.left_out.items():
        for line in lines:
            note(f"{learner}: {line}")
    count = write_calibration(page, {name: learner_results(each) for name, each in submissions})
    write_text(f"{args.output}: {len(manifest.files)} files of {len(paths)} learners\n")
    write_text(f"{page}: {count} measured predictions\n")
    return 0
