"""Chat templates: programs of a grammar, rendered with bounds and compared with a plain sandbox."""

import random
import re
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from transformers_jinja import transformers_environment

from minillama.errors import MinillamaError
from minillama.tokenizer.chat import ChatTemplate, chat_template, template_process
from tests.fuzz.case_kind import Finding, Kind, Late
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
        self._plain = transformers_environment()
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
            raise Late(f"{seconds:.1f} s of the clock; at most {limits.seconds} s")
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
            kind = Late if "was stopped after" in str(refusal) else Finding
            raise kind(f"refused, but a plain sandbox gives {expected!r:.300}: {refusal}")
        if _ADDRESS.sub("at", text) != _ADDRESS.sub("at", expected):
            raise Finding(f"{text!r:.300}, but a plain sandbox gives {expected!r:.300}")


_ADDRESS = re.compile(r"at 0x[0-9a-f]+")  # of an object that is written as text


KIND = TemplateKind
