"""Exceptions of a learner's code in one line."""

import traceback

from minillama.errors import first_line

LONGEST = 300  # characters of a message
OURS = ("/minillama/lab/", "/minillama/kernels/", "/llvmlite/")  # below a learner's function, or around it


def one_line(error: BaseException) -> str:
    """An exception in one line: name, message, and line of the learner's cell."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not any(room in frame.filename.replace("\\", "/") for room in OURS)]
    place = f" (line {own[-1].lineno} of `{own[-1].name}`)" if own else ""
    return f"{first_line(error, with_type=True, limit=LONGEST)}{place}"
