"""The table of all programs, which is also the table of calls of remote workers."""

from collections.abc import Mapping

from minillama.engine.backends.programs import draft_programs, slot_programs, text_programs
from minillama.engine.backends.programs.program import Program

ALL_PROGRAMS: Mapping[str, Program] = {
    found.name: found
    for module in (text_programs, slot_programs, draft_programs)
    for found in vars(module).values()
    if isinstance(found, Program)
}
