"""`minillama lab`: open the labs in JupyterLab."""

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from minillama.cli.arguments.values import integer
from minillama.cli.output.terminal import note
from minillama.errors import OptionError, ResourceError
from minillama.text_language import ENGLISH, VARIABLE, check_language, wanted_language


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("lab", help="open the labs in JupyterLab", description=__doc__)
    parser.add_argument("lab", nargs="?", default="00", metavar="LAB", help="number or name of the lab (default: 00)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    parser.add_argument(
        "--port", type=integer, default=8888, metavar="N", help="port; if it is in use, a free one (default: 8888)"
    )
    parser.add_argument(
        "--ip", default="localhost", metavar="ADDRESS", help="address to listen on (default: localhost)"
    )
    parser.add_argument(
        "--lang",
        default=None,
        metavar="LANG",
        help=f"language of the lab: en or zh (default: that of {VARIABLE}, else of the locale)",
    )
    parser.add_argument(
        "--dir",
        type=Path,
        default=None,
        metavar="FOLDER",
        help="folder for the notebooks if minillama is installed without its repository (default: minillama-labs)",
    )


def run(args: argparse.Namespace) -> int:
    if importlib.util.find_spec("jupyterlab") is None:
        raise ResourceError("JupyterLab is not installed; run: pip install 'minillama[labs]'")
    from minillama.course.copies.student_labs import copy_student_labs
    from minillama.engine.loading.model_files import PACKAGE, labs_folder

    language = wanted_language(os.environ) if args.lang is None else check_language("--lang", args.lang)
    folder = labs_folder()
    if folder.is_relative_to(PACKAGE) or args.dir is not None:
        folder = copy_student_labs(folder, args.dir or Path("minillama-labs"))
    notebook = in_language(find_lab(folder, args.lab), language)
    note(f"opening {notebook}; Ctrl-C here ends JupyterLab")
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        str(notebook),
        f"--port={args.port}",
        f"--ip={args.ip}",
        f"--ServerApp.root_dir={folder}",
    ]
    if args.no_browser:
        # Print the address of the notebook, which the browser would open otherwise.
        command += ["--no-browser", f"--LabApp.default_url=/lab/tree/{notebook.relative_to(folder).as_posix()}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # needed in containers
    return start(command)


def start(command: list[str]) -> int:
    """Replace this process by a program, so that the program handles Ctrl-C.

    On Windows the program runs as a child process instead.
    """
    if os.name == "posix":
        sys.stdout.flush()
        os.execv(command[0], command)
    return subprocess.run(command, check=False).returncode


def find_lab(folder: Path, wanted: str) -> Path:
    """The notebook whose name begins with `wanted`: `04`, `4` or `04_sampling`."""
    names = sorted(path.name for path in folder.glob("*.ipynb"))
    prefix = wanted.zfill(2) if wanted.isdigit() else wanted
    for name in names:
        if name.startswith(prefix):
            return folder / name
    raise OptionError(f"no lab {wanted}; the labs are: {', '.join(name.removesuffix('.ipynb') for name in names)}")


def in_language(notebook: Path, language: str) -> Path:
    """The notebook in a language, else the English one and a line on stderr."""
    translated = notebook.parent / language / notebook.name
    if language == ENGLISH or translated.exists():
        return notebook if language == ENGLISH else translated
    note(f"{notebook.stem} is not translated into {language} yet; this is the English notebook")
    return notebook
