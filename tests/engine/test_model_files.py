"""Where a model file comes from: names, near misses, and a hub that answers on the loopback interface."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from minillama.cli import main
from minillama.engine.load import load
from minillama.engine.loading import model_files
from minillama.errors import OptionError, ResourceError

REVISION = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "user/tiny-GGUF": {
        "README.md": b"hello",
        "mmproj-tiny-Q4_K_M.gguf": b"not a language model",
        "tiny.Q2_K.gguf": b"two bits",
        "tiny.Q4_K_M.gguf": b"four bits",
        "tiny.Q8_0.gguf": b"eight bits",
    },
    "user/big-GGUF": {
        "Q8_0/big-Q8_0-00001-of-00002.gguf": b"first part",
        "Q8_0/big-Q8_0-00002-of-00002.gguf": b"second part",
    },
    "user/plain": {"model.safetensors": b"weights"},
}


class Hub(BaseHTTPRequestHandler):
    """The three endpoints of the hub that are used: a repository's listing, a file's headers, a file."""

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        path = self.path.split("?")[0].strip("/")
        if path.startswith("api/models/"):
            parts = path.removeprefix("api/models/").split("/")
            repository, call = "/".join(parts[:2]), parts[2:3]
            if repository == "user/gated":
                return self.send(403, b"{}", {"X-Error-Code": "GatedRepo"}, with_body)
            if repository not in FILES:
                return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)
            siblings = [{"rfilename": name} for name in FILES[repository]]
            listing: object = {"id": repository, "sha": REVISION, "siblings": siblings}
            if call == ["tree"]:
                listing = [
                    {"type": "file", "path": n, "size": len(b), "oid": "0" * 40} for n, b in FILES[repository].items()
                ]
            return self.send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"}, with_body)
        user, name, _, _, *rest = path.split("/")
        body = FILES.get(f"{user}/{name}", {}).get("/".join(rest))
        if body is None:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body)
        etag = f'"{abs(hash(body)):040d}"'
        self.send(200, body, {"ETag": etag, "X-Repo-Commit": REVISION, "X-Linked-Size": str(len(body))}, with_body)

    def send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetch_all(endpoint: str, home: Path, requests: list[dict[str, object]]) -> list[str]:
    """Resolve each request in a fresh process (the hub's library reads its settings once); file content or error."""
    program = """if True:
        import json, sys
        from minillama.engine.loading.model_files import resolve
        from minillama.errors import MinillamaError
        for request in json.loads(sys.argv[1]):
            try:
                print(json.dumps(resolve(**request).read_text()))
            except MinillamaError as error:
                print(json.dumps(f"{type(error).__name__}: {error}"))
    """
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_TOKEN", None)
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(requests)],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_hub(hub: str, tmp_path: Path) -> None:
    answers = fetch_all(
        hub,
        tmp_path,
        [
            {"hf_repo": "user/tiny-GGUF"},
            {"hf_repo": "user/tiny-GGUF:q8_0"},
            {"hf_repo": "user/tiny-GGUF:Q5_K_M"},
            {"hf_repo": "user/tiny-GGUF", "hf_file": "tiny.Q2_K.gguf"},
            {"hf_repo": "user/tiny-GGUF", "hf_file": "nothing.gguf"},
            {"hf_repo": "user/big-GGUF"},
            {"hf_repo": "user/plain"},
            {"hf_repo": "user/nobody"},
            {"hf_repo": "user/gated"},
            {"hf_repo": "not a repository"},
        ],
    )
    assert answers[:2] == ["four bits", "eight bits"]
    assert answers[2].startswith("ResourceError: user/tiny-GGUF has no Q5_K_M; it has: tiny.Q2_K.gguf, tiny.Q4_K_M")
    assert answers[3] == "two bits"
    assert "has no file nothing.gguf" in answers[4]
    assert answers[5] == "first part"
    assert "holds no GGUF file" in answers[6]
    assert "no repository user/nobody" in answers[7]
    assert "requires you to accept its terms" in answers[8]
    assert answers[9].startswith("OptionError: hub repository 'not a repository' should look like")
    assert all("\n" not in answer for answer in answers)

    # The same home, no server: offline finds what was fetched, and only that.
    offline = fetch_all(
        "http://127.0.0.1:9",
        tmp_path,
        [
            {"hf_repo": "user/tiny-GGUF", "offline": True},
            {"hf_repo": "user/tiny-GGUF", "hf_file": "tiny.Q2_K.gguf", "offline": True},
            {"hf_repo": "user/big-GGUF:Q8_0", "offline": True},
            {"hf_repo": "user/nobody", "offline": True},
            {"hf_repo": "user/other-GGUF"},
        ],
    )
    assert offline[:3] == ["four bits", "two bits", "first part"]
    assert "was not fetched before" in offline[3]
    assert offline[4].startswith("ResourceError: cannot fetch user/other-GGUF: ")
    assert "\n" not in offline[4]


def test_path_and_names(tmp_path: Path) -> None:
    model = tmp_path / "tinyllama.Q4_0.gguf"
    model.write_bytes(b"GGUF")
    assert model_files.resolve(model) == model
    assert model_files.resolve(str(model)) == model
    with pytest.raises(ResourceError, match=r"no such file; did you mean tinyllama\.Q4_0\.gguf\?"):
        model_files.resolve(tmp_path / "tinylama.Q4_0.gguf")
    with pytest.raises(ResourceError, match=r"no such file; that folder has: tinyllama\.Q4_0\.gguf"):
        model_files.resolve(tmp_path / "missing.gguf")
    with pytest.raises(ResourceError, match=r"is a folder; name a file in it: tinyllama\.Q4_0\.gguf"):
        model_files.resolve(tmp_path)
    with pytest.raises(ResourceError, match="there is no folder"):
        model_files.resolve(tmp_path / "nowhere" / "model.gguf")
    model.unlink()
    with pytest.raises(ResourceError, match="no such file; without -m the built-in model runs"):
        model_files.resolve(model)


def test_a_missing_draft_model_is_one_of_md(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "nothere.gguf"
    with pytest.raises(ResourceError, match=r"^-md .*nothere\.gguf: no such file; name a small model.*-hfd"):
        model_files.resolve(missing, is_draft=True)
    with pytest.raises(ResourceError, match=r"^-md .*nothere"):
        load(model_draft=missing, progress=False)
    assert main(["run", "-md", str(missing), "-p", "x", "-n", "1", "-no-cnv"]) == 2
    assert "-md" in (err := capsys.readouterr().err) and "without -m " not in err and err.count("\n") == 1


def test_contradictions() -> None:
    with pytest.raises(OptionError, match="leave one out"):
        model_files.resolve("a.gguf", hf_repo="user/b")
    with pytest.raises(OptionError, match="needs hf_repo"):
        model_files.resolve(hf_file="b.gguf")


def test_builtin(builtin_model: Path) -> None:
    assert model_files.resolve() == builtin_model
    assert model_files.resolve("storyteller") == builtin_model


def test_choose_prefers_q4_k_m_then_q8_0_then_first() -> None:
    assert model_files.choose_file(["a-f16.gguf", "a-q4_k_m.gguf", "a-q8_0.gguf"], None, "r") == "a-q4_k_m.gguf"
    assert model_files.choose_file(["a-f16.gguf", "a-q8_0.gguf"], None, "r") == "a-q8_0.gguf"
    assert model_files.choose_file(["b-q6_k.gguf", "a-f16.gguf"], None, "r") == "a-f16.gguf"
    # Q4_K is not Q4_K_M, and a model's own name must not be taken for a quantisation.
    assert model_files.choose_file(["a-Q4_K_M.gguf", "a-Q4_K_S.gguf"], "Q4_K_S", "r") == "a-Q4_K_S.gguf"
    with pytest.raises(ResourceError, match="has no Q4_K; it has"):
        model_files.choose_file(["a-Q4_K_M.gguf"], "Q4_K", "r")


def test_shards_are_complete() -> None:
    assert model_files.shards("m-00001-of-00003.gguf") == [f"m-0000{part}-of-00003.gguf" for part in (1, 2, 3)]
    assert model_files.shards("m.gguf") == ["m.gguf"]
    assert (
        model_files.choose_file(["a-00002-of-00002.gguf", "a-00001-of-00002.gguf"], None, "r")
        == "a-00001-of-00002.gguf"
    )
