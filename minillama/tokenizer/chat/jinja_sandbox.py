"""Jinja for untrusted chat templates: the environment of transformers, in Jinja's immutable sandbox.

It bounds the length of a text, but neither time nor memory; `template_child.py` does. It imports nothing but jinja2.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class TemplateError(Exception):
    """A failed rendering; the message continues the template's name: `failed in line 3: ...`."""


class RaisedByTemplate(jinja2.TemplateError):
    """Error raised by the template's own `raise_exception`."""


def render(source: str, variables: Mapping[str, object], most_characters: int) -> str:
    """Render a template to text.

    Raises TemplateError if the template is broken, fails, rejects the messages or writes too much; MemoryError.
    """
    pieces, characters = [], 0
    try:
        for piece in compile_template(source).generate(variables):
            characters += len(piece)
            if characters > most_characters:
                raise TemplateError(f"writes more than {most_characters} characters")
            pieces.append(piece)
    except (TemplateError, MemoryError):
        raise
    except RaisedByTemplate as error:
        raise TemplateError(f"refuses these messages: {error.message}") from error
    except RecursionError as error:
        raise TemplateError("failed: it calls itself without end, or a value is nested too deeply") from error
    except Exception as error:  # a template can raise any exception
        raise TemplateError(f"failed in line {_line(error)}: {_reason(error)}") from error
    return "".join(pieces)


@lru_cache(maxsize=4)
def compile_template(source: str) -> jinja2.Template:
    """Compile a template; TemplateError if the source is invalid, MemoryError."""
    try:
        return ENVIRONMENT.from_string(source)
    except MemoryError:
        raise
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"is broken in line {error.lineno}: {error.message}") from error
    except RecursionError as error:
        raise TemplateError("is nested too deeply") from error
    except Exception as error:  # Python compiles what Jinja writes, and has limits of its own
        raise TemplateError(f"is broken: {_reason(error)}") from error


class GenerationTag(Extension):
    """The block `{% generation %}`, a mark for training; as in transformers, its variables are local."""

    tags = frozenset({"generation"})

    def parse(self, parser: Parser) -> nodes.Node:
        """The contents, as the body of a call."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_contents"), [], [], body).set_lineno(line)

    def _contents(self, caller: Callable[[], str]) -> str:
        return caller()


def _raise_exception(message: str) -> None:
    raise RaisedByTemplate(str(message))


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON with all characters; Jinja's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _reason(error: BaseException) -> str:
    """Message of an exception without the place in Jinja's Python code."""
    return (error.msg if isinstance(error, SyntaxError) else str(error)) or type(error).__name__


def _line(error: BaseException) -> int:
    """Line of the template that raised the exception."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    return environment


ENVIRONMENT = _environment()
