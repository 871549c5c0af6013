"""Graded item of lab 09: PartitionSpecs of a layer with two all-reduces."""

from collections.abc import Mapping, Sequence

from jax.sharding import PartitionSpec

from minillama.errors import ResourceError
from minillama.lab.distributed import virtual_devices
from minillama.lab.grading.check import Answer, NotYet, call, graded
from minillama.lab.language import message, translate
from minillama.measure.limits.collective_traffic import Collective, CollectiveKind
from minillama.parallel.sharding.partition_specs import AXIS, COLUMNS, ROWS

LAB = "09"
MAX_ALL_REDUCES = 2  # all-reduces a layer


def collectives_text(found: Sequence[Collective]) -> str:
    """Collectives as text: `2 all-reduce and 1 all-gather`."""
    counts: dict[str, int] = {}
    for entry in found:
        counts[entry.kind] = counts.get(entry.kind, 0) + len(entry.parts) * (entry.count or 1)
    return translate(" and ").join(f"{count} {kind}" for kind, count in counts.items()) or translate("no collectives")


# Hints for a matrix that is split along the wrong axis.
CUT = message(
    "you split {name} by columns, so each device uses a part of its input and gets a part of every sum: a sum over "
    "the devices must come before anything else"
)
GATHER = message(
    "you split {name} by rows, so its input must be gathered first: each device has only its own {what} and needs all"
)
PARTS = {"attn_output": message("heads"), "ffn_down": message("numbers of the hidden layer")}
WRONG = dict.fromkeys(("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up"), CUT) | dict.fromkeys(PARTS, GATHER)
RIGHT = {name: COLUMNS if name in ("attn_output", "ffn_down") else ROWS for name in WRONG}


@graded(LAB, "3. PartitionSpecs with two all-reduces a layer")
def specs(answer: Answer) -> str:
    """`specs() -> {name: PartitionSpec}` of a layer's seven matrices [N, K]."""
    chosen = call(answer)
    _check_specs(chosen)
    assert isinstance(chosen, Mapping)
    try:
        found = virtual_devices.layer_ledger(chosen)
    except ResourceError as error:
        raise NotYet(str(error)) from None
    sums = sum(len(entry.parts) * (entry.count or 1) for entry in found if entry.kind is CollectiveKind.ALL_REDUCE)
    if sums <= MAX_ALL_REDUCES and all(entry.kind is CollectiveKind.ALL_REDUCE for entry in found):
        return "an eighth of every matrix on each device, and two all-reduces for the layer."
    wrong = [name for name in RIGHT if _axis(chosen[name]) != _axis(RIGHT[name])]
    why = _why(wrong[0]) if wrong else translate("which of them is not needed?")
    raise NotYet(translate("the compiled layer has {collectives}: {why}", collectives=collectives_text(found), why=why))


def _why(name: str) -> str:
    return translate(WRONG[name], name=name, what=translate(PARTS.get(name, "")))


def _axis(spec: PartitionSpec) -> int:
    return next(axis for axis, name in enumerate(spec) if name)


def _check_specs(chosen: object) -> None:
    """Raise NotYet for invalid PartitionSpecs, or for a matrix that is not split."""
    if not isinstance(chosen, Mapping):
        raise NotYet('return a dict: {"attn_q": P("tensor", None), ...}')
    missing = [name for name in virtual_devices.SHAPES if name not in chosen]
    if missing:
        raise NotYet(translate("no PartitionSpec for {names}", names=", ".join(missing)))
    for name, shape in virtual_devices.SHAPES.items():
        spec = chosen[name]
        if not isinstance(spec, PartitionSpec):
            raise NotYet(
                translate(
                    "{name} is a {kind}; make it a PartitionSpec: P({axis!r}, None)",
                    name=name, kind=type(spec).__name__, axis=AXIS,
                )
            )  # fmt: skip
        named = [axis for axis in spec if axis is not None]
        if any(axis != AXIS for axis in named):
            raise NotYet(
                translate("{name}: the mesh has one axis, {axis!r}; got {spec}", name=name, axis=AXIS, spec=spec)
            )
        if len(spec) > len(shape):
            raise NotYet(
                translate("{name} is a matrix, with two places in its PartitionSpec; got {spec}", name=name, spec=spec)
            )
        if not named:
            raise NotYet(
                translate(
                    "{name} is on every device as a whole: this saves no memory, and each device reads all of it",
                    name=name,
                )
            )
        if len(named) > 1:
            raise NotYet(translate("{name}: one axis of the mesh can split rows or columns, not both", name=name))
