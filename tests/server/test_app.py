"""The application on an engine without a model: routes, keys, CORS, forms of answers, closed connections."""

import asyncio
import json
from collections.abc import Iterator

import pytest
from fake_engine import FakeEngine, fake_llm
from starlette.testclient import TestClient
from vocabularies import spm_metadata

from minillama.errors import NonFiniteError
from minillama.sampling import Sampling
from minillama.server.app import build_app
from minillama.server.model_host import ModelHost
from minillama.server.request_body import MOST_BYTES
from minillama.server.settings import Cors, ServerSettings
from minillama.tokenizer import Tokenizer, load_tokenizer

TOKENIZER = load_tokenizer(spm_metadata({"▁once": -1.0, "▁upon": -2.0, "▁a": -3.0, "▁t": -4.0, "▁": -5.0}))
PROMPT = {"prompt": "once upon a", "n_predict": 3}
IDS = TOKENIZER.encode("once upon a")
CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}


def open_host(**settings: object) -> ModelHost:
    host = ModelHost(ServerSettings(slots=2, aliases=("b", "a"), **settings), lambda: pytest.fail("not loaded here"))
    host.llm, host.engine, host.is_ready = fake_llm(TOKENIZER, Sampling), FakeEngine(400), True
    return host


@pytest.fixture
def host() -> ModelHost:
    return open_host()


@pytest.fixture
def client(host: ModelHost) -> Iterator[TestClient]:
    with TestClient(build_app(host)) as client:
        yield client


def events(text: str) -> list[object]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_a_completion(client: TestClient, host: ModelHost) -> None:
    answer = client.post("/completion", json=PROMPT).json()
    assert answer["content"] == " t t t" and answer["stop"] and answer["stop_type"] == "limit"
    assert answer["model"] == "a" and answer["tokens"] == [] and answer["prompt"] == "<s> once upon a"
    timings = answer["timings"]
    assert (timings["cache_n"], timings["prompt_n"], timings["predicted_n"]) == (1, len(IDS) - 1, 3)
    assert timings["prompt_ms"] == pytest.approx(250) and timings["predicted_per_second"] == pytest.approx(10)
    (submitted,) = host.engine.submitted
    assert submitted["n"] == 3 and submitted["cache_prompt"] and submitted["ids"] == IDS


def test_one_token_has_no_rates(client: TestClient) -> None:
    timings = client.post("/completion", json={**PROMPT, "n_predict": 1}).json()["timings"]
    assert timings["predicted_per_second"] == timings["predicted_per_token_ms"] == 0.0
    assert all(value >= 0 for value in timings.values())


def test_several_prompts_and_completions(client: TestClient, host: ModelHost) -> None:
    answers = client.post("/completion", json={"prompt": ["once", "upon"], "n": 2, "seed": 5}).json()
    assert [answer["index"] for answer in answers] == [0, 1, 2, 3]
    assert [each["seed"] for each in host.engine.submitted] == [5, 6, 5, 6]  # as llama-server
    choices = client.post("/v1/completions", json={"prompt": ["once", "upon"]}).json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1]


def test_a_native_stream(client: TestClient) -> None:
    response = client.post("/completion", json={**PROMPT, "stream": True, "return_progress": True, "n_probs": 2})
    assert response.headers["content-type"].startswith("text/event-stream")
    *parts, last = events(response.text)
    progress = [part["prompt_progress"] for part in parts if "prompt_progress" in part]
    assert [each["processed"] for each in progress] == [1, len(IDS)] and progress[0]["cache"] == 1
    tokens = [part for part in parts if "prompt_progress" not in part]
    assert [part["tokens_predicted"] for part in tokens] == [1, 2, 3]
    assert tokens[0]["completion_probabilities"][0]["top_logprobs"][1]["logprob"] == -1.5
    assert last["stop"] and last["content"] == "" and "completion_probabilities" not in last


def test_a_chat(client: TestClient) -> None:
    answer = client.post("/v1/chat/completions", json={**CHAT, "logprobs": True, "top_logprobs": 2}).json()
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": " t t t"} and choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3 and answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 1
    assert [len(entry["top_logprobs"]) for entry in choice["logprobs"]["content"]] == [2, 2, 2]
    assert answer["system_fingerprint"].startswith("b") and answer["id"].startswith("chatcmpl-")


def test_a_chat_stream(client: TestClient) -> None:
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    first, *parts, end, usage, done = events(client.post("/chat/completions", json=body).text)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert [part["choices"][0]["delta"] for part in parts] == [{"content": " t"}] * 3
    assert end["choices"][0]["delta"] == {} and end["choices"][0]["finish_reason"] == "length"
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 3 and "timings" in usage
    assert done == "[DONE]" and len({part["id"] for part in parts}) == 1


@pytest.mark.parametrize(
    "body, message",
    [
        ({}, "'messages' is required"),
        ({"messages": 3}, "Expected 'messages' to be an array"),
        ({"messages": [{}]}, "All non-assistant messages must contain 'content'"),
        ({"messages": [{"role": "user", "content": 3}]}, "Expected 'content' to be a string or an array"),
        ({**CHAT, "top_logprobs": 2}, "top_logprobs requires logprobs to be set to true"),
        ({**CHAT, "response_format": {"type": "sound"}}, "response_format type must be one of"),
        ({"messages": [{"role": "assistant", "content": "a"}] * 2}, "Cannot have 2 or more assistant messages"),
        ({**CHAT, "reasoning_format": "xml"}, "Unknown reasoning format: xml"),
    ],
)
def test_refused_chats(client: TestClient, body: object, message: str) -> None:
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 400 and response.json()["error"]["message"].startswith(message)


def test_a_continued_answer(client: TestClient) -> None:
    messages = [
        *CHAT["messages"],
        {"role": "assistant", "content": [{"type": "text", "text": "Wh"}, {"type": "text", "text": "ill"}]},
    ]
    prompt = client.post("/apply-template", json={"messages": messages}).json()["prompt"]
    assert prompt.endswith("<|im_start|>assistant\nWh\n\nill")  # chatml, where the model has no template


@pytest.mark.parametrize("path, key", [("/completion", "prompt"), ("/v1/chat/completions", "messages")])
def test_a_text_that_cannot_fit_is_not_encoded(
    client: TestClient, path: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "a cat " * 50_000
    body = {key: text if key == "prompt" else [{"role": "user", "content": text}]}
    monkeypatch.setattr(Tokenizer, "encode", lambda *args, **options: pytest.fail("encoded"))
    response = client.post(path, json=body)
    error = response.json()["error"]
    assert response.status_code == 400 and error["type"] == "exceed_context_size_error"
    assert error["n_prompt_tokens"] > error["n_ctx"] and "(at least " in error["message"]


def test_long_texts_are_counted(client: TestClient) -> None:
    body = {"messages": [{"role": "user", "content": "a cat " * 2000}]}
    assert client.post("/v1/chat/completions/input_tokens", json=body).json()["input_tokens"] > 4000


def test_a_prompt_that_is_too_long(client: TestClient) -> None:
    for path, body in (("/completion", {"prompt": [1] * 500}), ("/completion", {"prompt": [1] * 500, "stream": True})):
        response = client.post(path, json=body)
        error = response.json()["error"]
        assert response.status_code == 400 and error["type"] == "exceed_context_size_error"
        assert (error["n_prompt_tokens"], error["n_ctx"]) == (500, 400)


def test_an_error_in_a_stream(client: TestClient, host: ModelHost) -> None:
    host.engine.error = NonFiniteError("NaN")
    *_, last = events(client.post("/v1/completions", json={**PROMPT, "stream": True}).text)
    assert last["error"] == {"code": 500, "message": "NaN", "type": "server_error"}
    assert client.post("/completion", json=PROMPT).status_code == 500


@pytest.mark.parametrize("method, path, status", [
    ("GET", "/nope", 404), ("GET", "/completion", 404), ("POST", "/props", 501), ("POST", "/rerank", 501),
    ("POST", "/infill", 501), ("GET", "/tools", 501), ("POST", "/v1/audio/transcriptions", 501),
    ("POST", "/models/load", 501), ("GET", "/lora-adapters", 501), ("GET", "/metrics", 501),
])  # fmt: skip
def test_refused_paths(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == response.json()["error"]["code"] == status


@pytest.mark.parametrize(
    "body, status", [(b"nonsense", 500), (b"[]", 400), (b"{}", 400), (b"x" * (MOST_BYTES + 1), 413)]
)
def test_wrong_bodies(client: TestClient, body: bytes, status: int) -> None:
    response = client.post("/completion", content=body)
    assert response.status_code == response.json()["error"]["code"] == status


def test_text_endpoints(client: TestClient) -> None:
    tokens = client.post("/tokenize", json={"content": "once upon"}).json()["tokens"]
    assert tokens == TOKENIZER.encode("once upon", add_special=False)
    pieces = client.post("/tokenize", json={"content": "é", "with_pieces": True}).json()["tokens"]
    assert [piece["piece"] for piece in pieces][-2:] == [[0xC3], [0xA9]]
    assert client.post("/detokenize", json={"tokens": [1, *tokens]}).json() == {"content": "<s> once upon"}
    assert client.post("/tokenize", json={}).json() == {"tokens": []}
    assert client.post("/v1/chat/completions/input_tokens", json=CHAT).json()["input_tokens"] > 5


def test_slots_and_metrics() -> None:
    host = open_host(has_metrics=True)
    with TestClient(build_app(host)) as client:
        assert client.get("/slots").json()[0] == {"id": 0, "n_ctx": 400, "speculative": False, "is_processing": False}
        client.post("/completion", json=PROMPT)
        slot = client.get("/slots").json()[0]
        assert slot["params"]["n_predict"] == 3 and slot["next_token"][0]["n_remain"] == -1
        response = client.get("/metrics")
        assert "llamacpp:n_decode_total 4\n" in response.text and "process-start-time-unix" in response.headers
    with TestClient(build_app(open_host(has_slots=False))) as client:
        assert client.get("/slots").status_code == 501


def test_keys() -> None:
    with TestClient(build_app(open_host(api_keys=frozenset({"k1", "k2"})))) as client:
        assert client.get("/health").json() == {"status": "ok"}
        assert client.post("/completion", json=PROMPT).json()["error"]["type"] == "authentication_error"
        for headers in ({"Authorization": "Bearer k2"}, {"X-Api-Key": "k1"}):
            assert client.post("/completion", json=PROMPT, headers=headers).status_code == 200
        assert (
            client.post("/completion", json=PROMPT, headers={"Authorization": "Bearer é".encode()}).status_code == 401
        )
        assert client.options("/completion", headers={"Origin": "http://x"}).status_code == 200


@pytest.mark.parametrize("cors, origin, allowed", [
    (Cors(), "http://x", "http://x"),
    (Cors("localhost"), "http://localhost:1", "http://localhost:1"),
    (Cors("localhost"), "http://[::1]:3000", "http://[::1]:3000"),
    (Cors("localhost"), "http://localhost.evil.com", None),
    (Cors("localhost"), "http://[", None),
    (Cors("http://a", credentials=False), "http://x", "http://a"),
])  # fmt: skip
def test_origins(cors: Cors, origin: str, allowed: str | None) -> None:
    with TestClient(build_app(open_host(cors=cors))) as client:
        for method in ("OPTIONS", "GET"):
            headers = client.request(method, "/health", headers={"Origin": origin}).headers
            assert headers.get("access-control-allow-origin") == allowed
        preflight = client.options("/nope", headers={"Origin": origin}).headers
        assert (b"Access-Control-Allow-Methods", cors.methods.encode()) in preflight.raw  # clients look for this case
        assert preflight["access-control-allow-credentials"] == str(cors.credentials).lower()


def test_while_the_model_loads(host: ModelHost) -> None:
    host.is_ready = False
    with TestClient(build_app(host)) as client:
        for path in ("/health", "/v1/models", "/nope"):
            error = client.get(path).json()["error"]
            assert error == {"code": 503, "message": "Loading model", "type": "unavailable_error"}


def test_a_prefix_of_paths() -> None:
    with TestClient(build_app(open_host(api_prefix="/llm", api_keys=frozenset({"k"})))) as client:
        assert client.get("/llm/health").status_code == 200 and client.get("/health").status_code == 401


@pytest.mark.parametrize("stream", [True, False])
def test_a_closed_connection_cancels(host: ModelHost, stream: bool) -> None:
    host.engine.endless = True
    body = json.dumps({**PROMPT, "n_predict": -1, "stream": stream}).encode()
    scope = {"type": "http", "method": "POST", "path": "/completion", "headers": [], "query_string": b"",
             "root_path": "", "http_version": "1.1", "scheme": "http"}  # fmt: skip

    async def run() -> None:
        async def receive() -> dict[str, object]:
            if messages:
                return messages.pop(0)
            while not host.engine.streams or not host.engine.streams[0].text:  # the answer is under way
                await asyncio.sleep(0.001)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, object]) -> None:
            await asyncio.sleep(0)

        messages: list[dict[str, object]] = [{"type": "http.request", "body": body, "more_body": False}]
        await asyncio.wait_for(build_app(host)(scope, receive, send), 20)

    asyncio.run(run())
    (submitted,) = host.engine.streams
    assert submitted.is_cancelled


def test_counts_of_drafts(client: TestClient, host: ModelHost) -> None:
    """They are there where anything was guessed, as in llama-server."""
    assert "draft_n" not in client.post("/completion", json=PROMPT).json()["timings"]
    body = {**PROMPT, "speculative.n_max": 2, "speculative.n_min": 1, "speculative.p_min": 0.5}
    host.engine.drafted = 5, 3
    answer = client.post("/completion", json=body).json()
    assert (answer["timings"]["draft_n"], answer["timings"]["draft_n_accepted"]) == (5, 3)
    submitted = host.engine.submitted[-1]
    assert [submitted[name] for name in ("draft_max", "draft_min", "draft_p_min")] == [2, 1, 0.5]
    assert answer["generation_settings"]["speculative.types"] == "none"
