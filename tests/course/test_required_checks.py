"""Checks for graders: they raise, their inputs depend on the course's seed, and borrowed answers do not pass."""

import importlib
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path

import jax
import numpy as np
import pytest
from lab_checks import SOURCES, solutions

from minillama.errors import OptionError
from minillama.lab import llama_numpy
from minillama.lab.checks import lab02, lab03, lab14
from minillama.lab.distributed.virtual_devices import DEVICES
from minillama.lab.grading import course_seed as seeds
from minillama.lab.grading.check import Item, Mistake, expect_equal, graded
from minillama.lab.grading.check_result import NotPassed
from minillama.lab.grading.course_seed import hidden_cases, hidden_seed, one_of, real, share, whole, with_course_seed

LABS = [path.name[:2] for path in sorted(SOURCES.glob("[0-9][0-9]_*.py"))]
ITEMS = [item for lab in LABS for item in importlib.import_module(f"minillama.lab.checks.lab{lab}").ITEMS]
CONDITIONS = {("12", "target"), ("12", "trade_offs"), ("12", "look_back"), ("08", "changes")}  # read the labs' results

# Without inputs to draw: a timer's traps, facts of the formats, PartitionSpecs, given reports and recorded comparisons.
FIXED = {
    ("00", "bench"), ("07", "bits_per_weight"), ("09", "specs"), ("11", "flaws"), ("11", "fair_time"),
    ("11", "unfair"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@graded("99", "the square")
def square(answer: Callable[..., object]) -> str:
    """`square(x) -> x * x`."""
    x = np.random.default_rng(hidden_seed(7)).normal(size=3)
    expect_equal(answer, (x,), lambda x: x * x, (Mistake("twice?", lambda x: 2 * x),), tolerance=1e-9)
    return "well done"


def test_require_gives_no_credit_for_a_wrong_answer() -> None:
    assert square.require(lambda x: x**2).passed
    with pytest.raises(AssertionError, match=r"^not yet: the square: twice\?$") as caught:
        square.require(lambda x: 2 * x)
    assert caught.value._render_traceback_() == ["not yet: the square: twice?"]
    with pytest.raises(NotPassed, match="not a int"):
        square.require(7)


@pytest.mark.parametrize(("value", "raises"), [("1", True), ("yes", True), ("0", False), ("", False), (None, False)])
def test_strict_mode(value: str | None, raises: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is None:
        monkeypatch.delenv("MINILLAMA_STRICT", raising=False)
    else:
        monkeypatch.setenv("MINILLAMA_STRICT", value)
    assert square(lambda x: x**2).passed
    if raises:
        with pytest.raises(NotPassed):
            square(lambda x: 2 * x)
    else:
        assert not square(lambda x: 2 * x).passed


class TestSeed:
    def seen(self) -> list[float]:
        found: list[float] = []

        def answer(x: np.ndarray) -> np.ndarray:
            found.extend(x.tolist())
            return x * x

        square.require(answer)
        return found

    def test_of_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        usual = self.seen()
        monkeypatch.setenv("MINILLAMA_COURSE_SEED", "5")
        own = self.seen()
        assert own != usual and own == self.seen()
        monkeypatch.setenv("MINILLAMA_COURSE_SEED", "6")
        assert self.seen() not in (usual, own)

    def test_of_the_call_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MINILLAMA_COURSE_SEED", "5")
        own = self.seen()
        known = {tuple(own): square.require(lambda x: x * x)}

        def remembers(x: np.ndarray) -> np.ndarray:
            return x * x if tuple(x.tolist()) in known else np.zeros(3)

        assert square.require(remembers).passed
        with pytest.raises(NotPassed):
            square.require(remembers, seed=6)

    @pytest.mark.parametrize("text", ["seven", "-1", "1.5", str(2**32), "²"])
    def test_that_is_none(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MINILLAMA_COURSE_SEED", text)
        with pytest.raises(OptionError, match=r"MINILLAMA_COURSE_SEED is .* give a whole number from 0 to 4294967295"):
            square.require(lambda x: x**2)
        assert "MINILLAMA_COURSE_SEED" in square(lambda x: x**2).message


def decorated(function: Callable[..., object]) -> Callable[..., object]:
    @wraps(function)
    def inner(*arguments: object) -> object:
        return function(*arguments)

    return inner


def by_import(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    from minillama.lab.llama_numpy import rms_norm

    return rms_norm(x, weight, epsilon)


BORROWED: list[tuple[Item, Callable[..., object]]] = [
    (lab03.rms_norm, llama_numpy.rms_norm),
    (lab03.rms_norm, partial(llama_numpy.rms_norm)),
    (lab03.rms_norm, decorated(llama_numpy.rms_norm)),
    (lab03.rms_norm, lambda x, w, e: llama_numpy.rms_norm(x, w, e)),
    (lab03.rms_norm, by_import),
    (lab03.layer, lambda x, w, sizes: llama_numpy.layer(x, w, sizes)),
    (lab02.read_string, lab02._string),
    (lab02.read_string, lambda data, offset: lab02._string(data, offset)),
    (lab02.row_place, lambda *given: lab02._place(*given)),
    (lab02.read_header, lab02.read_header),
    (lab02.read_header, lab02.read_header.examine),
    (lab02.read_header, lambda data: lab02.read_header(data)),
    (lab14.waste, lambda lengths, block: lab14._waste(lengths, block)),
]


@pytest.mark.parametrize(("item", "answer"), BORROWED)
def test_borrowed_answers_do_not_pass(item: Item, answer: Callable[..., object]) -> None:
    assert not item(answer).passed
    with pytest.raises(NotPassed):
        item.require(answer)


def test_borrowed_answers_are_named() -> None:
    assert "minillama's own function" in lab03.rms_norm(llama_numpy.rms_norm).message
    assert "calls the check's own `rms_norm`" in lab03.rms_norm(by_import).message


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: f"{item.lab}-{item.name}")
def test_solutions_pass_with_any_seed(item: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each check that has inputs to draw draws them from the seed."""
    if (item.lab, item.name) in CONDITIONS:
        pytest.skip("reads the results of labs")
    if item.lab == "09" and len(jax.devices("cpu")) < DEVICES:
        pytest.skip("needs eight devices")
    answer, asked = solutions(item.lab)[item.name], []
    true = seeds.course_seed
    monkeypatch.setattr(seeds, "course_seed", lambda: (asked.append(item), true())[1])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for seed in (1, 20_262):
            with with_course_seed(seed):
                result = item._result(answer)
            assert result.passed, result.message
    assert bool(asked) is ((item.lab, item.name) not in FIXED)


def test_hidden_cases_are_of_the_seed() -> None:
    draws = (whole(1, 3), real(1e-3, 1e3), share(), one_of("a", "b"))
    with with_course_seed(1):
        first = hidden_cases(5, *draws, count=50)
        assert first == hidden_cases(5, *draws, count=50) != hidden_cases(6, *draws, count=50)
    with with_course_seed(2):
        assert first != hidden_cases(5, *draws, count=50)
    numbers, reals, shares, letters = zip(*first, strict=True)
    assert set(numbers) == {1, 2, 3} and set(letters) == {"a", "b"} and all(0.05 <= each <= 0.95 for each in shares)
    assert min(reals) < 0.1 and max(reals) > 10 and all(float(f"{each:.3g}") == each for each in reals)
    assert all(case[0] > 1 for case in hidden_cases(5, *draws, fits=lambda number, *rest: number > 1))
