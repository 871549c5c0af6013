"""Chat templates: programs of a grammar, rendered with bounds and compared with a plain sandbox."""

import json
import random
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import jinja2
import jinja2.ext
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from minillama.errors import MinillamaError
from minillama.tokenizer.chat import ChatTemplate, chat_template, template_process
from tests.fuzz.case_kind import Finding, Kind
from tests.fuzz.template_grammar import Grammar

MESSAGES = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello <b>& 'you'"},
    {"role": "assistant", "content": "Hi\n"},
    {"role": "user", "content": "12345 é 日本語"},
)
TOOLS = ({"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}},)
STOPPED = template_process.Limits(seconds=0.3, megabytes=256)  # for hostile templates, to try many
FINISHED = template_process.Limits(seconds=30.0)  # for the others, on a busy machine
MAX_LATE = 5.0  # seconds after the limit until a template has stopped
HOSTILE = 0.25  # of the templates


@dataclass(frozen=True)
class Program:
    """A template. hostile: it may do unbounded work, so that only bounds are checked."""

    source: str
    hostile: bool
    with_tools: bool


class TemplateKind(Kind[Program]):
    """Templates that come with a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._plain = _plain_environment()
        self._processes = {
            True: template_process.TemplateProcess(STOPPED),
            False: template_process.TemplateProcess(FINISHED),
        }

    def make(self, rng: random.Random) -> Program:
        hostile = rng.random() < HOSTILE
        return Program(Grammar(rng, hostile).program(), hostile, rng.random() < 0.3)

    def run(self, given: Program) -> str:
        template, tools = ChatTemplate(given.source, "<s>", "</s>"), list(TOOLS) if given.with_tools else None
        chat_template.SHARED = self._processes[given.hostile]
        limits = chat_template.SHARED.limits
        started = time.monotonic()
        text, refusal = None, None
        try:
            text = template.render(list(MESSAGES), tools=tools)
        except MinillamaError as error:
            refusal = error
        seconds = time.monotonic() - started
        if seconds > limits.seconds + MAX_LATE:
            raise Finding(f"{seconds:.1f} s of the clock; at most {limits.seconds} s")
        if text is not None and len(text) > limits.characters:
            raise Finding(f"a prompt of {len(text)} characters")
        if not given.hostile:
            self._compare(given.source, tools, text, refusal)
        if refusal is not None:
            raise refusal
        return "rendered"

    def files(self, given: Program) -> dict[str, bytes]:
        return {"template.jinja": given.source.encode("utf-8", "surrogatepass")}

    def close(self) -> None:
        for process in self._processes.values():
            process.stop()

    def _compare(self, source: str, tools: object, text: str | None, refusal: MinillamaError | None) -> None:
        """What a plain sandbox renders is the same here, and what it refuses is refused."""
        variables = {"messages": list(MESSAGES), "tools": tools, "bos_token": "<s>", "eos_token": "</s>"}
        try:
            with warnings.catch_warnings(action="ignore"):  # of Python's compiler
                expected = self._plain.from_string(source).render(variables, documents=None, add_generation_prompt=True)
        except Exception as error:
            if text is not None:
                raise Finding(f"{text!r:.300}, but a plain sandbox refuses it: {error}") from None
            return
        if text is None:
            raise Finding(f"refused, but a plain sandbox gives {expected!r:.300}: {refusal}")
        if _ADDRESS.sub("at", text) != _ADDRESS.sub("at", expected):
            raise Finding(f"{text!r:.300}, but a plain sandbox gives {expected!r:.300}")


_ADDRESS = re.compile(r"at 0x[0-9a-f]+")  # of an object that is written as text


def _plain_environment() -> jinja2.Environment:
    """The environment of transformers, without limits."""
    plain = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    plain.filters["tojson"] = _tojson
    plain.globals |= {"raise_exception": _raise_exception, "strftime_now": lambda form: datetime.now().strftime(form)}
    return plain


class _Generation(Extension):
    """The tag `{% generation %}`: a call block, as in transformers, so with a scope of its own."""

    tags = frozenset({"generation"})

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_contents"), [], [], body).set_lineno(line)

    def _contents(self, caller: Callable[[], str]) -> str:
        return caller()


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


KIND = TemplateKind
