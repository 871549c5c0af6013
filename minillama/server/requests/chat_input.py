"""Messages of a chat request, checked and rendered to a prompt."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from minillama.server.http_errors import invalid, not_supported
from minillama.server.requests.constraints.answer_constraint import ChatShape
from minillama.server.requests.constraints.tool_choice import read_tool_choice
from minillama.server.requests.fields import json_type, read_flag, wrong_type
from minillama.server.requests.generation_request import ChatFormat, shown_format
from minillama.server.requests.prompt_input import text_of
from minillama.server.settings import ChatSettings
from minillama.tokenizer.chat.reasoning_format import REASONING_FORMATS
from minillama.tokenizer.chat.tool_calls.call_splitter import CallSplitter, parameter_schemas

if TYPE_CHECKING:
    from minillama.tokenizer import ChatTemplate

Message = dict[str, object]
MOST_MESSAGES = 10_000


@dataclass(frozen=True)
class ChatInput:
    """A rendered conversation: prompt, form and shape of the answer, and fields of the completion."""

    prompt: str
    format: ChatFormat
    shape: ChatShape
    fields: Mapping[str, object]


def read_chat(body: Mapping[str, object], template: "ChatTemplate", settings: ChatSettings) -> ChatInput:
    """Render the messages of a request; raises RequestError for wrong ones.

    A last message of the assistant is continued: it is not rendered, but ends the prompt.
    """
    messages = read_messages(body.get("messages"))
    choice = read_tool_choice(body, settings)
    add_prompt = body.get("add_generation_prompt") is not False
    continued = _continued(body, messages, settings)
    variables = _variables(body, settings) | _function_texts(choice.tools, template)
    if continued is not None:
        messages, add_prompt = messages[:-1], True
    adapted = template.adapt(messages)
    rendered = template.render(adapted, add_generation_prompt=add_prompt, tools=choice.tools or None, extra=variables)
    prompt = text_of(rendered) + (continued or "")
    may_think = continued is None and variables.get("enable_thinking") is not False
    shape = ChatShape(template.thoughts(prompt, may_think=may_think), choice, template.call_format)
    return ChatInput(prompt, _format(body, template, prompt, settings, shape), shape, _fields(body))


def read_messages(value: object) -> list[Message]:
    """Messages with a role and a content.

    Raises RequestError for others, and for images and sound.
    """
    if value is None:
        raise invalid("'messages' is required")
    if not isinstance(value, list):
        raise invalid("Expected 'messages' to be an array")
    if not 0 < len(value) <= MOST_MESSAGES:
        raise invalid(f"'messages' has {len(value)} messages; give 1 to {MOST_MESSAGES}")
    return [_message(each) for each in value]


def message_text(message: Message, delimiter: str) -> str:
    """The content of a message, its text parts joined."""
    content = message.get("content")
    if isinstance(content, list):
        return delimiter.join(str(part["text"]) for part in content)
    return str(content or "")


def _message(message: object) -> Message:
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(message, dict) or (role != "assistant" and "content" not in message):
        raise invalid("All non-assistant messages must contain 'content'")
    if "content" not in message and "tool_calls" not in message:
        raise invalid("Assistant message must contain either 'content' or 'tool_calls'!")
    if not isinstance(role, str) or not role:
        raise invalid(f"Failed to parse messages: 'role' must be a string, but is {json_type(role)}")
    content = message.get("content")
    if isinstance(content, list):
        for part in content:
            _check_part(part)
    elif content is not None and not isinstance(content, str):
        raise invalid("Expected 'content' to be a string or an array")
    return message


def _check_part(part: object) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("image_url", "input_audio", "input_video"):
        raise not_supported(f"{kind} input is not supported; only text is")
    if kind != "text" or not isinstance(part, dict) or not isinstance(part.get("text"), str):
        raise invalid("unsupported content[].type")


def _continued(body: Mapping[str, object], messages: list[Message], settings: ChatSettings) -> str | None:
    """The text of a last message that the answer goes on with, or None."""
    wanted = body.get("continue_final_message")
    is_wanted = wanted is True or wanted in ("content", "reasoning_content")
    is_answer = messages[-1]["role"] == "assistant"
    if not is_wanted and settings.prefill_assistant and is_answer:
        if len(messages) > 1 and messages[-2]["role"] == "assistant":
            raise invalid("Cannot have 2 or more assistant messages at the end of the list.")
        is_wanted = True
    elif is_wanted and body.get("add_generation_prompt", True) is not False:
        raise invalid("Cannot set both add_generation_prompt and continue_final_message to true.")
    if not is_wanted:
        return None
    if not is_answer or len(messages) < 2:
        raise invalid("continue_final_message needs a last message of the assistant, and one before it")
    if messages[-1].get("tool_calls"):
        raise invalid("Cannot continue an assistant message that contains tool calls.")
    return text_of(message_text(messages[-1], "\n\n"))


def _variables(body: Mapping[str, object], settings: ChatSettings) -> dict[str, object]:
    """Variables of the template: today, those of the command, those of the request."""
    now = datetime.now()
    today = {"date_string": now.strftime("%d %b %Y"), "datetime": now.strftime("%b %d %Y")}
    given = body.get("chat_template_kwargs")
    if given is not None and not isinstance(given, dict):
        raise wrong_type("chat_template_kwargs", "object", given)
    variables = {**today, "enable_thinking": True, **settings.template_variables, **(given or {})}
    if isinstance(variables.get("enable_thinking"), str):
        raise invalid('invalid type for "enable_thinking" (expected boolean, got string)')
    effort = body.get("reasoning_effort")
    if effort == "none":
        variables.pop("reasoning_effort", None)
        variables["enable_thinking"] = False
    elif isinstance(effort, str) and effort:
        variables["reasoning_effort"] = effort
    return variables


def _function_texts(tools: list[object], template: "ChatTemplate") -> dict[str, object]:
    """The tools as JSON text, where the template has the variable `functions`."""
    if "functions" not in template.source:
        return {}
    return {"functions": json.dumps(tools, indent=2, ensure_ascii=False) if tools else ""}


def _format(
    body: Mapping[str, object], template: "ChatTemplate", prompt: str, settings: ChatSettings, shape: ChatShape
) -> ChatFormat:
    wanted = body.get("reasoning_format", settings.reasoning_format)
    if wanted not in REASONING_FORMATS:
        raise invalid(f"Unknown reasoning format: {wanted!s:.60}")
    reasoning_format = str(wanted)
    calls = shape.calls if shape.choice.may_call else None
    most = None if shape.choice.is_parallel else 1
    schemas = parameter_schemas(shape.choice.tools)
    return ChatFormat(
        splitter=lambda: template.answer_splitter(prompt, reasoning_format, calls),
        calls=None if calls is None else lambda: CallSplitter(calls, schemas, most),
        reasoning_format=shown_format(reasoning_format),
    )


def _fields(body: Mapping[str, object]) -> dict[str, object]:
    """The fields of the completion; a chat has a flag `logprobs` and a count `top_logprobs`."""
    fields = dict(body)
    is_wanted = read_flag(body, "logprobs", False)
    fields.pop("logprobs", None)
    if is_wanted:
        if body.get("tools") and body.get("stream"):
            raise invalid("logprobs is not supported with tools + stream")
        fields["n_probs"] = 20 if body.get("top_logprobs") is None else body["top_logprobs"]
    elif body.get("top_logprobs") is not None:
        raise invalid("top_logprobs requires logprobs to be set to true")
    return fields
