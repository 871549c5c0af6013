"""Measure alone on the machine: take the lock, and warn about other load."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from minillama.cli.output.terminal import note


@contextmanager
def exclusive_measurement(name: str, *, lock: bool, timeout: float | None, has_workers: bool = False) -> Iterator[None]:
    """Wait for other measurements, then warn about other load before and after the measurement.

    has_workers: worker processes compute. They may run on this machine and would count as other load, so there is no
    warning afterwards.
    """
    from minillama.measure.host.measurement_lock import machine_lock
    from minillama.measure.host.other_load import OtherLoad, load_warning, other_load

    def warn(line: str | None) -> None:
        if line:
            note(f"minillama: {line}")

    with machine_lock(name, timeout=timeout, on_wait=warn) if lock else nullcontext():
        warn(load_warning(other_load(), "now"))
        load = OtherLoad()
        yield
        if not has_workers:
            warn(load_warning(load.share(), "during the measurement"))
