"""Parts of the instructor's kit: slices, values, the screen, look-alikes, tables and archives."""

import json
import zipfile
from pathlib import Path

import made_submissions as made
import pytest

from minillama.cli import main
from minillama.course.collecting.class_calibration import learner_results, summary
from minillama.course.gradebook.feedback_page import feedback_page, page_name
from minillama.course.gradebook.grades_table import write_table
from minillama.course.gradebook.look_alikes import look_alikes
from minillama.course.isolation.plain_values import read, unpickled, written
from minillama.course.isolation.source_screen import refused
from minillama.course.marking.code_slices import pieces, sliced
from minillama.course.marking.exercise_programs import TRACED
from minillama.course.marking.lab_exercises import all_labs
from minillama.course.marking.marks import ItemMark, LabMark, LearnerMark, State
from minillama.course.marking.submissions import Submission


def mark_of(learner: str, codes: dict[str, str], lab: str = "02") -> LearnerMark:
    items = tuple(ItemMark(name, name, State.PASSED, "", code=code) for name, code in codes.items())
    return LearnerMark(learner, {lab: LabMark(lab, items)})


class TestSlices:
    CELLS = (
        "import numpy as np\nfrom time import sleep",
        "SIZE = 4\nslow = sleep(9)\ndef twice(x):\n    return SIZE * x",
    )

    def test_only_what_is_needed(self) -> None:
        found = sliced("def f(x):\n    return np.ones(3) * twice(x) + slow", [pieces(self.CELLS)])
        assert found.code == ("import numpy as np", "SIZE = 4", "def twice(x):\n    return SIZE * x")
        assert found.unknown == ("slow",)

    def test_names_of_the_cell_itself(self) -> None:
        assert sliced("for SIZE in range(3):\n    np = SIZE", [pieces(self.CELLS)]).code == ()


class TestValues:
    def test_plain_values_cross(self) -> None:
        import numpy as np

        given = [1, 2.5, "é", None, True, (1, [2]), {3: b"x"}, {4}, 1j, range(3), 10**30, float("inf")]
        assert read(written(given, lambda _: None), lambda _: None) == given
        array = read(written(np.arange(6, dtype=np.int8).reshape(2, 3), lambda _: None), lambda _: None)
        assert isinstance(array, np.ndarray) and array.dtype == np.int8 and array.tolist() == [[0, 1, 2], [3, 4, 5]]

    @pytest.mark.parametrize(
        "data",
        [b'{"array": ["|O", [1], "AAAAAAAAAAA="]}', b'{"array": ["<f8", [99], "AAAA"]}', b'{"spam": []}', b"[" * 9**5,
         b'{"tuple": [], "set": []}', b"not json"],
    )  # fmt: skip
    def test_others_do_not(self, data: bytes) -> None:
        with pytest.raises((ValueError, TypeError, KeyError, RecursionError)):
            read(data, lambda _: None)

    def test_arrays_are_sent_whole(self) -> None:
        import numpy as np

        from minillama.course.isolation.plain_values import pickled, stays

        data = pickled([np.ones(3), len, np.dot], lambda value: 0 if stays(value) else None)
        assert unpickled(data, lambda _: None)[1:] == [len, np.dot]  # type: ignore[index]
        assert stays(lambda: 0)


class TestScreen:
    @pytest.mark.parametrize(
        "source",
        ["import os", "import minillama.lab.checks.lab05", "from minillama.lab.grading import check", "x.__globals__",
         "import jax._src.core", "getattr(f, 'x')", "np.allclose = max", "typing.sys", "np.ctypeslib", "exec('1')",
         "jax.pure_callback(f, x)", "from numpy import *", "def f():\n    global x"],
    )  # fmt: skip
    def test_refused(self, source: str) -> None:
        assert refused([source])

    def test_the_solutions_pass(self) -> None:
        for lab, name in TRACED:
            (exercise,) = (each for each in all_labs()[lab].exercises if each.item == name)
            assert refused([exercise.solution]) is None


class TestLookAlikes:
    ODD = (
        "def row_place(header_end, alignment, offset, row, row_length, block):\n    {a} = header_end\n"
        "    while {a} % alignment:\n        {a} += 1\n    {b} = 0\n    for {c} in range(row):\n"
        "        {b} = {b} + row_length / block[0] * block[1]\n    return int({a} + offset + {b})\n"
    )

    def test_renamed_copies(self) -> None:
        codes = [self.ODD.format(a=a, b=b, c=c) for a, b, c in (("p", "q", "i"), ("start", "size", "n"))]
        marks = [mark_of("ann", {"row_place": codes[0]}), mark_of("bob", {"row_place": "# mine\n" + codes[1]})]
        (pair,) = look_alikes(marks)
        assert (pair.first, pair.second, pair.same_names) == ("ann", "bob", False) and pair.similarity == 1

    def test_solutions_and_stubs_are_not_listed(self) -> None:
        right, stubs = made.solutions("02"), {each.item: each.stub for each in all_labs()["02"].exercises}
        right = {name: code for name, code in right.items() if name in stubs}
        assert look_alikes([mark_of("ann", right), mark_of("bob", right)]) == []
        assert look_alikes([mark_of("ann", stubs), mark_of("bob", stubs)]) == []


class TestTable:
    def test_formulas_and_pages(self, tmp_path: Path) -> None:
        write_table(tmp_path / "t.csv", ["02"], [mark_of("=1+1", {"read_header": ""})])
        assert "'=1+1,1,1,1," in (tmp_path / "t.csv").read_text()
        taken: set[str] = set()
        assert [page_name(name, taken) for name in ("../a", "小明", "A", "a", "")] == [
            "a.html", "小明.html", "A-2.html", "a-3.html", "learner.html",
        ]  # fmt: skip

    def test_pages_escape(self) -> None:
        mark = mark_of("<script>alert(1)</script>", {"read_header": "</pre><script>"})
        assert "<script>" not in feedback_page(mark)


class TestCollect:
    def results(self, said: object, came: object) -> bytes:
        entries = {"loss": {"said": said, "unit": "times"}}, {"loss": {"value": came, "unit": "times"}}
        return json.dumps({"predictions": entries[0], "measurements": entries[1]}).encode()

    def test_archive_and_plot(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        import hashlib

        folder = made.write_class(tmp_path / "class", labs=("02",))
        for learner, said in (("half", 2), ("perfect", 16)):
            (folder / learner / "results").mkdir()
            (folder / learner / "results" / "lab02.json").write_bytes(self.results(said, 15.9))
        output = tmp_path / "class.zip"
        assert main(["course", "collect", str(folder), "-o", str(output)]) == 0
        with zipfile.ZipFile(output) as archive:
            files = json.loads(archive.read("manifest.json"))["files"]
            assert len(files) == 8
            for file in files:
                assert hashlib.sha256(archive.read(file["path"])).hexdigest() == file["sha256"]
        page = (tmp_path / "class-calibration.html").read_text()
        assert "half: loss" in page and "2 measured predictions" in capsys.readouterr().out
        assert "<script" not in page and "data:image/svg+xml" in page
        assert main(["course", "collect", str(folder), "-o", str(output)]) == 2  # not overwritten

    def test_summary_and_damaged_results(self) -> None:
        def of(data: bytes) -> object:
            return learner_results(Submission("x", {"a/results/lab02.json": data, "results/../lab99": b""}))

        found = {"a": of(self.results(2, 16)), "b": of(self.results(16, 16)), "c": of(b"{no"), "d": of(b"[]"),
                 "e": of(self.results("NaN", 1e999))}  # fmt: skip
        assert summary(found) == [("02", "loss", "2", "9 times", "16 times", "4.5 times", "1")]  # type: ignore[arg-type]
