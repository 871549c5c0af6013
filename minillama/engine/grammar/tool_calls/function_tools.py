"""The functions that an answer may call, as a grammar needs them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

NO_PARAMETERS: Mapping[str, object] = {"type": "object", "properties": {}}
ANY_PARAMETERS: Mapping[str, object] = {"type": "object"}


@dataclass(frozen=True)
class FunctionTool:
    """A function with the JSON schema of its arguments.

    is_strict: whether calls must keep that schema.
    """

    name: str
    parameters: object = None
    is_strict: bool = False

    def loosened(self) -> "FunctionTool":
        """The same function with any arguments."""
        return replace(self, parameters=ANY_PARAMETERS)


def read_functions(tools: Sequence[object]) -> list[FunctionTool]:
    """The functions of `tools` in OpenAI's form; other tools are left out.

    Without parameters a function has no arguments.
    """
    found = []
    for tool in tools:
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            parameters = function.get("parameters")
            given = NO_PARAMETERS if parameters in (None, {}) else parameters
            found.append(FunctionTool(function["name"], given, function.get("strict") is True))
    return found
