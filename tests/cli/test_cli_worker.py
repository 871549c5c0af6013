"""The command that lends a machine."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from minillama.cli import main
from minillama.cli.arguments.model_from_args import take_secret


def test_what_a_worker_is_not_started_with(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, message in (
            (
                ["--host", "0.0.0.0", "--port", "0"],
                "--host 0.0.0.0 accepts connections from other machines, which requires a secret",
            ),
            (["-p", port], f"cannot listen on 127.0.0.1:{port}: address already in use; choose another --port"),
            (["-p", "70000"], "--port 70000 is not a port"),
            (["-d", "abacus"], "abacus"),
            (["--token-file", str(tmp_path / "none")], "cannot read the token file"),
        ):
            assert main(["worker", *words]) == 2
            assert message in capsys.readouterr().err


def test_the_token_of_the_environment_is_taken_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MINILLAMA_TOKEN", "open sesame")
    assert take_secret(None) == b"open sesame"
    assert take_secret(None) is None
    file = tmp_path / "token"
    file.write_text("open barley")
    file.chmod(0o600)
    monkeypatch.setenv("MINILLAMA_TOKEN", "open sesame")
    assert take_secret(str(file)) == b"open barley"


@pytest.mark.parametrize("shell", ["exec", "trap '' INT; exec"], ids=["", "ignored by the shell"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_waits_until_it_is_ended(number: signal.Signals, shell: str) -> None:
    words = ["sh", "-c", f'{shell} "$@"', "sh", sys.executable, "-m", "minillama", "rpc-server", "-p", "0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("waiting for leaders on 127.0.0.1:")
        process.send_signal(number)
        assert process.wait(10.0) == 128 + number
        assert process.stderr.read().strip() == ""
