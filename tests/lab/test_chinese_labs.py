"""The Chinese labs: whole, in step with their sources, Chinese, and with the records of the English ones."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from translated_texts import without_texts

from minillama.lab import build, lab_record
from minillama.lab.grading.prediction import Prediction
from minillama.lab.translation import catalogue_files as files
from minillama.lab.translation.code_strings import record_names
from minillama.lab.translation.language_build import Language
from minillama.lab.translation.translated_notebook import LANGUAGE_CELL, MARKS, code_of, lab_messages
from minillama.measure.tables import display_width, plain_table

LANGUAGE = "zh_CN"
MARK = MARKS[LANGUAGE]
TRANSLATED = tuple(f"{number:02}" for number in range(18))
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
    counts = files.counts(files.read_catalogue(chinese.package.path, LANGUAGE), chinese.package_messages())
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


def test_benchmark_checks_and_figures_in_chinese(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minillama.lab.benchmarks.interval_plots import ratio_intervals
    from minillama.lab.benchmarks.repeated_runs import Noise, statistics_of_reports
    from minillama.lab.checks import lab10, lab11
    from minillama.lab.recorded.comparison_plots import ratio_words, share_words

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINILLAMA_LANG", "zh")
    assert "no block_until_ready（没有用 block_until_ready 等待结果）" in lab11.flaw_list().splitlines()
    wrong = dict.fromkeys("ABCDEFGH", "no block_until_ready")
    assert "A：列出两次读时钟之间的所有事情" in str(lab11.flaws(lambda: wrong))
    assert "颠倒了：加速比是" in str(lab11.speed_up(_inverted))
    figure = ratio_intervals(statistics_of_reports(Noise(), 10), "题目", "报告值 / 真实值")
    assert "中位数" in figure.text and "1 表示与真实值相同" in figure.text and "无法判断" in figure.text
    row = {"avg_ts": 50.0, "stddev_ts": 0.1, "samples_ns": [1, 2, 3, 4]}
    assert ratio_words({**row, "avg_ts": 80.0}, row).endswith("：更快") and "带宽的 50%" in share_words([0.5])
    assert "两行只在 n_threads 上不同" in str(lab10.unfair(_without_threads))


def _inverted(before, after):  # type: ignore[no-untyped-def]
    from minillama.lab.checks.items.lab11_speed_up import _speed_up

    return _speed_up(after, before)


def _without_threads(claims):  # type: ignore[no-untyped-def]
    from minillama.lab.checks.lab10 import _unfair

    return _unfair(claims, ignored=["n_threads"])


def test_the_report_in_chinese(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minillama.lab import lab_record
    from minillama.lab.checks import lab12
    from minillama.lab.grading.decisions import Essay, Limit, Target, decide, example_targets
    from minillama.lab.grading.lab_results import measurements_text, results_so_far
    from minillama.lab.grading.report_html import build_report

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINILLAMA_LANG", "zh")
    why = "人每秒大约读五个词，相当于 7 个词元，所以不能更慢"
    target = Target("对话", (Limit("12", "memory", at_most=4000.0, because=why),
                           Limit("12", "decoding, cache f16", at_least=7.0, because=why)))  # fmt: skip
    assert lab12.target(lambda: target).passed, "a Chinese sentence is a reason"
    assert "说明理由" in str(
        lab12.target(lambda: Target("对话", (Limit("12", "memory", at_most=1.0, because="快"),) * 2))
    )
    decide("target", target)
    guess = Prediction("12", "sixteen at a time over one", "多少倍？", "times")
    guess.record(16.0)
    guess.compare(4.0)
    lab_record.measurement("12", "memory", 5000.0, "MB")
    Essay("1 recommendation", "你推荐什么？").record("更大的模型。")
    page = build_report(lab_record.results_folder(), Path("report.html")).read_text(encoding="utf-8")
    for part in ('<html lang="zh-CN">', "部署一个语言模型：报告", why, "至多 4000", "未达到", "未测量", "评分标准",
                 "十六个一起与一个的速度之比", "2 个限制：0 个达到，1 个未达到", "没有测量过任何取舍。",
                 "更大的模型。", "实验 05：预填充、解码与 KV 缓存"):  # fmt: skip
        assert part in page, part
    body = page[page.rindex("</style>") :]
    shown = re.sub(r"<script.*?</script>|<style.*?</style>|<pre>.*?</pre>|<[^>]+>", " ", body, flags=re.DOTALL)
    left = re.sub(r"minillama|decoding, cache f16|Python|JavaScript|[\w.-]+\.json", "", shown)
    assert not re.findall(r"(?:\b[a-z]{2,} ){2}[a-z]{2,}\b", left), "a sentence of the report is English"
    assert "实验 12 报告：" in measurements_text(results_so_far()) and "笔记本电脑上的对话" in example_targets()


def test_checks_of_labs_15_to_17_in_chinese(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minillama.lab.checks import lab15, lab16, lab17
    from minillama.lab.grading.lab_results import measurements_text, read_results
    from minillama.lab.layer_costs.state_figures import crossings, state_figure
    from minillama.lab.layer_costs.step_times import StepTimes, growth_sentence
    from minillama.lab.layer_costs.wide_layers import WIDE_LAYERS
    from minillama.lab.own_kernels.core_limits import CoreLimits, limit_sentence
    from minillama.lab.own_kernels.kernel_figures import KernelDot, core_roofline
    from minillama.lab.speculation.speculation_verdict import gain_or_loss
    from minillama.lab.speculation.speedup_figures import batch_curve

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINILLAMA_LANG", "zh")
    assert "值不对（注意力，5000 个词元）" in str(lab16.read_bytes(lambda layer, length: 3))
    assert "数不对（一段文本）：查询的结果" in str(lab16.delta_rule(lambda q, k, v, g, beta, memory: (v, memory)))
    assert "（每个权重 4.5 位）" in str(lab17.instructions_allowed(lambda *numbers: 1.0))
    assert "返回了 int；请返回新的和" in str(lab17.dequantise_product(lambda block, x, sums: 3))
    assert "猜测从来没有保留过" in str(lab15.verify(lambda p, q, guess: (0.0, p)))
    assert "（a=0.8，k=3）" in str(lab15.expected_tokens(lambda a, k: -1.0))
    assert "从多长的上下文起" in crossings(WIDE_LAYERS) and "总是" in crossings(WIDE_LAYERS)
    assert crossings(WIDE_LAYERS).splitlines()[1].split() == ["MHA", "GQA", "窗口", "潜向量", "循环"]
    drawn = state_figure(WIDE_LAYERS, "题目")
    assert [curve.name for curve in drawn.plotly.data] == drawn.text.splitlines()[2].split()[1:]
    assert [curve.name for curve in drawn.plotly.data][2:] == ["窗口", "潜向量", "循环"]
    times = StepTimes({"latent": {64: [1.0] * 11, 1024: [2.0] * 11}})
    assert growth_sentence(times, "latent").startswith("潜向量     1024 与 64 个词元之比")
    lab_record.measurement("17", "floats, billions of weights a second", 2.0, "billions/s")
    assert "'floats, billions of weights a second': 2 十亿/秒" in measurements_text(read_results(Path("results")))
    assert limit_sentence("floats", 0.1, 0.3).endswith("允许 0.30 条：应当受内存限制")
    roofline = core_roofline(CoreLimits(1e10, 3e9, 8e9), 0.5625, {"floats": KernelDot(0.4, 2, 5e9)}, "题目")
    assert "单流占比" in roofline.text and roofline.plotly.data[0].name == "内存"
    assert "猜 3 个词元：×4.00" in batch_curve(1.0, 3, 1, 0.0, lambda rows: 1.0, "题目").text
    assert gain_or_loss((1.4, 1.41)) == "收益" and gain_or_loss((0.5, 2.0)) == "无法判断"


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
