"""Lists and ranges of numbers, compared with Python's own ranges."""

from itertools import count, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.cli.arguments.number_lists import numbers


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
