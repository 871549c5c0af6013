"""Memory bandwidth with a fake clock."""

import pytest

from minillama.measure.limits import bandwidth


def test_bandwidth_is_that_of_the_best_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 2.0, 10.0, 10.5, 20.0, 21.0])
    monkeypatch.setattr(bandwidth.time, "perf_counter", lambda: next(ticks))
    assert bandwidth.read_bandwidth(3, size=1 << 16, passes=3) == (1 << 16) / 0.5
