"""One transformer for every family: frozen `Config`, `Params` pytree, pure `forward`, cache as a value.

A configuration and the sizes of its states need no JAX: the other names are imported on first use. `forward` is in the
module of its name.
"""

from typing import TYPE_CHECKING

from minillama.lazy_imports import import_on_use
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

# Imported on first use, as they need JAX: `minillama inspect` reads a configuration without it.
__getattr__ = import_on_use(
    __name__,
    {
        "Block": "params",
        "Cache": "cache",
        "KeyValues": "states.key_values",
        "Linear": "params",
        "Params": "params",
        "Store": "states.stores",
        "empty_cache": "cache",
    },
)
