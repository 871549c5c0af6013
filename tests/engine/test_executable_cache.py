"""Compiled programs that the next process finds: the same results, and never those of something else."""

import json
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import write_tiny

import minillama as ml
from minillama import env
from minillama.engine.compile import executable_cache
from minillama.engine.compile.compile_timer import compile_seconds
from minillama.engine.compile.executable_cache import CachedJit
from minillama.kernels.disk_cache import read_cached

PROGRAM = """
import json, sys, threading
import jax
from minillama import env
from minillama.engine.load import load
from minillama.engine.compile.compile_timer import compile_seconds
from minillama.engine.compile.executable_cache import CachedJit, ExecutableCache
from minillama.kernels.disk_cache import read_cached

traced = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **details: traced.append(details.get("fun_name")) if "jaxpr_trace" in event else None)
fetch, by_main = ExecutableCache._fetch, []
def counted(self, name):
    by_main.append(threading.current_thread() is threading.main_thread())
    return fetch(self, name)
ExecutableCache._fetch = counted
env.prepare(cache_executables=True)
llm = load(sys.argv[1], ctx_size=256, progress=False)
first = llm.generate([5, 6, 7], n=6, temp=0.0)
print(json.dumps({"tokens": first.tokens, "logprobs": first.logprobs, "traced": traced, "by_main": by_main}))
"""


@pytest.fixture
def executables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> executable_cache.ExecutableCache:
    kept = executable_cache.ExecutableCache(tmp_path / "programs")
    monkeypatch.setattr(executable_cache, "_executable_cache", lambda: kept)
    return kept


def in_new_process(model: Path, cache: Path) -> dict[str, list]:
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(model)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_new_process_traces_nothing_and_says_the_same(tmp_path: Path) -> None:
    model = write_tiny(tmp_path / "m.gguf", "llama")
    first, second = (in_new_process(model, tmp_path / "cache") for _ in range(2))
    assert second["tokens"] == first["tokens"] and second["logprobs"] == first["logprobs"]
    steps = {"read", "start", "generate"}
    assert steps <= set(first["traced"]) and not steps & set(second["traced"])
    lists = list((tmp_path / "cache" / "programs").glob("*.list"))
    assert second["by_main"] == [False] * len(steps), "all are fetched in the thread"
    assert len(lists) == 1 and len((read_cached(lists[0]) or b"").split()) == len(steps)


def test_what_jax_has_compiled_before_is_kept_whole(tmp_path: Path) -> None:
    """JAX's own cache knows the program; ours lost it, as after a change of the source code."""
    model = write_tiny(tmp_path / "m.gguf", "llama")
    first = in_new_process(model, tmp_path / "cache")
    for file in (tmp_path / "cache" / "programs").iterdir():
        file.unlink()
    assert all(in_new_process(model, tmp_path / "cache")["tokens"] == first["tokens"] for _ in range(2))


def test_an_incomplete_program_is_compiled_again(
    executables: executable_cache.ExecutableCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def incomplete(*leaves: jax.Array) -> list[jax.Array]:
        raise jax.errors.JaxRuntimeError("NOT_FOUND: Function wrapped_add not found")

    broken = executable_cache.Fetched(incomplete, pickle.dumps(jax.tree.structure(0)))
    monkeypatch.setattr(executables, "_fetch", lambda name: broken)
    assert np.array_equal(CachedJit(add, static=[1], donated=[])(jnp.ones(3), 2.0), np.full(3, 3.0))


def test_a_kept_program_can_be_weighed(executables: executable_cache.ExecutableCache, tmp_path: Path) -> None:
    """What looks at a program's memory traces it, which a compiled one does not stand."""
    llm = ml.load(write_tiny(tmp_path / "m.gguf", "llama"), ctx_size=256, progress=False)
    assert llm.measure([5] * 20, n=1).usage.compute_held > 0
    assert len(list(executables._folder.iterdir())) >= 2


def add(x: jax.Array, scale: float) -> jax.Array:
    """A program of one line."""
    return x * scale + 1


def test_arguments_of_another_kind_are_another_program(executables: executable_cache.ExecutableCache) -> None:
    twice = CachedJit(add, static=[1], donated=[])
    for shape, scale in (((3,), 2.0), ((4,), 2.0), ((3,), 3.0), ((3,), 2.0)):
        assert np.array_equal(twice(jnp.ones(shape), scale), np.full(shape, scale + 1))
    assert len(list(executables._folder.iterdir())) == 3


def test_seconds_are_counted_as_compiling(executables: executable_cache.ExecutableCache) -> None:
    before = compile_seconds()
    CachedJit(add, static=[1], donated=[])(jnp.ones(5), 2.0)
    assert compile_seconds() > before


@pytest.mark.parametrize("damage", [b"", b"x" * 100, None])
def test_a_damaged_program_is_compiled_again(
    executables: executable_cache.ExecutableCache, tmp_path: Path, damage: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = CachedJit(add, static=[1], donated=[])
    twice(jnp.ones(3), 2.0)
    (file,) = executables._folder.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"\0" if damage is None else damage)
    again = executable_cache.ExecutableCache(executables._folder)
    monkeypatch.setattr(executable_cache, "_executable_cache", lambda: again)
    assert np.array_equal(twice(jnp.ones(3), 2.0), np.full(3, 3.0))
    assert file.read_bytes()[:32] == executable_cache.hashlib.sha256(file.read_bytes()[32:]).digest(), "written anew"


def test_old_programs_go(executables: executable_cache.ExecutableCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executable_cache, "MOST_KEPT", 2)
    twice = CachedJit(add, static=[1], donated=[])
    for size in range(1, 5):
        twice(jnp.ones(size), 2.0)
    assert len(list(executables._folder.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    executables = executable_cache.ExecutableCache(tmp_path / "file" / "programs")
    monkeypatch.setattr(executable_cache, "_executable_cache", lambda: executables)
    executable_cache.prefetch_executables(tmp_path / "file", "an option")
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(CachedJit(add, static=[1], donated=[])(jnp.ones(3), 2.0), np.full(3, 3.0))
    assert not caplog.messages


def test_a_second_prefetch_of_a_file_has_no_effect(
    executables: executable_cache.ExecutableCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice, file = CachedJit(add, static=[1], donated=[]), tmp_path / "file"
    file.touch()
    executable_cache.prefetch_executables(file, "an option")
    twice(jnp.ones(3), 2.0)
    again = executable_cache.ExecutableCache(executables._folder)
    monkeypatch.setattr(executable_cache, "_executable_cache", lambda: again)
    fetched, fetch = [], again._fetch
    monkeypatch.setattr(again, "_fetch", lambda name: fetched.append(name) or fetch(name))
    for _ in range(2):
        executable_cache.prefetch_executables(file, "an option")
    assert np.array_equal(twice(jnp.ones(3), 2.0), np.full(3, 3.0)) and len(fetched) == 1


def test_off_unless_asked_for() -> None:
    assert not env.caches_executables() and executable_cache._executable_cache() is None
    assert np.array_equal(CachedJit(add, static=[1], donated=[])(jnp.ones(3), 2.0), np.full(3, 3.0))
