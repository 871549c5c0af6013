"""Requests of Anthropic's messages API as requests of OpenAI's chat completions.

Fields: https://docs.anthropic.com/en/api/messages. The conversion follows llama-server's.
"""

import json
import re
from collections.abc import Mapping

from minillama.server.http_errors import ErrorKind, RequestError, invalid

DEFAULT_TOKENS = 4096
DEFAULT_THINKING_TOKENS = 10_000
COPIED = ("temperature", "top_p", "top_k", "stream", "chat_template_kwargs")
# A number in the first system text of Claude Code that differs in each request, and so would end every shared prefix.
BILLING = re.compile(r"\A(x-anthropic-billing-header:.*?cch=)[^;]{5}(?=;)", re.DOTALL)

JsonObject = Mapping[str, object]


def anthropic_to_chat(body: JsonObject) -> dict[str, object]:
    """The chat request of a messages request; raises RequestError for wrong values and for images."""
    if body.get("messages") is None:
        raise invalid("'messages' is required")
    messages = _system(body.get("system"))
    for message in _objects(body["messages"], "messages"):
        messages += _messages(message)
    chat: dict[str, object] = {"messages": messages or [{"role": "user", "content": ""}]}
    chat |= {name: body[name] for name in COPIED if body.get(name) is not None}
    chat["max_tokens"] = body.get("max_tokens") or DEFAULT_TOKENS
    if body.get("stop_sequences") is not None:
        chat["stop"] = body["stop_sequences"]
    if isinstance(body.get("tools"), list):
        chat["tools"] = [_tool(tool) for tool in _objects(body["tools"], "tools")]
    chat |= _tool_choice(body.get("tool_choice"))
    thinking = body.get("thinking")
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind == "enabled":
        chat["thinking_budget_tokens"] = thinking.get("budget_tokens", DEFAULT_THINKING_TOKENS)
    elif kind == "disabled":
        given = body.get("chat_template_kwargs")
        chat["chat_template_kwargs"] = {"enable_thinking": False, **(given if isinstance(given, dict) else {})}
    return chat


def _system(system: object) -> list[JsonObject]:
    if system is None:
        return []
    blocks = [{"type": "text", "text": system}] if isinstance(system, str) else _objects(system, "system")
    texts = (str(block.get("text", "")) for block in blocks if block.get("type") == "text")
    return [{"role": "system", "content": "".join(BILLING.sub(r"\1fffff", text) for text in texts)}]


def _messages(message: JsonObject) -> list[JsonObject]:
    """The messages of one: results of tools become messages of their own, after its text."""
    content = message.get("content")
    if not isinstance(content, list):
        return [] if content is None and message.get("role") == "assistant" else [message]
    parts: list[JsonObject] = []
    calls: list[JsonObject] = []
    results: list[JsonObject] = []
    thoughts = ""
    for block in _objects(content, "content"):
        match block.get("type"):
            case "text":
                parts.append({"type": "text", "text": block.get("text", "")})
            case "thinking":
                thoughts += str(block.get("thinking", ""))
            case "image":
                raise _no_images()
            case "tool_use":
                calls.append(_call(block))
            case "tool_result":
                results.append(_result(block))
    if not (parts or calls or thoughts):
        return results
    found: dict[str, object] = {"role": message.get("role"), "content": parts or ""}
    if calls:
        found["tool_calls"] = calls
    if thoughts:
        found["reasoning_content"] = thoughts
    return [found, *results]


def _call(block: JsonObject) -> JsonObject:
    arguments = json.dumps(block.get("input", {}), ensure_ascii=False)
    function = {"name": str(block.get("name", "")), "arguments": arguments}
    return {"id": str(block.get("id", "")), "type": "function", "function": function}


def _result(block: JsonObject) -> JsonObject:
    content = block.get("content")
    if isinstance(content, list):
        blocks = _objects(content, "content")
        if any(each.get("type") == "image" for each in blocks):
            raise _no_images()
        content = "".join(str(each.get("text", "")) for each in blocks if each.get("type") == "text")
    text = content if isinstance(content, str) else ""
    return {"role": "tool", "tool_call_id": str(block.get("tool_use_id", "")), "content": text}


def _tool(tool: JsonObject) -> JsonObject:
    function = {
        "name": tool.get("name", ""),
        "description": tool.get("description", ""),
        "parameters": tool.get("input_schema", {}),
    }
    return {"type": "function", "function": function}


def _tool_choice(choice: object) -> dict[str, object]:
    if not isinstance(choice, dict):
        return {}
    kinds = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}
    found: dict[str, object] = {}
    if (kind := kinds.get(str(choice.get("type")))) is not None:
        found["tool_choice"] = kind
    if choice.get("type") == "tool" and isinstance(choice.get("name"), str):
        found["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    if choice.get("disable_parallel_tool_use") is True:
        found["parallel_tool_calls"] = False
    return found


def _objects(value: object, name: str) -> list[JsonObject]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise invalid(f"'{name}' must be an array of objects")
    return value


def _no_images() -> RequestError:
    return RequestError(ErrorKind.SERVER, "image input is not supported; send text only")
