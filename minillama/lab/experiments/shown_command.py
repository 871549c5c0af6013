"""Run a command of `minillama` from a notebook, and show it with its output."""

import subprocess
from pathlib import Path

from minillama.env import MINILLAMA

WIDTH = 96  # characters of a line that fit a notebook


def show_command(folder: Path, *words: str) -> None:
    """Run `minillama words...` in a folder; print the command, its output and its messages.

    Long lines of a success are cut.
    """
    print("$ minillama", *words)
    done = subprocess.run(
        [*MINILLAMA, *words], cwd=folder, check=False, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    for line in done.stdout.splitlines():
        print(line if len(line) <= WIDTH or done.returncode else f"{line[: WIDTH - 3]}...")
