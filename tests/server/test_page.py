"""The page at `/`: files, headers, nothing from elsewhere; in Chromium with a real server."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import FLAGS, chromium, free_port
from starlette.testclient import TestClient

from minillama.server.app import build_app
from minillama.server.endpoints.page import FILES, FOLDER
from minillama.server.model_host import ModelHost
from minillama.server.settings import ServerSettings

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120


def client(**settings: Any) -> TestClient:
    """A server whose model is still loading."""
    return TestClient(build_app(ModelHost(ServerSettings(**settings), lambda: pytest.fail("no model is loaded"))))


def test_the_page_comes_before_the_model_and_needs_no_key() -> None:
    with client(api_keys=frozenset(["secret"])) as server:
        page = server.get("/")
        assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
        assert "script-src 'self'" in page.headers["content-security-policy"]
        linked = re.findall(r'(?:href|src)="(page/[^"]+)"', page.text)
        assert {"page/page.css", "page/main.js"} <= set(linked)
        for name in FILES:
            found = server.get("/" if name == "index.html" else f"/page/{name}")
            assert found.status_code == 200 and found.headers["x-content-type-options"] == "nosniff"
            assert found.content == (FOLDER / name).read_bytes()
        assert server.get("/health").status_code == 503


def test_scripts_import_files_that_exist_and_nothing_from_elsewhere() -> None:
    for name in FILES:
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[\w.]+", text)) <= {"http://www.w3.org"}, name  # the namespace of SVG
        assert set(re.findall(r'from "\./([\w.]+)"', text)) <= set(FILES), name
        assert "innerHTML" not in text and "eval(" not in text, name  # texts of a model are no HTML
        assert len(text.splitlines()) < 300, name


@pytest.mark.parametrize("path", ["/", "/page/main.js"])
def test_no_page(path: str) -> None:
    with client(has_page=False) as server:
        assert server.get(path).json()["error"]["type"] == "not_found_error"


def test_files_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "index.html").write_text("mine")
    (folder / "a.txt").write_text("a")
    (folder / "out").symlink_to(tmp_path)
    (tmp_path / "secret.txt").write_text("secret")
    host = ModelHost(ServerSettings(static_path=str(folder)), lambda: pytest.fail("no model is loaded"))
    host.is_ready = True
    with TestClient(build_app(host)) as server:
        assert server.get("/").text == "mine" and server.get("/a.txt").text == "a"
        for path in ("/page/main.js", "/b.txt", "/%2e%2e/secret.txt", "/out/secret.txt", "/..%2fsecret.txt"):
            assert server.get(path).status_code == 404, path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of `minillama serve` with the built-in model."""
    port, log = free_port(), tmp_path_factory.mktemp("serve") / "log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_NUMPY_")}
    command = [sys.executable, "-m", "minillama", "serve", f"--port={port}", "-np", "2", "-c", "512", "--metrics"]
    with log.open("w") as file:
        running = subprocess.Popen(
            [*command, "--schedule", "--trace"], env={**kept, "PYTHONPATH": str(ROOT)}, stdout=file, stderr=file
        )
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                assert running.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        yield address
    finally:
        running.terminate()
        running.wait(30)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_answer_with_alternatives_in_chromium(server: str, scheme: str, tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda sent: None if sent.url.startswith((server, "data:")) else problems.append(sent.url))
        page.goto(server)
        page.wait_for_selector("text=2 slots of")
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        page.locator("[name=mode][value=text]").check()
        page.get_by_role("button", name="Settings").click()
        for name, value in (("max_tokens", "24"), ("seed", "7")):
            page.locator(f"[name={name}]").fill(value)
            page.locator(f"[name={name}]").dispatch_event("change")
        page.get_by_role("button", name="Settings").click()
        page.fill("#input", f"Once upon a time in the {scheme}, there was a <b>fox</b>")  # no prompt of before
        page.keyboard.press("Enter")
        page.wait_for_selector(".facts", timeout=60_000)
        tokens = page.locator(".message .token[data-probs]")
        assert tokens.count() >= 20 and page.locator(".message b").count() == 0
        tokens.nth(3).hover()
        shares = page.locator("#alternatives .share").all_text_contents()
        assert shares and all(share.endswith("%") for share in shares)
        page.wait_for_selector("#schedule rect.chunk", state="attached")
        assert page.locator(".slot").count() == 2 and "tokens written" in page.inner_text("#metrics")
        page.screenshot(path=str(tmp_path / f"page-{scheme}.png"))
        page.reload()
        page.get_by_role("button", name="Once upon a time").click()  # conversations are kept
        assert "24 tokens" not in page.inner_text("#messages") and page.locator(".message").count() == 2
        assert problems == []
        browser.close()


@pytest.mark.browser
def test_a_stop_ends_the_answer_and_a_narrow_window_fits(server: str) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 420, "height": 800})
        page.goto(server)
        page.wait_for_selector("text=2 slots of", state="attached")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.route("**/completion", lambda route: route.continue_(
            post_data=json.dumps({**route.request.post_data_json, "ignore_eos": True, "n_predict": -1})
        ))  # fmt: skip
        page.locator("[name=mode][value=text]").check()
        page.fill("#input", "Once upon a time")
        stopped = """() => new Promise((done) => {
            document.getElementById("send").click();
            const look = setInterval(() => {
                if (document.querySelectorAll(".message .token").length < 3) return;
                clearInterval(look);
                const stop = document.getElementById("stop");
                done(!stop.hidden);
                stop.click();
            }, 5);
        })"""
        assert page.evaluate(stopped)
        page.wait_for_selector("#send", timeout=10_000)
        for _ in range(50):
            with urllib.request.urlopen(f"{server}/slots", timeout=5) as answer:
                if not any(slot["is_processing"] for slot in json.load(answer)):
                    break
            time.sleep(0.1)
        else:
            pytest.fail("the slot is not free")
        browser.close()


@pytest.mark.browser
def test_the_card_lists_the_alternatives_of_a_token(server: str) -> None:
    """On an answer in llama-server's form."""
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    tops = [(7, " cat", -0.5), (8, " <i>dog</i>", -1.5)]
    likeliest = [{"id": token, "token": text, "logprob": logprob} for token, text, logprob in tops]
    entry = {"id": 8, "token": " <i>dog</i>", "logprob": -1.5, "top_logprobs": likeliest}
    events = [
        {"content": " <i>dog</i>", "stop": False, "completion_probabilities": [entry]},
        {"content": "", "stop": True},
    ]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.route("**/completion", lambda route: route.fulfill(content_type="text/event-stream", body=body))
        page.goto(server)
        page.locator("[name=mode][value=text]").check()
        page.fill("#input", "a")
        page.keyboard.press("Enter")
        page.wait_for_selector(".facts", state="attached")
        page.locator(".token").first.hover()
        assert page.locator("#alternatives .piece").all_text_contents() == ["␣cat", "␣<i>dog</i>"]
        assert page.locator("#alternatives .share").all_text_contents() == ["60.7 %", "22.3 %"]
        assert page.locator("#alternatives .taken .piece").text_content() == "␣<i>dog</i>"
        browser.close()
