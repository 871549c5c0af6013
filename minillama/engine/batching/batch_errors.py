"""Requests that a batch engine refuses, with the numbers that a server passes on."""

from minillama.errors import OptionError, ResourceError


class ContextSizeError(OptionError):
    """A prompt that does not fit in a slot.

    is_bound: the prompt has at least `prompt_tokens`; so long a text is not encoded.
    """

    def __init__(self, prompt_tokens: int, ctx_size: int, *, is_bound: bool = False) -> None:
        self.count = f"{'at least ' * is_bound}{prompt_tokens}"
        super().__init__(
            f"the prompt has {self.count} tokens, too many for a slot of {ctx_size}; shorten it or raise ctx_size"
        )
        self.prompt_tokens, self.ctx_size = prompt_tokens, ctx_size


class SlotBusyError(ResourceError):
    """A slot that has a request, where an idle one is needed."""

    def __init__(self, number: int) -> None:
        super().__init__(f"slot {number} has a request; try again when it has ended")
        self.number = number


class QueueFullError(ResourceError):
    """A request beyond the bounded queue."""

    def __init__(self, waiting: int, max_waiting: int) -> None:
        super().__init__(f"{waiting} requests are waiting, as many as max_waiting allows; send this one again later")
        self.waiting, self.max_waiting = waiting, max_waiting
