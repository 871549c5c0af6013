"""The report from full, partial and hostile records, and lab 12's checks."""

import ast
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from lab_checks import SOURCES

from minillama.errors import ResourceError
from minillama.lab import Prediction, lab_record
from minillama.lab.checks import lab12
from minillama.lab.grading import decisions
from minillama.lab.grading.check import Item
from minillama.lab.grading.decisions import Essay, Limit, LookBack, Ratio, Target, TradeOff, decide, read_decisions
from minillama.lab.grading.lab_results import TITLES, Quantity, read_results
from minillama.lab.grading.report_html import build_report, calibration, error_factor, save_figure
from minillama.lab.plots.measurement_plots import sweep
from minillama.lab.plots.roofline_plots import Dot, record_dot

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
REASON = "Because one person waits for each token, and memory is not short."


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Page(HTMLParser):
    """The page as a browser parses it: tags, attributes, text, scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words, self.scripts = "", []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        else:
            self.words += data


def fill() -> None:
    """Records as the labs write them: of lab 01, lab 05 and lab 12."""
    guess = Prediction("05", "1024 over 64", "How many?", "times")
    guess.record(16.0)
    guess.compare(20.0)
    roof = {"bandwidth": 1e10, "flops": 2e11, "arithmetic": "Q8_0", "threads": 2, "device": "cpu"}
    lab_record.write("01", "roofline", "own", roof)
    record_dot("01", "decode", Dot(2.0, 15e9))
    for name, value, unit in (("slow", 10.0, "tokens/s"), ("fast", 25.0, "tokens/s"), ("small", 4.0, "MB"),
                              ("big", 8.0, "MB"), ("nothing", 0.0, "MB")):  # fmt: skip
        lab_record.measurement("12", name, value, unit)
    save_figure("12", "speed", sweep({"f16": {0: 100.0, 64: 80.0}}, {}, "Speed", "depth", "tok/s"))


NEEDED = "Because people read 5 words a second, which is 7 tokens."
TARGET = Target("chat on a laptop", (Limit("12", "fast", at_least=20.0, because=NEEDED),
                                     Limit("12", "big", at_most=7.0, because=NEEDED)))  # fmt: skip
TRADE_OFFS = (
    TradeOff("larger cache", Ratio("12", "slow", "fast"), Ratio("12", "small", "big"), REASON),
    TradeOff("smaller cache", Ratio("12", "big", "small"), Ratio("12", "fast", "slow"), REASON),
)
LOOK_BACK = LookBack("05", "1024 over 64", REASON)


def page() -> Page:
    return Page(build_report(Path("results"), Path("report.html")).read_text(encoding="utf-8"))


def test_report_holds_all_that_was_recorded() -> None:
    fill()
    decide("target", TARGET)
    decide("trade-offs", TRADE_OFFS)
    decide("look back", LOOK_BACK)
    Essay("1 why", "What do you recommend?").record("More memory.")
    shown = page()
    wanted = ("chat on a laptop", NEEDED, "at least 20", "at most 7", "met", "missed", "2.5 times", "larger cache",
              REASON, "predicted 16 times, measured 20 times, off by 1.25 times", "What do you recommend?",
              "More memory.", "My machine's roofline", "2 limits: 1 met, 1 missed",
              "2 trade-offs, 4 of 4 ratios")  # fmt: skip
    for part in wanted:
        assert part in shown.words, part
    figures = [json.loads(script) for script in shown.scripts if script.startswith('{"data"')]
    titles = [figure["layout"]["title"]["text"] for figure in figures]
    assert titles == ["Predicted and measured values", "My machine's roofline", "Speed"]
    assert shown.tags.count("details") == shown.tags.count("pre") == len(figures), "each has a text alternative"
    assert not list(Path().glob(".*.tmp"))


def test_gaps_are_named_and_one_lab_is_enough() -> None:
    lab_record.measurement("05", "slope", 1.0, "exponent")
    words = page().words
    missing = [lab for lab in TITLES if lab != "05"]
    assert all(f"the results have no lab{lab}.json" in words for lab in missing) and "no lab05.json" not in words
    for gap in ("target was chosen", "trade-off was measured", "prediction was reviewed"):
        assert f"No {gap}" in words
    assert "Nothing was written" in words and "The roofline was not measured" in words
    assert f"labs without results: {', '.join(missing)}" in words


def test_report_is_one_file_that_loads_nothing() -> None:
    fill()
    shown = page()
    policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
    assert ("content", policy) in shown.attributes
    assert not {"link", "img", "iframe", "base", "form"} & set(shown.tags)
    assert not [name for name, _ in shown.attributes if name in ("src", "href", "srcset", "data") or name[:2] == "on"]
    assert sum("plotly.js v" in script for script in shown.scripts) == 1


def test_what_records_hold_is_text_and_no_markup() -> None:
    fill()
    before = page()
    lab_record.measurement("12", EVIL, 1.0, EVIL)
    lab_record.write("12", "predictions", EVIL, {"said": 1.0, "unit": EVIL})
    record_dot("12", EVIL, Dot(1.0, 1e9))
    save_figure("12", EVIL, sweep({EVIL: {0: 1.0}}, {}, EVIL, EVIL, EVIL))
    decide("target", Target(EVIL, (Limit("12", EVIL, at_least=1.0), Limit("<b>", EVIL, at_most=1.0))))
    decide("trade-offs", (TradeOff(EVIL, Ratio("<i>", EVIL, EVIL), Ratio("12", EVIL, EVIL), EVIL),))
    decide("look back", LookBack("<u>", EVIL, EVIL))
    Essay(EVIL, EVIL).record(EVIL)
    path = Path("results/lab12.json")
    content = json.loads(path.read_text())
    content["written"] = content["machine"]["cpu"] = content["versions"]["jax"] = EVIL
    path.write_text(json.dumps(content))
    shown = page()
    assert set(shown.tags) <= set(before.tags) | {"h3", "b"}
    assert len(shown.scripts) == len(before.scripts) + 1, "one figure more"
    assert shown.words.count("onerror=alert(2)") > 12, "it is all shown, as text"
    assert shown.scripts.count("alert(1)") == 0


MALFORMED: list[tuple[str, str]] = [
    ("{", "is not readable json"),
    ("[1, 2]", "is not what a lab writes"),
    ("[" * 5000, "is not readable json|not what a lab writes"),
    ('{"measurements": {"speed": 3}}', "measurements: speed is 3, not a group of entries"),
    ('{"measurements": {"speed": {"value": "fast"}}}', "measurements: speed: value is 'fast', not a number"),
    ('{"measurements": {"speed": {"value": NaN}}}', "not a finite number"),
    ('{"measurements": {"speed": {"value": 1' + "0" * 400 + "}}}", "not a finite number"),
    ('{"measurements": {"speed": {"value": true}}}', "not a number"),
    ('{"predictions": {"speed": {"unit": "x"}}}', "said is None, not a number"),
    ('{"checks": {"slope": {"passed": "yes"}}}', "not true or false"),
    ('{"dots": {"decode": {"intensity": 0, "flops": 1}}}', "not a positive number"),
    ('{"roofline": {"own": {"bandwidth": 1}}}', "flops is None"),
    ('{"texts": {"why": {"text": 5}}}', "text is 5, not a text"),
    ('{"pictures": {"a": {"figure": {"data": [{"type": "nonsense"}]}, "text": ""}}}', "a figure that plotly knows"),
    ('{"decisions": {"target": {"name": "x"}}}', "'target' is not what the lab writes"),
    ('{"decisions": {"target": {"name": "x", "limits": [{"lab": "12", "measurement": "y", "at_least": null, '
     '"at_most": null}]}}}', "is not what the lab writes"),
    ('{"decisions": {"trade-offs": [3]}}', "is not what the lab writes"),
    ('{"decisions": {"look back": "never"}}', "is not what the lab writes"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "said"), MALFORMED)
def test_malformed_records_are_left_out_with_one_line(content: str, said: str) -> None:
    """The report names the part; all other records of this lab and of the others are in it."""
    lab_record.measurement("05", "slope", 2.0, "exponent")
    path = Path("results/lab12.json")
    path.write_text(content)
    shown = page()
    problems = [*read_results(Path("results"))["12"].problems, *read_decisions(read_results(Path("results"))).problems]
    assert len(problems) == 1 and "\n" not in problems[0] and len(problems[0]) < 300 and "lab12" in problems[0]
    assert any(part in problems[0] for part in said.split("|")), problems
    assert problems[0] in shown.words and "2 exponent" in shown.words and "1 parts unreadable" in shown.words
    assert path.read_text() == content, "reading changes nothing"


def test_one_bad_entry_costs_no_other() -> None:
    lab_record.measurement("05", "slope", 2.0, "exponent")
    lab_record.write("05", "measurements", "bad", {"value": "many"})
    lab_record.write("05", "checks", "bad", {"passed": "perhaps"})
    found = read_results(Path("results"))["05"]
    assert found.measurements == {"slope": Quantity(2.0, "exponent")} and len(found.problems) == 2
    assert "lab05.json: measurements: bad: value is 'many', not a number" in " ".join(found.problems)


def test_report_from_memory_where_nothing_can_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("results").write_text("a file where the folder should be")
    lab_record.measurement("05", "slope", 2.0, "exponent")
    assert "2 exponent" in page().words
    assert Path("results").read_text() == "a file where the folder should be"
    Path("other").write_text("")
    with pytest.raises(ResourceError, match="other"):
        build_report(Path("results"), Path("other/report.html"))
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_missing_folder_is_an_error() -> None:
    with pytest.raises(ResourceError, match="run a lab first"):
        build_report(Path("results"), Path("report.html"))


def test_a_trade_off_without_measurements_is_said() -> None:
    """Also one that is no TradeOff, or has no Ratio: the cell shows what there is, and never raises."""
    fill()
    results = read_results(Path("results"))
    known, unknown = Ratio("05", "1024 over 64", "1024 over 64"), Ratio("12", "cache, f16", "cache, q8_0")
    offered = (TradeOff("half", known, unknown, REASON), TradeOff("none", "much", None, REASON), 3)  # type: ignore[arg-type]
    assert decisions.trade_offs_text(offered, results).splitlines() == [
        "half: gain 1.00 times, cost not measured",
        "none: gain not measured, cost not measured",
        "3 is not a TradeOff",
    ]
    assert decisions.trade_offs_text("not solved yet", results) == "trade-offs: not solved yet"
    assert decisions.trade_offs_text(offered[:1], {}) == "half: gain not measured, cost not measured"


def test_decisions_come_back_as_they_were_made() -> None:
    fill()
    assert read_decisions(read_results(Path("results"))) == decisions.Decisions()
    for name, decision in (("target", TARGET), ("trade-offs", TRADE_OFFS), ("look back", LOOK_BACK)):
        decide(name, decision)
        decide(name, "not written yet")  # what `attempt` says of a stub changes nothing
    kept = read_decisions(read_results(Path("results")))
    assert kept == decisions.Decisions(TARGET, TRADE_OFFS, LOOK_BACK)
    assert kept.trade_offs[0].gain.times(read_results(Path("results"))) == 2.5
    assert Ratio("12", "nothing", "big").times(read_results(Path("results"))) is None
    assert Ratio("07", "a", "b").times(read_results(Path("results"))) is None


def test_calibration_shows_pairs_of_said_and_measured() -> None:
    fill()
    lab_record.write("05", "predictions", "only said", {"said": 1.0, "unit": "s"})
    shown = calibration(read_results(Path("results")))
    assert re.search(r"05 +1024 over 64 +16 +20 +times +1.25 times", shown.text) and "only said" not in shown.text
    assert calibration({}).text.endswith("no prediction was measured yet")
    assert error_factor(Quantity(0.0, "s"), Quantity(1.0, "s")) == "-"


def test_calibration_shows_zeros_and_skipped_ones_at_the_edge() -> None:
    fill()
    nothing, skipped = (Prediction("13", name, "How many?", "times") for name in ("nothing", "left out"))
    nothing.record(0.0)
    nothing.compare(4.0)
    skipped.skip()
    skipped.compare(8.0)
    shown = calibration(read_results(Path("results")))
    assert re.search(r"13 +nothing +0 +4 +times +-", shown.text)
    assert re.search(r"13 +left out +skipped +8 +times +-", shown.text)
    low = 10 ** shown.plotly.layout.yaxis.range[0]
    found = {trace.name: (trace.x, trace.y) for trace in shown.plotly.data if trace.name}
    assert found["lab 13"] == ((4.0,), (low,)) and found["skipped"] == ((8.0,), (low,))


def test_essays_remember() -> None:
    essay = Essay("1 why", "Why?")
    assert essay.recorded() == ""
    essay.ask()
    essay.record("So.")
    assert essay.recorded() == "So."


def right_verdict(value: float | None, at_least: float | None, at_most: float | None) -> str:
    low, high = -1e99 if at_least is None else at_least, 1e99 if at_most is None else at_most
    return "not measured" if value is None else ["missed", "met"][low <= value <= high]


RIGHT: dict[Item, Callable] = {
    lab12.target: lambda: TARGET,
    lab12.verdict: right_verdict,
    lab12.trade_offs: lambda: TRADE_OFFS,
    lab12.look_back: lambda: LOOK_BACK,
}


def test_lab12_accepts_right_answers() -> None:
    fill()
    assert set(RIGHT) == set(lab12.ITEMS)
    for item, answer in RIGHT.items():
        assert item(answer).passed, item(answer).message
    assert str(lab12.score()).startswith("lab 12: 4 of 4 solved")


def trade(**changes: object) -> Callable:
    """Two trade-offs, the first with one thing wrong."""
    made = {"choice": "c", "gain": TRADE_OFFS[0].gain, "cost": TRADE_OFFS[0].cost, "because": REASON} | changes
    return lambda: (TradeOff(**made), TRADE_OFFS[1])


FAST, BIG = TARGET.limits
WRONG: list[tuple[Item, Callable, str]] = [
    (lab12.target, lambda: "chat", "should be a Target"),
    (lab12.target, lambda: Target(" ", TARGET.limits), "no name"),
    (lab12.target, lambda: Target("chat", (FAST,)), "two limits"),
    (lab12.target, lambda: Target("chat", (FAST, FAST)), "same measurement"),
    (lab12.target, lambda: Target("chat", (FAST, Limit("12", "big"))), "either at_least or at_most"),
    (lab12.target, lambda: Target("chat", (FAST, Limit("12", "big", 1.0, 2.0))), "either at_least or at_most"),
    (lab12.target, lambda: Target("chat", (FAST, Limit("12", "big", at_most=0.0))), "positive number"),
    (lab12.target, lambda: Target("chat", (FAST, Limit("12", "big", at_most=7.0))), "say why"),
    (lab12.target, lambda: Target("chat", (FAST, Limit("12", "big", at_most=7.0, because=REASON))), "in digits"),
    (lab12.target, lambda: Target("chat", (FAST, Limit("12", "memry", at_most=7.0))), "did you mean 'memory'"),
    (lab12.target, lambda: easy_target(), "10 times better than every limit"),
    (lab12.target, lambda: Target("chat", (FAST, Limit("12", "bigg", at_most=1.0))), "did you mean 'big'"),
    (lab12.target, lambda: Target("chat", (FAST, Limit("07", "big", at_most=1.0))), "nothing on record of lab '07'"),
    (lab12.verdict, lambda v, low, high: right_verdict(v, low, high) == "met", "three answers"),
    (lab12.verdict, lambda v, low, high: "met" if v >= (low or 0.0) else "missed", "NoneType"),
    (lab12.verdict, lambda v, low, high: right_verdict(0.0 if v is None else v, low, high), "neither met nor missed"),
    (lab12.verdict, lambda v, low, high: right_verdict(v, high, low), "exchanged"),
    (lab12.verdict, lambda v, low, high: right_verdict(v, low, None), "at_most is a limit too"),
    (lab12.verdict, lambda v, low, high: right_verdict(v, None, high), "at_least is a limit too"),
    (lab12.verdict, lambda v, low, high: right_verdict(v or None, low, high), "0 was measured"),
    (lab12.verdict, lab12._strict, "just reached"),
    (lab12.trade_offs, lambda: TRADE_OFFS[:1], "two trade-offs or more"),
    (lab12.trade_offs, trade(choice=""), "what would you change"),
    (lab12.trade_offs, trade(because="it is better"), "say why"),
    (lab12.trade_offs, trade(cost=TRADE_OFFS[0].gain), "there is always a price"),
    (lab12.trade_offs, trade(gain=Ratio("12", "slow", "slow")), "with itself"),
    (lab12.trade_offs, trade(gain=Ratio("12", "slow", "big")), "one unit"),
    (lab12.trade_offs, trade(cost=Ratio("12", "nothing", "big")), "measurement of 0"),
    (lab12.trade_offs, trade(cost=Ratio("12", "small", "bigger")), "has no measurement 'bigger'"),
    (lab12.trade_offs, trade(choice="smaller cache"), "same `choice`"),
    (lab12.look_back, lambda: "I was wrong", "should be a LookBack"),
    (lab12.look_back, lambda: LookBack("05", "slope", REASON), "there are 05: 1024 over 64"),
    (lab12.look_back, lambda: LookBack("05", "1024 over 64", "no idea"), "say why"),
]


def easy_target(margin: float = 10.0) -> Target:
    """A target that the records of `fill` keep by a margin."""
    return Target("chat", (Limit("12", "fast", at_least=25.0 / margin, because=NEEDED),
                           Limit("12", "big", at_most=8.0 * margin, because=NEEDED)))  # fmt: skip


def test_a_target_is_chosen_before_its_measurements() -> None:
    """Without records any defended target is right, and stays right; after them an easy one is too late."""
    first = easy_target(20.0)
    own = Target("chat", (Limit("12", "memory", at_most=4000.0, because=NEEDED),
                          Limit("12", "decoding, cache f16", at_least=7.0, because=NEEDED)))  # fmt: skip
    assert lab12.target(lambda: own).passed, "names of the lab's own run need no record"
    misspelt = Target("chat", (Limit("12", "memories", at_most=1.0),) * 2)
    assert "did you mean 'memory'" in lab12.target(lambda: misspelt).message
    decide("target", first)
    fill()
    assert lab12.target(lambda: first).passed
    assert "10 times better" in lab12.target(easy_target).message
    decide("target", easy_target())
    assert read_decisions(read_results(Path("results"))).target == first, "the report keeps the first one"
    for margin in (0.5, 9.0):
        assert lab12.target(lambda margin=margin: easy_target(margin)).passed
    one_hard = Target("chat", (easy_target().limits[0], BIG))
    assert lab12.target(lambda: one_hard).passed, "one limit in question is enough"
    for junk in (Target("x", None), Target("x", (1, 2)), Target("x", (Limit("12", "fast", at_least="7"),))):  # type: ignore[arg-type]
        assert not decisions.is_too_easy(junk, read_results(Path("results")))


def test_the_lab_measures_what_it_announces() -> None:
    source = next(SOURCES.glob("12_*.py")).read_text(encoding="utf-8")
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    found = {}
    for node in calls:
        if ast.unparse(node.func) == "measurement":
            for kind, name in (("f16", "one at a time"), ("q8_0", "sixteen at a time")):
                named = eval(ast.unparse(node.args[1]), {"kind": kind, "name": name})
                found[named] = ast.literal_eval(node.args[3])
    assert found == decisions.OWN_RUN


def test_a_translated_notebook_has_the_records_of_the_english_one(monkeypatch: pytest.MonkeyPatch) -> None:
    fill()
    Path("zh_CN").mkdir()
    monkeypatch.chdir("zh_CN")
    for item, answer in RIGHT.items():
        assert item(answer).passed, item(answer).message
    decide("target", TARGET)
    assert build_report(lab_record.results_folder(), Path("report.html")).stat().st_size > 1e6
    assert not Path("results").exists()


def test_words_of_a_text() -> None:
    assert decisions.word_count("one person waits") == 3 and decisions.word_count("") == 0
    assert decisions.word_count("每秒读 5 个词，相当于 7 个词元") == 2 + 5


@pytest.mark.parametrize(("item", "answer", "said"), WRONG)
def test_mistakes_are_named(item: Item, answer: Callable, said: str) -> None:
    fill()
    result = item(answer)
    assert not result.passed
    assert said in result.message, result.message


def test_checks_survive_broken_records_and_none() -> None:
    assert "run a lab first" in lab12.look_back(lambda: LOOK_BACK).message
    fill()
    Path("results/lab05.json").write_text("{")
    assert lab12.target(lambda: TARGET).passed, "its limits are on lab 12"
    other = Target("chat", (Limit("05", "slope", at_least=1.0), BIG))
    assert "lab05.json is not readable json" in lab12.target(lambda: other).message
