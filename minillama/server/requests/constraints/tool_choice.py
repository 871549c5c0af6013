"""The functions of a chat request, and the fields tool_choice and parallel_tool_calls."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from minillama.engine.grammar.tool_calls.function_tools import FunctionTool, read_functions
from minillama.server.http_errors import invalid
from minillama.server.requests.fields import read_flag, wrong_type
from minillama.server.settings import ChatSettings


class Need(Enum):
    """Whether an answer calls functions."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"


@dataclass(frozen=True)
class ToolChoice:
    """The functions of a request, and whether an answer calls them.

    tools: all of the request, as in OpenAI's API. functions: those that an answer may call.
    """

    tools: list[object]
    functions: tuple[FunctionTool, ...] = ()
    need: Need = Need.NONE
    is_parallel: bool = True

    @property
    def may_call(self) -> bool:
        """Whether an answer may have calls."""
        return bool(self.tools) and self.need is not Need.NONE


def read_tool_choice(body: Mapping[str, object], settings: ChatSettings) -> ToolChoice:
    """Read tools and choice; raises RequestError for wrong ones."""
    tools, choice = body.get("tools"), body.get("tool_choice")
    if tools is not None and not isinstance(tools, list):
        raise wrong_type("tools", "array", tools)
    if not settings.use_jinja:
        if tools:
            raise invalid("tools param requires --jinja flag")
        if choice not in (None, "auto"):
            raise invalid("tool_choice param requires --jinja flag")
    functions = tuple(read_functions(tools or []))
    need, names = _read_choice(choice)
    if names is not None:
        unknown = next((name for name in names if all(each.name != name for each in functions)), None)
        if unknown is not None:
            raise invalid(f"tool_choice names the function '{unknown:.60}', which is not in tools")
        functions = tuple(each for each in functions if each.name in names)
    if need is Need.REQUIRED and not functions:
        raise invalid("tool_choice requires a call, and there is no function in tools")
    return ToolChoice(tools or [], functions, need, read_flag(body, "parallel_tool_calls", True))


def _read_choice(choice: object) -> tuple[Need, tuple[str, ...] | None]:
    """The need of a call, and the names of the allowed functions; None for all."""
    if choice is None or choice == "":
        return Need.AUTO, None
    if isinstance(choice, str) and choice in [need.value for need in Need]:
        return Need(choice), None
    if isinstance(choice, dict):
        allowed = choice.get("allowed_tools", choice)
        listed = allowed.get("tools") if isinstance(allowed, dict) else None
        if choice.get("type") == "allowed_tools" and isinstance(listed, list):
            names = tuple(_name(each) for each in listed)
            return Need.REQUIRED if allowed.get("mode") == "required" else Need.AUTO, names
        return Need.REQUIRED, (_name(choice),)
    raise invalid(f"Invalid tool_choice: {choice!s:.60}")


def _name(choice: object) -> str:
    """The name of a function: `{"type": "function", "function": {"name": ...}}`, or with the name outside."""
    function = choice.get("function", choice) if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise invalid(f"Invalid tool_choice: {choice!s:.60}")
    return name
