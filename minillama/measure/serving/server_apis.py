"""The three streaming interfaces of servers: bodies of requests, and the meaning of events."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from minillama.measure.serving.event_stream import AnswerError
from minillama.measure.serving.workload import PlannedRequest, Workload


class EventContent(NamedTuple):
    """The content of one event; counts are None where the event does not state them."""

    text: str = ""
    last: bool = False
    tokens: int | None = None
    prompt_tokens: int | None = None  # all tokens of the prompt, cached ones included
    cached_tokens: int | None = None


@dataclass(frozen=True)
class ServerApi:
    """One interface: the path, the body of a request, and a reader of its events."""

    name: str
    path: str
    body: Callable[[PlannedRequest, Workload], dict[str, object]]
    read: Callable[[str], EventContent]
    extra_fields: tuple[str, ...] = ()  # fields that OpenAI's own servers refuse

    def request_body(self, request: PlannedRequest, workload: Workload, model: str, strict: bool) -> dict[str, object]:
        """The JSON of a request. strict: only OpenAI's own fields."""
        body = self.body(request, workload) | ({"model": model} if model else {})
        return {name: value for name, value in body.items() if not (strict and name in self.extra_fields)}


def _sampling(request: PlannedRequest, workload: Workload) -> dict[str, object]:
    fields = {"temperature": workload.temp, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "seed": request.seed}
    return fields | {"stream": True, "ignore_eos": workload.ignore_eos}


def _completion_body(request: PlannedRequest, workload: Workload) -> dict[str, object]:
    counts = {"max_tokens": request.max_tokens, "stream_options": {"include_usage": True}}
    return {"model": "any", "prompt": request.prompt, **counts, **_sampling(request, workload)}


def _chat_body(request: PlannedRequest, workload: Workload) -> dict[str, object]:
    body = _completion_body(request, workload)
    messages = [{"role": "user", "content": body.pop("prompt")}]
    return {**body, "messages": messages}


def _native_body(request: PlannedRequest, workload: Workload) -> dict[str, object]:
    return {"prompt": request.prompt, "n_predict": request.max_tokens, **_sampling(request, workload)}


def _event_object(data: str) -> dict[str, Any]:
    """The JSON object of an event; raises AnswerError if it is an error."""
    try:
        event = json.loads(data)
    except ValueError:
        raise AnswerError(f"an event without JSON: {data[:60]}") from None
    if not isinstance(event, dict):
        raise AnswerError(f"an event without an object: {data[:60]}")
    if "error" in event:
        error = event["error"]
        raise AnswerError(f"in the stream: {error.get('message', error) if isinstance(error, dict) else error}")
    return event


def _read_openai(data: str) -> EventContent:
    if data.strip() == "[DONE]":
        return EventContent(last=True)
    event = _event_object(data)
    choice = (event.get("choices") or [{}])[0]
    delta = choice.get("delta") or {}
    text = choice.get("text") or delta.get("reasoning_content") or delta.get("content") or ""
    found = EventContent(text=text)
    if usage := event.get("usage"):
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        found = found._replace(
            tokens=usage.get("completion_tokens"), prompt_tokens=usage.get("prompt_tokens"), cached_tokens=cached
        )
    return found


def _read_native(data: str) -> EventContent:
    event = _event_object(data)
    if not event.get("stop"):
        return EventContent(text=event.get("content", ""))
    cached = (event.get("timings") or {}).get("cache_n")
    return EventContent(
        event.get("content", ""), True, event.get("tokens_predicted"), event.get("tokens_evaluated"), cached
    )


_EXTRA = ("top_k", "min_p", "ignore_eos")
COMPLETIONS = ServerApi("completions", "/v1/completions", _completion_body, _read_openai, _EXTRA)
CHAT = replace(COMPLETIONS, name="chat", path="/v1/chat/completions", body=_chat_body)
NATIVE = ServerApi("native", "/completion", _native_body, _read_native)
APIS = {api.name: api for api in (COMPLETIONS, CHAT, NATIVE)}
