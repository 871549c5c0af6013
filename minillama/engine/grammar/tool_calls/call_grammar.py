"""The grammar of an answer that calls functions, in the model's own form."""

from collections.abc import Sequence
from dataclasses import dataclass

from minillama.engine.grammar.json_schema.notation import GEMMA, JSON
from minillama.engine.grammar.tool_calls.call_rules import CallRules
from minillama.engine.grammar.tool_calls.call_writers import write_call
from minillama.engine.grammar.tool_calls.function_tools import FunctionTool
from minillama.engine.grammar.tool_calls.thought_rules import write_thoughts
from minillama.engine.grammar.triggers import Triggers
from minillama.errors import OptionError, quoted
from minillama.tokenizer import Tokenizer
from minillama.tokenizer.chat.prompt_thoughts import PromptThoughts
from minillama.tokenizer.chat.tool_calls.call_format import CallFormat
from minillama.tokenizer.chat.tool_calls.gemma_calls import GemmaCalls
from minillama.tokenizer.chat.tool_calls.json_calls import JsonCalls
from minillama.tokenizer.chat.tool_calls.python_calls import PythonCalls
from minillama.tokenizer.chat.tool_calls.tagged_calls import TaggedCalls

TRIGGER_BYTES = 200  # that a trigger's expression looks back


@dataclass(frozen=True)
class CallGrammar:
    """A grammar in GBNF; with triggers, the text before a call is free."""

    gbnf: str
    triggers: Triggers | None = None


@dataclass(frozen=True)
class CallGrammarWriter:
    """Writes grammars of calls for one model.

    form: of its calls. is_parallel: whether an answer may have more than one call.
    """

    tokenizer: Tokenizer
    form: CallFormat
    is_parallel: bool = True

    def required(self, tools: Sequence[FunctionTool], thoughts: PromptThoughts | None) -> CallGrammar:
        """An answer is thoughts, where they are possible, then calls.

        Raises OptionError for a schema that cannot be kept.
        """
        rules = self._new_rules()
        calls = self._calls(rules, tools, is_loose=False)
        begin = rules.exact(self.form.spelling.begin) if self.form.trigger else ""
        rules.add("root", f"{write_thoughts(rules, thoughts, self.form.ends_thoughts)} {begin} {calls}")
        return CallGrammar(rules.text())

    def optional(self, tools: Sequence[FunctionTool]) -> CallGrammar | None:
        """A call fits from its first tag on; None for a form without tags.

        A schema that cannot be kept allows any arguments, unless the function is strict: then OptionError.
        """
        triggers = self._triggers()
        if triggers is None:
            return None
        rules = self._new_rules()
        rules.add("root", self._calls(rules, tools, is_loose=True))
        return CallGrammar(rules.text(), triggers)

    def _new_rules(self) -> CallRules:
        return CallRules(self.tokenizer, GEMMA if isinstance(self.form.readers[0], GemmaCalls) else JSON)

    def _calls(self, rules: CallRules, tools: Sequence[FunctionTool], *, is_loose: bool) -> str:
        """The expression of all calls, with the texts around them."""
        if not tools:
            raise OptionError("there is no function to call; give one in tools")
        spelling, reader = self.form.spelling, self.form.readers[0]
        names = [_rule_of(rules, self.form, tool, f"call-{i}", is_loose) for i, tool in enumerate(tools)]
        each = f"{rules.tag(spelling.before)} ({' | '.join(names)}) {rules.tag(spelling.after)}"
        is_list = (isinstance(reader, JsonCalls) and reader.is_array) or (
            isinstance(reader, PythonCalls) and reader.is_list
        )
        between = '"," space' if is_list else rules.tag(spelling.between)
        more = f"({between} {each})*" if self.is_parallel and not self.form.is_single else ""
        calls = f'"[" space {each} {more} space "]"' if is_list else f"{each} {more}"
        begin = "" if self.form.trigger else rules.tag(spelling.begin)
        return f"{begin} {calls} {rules.tag(spelling.end)}"

    def _triggers(self) -> Triggers | None:
        form, reader = self.form, self.form.readers[0]
        if form.trigger:
            return Triggers(patterns=(form.trigger,), looks_back=TRIGGER_BYTES, before=form.prompt_end, must_fit=False)
        first = form.spelling.begin or form.spelling.before
        if not first and isinstance(reader, TaggedCalls):
            first = reader.name[0]
        if not first:
            return None
        return Triggers(words=(first.strip(),), must_fit=False, in_thoughts=bool(form.ends_thoughts))


def _rule_of(rules: CallRules, form: CallFormat, tool: FunctionTool, name: str, is_loose: bool) -> str:
    """The rule of a call of one function."""
    reader = form.readers[0]
    try:
        return rules.add(name, write_call(rules, reader, tool, f"{name}-arguments"))
    except OptionError as error:
        if is_loose and not tool.is_strict:
            return rules.add(name, write_call(rules, reader, tool.loosened(), f"{name}-any"))
        raise OptionError(f"function {quoted(tool.name)}: {error}") from None
