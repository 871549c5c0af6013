"""Memory bandwidth with a fake clock."""

import pytest

from minillama.gguf import TensorType
from minillama.measure.limits import bandwidth


def test_bandwidth_is_that_of_the_best_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 2.0, 10.0, 10.5, 20.0, 21.0])
    monkeypatch.setattr(bandwidth.time, "perf_counter", lambda: next(ticks))
    assert bandwidth.read_bandwidth(3, size=1 << 16, passes=3) == (1 << 16) / 0.5


def test_the_roof_is_what_the_fastest_way_of_reading_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "read_bandwidth", lambda threads, size, passes: 17e9)
    for q8, f16 in ((0.0, 0.0), (29e9, 3e9), (18e9, 31e9)):
        found = {TensorType.Q8_0: q8, TensorType.F16: f16}
        monkeypatch.setattr(bandwidth, "product_bandwidth", lambda kind, size, passes, found=found: found[kind])
        assert bandwidth.cpu_bandwidth(size=1 << 20, passes=3) == max(17e9, q8, f16)


def test_bytes_of_a_decoding_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "best_seconds", lambda call, repeats: call() is None or 0.5)
    assert bandwidth.product_bandwidth(TensorType.Q8_0, size=1 << 20, passes=2) == 768 * 24 * 34 / 0.5
    monkeypatch.setattr(bandwidth, "type_kernels_error", lambda kind: "no kernels")
    assert bandwidth.product_bandwidth(TensorType.Q8_0, size=1 << 20) == 0.0
