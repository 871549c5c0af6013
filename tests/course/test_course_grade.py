"""`minillama course grade` and `collect`: a made-up class, and submissions that try to harm."""

import csv
import json
import os
import re
import sys
import zipfile
from pathlib import Path

import made_submissions as made
import pytest

from minillama.cli import main
from minillama.course.copies.exercise_points import BY_READER
from minillama.course.gradebook.feedback_page import feedback_page
from minillama.course.marking import class_marks
from minillama.course.marking.class_marks import ClassMarker, MarkingOptions, chosen_notebooks, read_class
from minillama.course.marking.exercise_programs import TRACED, find, lab_of, programs
from minillama.course.marking.lab_exercises import all_labs, labs_named
from minillama.course.marking.marks import ItemMark, LabMark, LearnerMark, State
from minillama.course.marking.submissions import Submission, read_notebook, read_submission
from minillama.errors import OptionError

Rows = dict[str, dict[str, str]]


def grade(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> Rows:
    """Rows of the table by learner."""
    table = folder.parent / "grades.csv"
    assert main(["course", "grade", str(folder), "-o", str(table), *words]) == 0, capsys.readouterr().err
    with table.open(encoding="utf-8", newline="") as file:
        return {row["learner"]: row for row in csv.DictReader(file)}


def notebook_of(lab: str, edit: made.Edit, folder: Path = made.LABS) -> object:
    return read_notebook("x.ipynb", json.dumps(made.notebook(lab, edit, folder)).encode())


def marked(lab: str, edit: made.Edit, seconds: float = 20.0, folder: Path = made.LABS, memory: int = 4) -> LabMark:
    """The marks of one made-up notebook."""
    marker = ClassMarker(MarkingOptions(seconds, memory << 30))
    try:
        return marker._lab(lab, notebook_of(lab, edit, folder))  # type: ignore[arg-type]
    finally:
        marker.close()


def one(name: str, source: str) -> made.Edit:
    """Perfect but for one exercise."""
    return lambda function, stub, solution: source if function == name else solution


def item(mark: LabMark, name: str) -> ItemMark:
    return next(each for each in mark.items if each.item == name)


class TestTheClass:
    def test_marks_of_one_lab(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = made.write_class(tmp_path / "class", labs=("02",))
        rows = grade(capsys, folder, "--seconds", "8", "-j", "2")
        points = {learner: row["lab 02"] for learner, row in rows.items()}
        assert points == {"cheating": "0", "empty": "0", "half": "2", "looping": "4", "perfect": "5"}
        assert "read_string: stopped after 8 s" in rows["looping"]["remarks"]
        assert "the code ended its process (exit status 0)" in rows["cheating"]["remarks"]
        page = (tmp_path / "grades-feedback" / "half.html").read_text(encoding="utf-8")
        assert "the codes are signed" in page and "2 of 5 points" in page and "<script" not in page

    def test_marks_of_two_labs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rows = grade(capsys, made.write_class(tmp_path / "class"), "--seconds", "20", "-j", "2")
        totals = {learner: (row["lab 02"], row["lab 03"], row["total"], row["of"]) for learner, row in rows.items()}
        assert totals == {
            "cheating": ("0", "0", "0", "10"),
            "empty": ("0", "0", "0", "10"),
            "half": ("2", "2", "4", "10"),
            "looping": ("4", "3", "7", "10"),  # the layer calls the endless rope
            "perfect": ("5", "5", "10", "10"),
        }


class TestExercises:
    def test_every_lab_has_its_exercises(self) -> None:
        labs = all_labs()
        assert sorted(labs) == [f"{number:02d}" for number in range(18)]
        found = {(lab.number, each.item): each for lab in labs.values() for each in lab.exercises}
        assert len(found) > 75 and set(BY_READER) <= set(found) and set(TRACED) <= set(found)
        assert all(each.solution for each in found.values())

    @pytest.mark.parametrize("lab", [f"{number:02d}" for number in range(18)])
    def test_solutions_get_full_marks(self, lab: str) -> None:
        mark = marked(lab, made.perfect, seconds=120)
        assert mark.possible and mark.earned == mark.possible, [str(each) for each in mark.items]

    @pytest.mark.parametrize("lab", ["02", "04"])
    def test_chinese_notebooks(self, lab: str) -> None:
        mark = marked(lab, made.half if lab == "02" else made.empty, folder=made.LABS / "zh_CN")
        assert mark.language == "zh_CN"
        page = feedback_page(LearnerMark("小明", {lab: mark}))
        assert ('<html lang="zh-Hans">' in page and "小明" in page and "尚未通过" in page) or "未尝试" in page
        if lab == "02":
            assert "int8" in item(mark, "decode_q8_0").message and "signed" not in item(mark, "decode_q8_0").message

    def test_an_id_that_is_missing(self) -> None:
        content = made.notebook("02", made.perfect)
        for cell in content["cells"]:  # type: ignore[attr-defined]
            del cell["id"]
        notebook = read_notebook("work.ipynb", json.dumps(content).encode())
        assert lab_of(notebook) == "02"
        cell, note = find(notebook, all_labs()["02"].exercises[0])
        assert cell is not None and "struct.unpack_from" in cell.source and "found by the name `read_header`" in note

    def test_a_cell_that_is_gone(self) -> None:
        content = made.notebook("02", made.perfect)
        content["cells"] = [c for c in content["cells"] if "def row_place" not in made.source_of(c)]  # type: ignore[attr-defined]
        found = programs(read_notebook("x.ipynb", json.dumps(content).encode()), all_labs()["02"])
        states = {program.exercise.item: program.state for program in found}
        assert states.pop("row_place") is State.MISSING and set(states.values()) == {None}

    @pytest.mark.parametrize(
        "text, message", [("77", "no lab 77"), ("x", "numbers and ranges"), ("06-02", "ends before")]
    )
    def test_labs_that_are_not_there(self, text: str, message: str) -> None:
        with pytest.raises(OptionError, match=message):
            labs_named(text)
        assert labs_named("2,0-1") == ("00", "01", "02")


FORK_BOMB = (
    "import os\ndef {name}(*given):\n    for _ in range(2000):\n"
    "        if os.fork() == 0:\n            while True: pass\n"
)
OUTSIDE = "import pathlib\ndef {name}(*given):\n    pathlib.Path({path!r}).write_text('x')\n"
HOSTILE = {
    "fork bomb": FORK_BOMB,
    "memory": "def {name}(*given):\n    return bytearray(1 << 40)\n",
    "memory in steps": "def {name}(*given):\n    x = []\n    while True:\n        x.append(bytearray(1 << 26))\n",
    "a large result": "def {name}(*given):\n    return 'x' * (1 << 27)\n",
    "recursion": "def {name}(*given):\n    return {name}(*given)\n",
    "deep result": "def {name}(*given):\n    x = []\n    for _ in range(99999):\n        x = [x]\n    return x\n",
    "kill": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\ndef {name}(*given):\n    return 0\n",
    "input": "def {name}(*given):\n    return input()\n",
    "network": "import socket\ndef {name}(*given):\n    socket.create_connection(('127.0.0.1', 9)).send(b'x')\n",
    "solutions": "def {name}(*given):\n    return open({solutions!r}).read()\n",
    "not python": "def {name}(:\n",
    "exit": "raise SystemExit(0)\n",
    "class": "class {name}:\n    passed = True\n",
}

REASONS = {
    "fork bomb": "PermissionError|BlockingIOError", "memory": "MemoryError", "memory in steps": "MemoryError",
    "a large result": "more than 64 MB", "recursion": "RecursionError", "deep result": "is a list",
    "kill": "wrong value", "input": "EOFError", "network": "PermissionError", "solutions": "PermissionError",
    "not python": r"not Python: invalid syntax \(line 1\)", "exit": "SystemExit", "class": "TypeError",
}  # fmt: skip
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")


class TestHostile:
    @pytest.mark.parametrize("kind", HOSTILE)
    def test_code(self, kind: str, tmp_path: Path) -> None:
        """The exercise fails with a line, and the other exercises count."""
        (path,) = (made.LABS / "solutions").glob("02_*.ipynb")
        source = HOSTILE[kind].format(name="row_place", solutions=str(path))
        mark = marked("02", one("row_place", source), seconds=15)
        found = item(mark, "row_place")
        assert found.state in (State.NOT_YET, State.STOPPED) and re.search(REASONS[kind], found.message), found.message
        assert mark.earned == 4, [str(each) for each in mark.items]

    def test_writes_nothing_outside(self, tmp_path: Path) -> None:
        target = tmp_path / "written"
        mark = marked("02", one("row_place", OUTSIDE.format(name="row_place", path=str(target))))
        assert not target.exists() and "PermissionError" in item(mark, "row_place").message

    def test_the_seed_stays_with_the_grader(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MINILLAMA_COURSE_SEED", "4711")
        source = "import os\ndef row_place(*given):\n    raise ValueError(sorted(os.environ))\n"
        message = item(marked("02", one("row_place", source)), "row_place").message
        assert "ValueError" in message and "SEED" not in message and "HOME" in message

    def test_printed_text_stays_inside(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        noise = "import os\nprint('NOISE')\nos.write(1, b'NOISE')\nos.write(2, b'NOISE')\n"
        mark = marked("02", lambda name, stub, solution: noise + solution)
        out, err = capfd.readouterr()
        assert mark.earned == 5 and "NOISE" not in out + err

    @pytest.mark.parametrize(
        "source",
        ["import minillama.lab.grading.check as c\nc.Item.__call__ = 0\ndef step(*given):\n    return 0\n",
         "import sys\ndef step(*given):\n    return 0\n"],
    )  # fmt: skip
    def test_traced_functions(self, source: str) -> None:
        mark = marked("05", one("step", source))
        assert item(mark, "step").state is State.NOT_YET and "does not accept import of" in item(mark, "step").message


class TestSubmissions:
    def test_one_bad_file_stops_no_class(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = tmp_path / "class"
        secret = tmp_path / "secret.ipynb"
        secret.write_text(json.dumps(made.notebook("02", made.perfect)))
        made.write(folder / "empty", "02", made.notebook("02", made.empty))
        (folder / "broken").mkdir()
        (folder / "broken" / "02_x.ipynb").write_text("{not json")
        (folder / "list").mkdir()
        (folder / "list" / "a.ipynb").write_text("[1, 2]")
        (folder / "link").mkdir()
        (folder / "link" / "02.ipynb").symlink_to(secret)
        (folder / "whole-link").symlink_to(tmp_path)
        (folder / "huge").mkdir()
        with (folder / "huge" / "02.ipynb").open("wb") as file:
            file.truncate(40 << 20)
        (folder / "=cmd").mkdir()
        (folder / "bad.zip").write_bytes(b"PK no")
        os.mkfifo(folder / "list" / "pipe.ipynb")
        rows = grade(capsys, folder)
        assert {row["total"] for row in rows.values()} == {"0"} and rows["empty"]["of"] == "5"
        reasons = {"broken": "is not JSON", "list": "has no cells", "link": "is a symbolic link", "huge": "40 MB",
                   "whole-link": "is a symbolic link", "'=cmd": "no notebook", "bad": "not a readable zip"}  # fmt: skip
        for learner, reason in reasons.items():
            assert reason in rows[learner]["remarks"], learner
        assert "is not a regular file" in rows["list"]["remarks"]

    def test_members_of_an_archive(self, tmp_path: Path) -> None:
        path = tmp_path / "ann.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("../out.ipynb", "{}")
            archive.writestr("/etc/x.ipynb", "{}")
            archive.writestr("ann/02.ipynb", json.dumps(made.notebook("02", made.perfect)))
            archive.writestr("ann/bomb.ipynb", bytes(40 << 20))
        found = read_submission(path)
        assert list(found.files) == ["ann/02.ipynb"] and len(found.notes) == 3
        assert not (tmp_path.parent / "out.ipynb").exists()

    def test_two_notebooks_of_a_lab(self) -> None:
        files = {f"{name}.ipynb": json.dumps(made.notebook("02", edit)).encode()
                 for name, edit in (("a", made.empty), ("b", made.perfect))}  # fmt: skip
        chosen, notes = chosen_notebooks(Submission("ann", files), None)
        assert chosen["02"].path == "b.ipynb" and "b.ipynb counts, not a.ipynb" in notes[0]

    @pytest.mark.parametrize("words", [(), ("--labs", "02")])
    def test_each_submission_is_read_once(
        self, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        read = []
        monkeypatch.setattr(
            class_marks, "read_submission", lambda path: read.append(path.name) or read_submission(path)
        )
        monkeypatch.setattr(ClassMarker, "_lab", lambda marker, number, notebook: class_marks.not_handed_in(number))
        for name in ("ann", "bob"):
            made.write(tmp_path / "class" / name, "02", made.notebook("02", made.empty))
        assert sorted(grade(capsys, tmp_path / "class", *words)) == ["ann", "bob"]
        assert sorted(read) == ["ann", "bob"]

    def test_a_submission_that_cannot_be_read_is_a_row(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(path: Path) -> None:
            raise ZeroDivisionError("oh")

        monkeypatch.setattr(class_marks, "read_submission", fails)
        (found,) = class_marks.read_class([tmp_path / "ann"], None)
        assert not found.notebooks and "an error of the grader: ZeroDivisionError: oh" in found.notes[0]

    def test_an_error_of_the_grader_is_a_row(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*words: object) -> None:
            raise ZeroDivisionError("oh")

        made.write(tmp_path / "ann", "02", made.notebook("02", made.empty))
        monkeypatch.setattr("minillama.course.marking.class_marks.programs", fails)
        marker = ClassMarker(MarkingOptions())
        ((_, mark),) = marker.marks(read_class([tmp_path / "ann"], None))
        marker.close()
        assert "not marked, because of an error of the grader: ZeroDivisionError: oh" in mark.remarks()

    @pytest.mark.parametrize(
        "source", ["def read_header(x):\n    nonlocal y\n", "return 1", "x\0", "(" * 5000, "%%bash"]
    )
    def test_sources_that_do_not_parse(self, source: str) -> None:
        content = made.notebook("02", one("read_header", source))
        content["cells"][1]["source"] = source  # type: ignore[index]
        (first, *others) = programs(read_notebook("x.ipynb", json.dumps(content).encode()), all_labs()["02"])
        assert first.state in (State.NOT_YET, None) and len(others) == 4

    @pytest.mark.parametrize(
        "words, message",
        [(["nowhere"], "no folder nowhere"), (["."], "without submissions"), (["f.ipynb"], "is a file"),
         ([".", "--seconds", "0"], "at least|from 1"), ([".", "--labs", "99"], "no lab 99")],
    )  # fmt: skip
    def test_wrong_use(
        self, words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        monkeypatch.chdir(tmp_path)
        Path("nothing").write_text("")
        if words[0] == "f.ipynb":
            Path("f.ipynb").write_text("{}")
        assert main(["course", "grade", *words]) == 2
        err = capsys.readouterr().err
        assert re.search(message, err) and err.count("\n") == 1


def mark_of(learner: str, codes: dict[str, str], lab: str = "02") -> LearnerMark:
    items = tuple(ItemMark(name, name, State.PASSED, "", code=code) for name, code in codes.items())
    return LearnerMark(learner, {lab: LabMark(lab, items)})


def test_interrupted_classes_keep_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "class"
    for learner in ("ann", "bob"):
        made.write(folder / learner, "02", made.notebook("02", made.empty))

    def marks(self: ClassMarker, paths: list[Path]) -> object:
        yield 1, mark_of("bob", {"read_header": ""})
        raise KeyboardInterrupt

    monkeypatch.setattr(ClassMarker, "marks", marks)
    table = tmp_path / "g.csv"
    assert main(["course", "grade", str(folder), "-o", str(table)]) == 130
    assert "1 of 2 learners" in capsys.readouterr().err
    assert [row.split(",")[0] for row in table.read_text().splitlines()] == ["learner", "bob"]
