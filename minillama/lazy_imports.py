"""Names of a package that are imported on first use."""

from collections.abc import Callable, Mapping
from importlib import import_module


def import_on_use(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """The `__getattr__` of a package.

    modules: the module of each name, below the package. Other names raise AttributeError.
    """

    def find(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return find
