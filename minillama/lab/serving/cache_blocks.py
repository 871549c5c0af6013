"""The books of a KV cache in blocks: tables, uses, and a prefix index (PagedAttention).

Full blocks with the same tokens after the same beginning are shared. A block may be used by several texts, so it is
free only when the last of them is released.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from minillama.lab.language import translate


class NoBlocksError(Exception):
    """All blocks are in use."""


@dataclass
class CacheBlocks:
    """Blocks of `size` tokens. tables: the blocks of each text, in order."""

    count: int
    size: int
    free: list[int] = field(default_factory=list)
    uses: dict[int, int] = field(default_factory=dict)  # block -> number of texts that have it
    tables: dict[int, list[int]] = field(default_factory=dict)  # text -> its blocks
    by_prefix: dict[tuple[int, ...], int] = field(default_factory=dict)  # all tokens up to a block's end -> the block

    def __post_init__(self) -> None:
        self.free = list(range(self.count))

    def add(self, text: int, tokens: Sequence[int]) -> int:
        """Give blocks to a text; the number of tokens that shared blocks hold already.

        Raises NoBlocksError, and changes nothing, if too few blocks are free.
        """
        ends = [(place + 1) * self.size for place in range(math.ceil(len(tokens) / self.size))]
        shared: list[int] = []
        for end in ends:
            block = self.by_prefix.get(tuple(tokens[:end])) if end <= len(tokens) else None
            if block is None:
                break
            shared.append(block)
        if len(ends) - len(shared) > len(self.free):
            needed, free = len(ends) - len(shared), len(self.free)
            raise NoBlocksError(translate("{needed} blocks are needed and {free} are free", needed=needed, free=free))
        table = [*shared, *(self.free.pop(0) for _ in range(len(ends) - len(shared)))]
        for block, end in zip(table, ends, strict=True):
            self.uses[block] = self.uses.get(block, 0) + 1
            if end <= len(tokens):
                self.by_prefix[tuple(tokens[:end])] = block
        self.tables[text] = table
        return len(shared) * self.size

    def problems(self) -> list[str]:
        """Broken rules; empty if all blocks are accounted for."""
        found = []
        held = [block for table in self.tables.values() for block in table]
        if len(set(self.free)) < len(self.free):
            found.append(translate("a block is free twice: two texts will get it"))
        if set(self.free) & set(held):
            found.append(translate("a block is free while a text still reads it: the next text overwrites its keys"))
        if len(set(self.free) | set(held)) < self.count:
            found.append(translate("a block is neither free nor in a table: it is lost for ever"))
        if set(self.by_prefix.values()) & set(self.free):
            found.append(
                translate("the prefix index names a free block: a later prompt would read another text's keys")
            )
        if any(self.uses.get(block, 0) != held.count(block) for block in {*held, *self.uses}):
            found.append(translate("`uses` does not count the tables that have a block"))
        return found


def faulty_release(blocks: CacheBlocks, text: int) -> None:
    """Give back the blocks of a text. Here is a fault."""
    for block in blocks.tables.pop(text):
        blocks.free.append(block)
        blocks.uses[block] -= 1


def reserved_tokens(lengths: Sequence[int], block: int) -> int:
    """Tokens of cache that texts of these lengths reserve, in blocks."""
    return sum(math.ceil(length / block) * block for length in lengths)
