"""The command `minillama serve` as a process: start, clients, closed connections, end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from server_process import Server

pytestmark = pytest.mark.slow

START_SECONDS = 120


@pytest.fixture(scope="module")
def server(builtin_model: Path) -> Iterator[Server]:
    with Server("-m", str(builtin_model), "-c", "1024", "-np", "2", "--metrics", "-t", "1") as found:
        yield found


def test_the_documented_example(server: Server) -> None:
    """The chat of docs/server.md, word by word."""
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    messages = [{"role": "user", "content": "Tell me a story."}]
    chunks = list(client.chat.completions.create(model="any", messages=messages, max_tokens=16, stream=True, seed=1))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    whole = client.chat.completions.create(model="any", messages=messages, max_tokens=16, seed=1)
    assert text and whole.choices[0].message.content == text and whole.usage.completion_tokens == 16


def test_many_clients_get_their_own_texts(server: Server) -> None:
    bodies = [
        {"prompt": f"Once {word}", "n_predict": 12, "seed": 3, "ignore_eos": True} for word in ("a", "upon", "the")
    ]
    alone = [httpx.post(f"{server.url}/completion", json=body, timeout=60).json()["content"] for body in bodies]

    import asyncio

    async def together() -> list[str]:
        async with httpx.AsyncClient(timeout=60) as client:
            answers = await asyncio.gather(*(client.post(f"{server.url}/completion", json=body) for body in bodies * 3))
        return [answer.json()["content"] for answer in answers]

    assert asyncio.run(together()) == alone * 3


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_slot(server: Server, stream: bool) -> None:
    body = {"prompt": "Once", "n_predict": -1, "ignore_eos": True, "stream": stream}
    if stream:
        with httpx.stream("POST", f"{server.url}/completion", json=body, timeout=10) as response:
            next(response.iter_lines())
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/completion", json=body, timeout=0.1)
    deadline = time.monotonic() + 2
    while any(slot["is_processing"] for slot in httpx.get(f"{server.url}/slots").json()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_ends_within_five_seconds_and_says_what_it_cut(server: Server) -> None:
    body = {"prompt": "Once", "n_predict": 900, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{server.url}/completion", json=body, timeout=10) as response:
        lines = response.iter_lines()
        assert json.loads(next(lines).removeprefix("data: "))["stop"] is False
        assert server.end() == 128 + signal.SIGTERM
        *events, last = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    assert last["error"]["code"] == 503  # a text that was cut never looks whole
    assert not any(event["stop"] for event in events)


def test_a_missing_model(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "minillama", "serve", "--port", "0", "-m", str(tmp_path / "none.gguf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS, env={**os.environ})
    assert done.returncode == 2 and "none.gguf" in done.stderr and "Traceback" not in done.stderr
