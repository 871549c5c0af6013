"""One source, two notebooks: `labs/src/NN_name.py` becomes the learner's notebook and the executed solutions.

    python -m minillama.lab.build                 # write the learners' notebooks, execute and write the solutions
    python -m minillama.lab.build 02 04           # only these labs
    python -m minillama.lab.build --check         # write nothing; exit status 1 when a notebook is out of step

The source is in jupytext's percent format. Tags decide what becomes of a cell:
exercise (learner only), solution (solutions only), hint (markdown, folded in both), check (an exercise's check, its
output must hold), check-output (any other output that must hold); cells without a tag go into both notebooks.
"""

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

LABS = Path(__file__).resolve().parents[2] / "labs"
CELL_SECONDS = 120
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def sources(labs: Path = LABS, wanted: Sequence[str] = ()) -> list[Path]:
    """The labs' sources in order, all of them or those whose name starts with one of `wanted`."""
    found = sorted(labs.glob("src/[0-9][0-9]_*.py"))
    return [path for path in found if not wanted or any(path.name.startswith(start) for start in wanted)]


def learner_path(source: Path) -> Path:
    """Where the learner's notebook of a source lies."""
    return source.parent.parent / f"{source.stem}.ipynb"


def solution_path(source: Path) -> Path:
    """Where the executed solutions of a source lie."""
    return source.parent.parent / "solutions" / f"{source.stem}.ipynb"


def learner(source: Path) -> NotebookNode:
    """The learner's notebook: stubs and folded hints, no solutions, no outputs."""
    return _notebook(source, "learner", "solution")


def solution(source: Path) -> NotebookNode:
    """The notebook with the solutions in the place of the stubs, not executed yet."""
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
        yield made


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Run a notebook from its first cell to its last in `folder` and return it with its outputs.

    Raises nbclient.exceptions.CellExecutionError at the first cell that fails.
    """
    metadata = notebook.metadata
    environment = {**os.environ, "PLOTLY_RENDERER": "plotly_mimetype", "PYTHONPATH": _python_path()}
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=False,
    )
    executed = client.execute(env=environment)
    executed.metadata = metadata
    for cell in executed.cells:
        if cell.cell_type == "code":
            cell.outputs = _joined([_readable(output) for output in cell.outputs])
    return executed


def _joined(outputs: Sequence[NotebookNode]) -> list[NotebookNode]:
    """Printed text in one piece: how it was cut depends on the kernel's timing."""
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last is not None and last.output_type == output.output_type == "stream" and last.name == output.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def _python_path() -> str:
    """The package's own folder first, so that the notebooks run on the tree they stand in."""
    return os.pathsep.join(part for part in (str(LABS.parent), os.environ.get("PYTHONPATH", "")) if part)


def _readable(output: NotebookNode) -> NotebookNode:
    """A widget lives only as long as its kernel: in a stored notebook a line of text stands in its place."""
    if WIDGET_MIME in output.get("data", {}):
        output.data = nbformat.from_dict(
            {"text/plain": "[sliders and buttons: run this notebook in Jupyter to use them]"}
        )
    if output.output_type == "stream":
        # Whoever reads the solutions need not know where they were made.
        output.text = output.text.replace(str(LABS.parent), "~/minillama").replace(str(Path.home()), "~")
    return output


def in_step(built: NotebookNode, path: Path) -> bool:
    """True when the notebook at `path` has the cells and the metadata of `built`, whatever its outputs are."""
    if not path.exists():
        return False
    stored = nbformat.read(path, as_version=4)
    return _identity(stored) == _identity(built)


def _identity(notebook: NotebookNode) -> tuple[object, ...]:
    cells = [(cell.id, cell.cell_type, cell.source, dict(cell.metadata)) for cell in notebook.cells]
    return cells, dict(notebook.metadata["minillama"]) if "minillama" in notebook.metadata else {}


def out_of_step(labs: Path = LABS) -> list[str]:
    """The notebooks that are not what the builder would write now."""
    pairs = [(learner(path), learner_path(path)) for path in sources(labs)]
    pairs += [(solution(path), solution_path(path)) for path in sources(labs)]
    return [path.relative_to(labs).as_posix() for built, path in pairs if not in_step(built, path)]


def write(source: Path) -> None:
    """Write both notebooks of one source; the solutions are executed first, so a failing cell leaves the old ones."""
    with tempfile.TemporaryDirectory() as folder:
        executed = execute(solution(source), Path(folder))
    solution_path(source).parent.mkdir(exist_ok=True)
    nbformat.write(executed, solution_path(source))
    nbformat.write(learner(source), learner_path(source))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of the builder; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m minillama.lab.build", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("labs", nargs="*", help="numbers of labs, for example 02 04 (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing, list what is out of step")
    options = parser.parse_args(arguments)
    if options.check:
        late = out_of_step()
        for name in late:
            print(
                f"labs/{name} is out of step with its source: python -m minillama.lab.build {name.split('/')[-1][:2]}"
            )
        return 1 if late else 0
    for source in sources(wanted=options.labs):
        print(f"labs/{source.stem}.ipynb and labs/solutions/{source.stem}.ipynb")
        write(source)
    return 0


if __name__ == "__main__":
    sys.exit(main())
