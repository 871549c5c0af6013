"""Priority of gloo's thread, and a JAX version that starts gloo differently."""

import os
import sys
import threading

import pytest

from minillama.parallel.group.gloo import set_idle_priority, start_gloo


def test_set_idle_priority() -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux has SCHED_IDLE")
    done, ids = threading.Event(), []
    thread = threading.Thread(target=lambda: (ids.append(threading.get_native_id()), done.wait()))
    thread.start()
    while not ids:
        pass
    assert set_idle_priority({ids[0], 1 << 22}) == (ids[0],)  # the second id is no thread
    assert os.sched_getscheduler(ids[0]) == os.SCHED_IDLE
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    done.set()
    thread.join()


def test_incompatible_jax(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from jax._src import xla_bridge
    from jax._src.lib import _jax

    before = xla_bridge._backend_factories["cpu"]
    monkeypatch.delattr(_jax, "make_gloo_tcp_collectives")
    assert start_gloo("127.0.0.1") == ()
    assert xla_bridge._backend_factories["cpu"] is before
    assert "starts gloo differently" in caplog.text
