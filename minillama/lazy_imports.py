"""Shorter imports: names on first use, and JAX without the metadata of all packages."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import PurePath


def import_on_use(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """The `__getattr__` of a package.

    modules: the module of each name, below the package. Other names raise AttributeError.
    """

    def find(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return find


@contextmanager
def jax_packages_only() -> Iterator[None]:
    """While JAX is imported, show it only those installed packages whose names begin with `jax`.

    JAX 0.10 reads the metadata of every package to find `jax-rocm..-plugin`: 0.3 ms for each.
    """
    from importlib import metadata

    every = metadata.distributions

    def of_jax(**context: object) -> Iterator[metadata.Distribution]:
        for package in every(**context):
            folder = getattr(package, "_path", None)  # NAME-VERSION.dist-info
            if folder is None or PurePath(str(folder)).name.lower().startswith("jax"):
                yield package

    metadata.distributions = of_jax
    try:
        yield
    finally:
        metadata.distributions = every
