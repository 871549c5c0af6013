"""Rules of one call in each of its forms.

The readers of the same names read all that they allow.
"""

import re

from minillama.engine.grammar.json_schema.gbnf_text import json_text, literal
from minillama.engine.grammar.json_schema.keywords import failure
from minillama.engine.grammar.tool_calls.call_rules import CallRules
from minillama.engine.grammar.tool_calls.function_tools import FunctionTool
from minillama.engine.grammar.tool_calls.tagged_arguments import tagged_arguments
from minillama.errors import OptionError, quoted
from minillama.tokenizer.chat.tool_calls.call_format import CallReader
from minillama.tokenizer.chat.tool_calls.gemma_calls import GemmaCalls
from minillama.tokenizer.chat.tool_calls.header_calls import HeaderCalls
from minillama.tokenizer.chat.tool_calls.json_calls import JsonCalls
from minillama.tokenizer.chat.tool_calls.python_calls import PythonCalls
from minillama.tokenizer.chat.tool_calls.tagged_calls import TaggedCalls

PLAIN_NAME = re.compile(r"[\w.$@/-]{1,256}", re.ASCII)
PYTHON_KEY = re.compile(r"[A-Za-z_]\w*", re.ASCII)
COMMA = ' "," space '
ANY_PYTHON_KEY = "[a-zA-Z_] [a-zA-Z0-9_]{0,63}"


def write_call(rules: CallRules, reader: CallReader, tool: FunctionTool, name: str) -> str:
    """The expression of a call of a function; its rules begin with `name`.

    Raises OptionError for a schema that cannot be kept, or a name that the format cannot write.
    """
    if isinstance(reader, JsonCalls):
        return _json_call(rules, reader, tool, name)
    if not PLAIN_NAME.fullmatch(tool.name):
        raise OptionError(f"this model cannot write the name {quoted(tool.name)}; use letters, digits, _ and -")
    if isinstance(reader, HeaderCalls):
        return _header_call(rules, reader, tool, name)
    if isinstance(reader, TaggedCalls):
        return _tagged_call(rules, reader, tool, name)
    if isinstance(reader, PythonCalls):
        return f'{literal(tool.name)} "(" {_python_arguments(rules, tool, name)} ")"'
    assert isinstance(reader, GemmaCalls)
    return f'"call:" {literal(tool.name)} {rules.add_object(tool.parameters, name)}'


def _json_call(rules: CallRules, reader: JsonCalls, tool: FunctionTool, name: str) -> str:
    def member(key: str, value: str) -> str:
        return f'{literal(json_text(key))} space ":" space {value}'

    name_key, arguments_key = reader.keys
    members = [member(name_key, literal(json_text(tool.name))),
               member(arguments_key, rules.add_object(tool.parameters, name))]  # fmt: skip
    if reader.id_gbnf:
        place = 0 if reader.is_id_first else len(members)
        members.insert(place, member(reader.id_key, f'"\\"" {reader.id_gbnf} "\\""'))
    return '"{" space ' + ' space "," space '.join(members) + ' space "}"'


def _header_call(rules: CallRules, reader: HeaderCalls, tool: FunctionTool, name: str) -> str:
    after = " | ".join(map(rules.exact, reader.after_names))
    call_id = f"{reader.id_gbnf} {rules.exact(reader.before_arguments)}" if reader.id_gbnf else ""
    return f"{literal(tool.name)} ({after}) {call_id} {rules.add_object(tool.parameters, name)}"


def _tagged_call(rules: CallRules, reader: TaggedCalls, tool: FunctionTool, name: str) -> str:
    before, (after, *_) = reader.name
    arguments = tagged_arguments(rules, reader, tool, name)
    begin = f"{rules.exact(before)} {literal(tool.name)} {rules.tag(after)} {rules.line()}"
    return f"{begin} {arguments} {rules.exact(reader.call_end)}"


def _python_arguments(rules: CallRules, tool: FunctionTool, name: str) -> str:
    """Keyword arguments: required ones in order, then any of the others in order."""
    described, others = rules.object_parts(tool.parameters, name)
    if not described and others is not False:
        value = rules.visit({} if others is True else others, f"{name}-value", "#/additionalProperties")
        argument = f'{ANY_PYTHON_KEY} "=" {value}'
        return f'({argument} ("," space {argument})*)?'
    pairs: dict[str, str] = {}
    for place, one in enumerate(described):
        if not PYTHON_KEY.fullmatch(one.name):
            raise failure(one.path, f"this model cannot write the argument {quoted(one.name)}; rename it")
        value = rules.visit(one.schema, f"{name}-{place}", one.path)
        pairs[one.name] = rules.add(f"{name}-{place}-pair", f"{literal(one.name + '=')} {value}")
    required = [pairs[one.name] for one in described if one.required]
    optional = [pairs[one.name] for one in described if not one.required]
    rests = [""]  # the arguments that may follow each place, from the last one back
    for place in reversed(range(len(optional))):
        rest = f'("," space {optional[place]})? {rests[0]}'
        rests.insert(0, rules.add(f"{name}-rest-{place}", rest))
    if required:
        return f"{COMMA.join(required)} {rests[0]}"
    starts = " | ".join(f"{pair} {rest}" for pair, rest in zip(optional, rests[1:], strict=True))
    return f"({starts})?" if starts else ""
