"""One transformer for every family: frozen `Config`, `Params` pytree, pure `forward`, cache as a value."""

from minillama.model.architectures import FAMILIES
from minillama.model.cache import Cache, cache_bytes, empty_cache
from minillama.model.config import Config
from minillama.model.forward import forward, unembed
from minillama.model.params import Block, Linear, Params
from minillama.model.reading.read_config import read_config
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
    "forward",
    "read_config",
    "unembed",
]
