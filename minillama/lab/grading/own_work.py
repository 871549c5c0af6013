"""Answers that are not the learner's: a check, or a function of the package.

A mistake or a simple trick is found. A copied source is not, nor is code that changes the checks.
"""

import inspect
import os
import sys
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from types import CodeType, FrameType

PACKAGE = f"{Path(__file__).parents[2]}{os.sep}"
STAND_INS = f"{PACKAGE}course{os.sep}"  # a learner's function in another process
CHECKS = f"{PACKAGE}{os.path.join('lab', 'checks')}{os.sep}"
Answer = Callable[..., object]


def code_of(function: object) -> CodeType | None:
    """Code that a call of `function` runs, without decorators; None for functions of C."""
    while isinstance(function, partial):
        function = function.func
    if callable(function):
        function = inspect.unwrap(function)
    function = getattr(function, "__func__", function)
    if not hasattr(function, "__code__"):  # an object with a method of this name
        function = vars(type(function)).get("__call__")
    found = getattr(function, "__code__", None)
    return found if isinstance(found, CodeType) else None


def is_of_the_package(function: object) -> bool:
    """True for a check, and for a function whose code is minillama's."""
    code = code_of(function)
    return code is not None and code.co_filename.startswith(PACKAGE) and not code.co_filename.startswith(STAND_INS)


class Watch:
    """Notes the check's own functions that a learner's function calls.

    They are those in `forbidden`, and functions at the top of a module of checks that a learner's line calls. What a
    check passes as an argument is the learner's to call: methods and local functions.
    """

    def __init__(self) -> None:
        self.forbidden: list[CodeType] = []
        self.borrowed: list[str] = []

    def forbid(self, function: object) -> None:
        """Note calls of this function from now on."""
        if (code := code_of(function)) is not None and not any(code is other for other in self.forbidden):
            self.forbidden.append(code)

    def watched(self, answer: Answer) -> Answer:
        """The same function, watched while it runs."""

        @wraps(answer)
        def watched(*arguments: object, **named: object) -> object:
            before = sys.getprofile()
            sys.setprofile(self._look)
            try:
                return answer(*arguments, **named)
            finally:
                sys.setprofile(before)

        return watched

    def _look(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and (
            any(frame.f_code is code for code in self.forbidden) or _is_check_called_by_learner(frame)
        ):
            self.borrowed.append(frame.f_code.co_name)


def _is_check_called_by_learner(frame: FrameType) -> bool:
    """True for a top-level function of the checks that a learner's line calls."""
    code, caller = frame.f_code, frame.f_back
    return (
        code.co_filename.startswith(CHECKS)
        and "." not in code.co_qualname
        and caller is not None
        and not caller.f_code.co_filename.startswith(PACKAGE)
    )
