"""Program of the process that runs a learner's code.

Two pipes carry messages: requests of the grader, answers of this process. Nothing that this process says is believed,
but for the values that the learner's functions return.
"""

import builtins
import dataclasses
import linecache
import os
import struct
import sys
import traceback

from minillama.course.isolation.plain_values import SPECIAL, UnsendableError, pickled, unpickled, written
from minillama.course.isolation.process_limits import Limits, limit_this_process

CELL = "<the exercise's cell>"
LONGEST = 300  # characters of an error's message


class Channel:
    """Messages on two pipes, each a length and its bytes."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write

    def send(self, message: object) -> None:
        data = written(message, _number)
        data = struct.pack("<Q", len(data)) + data
        while data:
            data = data[os.write(self._write, data) :]

    def receive(self) -> object:
        (size,) = struct.unpack("<Q", self._exactly(8))
        return unpickled(self._exactly(size), self.handle)

    def handle(self, number: int) -> "Handle":
        """The object that stands for one of the grader's."""
        return Handle(number, self)

    def ask(self, *question: object) -> object:
        """Let the grader use one of its objects; raises what that raised."""
        self.send(question)
        kind, *rest = self.receive()  # type: ignore[misc]
        if kind == "error":
            known = getattr(builtins, rest[0], None)
            is_error = isinstance(known, type) and issubclass(known, Exception)
            raise (known if is_error else RuntimeError)(rest[1])  # type: ignore[operator]
        return rest[0]

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = os.read(self._read, min(size, 1 << 20))
            if not part:
                os._exit(0)  # the grader is gone
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class Handle:
    """An object of the grader: a function to call, or an object with attributes."""

    __slots__ = ("channel", "number")

    def __init__(self, number: int, channel: Channel) -> None:
        self.number, self.channel = number, channel

    def __getattr__(self, name: str) -> object:
        return self.channel.ask("attribute", self.number, name)

    def __deepcopy__(self, memo: object) -> "Handle":
        return self


def _number(value: object) -> int | None:
    return value.number if type(value) is Handle else None


def _special(name: str) -> object:
    def method(self: Handle, *words: object, **named: object) -> object:
        return self.channel.ask("method", self.number, name, words, named)

    return method


for _name in SPECIAL:
    setattr(Handle, _name, _special(_name))


def define(parts: list[tuple[str, object]], names: dict[str, object]) -> list[str]:
    """Run the statements of cells; the errors of those that fail, one line each.

    A failing statement, such as a call that prints a result, does not end the others.
    """
    import ast

    problems = []
    for file, code in parts:
        text = str(code)
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        for statement in ast.parse(text, file).body:
            try:
                exec(compile(ast.Module([statement], []), file, "exec"), names)
            except BaseException as error:
                if file == CELL:
                    problems.append(f"{type(error).__name__}: {_text(error)} (line {statement.lineno})")
    return problems


def call(function: object, given: bytes, channel: Channel) -> tuple[object, ...]:
    """The answer to a call: what the function returned or raised, and changed arguments."""
    arguments = unpickled(given, channel.handle)
    before = _bytes(arguments)
    try:
        got = function(*arguments)  # type: ignore[operator]
    except BaseException as error:
        return ("raised", *described(error))
    return ("returned", got, None if before == _bytes(arguments) else _sendable(arguments))


def _bytes(arguments: object) -> bytes | None:
    try:
        return pickled(arguments, _number)
    except Exception:
        return None


def _sendable(arguments: object) -> object:
    """The arguments, data classes as their fields, or None if they cannot be sent."""
    try:
        shown = tuple(vars(one) if dataclasses.is_dataclass(one) else one for one in arguments)  # type: ignore[attr-defined]
        written(shown, _number)
    except Exception:
        return None
    return shown


def described(error: BaseException) -> tuple[str, str, str, int, str]:
    """An error: its type and message; function, line and file of its last frame."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith("<")] or frames
    last = own[-1]
    return type(error).__name__, _text(error), last.name, last.lineno or 0, last.filename


def _text(error: BaseException) -> str:
    try:
        return str(error).strip()[:LONGEST]
    except Exception:
        return ""


def examine(lab: str, item: str, function: object) -> tuple[bool, str]:
    """Run a check in this process: JAX or a compiler traces the function."""
    from importlib import import_module

    result = getattr(import_module(f"minillama.lab.checks.lab{lab}"), item)(function)
    return bool(result.passed), str(result.message)


def answer(request: tuple[object, ...], channel: Channel, names: dict[str, object]) -> tuple[object, ...]:
    """The answer to one request of the grader; `define` begins with empty names."""
    kind, *rest = request
    if kind == "define":
        names.clear()
        names |= {"__name__": "__main__", "__builtins__": builtins}
        return ("defined", define(*rest, names))  # type: ignore[arg-type]
    function = names.get(str(rest[0]))
    if kind == "has":
        return ("has", callable(function), type(function).__name__)
    if kind == "call":
        return call(function, rest[1], channel)  # type: ignore[arg-type]
    return ("examined", *examine(str(rest[1]), str(rest[2]), function))


def serve(channel: Channel) -> None:
    """Answer requests until the grader closes its pipe."""
    names: dict[str, object] = {}
    while True:
        try:
            reply = answer(channel.receive(), channel, names)  # type: ignore[arg-type]
        except BaseException as error:
            reply = ("raised", *described(error))
        try:
            channel.send(reply)
        except (UnsendableError, TypeError, ValueError, RecursionError, MemoryError) as error:
            kind = str(error) if isinstance(error, UnsendableError) else type(reply[1]).__name__
            channel.send(("unsendable", kind[:40]))


def main(words: list[str]) -> None:
    """Limit this process and serve; the words are both pipes and the limits."""
    read, write, memory, processes, is_preset = map(int, words)
    if is_preset:  # a check of this process needs what the grader has loaded: devices, languages
        from minillama import env

        env.prepare(cpu_devices=is_preset)
    limit_this_process(Limits(os.getcwd(), memory, bool(processes)))
    serve(Channel(read, write))


if __name__ == "__main__":
    main(sys.argv[1:])
