"""What every command that measures does round it: alone on the machine, and a word where the machine is busy."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from minillama.cli.output.terminal import note


@contextmanager
def measuring(what: str, *, lock: bool, timeout: float | None, led: bool = False) -> Iterator[None]:
    """Wait for other measurements, and warn, before and after, of what else the machine does.

    led: workers compute, perhaps on this machine; then it says nothing afterwards, for they look like others.
    """
    from minillama.measure.host.measurement_lock import machine_lock
    from minillama.measure.host.other_load import OtherLoad, load_warning, other_load

    def say(line: str | None) -> None:
        if line:
            note(f"minillama: {line}")

    with machine_lock(what, timeout=timeout, waiting=say) if lock else nullcontext():
        say(load_warning(other_load(), "now"))
        load = OtherLoad()
        yield
        if not led:
            say(load_warning(load.share(), "during the measurement"))
