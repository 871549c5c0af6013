"""The Chinese labs: whole, in step with their sources, Chinese, and with the records of the English ones."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from translated_texts import without_texts

from minillama.lab import build
from minillama.lab.grading.prediction import Prediction
from minillama.lab.translation import catalogue_files as files
from minillama.lab.translation.code_strings import record_names
from minillama.lab.translation.language_build import Language
from minillama.lab.translation.translated_notebook import LANGUAGE_CELL, MARKS, code_of, lab_messages
from minillama.measure.tables import display_width, plain_table

LANGUAGE = "zh_CN"
MARK = MARKS[LANGUAGE]
TRANSLATED = ("00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "11", "12", "13", "14")
CHINESE = "[\u4e00-\u9fff]"

each_translated = pytest.mark.parametrize("number", TRANSLATED)


@pytest.fixture(scope="module")
def chinese() -> Language:
    return build.language(LANGUAGE)


def test_in_step(chinese: Language) -> None:
    assert chinese.out_of_step() == []
    lines = chinese.counts([*TRANSLATED, "package"])
    assert len(lines) == len(TRANSLATED) + 1 and all(
        re.fullmatch(r"\w+( \d\d)?: \d+ translated, 0 fuzzy, 0 missing", each) for each in lines
    )
    assert [lab.number for lab in chinese.started()] == list(TRANSLATED)


@each_translated
def test_whole_labs(chinese: Language, number: str) -> None:
    (lab,) = (lab for lab in chinese.labs if lab.number == number)
    counts = files.counts(files.read_catalogue(chinese.catalogue_path(lab), LANGUAGE), lab.messages)
    assert counts.is_complete and counts.translated == len(lab_messages((lab.solution, lab.learner), "")) > 60


def test_the_package_is_whole(chinese: Language) -> None:
    counts = files.counts(files.read_catalogue(chinese.package_path, LANGUAGE), chinese.package_messages())
    assert counts.is_complete and counts.translated > 100


@each_translated
def test_cells_of_a_translated_notebook(chinese: Language, number: str) -> None:
    (lab,) = (lab for lab in chinese.labs if lab.number == number)
    for english, ours in zip((lab.learner, lab.solution), chinese.notebooks(lab), strict=True):
        cells = [cell for cell in ours.cells if cell.id != LANGUAGE_CELL]
        assert [cell.id for cell in cells] == [cell.id for cell in english.cells]
        assert [cell.metadata for cell in cells] == [cell.metadata for cell in english.cells]
        for mine, theirs in zip(cells, english.cells, strict=True):
            if mine.cell_type == "code":
                assert without_texts(mine.source) == without_texts(theirs.source)
        assert record_names(code_of(ours)) == record_names(code_of(english))
    learner = nbformat.read(chinese.learner_path(lab), as_version=4)
    assert all(not cell.get("outputs") for cell in learner.cells)
    assert MARK not in "".join(cell.source for cell in learner.cells)


@each_translated
def test_the_chinese_is_chinese(chinese: Language, number: str) -> None:
    """Outside of code, mathematics and sources, no four Latin words in a row, and bold ends where markdown ends it."""
    (lab,) = (lab for lab in chinese.labs if lab.number == number)
    for text in files.translations(files.read_catalogue(chinese.catalogue_path(lab), LANGUAGE)).values():
        prose = re.sub(r"`[^`]+`|\$[^$]+\$|\{.*\}|\*The curious[^*]+\*", "", text)
        assert not re.findall(r"(?:\b[A-Za-z]+ ){3}[A-Za-z]+\b", prose), text
        for _, words, after in re.findall(r"(\*+)([^*]+)\1(.?)", prose):
            ends = words[-1] not in "，。：；！？、）”" or not re.match(CHINESE, after)
            assert ends and not words.startswith(("“", "（")), f"bold would not end here: {words}"
        assert not re.search(rf"{CHINESE}[,;:?!]", prose), "punctuation of Chinese"


def test_checks_and_predictions_in_chinese(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minillama.lab import lab_record
    from minillama.lab.checks import lab00, lab04

    folder = tmp_path / LANGUAGE
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MINILLAMA_LANG", "zh")
    assert str(lab00.bench(lambda f, make, clock: 0.0)) == "还不对: 1. 能避开四个陷阱的基准测试: 一次也没有调用 f"
    assert "还是空函数" in str(lab04.min_p(stub))
    assert "降序" in str(lab04.top_p(ascending))
    right = lab04.min_p(lambda probs, p: probs >= p * probs.max())
    assert (
        right.passed and str(right).startswith("通过: 3. min-p") and "✔ 通过" in right._repr_mimebundle_()["text/html"]
    )
    score = str(lab04.score())
    assert score.startswith("实验 04：共 4 题，已完成 1 题") and "未尝试" in score and "还不对" in score
    prediction = Prediction("00", "first call over third call", "多少倍？", "times")
    prediction.record(3)
    figure = prediction.compare(30.0, 20.0)
    assert "第一次调用与第三次调用之比" in figure.text and "30 倍" in figure.text and "相差 10 倍" in figure.text
    records = lab_record.read("00")
    assert records["measurements"]["first call over third call"]["unit"] == "times", "records have English units"
    assert lab_record.results_file("00") == tmp_path / "results" / "lab00.json", "one record for all languages"
    monkeypatch.setenv("MINILLAMA_LANG", "en")
    assert str(right).startswith("PASS: ") and str(lab04.score()).startswith("lab 04: 1 of 4 solved")


def test_serving_checks_and_figures_in_chinese(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minillama.lab.checks import lab13, lab14
    from minillama.lab.plots.serving_plots import gantt
    from minillama.lab.serving.batch_simulator import Costs, Policy, admit_any, mixed_requests, simulate, whole_prompt
    from minillama.lab.serving.cache_blocks import faulty_release

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINILLAMA_LANG", "zh")
    assert "每一对是（请求，槽位）" in str(lab13.admit(_pairs))
    assert "得到的形状是 (1, 1)（五个请求在等待，四个槽位空闲）" in str(lab13.admit(lambda waiting, slots: [[1]]))
    assert "一次计算最多处理 costs.ubatch 个词元" in str(lab13.next_chunk(lambda left, rows, limit, costs: left))
    assert "前缀索引指向一个空闲的块" in str(lab14.release(faulty_release))
    figure = gantt(simulate(mixed_requests(3), 2, Costs(), Policy(admit_any, whole_prompt)), "题目")
    assert "槽位 1 |" in figure.text and "P 提示，d 解码" in figure.text
    assert {trace.name for trace in figure.plotly.data} == {"提示", "解码"} and figure.plotly.data[0].y[0] == "槽位 0"


def _pairs(waiting, slots):  # type: ignore[no-untyped-def]
    from minillama.lab.checks.items.lab13_scheduler import _admit

    return _admit(waiting, slots, by_slot=True)


def test_a_table_of_chinese_is_aligned() -> None:
    table = plain_table(("批处理", "词元/秒"), [("静态", "9"), ("continuous", "120")], right=(1,))
    lines = table.split("\n")
    assert {display_width(line) for line in lines} == {19} and lines[2] == "静态" + " " * 14 + "9"


def stub(probs: object, p: float) -> object:
    raise NotImplementedError


def ascending(probs, p):  # type: ignore[no-untyped-def]
    from minillama.lab.checks.lab04 import _ascending

    return _ascending(probs, p)


def test_a_damaged_catalogue_is_english(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minillama.lab import language

    folder = tmp_path / LANGUAGE / "LC_MESSAGES"
    folder.mkdir(parents=True)
    monkeypatch.setattr(language, "LOCALE_FOLDER", tmp_path)
    monkeypatch.setenv("MINILLAMA_LANG", "zh")
    for content in (b"", b"no catalogue", b"\xde\x12\x04\x95" + bytes(range(200))):
        (folder / "minillama.mo").write_bytes(content)
        language._catalogue.cache_clear()
        assert language.translate("PASS") == "PASS"
    language._catalogue.cache_clear()


def test_chinese_notebook_runs_unsolved(chinese: Language, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run All of lab 00 reaches the end, in Chinese."""
    for name in ("JAX_NUMPY_DTYPE_PROMOTION", "JAX_NUMPY_RANK_PROMOTION", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / LANGUAGE
    folder.mkdir()
    executed = build.execute(nbformat.read(chinese.learner_path(chinese.labs[0]), as_version=4), folder)
    shown = [output for cell in executed.cells for output in cell.get("outputs", [])]
    texts = "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in shown)
    assert not [output for output in shown if output.output_type == "error"]
    for part in ("处理器", "预测：第一次调用", "还没有预测", "同一个函数的六次调用", "还不对: 1. 能避开", "尚未编写",
                 "共 1 题，已完成 0 题"):  # fmt: skip
        assert part in texts, part
    assert (tmp_path / "results" / "lab00.json").exists() and not (folder / "results").exists()
    assert os.environ["MINILLAMA_LANG"] == "en"
