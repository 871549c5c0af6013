"""`/schedule` and `/trace` on a host without a model."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from minillama.engine.batching.counters import ChunkRecord, TurnRecord
from minillama.server.app import build_app
from minillama.server.endpoints.observation import MOST_TRACED_TOKENS, summaries
from minillama.server.model_host import ModelHost
from minillama.server.settings import ServerSettings

TURNS = [
    TurnRecord(1, 0.5, 0.25, chunk=ChunkRecord(1, 7, 0, 64), waiting=2),
    TurnRecord(2, 0.75, 0.125, rows=((1, 7), (0, 6)), notes=("context shift in slot 0",)),
]


class Tokenizer:
    size, bos = 300, None

    def encode(self, text: str, **_: Any) -> list[int]:
        return list(text.encode())

    def fewest_tokens(self, text: str) -> int:
        return len(text)

    def piece(self, token: int, *, special: bool) -> bytes:
        return bytes([token])


def client(**settings: Any) -> TestClient:
    def trace(ids: tuple[int, ...]) -> dict[str, np.ndarray]:
        assert ids == (104, 105)
        return {"inp_embd": np.array([[1.0, 3.0], [np.nan, -1.0]], np.float32), "empty": np.zeros((0, 2), np.float32)}

    host = ModelHost(ServerSettings(**settings), lambda: pytest.fail("no model is loaded"))
    host.engine = SimpleNamespace(slots=2, schedule=lambda: TURNS)  # type: ignore[assignment]
    host.llm = SimpleNamespace(tokenizer=Tokenizer(), trace=trace, ctx_size=512)  # type: ignore[assignment]
    host.is_ready = True
    return TestClient(build_app(host))


def test_schedule() -> None:
    with client(has_schedule=True) as server:
        first, second = (found := server.get("/schedule").json())["steps"]
    assert found["slots"] == 2 and first["rows"] == [] and first["waiting"] == 2 and first["ms"] == 250
    assert first["chunk"] == {"slot": 1, "request": 7, "start": 0, "tokens": 64}
    assert second["chunk"] is None and second["notes"] == ["context shift in slot 0"]
    assert second["rows"] == [{"slot": 1, "request": 7}, {"slot": 0, "request": 6}]


def test_trace() -> None:
    with client(has_trace=True) as server:
        found = server.post("/trace", json={"prompt": "hi"}).json()
        assert found["tokens"] == [{"id": 104, "piece": "h"}, {"id": 105, "piece": "i"}]
        first, empty = found["activations"]
        assert first | {"std": 0} == {"name": "inp_embd", "shape": [2, 2], "mean": 1.0, "std": 0, "min": -1.0,
                                      "max": 3.0, "sum": 3.0, "not_finite": 1}  # fmt: skip
        assert empty["shape"] == [0, 2] and empty["sum"] == 0
        long = server.post("/trace", json={"prompt": "x" * (MOST_TRACED_TOKENS + 1)})
        assert long.status_code == 400 and "at most 256 are traced" in long.json()["error"]["message"]
        assert server.post("/trace", json={}).status_code == 400
        assert server.post("/trace", json={"prompt": {"a": 1}}).status_code == 400


def test_off_unless_asked_for() -> None:
    with client() as server:
        for answer in (server.get("/schedule"), server.post("/trace", json={"prompt": "hi"})):
            assert answer.status_code == 501 and "Start it with `--" in answer.json()["error"]["message"]


def test_summaries_of_one_value() -> None:
    (only,) = summaries({"a": np.float32([2.0])})
    assert only == {"name": "a", "shape": [1], "mean": 2.0, "std": 0.0, "min": 2.0, "max": 2.0, "sum": 2.0,
                    "not_finite": 0}  # fmt: skip
