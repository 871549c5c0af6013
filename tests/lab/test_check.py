"""Checks name the likely mistake and never raise; records are stored with the notebook."""

import json
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import quants
from gguf.constants import GGMLQuantizationType as TensorType

from minillama.lab import lab_record
from minillama.lab.checks import lab00, lab01, lab02, lab04, lab06, lab08
from minillama.lab.grading.check import Item, Mistake, NotYet, attempt, call, expect_equal, graded


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def squares(x: np.ndarray) -> np.ndarray:
    return x * x


CUBES = Mistake("is that the square or the cube?", lambda x: x * x * x)


def why(answer: Callable[..., object], tolerance: float = 0.0) -> str:
    with pytest.raises(NotYet) as caught:
        expect_equal(answer, (np.array([1.0, 2.0, 3.0]),), squares, (CUBES,), tolerance=tolerance)
    return str(caught.value)


def test_agree_says_what_is_wrong() -> None:
    expect_equal(lambda x: x**2, (np.array([1.0, -2.0]),), squares)
    expect_equal(lambda x: x**2 * (1 + 1e-7), (np.array([1.0, -2.0]),), squares, tolerance=1e-6)
    assert why(lambda x: x**3) == "is that the square or the cube?"
    assert "index (2,): got 10, want 9" in why(lambda x: x**2 + (x == 3))
    assert "shape is (1, 3)" in why(lambda x: (x**2)[None])
    assert "nan or infinity" in why(lambda x: x**2 + np.nan)
    assert "should be numbers" in why(lambda x: "nine")
    assert "returned None" in why(lambda x: None)
    assert "empty stub" in why(stub)
    assert "ZeroDivisionError: " in why(lambda x: 1 // 0)
    assert "changed its input" in why(spoil)


def stub(x: np.ndarray) -> np.ndarray:
    raise NotImplementedError


def spoil(x: np.ndarray) -> np.ndarray:
    x *= x
    return x


def test_agree_wants_infinities_in_their_places() -> None:
    def cut(x: np.ndarray) -> np.ndarray:
        return np.where(x > 1, x, -np.inf)

    expect_equal(cut, (np.array([1.0, 2.0]),), cut)
    with pytest.raises(NotYet):
        expect_equal(lambda x: np.where(x > 1, x, 0.0), (np.array([1.0, 2.0]),), cut)


def test_call_hides_the_original_arguments() -> None:
    given = np.ones(3)
    with pytest.raises(NotYet, match="changed its input"):
        call(spoil, given * 2)
    assert given.sum() == 3


def test_attempt_never_raises() -> None:
    assert attempt(len, "four") == 4
    assert attempt(stub, np.ones(1)) == "not written yet"
    assert str(attempt(int, "x")).startswith("ValueError: invalid literal")


def test_item_records_and_displays() -> None:
    @graded("99", "the square")
    def square(answer: Callable[..., object]) -> str:
        expect_equal(answer, (np.arange(3.0),), squares, (CUBES,))
        return "well done"

    assert isinstance(square, Item)
    wrong = square(lambda x: x**3)
    assert str(wrong) == "not yet: the square: is that the square or the cube?"
    assert "✘ not yet" in wrong._repr_mimebundle_()["text/html"]
    assert not square(7).passed
    assert str(square(lambda x: x**2)) == "PASS: the square: well done"
    stored = json.loads(Path("results/lab99.json").read_text())
    assert stored["checks"]["square"]["passed"] is True
    assert stored["versions"]["numpy"] == np.__version__
    assert stored["machine"]["logical_cores"] >= 1


def test_a_check_survives_any_text_of_the_learner() -> None:
    @graded("97", "any text")
    def any_text(answer: Callable[..., object]) -> str:
        return str(answer())

    assert any_text(lambda: "half a pair: \ud800, and \x00").passed
    assert lab_record.section("97", "checks")["any_text"]["message"] == "half a pair: \ud800, and \x00"
    assert len(any_text(lambda: 1 / len([] * len("x" * 10**7))).message) < 500
    assert len(any_text(lambda: int("9" * 5000)).message) < 500


def header(data: bytes) -> tuple[int, int, int]:
    return struct.unpack_from("<IQQ", data, 4)


def string(data: bytes, offset: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, offset)
    return data[offset + 8 : offset + 8 + length].decode(), offset + 8 + length


def place(end: int, alignment: int, offset: int, row: int, length: int, block: tuple[int, int]) -> int:
    while end % alignment:
        end += 1
    return end + offset + row * length // block[0] * block[1]


def q8(block: bytes) -> list[float]:
    (scale,) = struct.unpack_from("<e", block)
    return [scale * code for code in struct.unpack_from("<32b", block, 2)]


def q4(block: bytes) -> list[float]:
    (scale,) = struct.unpack_from("<e", block)
    return [scale * (byte % 16 - 8) for byte in block[2:]] + [scale * (byte // 16 - 8) for byte in block[2:]]


def test_lab02_accepts_right_answers() -> None:
    """Answers written without numpy pass: the checks test the format, not the style."""
    right = {
        lab02.read_header: header,
        lab02.read_string: string,
        lab02.row_place: place,
        lab02.decode_q8_0: q8,
        lab02.decode_q4_0: q4,
    }
    assert set(right) == set(lab02.ITEMS)
    for item, answer in right.items():
        assert item(answer).passed, item(answer).message
    assert str(lab02.score()).startswith("lab 02: 5 of 5 solved")


def test_lab02_accepts_the_library() -> None:
    for item, kind in ((lab02.decode_q8_0, TensorType.Q8_0), (lab02.decode_q4_0, TensorType.Q4_0)):
        assert item(lambda block, kind=kind: quants.dequantize(np.frombuffer(block, np.uint8), kind)).passed


HALF = struct.Struct("<e").unpack


@pytest.mark.parametrize(
    ("item", "answer", "hint"),
    [
        (lab02.read_header, lambda data: struct.unpack_from("<IQQ", data, 0), "magic"),
        (lab02.read_header, lambda data: struct.unpack_from("<III", data, 4), "64-bit"),
        (lab02.read_header, lambda data: struct.unpack_from(">IQQ", data, 4), "little-endian"),
        (lab02.read_header, lambda data: struct.unpack("@IQQ", data[4:28]), "padding"),
        (lab02.read_header, lambda data: (header(data)[0], header(data)[2], header(data)[1]), "before the metadata"),
        (lab02.read_string, lambda data, at: (string(data, at)[0], at + 8 + len(string(data, at)[0])), "counts bytes"),
        (lab02.read_string, lambda data, at: (string(data, at)[0].encode(), string(data, at)[1]), "still bytes"),
        (lab02.read_string, lambda data, at: string(data, at)[0], "two things"),
        (lab02.read_string, lambda data, at: (string(data, at)[0], string(data, at)[1] - at), "where the string began"),
        (lab02.row_place, lambda end, *rest: place((end // 32 + 1) * 32, *rest), "nothing is added"),
        (lab02.row_place, lambda end, a, o, r, n, b: end + o + r * n // b[0] * b[1], "next"),
        (lab02.row_place, lambda end, a, o, r, n, b: place(end, a, o, r, n, (1, b[1])), "blocks"),
        (lab02.row_place, lambda end, a, o, r, n, b: place(end, a, 0, r, n, b), "add both"),
        (lab02.decode_q8_0, lambda b: [b_ * struct.unpack("<e", b[:2])[0] for b_ in b[2:]], "signed"),
        (lab02.decode_q8_0, lambda b: [c * HALF(b[-2:])[0] for c in struct.unpack("32b", b[:32])], "first two"),
        (lab02.decode_q4_0, lambda b: [q4(b)[i // 2 + 16 * (i % 2)] for i in range(32)], "high nibbles go"),
        (lab02.decode_q4_0, lambda b: q4(b)[16:] + q4(b)[:16], "low nibbles are elements"),
        (lab02.decode_q4_0, lambda b: [v + 8 * struct.unpack("<e", b[:2])[0] for v in q4(b)], "subtract 8"),
        (lab02.decode_q4_0, lambda b: q4(b)[:16], "two in every byte"),
    ],
)  # fmt: skip
def test_lab02_names_the_mistake(item: Item, answer: Callable[..., object], hint: str) -> None:
    result = item(answer)
    assert not result.passed
    assert hint in result.message


def by_perf_counter(f: Callable[..., Any], make: Callable[..., Any], clock: Callable[[], float]) -> float:
    f(make().block_until_ready()).block_until_ready()
    times = []
    for _ in range(11):
        x, start = make().block_until_ready(), time.perf_counter()
        f(x).block_until_ready()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def of_all(answers: list[list[float]], shares: list[float]) -> tuple[float, ...]:
    later = np.concatenate([answer[1:] for answer in answers])
    return (np.median([answer[0] for answer in answers]), *np.percentile(later, shares))


@pytest.mark.parametrize(
    ("item", "answer", "hint"),
    [
        (lab00.bench, by_perf_counter, "read it with clock(), not with time.perf_counter()"),
        (lab01.bound, lambda w, b, c, m, f: 1 / ((w * b / 8 + c) / m + 2 * w / f), "the times do not add up"),
        (lab04.temperature, lambda x, t: softmax(x / t), "All of the probability goes there"),
        (lab04.temperature, lambda x, t: np.eye(len(x))[x.argmax()] if t == 0 else softmax(x / t), "with <= 0, not"),
        (lab06.perplexity, lambda v: 2 ** v.mean() * np.array([1, v.std(ddof=1) / len(v) ** 0.5]), "not 2 to its"),
        (lab06.latencies, lambda a: of_all(a, [0.5, 0.99]), "takes 50 and 99"),
        (lab06.latencies, lambda a: (*of_all(a, [50]), np.median([of_all([b], [99])[1] for b in a])), "median of"),
        (lab08.lookup_gain, lambda a, d, c: (1 + a * d) * c, "divide by cost"),
    ],
    ids=range(8),
)  # fmt: skip
def test_common_mistakes_get_their_hints(item: Item, answer: Callable[..., object], hint: str) -> None:
    assert hint in str(item(answer))
