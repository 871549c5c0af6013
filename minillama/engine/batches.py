"""Logical and physical batch size of a prompt: llama.cpp's `--batch-size` and `--ubatch-size`."""

from dataclasses import dataclass

from minillama.errors import OptionError


@dataclass(frozen=True)
class Batches:
    """Tokens of a logical and of a physical batch. Raises OptionError for less than one."""

    batch_size: int  # handed over at once: then the device is waited for, and the caller has the word
    ubatch_size: int  # computed at once, by one compiled program

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise OptionError(f"{name} is {value}; expected at least 1")

    def within(self, ctx_size: int) -> "Batches":
        """Cut as llama.cpp cuts them: ubatch_size <= batch_size <= ctx_size."""
        batch_size = min(self.batch_size, ctx_size)
        return Batches(batch_size, min(self.ubatch_size, batch_size))
