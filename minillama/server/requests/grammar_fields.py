"""The form of an answer: the fields grammar, json_schema, response_format and grammar_triggers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from minillama.server.http_errors import invalid

if TYPE_CHECKING:
    from minillama.engine.grammar import GrammarState, LazyState, Triggers
    from minillama.engine.llm import LLM

TOKEN, WORD, PATTERN, WHOLE_PATTERN = range(4)  # llama.cpp's types of triggers


def read_grammar(body: Mapping[str, object], llm: "LLM") -> "tuple[str, GrammarState | LazyState | None]":
    """The grammar in GBNF and its first state; "" and None without one.

    Raises RequestError or OptionError for a grammar or schema that cannot be kept.
    """
    grammar, schema = body.get("grammar"), _schema(body)
    if grammar not in (None, "") and schema is not None:
        raise invalid("Cannot use both json_schema and grammar")
    if grammar in (None, "") and schema is None:
        return "", None
    triggers = _triggers(body) if body.get("grammar_lazy") else None
    if grammar in (None, ""):
        from minillama.engine.grammar.json_schema.schema_grammar import schema_to_gbnf

        grammar = schema_to_gbnf(schema)
    elif not isinstance(grammar, str):
        raise invalid("Field 'grammar': type must be string")
    compiled = llm.requests.grammars.compile(grammar, triggers=triggers)
    assert compiled is not None
    return grammar, compiled.start()


def _schema(body: Mapping[str, object]) -> object:
    """The JSON schema of the fields json_schema and response_format; an empty one means any object."""
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


def _triggers(body: Mapping[str, object]) -> "Triggers":
    """The triggers of a lazy grammar."""
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
