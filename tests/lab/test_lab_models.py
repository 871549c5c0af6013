"""Models of the labs: one for each notebook, or those of a class."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minillama import __version__
from minillama.lab import lab_models, prepare_models
from minillama.lab.experiments import counted_passes
from minillama.lab.lab_models import LabModel
from minillama.lab.plots import roofline_plots

VARIABLE = lab_models.VARIABLE


def written(text: bytes) -> LabModel:
    return LabModel("model.gguf", lambda path: path.write_bytes(text))


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this version in a class's folder."""
    folder = tmp_path / "class" / __version__
    folder.mkdir(parents=True)
    monkeypatch.setenv(VARIABLE, str(folder.parent))
    return folder


class TestPath:
    def test_without_the_variable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(VARIABLE, raising=False)
        path = written(b"own").path(tmp_path)
        assert path == tmp_path / "model.gguf" and path.read_bytes() == b"own"
        assert written(b"new").path(tmp_path).read_bytes() == b"own", "written once"

    def test_the_class_has_it(self, shared: Path, tmp_path: Path) -> None:
        (shared / "model.gguf").write_bytes(b"shared")
        assert written(b"own").path(tmp_path) == shared / "model.gguf"
        assert not (tmp_path / "model.gguf").exists()

    def test_the_class_has_others(self, shared: Path, tmp_path: Path) -> None:
        assert written(b"own").path(tmp_path).read_bytes() == b"own"
        assert not list(shared.iterdir()), "learners do not write there"

    def test_no_such_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
        with caplog.at_level(logging.WARNING, "minillama"):
            for _ in range(2):
                assert written(b"own").path(tmp_path).read_bytes() == b"own"
        (record,) = caplog.records
        assert "no folder" in record.getMessage() and "prepare_models" in record.getMessage()


def test_labs_read_the_class_s_models(shared: Path) -> None:
    big = counted_passes.big_file("Q2_K").name
    random = roofline_plots.random_file(100).name
    for name in (big, random):
        (shared / name).write_bytes(b"GGUF")
    assert counted_passes.big_model.__wrapped__("Q2_K") == shared / big
    with roofline_plots.random_model(100) as path:
        assert path == shared / random
    assert (shared / random).exists(), "it is not removed after the measurement"


def test_prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []

    def write(path: Path) -> None:
        calls.append(path.name)
        path.write_bytes(bytes(1000))

    files = [LabModel("a.gguf", write), LabModel("b.gguf", write)]
    monkeypatch.setattr(prepare_models, "lab_models", lambda: iter(files))
    for _ in range(2):
        assert prepare_models.main([str(tmp_path / "class")]) == 0
    assert calls == ["a.gguf", "b.gguf"]
    assert sorted(path.name for path in (tmp_path / "class" / __version__).iterdir()) == ["a.gguf", "b.gguf"]
    assert f"{VARIABLE}={tmp_path / 'class'}" in capsys.readouterr().out


def test_prepare_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert prepare_models.main([str(tmp_path / "file")]) == 2
    assert "cannot create the folder" in capsys.readouterr().err


def test_every_model_has_a_name_of_its_own() -> None:
    names = [model.name for model in prepare_models.lab_models()]
    assert len(names) == len(set(names)) > 20


@pytest.mark.slow
def test_the_same_bytes(tmp_path: Path) -> None:
    """What the class reads is what a notebook would write."""
    code = (
        "from minillama.lab.experiments.quantised_storytellers import quantised\n"
        "import hashlib; print(hashlib.sha256(quantised('Q4_K_M').read_bytes()).hexdigest(), quantised('Q4_K_M'))"
    )
    from minillama.lab.experiments.quantised_storytellers import storyteller_file

    model = storyteller_file("Q4_K_M")
    (tmp_path / __version__).mkdir()
    model.write(tmp_path / __version__ / model.name)
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, VARIABLE: folder},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for folder in ("", str(tmp_path))
    ]
    assert outputs[0][0] == outputs[1][0]
    assert outputs[1][1] == str(tmp_path / __version__ / model.name) != outputs[0][1]
