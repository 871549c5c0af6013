"""Messages of OpenAI's clients, in the form that a chat template takes."""

import json
from collections.abc import Callable, Mapping, Sequence

EXAMPLE_KEY = "minillama-argument"
EXAMPLE_CALL: dict[str, object] = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"type": "function", "id": "call00001", "function": {"name": "example", "arguments": {EXAMPLE_KEY: 1}}}
    ],
}


def adapt_messages(messages: Sequence[object], *, developers: bool, as_objects: Callable[[], bool]) -> list[object]:
    """Adapt roles, contents and tool calls; see `ChatTemplate.adapt`.

    developers: whether the template has this role. as_objects: whether it takes arguments as objects; only called for
    messages with calls.
    """
    adapted: list[object] = []
    for message in messages:
        if isinstance(message, Mapping) and message.get("role") == "developer" and not developers:
            message = {**message, "role": "system"}
        if isinstance(message, Mapping) and message.get("tool_calls"):
            message = _with_calls(message, as_objects())
        adapted.append(message)
    return adapted


def _with_calls(message: Mapping[str, object], as_objects: bool) -> dict[str, object]:
    calls = message["tool_calls"]
    if as_objects and isinstance(calls, list):
        calls = [_with_object(call) for call in calls]
    content = message.get("content")
    return {**message, "content": "" if content is None else content, "tool_calls": calls}


def _with_object(call: object) -> object:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping):
        return call
    try:
        arguments = json.loads(function.get("arguments"))  # type: ignore[arg-type]
    except (TypeError, ValueError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": arguments}} if isinstance(arguments, dict) else call
