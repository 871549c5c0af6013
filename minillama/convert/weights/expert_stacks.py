"""Experts of a layer, a tensor each in a checkpoint, as one tensor."""

import re
from collections import defaultdict

from minillama.convert.weights.lazy_weight import LazyWeight, stacked
from minillama.errors import FormatError

_EXPERT = re.compile(r"(.+\.experts)\.(\d+)\.(\w+)\.weight")


class ExpertStacks:
    """Collects the tensors of experts until a layer has all of them.

    order: the projections in the order of the file, such as `down_proj gate_proj up_proj`.
    """

    def __init__(self, order: tuple[str, ...], experts: int) -> None:
        self._order, self._experts = order, experts
        self._waiting: dict[str, dict[tuple[int, str], LazyWeight]] = defaultdict(dict)

    def add(self, weight: LazyWeight) -> list[LazyWeight]:
        """The weights to go on with: none until a layer is complete, then its stacks."""
        match = _EXPERT.fullmatch(weight.name)
        if match is None or not self._order:
            return [weight]
        layer, expert, projection = match[1], int(match[2]), match[3]
        if projection not in self._order or expert >= self._experts:
            raise FormatError(f"{weight.name} is no {' or '.join(self._order)} of {self._experts} experts")
        found = self._waiting[layer]
        found[expert, projection] = weight
        if len(found) < self._experts * len(self._order):
            return []
        del self._waiting[layer]
        return [
            stacked(f"{layer}.{name}.weight", [found[index, name] for index in range(self._experts)])
            for name in self._order
        ]

    def finish(self) -> None:
        """Raise FormatError if a layer lacks experts."""
        for layer, found in self._waiting.items():
            count = self._experts * len(self._order)
            raise FormatError(f"{layer} has {len(found)} of {count} tensors; download the folder again")
