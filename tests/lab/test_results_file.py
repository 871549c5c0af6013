"""Results files: nothing raises, nothing that was there is lost, kernels do not overwrite each other."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from full_disk import full_disk

from minillama.lab import Prediction, lab_record, results_file
from minillama.lab.checks import lab00
from minillama.lab.experiments.ab_measurement import Change, try_changes
from minillama.lab.plots.roofline_plots import recorded_dots, recorded_roofline

RESULTS = Path("results")
FILE = RESULTS / "lab98.json"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    results_file._unsaved.clear()  # the folder goes; there is no place to save them


def measure(name: str, value: float = 1.0) -> None:
    lab_record.measurement("98", name, value, "s")


def measured() -> dict[str, object]:
    return json.loads(FILE.read_bytes())["measurements"]


def files() -> list[str]:
    return sorted(path.name for path in RESULTS.iterdir() if path.name != ".lock")


DAMAGED = {
    "truncated": b'{"measurements": {"speed": {"val',
    "empty": b"",
    "binary": bytes(range(256)),
    "no object": b"[1, 2]",
    "nested": b"[" * 100_000,
    "another layout": b'{"format": 9, "measurements": [["speed", 3]]}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_file_is_kept(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    RESULTS.mkdir()
    FILE.write_bytes(content)
    assert lab_record.read("98") == {}
    assert FILE.read_bytes() == content, "reading moves nothing"
    capsys.readouterr()
    measure("speed", 4.0)
    measure("other", 5.0)
    assert set(measured()) == {"speed", "other"}
    assert (RESULTS / "lab98.json.bad").read_bytes() == content
    (line,) = capsys.readouterr().err.splitlines()
    assert "lab98.json" in line and "kept as lab98.json.bad" in line and len(line) < 500
    FILE.write_bytes(b"{")
    measure("third", 6.0)
    assert files() == ["lab98.json", "lab98.json.bad", "lab98.json.bad1"], "an earlier one stays"


def test_later_versions_values_stay() -> None:
    RESULTS.mkdir()
    FILE.write_text(
        '{"measurements": {"old": {"value": 1, "unit": "s", "more": [1]}}, "new section": {"a": 1}, "v": 9}'
    )
    measure("speed")
    content = json.loads(FILE.read_text())
    assert content["new section"] == {"a": 1} and content["v"] == 9
    assert content["measurements"]["old"] == {"value": 1, "unit": "s", "more": [1]}


def blocked_by_a_file() -> None:
    RESULTS.write_text("a file")


def blocked_by_a_folder() -> None:
    FILE.mkdir(parents=True)


def blocked_by_a_pipe() -> None:
    RESULTS.mkdir()
    os.mkfifo(FILE)


def unblock() -> None:
    if RESULTS.is_file():
        RESULTS.unlink()
    elif FILE.is_dir():
        FILE.rmdir()
    else:
        FILE.unlink()


@pytest.mark.parametrize("block", [blocked_by_a_file, blocked_by_a_folder, blocked_by_a_pipe])
def test_unwritable_place_keeps_results_in_memory(block: object, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, the notebook goes on, and the first write that works saves everything."""
    block()  # type: ignore[operator]
    guess = Prediction("98", "speed", "How fast?", "s")
    guess.record(3.0)
    measure("one")
    for item in lab00.ITEMS:
        item(lambda: None)
    assert guess.recorded() == 3.0 and set(lab_record.section("98", "measurements")) == {"one"}
    assert str(lab00.score()).startswith("lab 00: 0 of")
    lines = [line for line in capsys.readouterr().err.splitlines() if "lab98.json" in line]
    assert any("is not written" in line and "in this notebook's memory" in line for line in lines)
    assert len(lines) <= 2 and all(len(line) < 500 for line in lines)
    unblock()
    measure("two")
    content = json.loads(FILE.read_text())
    assert set(content["measurements"]) == {"one", "two"} and content["predictions"]["speed"]["said"] == 3.0
    assert not capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no folder that even root cannot write")
def test_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir("/proc")
    measure("one")
    measure("two")
    assert set(lab_record.section("98", "measurements")) == {"one", "two"}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("/proc/results/lab98.json is not written (")


@pytest.mark.skipif(sys.platform == "win32", reason="a working folder cannot be deleted")
def test_deleted_working_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    measure("one")
    assert set(lab_record.section("98", "measurements")) == {"one"}
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_full_disk_leaves_the_old_file_whole(capsys: pytest.CaptureFixture[str]) -> None:
    measure("old")
    before = FILE.read_bytes()
    with full_disk(100):
        measure("new")
        assert FILE.read_bytes() == before and files() == ["lab98.json"], "no temporary file"
    assert len(capsys.readouterr().err.splitlines()) == 1
    measure("newer")
    assert set(measured()) == {"old", "new", "newer"}


def test_kernel_that_ends_saves_what_it_can() -> None:
    """Results in memory are tried once more at the end of the process."""
    RESULTS.write_text("a file")
    code = "from pathlib import Path\nfrom minillama.lab import lab_record\n"
    code += "lab_record.measurement('98', 'last', 1.0, 's')\nPath('results').unlink()\n"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert set(measured()) == {"last"}


def test_two_kernels_lose_nothing() -> None:
    """Each reads, merges and replaces the file under a lock."""
    code = "import sys\nfrom minillama.lab import lab_record\nsys.stdin.read()\n"
    code += "for n in range(20):\n    lab_record.measurement('98', f'{sys.argv[1]} {n}', n, 's')\n"
    kernels = [subprocess.Popen([sys.executable, "-c", code, name], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
               for name in ("a", "b", "c")]  # fmt: skip
    for kernel in kernels:
        assert kernel.stdin is not None
        kernel.stdin.close()
    for kernel in kernels:
        assert kernel.stderr is not None
        with kernel.stderr:
            assert kernel.stderr.read() == b""
        assert kernel.wait(60) == 0
    assert len(measured()) == 60 and files() == ["lab98.json"]


def test_symbolic_link_stays() -> None:
    RESULTS.mkdir()
    Path("elsewhere.json").write_text("{")
    FILE.symlink_to(Path("elsewhere.json").absolute())
    measure("speed")
    assert FILE.is_symlink() and set(json.loads(Path("elsewhere.json").read_text())["measurements"]) == {"speed"}
    assert Path("elsewhere.json.bad").read_text() == "{"


WRONG = [3, "text", [], {}, None, {"said": "many"}, {"said": True}, {"said": float("nan")}, {"said": 10**400},
         {"intensity": 10**400, "flops": 1}, {"bandwidth": "x", "flops": 1}, {"before": [0], "after": [1]},
         {"before": ["x"], "after": 3}, {"passed": []}]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: str(wrong)[:40])
def test_readers_survive_wrong_entries(wrong: object) -> None:
    """A file that the labs did not write: its entries count as not recorded."""
    change = Change("-t", "2", 1.5)
    key = json.dumps([{}, {"-t": "2"}], sort_keys=True)
    for section, entry in (("predictions", "speed"), ("dots", "decode"), ("roofline", "own"), ("predictions", key),
                           ("measurements", key), ("checks", lab00.ITEMS[0].name)):  # fmt: skip
        for lab in ("00", "01", "98"):
            lab_record.write(lab, section, entry, wrong)
    assert Prediction("98", "speed", "", "s").recorded() is None
    assert recorded_roofline() is None and recorded_dots() == {}
    assert str(lab00.score()).startswith("lab 00: 0 of")
    ((tried, gain),) = try_changes("98", {}, [change], lambda flags: 2.0 if flags else 1.0)
    assert (tried.predicted, gain.ratio) == (1.5, 2.0)
