"""A radix tree of token sequences, to find the longest common prefix."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass
class _Node(Generic[Value]):
    """The end of an edge, and the value of the sequence that ends here."""

    edge: tuple[int, ...] = ()
    value: Value | None = None
    children: "dict[int, _Node[Value]]" = field(default_factory=dict)


class RadixTree(Generic[Value]):
    """Values by token sequence; an edge holds all tokens up to the next fork."""

    def __init__(self) -> None:
        self._root: _Node[Value] = _Node()

    def insert(self, tokens: Sequence[int], value: Value) -> None:
        """Put a value at the end of a sequence of at least one token."""
        node, rest = self._root, tuple(tokens)
        while rest:
            child = node.children.get(rest[0])
            if child is None:
                node.children[rest[0]] = _Node(rest, value)
                return
            common = _common(child.edge, rest)
            if common < len(child.edge):
                child = _fork(node, child, common)
            node, rest = child, rest[common:]
        node.value = value

    def remove(self, tokens: Sequence[int]) -> None:
        """Take the value of a sequence away; KeyError if there is none."""
        path, rest = [self._root], tuple(tokens)
        while rest:
            child = path[-1].children[rest[0]]
            if rest[: len(child.edge)] != child.edge:
                raise KeyError(tokens)
            path.append(child)
            rest = rest[len(child.edge) :]
        if path[-1].value is None:
            raise KeyError(tokens)
        path[-1].value = None
        for parent, node in zip(path[-2::-1], path[:0:-1], strict=True):
            if node.value is None and not node.children:
                del parent.children[node.edge[0]]

    def longest(self, tokens: Sequence[int]) -> tuple[int, Value | None]:
        """Length of the longest common prefix, and the value of a sequence that has it."""
        node, at = self._root, 0
        while (child := node.children.get(tokens[at]) if at < len(tokens) else None) is not None:
            common = _common(child.edge, tokens[at:])
            node, at = child, at + common
            if common < len(child.edge):
                break
        return (at, _any_value(node)) if at else (0, None)

    def longest_whole(self, tokens: Sequence[int]) -> tuple[int, Value | None]:
        """The longest sequence that is a prefix of the tokens: its length and value."""
        node, at, found = self._root, 0, (0, None)
        while (child := node.children.get(tokens[at]) if at < len(tokens) else None) is not None:
            if tuple(tokens[at : at + len(child.edge)]) != child.edge:
                break
            node, at = child, at + len(child.edge)
            if node.value is not None:
                found = at, node.value
        return found


def _common(edge: Sequence[int], tokens: Sequence[int]) -> int:
    pairs = zip(edge, tokens, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(edge), len(tokens)))


def _fork(parent: _Node[Value], child: _Node[Value], common: int) -> _Node[Value]:
    """A new node after the first `common` tokens of the edge to a child."""
    fork: _Node[Value] = _Node(child.edge[:common])
    parent.children[fork.edge[0]] = fork
    child.edge = child.edge[common:]
    fork.children[child.edge[0]] = child
    return fork


def _any_value(node: _Node[Value]) -> Value | None:
    while node.value is None:
        node = next(iter(node.children.values()))
    return node.value
