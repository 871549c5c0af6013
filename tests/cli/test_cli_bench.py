"""`minillama bench`: on a tiny model, and interleaved with fake programs."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from bench_example import RECORD
from tiny_models import write_tiny

from minillama.cli import build_parser, main
from minillama.cli.output import bench_against
from minillama.measure.host import child_process, other_load
from minillama.measure.limits import roofline
from minillama.measure.limits.bandwidth import bandwidth_of_threads
from minillama.measure.limits.roofline import Roofline
from minillama.measure.speed import llama_bench, side_by_side
from minillama.measure.speed.bench_record import Record, from_json

# A llama-bench that measures nothing: it logs its name and arguments, and prints what such a one prints.
FAKE = """\
#!{python} -S
import json, sys
words = sys.argv[1:]
name = {name!r}
if words[:1] == ["bench"]:
    words = [word for word in words[1:] if word != "--inner"]
with open({log!r}, "a") as log:
    log.write(json.dumps([name, words]) + "\\n")
def numbers(flag):
    return [int(n) for n in words[words.index(flag) + 1].split(",")]
if name == "completion" or words[:1] == ["run"]:
    print(" a")
    sys.exit()
with open({log!r}) as log:
    turn = sum(json.loads(line)[0] == name for line in log)
found = []
for depth in numbers("-d"):
    for pair in [(p, 0) for p in numbers("-p")] + [(0, n) for n in numbers("-n")]:
        if any(pair):
            result = dict({record})
            result.update(n_prompt=pair[0], n_gen=pair[1], n_depth=depth, avg_ts={speed} * turn)
            result["bytes_per_token"] = None if pair[0] else 1e9
            result.update(n_threads=numbers("-t")[0], build_commit=name, build_number=7)
            found.append(result)
print(json.dumps(found))
"""


def write_fake(path: Path, name: str, speed: float, log: Path) -> Path:
    """A program at `path`; its n-th run measures n times `speed` tokens a second."""
    record = replace(RECORD, backends="JAX CPU").as_dict()
    path.write_text(FAKE.format(python=sys.executable, name=name, log=str(log), record=repr(record), speed=speed))
    path.chmod(0o755)
    return path


def logged(log: Path) -> list[tuple[str, list[str]]]:
    return [(name, words) for name, words in map(json.loads, log.read_text().splitlines())]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests take no shared lock and print no warnings about other load."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(other_load, "load_warning", lambda share, when: None)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny.gguf", "llama")


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A fake llama-bench with a fake llama-completion and minillama, and their log."""
    log, folder = tmp_path / "log", tmp_path / "bin"
    folder.mkdir()
    ours = write_fake(folder / "minillama", "ours", 30.0, log)
    write_fake(folder / "llama-completion", "completion", 1.0, log)
    monkeypatch.setattr(bench_against, "MINILLAMA", (str(ours),))
    call_in_child = child_process.call_in_child

    def pretend(function: Callable[..., object], *arguments: object) -> object:
        return 20e9 if function is bandwidth_of_threads else call_in_child(function, *arguments)

    monkeypatch.setattr(child_process, "call_in_child", pretend)
    return write_fake(folder / "llama-bench", "theirs", 20.0, log), log


def test_table(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "-m", str(model), "-p", "16", "-n", "3", "-pg", "8,2", "-d", "0,20", "-r", "2"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    tests = [line.split("|")[-3].strip() for line in lines[2:8]]
    assert tests == ["pp16", "tg3", "pp8+tg2", "pp16 @ d20", "tg3 @ d20", "pp8+tg2 @ d20"]
    assert all(len(line) == len(lines[0]) for line in lines[:8])
    assert "| llama ?B (guessed) all F32     |" in lines[2] and "| JAX CPU    |" in lines[2]
    assert lines[8] == "" and lines[9].startswith("build: minillama ") and err == ""


def test_json_has_the_fields_of_llama_bench(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "-m", str(model), "-p", "16", "-n", "3", "-ub", "8", "-ctk", "f32", "-r", "3"]
    assert main([*words, "-o", "json"]) == 0
    prompt, generated = map(from_json, json.loads(capsys.readouterr().out))
    assert (prompt.n_prompt, prompt.n_gen, prompt.n_ubatch, prompt.type_k, prompt.type_v) == (16, 0, 8, "f32", "f16")
    assert len(prompt.samples_ns) == len(prompt.samples_ts) == 3
    for record, tokens in ((prompt, 16), (generated, 3)):
        speeds = [tokens * 1e9 / nanoseconds for nanoseconds in record.samples_ns]
        assert record.samples_ts == pytest.approx(speeds) and record.avg_ts == pytest.approx(sum(speeds) / 3)
        assert record.gflops == pytest.approx(1e-9 * record.flops_per_token * record.avg_ts, rel=1e-2, abs=6e-4)
        assert 0 <= record.other_load <= 1
    assert prompt.bytes_per_token < generated.bytes_per_token / 8
    assert prompt.model_filename == str(model) and prompt.memory_bandwidth is None


def test_csv_and_bandwidth(model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "call_in_child", lambda function, threads: 1e9)
    assert main(["bench", "-m", str(model), "-p", "0", "-n", "2", "-r", "1", "-o", "csv", "--bandwidth"]) == 0
    head, row = csv.reader(io.StringIO(capsys.readouterr().out))
    values = dict(zip(head, row, strict=True))
    share = float(values["bytes_per_token"]) * float(values["avg_ts"]) / 1e9
    assert float(values["bandwidth_share"]) == pytest.approx(share, abs=1e-4)


@pytest.mark.skipif(sys.platform != "linux", reason="threads follow the affinity, which only Linux has")
def test_several_numbers_of_threads_are_several_processes(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "-m", str(model), "-p", "16", "-n", "2", "-r", "2", "-t", "1,2", "-o", "jsonl"]
    assert main(words) == 0
    records = [from_json(json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    assert [(record.n_threads, record.n_prompt) for record in records] == [(1, 16), (1, 0), (2, 16), (2, 0)]
    assert all(len(record.samples_ts) == 2 for record in records)


def test_an_interrupt_leaves_what_was_measured(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> Iterator[Record]:
        yield RECORD
        raise KeyboardInterrupt

    monkeypatch.setattr(llama_bench, "measure", interrupted)
    assert main(["bench", "-m", str(model), "-o", "json"]) == 130
    out, err = capsys.readouterr()
    assert [from_json(values) for values in json.loads(out)] == [RECORD]
    assert "interrupted" in err
    assert main(["bench", "-m", str(model)]) == 130
    assert len(capsys.readouterr().out.splitlines()) == 5  # a table of one row, and its foot


def test_an_interrupt_before_anything_is_valid_json(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> Iterator[Record]:
        raise KeyboardInterrupt
        yield RECORD

    monkeypatch.setattr(llama_bench, "measure", interrupted)
    assert main(["bench", "-m", str(model), "-o", "json"]) == 130
    assert json.loads(capsys.readouterr().out) == []


def test_turns_alternate_with_the_same_settings(
    model: Path, fakes: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, log = fakes
    words = ["bench", "-m", str(model), "-p", "8", "-n", "4", "-d", "0,32", "-t", "1", "-ub", "64", "-ctk", "f32"]
    assert main([*words, "--against", str(theirs), "--rounds", "3", "-o", "json", "--no-start"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [name for name, _ in logged(log)] == ["ours", "theirs"] * 3
    (_, ours), (_, others), *_ = logged(log)
    assert ours == others
    settings = ["-m", str(model), "-t", "1", "-b", "2048", "-ub", "64", "-ctk", "f32", "-ctv", "f16"]
    assert ours == [*settings, "-p", "8", "-n", "4", "-d", "0,32", "-r", "1", "-o", "json"]

    assert [test["test"] for test in found["tests"]] == ["pp8", "tg4", "pp8 @ d32", "tg4 @ d32"]
    prompt, generated = found["tests"][:2]
    assert prompt["ours"]["samples_ts"] == [30.0, 60.0, 90.0] and prompt["theirs"]["median_ts"] == 40.0
    assert prompt["ratios"] == [1.5] * 3 and prompt["ratio"] == prompt["ratio_min"] == prompt["ratio_max"] == 1.5
    assert prompt["ours"]["bandwidth_share"] is None and found["start"] == []
    assert found["memory_bandwidth"] == {"1": 20e9}
    assert generated["theirs"]["bandwidth_share"] == 1e9 * 40 / 20e9
    assert generated["theirs"]["build"] == "theirs (7)"


@pytest.mark.skipif(sys.platform == "win32", reason="no wait4")
def test_whole_processes_alternate_too(
    model: Path, fakes: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, log = fakes
    assert main(["bench", "-m", str(model), "-n", "4", "-t", "1", "--against", str(theirs), "--rounds", "2"]) == 0
    out, err = capsys.readouterr()
    assert [name for name, _ in logged(log)] == ["ours", "theirs"] * 2 + ["ours", "completion"] * 3
    (_, ours), (_, others) = logged(log)[-2:]
    assert ours == ["run", *others]
    assert others[others.index("-c") + 1] == "4096" and "-no-cnv" in others and others[others.index("-n") + 1] == "1"
    assert "| 1.50 | 1.50 - 1.50 |" in out.replace("  ", " ") and "| tiny.gguf " in out
    assert "medians of 2 rounds" in out and "memory read: 20.0 GB/s (1 thread)" in out and err == ""


def test_without_llama_completion_that_is_said(
    model: Path, fakes: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, _ = fakes
    theirs.with_name("llama-completion").unlink()
    assert main(["bench", "-m", str(model), "-n", "4", "-t", "1", "--against", str(theirs), "--rounds", "1"]) == 0
    out, err = capsys.readouterr()
    assert "tiny.gguf" not in out and "no llama-completion in the folder of" in err


def test_ours_as_it_really_runs(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = write_fake(tmp_path / "llama-bench", "theirs", 20.0, tmp_path / "log")
    words = ["bench", "-m", str(model), "-p", "8", "-n", "2", "-t", "1", "--against", str(theirs)]
    assert main([*words, "--rounds", "1", "--no-start", "-o", "json"]) == 0
    prompt, generated = json.loads(capsys.readouterr().out)["tests"]
    assert prompt["ratio"] == prompt["ours"]["median_ts"] / 20
    assert generated["bytes_per_token"] > 0 and generated["model_type"] == "llama ?B (guessed) all F32"


def interrupt_second(run_for_json: object) -> object:
    """`run_for_json` whose fourth run is interrupted: the second of theirs."""
    runs: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> object:
        runs.append(command)
        if len(runs) == 4:
            raise KeyboardInterrupt
        return run_for_json(command)  # type: ignore[operator]

    return run


def test_an_interrupt_leaves_the_rounds_that_both_have_run(
    model: Path, fakes: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_by_side, "run_for_json", interrupt_second(child_process.run_for_json))
    words = ["bench", "-m", str(model), "-p", "0", "-n", "4", "-t", "1", "--against", str(fakes[0]), "-o", "json"]
    assert main(words) == 130
    (test,) = json.loads(capsys.readouterr().out)["tests"]
    assert test["ratios"] == [1.5]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; print('['); sys.exit('error: failed to load model')", "status 1: error: failed to load model"),
        ("print('| model | size |')", "printed no JSON"),
        ("print('[]')", "gave no result for pp8"),
        ("print('[{\"n_prompt\": 8}]')", "without n_prompt, n_gen, n_depth and avg_ts"),
        ('print(\'[{"n_prompt": 8, "n_gen": 0, "n_depth": 0, "avg_ts": 0}]\')', "0.0 tokens a second for pp8"),
    ],
)
def test_a_program_that_is_no_llama_bench(
    program: str, message: str, model: Path, fakes: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, _ = fakes
    theirs.write_text(f"#!{sys.executable} -S\n{program}\n")
    words = ["bench", "-m", str(model), "-p", "8", "-n", "0", "-t", "1", "--against", str(theirs)]
    assert main([*words, "--no-start"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("minillama: error: llama-bench ") and message in err and err.count("\n") == 1


def test_roofline(model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    roof = Roofline(2e9, 1e12, "F32", 1, "cpu")
    monkeypatch.setattr(roofline, "measure_roofline", lambda *, kind: replace(roof, arithmetic=kind.name))
    words = ["bench", "-m", str(model), "-p", "8", "-n", "2", "-r", "1", "--roofline", "-oe", "jsonl"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    for line in err.splitlines():
        record = from_json(json.loads(line))
        assert record.memory_bandwidth == 2e9 and record.peak_flops == 1e12
        assert record.bandwidth_share == pytest.approx(record.bytes_per_token * record.avg_ts / 2e9, abs=1e-3)
        assert record.flops_share == pytest.approx(record.flops_per_token * record.avg_ts / 1e12, abs=1e-3)
    assert len(err.splitlines()) == 2
    assert "MFLOP/token" in out and "2.0 GB/s read; products: 1000 GFLOP/s; they meet at 500.0" in out


def test_compare_with_a_stored_run(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "-m", str(model), "-p", "8", "-n", "2", "-r", "2"]
    assert main([*words, "-o", "json"]) == 0
    stored = tmp_path / "stored.json"
    stored.write_text(capsys.readouterr().out)
    assert main([*words, "-n", "3", "--compare", str(stored)]) == 0
    out, err = capsys.readouterr()
    rows = [line for line in out.splitlines() if line.startswith("| tiny.gguf")]
    assert [row.split("|")[3].strip() for row in rows] == ["pp8", "tg2"] and "Welch" in out
    assert "1 of 3 tests are not in the stored results" in err
    assert main([*words, "--compare", str(stored), "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["test"] for each in found["comparison"]] == ["pp8", "tg2"] and len(found["results"]) == 2
    second = tmp_path / "second.json"
    second.write_text(json.dumps(found, indent=2))
    assert main(["bench", "--compare", f"{stored},{second}", "-o", "json"]) == 0
    compared = json.loads(capsys.readouterr().out)["comparison"]
    assert compared == found["comparison"]
    assert main(["bench", "--compare", str(stored), "--compare", str(stored)]) == 0
    assert capsys.readouterr().out.count("no difference seen") == 2


def test_options_without_a_meaning_are_said(caplog: pytest.LogCaptureFixture) -> None:
    parse = build_parser().parse_args
    parse(["bench", "--poll", "50", "-fa", "on,auto", "-embd", "0", "-C", "0x0", "-ncmoe", "0", "-lzm", "auto,auto"])
    assert caplog.messages == []
    parse(["bench", "--poll", "0,50,100", "-fa", "off", "-ot", "a=CPU;b=CPU"])
    assert [message.split(" has no effect: ")[0] for message in caplog.messages] == [
        "--poll 0,50,100", "-fa off", "-ot a=CPU;b=CPU",
    ]  # fmt: skip


def test_load_modes_and_devices(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "-m", str(model), "-p", "0", "-n", "2", "-r", "1", "-lm", "none,mmap"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert "|         lm |" in rows[0] and "|       none |" in rows[2] and "|       mmap |" in rows[3]
    assert main(["bench", "--list-devices"]) == 0
    assert capsys.readouterr().out.startswith("Available devices:\n  cpu: cpu\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--against", "no/such/llama-bench"], "--against no/such/llama-bench: no such program"),
        (["--against", "."], "--against .: a folder; name the llama-bench in it"),
        (["--against", "x", "-o", "csv"], "-o csv: with --against use md or json"),
        (["-o", "xml"], "-o xml: use one of md, json, jsonl, csv, sql"),
        (["-r", "0"], "-r 0: should be at least 1"),
        (["--rounds", "0"], "--rounds 0: should be at least 1"),
        (["-p", "0", "-n", "0"], "nothing to measure"),
        (["-p", "1-"], "-p 1-: '1-' should be a number, or a range as"),
        (["-t", "0"], "-t 0: '0' should be at least 1"),
        (["-pg", "5"], "-pg 5: expected two numbers, as in 512,128"),
        (["-dev", "abacus"], "-dev abacus: use cpu"),
        (["-m", "missing.gguf,also.gguf"], "missing.gguf: no such file"),
        (["-ctk", "q9_9", "-p", "8"], "cache_type_k is 'q9_9'"),
        (["-fast"], "invalid argument: -fast"),
        (["-oe", "x"], "-oe x: use one of md"),
        (["-sm", "diagonal"], "-sm diagonal: use one of none, layer, row, tensor"),
        (["--poll", "much"], "--poll much: 'much' should be a number"),
        (["-embd", "1"], "-embd 1: embeddings are not supported yet"),
        (["-rpc", "a:1", "-tp", "2"], "-tp and --workers: the workers named compute together"),
        (["-ts", "x"], "-ts x: expected a number"),
        (["-mmp", "0"], "use -lm none"),
        (["-lm", "slow"], "-lm slow: use one of auto"),
        (["--delay", "-1"], "--delay -1.0: should be a number of seconds"),
        (["--compare", "no.json"], "--compare no.json: no such file; store results with -o json"),
        (["--compare", "a,b,c"], "--compare with 3 files"),
        (["--compare", "a", "-o", "sql"], "-o sql: with --compare use md or json"),
        (["--compare", "a", "--against", "b"], "--against and --compare: use one of them"),
    ],
)
def test_wrong_use_is_one_line_and_two(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    out, err = capsys.readouterr()
    assert message in err and err.startswith("minillama: error: ") and err.count("\n") == 1
    assert out == ""


def test_help_needs_nothing_heavy() -> None:
    program = """if True:
        import sys
        from minillama.cli import main
        assert main(["bench", "--help"]) == 0
        print([name for name in ("jax", "numpy", "gguf", "tqdm") if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
