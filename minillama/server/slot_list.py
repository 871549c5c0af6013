"""The state of each slot: `/slots`."""

from minillama.engine.batching.counters import SlotInfo
from minillama.server.answers.generation import Generation
from minillama.server.answers.generation_settings import generation_settings
from minillama.server.model_host import ModelHost


def slot_list(host: ModelHost) -> list[dict[str, object]]:
    """One object for each slot, with the options of its last request.

    Waits for the engine's turn.
    """
    return [_slot(info, host.latest.get(info.number)) for info in host.engine.slots_info()]


def _slot(info: SlotInfo, latest: Generation | None) -> dict[str, object]:
    is_processing = info.request is not None
    shown: dict[str, object] = {
        "id": info.number,
        "n_ctx": info.capacity,
        "speculative": info.is_drafted,
        "is_processing": is_processing,
    }
    if latest is None:
        return shown
    stream, n = latest.stream, latest.request.most_tokens
    next_token = {
        "has_next_token": is_processing,
        "has_new_line": latest.has_new_line,
        "n_remain": n - info.generated if is_processing and n >= 0 else -1,
        "n_decoded": info.generated if is_processing else 0,
    }
    return shown | {
        "id_task": stream.number,
        "n_prompt_tokens": info.tokens,
        "n_prompt_tokens_processed": stream.read_tokens - stream.cached_tokens if is_processing else 0,
        "n_prompt_tokens_cache": stream.cached_tokens if is_processing else 0,
        "params": generation_settings(latest.request, short=True),
        "next_token": [next_token],
    }
