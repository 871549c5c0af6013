"""`minillama doctor` and `minillama lab`."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from minillama.cli import lab, main
from minillama.course.copies.student_labs import copy_student_labs
from minillama.engine import doctor
from minillama.engine.doctor import Check, Status
from minillama.engine.loading import model_files
from minillama.errors import OptionError


def test_doctor_examines_this_machine(builtin_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    found = {check["name"]: check["status"] for check in report["checks"]}
    assert list(found) == [
        "Python",
        "memory",
        "compile cache",
        "labs",
        "devices",
        "XLA flags",
        "kernels",
        "sums",
        "built-in model",
    ]
    assert found["sums"] == found["built-in model"] == found["Python"] == "good"
    assert report["versions"]["jax"] and report["versions"]["llvmlite"] and report["machine"]["cpu"]


def test_doctor_fails_loudly(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Check:
        raise RuntimeError("no such\nthing")

    good = {
        "a": lambda name: Check(name, Status.GOOD, "fine"),
        "b": lambda name: Check(name, Status.NOTE, "odd", "mend it"),
    }
    monkeypatch.setattr(doctor, "_CHECKS", good)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "-> mend it" in out and out.endswith("all is well\n")

    monkeypatch.setattr(doctor, "_CHECKS", {**good, "c": broken})
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "c  FAIL  RuntimeError: no such\n" in out and out.endswith("1 check failed\n")
    assert main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["good"] is False


def test_wrong_sums_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    monkeypatch.setattr(jax, "jit", lambda function: lambda rows: function(rows) * 0.99)
    check = doctor._CHECKS["sums"]("sums")
    assert check.status is Status.FAIL and "32768 of 32769 sums are wrong" in check.detail


def test_kernels_that_run_name_their_instructions() -> None:
    check = doctor._CHECKS["kernels"]("kernels")
    assert check.status is Status.GOOD
    assert check.detail.split(";")[0] in ("amx", "avx512", "avx2", "generic")
    assert "threads: " in check.detail and not check.remedy


def test_kernels_that_do_not_run_are_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "minillama.kernels.cpu_kernels_error", lambda: "ModuleNotFoundError: No module named 'llvmlite'"
    )
    check = doctor._CHECKS["kernels"]("kernels")
    assert (check.status, check.remedy) == (Status.NOTE, "pip install llvmlite")
    assert check.detail.startswith("ModuleNotFoundError") and "several times slower" in check.detail
    monkeypatch.setenv("MINILLAMA_CPU_KERNELS", "off")
    assert doctor._CHECKS["kernels"]("kernels").remedy == "unset MINILLAMA_CPU_KERNELS"


@pytest.fixture
def labs(tmp_path: Path) -> Path:
    folder = tmp_path / "labs"
    (folder / "solutions").mkdir(parents=True)
    for name in ("00_install.ipynb", "04_sampling.ipynb", "solutions/04_sampling.ipynb"):
        (folder / name).write_text("{}")
    return folder


def test_find_lab(labs: Path) -> None:
    assert lab.find_lab(labs, "00").name == "00_install.ipynb"
    assert lab.find_lab(labs, "4") == lab.find_lab(labs, "04_sampling") == labs / "04_sampling.ipynb"
    with pytest.raises(OptionError, match="no lab 7; the labs are: 00_install, 04_sampling"):
        lab.find_lab(labs, "7")


def test_language_of_a_lab(labs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (labs / "zh_CN").mkdir()
    (labs / "zh_CN" / "04_sampling.ipynb").write_text("{}")
    commands: list[list[str]] = []
    monkeypatch.setattr(lab, "start", lambda command: commands.append(command) or 0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(model_files, "labs_folder", lambda: labs)
    assert main(["lab", "4", "--lang", "zh", "--no-browser"]) == 0
    assert commands[0][3] == str(labs / "zh_CN" / "04_sampling.ipynb")
    assert {f"--ServerApp.root_dir={labs}", "--LabApp.default_url=/lab/tree/zh_CN/04_sampling.ipynb"} <= {*commands[0]}
    assert "not translated" not in capsys.readouterr().err
    assert main(["lab", "0", "--lang", "zh_CN"]) == 0 and commands[1][3] == str(labs / "00_install.ipynb")
    assert "00_install is not translated into zh_CN yet; this is the English notebook" in capsys.readouterr().err
    monkeypatch.setenv("MINILLAMA_LANG", "zh")
    assert main(["lab", "4"]) == 0 and "zh_CN" in commands[2][3]
    assert main(["lab", "4", "--lang", "en"]) == 0 and "zh_CN" not in commands[3][3]
    monkeypatch.delenv("MINILLAMA_LANG")
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert main(["lab", "4"]) == 0 and "zh_CN" in commands[4][3]
    capsys.readouterr()
    assert main(["lab", "4", "--lang", "fr"]) == 2
    assert "--lang 是 'fr'；应为 en（英文）或 zh（中文）" in capsys.readouterr().err
    monkeypatch.setenv("MINILLAMA_LANG", "klingon")
    assert main(["lab", "4"]) == 0 and "zh_CN" not in commands[5][3], "as with a locale of another language"


def test_copy_keeps_work(labs: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    target.mkdir()
    (target / "04_sampling.ipynb").write_text("my answers")
    assert copy_student_labs(labs, target) == target
    assert (target / "04_sampling.ipynb").read_text() == "my answers"
    assert sorted(path.name for path in target.rglob("*")) == ["00_install.ipynb", "04_sampling.ipynb"]


def test_lab_command(
    labs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    commands: list[list[str]] = []

    def start(command: list[str]) -> int:
        commands.append(command)
        return 0

    monkeypatch.setattr(lab, "start", start)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(model_files, "labs_folder", lambda: labs)
    assert main(["lab", "--no-browser", "--port", "8900"]) == 0
    assert commands[0][:4] == [sys.executable, "-m", "jupyterlab", str(labs / "00_install.ipynb")]
    assert {"--port=8900", "--ip=localhost", "--no-browser"} <= set(commands[0])
    assert main(["lab", "4", "--dir", str(tmp_path / "copy")]) == 0
    assert commands[1][3] == str(tmp_path / "copy" / "04_sampling.ipynb")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["lab"]) == 2
    assert "pip install 'minillama[labs]'" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["cuda", "tpu"])
def test_a_missing_compiler_is_named(
    target: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from minillama.engine.accelerators import targets

    monkeypatch.setattr(targets, "is_installed", lambda target: False)
    assert main(["doctor", "--aot", target, "--shape", "tiny"]) == 2
    found = capsys.readouterr()
    assert found.out == "" and found.err.count("\n") == 1
    assert f"pip install --no-deps '{targets.TARGETS[target].package}==" in found.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shape", "tiny"], "--shape needs --aot"),
        (["--aot", "cuda", "--type", "Q4_0"], "--type Q4_0 needs --shape"),
    ],
)
def test_options_of_compiling_ahead(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *options]) == 2
    assert message in capsys.readouterr().err
