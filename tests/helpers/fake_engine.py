"""A batch engine without a model: it writes the same text for every request, on a thread of its own."""

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

from minillama.engine.batching.batch_errors import ContextSizeError
from minillama.engine.batching.batch_stream import BatchStream
from minillama.engine.batching.counters import Counters, Metrics, SlotInfo
from minillama.engine.grammar.compiler import GrammarCompiler
from minillama.engine.result import Completion, Piece, Reason, Timings, TokenProb
from minillama.tokenizer import Tokenizer

TIMINGS = Timings(0.0, 0.0, 0.25, 0.3, 0.5, 3, 3, (0.1, 0.1))


class FakeEngine:
    """Answers `tokens` ids with text " t" each, or waits for `cancel` where `endless` is set.

    submitted: the options of each request.
    """

    def __init__(self, ctx_size: int = 64, slots: int = 2) -> None:
        self.ctx_size, self.slots, self.endless = ctx_size, slots, False
        self.submitted: list[dict[str, object]] = []
        self.streams: list[BatchStream] = []
        self.error: Exception | None = None
        self.drafted = 0, 0  # tokens guessed and accepted for each request

    def submit(self, ids: list[int], **options: object) -> BatchStream:
        """Start a thread that writes the answer."""
        if len(ids) >= self.ctx_size:
            raise ContextSizeError(len(ids), self.ctx_size)
        on_change = options.get("on_change")
        assert on_change is None or isinstance(on_change, Callable)
        stream = BatchStream(len(self.streams), len(ids), 1, lambda stream: None, on_change)
        self.submitted.append({"ids": ids, **options})
        self.streams.append(stream)
        threading.Thread(target=self._write, args=(stream, options), daemon=True).start()
        return stream

    def slots_info(self) -> list[SlotInfo]:
        """Idle slots."""
        return [SlotInfo(number, self.ctx_size, 3, None, 0, 0) for number in range(self.slots)]

    def metrics(self) -> Metrics:
        """Fixed counters."""
        return Metrics(Counters(prompt_tokens=10, generated_tokens=4, steps=3, step_rows=4, chunks=1), 2, 0, 0, 0, 0)

    def close(self) -> None:
        """Nothing to release."""

    def _write(self, stream: BatchStream, options: dict[str, object]) -> None:
        stream.begin(0, 1, 0.05)
        stream.drafted_tokens, stream.accepted_tokens = self.drafted
        stream.notify()
        stream.progress(stream.prompt_tokens - 1)
        pieces: list[Piece] = []
        count = int(options.get("n", -1))  # type: ignore[call-overload]
        while (self.endless or len(pieces) < (count if count >= 0 else 3)) and not stream.is_cancelled:
            top = (TokenProb(7, -0.5), TokenProb(8, -1.5)) if options.get("n_probs") else ()
            pieces.append(Piece(" t", 7, -0.5, 0.3 if not pieces else 0.1, top=top))
            stream.deliver(pieces[-1])
            stream.notify()
            if self.error is not None:
                stream.fail(self.error)
                stream.notify()
                return
            time.sleep(0.002 if self.endless else 0)
        reason = Reason.INTERRUPTED if stream.is_cancelled else Reason.LIMIT
        tokens, logprobs = tuple(piece.token for piece in pieces), tuple(piece.logprob for piece in pieces)
        text = " t" * len(pieces)
        stream.end(Completion(text, tokens, logprobs, reason, stream.prompt_tokens, 1, TIMINGS))
        stream.notify()


def fake_llm(tokenizer: Tokenizer, sampling: Callable[..., object]) -> SimpleNamespace:
    """What the server asks of a model, around a tokenizer."""
    return SimpleNamespace(
        tokenizer=tokenizer, sampling=sampling, template=None, draft=None, batches=SimpleNamespace(batch_size=2048),
        close=lambda: None, requests=SimpleNamespace(grammars=GrammarCompiler(tokenizer)),
    )  # fmt: skip
