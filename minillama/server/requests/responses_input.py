"""Requests of OpenAI's responses API as requests of its chat completions.

Fields: https://platform.openai.com/docs/api-reference/responses/create. The conversion follows llama-server's.
Responses are not stored: a client sends the whole conversation each time.
"""

from collections.abc import Mapping

from minillama.server.http_errors import invalid

JsonObject = Mapping[str, object]
TEXT_TYPES = ("input_text", "output_text")


def responses_to_chat(body: JsonObject) -> dict[str, object]:
    """The chat request of a responses request; raises RequestError for wrong values."""
    if body.get("previous_response_id"):
        raise invalid("'previous_response_id' is not supported; send the whole conversation as 'input'")
    dropped = ("input", "instructions", "tools", "max_output_tokens", "reasoning")
    chat: dict[str, object] = {name: value for name, value in body.items() if name not in dropped}
    messages: list[dict[str, object]] = []
    if body.get("instructions") is not None:
        messages.append({"role": "system", "content": str(body["instructions"])})
    given = body.get("input")
    if isinstance(given, str):
        messages.append({"role": "user", "content": given})
    elif isinstance(given, list):
        for item in given:
            _add_item(messages, item)
    else:
        raise invalid("'input' is required" if given is None else "'input' must be a string or array of objects")
    chat["messages"] = messages
    if body.get("tools") is not None and (tools := _tools(body["tools"])):
        chat["tools"] = tools
    if body.get("max_output_tokens") is not None:
        chat["max_tokens"] = body["max_output_tokens"]
    reasoning = body.get("reasoning")
    if isinstance(reasoning, dict) and reasoning.get("effort") is not None:
        chat["reasoning_effort"] = reasoning["effort"]
    chat |= _text_format(body.get("text"))
    return chat


def _add_item(messages: list[dict[str, object]], item: object) -> None:
    """Add an item of the input; neighbours of the assistant are one message."""
    if not isinstance(item, dict):
        raise invalid("'input' must be a string or array of objects")
    kind, role = item.get("type"), item.get("role")
    if role in ("user", "system", "developer"):
        messages.append({"role": role, "content": _parts(item.get("content"), ("input_text",))})
    elif role == "assistant" and kind in (None, "message"):
        message = _assistant(messages)
        before = message["content"] if isinstance(message.get("content"), list) else []
        message["content"] = [*before, *_parts(item.get("content"), TEXT_TYPES)]  # type: ignore[misc]
    elif kind == "function_call":
        message = _assistant(messages)
        message["tool_calls"] = [*message.get("tool_calls", ()), _call(item)]  # type: ignore[misc]
        message.setdefault("content", "")
    elif kind == "function_call_output":
        output = item.get("output")
        content = output if isinstance(output, str) else _parts(output, ("input_text",))
        messages.append({"role": "tool", "tool_call_id": _call_id(item), "content": content})
    elif kind == "reasoning":
        message = _assistant(messages)
        message["reasoning_content"] = _thoughts(item)
        message.setdefault("content", [])
    else:
        raise invalid("Cannot determine type of 'item'")


def _assistant(messages: list[dict[str, object]]) -> dict[str, object]:
    """The last message if it is one of the assistant, else a new one."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant"})
    return messages[-1]


def _parts(content: object, types: tuple[str, ...]) -> list[JsonObject]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise invalid("'content' must be a string or array of objects")
    return [_part(part, types) for part in content]


def _part(part: object, types: tuple[str, ...]) -> JsonObject:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind not in (*types, "input_image", "refusal"):
        raise invalid(f"'type' of a content must be one of {', '.join(types)}, but is {kind!s:.60}")
    if kind == "input_image":
        return {"type": "image_url", "image_url": {"url": part.get("image_url")}}
    text = part.get("refusal" if kind == "refusal" else "text")
    if not isinstance(text, str):
        raise invalid(f"'{kind}' requires 'text'")
    return {"type": "text", "text": text}


def _call(item: JsonObject) -> JsonObject:
    name, arguments = item.get("name"), item.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, str):
        raise invalid("a function_call requires the strings 'call_id', 'name' and 'arguments'")
    return {"id": _call_id(item), "type": "function", "function": {"name": name, "arguments": arguments}}


def _call_id(item: JsonObject) -> str:
    """The id of a call, as the model's chat template wrote it."""
    value = item.get("call_id")
    if not isinstance(value, str):
        raise invalid("a function_call and its output require the string 'call_id'")
    return value.removeprefix("call_")


def _thoughts(item: JsonObject) -> str:
    content = item.get("content")
    first = content[0] if isinstance(content, list) and content else None
    text = first.get("text") if isinstance(first, dict) else None
    if not isinstance(text, str):
        raise invalid("the 'content' of a reasoning item must be an array with a text")
    return text


def _tools(tools: object) -> list[JsonObject]:
    """Functions in the form of chat completions; other tools are left out."""
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise invalid("'tools' must be an array of objects")
    functions = [tool for tool in tools if tool.get("type") == "function"]
    plain = [{name: value for name, value in function.items() if name != "type"} for function in functions]
    return [{"type": "function", "function": {"strict": True, **function}} for function in plain]


def _text_format(text: object) -> dict[str, object]:
    """`response_format` of the field `text.format`."""
    form = text.get("format") if isinstance(text, dict) else None
    if not isinstance(form, dict) or form.get("type") in (None, "text"):
        return {}
    if form.get("type") == "json_schema":
        return {"response_format": {"type": "json_schema", "json_schema": {"schema": form.get("schema", {})}}}
    return {"response_format": {"type": form["type"]}}
