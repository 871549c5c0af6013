"""Sandboxed Jinja for untrusted chat templates, with limits on work and memory.

Includes Hugging Face's extensions for chat templates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from minillama.tokenizer.chat.template_limits import (
    CHARACTERS,
    CHARGED_FILTERS,
    charge_call,
    charge_concat,
    charge_loop,
    charge_operator,
    charge_output,
    rendering_budget,
)

MAX_SOURCE = 500_000  # characters


class TemplateError(Exception):
    """Failed rendering; the message continues the template's name: `failed in line 3: ...`."""


class RaisedByTemplate(jinja2.TemplateError):
    """Error raised by the template's own `raise_exception`."""


@dataclass(frozen=True, eq=False)
class Template:
    """A compiled template."""

    program: jinja2.Template
    characters: int

    def render(self, variables: Mapping[str, object]) -> str:
        """Render to text; TemplateError if the template fails, rejects the messages or does too much."""
        try:
            with rendering_budget(self.characters):
                return self.program.render(variables)
        except RaisedByTemplate as error:
            raise TemplateError(f"refuses these messages: {error.message}") from error
        except RecursionError as error:
            raise TemplateError("failed: it calls itself without end") from error
        except Exception as error:  # a template can raise any exception
            reason = str(error) or type(error).__name__
            raise TemplateError(f"failed in line {_line(error)}: {reason}") from error


def compile_template(source: str) -> Template:
    """Compile a template; TemplateError if the source is invalid or too long."""
    if len(source) > MAX_SOURCE:
        raise TemplateError(f"has {len(source)} characters, more than {MAX_SOURCE}")
    try:
        tree = ENVIRONMENT.parse(source)
        for loop in tree.find_all(nodes.For):
            text = sum(len(part.data) for part in loop.find_all(nodes.TemplateData))
            weight = nodes.Const(1 + text // CHARACTERS)
            loop.iter = nodes.Filter(loop.iter, "_charge_loop", [weight], [], None, None, lineno=loop.lineno)
        code = ENVIRONMENT.compile(_without_concat(tree))
        return Template(jinja2.Template.from_code(ENVIRONMENT, code, ENVIRONMENT.make_globals(None)), len(source))
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"is broken in line {error.lineno}: {error.message}") from error
    except RecursionError as error:
        raise TemplateError("is nested too deeply") from error


def _without_concat(node: nodes.Node) -> nodes.Node:
    """Replace `a ~ b` by a filter over [a, b], which checks the lengths first."""
    for name, value in node.iter_fields():
        if isinstance(value, nodes.Node):
            setattr(node, name, _without_concat(value))
        elif isinstance(value, list):
            value[:] = [_without_concat(item) if isinstance(item, nodes.Node) else item for item in value]
    if isinstance(node, nodes.Concat):
        listed = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(listed, "_charge_concat", [], [], None, None, lineno=node.lineno)
    return node


class _GenerationTag(Extension):
    """The tag `{% generation %}`, a mark for training; only its contents are rendered."""

    tags = frozenset({"generation"})

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with a charge for operators and calls."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        charge_operator(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, called: object, *arguments: object, **named: object) -> object:
        arguments = charge_call(called, arguments, macro=isinstance(called, Macro | LoopContext))
        return super().call(context, called, *arguments, **named)


def _raise_exception(message: str) -> None:
    raise RaisedByTemplate(str(message))


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format[:200])


def _line(error: BaseException) -> int:
    """Line of the template that raised the exception."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationTag, "jinja2.ext.loopcontrols"],
        finalize=charge_output,
    )
    environment.filters = {**CHARGED_FILTERS, "_charge_loop": charge_loop, "_charge_concat": charge_concat}
    del environment.globals["lipsum"]
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    return environment


ENVIRONMENT = _environment()
