"""Lab notebooks: equal to their sources, solutions hold, learners' run unsolved."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from recorded_kernels import RECORDED_KERNELS

from minillama.lab import build
from minillama.lab.build import WIDGET_MIME
from minillama.lab.widgets.figure import PLOTLY_MIME

LABS = build.LABS
SOURCES = build.sources()
NAMES = [source.stem for source in SOURCES]
CELL_SECONDS = 180  # a cell takes seconds; this is for a machine that is very busy

# A minute each, and more on a busy machine: they measure memory or a large model, or in process after process.
LONG = {
    "01_roofline",
    "05_prefill_decode_cache",
    "06_evaluate",
    "07_quantise",
    "08_optimise_one_device",
    "09_shard",
    "10_next_to_llama_cpp",
    "11_lying_benchmarks",
    "13_many_readers",
    "14_same_beginning",
    "15_guess_and_check",
    "16_not_all_attention",
    "17_own_kernel",
}

# Their solutions measure for minutes, in process after process.
LONGEST = {
    "01_roofline",
    "05_prefill_decode_cache",
    "06_evaluate",
    "07_quantise",
    "08_optimise_one_device",
    "09_shard",
    "10_next_to_llama_cpp",
    "11_lying_benchmarks",
    "13_many_readers",
    "15_guess_and_check",
    "16_not_all_attention",
}

each_lab = pytest.mark.parametrize("source", SOURCES, ids=NAMES)


def each_lab_run(nightly: set[str]) -> pytest.MarkDecorator:
    def marks(name: str) -> tuple[pytest.MarkDecorator, ...]:
        if name in nightly:
            return (pytest.mark.nightly,)
        return (pytest.mark.slow,) if name in LONG else ()

    cases = [pytest.param(source, marks=marks(source.stem)) for source in SOURCES]
    return pytest.mark.parametrize("source", cases, ids=NAMES)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def text_of(cell: NotebookNode) -> str:
    outputs = [output for output in cell.outputs if not build.is_bar(output)]
    return "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)


def lenient_environment() -> dict[str, str]:
    """Environment of a learner's kernel: JAX's usual rules, not this suite's strict ones."""
    strict = ("JAX_NUMPY_DTYPE_PROMOTION", "JAX_NUMPY_RANK_PROMOTION", "XLA_FLAGS")
    path = os.pathsep.join(part for part in (str(LABS.parent), os.environ.get("PYTHONPATH", "")) if part)
    kept = {name: value for name, value in os.environ.items() if name not in strict}
    return {**kept, "PLOTLY_RENDERER": "plotly_mimetype", "PYTHONPATH": path}


# pytest with no plugin but nbval; without the grammar of Internet addresses, which jsonschema would compile for seconds
PYTEST = "import sys; sys.modules['rfc3987_syntax'] = None; import pytest; sys.exit(pytest.main())"
ONLY_NBVAL = ["-p", "nbval.plugin", "--nbval-lax", f"--nbval-cell-timeout={CELL_SECONDS}", "-p", "no:cacheprovider"]


def nbval(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run nbval over a folder of notebooks outside of this repository's pytest settings."""
    shutil.copy(LABS / "conftest.py", folder)
    return subprocess.run(
        [sys.executable, "-c", PYTEST, *ONLY_NBVAL, "-q", "--rootdir", str(folder), str(folder)],
        cwd=folder,
        env={**lenient_environment(), "MINILLAMA_CPU_KERNELS": RECORDED_KERNELS, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_there_are_labs() -> None:
    assert {"00_install_and_doctor", "02_gguf_from_bytes", "03_tokens_to_logits", "04_sampling"} <= set(NAMES)
    written = {path.stem for path in LABS.glob("*.ipynb")} | {path.stem for path in LABS.glob("solutions/*.ipynb")}
    assert written == set(NAMES), "every notebook has a source, every source two notebooks"


def test_in_step_with_their_sources() -> None:
    assert build.out_of_step() == [], "run python -m minillama.lab.build"


@each_lab
def test_learners_notebook_gives_nothing_away(source: Path) -> None:
    notebook = nbformat.read(build.learner_path(source), as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(notebook))
    assert not tagged(notebook, "solution")
    assert 1 <= len(tagged(notebook, "exercise")) <= 5
    assert all("NotImplementedError" in cell.source for cell in tagged(notebook, "exercise"))
    assert all(cell.source.startswith("<details>") for cell in tagged(notebook, "hint"))


@each_lab
def test_every_lab_has_its_parts(source: Path) -> None:
    notebook = nbformat.read(build.learner_path(source), as_version=4)
    words = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    card = notebook.cells[0].source
    for part in ("**Afterwards you can**", "**Time**", "**You should know**", "**Runs on**", "**In llama.cpp**"):
        assert part in card
    assert "## Takeaways" in words and "## When you get an error" in words
    code = "\n".join(cell.source for cell in code_cells(notebook))
    assert "Prediction(" in code and "show(" in code and "check.score()" in code


@each_lab
def test_solutions_are_not_vacuous(source: Path) -> None:
    """There is something to compare: nbval skips cells without an execution count."""
    notebook = nbformat.read(build.solution_path(source), as_version=4)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert not [output for cell in code_cells(notebook) for output in cell.outputs if output.output_type == "error"]
    assert not [o for cell in code_cells(notebook) for o in cell.outputs if o.get("name") == "stderr"]
    compared = tagged(notebook, "nbval-check-output")
    assert not [o for cell in code_cells(notebook) if cell not in compared for o in cell.outputs if build.is_bar(o)]
    assert len(compared) >= 4 and all(text_of(cell) for cell in compared)
    checks = tagged(notebook, "check")
    learner = nbformat.read(build.learner_path(source), as_version=4)
    assert len(checks) == len(tagged(learner, "exercise")) == len(tagged(notebook, "solution")) - unchecked(notebook)
    assert all(text_of(cell).startswith("PASS") for cell in checks)
    solved = re.search(r"(\d+) of (\d+) solved", "".join(text_of(cell) for cell in code_cells(notebook)))
    assert solved is not None and solved[1] == solved[2] == str(len(checks))
    assert str(LABS.parent) not in build.solution_path(source).read_text(), "no path of the machine it was built on"


def unchecked(notebook: NotebookNode) -> int:
    """Solution cells that record a prediction: there is nothing to check about a guess."""
    return sum(".record(" in cell.source for cell in tagged(notebook, "solution"))


@each_lab_run(nightly=LONGEST)
def test_solutions_hold(source: Path, tmp_path: Path) -> None:
    """The solved notebook runs, and the cells marked for it print what they printed."""
    shutil.copy(build.solution_path(source), tmp_path)
    done = nbval(tmp_path)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    cells = len(code_cells(nbformat.read(build.solution_path(source), as_version=4)))
    assert f"{cells} passed" in done.stdout


@each_lab_run(nightly=set())
def test_learners_notebook_runs_unsolved(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run All reaches the end: every check says what is missing, none raises."""
    for name in set(os.environ) - set(lenient_environment()):
        monkeypatch.delenv(name)
    executed = build.execute(build.learner(source), tmp_path)
    checks = tagged(executed, "check")
    assert checks and all(text_of(cell).startswith("not yet") and "stub" in text_of(cell) for cell in checks)
    assert "0 of" in text_of(tagged(executed, "nbval-check-output")[-1])
    shown = [output.data for cell in code_cells(executed) for output in cell.outputs if "data" in output]
    assert all("<img " in data["text/html"] for data in shown if PLOTLY_MIME in data), (
        "redrawn figures keep their image"
    )
    assert all(data["text/plain"] and WIDGET_MIME not in data for data in shown), "every widget has a text"
    assert (tmp_path / "results" / f"lab{source.name[:2]}.json").exists()


def test_nbval_bites(tmp_path: Path) -> None:
    """With labs/conftest.py a changed text fails and a changed figure passes."""
    figure = "display({'application/vnd.plotly.v1+json': {'data': [], 'layout': {}}, 'text/plain': 'text'}, raw=True)"
    source = tmp_path / "99_made_up.py"
    source.write_text(
        '# %%\nimport os\nfrom IPython.display import display\n\n# %% tags=["check-output"]\nprint(6 * 7)\n\n'
        f'# %% tags=["check-output"]\n{figure}\n\n# %%\nprint(os.getpid())\n'
    )
    executed = build.execute(build.solution(source), tmp_path)
    good, bad = tmp_path / "good", tmp_path / "bad"
    executed.cells[2].outputs[0].data["application/vnd.plotly.v1+json"]["data"] = [{"type": "bar"}]
    for folder in (good, bad):
        folder.mkdir()
        nbformat.write(executed, folder / "made_up.ipynb")
        executed.cells[1].outputs[0].text = "43\n"
    passed, failed = nbval(good), nbval(bad)
    assert passed.returncode == 0 and "4 passed" in passed.stdout, passed.stdout
    assert failed.returncode == 1 and "1 failed" in failed.stdout, failed.stdout


def test_builder_is_deterministic_and_notices_changes(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    source = tmp_path / "src" / "98_made_up.py"
    body = '# %%\nx = 1\n\n# %%\nx = 1\n\n# %% tags=["exercise"]\ny = ...\n\n# %% tags=["solution"]\ny = 2\n\n'
    body += '# %% [markdown] tags=["hint"]\n# two\n'
    source.write_text(body)
    first, second = build.learner(source), build.learner(source)
    assert first == second
    assert len({cell.id for cell in first.cells}) == len(first.cells) == 4, "equal cells still have ids of their own"
    assert [cell.source for cell in code_cells(build.solution(source))] == ["x = 1", "x = 1", "y = 2"]
    assert first.cells[-1].source == "<details><summary>💡 Hint</summary>\n\ntwo\n\n</details>"
    assert build.out_of_step(tmp_path) == ["98_made_up.ipynb", "solutions/98_made_up.ipynb"]
    build.solution_path(source).parent.mkdir()
    nbformat.write(first, build.learner_path(source))
    nbformat.write(build.solution(source), build.solution_path(source))
    assert build.out_of_step(tmp_path) == []
    source.write_text(body.replace("y = 2", "y = 3"))
    assert build.out_of_step(tmp_path) == ["98_made_up.ipynb", "solutions/98_made_up.ipynb"]


def test_builder_stops_at_a_failing_cell(tmp_path: Path) -> None:
    from nbclient.exceptions import CellExecutionError

    (tmp_path / "src").mkdir()
    source = tmp_path / "src" / "97_made_up.py"
    source.write_text("# %%\n1 / 0\n")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        build.write(source)
    assert not build.learner_path(source).exists() and not build.solution_path(source).exists()
