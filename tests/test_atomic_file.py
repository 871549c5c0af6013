"""Output files of every writer: whole or not at all, and never in place of a device, a pipe or a link."""

import os
import socket
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import nbformat
import numpy as np
import pytest
from full_disk import full_disk
from tiny_models import write_tiny

from minillama import atomic_file
from minillama.atomic_file import atomic_write, check_target, discard_unfinished
from minillama.cli import main
from minillama.course.copies import student_labs
from minillama.errors import ResourceError
from minillama.gguf.imatrix_file import write_imatrix
from minillama.gguf.quantisation_mixes import Mix
from minillama.gguf.quantise import quantise_file
from minillama.lab import build
from minillama.measure.quality.kld_base_file import create_base, record_words
from minillama.random_models.model_writer import write_random_model

OLD = b"the old content"


def write_bytes(path: Path) -> None:
    with atomic_write(path) as file:
        file.write(b"x" * 5000)
        file.flush()
        file.write(b"y" * 5000)


def write_importances(path: Path) -> None:
    sums = {name: np.ones(3000, np.float32) for name in ("blk.0.attn_q.weight", "blk.0.attn_k.weight")}
    write_imatrix(path, sums, 2, dataset="text", chunks=3, chunk_size=1)


def write_base(path: Path) -> None:
    with create_base(path, 500, np.zeros((2, 8), np.int32)) as file:
        for _ in range(6):
            file.write(bytes(2 * record_words(500)))


def write_quantised(path: Path) -> None:
    source = path.with_name("source.gguf")
    if not source.exists():
        write_tiny(source, "llama")
    quantise_file(source, path, Mix.named("Q8_0"))


def write_random(path: Path) -> None:
    write_random_model(path, "tiny", "Q4_0")


def write_notebook(path: Path) -> None:
    build._store(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1" * 5000, id="one")]), path)


def write_copy(path: Path) -> None:
    student_labs.write_notebook(path, {"cells": ["z" * 9000]})


WRITERS: dict[str, Callable[[Path], None]] = {
    "bytes": write_bytes,
    "imatrix": write_importances,
    "base of a KL divergence": write_base,
    "quantised model": write_quantised,
    "random model": write_random,
    "notebook": write_notebook,
    "copy of a lab": write_copy,
}
every_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def temporaries(folder: Path) -> list[Path]:
    return list(folder.glob(".*"))


@every_writer
def test_a_full_disk_keeps_the_old_file(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "whole")
    size = (tmp_path / "whole").stat().st_size
    path = tmp_path / "out"
    for limit in (0, 1, size // 2, size - 1):
        for old in (None, OLD):
            if old is not None:
                path.write_bytes(old)
            with full_disk(limit), pytest.raises(ResourceError, match=r"cannot write .*out: File too large"):
                write(path)
            assert not temporaries(tmp_path)
            assert path.read_bytes() == old if old is not None else not path.exists()
        path.unlink()
    write(path)
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()


@every_writer
@pytest.mark.parametrize("problem", [KeyboardInterrupt, MemoryError, SystemExit])
def test_an_exception_keeps_the_old_file(
    tmp_path: Path, write: Callable[[Path], None], problem: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(file: object, target: Path, mode: int | None) -> None:
        assert len(temporaries(tmp_path)) == 1
        raise problem

    path = tmp_path / "out"
    path.write_bytes(OLD)
    monkeypatch.setattr(atomic_file, "_set_permissions", interrupted)
    with pytest.raises(problem):
        write(path)
    assert not temporaries(tmp_path) and path.read_bytes() == OLD


def make_device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes device nodes")


def make_socket(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")  # a socket's path is at most 108 bytes
        finally:
            os.close(folder)


KINDS = {"a folder": Path.mkdir, "a device": make_device, "a pipe": os.mkfifo, "a socket": make_socket}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("link", [False, True])
def test_only_files_are_replaced(tmp_path: Path, kind: str, link: bool) -> None:
    there, path = tmp_path / "there", tmp_path / "out"
    KINDS[kind](there)
    before = there.stat()
    if link:
        path.symlink_to(there)
    else:
        there.rename(path)
    for write in WRITERS.values():
        with pytest.raises(ResourceError, match=f"out is {kind}; name a file"):
            write(path)
    assert os.path.samestat(path.stat(), before) and path.is_symlink() == link and not temporaries(tmp_path)


COMMANDS = {
    "quantize": ["quantize", "--force", "{model}", "{out}", "Q8_0"],
    "synth": ["synth", "tiny", "--force", "-o", "{out}"],
    "imatrix": ["imatrix", "-m", "{model}", "-f", "{text}", "--force", "-o", "{out}"],
    "perplexity": ["perplexity", "-m", "{model}", "-f", "{text}", "--kl-divergence-base", "{out}"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_refuse_before_they_compute(
    command: str,
    builtin_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from minillama.engine import load

    def computing(*args: object) -> None:
        raise AssertionError("the model is loaded before the output file is checked")

    monkeypatch.setattr(load, "open_model", computing)
    os.mkfifo(tmp_path / "out")
    (tmp_path / "text").write_text("some text")
    names = {"model": builtin_model, "out": tmp_path / "out", "text": tmp_path / "text"}
    assert main([word.format_map(names) for word in COMMANDS[command]]) == 2
    shown = capsys.readouterr()
    assert shown.err == f"minillama: error: {tmp_path / 'out'} is a pipe; name a file\n" and shown.out == ""
    assert stat.S_ISFIFO((tmp_path / "out").stat().st_mode)


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for target in (tmp_path / "elsewhere" / "file", Path("elsewhere") / "new"):
        link = tmp_path / f"link to {target.name}"
        link.symlink_to(target)
        write_bytes(link)
        assert link.is_symlink() and (tmp_path / target).read_bytes() == b"x" * 5000 + b"y" * 5000
    assert not temporaries(tmp_path) and not temporaries(tmp_path / "elsewhere")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    with pytest.raises(ResourceError, match=r"cannot write .*round: "):
        write_bytes(tmp_path / "round")


def test_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "new")
        with atomic_write(tmp_path / "private", 0o600) as file:
            file.write(b"x")
            assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
        os.umask(0)
        write_bytes(tmp_path / "shared")
        with atomic_write(tmp_path / "private too", 0o600) as file:
            file.write(b"x")
    finally:
        os.umask(before)
    (tmp_path / "old").write_bytes(OLD)
    (tmp_path / "old").chmod(0o604)
    write_bytes(tmp_path / "old")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"new": 0o640, "private": 0o600, "shared": 0o666, "private too": 0o600, "old": 0o604}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(OLD)
    (tmp_path / "old").chmod(0o444)
    with pytest.raises(ResourceError, match="old is read-only"):
        check_target(tmp_path / "old")
    tmp_path.chmod(0o555)
    with pytest.raises(ResourceError, match=r"folder .* is not writable"):
        check_target(tmp_path / "new")
    tmp_path.chmod(0o755)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_stays(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(OLD)
    os.chown(tmp_path / "old", 12345, 23456)
    write_bytes(tmp_path / "old")
    assert ((tmp_path / "old").stat().st_uid, (tmp_path / "old").stat().st_gid) == (12345, 23456)


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "a\nb", " ", "-"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    write_bytes(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a" * 256, "a\0b", "none/file", "file/file", ""])
def test_impossible_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(OLD)
    with pytest.raises(ResourceError, match=r"cannot write|is a folder"):
        write_bytes(tmp_path / name)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [OLD]


def test_a_deleted_file_has_no_name(tmp_path: Path) -> None:
    with (tmp_path / "gone").open("wb") as file:
        (tmp_path / "gone").unlink()
        with pytest.raises(ResourceError, match="without a name"):
            write_bytes(Path(f"/proc/self/fd/{file.fileno()}"))


def test_what_comes_in_between_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="is a pipe"), atomic_write(tmp_path / "out") as file:
        file.write(b"x")
        os.mkfifo(tmp_path / "out")
    assert stat.S_ISFIFO((tmp_path / "out").stat().st_mode) and not temporaries(tmp_path)


def test_unfinished_files_can_be_discarded(tmp_path: Path) -> None:
    """A signal handler does this, and the process ends at once."""
    with pytest.raises(ResourceError), atomic_write(tmp_path / "out") as file:
        file.write(b"x")
        discard_unfinished()
        assert not list(tmp_path.iterdir())
