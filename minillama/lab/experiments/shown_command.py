"""Run a command of `minillama` from a notebook, and show it with its output."""

import subprocess
from pathlib import Path

from minillama.env import MINILLAMA


def show_command(folder: Path, *words: str) -> None:
    """Run `minillama words...` in a folder; print the command, its output and its messages."""
    print("$ minillama", *words)
    done = subprocess.run(
        [*MINILLAMA, *words], cwd=folder, check=False, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    print(done.stdout, end="")
