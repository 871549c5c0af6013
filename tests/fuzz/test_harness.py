"""The fuzzer itself: what it finds, survives and continues; and a slice of its cases."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from minillama.engine.backends.remote_worker import CALLS
from tests.fuzz import ROOT
from tests.fuzz.campaign import Campaign
from tests.fuzz.kinds import KINDS, shares
from tests.fuzz.leaks import growth
from tests.fuzz.run_state import KindState, RunState
from tests.fuzz.schema_cases import change_schema, random_schema
from tests.fuzz.toy_kind import CRASH, EXCEPTION, HANG, LARGE, LATE_ONCE, LONG_ERROR, SLOW, WRONG
from tests.fuzz.wire_sessions import SESSIONS

SLICE = {
    "gguf": 300,
    "tokenizer": 400,
    "template": 120,
    "wire": 150,
    "cli": 200,
    "side_file": 600,
    "grammar": 120,
    "request": 400,
}


@pytest.mark.slow
def test_every_fault_belongs_to_its_case(tmp_path: Path) -> None:
    state = RunState(tmp_path / "state.json")
    Campaign("toy", state, lambda count: None).run(20, 1)
    found = RunState(tmp_path / "state.json").of("toy")  # as a later run reads it
    assert found.count == 20
    assert set(found.findings) == {str(n) for n in (CRASH, HANG, LONG_ERROR, WRONG, EXCEPTION, LARGE, SLOW)}
    assert set(found.in_time_alone) == {str(LATE_ONCE)}
    assert "s of processor time" in found.in_time_alone[str(LATE_ONCE)]
    reasons = {
        CRASH: "the process ended with SIGSEGV", HANG: "no end after 3 s", LONG_ERROR: "not one printable line",
        WRONG: "a wrong result", EXCEPTION: "ZeroDivisionError", LARGE: "MiB of memory", SLOW: "s of processor time",
    }  # fmt: skip
    for number, reason in reasons.items():
        assert reason in found.findings[str(number)]
    assert "in run" in found.findings[str(CRASH)]  # the stack of the process
    assert "in run" in found.findings[str(HANG)]


def test_a_later_run_goes_on() -> None:
    state = KindState()
    state.add_range(0, 50)
    state.add_range(100, 150)
    assert state.missing(160, 40) == [(50, 90), (90, 100), (150, 160)]
    state.add_range(50, 100)
    assert state.done == [[0, 150]] and state.count == 150
    assert state.missing(150, 40) == []


def test_growth_is_found() -> None:
    def reports(**slopes: int) -> list[tuple[int, dict[str, int]]]:
        used = {"memory": 100 << 20, "descriptors": 5, "threads": 1, "files": 0}
        return [
            (200 * place, {name: value + place * slopes.get(name, 0) for name, value in used.items()})
            for place in range(1, 20)
        ]

    assert growth(reports(), 1024) is None
    assert growth(reports(memory=200 * 500), 1024) is None
    for place in range(20):  # pages of one large case, which the process keeps
        step = [
            (count, used | {"memory": used["memory"] + (32 << 20) * (count > 200 * place)}) for count, used in reports()
        ]
        assert growth(step, 1024) is None
    steps = [(count, used | {"memory": used["memory"] + (5 << 20) * (count // 600)}) for count, used in reports()]
    assert "memory grows" in str(growth(steps, 1024))
    assert "memory grows by 20480 bytes a case" in str(growth(reports(memory=200 * 20480), 1024))
    for name in ("descriptors", "threads", "files"):
        assert f"{name} grow" in str(growth(reports(**{name: 1}), 1024))


def test_shares_of_the_kinds() -> None:
    assert sum(row.share for row in KINDS.values()) == 100
    assert sum(shares(list(KINDS), 1_000_003).values()) == 1_000_003
    assert shares(["wire"], 7) == {"wire": 7}


def test_the_wire_has_every_call() -> None:
    assert {message.op for session in SESSIONS for message in session()} == CALLS.keys()


def test_schemas_share_nothing() -> None:
    """A case is the same whatever cases were changed before it."""
    before = [repr(random_schema(random.Random(number))) for number in range(300)]
    for number in range(300):
        change_schema(random.Random(number), random_schema(random.Random(number)))
    assert [repr(random_schema(random.Random(number))) for number in range(300)] == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", SLICE)
def test_a_slice(kind: str, tmp_path: Path) -> None:
    """A process of its own, as for users: the tests' strict JAX would check every shape."""
    command = [sys.executable, "-m", "tests.fuzz", "--kind", kind, "--cases", str(SLICE[kind]), "--jobs", "1"]
    done = subprocess.run([*command, "--save", tmp_path], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert f"{kind}: {SLICE[kind]} cases" in done.stdout
