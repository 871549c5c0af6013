"""Counters in Prometheus' text form, under llama-server's names: `/metrics`."""

from collections.abc import Callable, Sequence

from minillama.engine.batching.counters import Counters, Metrics

Row = tuple[str, str, float]  # name, help, value


class MetricsText:
    """Writes the text; rates are over the time since it was written last."""

    def __init__(self) -> None:
        self._last = Counters()

    def write(self, metrics: Metrics) -> str:
        """Three lines for each counter and gauge."""
        last, self._last = self._last, metrics.counters
        lines = [line for row in _counters(metrics) for line in _lines("counter", row)]
        lines += [line for row in _gauges(metrics, last) for line in _lines("gauge", row)]
        return "".join(lines)


def _counters(metrics: Metrics) -> Sequence[Row]:
    now = metrics.counters
    return (
        ("prompt_tokens_total", "Number of prompt tokens processed, excluding cached tokens", now.prompt_tokens),
        ("prompt_tokens_cached_total", "Number of prompt tokens reused from the cache", now.cached_tokens),
        ("prompt_seconds_total", "Total time spent processing prompts", now.prompt_seconds),
        ("tokens_predicted_total", "Number of generation tokens processed", now.generated_tokens),
        ("tokens_predicted_seconds_total", "Total time spent generating tokens", now.generated_seconds),
        ("n_decode_total", "Total number of passes of the model: prompt chunks and steps", now.chunks + now.steps),
        ("n_tokens_max", "Largest observed sequence length (prompt + generation)", now.longest_text),
        ("spec_decode_num_draft_tokens_total", "Speculative: Total draft tokens generated", now.draft_tokens),
        (
            "spec_decode_num_accepted_tokens_total",
            "Speculative: Total draft tokens accepted",
            now.accepted_drafts,
        ),
        ("spec_decode_num_drafts_total", "Speculative: Total verification steps", now.drafts),
    )


def _gauges(metrics: Metrics, last: Counters) -> Sequence[Row]:
    now = metrics.counters

    def rate(count: Callable[[Counters], float], seconds: Callable[[Counters], float]) -> float:
        passed = seconds(now) - seconds(last)
        return (count(now) - count(last)) / passed if passed > 0 else 0.0

    passes = now.chunks + now.steps
    busy = (now.chunks + now.step_rows) / passes if passes else 0.0
    read = rate(lambda each: each.prompt_tokens, lambda each: each.prompt_seconds)
    written = rate(lambda each: each.generated_tokens, lambda each: each.generated_seconds)
    return (
        ("prompt_tokens_seconds", "Average prompt throughput in tokens/s", read),
        ("predicted_tokens_seconds", "Average generation throughput in tokens/s", written),
        ("requests_processing", "Number of requests processing", metrics.processing),
        ("requests_deferred", "Number of requests deferred", metrics.waiting),
        ("n_busy_slots_per_decode", "Average number of busy slots per pass of the model", busy),
    )


def _lines(kind: str, row: Row) -> Sequence[str]:
    name, meaning, value = row
    full = f"llamacpp:{name}"
    return f"# HELP {full} {meaning}\n", f"# TYPE {full} {kind}\n", f"{full} {value:.10g}\n"
