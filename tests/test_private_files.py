"""Caches are read only where no other user can write: owners, modes, links and the folders above."""

import hashlib
import logging
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from full_disk import full_disk

from minillama import env
from minillama.engine.compile import executable_cache
from minillama.errors import ResourceError
from minillama.kernels.disk_cache import read_cached, write_cached
from minillama.private_files import UntrustedError, check_private, make_private, read_private, warn_untrusted

STRANGER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def entry(content: bytes) -> bytes:
    return hashlib.sha256(content).digest() + content


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """An entry of a cache, two folders below `tmp_path`."""
    file = tmp_path / "above" / "cache" / "entry"
    write_cached(file, b"content")
    assert read_cached(file) == b"content"
    warn_untrusted.cache_clear()
    return file


@pytest.mark.parametrize("mask", [0, 0o002, 0o077])
def test_what_is_made_is_private_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_cached(tmp_path / "a" / "b" / "c" / "entry", b"content")
        make_private(tmp_path / "a" / "d")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"a": 0o700, "b": 0o700, "c": 0o700, "d": 0o700, "entry": 0o600}


def give_away(path: Path) -> None:
    os.chown(path, STRANGER, STRANGER)


def replace_by_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


CHANGES: dict[str, tuple[int, Callable[[Path], object]]] = {  # levels above the entry, what happens there
    "file of a group": (0, lambda path: path.chmod(0o660)),
    "file of all": (0, lambda path: path.chmod(0o606)),
    "link in place of the file": (0, replace_by_link),
    "pipe in place of the file": (0, replace_by_pipe),
    "folder of a group": (1, lambda path: path.chmod(0o770)),
    "folder of all": (1, lambda path: path.chmod(0o1777)),
    "folder above, of all": (2, lambda path: path.chmod(0o777)),
}
FOREIGN = {
    "foreign file": (0, give_away),
    "foreign folder": (1, give_away),
    "foreign folder above": (2, give_away),
    "foreign link to the folder": (1, lambda path: (replace_by_link(path), os.lchown(path, STRANGER, STRANGER))),
}


@pytest.mark.parametrize(
    ("level", "change"),
    [
        *(pytest.param(*case, id=name) for name, case in CHANGES.items()),
        *(pytest.param(*case, id=name, marks=as_root) for name, case in FOREIGN.items()),
    ],
)
def test_what_others_can_write_is_not_read(
    cached: Path, level: int, change: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    change((cached, *cached.parents)[level])
    assert read_cached(cached) is None and read_cached(cached) is None
    link = change is replace_by_link  # in the user's own folder no other user made it: a miss
    assert len(caplog.messages) == (0 if link else 1)
    if not link:
        assert "is not used as a cache" in caplog.text and caplog.messages[0].count("\n") == 0
    if level:
        with pytest.raises(UntrustedError):
            write_cached(cached, b"new")
    elif not link and change is not replace_by_pipe:  # the entry is written anew, and good again
        write_cached(cached, b"new")
        assert read_cached(cached) == b"new"


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o1777])
def test_folders_above_may_be_read_or_sticky(cached: Path, mode: int) -> None:
    cached.parents[1].chmod(mode)
    assert read_cached(cached) == b"content"


def test_own_links_are_followed(cached: Path, tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("above")
    (tmp_path / "two").symlink_to(tmp_path / "one" / ".." / "one")
    assert read_cached(tmp_path / "two" / "cache" / "entry") == b"content"
    (tmp_path / "round").symlink_to(tmp_path / "round")
    assert read_cached(tmp_path / "round" / "entry") is None
    with pytest.raises(OSError, match="symbolic links"):
        check_private(tmp_path / "round")


@as_root
def test_a_link_through_a_foreign_folder(cached: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The folder at the end is the user's own, but a stranger chose it."""
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "link").symlink_to(cached.parent)
    give_away(tmp_path / "foreign")
    (tmp_path / "mine").symlink_to(tmp_path / "foreign" / "link")
    assert read_cached(tmp_path / "mine" / "entry") is None
    assert f"{tmp_path / 'foreign'} is not used as a cache: its owner is user {STRANGER}" in caplog.text


def test_missing_entries_are_no_warning(cached: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_cached(cached.with_name("other")) is None
    assert read_cached(cached.parent / "none" / "entry") is None
    with pytest.raises(FileNotFoundError):
        read_private(cached.with_name("other"))
    assert not caplog.messages


class Planted:
    """Code that pickle runs."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("where", ["file", "folder"])
def test_a_planted_program_is_not_run(tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture) -> None:
    warn_untrusted.cache_clear()
    mark, folder = tmp_path / "mark", tmp_path / "programs"
    write_cached(folder / "name", pickle.dumps(Planted(mark)))
    if where == "file":
        (folder / "name").chmod(0o666)
    else:
        folder.chmod(0o777)
    executables = executable_cache.ExecutableCache(folder)
    assert executables._fetch("name") is None
    assert not mark.exists() and len(caplog.messages) == 1
    folder.chmod(0o700)
    (folder / "name").chmod(0o600)
    executables._fetch("name")
    assert mark.exists(), "the user's own entries are run"


def in_new_process(program: str, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    environment["XDG_CACHE_HOME"] = str(cache)
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )


SHOW = """
import os, minillama
from minillama import env
print(env.cache_dir() is not None, env.kernel_cache_dir() is not None)
"""


def test_folder_of_the_users_cache(tmp_path: Path) -> None:
    """Made private in a folder that all may write, as /tmp is; not used where others can write it."""
    before = os.umask(0)
    try:
        shared = tmp_path / "shared"
        shared.mkdir()
        shared.chmod(0o1777)
        done = in_new_process(SHOW, shared)
    finally:
        os.umask(before)
    assert (done.stdout, done.stderr) == ("True True\n", "")
    made = [path for path in shared.rglob("*") if path.is_dir()]
    assert made and all(stat.S_IMODE(path.stat().st_mode) == 0o700 for path in made)
    (shared / "minillama").chmod(0o777)
    done = in_new_process(SHOW, shared)
    assert done.stdout == "False False\n"
    assert done.stderr.count("\n") == 1 and f"chmod go-w {shared / 'minillama'}" in done.stderr


def test_a_cache_in_a_bucket_is_jaxs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "gs://bucket/folder")
    assert env.cache_dir() is None and env.kernel_cache_dir() is None


def test_a_full_disk_leaves_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_cached(tmp_path / "cache" / "entry", b"x" * 1000)
    with full_disk(500), caplog.at_level(logging.WARNING), pytest.raises(ResourceError, match="File too large"):
        write_cached(tmp_path / "cache" / "entry", b"y" * 1000)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["entry"]
    assert read_cached(tmp_path / "cache" / "entry") == b"x" * 1000
