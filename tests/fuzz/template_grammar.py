"""Random Jinja programs: statements, expressions, filters, methods; harmless ones, or of unbounded work."""

import random

from tests.fuzz import hostile_values

FILTERS = (
    "trim", "upper", "lower", "length", "list", "first", "last", "join", "string", "tojson", "sort", "unique",
    "reverse", "title", "capitalize", "int", "float", "abs", "sum", "max", "min", "items", "dictsort", "safe",
    "escape", "wordcount", "default('x')", "join(', ')", "replace('a', 'b')", "indent(2)", "tojson(indent=2)",
    "map('upper')", "select", "selectattr('role')", "selectattr('role', 'equalto', 'user')",
    "map(attribute='content')", "rejectattr('x')", "groupby('role')", "truncate(5)", "round(1)", "slice(3)",
    "batch(2)", "format", "center(20)", "xmlattr", "pprint", "urlize", "filesizeformat", "striptags", "urlencode",
    "count", "d('y', true)", "nosuch",
)  # fmt: skip
HOSTILE_FILTERS = (
    "center(10**9)", "indent(10**8)", "format(*range(10**7))", "batch(10**9)", "slice(10**9)",
    "replace('', 'x' * 10**6)", "join('x' * 10**6)", "tojson(indent=10**8)", "truncate(10**12)", "wordwrap(1)",
    "sum(start=[])", "map('center', 10**8)", "sort(attribute='a.b.c.d')",
)  # fmt: skip
METHODS = (
    "split()", "strip()", "upper()", "startswith('a')", "items()", "keys()", "get('role')", "format('a')",
    "join(['a', 'b'])", "replace('a', 'b')", "splitlines()", "partition(' ')", "title()", "count('a')", "encode()",
    "nosuch()", "append(1)", "__class__", "__class__.__mro__", "__init__.__globals__", "format_map({})", "find('a')",
    "rstrip('x')", "lstrip()",
)  # fmt: skip
HOSTILE_METHODS = (
    "ljust(10**9)", "zfill(10**9)", "center(10**9)", "expandtabs(10**9)", "replace('', 'x' * 10**5)",
    "join('x' * 10**7)", "format('{:>1000000000}')", "__mul__(10**9)", "__add__('x' * 10**8)",
    "translate({97: 'x' * 10**6})", "encode('utf-8').hex()", "rjust(2**31)", "split('') ", "to_bytes(10**9)",
)  # fmt: skip
HOSTILE = (
    "'a' * 10**9", "[0] * 10**9", "(1,) * 10**8", "range(10**10) | list", "range(10**9) | sum", "10 ** 10 ** 10",
    "2 ** 100000 ** 2", "'%999999999d' % 1", "'%0999999999d' % 1", "'{:999999999}'.format(1)", "'%*d' % (10**9, 1)",
    "'x'.ljust(10**9)", "range(10**7) | map('string') | join", "(range(10**6) | list)[::1] * 1000",
    "'a'.join(range(10**8)|map('string'))", "lipsum(n=10**6)", "cycler(*range(10**7))", "namespace(x=1).x",
    "dict(a=1)['b']", "joiner('x' * 10**8)", "[[[[[1] * 99] * 99] * 99] * 99] * 99", "([1] * 10**6) == ([1] * 10**6)",
    "'a' ~ 'b' * 10**8", "messages * 10**8", "(messages * 1000) | tojson", "range(-10**9, 10**9, 3) | length",
    "1 // 0", "1 % 0", "''.join([1])", "-(10**4000)",
)  # fmt: skip
NAMES = (
    "messages", "m", "x", "y", "bos_token", "eos_token", "tools", "add_generation_prompt", "loop", "undefined_name",
    "ns.x",
)  # fmt: skip
ATTRIBUTES = (
    ".role", ".content", "['role']", "['content']", "[0]", "[-1]", "[1:]", "[::-1]", "[:2]", ".index0", ".first",
    ".nosuch",
)  # fmt: skip
PHRASES = (
    "{{ raise_exception('no') }}", "{% break %}", "{% continue %}", "{% raw %}{{ x }}{% endraw %}",
    "{% include 'a' %}", "{% import 'a' as b %}", "{{ strftime_now('%Y') }}", "{% do x %}",
)  # fmt: skip
BLOCKS = (
    ("{% generation %}", "{% endgeneration %}"), ("{% set y %}", "{% endset %}"),
    ("{% call f(1) %}", "{% endcall %}"),
    ("{% filter upper %}", "{% endfilter %}"), ("{% block b %}", "{% endblock %}"),
    ("{% with x = 1 %}", "{% endwith %}"),
)  # fmt: skip
LOOPS = (
    "messages", "range(3)", "messages[1:]", "'abc'", "[1, 2, 3]", "tools or []", "messages | reverse",
    "{'a': 1} | items",
)  # fmt: skip
LONG_LOOPS = ("range(10**9)", "range(3000)", "range(200)", "'a' * 10**7", "messages * 10**6")
OPERATORS = ("+", "~", "-", "*", "/", "//", "%", "==", "!=", "<", "and", "or", "in", "not in", "is")
TESTS = ("defined", "none", "string", "mapping", "number", "iterable", "sequence", "true", "odd", "even", "nosuch")


class Grammar:
    """A random source of programs. hostile: expressions of unbounded work, too."""

    def __init__(self, rng: random.Random, hostile: bool) -> None:
        self.rng, self.hostile = rng, hostile

    def program(self) -> str:
        """A whole template."""
        depth = 3 if self.hostile else 2
        text = "".join(self.statement(depth) for _ in range(self.rng.randrange(1, 5)))
        if self.rng.random() < 0.1:  # damaged
            at = self.rng.randrange(len(text) + 1)
            text = (
                text[:at]
                + self.rng.choice(("{", "}", "%}", "{%", "{{", "#}", "\0", hostile_values.text(self.rng)))
                + text[at + 1 :]
            )
        return text

    def statement(self, depth: int) -> str:
        """One statement or text."""
        rng, choice = self.rng, self.rng.randrange(14 if depth else 5)
        if choice < 2:
            return rng.choice(("<|user|>\n", " ", "\n  ", "text", "é", "{# comment #}", "<|im_end|>"))
        if choice < 5:
            return "{{ " + self.expression(depth) + " }}"
        body = "".join(self.statement(depth - 1) for _ in range(rng.randrange(1, 4)))
        if choice < 8:
            return f"{{% for m in {self.iterable(depth)} %}}{body}{{% endfor %}}"
        if choice < 10:
            return f"{{%- if {self.expression(depth)} -%}}{body}{{% else %}}{self.statement(depth - 1)}{{% endif %}}"
        if choice == 10:
            return f"{{% set x = {self.expression(depth)} %}}"
        if choice == 11:
            name = rng.choice(("f", "g"))
            inner = "{{ f(x) }}" if self.hostile and rng.random() < 0.3 else body
            return f"{{% macro {name}(x, y=1) %}}{inner}{{% endmacro %}}{{{{ {name}({self.expression(1)}) }}}}"
        if choice == 12:
            return f"{{% set ns = namespace(x=0) %}}{{% set ns.x = {self.expression(depth)} %}}{body}"
        return rng.choice((*PHRASES, *(start + body + end for start, end in BLOCKS)))

    def iterable(self, depth: int) -> str:
        """Something to loop over."""
        rng = self.rng
        if self.hostile and rng.random() < 0.3:
            return rng.choice((*LONG_LOOPS, self.expression(depth)))
        return rng.choice(LOOPS)

    def expression(self, depth: int) -> str:
        """One expression."""
        rng = self.rng
        if self.hostile and rng.random() < 0.25:
            return rng.choice(HOSTILE)
        if depth <= 0 or rng.random() < 0.3:
            return rng.choice(
                (*NAMES, "1", "'a b'", "'{}'", "'%s'", "[1, 'a']", "{'k': 2}", "none", "true", "3.5", "''", "(1, 2)")
            )
        choice, part = rng.randrange(8), self.expression(depth - 1)
        if choice == 0:
            return f"({part} {rng.choice(OPERATORS)} {self.expression(depth - 1)})"
        if choice == 1:
            return f"{part} | {rng.choice(HOSTILE_FILTERS if self.hostile and rng.random() < 0.3 else FILTERS)}"
        if choice == 2:
            return f"({part}).{rng.choice(HOSTILE_METHODS if self.hostile and rng.random() < 0.3 else METHODS)}"
        if choice == 3:
            return f"({part}){rng.choice(ATTRIBUTES)}"
        if choice == 4:
            return f"({part} is {rng.choice(TESTS)})"
        if choice == 5:
            return f"({part} if {self.expression(depth - 1)} else {self.expression(depth - 1)})"
        if choice == 6:
            return f"[{part}, {self.expression(depth - 1)}]"
        return f"(not {part})"
