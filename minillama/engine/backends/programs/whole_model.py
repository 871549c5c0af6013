"""A whole model, or a device's shard of it, as programs see it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from jax import Array

from minillama.array_types import Float, Int
from minillama.engine.backends.programs.program import Counts, Ids
from minillama.model import Cache, Config, Params
from minillama.model.forward import forward, forward_last


@dataclass(frozen=True)
class WholeModel:
    """A model, or a device's shard of it, inside of one compiled program."""

    params: Params
    config: Config

    def forward(
        self, cache: Cache, ids: Ids, valid: Counts | None = None, *, keeps: bool = False
    ) -> tuple[Float[Array, "B T D"], Cache]:
        return forward(self.params, self.config, ids, cache, valid=valid)

    def forward_last(self, cache: Cache, ids: Ids, n_valid: Counts) -> tuple[Float[Array, "B D"], Cache]:
        return forward_last(self.params, self.config, ids, cache, n_valid)

    def head(self, compute: Callable[..., tuple[Any, Any]], *args: Any, blank: object = None) -> tuple[Any, Any]:
        return compute(self.params, self.config, *args)

    def advance(self, cache: Cache, after: Cache, ids: Ids, count: Int[Array, "B"]) -> Cache:
        if self.config.is_recurrent:
            return self.forward_last(cache, ids, count)[1]
        return replace(after, length=cache.length + count)
