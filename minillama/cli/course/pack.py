"""`minillama course pack`: a folder that installs the labs without a network."""

import argparse
import sys
from pathlib import Path

from minillama.cli.arguments.values import choice
from minillama.cli.output.terminal import note

DESCRIPTION = """\
Write a folder with all wheels of minillama[labs] for this platform and Python, a lock file with hashes, the models and
the learners' notebooks, and scripts that install them without a network (POSIX shells and PowerShell). The folder has
about 300 MB, and pip takes a minute or more to download it.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "pack", help="a folder that installs the labs without a network", description=DESCRIPTION
    )
    parser.add_argument("output", metavar="OUT", type=Path, help="new or empty folder")
    parser.add_argument("--labs", metavar="LIST", default=None, help="labs, for example 00-06,09 (default: all)")
    parser.add_argument(
        "--model", metavar="FILE", type=Path, action="append", default=[], help="add a GGUF file; may be repeated"
    )
    parser.add_argument(
        "--archive", type=choice("tar.gz", "zip"), default=None, metavar="KIND",
        help="also write OUT.tar.gz or OUT.zip (KIND: tar.gz or zip)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from minillama.cli.output.output_file import check_output_file
    from minillama.course.packing.pack_archive import archive_path, write_archive
    from minillama.course.packing.pack_folder import make_pack
    from minillama.course.packing.wheelhouse import size_text

    output = args.output.absolute()
    if args.archive:
        check_output_file(archive_path(output, args.archive), force=False)
    count = 0

    def progress(line: str) -> None:
        nonlocal count
        count += line.startswith(("Collecting ", "Processing "))
        if sys.stderr.isatty():
            print(f"\r\x1b[K{count} packages: {' '.join(line.split()[:2])[:70]}", end="", file=sys.stderr, flush=True)
        elif count % 25 == 0 and not line.startswith("Downloading "):
            note(f"{count} packages")

    def say(line: str) -> None:
        if sys.stderr.isatty() and count:
            print("\r\x1b[K", end="", file=sys.stderr)
        note(line)

    pack = make_pack(output, labs=args.labs, models=args.model, say=say, progress=progress)
    for name, size in pack.sizes.items():
        print(f"{name + '/':11} {size_text(size):>8}")
    print(f"{pack.folder}: {size_text(pack.size)}")
    if args.archive:
        from tqdm import tqdm

        note(f"writing {archive_path(output, args.archive)}")
        with tqdm(total=pack.size, unit="B", unit_scale=True, file=sys.stderr, leave=False, disable=None) as bar:
            path = write_archive(output, args.archive, bar.update)
        print(f"{path}: {size_text(path.stat().st_size)}")
    return 0
