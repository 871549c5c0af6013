"""Values: numbers as the C++ library reads them; lists and ranges, compared with Python's own ranges."""

import math
from argparse import ArgumentTypeError
from itertools import count, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.cli.arguments import values
from minillama.cli.arguments.values import numbers


@st.composite
def parts(draw: st.DrawFn) -> tuple[str, list[int]]:
    """A part of a list, and what it means, said with Python's own ranges."""
    first, length = draw(st.integers(0, 50)), draw(st.integers(0, 200))
    step, factor = draw(st.integers(1, 9)), draw(st.integers(2, 5))
    last = first + length
    kinds = [(f"{first}", [first]), (f"{first}-{last}", list(range(first, last + 1))),
             (f"{first}-{last}+{step}", list(range(first, last + 1, step)))]  # fmt: skip
    if first:
        kinds.append((f"{first}-{last}*{factor}", list(takewhile(last.__ge__, (first * factor**i for i in count())))))
    return draw(st.sampled_from(kinds))


@given(st.lists(parts(), min_size=1, max_size=4))
def test_lists_of_numbers(listed: list[tuple[str, list[int]]]) -> None:
    assert numbers(",".join(text for text, _ in listed)) == tuple(n for _, values in listed for n in values)


@pytest.mark.parametrize(
    "text", ["", "x", "1,", "1-", "5-3", "0-8*2", "1-8*1", "1-8+0", "1-99999", "-1", "1e3", "1--2"]
)
def test_lists_that_are_none(text: str) -> None:
    with pytest.raises(ValueError) as problem:
        numbers(text)
    assert "\n" not in str(problem.value)


def test_negative_numbers_where_they_mean_something() -> None:
    assert numbers("-1,0,16", least=-1) == (-1, 0, 16)
    with pytest.raises(ValueError, match="'0' should be at least 1"):
        numbers("0", least=1)


@pytest.mark.parametrize(
    ("text", "value"),
    [("4", 4), (" 4", 4), ("\t+4", 4), ("-0", 0), ("007", 7), ("4 ", 4), ("2147483647", 2**31 - 1),
     ("-2147483648", -(2**31)), ("4abc", 4), ("1e3", 1), ("0x10", 0), ("4.9", 4), ("1_000", 1)],
)  # fmt: skip
def test_whole_numbers(text: str, value: int, caplog: pytest.LogCaptureFixture) -> None:
    """std::stoi reads the digits at the start; what follows them is said."""
    assert values.integer(text) == value
    rest = text.strip().lstrip("+-0123456789")
    assert len(caplog.messages) == (1 if rest else 0)


@pytest.mark.parametrize("text", ["", " ", "x", "--4", "+", "- 4", "٤", "2147483648", "-2147483649", "9" * 10_000])
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="expected a whole number"):
        values.integer(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.5", 0.5), (".5", 0.5), ("5.", 5.0), (" -1e-2", -0.01), ("+1E3", 1000.0), ("0x10", 16.0), ("0x1.8p1", 3.0),
     ("inf", math.inf), ("-Infinity", -math.inf), ("0.8f", 0.8), ("0,5", 0.0), ("1e", 1.0), ("1e-60", 1e-60)],
)  # fmt: skip
def test_numbers(text: str, value: float) -> None:
    assert values.number(text) == value


def test_odd_numbers() -> None:
    assert math.isnan(values.number("nan"))
    for text in ("", "x", "e5", "--1", "1e39", "9" * 400, "-1e400"):
        with pytest.raises(ArgumentTypeError, match="expected a number"):
            values.number(text)


def test_seeds_of_32_bits() -> None:
    texts = ("-1", "4294967295", "-2", "4294967296", "42", "18446744073709551615")
    assert [values.seed(text) for text in texts] == [-1, -1, 2**32 - 2, 0, 42, -1]
    with pytest.raises(ArgumentTypeError):
        values.seed("18446744073709551616")


def test_cores_and_placements() -> None:
    assert [values.cpu_range(text) for text in ("0-3", "-3", "2-")] == ["0-3", "-3", "2-"]
    assert values.tensor_placement("a=CPU,b=GPU0") and values.cpu_mask("0xFf")
    for parse, text in ((values.cpu_range, "3"), (values.cpu_range, "0-512"), (values.cpu_mask, ""),
                        (values.cpu_mask, "0xg"), (values.tensor_placement, "a=CPU,b")):  # fmt: skip
        with pytest.raises(ArgumentTypeError):
            parse(text)
