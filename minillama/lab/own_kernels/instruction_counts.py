"""Count the instructions of a kernel's innermost loop, and the bytes that it loads."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from minillama.errors import OptionError
from minillama.kernels.cpu.runtime.machine_code import Listing
from minillama.lab.language import message, translate

KINDS = (message("loads"), message("conversions"), message("shuffles"), message("multiplies"), message("others"))
_LABEL = re.compile(r'^"?([.\w$]+)"?:')
_JUMP = re.compile(r"^(j[a-z]+|b|b\.[a-z]+|b[a-z]{2}|cbn?z|tbn?z)\s")
_MEMORY = re.compile(r"\([^)]*%|\(%|\[")  # an address of AT&T syntax, or of ARM
_X86_MOVE = re.compile(r"^v?mov(?!msk|[sz][xl]?[bwl][wlq])|^v?p?broadcast|^v?lddqu")
_ARM_LOAD = re.compile(r"^ld(?!add|set|clr|eor)")
_STORE_OR_HINT = re.compile(r"^(st|prefetch|prfm|v?movnt|lea)")
_PATTERNS = {  # the first that matches a mnemonic
    "multiplies": re.compile(
        r"^v?(p?mul|f[n]?m(add|sub)|pmadd|pdpb|pdpw|dp[bw])|^imul|^f?n?m(ul|add|sub|la|ls)|^[su]m(ull|lal|addl)|^(us|s|u)dot"
    ),
    "conversions": re.compile(r"^v?cvt|^v?pmov[sz]x|^mov[sz][bwl]|^v?pack|^[su]cvtf|^fcvt|^[su]shll|^[su]xt|^xtn|^sxt"),
    "shuffles": re.compile(
        r"^v?p?(perm|shuf|unpck|insert|extract|broadcast|align|blend|insr|extr)|^v?(mov[lh]|movs?[lh]?dup)"
        r"|^(zip|uzp|trn|ext|dup|ins|tbl|rev)"
    ),
}  # fmt: skip


@dataclass(frozen=True)
class InstructionCount:
    """Instructions and loaded bytes of one run of the innermost loop.

    A kind counts what an instruction computes: one that loads an operand and multiplies is a multiply. `memory_reads`
    counts all instructions that read memory.
    """

    kinds: dict[str, int]
    memory_reads: int
    loaded_bytes: int

    @property
    def total(self) -> int:
        """All instructions."""
        return sum(self.kinds.values())


def count_instructions(listing: Listing) -> InstructionCount:
    """Count those of the longest innermost loop of a listing.

    Raises OptionError if there is no loop.
    """
    loops = list(innermost_loops(listing.assembly))
    if not loops:
        raise OptionError(translate("the machine code has no loop; its steps are unrolled, or nothing remains of it"))
    longest = max(loops, key=len)
    kinds = Counter(map(kind_of, longest))
    return InstructionCount({kind: kinds[kind] for kind in KINDS}, sum(map(reads_memory, longest)),
                            _loaded_bytes(listing.optimised_ir))  # fmt: skip


def innermost_loops(assembly: str) -> Iterator[list[str]]:
    """Instructions of each innermost loop: from a label to the jump back to it."""
    lines = [line for raw in assembly.splitlines() if (line := _clean(raw))]
    labels = {found[1]: number for number, line in enumerate(lines) if (found := _LABEL.match(line))}
    backward = []
    for number, line in enumerate(lines):
        if _JUMP.match(line):
            target = line.split()[-1].split(",")[-1].strip('"')
            if labels.get(target, number) < number:
                backward.append((labels[target], number))
    for first, last in backward:
        if not any(first <= start and end <= last for start, end in backward if (start, end) != (first, last)):
            yield [line for line in lines[first : last + 1] if not _LABEL.match(line)]


def _clean(line: str) -> str:
    """A line without comments; empty for directives."""
    text = re.split(r"\s*(?:#+\s|##|//|;|@\s)", line + " ", maxsplit=1)[0].strip()
    return "" if (text.startswith(".") and not _LABEL.match(text)) or text.startswith("#") else text


def kind_of(instruction: str) -> str:
    """The kind of an instruction, in AT&T or ARM syntax."""
    mnemonic = instruction.split()[0]
    if _ARM_LOAD.match(mnemonic) or (_X86_MOVE.match(mnemonic) and reads_memory(instruction)):
        return "loads"
    return next((kind for kind, pattern in _PATTERNS.items() if pattern.match(mnemonic)), "others")


def reads_memory(instruction: str) -> bool:
    """True if an instruction loads: one of its sources is an address."""
    mnemonic, _, operands = instruction.partition("\t") if "\t" in instruction else instruction.partition(" ")
    if _STORE_OR_HINT.match(mnemonic):
        return False
    sources = operands
    if "%" in operands and not mnemonic.startswith(("cmp", "test", "vptest", "ucomi")):
        sources = re.sub(r",\s*[^,()]*(\([^()]*\))?\s*(\{[^}]*\}\s*)*$", "", operands)  # without the last operand
        if sources == operands:
            return False
    return _MEMORY.search(sources) is not None


_WIDTHS = {"i8": 1, "i16": 2, "half": 2, "bfloat": 2, "i32": 4, "float": 4, "i64": 8, "double": 8}
_LOAD = re.compile(r"= load (?:<(\d+) x (\w+)>|(\w+)),")


def _loaded_bytes(optimised_ir: str) -> int:
    """Bytes that the longest loop of one basic block loads."""
    blocks, name = {}, ""
    for line in optimised_ir.splitlines():
        found = re.match(r'^"?([-\w.]+)"?:', line)
        name = found[1] if found else name
        blocks.setdefault(name, []).append(line)
    loops = [lines for name, lines in blocks.items() if any(re.search(rf'br .*%"?{re.escape(name)}"?(,|$)', line)
                                                            for line in lines if name)]  # fmt: skip
    loads = (_LOAD.search(line) for line in max(loops, key=len, default=[]))
    return sum(int(each[1] or 1) * _WIDTHS.get(each[2] or each[3], 0) for each in loads if each)
