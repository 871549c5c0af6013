"""Seconds that JAX spends tracing and compiling, so that timings can report them separately."""

import threading
import time

import jax

_EVENTS = frozenset(
    {
        "/jax/core/compile/jaxpr_trace_duration",
        "/jax/core/compile/jaxpr_to_mlir_module_duration",
        "/jax/core/compile/backend_compile_duration",
    }
)
_totals = threading.local()  # compilation happens in the thread that calls


def compile_seconds() -> float:
    """Seconds that this thread has spent on tracing, lowering and compiling since it started."""
    return getattr(_totals, "seconds", 0.0)


def count_seconds(duration: float) -> None:
    """Add seconds that this thread has spent on loading a compiled program."""
    _totals.seconds = compile_seconds() + duration


class Stopwatch:
    """A stopwatch that leaves out compilation."""

    def __init__(self) -> None:
        self._at, self._compiled = time.perf_counter(), compile_seconds()

    def seconds(self) -> float:
        now, compiled = time.perf_counter(), compile_seconds()
        passed = now - self._at - (compiled - self._compiled)
        self._at, self._compiled = now, compiled
        return max(passed, 0.0)


def _listen(event: str, duration: float, **details: str | int | float) -> None:
    if event in _EVENTS:
        count_seconds(duration)


jax.monitoring.register_event_duration_secs_listener(_listen)
