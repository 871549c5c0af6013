"""A disk cache of whole executables, so that the next process neither traces nor lowers.

JAX's compilation cache has the lowered text of a program as its key, and making that text takes longer than reading
the executable. The key here is made of the inputs of lowering: source code, versions, flags, the CPU kernels, and the
structure, shapes and types of the arguments. The cache also records the first programs of each model, and prefetches
them in a thread while modules are imported and the file is opened. That thread runs little Python.

`env.prepare` switches it on for the command line: a command starts often, a notebook's kernel rarely.
"""

import hashlib
import logging
import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import jax
from jax.tree_util import PyTreeDef

from minillama import env
from minillama.engine.compile.compile_timer import count_seconds
from minillama.errors import ResourceError
from minillama.kernels.cpu_available import instruction_set, load_again, loaded_kernels
from minillama.kernels.disk_cache import read_cached, write_cached
from minillama.kernels.target_platform import target_platform

if TYPE_CHECKING:
    from minillama.engine.load_options import LoadOptions

logger = logging.getLogger("minillama")


Result = TypeVar("Result")

MOST_KEPT = 200  # programs; beyond, the oldest go
MOST_REMEMBERED = 6  # programs that a model begins with
MOST_PREFETCHED = 3  # of these are fetched while the model is loaded: those of a first token


@cache
def _executable_cache() -> "ExecutableCache | None":
    """The cache of executables, or None: it pays only on one CPU device."""
    folder = env.cache_dir()
    if folder is None or not env.caches_executables() or target_platform() != "cpu" or jax.device_count() > 1:
        return None
    return ExecutableCache(folder / "programs")


def prefetch_model(file: Path, options: "LoadOptions") -> None:
    """Prefetch a model's executables before it is loaded; not where workers compute."""
    if options.workers is None:
        prefetch_executables(file, *options.program_hints)


def prefetch_executables(file: Path, *hints: object) -> None:
    """Prefetch the executables that this file used last time; record those used now.

    A second call with the same file and hints has no effect, so that a command may call it before `load` does.
    """
    if (executables := _executable_cache()) is not None:
        with suppress(OSError):  # a file that cannot be read is refused when it is opened
            status = file.stat()
            executables.prefetch((file.resolve(), status.st_size, status.st_mtime_ns, *hints))


class CachedJit(Generic[Result]):
    """A jitted function of positional arguments; the next process may find it compiled."""

    def __init__(self, function: Callable[..., Result], static: Sequence[int], donated: Sequence[int]) -> None:
        self.jitted = jax.jit(function, static_argnums=tuple(static), donate_argnums=tuple(donated))
        self.function, self.name = function, function.__name__
        self.static, self.donated = frozenset(static), frozenset(donated)

    def __call__(self, *args: object) -> Result:
        executables = _executable_cache()
        return self.jitted(*args) if executables is None else executables.run(self, args)


@dataclass(frozen=True)
class Executable:
    """A compiled program, from leaves to leaves, and the structure of its result."""

    call: Callable[..., Sequence[jax.Array]]
    result: PyTreeDef


@dataclass(frozen=True)
class Fetched:
    """A program of an earlier process.

    result: the pickled structure. It is read when the program is first used, as it imports modules of the engine: a
    thread that imports them would make the main thread wait.
    """

    call: Callable[..., Sequence[jax.Array]]
    result: bytes

    def unpickled(self) -> Executable | None:
        """The program with its structure; None if that cannot be read."""
        try:
            return Executable(self.call, pickle.loads(self.result))
        except Exception as problem:  # whatever it is, the program can be compiled again
            logger.debug("the structure of a program cannot be used: %s", problem)
            return None


class ExecutableCache:
    """A folder of compiled programs, and those that this process has."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[object, Executable] = {}  # by the arguments' structure, shapes and types
        self._fetched: dict[str, Fetched | None] = {}  # by name of the file
        self._fetching: threading.Thread | None = None
        self._list: Path | None = None
        self._used: list[str] = []

    def run(self, wanted: CachedJit[Result], args: Sequence[object]) -> Result:
        """The program's result, compiled, fetched or known."""
        static = {place: args[place] for place in wanted.static}
        leaves, structure = jax.tree.flatten([None if place in static else arg for place, arg in enumerate(args)])
        kinds = tuple((leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False)) for leaf in leaves)
        signature = wanted.name, tuple(static.values()), structure, kinds
        found = self._known.get(signature)
        if found is not None:
            return jax.tree.unflatten(found.result, found.call(*leaves))
        name = _digest(*map(str, signature))
        results = None
        if (found := self._fetched_before(name)) is not None:
            results = _try_out(found, leaves)
        if found is None or results is None:
            found = self._compile(name, wanted, static, args, leaves, structure)
            results = found.call(*leaves)
        self._remember(name)
        self._known[signature] = found
        return jax.tree.unflatten(found.result, results)

    def prefetch(self, hints: Iterable[object]) -> None:
        """See `prefetch_executables`."""
        file = self._folder / f"{_digest(*map(str, hints))}.list"
        if file == self._list:
            return
        self._list, self._used = file, []
        names = _lines(file)
        if names:  # no daemon: a process that ends in the middle of a fetch would crash
            from jax.experimental import serialize_executable  # noqa: F401  (here, as the thread should import little)

            self._fetching = threading.Thread(target=self._fetch_all, args=(names[:MOST_PREFETCHED],))
            self._fetching.start()

    def _fetched_before(self, name: str) -> Executable | None:
        started = time.perf_counter()
        if self._fetching is not None and name not in self._fetched:
            self._fetching.join()
        if name not in self._fetched:
            self._fetched[name] = self._fetch(name)
        count_seconds(time.perf_counter() - started)
        found = self._fetched[name]
        return None if found is None else found.unpickled()

    def _fetch_all(self, names: Sequence[str]) -> None:
        for name in names:
            self._fetched[name] = self._fetch(name)

    def _fetch(self, name: str) -> Fetched | None:
        """A program from the folder; None where there is none that can be used."""
        from jax.experimental.serialize_executable import deserialize_and_load

        try:
            content = read_cached(self._folder / name)
            if content is None:
                return None
            kernels, result, *compiled = pickle.loads(content)
            load_again(kernels)
            return Fetched(deserialize_and_load(*compiled), result)
        except Exception as problem:  # whatever it is, it can be compiled again
            logger.debug("program %s cannot be used: %s", name, problem)
            return None

    def _compile(
        self,
        name: str,
        wanted: CachedJit[Result],
        static: Mapping[int, object],
        args: Sequence[object],
        leaves: Sequence[object],
        structure: PyTreeDef,
    ) -> Executable:
        results = []

        def flat(*leaves: jax.Array) -> list[jax.Array]:
            dynamic = jax.tree.unflatten(structure, leaves)
            out, result = jax.tree.flatten(wanted.function(*(static.get(i, arg) for i, arg in enumerate(dynamic))))
            results.append(result)
            return out

        counts = [0 if i in static else len(jax.tree.leaves(arg)) for i, arg in enumerate(args)]
        ends = list(accumulate(counts))
        donated = [leaf for i in wanted.donated for leaf in range(ends[i] - counts[i], ends[i])]
        flat.__name__ = wanted.name
        lowered = jax.jit(flat, donate_argnums=donated).lower(*leaves)
        with without_jax_cache():
            found = Executable(lowered.compile(), results[0])
        self._keep(name, found)
        return found

    def _keep(self, name: str, found: Executable) -> None:
        """Write a program for the next process; never fatal."""
        from jax.experimental.serialize_executable import serialize

        try:
            content = pickle.dumps((loaded_kernels(), pickle.dumps(found.result), *serialize(found.call)))
            write_cached(self._folder / name, content)
            kept = sorted(self._folder.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
            for old in kept[MOST_KEPT:]:
                old.unlink(missing_ok=True)
        except Exception as problem:
            logger.debug("program %s cannot be kept: %s", name, problem)

    def _remember(self, name: str) -> None:
        """Record the programs used with these hints, in order, if they differ from last time."""
        if self._list is None:
            return
        self._used.append(name)
        if name not in _lines(self._list):
            try:
                write_cached(self._list, "\n".join(self._used[:MOST_REMEMBERED]).encode())
            except (OSError, ResourceError) as problem:
                logger.debug("%s: %s", self._list, problem)


def _try_out(found: Executable, leaves: Sequence[object]) -> Sequence[jax.Array] | None:
    """Run a program for the first time after it was fetched.

    None where it turns out to be incomplete.
    """
    try:
        return found.call(*leaves)
    except jax.errors.JaxRuntimeError as problem:
        if any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in leaves):
            raise
        logger.debug("a kept program cannot run, so it is compiled again: %s", problem)
        return None


@contextmanager
def without_jax_cache() -> Iterator[None]:
    """Compile anew: what comes out of JAX's own cache cannot be written down whole."""
    from jax.experimental.compilation_cache import compilation_cache

    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # it looks at the setting once
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _lines(file: Path) -> list[str]:
    return (read_cached(file) or b"").decode().split()


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join([_surroundings(), *texts]).encode()).hexdigest()[:32]


@cache
def _surroundings() -> str:
    """The environment of a program: sources, versions, settings, processor."""
    package = Path(__file__).parents[2]
    rooms = ("engine", "gguf", "kernels", "model", "sampling")
    files = (file for room in rooms for file in sorted((package / room).rglob("*.py")))
    sources = [
        f"{file.relative_to(package)} {stat.st_size} {stat.st_mtime_ns}" for file in files for stat in [file.stat()]
    ]
    settings = [f"{name} {value}" for name, value in sorted(jax.config.values.items())]
    machine = [jax.__version__, str(env.thread_limits()), instruction_set(), *env.xla_flags()]
    return "\n".join([*sources, *settings, *machine])
