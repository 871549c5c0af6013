"""`minillama course pack`: what the folder holds, errors of one line, and the scripts; pip is a stand-in here."""

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from minillama.cli import main
from minillama.course.copies.student_labs import check_empty
from minillama.course.packing import pack_folder, student_wheel
from minillama.course.packing.pack_archive import write_archive
from minillama.course.packing.pack_folder import make_pack
from minillama.course.packing.pack_labs import model_files, student_files
from minillama.course.packing.pip_runner import run_pip
from minillama.course.packing.wheelhouse import size_text, this_platform, this_python
from minillama.engine.loading.model_files import labs_folder
from minillama.errors import OptionError, ResourceError

ROOT = Path(__file__).resolve().parents[2]
INFO = "minillama-0.1.0.dist-info"


class FakePip:
    """Writes a small wheel of minillama and two others, as pip would."""

    def __init__(self, *extra: str, fails: bool = False) -> None:
        self.calls: list[list[str]] = []
        self._extra, self._fails = extra, fails

    def __call__(self, arguments: Sequence[str]) -> Iterator[str]:
        self.calls.append(list(arguments))
        if arguments[0] == "wheel":
            folder = Path(arguments[arguments.index("--wheel-dir") + 1])
            with zipfile.ZipFile(folder / "minillama-0.1.0-py3-none-any.whl", "w") as wheel:
                wheel.writestr("minillama/__init__.py", "x = 1\n")
                wheel.writestr("minillama/_labs/solutions/00_install_and_doctor.ipynb", "solved")
                wheel.writestr("minillama/_labs/src/00_install_and_doctor.py", "solved")
                wheel.writestr("minillama/_labs/05_prefill_decode_cache.ipynb", "{}")
                wheel.writestr(f"{INFO}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
                wheel.writestr(f"{INFO}/METADATA", "Metadata-Version: 2.4\nName: minillama\nVersion: 0.1.0\n")
                wheel.writestr(f"{INFO}/RECORD", "old\n")
            return
        folder = Path(arguments[arguments.index("--dest") + 1])
        for name in ("Zoo_animals-2.0-py3-none-any.whl", "alpha-1.5-cp311-cp311-linux_x86_64.whl", *self._extra):
            yield f"Collecting {name}"
            (folder / name).write_bytes(name.encode())
        if self._fails:
            raise ResourceError("pip download ended with status 1")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs") / "pack"
    make_pack(folder, labs="00-01,4", pip=FakePip())
    return folder


class TestFolder:
    def test_the_lock_has_every_wheel_with_its_hash(self, packed: Path) -> None:
        lines = (packed / "requirements.lock").read_text().splitlines()
        assert this_python() in lines[0] and this_platform() in lines[0]
        found = {line.split(" --hash=sha256:")[0]: line.split(":")[1] for line in lines[1:]}
        wheels = sorted((packed / "wheels").iterdir())
        assert sorted(found) == ["Zoo-animals==2.0", "alpha==1.5", "minillama==0.1.0"]
        assert sorted(found.values()) == sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in wheels)

    def test_the_notebooks_are_the_learners(self, packed: Path) -> None:
        notebooks = {
            path.relative_to(packed / "notebooks").as_posix() for path in (packed / "notebooks").rglob("*.ipynb")
        }
        names = ("00_install_and_doctor", "01_roofline", "04_sampling")
        assert notebooks == {f"{folder}{name}.ipynb" for folder in ("", "zh_CN/") for name in names}
        for name in notebooks:
            assert (packed / "notebooks" / name).read_bytes() == (labs_folder() / name).read_bytes()

    def test_the_wheel_has_these_labs_and_no_solution(self, packed: Path) -> None:
        (path,) = (packed / "wheels").glob("minillama-*.whl")
        with zipfile.ZipFile(path) as wheel:
            labs = [name for name in wheel.namelist() if "/_labs/" in name]
            assert len([name for name in labs if name.endswith(".ipynb")]) == 6
            assert not [name for name in labs if "solutions" in name or "/src/" in name or "05_" in name]
            record = dict(line.split(",", 1) for line in wheel.read(f"{INFO}/RECORD").decode().splitlines())
            assert set(record) == set(wheel.namelist())
            assert b"\nBuild: 1student\n" in wheel.read(f"{INFO}/WHEEL")

    def test_the_same_files_give_the_same_wheel(self, packed: Path, tmp_path: Path) -> None:
        files = student_files(
            labs_folder(), [f"{name}.ipynb" for name in ("00_install_and_doctor", "01_roofline", "04_sampling")]
        )
        again = student_wheel.write_student_wheel(tmp_path, files, FakePip())
        assert again.read_bytes() == (packed / "wheels" / again.name).read_bytes()

    def test_sums_are_those_of_all_files(self, packed: Path) -> None:
        lines = (packed / "SHA256SUMS").read_text().splitlines()
        paths = {line.split("  ", 1)[1]: line.split("  ", 1)[0] for line in lines}
        there = {path.relative_to(packed).as_posix() for path in packed.rglob("*") if path.is_file()}
        assert set(paths) == there - {"SHA256SUMS"}
        for name, digest in paths.items():
            assert hashlib.sha256((packed / name).read_bytes()).hexdigest() == digest, name

    def test_texts_are_filled_in(self, packed: Path) -> None:
        for name in ("install.sh", "install.ps1", "README.md", "README.zh-CN.md"):
            text = (packed / name).read_text(encoding="utf-8")
            assert "@{" not in text, name
            assert this_python().split()[1] in text and "3 " in text

    def test_what_pip_is_told(self, tmp_path: Path) -> None:
        pip = FakePip()
        make_pack(tmp_path / "new" / "pack", pip=pip, labs="0")
        assert [call[0] for call in pip.calls] == ["wheel", "download"]
        assert pip.calls[1][1] == "--only-binary=:all:"
        assert pip.calls[1][-1].endswith("-1student-py3-none-any.whl[labs]")


class TestErrors:
    @pytest.mark.parametrize("existed", [False, True])
    def test_an_error_of_pip_leaves_nothing(self, tmp_path: Path, existed: bool) -> None:
        folder = tmp_path / "pack"
        if existed:
            folder.mkdir()
        with pytest.raises(ResourceError, match="status 1"):
            make_pack(folder, pip=FakePip(fails=True))
        assert folder.exists() is existed and not list(tmp_path.rglob("*.whl"))

    def test_a_source_archive_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ResourceError, match=r"old-1\.0\.tar\.gz .* wheels only"):
            make_pack(tmp_path / "pack", pip=FakePip("old-1.0.tar.gz"))

    def test_a_folder_with_files(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for path, words in ((tmp_path, "is not empty"), (tmp_path / "file", "is not a folder")):
            with pytest.raises(OptionError, match=words):
                check_empty(path)

    def test_no_room(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pack_folder, "free_bytes", lambda folder: 5_000_000)
        with pytest.raises(ResourceError, match=r"takes about 4\d\d MB, and 5\.0 MB are free"):
            make_pack(tmp_path / "pack", pip=FakePip())
        assert not (tmp_path / "pack").exists()

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--labs", "99"], "no lab 99; there are 00, 01"),
            (["--labs", "6-0"], "which ends before it begins; write 0-6"),
            (["--labs", "x"], "give numbers and ranges of labs"),
            (["--labs", ""], "give numbers and ranges of labs"),
            (["--model", "nowhere.gguf"], "nowhere.gguf: no such file"),
            (["--model", str(ROOT / "README.md")], "not with GGUF"),
            (["--archive", "rar"], "use one of tar.gz, zip"),
        ],
    )
    def test_wrong_options(
        self, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["course", "pack", str(tmp_path / "pack"), *words]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and message in lines[0]
        assert not (tmp_path / "pack").exists()

    def test_an_archive_that_is_there(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "pack.zip").touch()
        assert main(["course", "pack", str(tmp_path / "pack"), "--archive", "zip"]) == 2
        assert "pack.zip exists" in capsys.readouterr().err

    def test_pip_says_why(self) -> None:
        with pytest.raises(ResourceError, match=r"pip download ended with status \d+ \(.*no-such-folder"):
            list(run_pip(["download", "--no-index", "./no-such-folder.whl"]))


class TestChoice:
    def test_models_of_other_names(self, tmp_path: Path) -> None:
        first, second = (tmp_path / f"big-0000{number}-of-00002.gguf" for number in (1, 2))
        first.write_bytes(b"GGUF1")
        with pytest.raises(OptionError, match="00002-of-00002"):
            model_files([first])
        second.write_bytes(b"GGUF2")
        found = model_files([first])
        assert {first.name, second.name, "storyteller-f16.gguf", "storyteller-q8_0.gguf"} == set(found)

    def test_two_models_of_one_name(self, tmp_path: Path) -> None:
        (tmp_path / "storyteller-f16.gguf").write_bytes(b"GGUF")
        with pytest.raises(OptionError, match="already; rename the file"):
            model_files([tmp_path / "storyteller-f16.gguf"])

    @pytest.mark.parametrize(
        ("size", "text"), [(0, "0.1 MB"), (2_507_712, "2.5 MB"), (282e6, "282 MB"), (1.25e9, "1.2 GB")]
    )
    def test_sizes(self, size: int, text: str) -> None:
        assert size_text(size) == text


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_has_all_files(kind: str, packed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(packed, tmp_path / "pack")
    done: list[int] = []
    path = write_archive(folder, kind, done.append)
    if kind == "zip":
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            mode = archive.getinfo("pack/install.sh").external_attr >> 16
    else:
        with tarfile.open(path) as archive:
            names, mode = archive.getnames(), archive.getmember("pack/install.sh").mode
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert sorted(names) == sorted(f"pack/{file.relative_to(folder).as_posix()}" for file in files)
    assert sum(done) == sum(file.stat().st_size for file in files)
    assert mode & stat.S_IXUSR


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell")
class TestInstallScript:
    @staticmethod
    def install(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(folder / "install.sh"), *words], env={**os.environ, **variables}, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip

    def test_another_python(self, packed: Path, tmp_path: Path) -> None:
        other = tmp_path / "python"
        other.write_text("#!/bin/sh\nexit 1\n")
        other.chmod(0o755)
        done = self.install(packed, str(tmp_path / "course"), PYTHON=str(other))
        assert done.returncode == 2 and f"is not {this_python()} on {this_platform()}" in done.stderr
        assert not (tmp_path / "course").exists()

    def test_a_part_of_a_pack(self, packed: Path, tmp_path: Path) -> None:
        shutil.copy(packed / "install.sh", tmp_path)
        done = self.install(tmp_path, str(tmp_path / "course"))
        assert done.returncode == 2 and "requirements.lock is missing; copy the whole pack" in done.stderr

    def test_help(self, packed: Path) -> None:
        done = self.install(packed, "--help")
        assert done.returncode == 0 and "sh install.sh [FOLDER]" in done.stdout

    @pytest.mark.slow
    def test_a_damaged_wheel(self, packed: Path, tmp_path: Path) -> None:
        """The stand-ins are no wheels: pip of the new environment refuses them, and the script says what to do."""
        done = self.install(packed, str(tmp_path / "course"), PYTHON=sys.executable)
        assert done.returncode == 2 and "sha256sum -c SHA256SUMS" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_the_real_wheel(tmp_path: Path) -> None:
    """Built by pip, installed: the labs of the pack, the models, and the command."""
    wheel = student_wheel.write_student_wheel(
        tmp_path, student_files(labs_folder(), ["00_install_and_doctor.ipynb"]), run_pip
    )
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", tmp_path / "site", wheel],
        check=True,
    )
    code = (
        "from minillama.engine.loading.model_files import labs_folder, data_file, PACKAGE\n"
        "print(PACKAGE, data_file('heldout.txt'), *sorted(p.name for p in labs_folder().rglob('*.ipynb')))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    package, text, *notebooks = done.stdout.split()
    assert package == str(tmp_path / "site" / "minillama") and text.startswith(package)
    assert notebooks == ["00_install_and_doctor.ipynb"] * 2
    assert [
        path.name for path in (tmp_path / "site").iterdir() if not re.match("minillama|bin|__pycache__", path.name)
    ] == []


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux" or not hasattr(os, "geteuid") or os.geteuid() != 0, reason="unshare -n")
def test_an_installation_without_a_network(tmp_path: Path) -> None:
    """The whole pack, installed and used in a network namespace of its own; about five minutes."""
    make_pack(tmp_path / "pack", labs="00")
    commands = (
        "ip link set lo up && sh pack/install.sh course && cd course/notebooks && "
        "../venv/bin/jupyter nbconvert --to notebook --execute 00_install_and_doctor.ipynb --output done.ipynb"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", commands], cwd=tmp_path, env={**environment, "HOME": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "course/notebooks/done.ipynb").is_file()
