"""The parts of an answer with tool calls: text, and pieces of calls."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CallDelta:
    """A piece of call number `index`, as in a stream of OpenAI's API.

    The first piece of a call has its name. The arguments of all pieces together are a JSON object.
    """

    index: int
    name: str = ""
    arguments: str = ""
    id: str = ""


@dataclass(frozen=True)
class CallParts:
    """A piece of an answer, cut into text and tool calls."""

    text: str = ""
    calls: tuple[CallDelta, ...] = ()

    def __add__(self, other: "CallParts") -> "CallParts":
        return CallParts(self.text + other.text, self.calls + other.calls)


@dataclass
class ToolCall:
    """A whole call; `arguments` is JSON text, as the model wrote it."""

    name: str
    arguments: str = ""
    id: str = ""


@dataclass
class CallCollector:
    """Whole calls out of pieces."""

    calls: list[ToolCall] = field(default_factory=list)

    def add(self, delta: CallDelta) -> None:
        """Add a piece; a piece with a name begins a call."""
        if delta.name:
            self.calls.append(ToolCall(delta.name))
        call = self.calls[delta.index]
        call.arguments += delta.arguments
        call.id = call.id or delta.id
