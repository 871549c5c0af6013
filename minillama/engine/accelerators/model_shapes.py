"""The arrays of a model on an accelerator without their values, and its programs lowered.

Parameters are those of `load_params`, so that each matrix has the form that it would have on the accelerator.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding
from jax.tree_util import PyTreeDef

from minillama.engine.accelerators.program_arguments import Sizes, program_arguments
from minillama.engine.accelerators.targets import Target
from minillama.engine.backends.packed_params import pack
from minillama.engine.backends.programs.program import Kind, Model, Program
from minillama.engine.backends.programs.whole_model import WholeModel
from minillama.engine.loading.load_params import TensorSource, config_of, load_params
from minillama.errors import UnsupportedError
from minillama.gguf import GGUF, Tensor
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.gguf.quantisation_mixes import Mix
from minillama.gguf.types import row_bytes
from minillama.kernels import Weight, check_supported, weight_of_zeros
from minillama.kernels.target_platform import traced_for
from minillama.model import Config, Params, empty_cache
from minillama.random_models.model_shape import ModelShape
from minillama.random_models.model_writer import tensor_specs
from minillama.sampling import Sampling
from minillama.sampling.chain_builder import build_packed_chain


@dataclass(frozen=True)
class ModelShapes:
    """The arrays of a model on an accelerator, by shape and type.

    leaves: of `PackedParams`, whose structure is `structure`. file_bytes: of the tensors in the file.
    read_bytes: of the parameters that a step reads for one token. Of experts it reads those that it uses, of a table of
    embeddings nearly nothing.
    """

    name: str
    config: Config
    target: Target
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    structure: PyTreeDef
    file_bytes: int
    read_bytes: int

    @property
    def held_bytes(self) -> int:
        """Bytes of all parameters on the accelerator."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in self.leaves)

    @cached_property
    def maker(self) -> "HostMaker":
        """Makes caches and samplers of zeros in the host's memory."""
        return HostMaker(self.config)

    def lower(
        self, program: Program, sizes: Sizes, types: CacheTypes, sampling: Sampling, device: Any = None
    ) -> jax.stages.Lowered:
        """A program lowered for the accelerator; with a device of `compile_device` it can be compiled."""
        with traced_for(self.target.backend):
            return self.trace(program, sizes, types, sampling, device).lower(lowering_platforms=(self.target.platform,))

    def trace(
        self, program: Program, sizes: Sizes, types: CacheTypes, sampling: Sampling, device: Any = None
    ) -> jax.stages.Traced:
        """A program traced for the platform of `traced_for`."""
        sharding = None if device is None else SingleDeviceSharding(device)

        def struct(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        given = program_arguments(program, self.maker, sizes, types, sampling)
        static = set(program.positions(Kind.STATIC))
        split = [jax.tree.flatten(None if place in static else arg) for place, arg in enumerate(given)]

        def run(weights: Sequence[Any], *leaves: Sequence[Any]) -> list[Any]:
            params = jax.tree.unflatten(self.structure, weights).unpack()
            values = [jax.tree.unflatten(structure, leaf) for leaf, (_, structure) in zip(leaves, split, strict=True)]
            values = [given[place] if place in static else value for place, value in enumerate(values)]
            return jax.tree.leaves(program.function(WholeModel(params, self.config), *values))

        run.__name__ = program.name
        structs = [list(map(struct, self.leaves)), *([struct(leaf) for leaf in leaves] for leaves, _ in split)]
        return jax.jit(run, donate_argnums=tuple(1 + place for place in program.donated)).trace(*structs)


@dataclass(frozen=True)
class HostMaker:
    """Caches and samplers in the host's memory; zeros take none until they are written."""

    config: Config

    def new_cache(self, capacity: int, types: CacheTypes, batch: int = 1, chunk: int | None = None) -> Any:
        return empty_cache(self.config, capacity, types, batch, chunk=chunk)

    def chain(self, sampling: Sampling, *, is_shared: bool = False) -> Any:
        return build_packed_chain(sampling, self.config.vocab_size, is_shared=is_shared)

    def call(self, program: Program, *args: Any) -> Any:
        """Programs that use no parameters: those of samplers."""
        given = [arg if isinstance(arg, int) else jax.tree.map(jnp.asarray, arg) for arg in args]
        return program.function(_Samplers(self.config), *given)


@dataclass(frozen=True)
class _Samplers(Model):
    """A model for programs that use none of its parameters."""

    config: Config

    def head(self, compute: Callable[..., tuple[Any, Any]], *args: Any, blank: object = None) -> tuple[Any, Any]:
        return compute(None, self.config, *args)


def shapes_of_model(file: GGUF, target: Target, ctx_size: int, layers: int | None = None) -> ModelShapes:
    """The arrays of a file on an accelerator; nothing of the weights is read.

    layers: the number of layers to keep, from the first; None for all. Raises the errors of `load_params`.
    """
    config = config_of(file)
    kept, structures, read = config if layers is None else first_layers(config, layers), [], []

    def load() -> list[Any]:
        devices = [jax.devices("cpu")[0]] * (kept.block_count + 1)
        params = load_params(file, kept, ctx_size, devices, source=_Shapes(file, _no_advance))
        leaves, structure = jax.tree.flatten(pack(params, jnp.concatenate))
        structures.append(structure)
        read.append(_read_bytes(params, kept))
        return leaves

    with traced_for(target.backend):
        leaves = jax.eval_shape(load)
    return ModelShapes(file.path.name, kept, target, tuple(leaves), structures[-1], file.nbytes, read[-1])


def file_of_shape(shape: ModelShape, file_type: str) -> GGUF:
    """A file that `synth` would write, of zeros that take no memory."""
    path = Path(f"{shape.name} {file_type}")
    tensors = {}
    for spec in tensor_specs(shape, Mix.named(file_type)):
        size = *spec.shape[:-1], row_bytes(spec.shape[-1], spec.type)
        zeros = np.broadcast_to(np.uint8(0), size)
        tensors[spec.name] = Tensor(spec.name, tuple(spec.shape), spec.type, zeros, 0, path)
    values = {f"{shape.architecture}.{key}": value for key, value in shape.metadata.items()}
    arrays = {key: np.array(value) if isinstance(value, list) else value for key, value in values.items()}
    return GGUF(path, 3, {"general.architecture": shape.architecture, **arrays}, {}, tensors, {}, {}, ())


def first_layers(config: Config, count: int) -> Config:
    """The configuration of the same model with fewer layers."""
    return replace(config, layers=config.layers[:count])


def _read_bytes(params: Params, config: Config) -> int:
    """Bytes of the parameters that a step of one token reads."""
    used = config.experts.used / config.experts.count if config.experts.count else 1.0
    total = 0.0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        place = jax.tree_util.keystr(path)
        untied = params.output is not None and place.startswith(".token_embd")
        is_table = untied or place.startswith(".per_layer.token_embd")
        total += 0 if is_table else leaf.size * leaf.dtype.itemsize * (used if "_exps" in place else 1)
    return round(total)


def _no_advance(size: int) -> None:
    return


class _Shapes(TensorSource):
    """Tensors of zeros, made where nothing is computed: inside of `jax.eval_shape`."""

    def matrix(self, tensor: Tensor, device: Any) -> Weight:
        check_supported(tensor)
        return weight_of_zeros(tensor.data.shape, tensor.type)

    def vector(self, tensor: Tensor, device: Any) -> jax.Array:
        return jnp.zeros(tensor.size, jnp.float32)

    def key_and_value_maps(self, name: str, shape: tuple[int, ...], layer: Any, device: Any) -> Any:
        raise UnsupportedError(f"{name}: files with attn_kv_b cannot be compiled ahead; convert the model again")
