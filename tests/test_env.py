"""What is settled before JAX starts; each case in a process of its own, for these settings are made once."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minillama
from minillama import env, machine

CURE = "--xla_cpu_experimental_ynn_fusion_type=-reduce"


def run_fresh(program: str, **variables: str) -> str:
    """Standard output of a program in a fresh process, without the settings that this process made for itself."""
    ours = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES")
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment | variables, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


SHOW = "import os, minillama; print(os.environ['XLA_FLAGS']); print(os.environ.get('JAX_COMPILATION_CACHE_DIR'))"


def test_import_is_light() -> None:
    heavy = "import sys, minillama; print([name for name in ('jax', 'numpy', 'tqdm', 'gguf') if name in sys.modules])"
    assert run_fresh(heavy) == "[]\n"


def test_flags_and_cache(tmp_path: Path) -> None:
    flags, folder = run_fresh(SHOW, XDG_CACHE_HOME=str(tmp_path)).splitlines()
    assert CURE in flags.split()
    wide = "--xla_cpu_prefer_vector_width=512" in flags.split()
    assert wide == ("avx512f" in env.describe().instruction_sets)
    assert Path(folder).is_dir() and Path(folder).is_relative_to(tmp_path)


def test_user_settings_win(tmp_path: Path) -> None:
    mine = "--xla_cpu_experimental_ynn_fusion_type=dot --xla_cpu_enable_fast_math=false"
    flags, folder = run_fresh(SHOW, XLA_FLAGS=mine, JAX_COMPILATION_CACHE_DIR="/mine").splitlines()
    assert flags.startswith(mine)
    assert flags.count("ynn_fusion_type") == 1
    assert folder == "/mine"


def test_a_gpu_is_shared_unless_the_user_takes_it_whole() -> None:
    show = "import os, minillama; print(os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'])"
    assert run_fresh(show) == "false\n" and run_fresh(show, XLA_PYTHON_CLIENT_PREALLOCATE="true") == "true\n"


def test_unwritable_cache_is_not_fatal() -> None:
    assert run_fresh(SHOW, XDG_CACHE_HOME="/dev/null").splitlines()[1] == "None"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds a process to cores")
def test_threads() -> None:
    program = """if True:
        import os, minillama
        from minillama import env
        allowed = os.sched_getaffinity(0)
        sizes = []
        for threads in (1, len(allowed), 0, -1, 1, 10_000):
            env.prepare(threads=threads)
            sizes.append(len(os.sched_getaffinity(0)))
        print(sizes == [1, len(allowed), len(allowed), len(allowed), 1, len(allowed)], sizes)
    """
    assert run_fresh(program).startswith("True")


@pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two cores to differ"
)
def test_threads_of_a_token_and_of_a_prompt() -> None:
    """The process is bound to the larger number; a prompt's is a token's where it is not given."""
    program = """if True:
        import os, minillama
        from minillama import env
        found = [env.thread_limits() == (len(os.sched_getaffinity(0)),) * 2]
        for options in (
            {"threads": 1}, {"threads": 1, "threads_batch": -1}, {"threads": 1, "threads_batch": 2},
            {"threads": 2, "threads_batch": 1},
        ):
            env.prepare(**options)
            found.append([*env.thread_limits(), len(os.sched_getaffinity(0))])
        import jax
        jax.numpy.zeros(1)
        env.prepare(threads=2, threads_batch=1)  # changes nothing, so it is not too late
        try:
            env.prepare(threads_batch=2)
        except minillama.OptionError as error:
            found.append(str(error).partition(" comes")[0])
        from minillama.kernels.cpu.runtime import ffi_handlers, registry
        import ctypes
        registry.register()
        found.append(list((ctypes.c_int64 * 2).from_address(registry.handlers()(ffi_handlers.THREADS))))
        print(__import__("json").dumps(found))
    """
    assert json.loads(run_fresh(program)) == [
        True, [1, 1, 1], [1, 1, 1], [1, 2, 2], [2, 1, 2], "threads_batch=2", [2, 1],
    ]  # fmt: skip


def test_in_time_and_too_late() -> None:
    program = """if True:
        import jax, json, os
        from minillama import env
        from minillama.errors import OptionError
        env.prepare(cpu_devices=3, platform="cpu", threads=1)
        jax.numpy.zeros(1)
        env.prepare(cpu_devices=3, platform="cpu", threads=1)  # changes nothing, so it is not too late
        found = [len(jax.devices()), jax.config.jax_compilation_cache_dir == os.environ["JAX_COMPILATION_CACHE_DIR"]]
        for option in ({"cpu_devices": 2}, {"platform": "cuda"}, {"threads": 1000}):
            try:
                env.prepare(**option)
                found.append("accepted")
            except OptionError as error:
                found.append(str(error))
        print(json.dumps(found))
    """
    devices, cached, *errors = json.loads(run_fresh(program))
    assert devices == 3 and cached
    assert "cpu_devices=2 comes too late" in errors[0]
    assert "platform=cuda comes too late" in errors[1]
    one_core = len(env.describe().affinity) == 1
    assert errors[2] == "accepted" if one_core else "threads=1000 comes too late" in errors[2]


def test_warns_where_jax_came_first() -> None:
    program = """if True:
        import jax, logging
        jax.numpy.zeros(1)
        logging.basicConfig(format="%(message)s", stream=__import__("sys").stdout)
        import minillama
    """
    assert "restart and import minillama first" in run_fresh(program)


@pytest.mark.skipif(version("jaxlib") != "0.10.2" or sys.platform != "linux", reason="the bug is of jaxlib 0.10.2")
def test_doctor_sees_the_wrong_sums_that_the_flag_cures() -> None:
    program = """if True:
        from minillama.engine import doctor
        check = doctor._CHECKS["sums"]("sums")
        print(check.status.value, check.detail)
    """
    assert run_fresh(program).startswith("good 32768² = 1073741824")
    broken = run_fresh(program, XLA_FLAGS="--xla_cpu_experimental_ynn_fusion_type=+reduce")
    assert broken.startswith("FAIL") and "sums are wrong" in broken


def test_describe() -> None:
    here = env.describe()
    assert 1 <= here.physical_cores <= here.logical_cores
    assert here.cpu and here.python.startswith("3.")
    assert here.memory_total is None or here.memory_total >= (here.memory_available or 0) > 0
    assert json.loads(json.dumps(here.as_dict()))["affinity"] == list(here.affinity)


@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 40))
def test_pick_cores_takes_every_physical_core_before_a_sibling(cores: int, siblings: int, count: int) -> None:
    # As Linux numbers them: 0..cores-1 are the first threads of all cores, then come the second ones.
    core_ids = {number: (0, number % cores) for number in range(cores * siblings)}
    chosen = machine.pick_cores(tuple(core_ids), core_ids, count)
    used = [core_ids[number] for number in chosen]
    assert len(chosen) == len(set(chosen)) == min(count, cores * siblings)
    assert max(used.count(core) for core in used) == -(-len(chosen) // cores)


@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
def test_pick_cores_skips_those_of_other_processes(cores: int, siblings: int, count: int, processes: int) -> None:
    core_ids = {number: (0, number % cores) for number in range(cores * siblings)}
    shares = [machine.pick_cores(tuple(core_ids), core_ids, count, count * number) for number in range(processes)]
    taken = [core for share in shares for core in share]
    assert all(len(share) == min(count, cores * siblings) for share in shares)
    if count * processes <= cores * siblings:  # else they have to share
        assert sorted(taken) == list(machine.pick_cores(tuple(core_ids), core_ids, count * processes))


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = minillama.lod  # type: ignore[attr-defined]
