"""One transformer for every family: frozen `Config`, `Params` pytree, pure `forward`, cache as a value.

A configuration and the sizes of its states need no JAX: the other names are imported on first use. `forward` is in the
module of its name.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from minillama.model.architectures import FAMILIES
from minillama.model.config import Config
from minillama.model.reading.read_config import read_config
from minillama.model.state_sizes import cache_bytes

if TYPE_CHECKING:
    from minillama.model.cache import Cache, empty_cache
    from minillama.model.params import Block, Linear, Params
    from minillama.model.states.key_values import KeyValues
    from minillama.model.states.stores import Store

__all__ = [
    "FAMILIES",
    "Block",
    "Cache",
    "Config",
    "KeyValues",
    "Linear",
    "Params",
    "Store",
    "cache_bytes",
    "empty_cache",
    "read_config",
]

_WITH_JAX = {
    "Block": "params",
    "Cache": "cache",
    "KeyValues": "states.key_values",
    "Linear": "params",
    "Params": "params",
    "Store": "states.stores",
    "empty_cache": "cache",
}


def __getattr__(name: str) -> object:
    """Import what needs JAX on first use: `minillama inspect` reads a configuration without it."""
    if name not in _WITH_JAX:
        raise AttributeError(f"module 'minillama.model' has no attribute {name!r}")
    return getattr(import_module(f"minillama.model.{_WITH_JAX[name]}"), name)
