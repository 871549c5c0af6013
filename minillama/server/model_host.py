"""The model of a server and its batch engine, loaded while HTTP already answers."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from anyio import CapacityLimiter, to_thread

from minillama import __version__
from minillama.engine.batching.counters import Metrics, sum_counters
from minillama.engine.batching.device.slot_file import model_fingerprint
from minillama.errors import ResourceError
from minillama.sampling import SamplingOptions
from minillama.server.garbage import HeapTrim, begin_collecting, collect_everything
from minillama.server.idle_sleep import IdleSleep
from minillama.server.metrics_text import MetricsText
from minillama.server.requests.token_options import read_breakers
from minillama.server.settings import ServerSettings
from minillama.tokenizer.chat.chat_formats import BUILTIN_TEMPLATES
from minillama.tokenizer.chat.chat_template import ChatTemplate

if TYPE_CHECKING:
    from minillama.engine.batching.batch_engine import BatchEngine
    from minillama.engine.llm import LLM
    from minillama.server.answers.generation import Generation

logger = logging.getLogger("minillama")

BUILD_INFO = f"b{__version__}-minillama"  # llama-server's begins with a b, too
DEFAULT_THREADS = 4
Result = TypeVar("Result")


class ModelHost:
    """Loads the model on a thread of its own.

    `llm` and `engine` are there when it `is_ready`.

    open_model: loads the model. on_ready, on_error: called on that thread at the end.
    """

    def __init__(
        self,
        settings: ServerSettings,
        open_model: Callable[[], "LLM"],
        on_ready: Callable[["ModelHost"], None] = lambda host: None,
        on_error: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self.settings = settings
        self.started_at = time.time()
        self.is_ready = self.is_closed = False
        self.llm: LLM
        self.engine: BatchEngine
        self._open_model, self._on_ready, self._on_error = open_model, on_ready, on_error
        self._resources = ExitStack()
        self._lock = threading.Lock()
        self.latest: dict[int, Generation] = {}  # slot -> its last completion
        self.metrics_text = MetricsText()
        self.sleep = IdleSleep(settings.idle_seconds, self.unload, self.load)
        self._past: Metrics | None = None  # of engines before this one
        threads = settings.http_threads
        self._limiter_size = threads if threads > 0 else DEFAULT_THREADS

    def start(self) -> threading.Thread:
        """Load the model on a new thread."""
        thread = threading.Thread(target=self._run, name="load-model", daemon=True)
        thread.start()
        return thread

    def load(self) -> None:
        """Load the model on this thread; raises its error."""
        llm = self._open_model()
        if self.settings.breakers:  # tokens are known only now
            breakers = read_breakers(list(self.settings.breakers), llm.tokenizer)
            sampling = SamplingOptions(**{**self.settings.sampling, "dry_sequence_breakers": breakers})
            self.settings = replace(self.settings, sampling=sampling)
        llm.requests.grammars.compile(self.settings.grammar or None)  # raises its error now
        engine = llm.batch_engine(
            slots=self.settings.slots,
            ctx_size=self.slot_context(llm),
            slot_prompt_similarity=self.settings.slot_similarity,
            cache_ram=self.settings.cache_ram,
            draft_max=self.settings.draft.most,
        )
        with self._lock:
            self._resources.callback(llm.close)
            self._resources.callback(engine.close)
            if self.is_closed:
                self._resources.close()
                return
            if self.settings.owns_process:
                self._resources.callback(HeapTrim().stop)
            self.llm, self.engine, self.is_ready = llm, engine, True
        if self.settings.owns_process:
            begin_collecting()

    def slot_context(self, llm: "LLM") -> int | None:
        """Tokens of context of each slot; None for as many as memory allows."""
        if self.settings.shared_context:
            return llm.ctx_size if self.settings.ctx_size > 0 else None
        share = llm.ctx_size // self.settings.slots
        return min(-(-share // 256) * 256, llm.ctx_size)

    def unload(self) -> None:
        """Release the model, which `load` opens again."""
        with self._lock:
            if self.is_closed:
                return
            self._past = replace(self._summed(), processing=0, waiting=0)
            self._resources.close()
            self.latest.clear()
            del self.llm, self.engine
        collect_everything()

    def metrics(self) -> Metrics:
        """Counters since the start of the server, and the state now."""
        return self._past if self.sleep.is_asleep and self._past is not None else self._summed()

    def _summed(self) -> Metrics:
        now = self.engine.metrics()
        return now if self._past is None else replace(now, counters=sum_counters(self._past.counters, now.counters))

    def close(self) -> None:
        """End all streams, and release the model."""
        self.sleep.stop()
        with self._lock:
            self.is_ready, self.is_closed = False, True
            self._resources.close()

    @cached_property
    def model_fingerprint(self) -> str:
        """A hash of the model file and the cache types; slots on disk have it."""
        return model_fingerprint(self.llm.path, self.llm.cache_types)

    @property
    def model_name(self) -> str:
        """The first alias by alphabet, else the name of the file."""
        return min(self.settings.aliases) if self.settings.aliases else self.llm.path.name

    @cached_property
    def template(self) -> ChatTemplate:
        """The model's chat template; chatml where it has none, as in llama-server."""
        tokenizer = self.llm.tokenizer
        bos, eos = ("" if token is None else tokenizer.tokens[token] for token in (tokenizer.bos, tokenizer.eos))
        return self.llm.template or ChatTemplate(BUILTIN_TEMPLATES["chatml"], bos, eos)

    @cached_property
    def _limiter(self) -> CapacityLimiter:
        return CapacityLimiter(self._limiter_size)

    async def ask_engine(self, function: Callable[[], Result]) -> Result:
        """Call a function that waits for the engine, on another thread."""
        return await to_thread.run_sync(function)

    async def in_thread(self, function: Callable[[], Result]) -> Result:
        """Run slow work on one of a few threads; others wait for their turn."""
        return await to_thread.run_sync(function, limiter=self._limiter)

    def _run(self) -> None:
        try:
            self.load()
            self.sleep.start()
        except BaseException as error:
            self._on_error(error)
        else:
            self._on_ready(self)
            self._warm_up()
            if self.settings.owns_process:
                begin_collecting()

    def _warm_up(self) -> None:
        """Compile the programs of default options; requests are served in between."""
        if self.settings.warm_up:
            with suppress(ResourceError):  # the engine was closed meanwhile
                self.engine.warm_up()
