"""`minillama course build`: copies for students, nbgrader and otter, and what its options refuse."""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from minillama.cli import main
from minillama.course.copies.exercise_points import BY_READER, POINTS, points_of
from minillama.course.copies.graded_exercises import Exercise, exercises_of, solved, source_of
from minillama.course.copies.student_labs import chosen_labs, lab_names, read_notebook
from minillama.engine.loading import model_files
from minillama.errors import FormatError, OptionError
from minillama.lab.grading.decisions import read_decisions
from minillama.lab.grading.rubric import rubric

LABS = Path(__file__).resolve().parents[2] / "labs"
NAMES = lab_names(LABS)
LAB = "02_gguf_from_bytes.ipynb"
Built = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("records"))  # checks write them


@pytest.fixture
def built(tmp_path: Path) -> Built:
    """Run `course build`; returns its folder."""

    def build(kind: str, *options: str) -> Path:
        out = tmp_path / kind
        assert main(["course", "build", "--for", kind, *options, str(out)]) == 0
        return out

    return build


def cells_of(path: Path) -> list[Any]:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook.cells


def bodies(name: str) -> list[str]:
    """Lines that only the solutions of a lab have, without blanks."""
    learner = {line.strip() for cell in cells_of(LABS / name) for line in cell.source.splitlines()}
    found = [
        line.strip() for cell in cells_of(LABS / "solutions" / name) if "solution" in cell.metadata.get("tags", [])
        for line in cell.source.splitlines() if line.strip()
    ]  # fmt: skip
    return [line for line in found if line not in learner]


class TestStudent:
    def test_copies_hold_no_solution_and_no_source(self, built: Built) -> None:
        out = built("student")
        assert sorted(path.name for path in out.iterdir()) == [*NAMES, "points.csv"]
        for name in NAMES:
            text = "\n".join(cell.source for cell in cells_of(out / name))
            lines = {line.strip() for line in text.splitlines()}
            assert not lines & set(bodies(name)), name
            assert all(not cell.get("outputs") for cell in cells_of(out / name))

    def test_what_a_copy_would_show(self) -> None:
        assert len(bodies(LAB)) > 10  # the test before this one compares something

    def test_cell_ids_are_those_of_the_learners_notebook(self, built: Built) -> None:
        out = built("student", "--labs", "2-3")
        assert [cell.id for cell in cells_of(out / LAB)] == [cell.id for cell in cells_of(LABS / LAB)]
        assert sorted(path.name for path in out.glob("*.ipynb")) == NAMES[2:4]

    def test_points(self, built: Built, capsys: pytest.CaptureFixture[str]) -> None:
        out = built("student", "--labs", "02,12")
        table = (out / "points.csv").read_text().splitlines()
        assert table[0] == "lab,exercise,points" and "02,read_header,1" in table and "12,target,4" in table
        assert "9 exercises of 2 labs, 19 points" in capsys.readouterr().out
        marked = [cell.metadata["minillama"] for cell in cells_of(out / LAB) if "minillama" in cell.metadata]
        assert {"exercise": "decode_q4_0", "points": 1.0} in marked and len(marked) == 5

    def test_chinese(self, built: Built, capsys: pytest.CaptureFixture[str]) -> None:
        out = built("student", "--lang", "zh_CN", "--labs", "02")
        assert [cell.source for cell in cells_of(out / LAB)] == [cell.source for cell in cells_of(LABS / "zh_CN" / LAB)]
        assert "not translated" not in capsys.readouterr().err

    def test_a_lab_that_is_not_translated(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        labs = tmp_path / "labs"
        labs.mkdir()
        shutil.copy(LABS / LAB, labs)
        monkeypatch.setattr(model_files, "labs_folder", lambda: labs)
        assert main(["course", "build", "--lang", "zh", str(tmp_path / "out")]) == 0
        assert "02_gguf_from_bytes is not translated into zh_CN yet" in capsys.readouterr().err


class TestExercises:
    @pytest.mark.parametrize("name", NAMES)
    def test_are_the_items_of_the_lab(self, name: str) -> None:
        lab = name[:2]
        found = exercises_of(lab, read_notebook(LABS / name))
        items = importlib.import_module(f"minillama.lab.checks.lab{lab}").ITEMS
        assert [each.name for each in found] == [item.name for item in items]

    @pytest.mark.parametrize("name", NAMES)
    def test_solutions_fill_the_stubs(self, name: str) -> None:
        learner, solutions = read_notebook(LABS / name), read_notebook(LABS / "solutions" / name)
        for each in exercises_of(name[:2], learner):
            stub = source_of(learner["cells"][each.cell])
            text = solved(each, stub, solutions, "### BEGIN SOLUTION", ["### END SOLUTION"])
            (mine,) = (node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
            (ours,) = (
                node
                for cell in solutions["cells"] if "solution" in cell["metadata"].get("tags", [])
                for node in ast.parse(source_of(cell)).body
                if isinstance(node, ast.FunctionDef) and node.name == each.name
            )  # fmt: skip
            assert ast.unparse(mine).endswith(ast.unparse(ours.body[-1]).splitlines()[-1])
            assert [ast.dump(node) for node in mine.body[-len(ours.body[1:]) :]] == [ast.dump(n) for n in ours.body[1:]]

    def test_a_solution_with_imports_and_comments(self) -> None:
        cell = 'import math\n\n\ndef f(x):\n    """Doc."""\n    # why\n    return math.pi * x\n'
        solutions = {"cells": [{"source": cell, "metadata": {"tags": ["solution"]}}]}
        stub = 'def f(x):\n    """Doc."""\n    raise NotImplementedError'
        text = solved(Exercise("99", "f", 0, 1, 1.0), stub, solutions, "# B", ["# E"])
        assert text == (
            'def f(x):\n    """Doc."""\n    # B\n    import math\n    # why\n    return math.pi * x\n    # E'
        )

    def test_missing_parts(self) -> None:
        stub, exercise = "def f(x):\n    raise NotImplementedError", Exercise("99", "f", 0, 1, 1.0)
        with pytest.raises(FormatError, match="no solution of f"):
            solved(exercise, stub, {"cells": []}, "# B", [])
        with pytest.raises(FormatError, match="does not end in"):
            solved(exercise, "def f(x):\n    return 1", {"cells": []}, "# B", [])
        check = {"source": "check.f(f)", "metadata": {"tags": ["check"]}}
        with pytest.raises(FormatError, match="the check of f has no exercise cell"):
            exercises_of("99", {"cells": [check]})
        with pytest.raises(FormatError, match="not of the form"):
            exercises_of("99", {"cells": [check | {"source": "check.f(g)"}]})

    def test_points_of_the_report_are_those_of_its_rubric(self) -> None:
        rows = {name: float(points) for name, _, points, _ in rubric({}, read_decisions({}))}
        assert {
            ("12", "target"): rows["Target"], ("12", "trade_offs"): rows["Trade-offs"],
            ("12", "look_back"): rows["Predictions"],
        } == POINTS  # fmt: skip
        assert points_of("02", "read_header") == 1 and set(POINTS) <= BY_READER


class TestNbgrader:
    def test_metadata_of_cells(self, built: Built) -> None:
        out = built("nbgrader", "--labs", "02", "--seed", "7")
        for kind in ("source", "release"):
            graded = [
                cell.metadata.nbgrader for cell in cells_of(out / kind / "lab02" / LAB) if "nbgrader" in cell.metadata
            ]
            assert len(graded) == 10 and len({each.grade_id for each in graded}) == 10
            assert graded[0] == {"cell_type": "code", "grade": False, "grade_id": "exercise-read_header",
                                 "locked": False, "schema_version": 3, "solution": True, "task": False}  # fmt: skip
            assert graded[1] == {"cell_type": "code", "grade": True, "grade_id": "check-read_header", "locked": True,
                                 "schema_version": 3, "solution": False, "task": False, "points": 1.0}  # fmt: skip

    def test_hidden_tests_are_in_the_source_only(self, built: Built) -> None:
        out = built("nbgrader", "--labs", "02", "--seed", "7")
        source = (out / "source" / "lab02" / LAB).read_text()
        release = (out / "release" / "lab02" / LAB).read_text()
        assert source.count("seed=7);") == source.count("BEGIN HIDDEN TESTS") == 5
        assert "seed" not in "".join(re.findall(r"require\([^)]*\)", release)) and "HIDDEN" not in release
        assert source.count("BEGIN SOLUTION") == 5 and "SOLUTION" not in release
        assert not {line.strip() for cell in cells_of(out / "release" / "lab02" / LAB)
                    for line in cell.source.splitlines()} & set(bodies(LAB))  # fmt: skip

    def test_without_a_seed_nothing_is_hidden(self, built: Built) -> None:
        assert "HIDDEN" not in (built("nbgrader", "--labs", "02") / "source" / "lab02" / LAB).read_text()

    def test_answers_for_a_reader(self, built: Built) -> None:
        out = built("nbgrader", "--labs", "12")
        cells = [
            cell for cell in cells_of(out / "release" / "lab12" / "12_report.ipynb") if "nbgrader" in cell.metadata
        ]
        found = {cell.metadata.nbgrader.grade_id: cell.metadata.nbgrader for cell in cells}
        target = found["exercise-target"]
        assert target.grade and target.solution and not target.locked and target.points == 4
        assert "check-target" not in found and found["check-verdict"].points == 1

    def test_a_graded_cell_needs_no_other_cell_but_the_answer(self, built: Built) -> None:
        out = built("nbgrader", "--labs", "02")
        cells = cells_of(out / "release" / "lab02" / LAB)
        (check,) = (cell for cell in cells if cell.metadata.get("nbgrader", {}).get("grade_id") == "check-read_header")
        shown: list[object] = []
        names: dict[str, object] = {"display": shown.append, "check": "a learner's own name",
                                    "read_header": lambda data: (0, 0, 0)}  # fmt: skip
        with pytest.raises(AssertionError, match="not yet"):
            exec(check.source, names)
        import struct

        names["read_header"] = lambda data: struct.unpack_from("<IQQ", data, 4)
        exec(check.source, names)
        assert "PASS" in str(shown[0])


class TestOtter:
    def test_blocks(self, built: Built) -> None:
        out = built("otter", "--labs", "02", "--seed", "7")
        cells = cells_of(out / "lab02" / LAB)
        raw = [cell.source.splitlines()[0] for cell in cells if cell.cell_type == "raw"]
        question = [
            "# BEGIN QUESTION",
            "# BEGIN SOLUTION",
            "# END SOLUTION",
            "# BEGIN TESTS",
            "# END TESTS",
            "# END QUESTION",
        ]
        assert raw == ["# ASSIGNMENT CONFIG", *(5 * question)]
        assert sum(cell.source.startswith("# HIDDEN") for cell in cells) == 5
        assert len({cell.id for cell in cells}) == len(cells)

    def test_answers_for_a_reader_have_no_tests(self, built: Built) -> None:
        cells = cells_of(built("otter", "--labs", "12") / "lab12" / "12_report.ipynb")
        raw = "\n".join(cell.source for cell in cells if cell.cell_type == "raw")
        assert raw.count("manual: true") == 3 and raw.count("# BEGIN TESTS") == 1


REFUSED = [
    (["--labs", "42"], r"--labs '42': no lab 42; there are 00, 01, "),
    (["--labs", "two"], r"--labs is 'two'; give numbers and ranges of labs, such as 00-06,13"),
    (["--labs", "6-2"], r"--labs has the range 6-2, which ends before it begins; write 2-6"),
    (["--labs", ""], r"--labs is ''; give numbers"),
    (["--lang", "fr"], r"--lang is 'fr'; expected en \(English\) or zh \(Chinese\)"),
    (["--for", "moodle"], r"moodle"),
    (["--for", "nbgrader", "--seed", "-1"], r"-1"),
    (["--seed", "7"], r"--seed: student copies have no hidden tests; .* MINILLAMA_COURSE_SEED"),
]


@pytest.mark.parametrize(("options", "line"), REFUSED)
def test_refused(options: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["course", "build", *options, str(tmp_path / "out")]) == 2
    shown = capsys.readouterr().err.strip()
    assert re.search(line, shown) and "\n" not in shown
    assert not (tmp_path / "out").exists()


def test_folders_that_are_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    assert main(["course", "build", str(full)]) == 2
    assert f"{full} is not empty; name a new folder, or empty it" in capsys.readouterr().err
    assert [path.name for path in full.iterdir()] == ["mine.txt"]
    assert main(["course", "build", str(full / "mine.txt")]) == 2
    assert "mine.txt is not a folder; name a new one" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 3}', "[" * 5000])
def test_unreadable_notebooks(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labs").mkdir()
    (tmp_path / "labs" / LAB).write_text(text)
    monkeypatch.setattr(model_files, "labs_folder", lambda: tmp_path / "labs")
    assert main(["course", "build", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr().err.strip()
    assert f"{LAB} is not a notebook" in shown and "\n" not in shown and not (tmp_path / "out").exists()


def test_numbers_of_labs() -> None:
    names = ["00_a.ipynb", "02_b.ipynb", "13_c.ipynb"]
    assert chosen_labs(names, None) == names
    assert chosen_labs(names, "13, 0,2-2") == names
    with pytest.raises(OptionError, match="no lab 01; there are 00, 02, 13"):
        chosen_labs(names, "00-02")


# The real graders. MINILLAMA_GRADERS names the folder of programs of an environment with nbgrader, otter-grader 7 and
# this minillama.
GRADERS = os.environ.get("MINILLAMA_GRADERS", str(Path(sys.executable).parent))


def program(name: str) -> str:
    path = shutil.which(name, path=GRADERS)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(folder: Path, *words: str) -> str:
    environment = {**os.environ, "PATH": f"{GRADERS}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def short(path: Path) -> Path:
    """Keep the set-up cell, and the first exercise with its check, of a lab's built notebook."""
    notebook = json.loads(path.read_text())
    cells = notebook["cells"]
    check = next(place for place, cell in enumerate(cells) if "check" in cell["metadata"].get("tags", []))
    ends = [place for place, cell in enumerate(cells) if source_of(cell).startswith("# END QUESTION")]
    notebook["cells"] = cells[: (ends[0] if ends else check) + 1]
    path.write_text(json.dumps(notebook))
    return path


def submissions(student: Path, folder: Callable[[str], Path]) -> None:
    """Write a perfect and an empty submission."""
    text = student.read_text()
    solution = 'return struct.unpack_from(\\"<IQQ\\", data, 4)'
    for learner, content in (("empty", text), ("perfect", text.replace("raise NotImplementedError", solution))):
        folder(learner).mkdir(parents=True)
        (folder(learner) / student.name).write_text(content)


def test_nbgraders_marks(built: Built) -> None:
    nbgrader = program("nbgrader")
    out = built("nbgrader", "--labs", "02", "--seed", "7")
    own = short(out / "release" / "lab02" / LAB).read_text()
    short(out / "source" / "lab02" / LAB)
    run(out, nbgrader, "generate_assignment", "lab02", "--force")
    release = out / "release" / "lab02" / LAB
    texts = [[source_of(cell) for cell in json.loads(text)["cells"]] for text in (own, release.read_text())]
    assert texts[0] == texts[1]
    submissions(release, lambda learner: out / "submitted" / learner / "lab02")
    run(out, nbgrader, "autograde", "lab02", "--create")
    run(out, nbgrader, "export")
    lines = [line.split(",") for line in (out / "grades.csv").read_text().splitlines()]
    marks = {row[lines[0].index("student_id")]: float(row[lines[0].index("score")]) for row in lines[1:]}
    assert marks == {"empty": 0.0, "perfect": 1.0}


def test_otters_marks(built: Built) -> None:
    otter = program("otter")
    out = built("otter", "--labs", "02", "--seed", "7")
    short(out / "lab02" / LAB)
    run(out, otter, "assign", f"lab02/{LAB}", "lab02/dist")
    (archive,) = (out / "lab02" / "dist" / "autograder").glob("*.zip")
    submissions(out / "lab02" / "dist" / "student" / LAB, lambda learner: out / learner)
    for learner, share in (("empty", "0.000%"), ("perfect", "100.000%")):
        shown = run(out, otter, "run", f"{learner}/{LAB}", "-a", str(archive), "-o", learner, "--no-logo")
        assert f"({share})" in shown
