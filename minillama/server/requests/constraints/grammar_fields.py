"""The form of an answer: the fields grammar, json_schema, response_format and grammar_triggers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from minillama.server.http_errors import invalid

if TYPE_CHECKING:
    from minillama.engine.grammar import Triggers

TOKEN, WORD, PATTERN, WHOLE_PATTERN = range(4)  # llama.cpp's types of triggers


def read_schema(body: Mapping[str, object]) -> object:
    """The JSON schema of the fields json_schema and response_format; an empty one means any object.

    None without one; raises RequestError for an unknown type."""
    schema, wanted = body.get("json_schema"), body.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_object" and (wanted.get("schema") is not None or schema is None):
        schema = wanted.get("schema") or {}
    elif kind == "json_schema":
        wrapper = wanted.get("json_schema")
        schema = (wrapper.get("schema") if isinstance(wrapper, dict) else None) or {}
    elif kind not in (None, "", "text", "json_object"):
        raise invalid(f'response_format type must be one of "text" or "json_object", but got: {kind!s:.60}')
    return {"type": "object"} if schema == {} else schema


def read_triggers(body: Mapping[str, object]) -> "Triggers | None":
    """The triggers of a grammar where the field grammar_lazy is set."""
    if not body.get("grammar_lazy"):
        return None
    from minillama.engine.grammar import Triggers

    words, patterns, tokens = [], [], []
    given = body.get("grammar_triggers") or []
    if not isinstance(given, list) or not all(isinstance(trigger, dict) for trigger in given):
        raise invalid("Field 'grammar_triggers': type must be array of objects")
    for trigger in given:
        kind, value, token = trigger.get("type"), trigger.get("value"), trigger.get("token")
        if kind == TOKEN and isinstance(token, int):
            tokens.append(token)
        elif kind == WORD and isinstance(value, str):
            words.append(value)
        elif kind in (PATTERN, WHOLE_PATTERN) and isinstance(value, str):
            patterns.append(value if kind == PATTERN else f"^(?:{value.removeprefix('^').removesuffix('$')})$")
        else:
            raise invalid(f"Field 'grammar_triggers': unknown trigger {trigger!s:.60}")
    return Triggers(words, patterns, tokens)
