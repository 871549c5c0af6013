"""Requests to the server: any body gets an answer or an error of llama-server's form."""

import copy
import json
import random
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from fake_engine import FakeEngine, fake_llm
from starlette.testclient import TestClient
from vocabularies import spm_metadata

from minillama.engine.batching.batch_stream import BatchStream
from minillama.engine.grammar.compiler import GrammarCompiler
from minillama.sampling import Sampling
from minillama.server.app import build_app
from minillama.server.http_errors import ErrorKind
from minillama.server.model_host import ModelHost
from minillama.server.settings import ServerSettings
from minillama.tokenizer import load_tokenizer
from tests.fuzz import hostile_values
from tests.fuzz.byte_mutations import mutate_bytes
from tests.fuzz.case_kind import Finding, Kind

VOCABULARY = {"▁once": -1.0, "▁upon": -2.0, "▁a": -3.0, "▁t": -4.0, "▁": -5.0, '{"': -6.0, "}": -7.0}
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
TOOL = {
    "name": "f",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": 3},
            "b": {"anyOf": [{"type": "string", "pattern": "^x+$"}, {"$ref": "#/$defs/c"}]},
        },
        "$defs": {"c": {"const": 1}},
    },
}
SAMPLING = {
    "n_predict": 3, "temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.05, "typical_p": 1.0, "seed": 1,
    "repeat_penalty": 1.1, "repeat_last_n": 64, "dry_multiplier": 0.8, "dry_sequence_breakers": ["\n"], "mirostat": 2,
    "xtc_probability": 0.1, "logit_bias": [[3, -1.0], ["once", False]], "samplers": ["top_k", "temperature"],
    "stop": ["t"], "n_probs": 2, "post_sampling_probs": True, "ignore_eos": True, "cache_prompt": False, "n": 2,
    "stream": True, "timings_per_token": True, "return_progress": True, "return_tokens": True, "id_slot": 1,
    "t_max_predict_ms": 100, "response_fields": ["content"], "grammar": 'root ::= "a" [b-z]{2,3}',
    "json_schema": {"type": "array", "items": {"enum": ["x", 1, None]}, "maxItems": 3}, "min_keep": 1,
    "tool_choice": "auto", "reasoning_budget_tokens": 0, "reasoning_budget_start_tag": "<a>",
    "reasoning_budget_end_tags": ["</a>"], "reasoning_budget_message": "so",
}  # fmt: skip
BODIES = (
    ("/completion", {"prompt": "once upon a", **SAMPLING}),
    ("/completion", {"prompt": [["once", 3], [1, 2, 3]], "n_predict": 2}),
    ("/v1/completions", {"prompt": ["once", "upon"], "max_tokens": 2, "logprobs": 2, "echo": False, "suffix": ""}),
    ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 2, "stream": True, "logprobs": True,
                              "top_logprobs": 2, "stream_options": {"include_usage": True}}),
    ("/v1/chat/completions", {"messages": MESSAGES, "tools": [{"type": "function", "function": TOOL}],
                              "tool_choice": "required", "parallel_tool_calls": False, "reasoning_format": "auto",
                              "reasoning_budget_tokens": 3, "reasoning_budget_message": "so",
                              "chat_template_kwargs": {"enable_thinking": False}, "n": 2,
                              "response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}),
    ("/v1/chat/completions", {"messages": MESSAGES, "tools": [{"type": "function", "function": TOOL}], "max_tokens": 2,
                              "tool_choice": {"type": "function", "function": {"name": "f"}}}),
    ("/v1/messages", {"messages": [{"role": "user", "content": "Hi"}], "system": "x", "max_tokens": 2, "stream": True,
                      "tool_choice": {"type": "any"}, "thinking": {"type": "enabled", "budget_tokens": 3},
                      "tools": [{"name": "f", "input_schema": {"type": "object"}}], "stop_sequences": ["t"]}),
    ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "Hi"}]}),
    ("/v1/responses", {"input": [{"role": "user", "content": "Hi"}], "instructions": "x", "max_output_tokens": 2,
                       "stream": True, "tools": [{"type": "function", **TOOL}]}),
    ("/tokenize", {"content": ["once", 3], "add_special": True, "parse_special": False, "with_pieces": True}),
    ("/detokenize", {"tokens": [1, 2, 3]}),
    ("/apply-template", {"messages": MESSAGES, "chat_template_kwargs": {"a": 1}}),
    ("/v1/chat/completions/input_tokens", {"messages": MESSAGES}),
    ("/v1/embeddings", {"input": ["once", [1, 2]], "encoding_format": "base64"}),
    ("/slots/0?action=save", {"filename": "a.bin"}),
    ("/infill", {"input_prefix": "a"}),
)  # fmt: skip
KINDS = {(kind.label, kind.status) for kind in ErrorKind}


@dataclass(frozen=True)
class Sent:
    """A request."""

    method: str
    path: str
    body: bytes


class ShortEngine(FakeEngine):
    """Writes three tokens at most, and keeps nothing of earlier requests."""

    def submit(self, ids: list[int], **options: object) -> BatchStream:
        count = options.get("n", -1)
        assert isinstance(count, int)
        stream = super().submit(ids, **{**options, "n": min(count, 3) if count >= 0 else 3})
        self.submitted.clear()
        self.streams.clear()
        return stream


class RequestKind(Kind[Sent]):
    """Requests to every endpoint, on an engine without a model."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        tokenizer = load_tokenizer(spm_metadata(VOCABULARY))
        host = ModelHost(ServerSettings(slots=2, aliases=("a",), has_metrics=True), lambda: None)
        llm = fake_llm(tokenizer, Sampling)
        llm.requests = SimpleNamespace(grammars=GrammarCompiler(tokenizer))
        host.llm, host.engine, host.is_ready = llm, ShortEngine(400), True
        self._client = TestClient(build_app(host))
        self._client.__enter__()

    def make(self, rng: random.Random) -> Sent:
        path, body = rng.choice(BODIES)
        body = copy.deepcopy(body)
        for key in list(body):
            if key not in ("prompt", "messages") and rng.random() < 0.6:
                del body[key]
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            _change(rng, body)
        content = json.dumps(body).encode()
        if rng.random() < 0.2:
            content = mutate_bytes(rng, content)
        return Sent(rng.choice(("POST",) * 30 + ("GET", "PUT", "OPTIONS")), path, content)

    def run(self, given: Sent) -> str:
        headers = {"Content-Type": "application/json"}
        answer = self._client.request(given.method, given.path, content=given.body, headers=headers)
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            return _check_events(answer.text)
        if answer.status_code < 400:
            return "answered"
        _check_error(answer.json(), answer.status_code)
        return f"error {answer.status_code}"

    def files(self, given: Sent) -> dict[str, bytes]:
        return {"request.txt": f"{given.method} {given.path}".encode(), "body": given.body}

    def close(self) -> None:
        self._client.__exit__(None, None, None)


def _change(rng: random.Random, body: dict[str, object]) -> None:
    """Put a hostile value somewhere, or a field of another request."""
    if rng.random() < 0.3:
        name = rng.choice(sorted(SAMPLING))
        body[name] = copy.deepcopy(SAMPLING[name])
    place: object = body
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = rng.choice(keys)
        inner = place[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.6:
            place = inner
            continue
        place[key] = _value(rng)
        return


def _value(rng: random.Random, depth: int = 0) -> object:
    choice = rng.randrange(8)
    if choice == 0:
        return rng.choice((None, True, False))
    if choice == 1:
        return hostile_values.floating(rng)
    if choice in (2, 3):
        return hostile_values.integer(rng)
    if choice in (4, 5) or depth > 2:
        return hostile_values.text(rng)
    if choice == 6:
        return [_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {hostile_values.text(rng): _value(rng, depth + 1) for _ in range(rng.randrange(4))}


def _check_events(text: str) -> str:
    """Every event of a stream is JSON."""
    for line in text.splitlines():
        if line.startswith("data: ") and line != "data: [DONE]":
            json.loads(line[6:])
    return "streamed"


def _check_error(body: object, status: int) -> None:
    """An error of llama-server's or Anthropic's form, on one line."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str) or not error["message"].strip():
        raise Finding(f"status {status}: {body!r:.300}")
    if "code" in error and (error.get("type"), error["code"]) not in KINDS | {("invalid_request_error", 405)}:
        raise Finding(f"an unknown kind of error: {body!r:.300}")
    if error["message"].startswith("internal error"):
        raise Finding(f"a fault of the server: {error['message']}")
    if error.get("code", status) != status:
        raise Finding(f"status {status}, but {body!r:.300}")
    if len(error["message"]) > 600 or "Traceback" in error["message"]:
        raise Finding(f"an error of {len(error['message'])} characters: {error['message']!r:.300}")


KIND = RequestKind
