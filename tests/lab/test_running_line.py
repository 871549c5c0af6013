"""The line of a running cell: it moves while nothing else is printed, and ends with the work."""

import threading
import time
from collections.abc import Iterator

import pytest

from minillama.lab.widgets import running_line
from minillama.lab.widgets.running_line import collect, running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_line, "INTERVAL", 0.02)


def lines_alive() -> bool:
    return any(thread.name == running_line.THREAD for thread in threading.enumerate())


def test_the_line_moves_during_one_long_call(capsys: pytest.CaptureFixture[str]) -> None:
    with running("a long call", seconds=2):
        assert lines_alive()
        time.sleep(0.35)
    drawn = capsys.readouterr().err.split("\r")
    assert len({line for line in drawn if "a long call" in line}) > 3, "redrawn, with a longer bar each time"
    assert "of about 2 s" in drawn[1]


def test_steps_are_counted_and_end_with_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    with running("types", steps=2) as step:
        for name in ("F16", "Q8_0"):
            step(name)
            time.sleep(0.15)
    err = capsys.readouterr().err
    assert "types:   0%" in err and "1/2" in err and "2/2" in err and "F16" in err and "Q8_0" in err


def test_a_line_without_an_estimate_shows_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    with running("work"):
        pass
    assert "work: 00:00" in capsys.readouterr().err


def test_the_line_ends_with_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), running("stopped", seconds=9):
        raise KeyboardInterrupt
    assert not lines_alive()
    capsys.readouterr()
    time.sleep(0.1)
    assert not capsys.readouterr().err


def test_collect_keeps_everything_and_counts_no_texts(capsys: pytest.CaptureFixture[str]) -> None:
    def measure() -> Iterator[object]:
        for number in range(3):
            yield f"point {number}\n"
            time.sleep(0.15)
            yield number

    assert collect(measure(), "points", 3) == ["point 0\n", 0, "point 1\n", 1, "point 2\n", 2]
    err = capsys.readouterr().err
    assert "3/3" in err and "point 1" in err and "4/3" not in err


def test_collect_ends_with_the_error_of_the_work() -> None:
    def fails() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        collect(fails(), "work", 5)
    assert not lines_alive()
