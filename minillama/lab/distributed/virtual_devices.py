"""One layer and one product on several devices, for a choice of PartitionSpecs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from minillama.array_types import Float32
from minillama.engine.backends.programs import text_programs
from minillama.engine.backends.tensor_parallel import TensorParallelBackend
from minillama.engine.llm import LLM
from minillama.errors import OptionError, ResourceError
from minillama.measure.limits.collective_traffic import Collective, list_collectives
from minillama.model import Cache
from minillama.parallel.sharding.partition_specs import AXIS, tensor_mesh
from minillama.sampling import SamplerState, Sampling
from minillama.sampling.mersenne_twister import seed_words

DEVICES = 8
TOKENS, WIDTH, HEADS, HEAD, FEED = 4, 128, 8, 16, 256
SHAPES = {  # weights [N, K] of a small layer, named and stored as in GGUF
    "attn_q": (HEADS * HEAD, WIDTH),
    "attn_k": (HEADS * HEAD, WIDTH),
    "attn_v": (HEADS * HEAD, WIDTH),
    "attn_output": (WIDTH, HEADS * HEAD),
    "ffn_gate": (FEED, WIDTH),
    "ffn_up": (FEED, WIDTH),
    "ffn_down": (WIDTH, FEED),
}
Weights = Mapping[str, Array]


@dataclass(frozen=True)
class DeviceResults:
    """Results of all devices along a new first axis, and the collectives."""

    results: Float32[np.ndarray, "devices ..."]
    ledger: tuple[Collective, ...]


def virtual_mesh(devices: int = DEVICES) -> Mesh:
    """A one-axis mesh of the first `devices` CPU devices.

    Raises ResourceError if JAX started with fewer.
    """
    found = jax.devices("cpu")
    if len(found) < devices:
        raise ResourceError(
            f"JAX started with {len(found)} CPU devices, but {devices} are needed; restart the kernel and run "
            f"the first cell first: ml.env.prepare(cpu_devices={devices})"
        )
    return tensor_mesh(found[:devices])


def on_each_device(
    function: Callable[..., Array], specs: Sequence[PartitionSpec], *arrays: np.ndarray
) -> DeviceResults:
    """Run a function on each device's parts of the arrays; return all results."""
    mesh = virtual_mesh()

    def stacked(*parts: Array) -> Array:
        return function(*parts)[None]

    program = jax.shard_map(stacked, mesh=mesh, in_specs=tuple(specs), out_specs=PartitionSpec(AXIS), check_vma=False)
    compiled = jax.jit(program).lower(*arrays).compile()
    return DeviceResults(np.asarray(compiled(*arrays), np.float32), list_collectives(compiled.as_text()))


def step_ledger(llm: LLM) -> tuple[Collective, ...]:
    """Collectives of one token of a tensor-parallel model, sampling included.

    Raises OptionError for a model on one device.
    """
    backend = llm.backend
    if not isinstance(backend, TensorParallelBackend):
        raise OptionError("the model is on one device and sends nothing; load it with tensor_parallel=2")
    chain, one = backend.chain(Sampling()), np.ones(1, np.int32)
    cache = backend.new_cache(64, llm.cache_types)
    recent, seed = np.zeros((1, chain.window), np.int32), seed_words(1)[None]
    state = backend.call(text_programs.start, chain, seed, recent, one)

    def step(cache: Cache, state: SamplerState, ids: Array) -> object:
        return backend.call(text_programs.generate, cache, chain, state, ids, None, None)

    program = jax.jit(step).lower(cache, state, np.zeros((1, 1), np.int32))
    return list_collectives(program.compile().as_text())


def layer_shapes(llm: LLM) -> dict[str, tuple[int, ...]]:
    """Shapes of the first layer's tensors by field name; [N, K] of a matrix."""
    start, end = "blk.0.", ".weight"
    tensors = llm.file.tensors.items()
    return {
        name[len(start) : -len(end)]: t.shape for name, t in tensors if name.startswith(start) and name.endswith(end)
    }


def layer(weights: Weights, x: Float32[Array, "T D"]) -> Float32[Array, "T D"]:
    """A Llama layer without norm weights and RoPE, which need no other device."""

    def norm(x: Array) -> Array:
        return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5)

    h = norm(x)
    q, k, v = (jnp.reshape(h @ weights[name].T, (-1, HEADS, HEAD)) for name in ("attn_q", "attn_k", "attn_v"))
    scores = jnp.einsum("TNH,SNH->NTS", q, k) / HEAD**0.5
    seen = jnp.tril(jnp.ones(scores.shape[1:], bool))[None]
    heads = jnp.einsum("NTS,SNH->TNH", jax.nn.softmax(jnp.where(seen, scores, -jnp.inf)), v)
    x = x + heads.reshape(-1, HEADS * HEAD) @ weights["attn_output"].T
    h = norm(x)
    return x + (jax.nn.silu(h @ weights["ffn_gate"].T) * (h @ weights["ffn_up"].T)) @ weights["ffn_down"].T


def layer_ledger(specs: Mapping[str, PartitionSpec]) -> tuple[Collective, ...]:
    """Collectives that XLA inserts into one layer with these PartitionSpecs.

    x is replicated."""
    mesh = virtual_mesh()
    placed = {name: NamedSharding(mesh, specs[name]) for name in SHAPES}
    whole = NamedSharding(mesh, PartitionSpec())
    shapes = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in SHAPES.items()}
    x = jax.ShapeDtypeStruct((TOKENS, WIDTH), jnp.float32)
    program = jax.jit(layer, in_shardings=(placed, whole), out_shardings=whole)
    return list_collectives(program.lower(shapes, x).compile().as_text())
