"""Programs of models that devices share, lowered or compiled for accelerators, and their collectives.

As a program, `python split_programs.py MODEL DEVICES` compiles a step for several H200 and prints counts as JSON; it
needs the compiler, jax-cuda13-pjrt.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import minillama as ml
from minillama.engine.accelerators.program_arguments import Sizes, program_arguments
from minillama.engine.backends import pipeline, tensor_parallel
from minillama.engine.backends.programs import text_programs
from minillama.engine.backends.programs.program import Kind, Program
from minillama.gguf.kv_cache_types import CacheType, CacheTypes
from minillama.kernels import load_weights
from minillama.kernels.target_platform import traced_for
from minillama.sampling import Sampling

HALF = CacheTypes(CacheType.F16, CacheType.F16)
GREEDY = Sampling(temp=0.0)
CUSTOM_CALL = re.compile(r"custom_call @([\w$.]+)")
COLLECTIVE = re.compile(r'"?stablehlo\.(all_reduce|all_gather|all_to_all|reduce_scatter|collective_\w+)"?')


def collectives_of(text: str) -> dict[str, int]:
    """The collectives of one call of a lowered program, by kind; a function counts as often as it is called."""
    _, *functions = re.split(r"func\.func (?:public |private )?@", text)
    bodies = {re.match(r"[\w.$]+", function)[0]: function for function in functions}  # type: ignore[index]

    def count(name: str) -> Counter[str]:
        called = re.findall(r"(?<!custom_)call @([\w.$]+)", bodies[name])
        return sum(map(count, called), Counter(COLLECTIVE.findall(bodies[name])))

    return dict(count("main"))


def lower_sharded(
    backend: tensor_parallel.TensorParallelBackend,
    program: Program,
    sizes: Sizes,
    platform: str,
    mesh: Mesh | None = None,
) -> jax.stages.Lowered:
    """A program of a model on virtual devices, for as many accelerators; inside of `traced_for`.

    mesh: devices to compile for; None only lowers.
    """
    layout = backend.layout if mesh is None else replace(backend.layout, mesh=mesh)
    args = program_arguments(program, backend, sizes, HALF, GREEDY)
    static = {place: args[place] for place in program.positions(Kind.STATIC)}
    arrays = (backend.params, *(None if place in static else arg for place, arg in enumerate(args)))
    leaves, structure = jax.tree.flatten(arrays)

    def run(leaves: list[Any]) -> list[Any]:
        params, *given = jax.tree.unflatten(structure, leaves)
        given = [static.get(place, arg) for place, arg in enumerate(given)]
        return jax.tree.leaves(tensor_parallel._sharded(program, layout, params, given))

    def struct(leaf: Any) -> Any:
        spec = getattr(getattr(leaf, "sharding", None), "spec", PartitionSpec())
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(layout.mesh, spec))

    return jax.jit(run).trace(list(map(struct, leaves))).lower(lowering_platforms=(platform,))


@dataclass(frozen=True)
class Part:
    """A compiled part of a pipeline, with the arguments of one call.

    device: of its largest arguments, the weights.
    """

    name: str
    function: Callable[..., Any]
    static: tuple[int, ...]
    args: tuple[Any, ...]

    @property
    def device(self) -> jax.Device:
        leaves = [leaf for leaf in jax.tree.leaves(self.arrays) if isinstance(leaf, jax.Array)]
        return next(iter(max(leaves, key=lambda leaf: leaf.nbytes).devices()))

    @property
    def arrays(self) -> tuple[Any, ...]:
        return tuple(None if place in self.static else arg for place, arg in enumerate(self.args))

    def lower(self, platform: str, device: Any = None) -> jax.stages.Lowered:
        """The part for a platform; with a device it can be compiled."""
        leaves, structure = jax.tree.flatten(self.arrays)

        def run(leaves: list[Any]) -> list[Any]:
            given = jax.tree.unflatten(structure, leaves)
            values = [self.args[place] if place in self.static else arg for place, arg in enumerate(given)]
            return jax.tree.leaves(self.function(*values))

        sharding = None if device is None else jax.sharding.SingleDeviceSharding(device)
        structs = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding) for leaf in leaves]
        return jax.jit(run).trace(structs).lower(lowering_platforms=(platform,))


def parts_of_a_step(llm: ml.LLM) -> list[Part]:
    """The parts that a pipeline calls for one token after a prompt, in order; they run here as well."""
    found: list[Part] = []

    def logged(name: str, function: Callable[..., Any], static: tuple[int, ...]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            found.append(Part(name, function, static, jax.tree.map(lambda leaf: leaf, args)))
            return function(*args)

        return call

    head = pipeline._compiled_head
    keeps = pipeline._run_stage_and_keep  # takes over no memory, so that the arguments can be lowered afterwards
    with ExitStack() as patches:
        for name, function, static in (
            ("_embed", pipeline._embed, (2,)),
            ("_run_stage", keeps, (1, 3, 4)),
            ("_output_norm", pipeline._output_norm, (1,)),
        ):
            patches.enter_context(patch.object(pipeline, name, logged(name, function, static)))
        patches.enter_context(
            patch.object(pipeline, "_compiled_head", lambda compute: logged(compute.__name__, head(compute), (1,)))
        )
        llm.generate([5, 17, 250, 3], n=2, temp=0.0, ignore_eos=True)
    last = max(place for place, part in enumerate(found) if part.name == "_embed")
    return found[last:]


@contextmanager
def in_place_on(count: int) -> Iterator[None]:
    """Weights stay in the file on the first `count` virtual devices; others have them as an accelerator has."""
    usual = load_weights.reads_in_place
    with patch.object(load_weights, "reads_in_place", lambda device, *kind: device.id < count and usual(device, *kind)):
        yield


def compiled_step(path: Path, count: int) -> dict[str, Any]:
    """Counts of a step of one text, and of a prompt, compiled for `count` H200."""
    from minillama.engine.accelerators.targets import TARGETS, compile_devices
    from minillama.measure.limits.collective_traffic import list_collectives, sent_bytes
    from minillama.parallel.sharding.partition_specs import tensor_mesh

    mesh, counts = tensor_mesh(compile_devices(TARGETS["cuda"], count)), {}
    with traced_for("gpu"):
        backend: Any = ml.load(path, tensor_parallel=count, ctx_size=256, progress=False).backend
        for program in (text_programs.generate, text_programs.prefill):
            text = lower_sharded(backend, program, Sizes(1, 16, 256), "cuda", mesh).compile().as_text()
            found = list_collectives(text)
            kinds: Counter[str] = Counter()
            for collective in found:
                kinds[str(collective.kind)] += collective.count or 1
            counts[program.name] = {**kinds, "sent": round(sent_bytes(found))}
    return counts


def compiled_parts(path: Path) -> dict[str, Any]:
    """Counts of each part of a step whose layers are on several devices, compiled for an H200.

    Parts of one name are added.
    """
    from minillama.engine.accelerators.compiled_counts import compiled_counts
    from minillama.engine.accelerators.targets import TARGETS, compile_device

    target, counts = TARGETS["cuda"], {}
    with in_place_on(0):
        parts = parts_of_a_step(ml.load(path, split_mode="layer", ctx_size=256, progress=False))
    with traced_for(target.backend):
        for part in parts:
            found = compiled_counts(part.lower("cuda", compile_device(target)), target)
            numbers = {name: getattr(found, name) for name in ("kernels", "loops", "graphs", "transposes")}
            before = counts.get(part.name, dict.fromkeys(("parts", *numbers), 0))
            counts[part.name] = {name: before[name] + number for name, number in ({"parts": 1} | numbers).items()}
    return counts


def main(path: str, count: str) -> None:
    """Print counts of the programs of both ways to share a model."""
    ml.env.prepare(platform="cpu", cpu_devices=int(count))
    print(json.dumps({"tensor": compiled_step(Path(path), int(count)), "layer": compiled_parts(Path(path))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
