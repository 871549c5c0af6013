"""Hostile chat templates: limits of time, memory and text, the sandbox, and the life of the child process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Timer

import psutil
import pytest

from minillama.errors import ResourceError, UnsupportedError
from minillama.tokenizer import ChatTemplate
from minillama.tokenizer.chat import chat_template
from minillama.tokenizer.chat.template_process import Limits, TemplateProcess, TemplateRefused

USER = [{"role": "user", "content": "Hello"}]
ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
DOUBLING = "{% set ns = namespace(s=START) %}{% for i in range(60) %}{% set ns.s = ns.s OPERATOR ns.s %}{% endfor %}"


def test_a_prepared_process_is_the_one_that_renders() -> None:
    process = TemplateProcess(Limits())
    try:
        process.prepare()
        child = process._child
        process.prepare()
        assert child is not None
        assert process.render("{{ x }}", {"x": 1}) == "1"
        assert process._child is child
        process.stop()
        assert child.poll() is not None
        assert process.render("{{ x }}", {"x": 2}) == "2"
    finally:
        process.stop()


@pytest.fixture(scope="module")
def process() -> Iterator[TemplateProcess]:
    """A process with small limits."""
    process = TemplateProcess(Limits(seconds=0.5, megabytes=300, characters=1_000_000))
    yield process
    process.stop()


@pytest.fixture
def small_limits(process: TemplateProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "SHARED", process)


def doubling(start: str, operator: str) -> str:
    return DOUBLING.replace("START", start).replace("OPERATOR", operator)


def kept(value: str, expression: str) -> str:
    """A template that computes an expression of s many times and keeps the results."""
    loop = "{% for i in range(99999) %}{% set ns.l = ns.l + [EXPRESSION] %}{% endfor %}".replace(
        "EXPRESSION", expression
    )
    return f"{{% set s = {value} %}}{{% set ns = namespace(l=[]) %}}{loop}"


def repeated(value: str, expression: str) -> str:
    """A template that computes an expression of s many times."""
    return f"{{% set s = {value} %}}{{% for i in range(99999) %}}{{% set x = {expression} %}}{{% endfor %}}"


def render(source: str) -> str:
    return ChatTemplate(source, "<s>", "</s>").render(USER)


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (ENDLESS, "was stopped after 0.5 s"),
        (doubling("'x'", "+"), r"(needs more than 300 MB of memory|was stopped after 0.5 s)"),
        ("{{ 'x' * 1000001 }}", "writes more than 1000000 characters"),
        ("{% for i in range(99999) %}{{ 'x' * 99 }}{% endfor %}", "writes more than 1000000 characters"),
        ("{{ 'x' * 10000000000 }}", "needs more than 300 MB of memory"),
        ("{% for i in range(999999999) %}{% endfor %}", "failed in line 1: Range too big.*"),
    ],
)
def test_a_template_is_stopped_with_a_reason(source: str, reason: str) -> None:
    with pytest.raises(
        UnsupportedError, match=f"the model's chat template {reason}; name another with --chat-template"
    ):
        render(source)
    assert render("{{ messages[0].content }}") == "Hello"


HOSTILE = {
    "power": "{{ 9 ** 999999999 }}",
    "large lists": "{{ [1] * 10000000000 }}",
    "doubled with ~": doubling("'x'", "~"),
    "doubled lists": doubling("[1]", "+"),
    "shared nests, written": doubling("[1]", ", ").replace("ns.s ,  ns.s", "[ns.s, ns.s]") + "{{ ns.s }}",
    "shared nests as JSON": doubling("[1]", ", ").replace("ns.s ,  ns.s", "[ns.s, ns.s]") + "{{ ns.s | tojson }}",
    "compared nests": "{% set ns = namespace(a=[], b=[]) %}{% for i in range(40) %}{% set ns.a = [ns.a, ns.a] %}"
    "{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}",
    "hashed nests": "{% set ns = namespace(a=()) %}{% for i in range(40) %}{% set ns.a = (ns.a, ns.a) %}{% endfor %}"
    "{{ {ns.a: 1} | length }}",
    "captured text": "{% set ns = namespace(s='x') %}{% for i in range(60) %}"
    "{% set x %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = x %}{% endfor %}",
    "macro, doubled": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(50) }}",
    "recursive loop": "{% for i in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "percent width": "{{ '%999999999d' % 1 }}",
    "percent, kept": kept("'%(a)999d' * 10000", "s % {'a': 1}"),
    "percent, repeated": repeated("'%(a)999d' * 10000", "s % {'a': 1}"),
    "format width": "{{ '{:{}}'.format(1, 999999999) }}",
    "format, kept": kept("'{0:999}' * 10000", "s.format(1)"),
    "slices, kept": kept("'x' * 9000000", "s[1:]"),
    "slices, repeated": repeated("'x' * 9000000", "s[1:]"),
    "searches": repeated("'x' * 9000000", "'y' in s"),
    "comparisons": repeated("'x' * 9000000", "s[1:] == s[:-1]"),
    "lists of characters": kept("'x' * 100000", "s | list"),
    "splits": kept("'ab ' * 100000", "s.split()"),
    "sums of lists": "{{ ([range(1000) | list] * 100000) | sum(start=[]) | length }}",
    "sorted long texts": "{% set a = 'x' * 1000000 %}{% set ns = namespace(l=[]) %}{% for i in range(60) %}"
    "{% set ns.l = ns.l + [a[1:] + 'y'] %}{% endfor %}{{ (ns.l * 3000) | sort | length }}",
    "replaced": "{{ ('x' * 99999).replace('x', 'x' * 99999) }}",
    "joined": "{{ ('x' * 99999) | join('x' * 99999) }}",
    "indented": "{{ ('x\n' * 9999) | indent(999999) }}",
    "indented JSON": "{{ [1] | tojson(indent=999999999) }}",
    "justified": "{{ 'x'.ljust(999999999) }}",
    "bytes": "{{ (1).to_bytes(999999999, 'big') | length }}{{ 'x' * 1000001 }}",
    "keys": repeated("range(99999)", "dict.fromkeys(s)"),
    "large products": "{% set ns = namespace(x=2) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "lorem ipsum": "{{ lipsum(n=9999999) }}",
    "much to compile": "{% if a %}{% elif b %}" + "{% elif b %}" * 40_000 + "{% endif %}",
    "many names": "".join(f"{{% set a{number} = 1 %}}" for number in range(25_000)),
    "many operators": "{{ 1" + "+1" * 100_000 + " }}",
    "nested blocks": "{% if true %}" * 2000 + "{% endif %}" * 2000,
    "nested lists": "{{ " + "[" * 9999 + "]" * 9999 + " }}",
}


@pytest.mark.slow
@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_are_refused_in_time(name: str) -> None:
    start = time.monotonic()
    with pytest.raises(UnsupportedError) as caught:
        render(HOSTILE[name])
    assert time.monotonic() - start < 10  # 0.5 s and a start of the child, on a busy machine
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 500


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{{ '' | attr('__class__') }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ '{x.__class__}'.format_map({'x': 1}) }}",
        "{{ (('{0.__cl' ~ 'ass__}') | attr('format'))(1) }}",
        "{{ ['{0.__class__}'] | map('format', 1) | list }}",
        "{% set m = ['{0.__class__}'.format] %}{{ m[0](1) }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__code__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ messages | map(attribute='__class__') | list }}",
        "{{ messages | groupby('__class__') }}",
        "{{ [1] | join(attribute='__class__') }}",
        "{{ [messages] | map('attr', '__class__') | list }}",
        "{% generation %}{{ caller.__class__ }}{% endgeneration %}",
        "{% import 'os' as os %}{{ os }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_the_sandbox_shows_no_internals(source: str) -> None:
    try:
        text = render(source)
    except UnsupportedError as error:
        text = str(error)
    assert not any(word in text for word in ("<class", "<built-in", "root:", "<code", "'json'", "object at"))


def test_one_process_renders_all(process: TemplateProcess) -> None:
    def pid(number: int) -> int:
        assert process.render("{{ n }}", {"n": number}) == str(number)
        assert process._child is not None
        return process._child.pid

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(pid, range(40)))) == 1


def test_an_interrupt_ends_the_wait() -> None:
    process = TemplateProcess(Limits(seconds=60))
    assert process.render("x", {}) == "x"
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            process.render(ENDLESS, {})
        assert time.monotonic() - start < 10
        assert process.render("y", {}) == "y"
    finally:
        timer.join()
        signal.signal(signal.SIGINT, previous)
        process.stop()


def test_the_memory_of_a_process_is_watched(process: TemplateProcess) -> None:
    """For systems that do not limit it."""
    process.render("", {})
    watched = TemplateProcess(replace(process.limits, megabytes=1))
    watched._child, watched._is_ready, process._child = process._child, True, None
    with pytest.raises(TemplateRefused, match="was stopped at 1 MB of memory"):
        watched.render(ENDLESS, {})


def test_a_process_that_is_killed(process: TemplateProcess) -> None:
    process.render("", {})
    assert process._child is not None
    process._child.kill()
    process._child.wait()
    assert process.render("x", {}) == "x"
    timer = Timer(0.1, process._child.kill)
    timer.start()
    with pytest.raises(TemplateRefused, match="ended its process with SIGKILL"):
        process.render(ENDLESS, {})
    timer.join()


def test_a_process_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    process = TemplateProcess(Limits())
    for program, said in (("/missing/python", "does not start: No such file"), ("/bin/false", "ended its process")):
        monkeypatch.setattr(sys, "executable", program)
        with pytest.raises(ResourceError, match=f"the process that renders chat templates {said}"):
            process.render("", {})
    monkeypatch.undo()
    assert process.render("x", {}) == "x"
    process.stop()


@pytest.mark.slow
def test_a_long_conversation_reaches_a_process_that_renders_nothing(process: TemplateProcess) -> None:
    assert process.render("", {"x": "x" * 5_000_000}) == ""
    with pytest.raises(TemplateRefused, match=r"was stopped|needs more than|ended its process|writes more"):
        process.render("{{ x }}", {"x": "x" * 60_000_000})
    assert process.render("y", {}) == "y"


IN_A_FORK = """
import os, sys, time
from threading import Thread
from minillama.tokenizer.chat.template_process import SHARED
SHARED.render("", {})
first = SHARED._child.pid
slow = "{% for i in range(9999) %}{% for j in range(99) %}{% endfor %}{% endfor %}"
busy = Thread(target=SHARED.render, args=(slow, {}))
if "busy" in sys.argv:
    busy.start()
    time.sleep(0.02)
if os.fork() == 0:
    assert SHARED.render("in the fork", {}) == "in the fork" and SHARED._child.pid != first
    SHARED.stop()
    os._exit(0)
_, status = os.wait()
assert status == 0 and SHARED.render("outside", {}) == "outside" and SHARED._child.pid == first
"""

KILLED = """
import sys
from minillama.tokenizer.chat.template_process import *
process = TemplateProcess(Limits(seconds=1))
process.render("", {})
print(process._child.pid, flush=True)
process.limits = Limits(seconds=60)
process.render(sys.argv[1], {})
input()
"""


@pytest.mark.slow
@pytest.mark.parametrize("thread", ["idle", "busy"])
def test_a_fork_has_a_process_of_its_own(thread: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", IN_A_FORK, thread], check=True, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["", ENDLESS])
def test_it_ends_with_its_parent(source: str) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", KILLED, source], stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.3)
        parent.kill()
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running()
