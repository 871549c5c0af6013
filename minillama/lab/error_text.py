"""Exceptions of a learner's code in one line."""

import traceback

from minillama.errors import first_line

LONGEST = 300  # characters of a message


def one_line(error: BaseException) -> str:
    """An exception in one line: name, message, and line of the learner's cell."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/minillama/lab/" not in frame.filename.replace("\\", "/")]
    place = f" (line {own[-1].lineno} of `{own[-1].name}`)" if own else ""
    return f"{first_line(error, with_type=True, limit=LONGEST)}{place}"
