"""``hf://``, against a cache as the hub's client lays it out; no network."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from bentotool_huggingface.source import _parse

from bentotool.errors import UsageError

pytest.importorskip("huggingface_hub")
pytest.importorskip("safetensors")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def bentotool(hub: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HOME": str(hub), "HF_HUB_OFFLINE": "1", **settings}
    command = [sys.executable, "-m", "bentotool", "--json", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
def test_a_cached_repository_is_taken_in_without_a_copy(hub: Path) -> None:
    done = bentotool(hub, "model", "import", "hf://acme/tiny")
    assert done.returncode == 0, done.stderr
    model = json.loads(done.stdout)
    assert (model["name"], model["framework"], model["safety"]) == ("acme--tiny", "huggingface", "data")
    assert [file["path"] for file in model["files"]] == ["config.json", "model.safetensors", "sub/vocab.txt"]
    assert model["metadata"]["source"] == f"hf://acme/tiny@{COMMIT}"
    assert model["metadata"]["source_request"] == "hf://acme/tiny@main"
    path = Path(json.loads(bentotool(hub, "model", "path", "acme--tiny").stdout)["path"])
    blob = hub / "hub" / "models--acme--tiny" / "blobs" / "aa"
    assert (path / "model.safetensors").samefile(blob)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
def test_what_is_not_cached_or_leads_out_is_said(hub: Path, tmp_path: Path) -> None:
    absent = bentotool(hub, "model", "import", "hf://acme/other")
    assert absent.returncode == 3
    assert "not in the hub's cache" in json.loads(absent.stderr)["error"]["message"]
    (tmp_path / "secret").write_text("s")
    (hub / "hub" / "models--acme--tiny" / "snapshots" / COMMIT / "x.txt").symlink_to(tmp_path / "secret")
    assert bentotool(hub, "model", "import", "hf://acme/tiny").returncode == 6
    assert bentotool(hub, "model", "import", "hf://acme/tiny", "--max-size", "5").returncode == 6


def test_without_network_the_cache_is_pointed_at(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, and nobody listens
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = bentotool(tmp_path, "model", "import", "hf://acme/tiny", HF_HUB_OFFLINE="0", HF_ENDPOINT=endpoint)
    assert done.returncode == 5, done.stderr
    told = json.loads(done.stderr.splitlines()[-1])["error"]
    assert told["message"] == "127.0.0.1 did not give hf://acme/tiny: it cannot be reached, or does not answer"
    assert "HF_HUB_OFFLINE=1" in told["hint"]


class _Hub(BaseHTTPRequestHandler):
    """Answers all with the status and the words that its path starts with."""

    def do_GET(self) -> None:
        status, words = self.path.split("/")[1:3]
        self.send_response(int(status))
        self.send_header("Content-Length", str(len(words)))
        self.end_headers()
        self.wfile.write(words.encode())

    def log_message(self, *arguments: object) -> None:
        """Be silent."""


@pytest.mark.parametrize(
    ("path", "exit_status", "message"),
    [
        ("404/x", 5, "127.0.0.1 did not give hf://acme/tiny: it answered 404"),
        ("403/x", 5, "127.0.0.1 refuses hf://acme/tiny: it answered 403"),
        ("200/words", 5, "127.0.0.1 did not give hf://acme/tiny: its answer is not that of a hub"),
    ],
)
def test_what_the_hub_says_is_one_line(tmp_path: Path, path: str, exit_status: int, message: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}/{path}"
        done = bentotool(tmp_path, "model", "import", "hf://acme/tiny", HF_HUB_OFFLINE="0", HF_ENDPOINT=endpoint)
        server.shutdown()
    told = json.loads(done.stderr.splitlines()[-1])["error"]
    assert (done.returncode, told["message"]) == (exit_status, message)
    assert told["hint"]


@pytest.mark.parametrize(
    ("uri", "endpoint", "message"),
    [
        ("hf://-a/b", "https://127.0.0.1:9", "hf://-a/b names no repository of the hub"),
        ("hf://a/b", "nonsense", "HF_ENDPOINT is no web address, so hf://a/b is not to be had"),
    ],
)
def test_names_and_addresses_that_the_hubs_client_refuses(
    tmp_path: Path, uri: str, endpoint: str, message: str
) -> None:
    done = bentotool(tmp_path, "model", "import", uri, HF_HUB_OFFLINE="0", HF_ENDPOINT=endpoint)
    told = json.loads(done.stderr.splitlines()[-1])["error"]
    assert (done.returncode, told["message"], bool(told["hint"])) == (2, message, True)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
def test_the_contract_of_a_source(hub: Path, tmp_path: Path) -> None:
    # a process of its own: the hub's client reads its settings when it is imported
    code = (
        "import pathlib, sys; from bentotool.testing import check_source; "
        "check_source('huggingface-hub', 'hf://acme/tiny', scratch=pathlib.Path(sys.argv[1]))"
    )
    environment = {**os.environ, "HF_HOME": str(hub), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code, str(tmp_path / "scratch")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("uri", ["hf://", "hf://a/b/c", "hf://../x", "hf://a/b@", "hf://a b/c", "hf://a/b\n"])
def test_addresses_that_name_no_repository(uri: str) -> None:
    with pytest.raises(UsageError):
        _parse(uri)


def test_name_and_revision() -> None:
    assert _parse("hf://Acme/Tiny@refs/pr/1") == ("Acme/Tiny", "refs/pr/1")
