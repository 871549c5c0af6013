"""The process of the device under test: with `-m gpu` the accelerator's, with `-m slow` one of virtual processors."""

from collections.abc import Iterator

import pytest
from device_processes import Check, process_with_devices
from device_under_test import platform

CASES = [pytest.param("accelerator", marks=pytest.mark.gpu), "processor"]


@pytest.fixture(scope="session", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    """The name of the device."""
    return str(request.param)


@pytest.fixture(scope="session")
def on_device(case: str) -> Iterator[Check]:
    """Run a check in a process that has the device; XLA multiplies on its processors, as on an accelerator."""
    with process_with_devices("off", optimised=case == "accelerator") as run:
        if case == "accelerator" and run(platform) == "cpu":
            pytest.skip("JAX finds no GPU or TPU here")
        yield run


@pytest.fixture
def second_process(case: str, on_device: Check) -> Iterator[Check]:
    """Run a check in another process, which has the same device."""
    with process_with_devices("off", optimised=case == "accelerator") as run:
        yield run
