"""The interface of a kind of cases, and what the oracle allows a case."""

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

Input = TypeVar("Input")


class Finding(AssertionError):
    """A wrong result of a case that raised no exception."""


class Late(Finding):
    """A finding of time, which a machine that pauses may be the reason for: it counts if it comes again alone."""


@dataclass(frozen=True)
class Limits:
    """Most that one case may use."""

    cpu_seconds: float = 2.0
    hang_seconds: float = 60.0  # of the clock; the process is ended then
    memory: int = 64 << 20  # bytes by which the peak may exceed the memory before the case
    growth: int = 1024  # bytes of a process for each case, in the long run
    address_space: int = 2 << 30  # bytes of a process beyond those that it has when it is ready


class Kind(ABC, Generic[Input]):
    """A family of inputs and the code that they are given to."""

    def __init__(self, folder: Path) -> None:
        """folder: an empty folder of this process."""
        self.folder = folder

    @abstractmethod
    def make(self, rng: random.Random) -> Input:
        """The input of a case; `rng` is seeded with the case's number."""

    @abstractmethod
    def run(self, given: Input) -> str:
        """Give an input to the program; returns a short name of the outcome.

        Raises MinillamaError for a refused input, Finding for a wrong result. Every other exception is a fault.
        """

    @abstractmethod
    def files(self, given: Input) -> dict[str, bytes]:
        """The input as files to keep, by name."""

    def close(self) -> None:
        """End what the kind has started."""
