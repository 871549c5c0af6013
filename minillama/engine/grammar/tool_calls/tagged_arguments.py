"""Rules of arguments between tags: plain text for strings, JSON for other types."""

from collections.abc import Mapping, Sequence

from minillama.engine.grammar.json_schema.gbnf_text import literal, repeated
from minillama.engine.grammar.json_schema.keywords import Schema, check_keywords, check_typed, failure
from minillama.engine.grammar.json_schema.object_rule import ObjectProperty
from minillama.engine.grammar.json_schema.primitive_rules import PRIMITIVE_RULES
from minillama.engine.grammar.json_schema.string_limits import string_limits
from minillama.engine.grammar.json_schema.string_patterns import text_pattern
from minillama.engine.grammar.tool_calls.call_rules import CallRules
from minillama.engine.grammar.tool_calls.function_tools import FunctionTool
from minillama.errors import quoted
from minillama.tokenizer.chat.tool_calls.tagged_calls import CDATA, IS_JSON, IS_TEXT, TaggedCalls, is_text

ANY_KEY = "[a-zA-Z0-9_-]{1,64}"


def tagged_arguments(rules: CallRules, reader: TaggedCalls, tool: FunctionTool, name: str) -> str:
    """The expression of all arguments: required ones in order, then others in order."""
    described, others = rules.object_parts(tool.parameters, name)
    if not described and others is not False:
        if others in (True, {}):
            return f"({_argument(rules, reader, ANY_KEY, _free_text(rules, reader), is_text=True)})*"
        value = _json_value(rules, reader, others, f"{name}-value", "#/additionalProperties")
        return f"({_argument(rules, reader, ANY_KEY, value, is_text=False)})*"
    ordered = sorted(described, key=lambda one: not one.required)
    return " ".join(_described(rules, reader, one, f"{name}-{place}") for place, one in enumerate(ordered))


def _described(rules: CallRules, reader: TaggedCalls, one: ObjectProperty, name: str) -> str:
    """The argument of a property."""
    if one.name != one.name.strip() or "\n" in one.name or reader.argument[1] in one.name or not one.name:
        raise failure(one.path, f"this model cannot write the argument {quoted(one.name)}; rename it")
    has_text = is_text(one.schema)
    if has_text:
        assert isinstance(one.schema, Mapping)
        value = _text_value(rules, reader, one.schema, one.path)
    else:
        value = _json_value(rules, reader, one.schema, name, one.path)
    rule = rules.add(name, _argument(rules, reader, literal(one.name), value, is_text=has_text))
    return rule if one.required else f"{rule}?"


def _argument(rules: CallRules, reader: TaggedCalls, key: str, value: str, *, is_text: bool) -> str:
    """A key and a value; the value ends with its tag."""
    before_key, after_key, before_value = reader.argument
    attribute = (IS_TEXT if is_text else IS_JSON) if reader.states_text else ""
    between = rules.tag(after_key + attribute)
    if before_value:
        between += f" {rules.line()} {rules.exact(before_value)}"
    return f"{rules.exact(before_key)} {key} {between} {value} {rules.line()}"


def _json_value(rules: CallRules, reader: TaggedCalls, schema: object, name: str, path: str) -> str:
    value = rules.visit(schema, f"{name}-value", path)
    line = rules.line()
    return f"{line} {value} {line} {rules.exact(reader.value_end)}"


def _free_text(rules: CallRules, reader: TaggedCalls) -> str:
    """Any text, up to the tag."""
    if not reader.cdata:
        return rules.until("text", (reader.value_end,))
    section = rules.until("section", (CDATA[1] + reader.value_end,))
    return f"({literal(CDATA[0])} {section} | [^<&\\n]* {rules.exact(reader.value_end)})"


def _text_value(rules: CallRules, reader: TaggedCalls, schema: Schema, path: str) -> str:
    """A text that the schema of a string allows, and the tag.

    Where values have their own lines, blank lines around it belong to it.
    """
    bound = _bound_text(rules, reader, schema, path)
    if bound is None:
        return _free_text(rules, reader)
    line = '"\\n"' if reader.lines else ""
    return f"{line} ({bound}) {line} {rules.exact(reader.value_end)}"


def _bound_text(rules: CallRules, reader: TaggedCalls, schema: Schema, path: str) -> str | None:
    """The texts of a string's schema; None for all texts.

    They have no `<`, where a tag may begin, unless the schema lists them.
    """
    if "const" in schema or "enum" in schema:
        check_keywords(schema, {"const", "enum", "format"}, path)
        return _listed(reader, [schema["const"]] if "const" in schema else schema["enum"], path)
    check_typed(schema, "string", path)
    limits = string_limits(schema, path)
    if limits.pattern is not None:
        return text_pattern(limits.pattern, path)
    if limits.rule is not None:
        return _format_text(rules, limits.rule)
    return repeated("[^<]", limits.least, limits.most) or '""' if limits.has_length else None


def _format_text(rules: CallRules, name: str) -> str:
    """A format of strings without its quotation marks."""
    if name == "uuid":
        return PRIMITIVE_RULES[name][0].replace('"\\""', "").strip()
    return rules.primitive(name.removesuffix("-string"))


def _listed(reader: TaggedCalls, values: object, path: str) -> str:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise failure(path, "enum is not a list of values")
    texts = [value for value in values if isinstance(value, str) and reader.value_end not in value]
    if not texts:
        raise failure(path, "this model can write none of the values; give one that is a text")
    return " | ".join(literal(value) if value else '""' for value in texts)
