"""Build a learner's notebook and an executed solution from each `labs/src/NN_name.py`.

    python -m minillama.lab.build                 # write the learners' notebooks, execute and write the solutions
    python -m minillama.lab.build 02 04           # only these labs
    python -m minillama.lab.build --learner       # write the learners' notebooks only, without execution
    python -m minillama.lab.build --check         # write nothing; exit status 1 if a notebook is outdated
    python -m minillama.lab.build --lang zh_CN 04              # write the Chinese notebooks, without execution
    python -m minillama.lab.build --lang zh_CN --update-po 04  # refresh the catalogue labs/po/zh_CN/04.po
    python -m minillama.lab.build --lang zh_CN --update-po command-line  # the catalogues of help and errors
    python -m minillama.lab.build --lang zh_CN --check         # counts of messages; status 1 as above

The source is in jupytext's percent format. Tags select the notebooks of a cell:
exercise (learner only), solution (solutions only), hint (markdown, folded in both), check (an exercise's check; its
output is compared in tests), check-output (other output that is compared), panel (the widgets of a panel: the code is
folded in JupyterLab). Cells without a tag are in both notebooks.
"""

import argparse
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from minillama import env
from minillama.atomic_file import atomic_write
from minillama.lab.translation import command_line
from minillama.lab.translation.language_build import PACKAGE, Lab, Language
from minillama.text_language import CHINESE, ENGLISH, VARIABLE

LABS = Path(__file__).resolve().parents[2] / "labs"
CELL_SECONDS = 120
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
BAR = re.compile(r"\d%\|.*\d/\d+ \[")  # the text of one by tqdm
Client = TypeVar("Client", bound=NotebookClient)
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def sources(labs: Path = LABS, wanted: Sequence[str] = ()) -> list[Path]:
    """Sources of the labs in order; with `wanted` only those with these prefixes."""
    found = sorted(labs.glob("src/[0-9][0-9]_*.py"))
    return [path for path in found if not wanted or any(path.name.startswith(start) for start in wanted)]


def learner_path(source: Path) -> Path:
    """Path of a source's learner notebook."""
    return source.parent.parent / f"{source.stem}.ipynb"


def solution_path(source: Path) -> Path:
    """Path of a source's solution notebook."""
    return source.parent.parent / "solutions" / f"{source.stem}.ipynb"


def learner(source: Path) -> NotebookNode:
    """Learner notebook: stubs and folded hints, no solutions, no outputs."""
    return _notebook(source, "learner", "solution")


def solution(source: Path) -> NotebookNode:
    """Solution notebook: solutions in place of the stubs, not executed yet."""
    return _notebook(source, "solution", "exercise")


def _notebook(source: Path, kind: str, left_out: str) -> NotebookNode:
    text = source.read_text(encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()
    parsed = jupytext.reads(text, fmt="py:percent")
    cells = list(_cells(parsed.cells, left_out))
    seen: dict[str, int] = {}
    for cell in cells:
        name = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[name] = seen.get(name, 0) + 1
        cell["id"] = name if seen[name] == 1 else f"{name}-{seen[name]}"
    metadata = {
        "kernelspec": KERNEL,
        "language_info": {"name": "python"},
        "minillama": {"kind": kind, "source": f"labs/src/{source.name}", "sha256": digest},
    }
    return nbformat.from_dict({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def _cells(parsed: Sequence[NotebookNode], left_out: str) -> Iterator[NotebookNode]:
    for cell in parsed:
        tags = list(cell.metadata.get("tags", []))
        if left_out in tags:
            continue
        if cell.cell_type == "code":
            if "check" in tags or "check-output" in tags:
                tags = [*(tag for tag in tags if tag != "check-output"), "nbval-check-output"]
            made = nbformat.v4.new_code_cell(cell.source)
        else:
            text = (
                f"<details><summary>💡 Hint</summary>\n\n{cell.source}\n\n</details>" if "hint" in tags else cell.source
            )
            made = nbformat.v4.new_markdown_cell(text)
        made.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if "panel" in tags:
            made.metadata["jupyter"] = {"source_hidden": True}
        yield made


def kernel_environment() -> dict[str, str]:
    """Environment of the kernels that execute notebooks."""
    return {**os.environ, "PLOTLY_RENDERER": "plotly_mimetype", "PYTHONPATH": env.python_path(), VARIABLE: ENGLISH}


def client_of(
    notebook: NotebookNode, folder: Path, *, kind: type[Client] = NotebookClient, seconds: int = CELL_SECONDS
) -> Client:
    """A client that executes a notebook in `folder`, not started yet.

    seconds: most for a cell.
    """
    return kind(
        notebook,
        timeout=seconds,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,  # the kernel's timing splits printed text at random places
    )


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Run all cells of a notebook in `folder` and return it with its outputs.

    Raises nbclient.exceptions.CellExecutionError at the first cell that fails.
    """
    metadata = notebook.metadata
    executed = client_of(notebook, folder).execute(env=kernel_environment())
    executed.metadata = metadata
    for cell in executed.cells:
        if cell.cell_type == "code":
            is_compared = "nbval-check-output" in cell.metadata.get("tags", [])
            kept = [output for output in cell.outputs if is_compared or not is_bar(output)]
            cell.outputs = [_readable(output) for output in kept]
    return executed


def is_bar(output: NotebookNode) -> bool:
    """True for a progress bar, which a stored page would show empty."""
    return BAR.search(output.get("data", {}).get("text/plain", "")) is not None


def _readable(output: NotebookNode) -> NotebookNode:
    """An output to store: without widgets, which have a text, and without local paths."""
    output.get("data", {}).pop(WIDGET_MIME, None)
    if output.output_type == "stream":
        output.text = output.text.replace(str(LABS.parent), "~/minillama").replace(str(Path.home()), "~")
    return output


def in_step(built: NotebookNode, path: Path) -> bool:
    """True if the notebook at `path` has the cells and metadata of `built`, outputs aside."""
    if not path.exists():
        return False
    stored = nbformat.read(path, as_version=4)
    return _identity(stored) == _identity(built)


def _identity(notebook: NotebookNode) -> tuple[object, ...]:
    cells = [(cell.id, cell.cell_type, cell.source, dict(cell.metadata)) for cell in notebook.cells]
    return cells, dict(notebook.metadata["minillama"]) if "minillama" in notebook.metadata else {}


def out_of_step(labs: Path = LABS) -> list[str]:
    """Notebooks that differ from those the builder would write now."""
    pairs = [(learner(path), learner_path(path)) for path in sources(labs)]
    pairs += [(solution(path), solution_path(path)) for path in sources(labs)]
    return [path.relative_to(labs).as_posix() for built, path in pairs if not in_step(built, path)]


def write(source: Path) -> None:
    """Write both notebooks of one source.

    The solution is executed first, so a failing cell keeps the old notebooks."""
    with tempfile.TemporaryDirectory() as folder:
        executed = execute(solution(source), Path(folder))
    solution_path(source).parent.mkdir(exist_ok=True)
    _store(executed, solution_path(source))
    _store(learner(source), learner_path(source))


def _store(notebook: NotebookNode, path: Path) -> None:
    with atomic_write(path) as file:
        file.write(nbformat.writes(notebook).encode() + b"\n")


def language(name: str, labs: Path = LABS) -> Language:
    """The catalogues and notebooks of a language, for all labs of a folder."""
    found = [Lab(path.name[:2], path, learner(path), solution(path), solution_path(path)) for path in sources(labs)]
    return Language(name, labs, found, _store, in_step)


def _build_language(chosen: Language, options: argparse.Namespace) -> int:
    """Update, check or write one language; returns the exit status."""
    wanted = [each for each in options.labs if each != command_line.COMMAND_LINE]
    lines, late = [], []
    if wanted or not options.labs:
        if options.update_po:
            lines += chosen.update(wanted)
        elif options.check:
            lines, late = chosen.counts(wanted), chosen.out_of_step()
        else:
            lines += chosen.write(wanted)
    if wanted != options.labs or not options.labs:
        if options.update_po:
            lines += command_line.update(chosen.name)
        elif options.check:
            lines, late = lines + command_line.counts(chosen.name), late + command_line.out_of_step(chosen.name)
        elif options.labs:
            lines += command_line.write(chosen.name)
    print("\n".join([*lines, *late]))
    return 1 if late else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of the builder; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m minillama.lab.build", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("labs", nargs="*", help="numbers of labs, for example 02 04 (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing, list outdated notebooks")
    parser.add_argument("--learner", action="store_true", help="write the learners' notebooks only, without execution")
    parser.add_argument("--lang", choices=(CHINESE,), help="build the notebooks of this language")
    parser.add_argument("--update-po", action="store_true", help="with --lang: refresh the catalogues from the sources")
    options = parser.parse_args(arguments)
    if options.update_po and not options.lang:
        parser.error(f"--update-po needs a language: --lang {CHINESE}")
    if options.lang:
        unknown = set(options.labs) - {PACKAGE, command_line.COMMAND_LINE, *(path.name[:2] for path in sources())}
        if unknown:
            others = (
                f"{PACKAGE!r} for the messages of the labs' package, {command_line.COMMAND_LINE!r} for help and errors"
            )
            parser.error(f"no lab {min(unknown)}: give numbers of labs, {others}")
        return _build_language(language(options.lang), options)
    if options.check:
        late = out_of_step()
        for name in late:
            print(f"labs/{name} is older than its source: run python -m minillama.lab.build {name.split('/')[-1][:2]}")
        return 1 if late else 0
    for source in sources(wanted=options.labs):
        if options.learner:
            print(f"labs/{source.stem}.ipynb")
            _store(learner(source), learner_path(source))
            continue
        print(f"labs/{source.stem}.ipynb and labs/solutions/{source.stem}.ipynb")
        write(source)
    return 0


if __name__ == "__main__":
    sys.exit(main())
