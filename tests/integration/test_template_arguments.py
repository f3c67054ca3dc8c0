"""Template arguments from the command line to the answer of a server, and that secrets are kept nowhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

CANARY = "canary-4f1d9c-secret"
SERVICE = """
import dataclasses, json, os, sys
import bentotool

@dataclasses.dataclass
class Args:
    greeting: str
    times: int = 1
    tags: list[str] = dataclasses.field(default_factory=list)
    token: bentotool.Secret = bentotool.Secret("")

args = bentotool.use_arguments(Args)
assert not any("canary" in part for part in sys.orig_argv)

@bentotool.service(labels={"greeting": args.greeting})
class Hello:
    @bentotool.api
    def hello(self) -> list[str]:
        return [args.greeting * args.times, *args.tags, args.token.get_secret_value()]

    @bentotool.api
    def die(self) -> None:
        os._exit(7)

    @bentotool.api
    def seen(self) -> str:
        commands = [" ".join(sys.orig_argv)]
        if os.path.exists("/proc/self"):
            commands.append(open(f"/proc/{os.getppid()}/cmdline").read())
        return json.dumps([commands, dict(os.environ), repr(args), "pydantic" in sys.modules])
"""
REQUIRED = SERVICE.replace(' = bentotool.Secret("")', "").replace(".dataclass\n", ".dataclass(kw_only=True)\n")


@pytest.fixture(autouse=True)
def _serving(require_package: Callable[[str], None]) -> None:
    require_package("litestar")


@pytest.fixture
def make(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a project with a lock, so that no index is asked."""
    from bentotool.build.configfile import load_config
    from bentotool.build.lock import inputs_digest
    from bentotool.build.requirements import gather

    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("BENTOTOOL_STORE", str(store))

    def write(service: str = SERVICE, config: str = "") -> Path:
        folder = tmp_path / "project"
        folder.mkdir(exist_ok=True)
        (folder / "service.py").write_text(service)
        (folder / "bentofile.yaml").write_text("service: service:Hello\n" + config)
        inputs = inputs_digest(gather(load_config(folder)), "3.12", "linux/amd64")
        header = "# bento.lock, format 1: made by `bentotool build`, not to be edited\n"
        header += f"# inputs: {inputs}\n# python: 3.12\n# platform: linux/amd64\n"
        (folder / "bento.lock").write_text(f"{header}litestar==2.25.0 \\\n    --hash=sha256:{'1' * 64}\n")
        return folder

    return write


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bentotool", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def built(folder: Path, *arguments: str, **variables: str) -> dict[str, Any]:
    done = run(folder, "build", "--json", *arguments, **variables)
    assert done.returncode == 0, done.stderr
    assert CANARY not in done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@contextmanager
def serving(folder: Path, *arguments: str, **variables: str) -> Iterator[Callable[[str], Any]]:
    """The server; ``ask(api)`` calls it. What it printed holds no secret."""
    command = [sys.executable, "-m", "bentotool", "serve", "--json", "--port", "0", *arguments]
    environment = {**os.environ, **variables}

    def ask(api: str) -> Any:
        request = urllib.request.Request(f"{url}/{api}", b"{}", {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as reply:
            content = reply.read().decode()
        return json.loads(content) if content.startswith("[") else content

    with tempfile.TemporaryFile("w+") as errors:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            errors.seek(0)
            assert line, errors.read()
            url = json.loads(line)["url"]
            yield ask
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                rest = server.communicate(timeout=30)[0]
            except subprocess.TimeoutExpired:
                server.kill()
                raise
        errors.seek(0)
        assert CANARY not in line + rest + errors.read()


def files_with(text: str, *folders: Path) -> list[str]:
    paths = [path for folder in folders for path in folder.rglob("*")]
    return [str(p) for p in paths if text in p.name or (p.is_file() and text.encode() in p.read_bytes())]


def test_a_bento_answers_with_the_values_it_was_built_with(make: Callable[..., Path], tmp_path: Path) -> None:
    folder = make(config="args: {greeting: low, times: 9}\n")
    (tmp_path / "more.yaml").write_text("greeting: middle\ntags: [a, b]\n")
    one = built(folder, "--arg-file", "../more.yaml", "--arg", "greeting=ho", "--arg", "times=2")
    with serving(tmp_path, one["tag"]) as ask:
        assert ask("hello") == ["hoho", "a", "b", ""]
        assert ask("seen")[3] is False, "pydantic is imported, and the service does not use it"
    shown = json.loads(run(folder, "show", one["tag"], "--json").stdout)
    assert [(a["name"], a["type"], a.get("value"), a["secret"]) for a in shown["arguments"]] == [
        ("greeting", "str", "ho", False), ("tags", "list[str]", ["a", "b"], False), ("times", "int", 2, False),
        ("token", "Secret", None, True),
    ]  # fmt: skip
    assert "given when it runs" in run(folder, "show", one["tag"]).stdout
    refused = run(folder, "serve", one["tag"], "--port", "0", "--arg", "times=3")
    assert (refused.returncode, "argument 'times' is part of Bento" in refused.stderr) == (2, True)

    same = built(folder, "--arg-file", "../more.yaml", "--arg", "greeting=ho", "--arg", "times=2")
    assert (same["digest"], same["cached"]["build"]) == (one["digest"], True)
    (tmp_path / "more.yaml").write_text("greeting: middle\ntags: [a, c]\n")
    other = built(folder, "--arg-file", "../more.yaml", "--arg", "greeting=ho", "--arg", "times=2", "--explain")
    assert other["digest"] != one["digest"]
    changes = [(c["input"], c["name"], c["before"], c["after"]) for c in other["explain"]["changes"]]
    assert ("arguments", "tags", '["a","b"]', '["a","c"]') in changes
    back = built(
        folder, "--arg-file", "../more.yaml", "--arg", "greeting=ho", "--arg", "times=2", "--arg", 'tags=["a","b"]'
    )
    assert (back["digest"], back["cached"]["service"]) == (one["digest"], False)
    checked = run(folder, "build", "--check", "--arg", "greeting=x", "--arg", f"token={CANARY}", "--json")
    assert (checked.returncode, CANARY in checked.stdout + checked.stderr) == (0, False), checked.stderr


def _again(ask: Callable[[str], Any]) -> Any:
    """The answer, as soon as there is a worker to give one."""
    end = time.monotonic() + 30
    while True:
        try:
            return ask("hello")
        except (OSError, HTTPException):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def test_a_folder_is_served_with_arguments(make: Callable[..., Path], tmp_path: Path) -> None:
    folder = make(config="args: {greeting: configured}\n")
    with serving(tmp_path, str(folder)) as ask:
        assert ask("hello") == ["configured", ""]
    with serving(tmp_path, str(folder), "--arg", "greeting=given", "--arg", f"token={CANARY}") as ask:
        assert ask("hello") == ["given", CANARY]
        commands, environment, shown, _ = ask("seen")
        assert CANARY not in json.dumps([commands, environment, shown])
        with suppress(OSError, HTTPException):
            ask("die")
        assert _again(ask) == ["given", CANARY], "a worker that is started again has its arguments"
    missing = run(tmp_path, "serve", str(make()), "--port", "0")
    assert missing.returncode == 2
    assert "service.py:12: argument 'greeting' (str) is missing" in missing.stderr
    assert "--arg greeting=VALUE" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_a_secret_is_kept_nowhere(make: Callable[..., Path], store: Path, tmp_path: Path) -> None:
    folder = make(REQUIRED)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "file.json").write_text(json.dumps({"token": CANARY, "greeting": "hi"}))
    ways: list[tuple[tuple[str, ...], dict[str, str]]] = [
        (("--arg", "greeting=hi", "--arg", f"token={CANARY}"), {}),
        (("--arg-file", "../secrets/file.json"), {}),
        (("--arg", "greeting=hi"), {"BENTOTOOL_ARG_TOKEN": CANARY}),
        (("--arg", "greeting=hi"), {}),
    ]
    digests = set()
    for arguments, variables in ways:
        for extra in (("--dry-run",), ("--explain",), ("--no-cache",), ()):
            document = built(folder, *arguments, *extra, **variables)
            digests |= {document["digest"]} if document["digest"] else set()
        human = run(folder, "build", "-v", "--dry-run", *arguments, **variables)
        assert (human.returncode, CANARY in human.stdout + human.stderr) == (0, False), human.stderr
        assert "token = given when it runs" in human.stdout
    assert len(digests) == 1, "a secret is no part of the Bento"
    tag = document["tag"]
    assert CANARY not in run(folder, "show", tag, "--json").stdout
    with serving(tmp_path, tag, "--arg", f"token={CANARY}") as ask:
        assert ask("hello") == ["hi", CANARY]
        commands, environment, shown, _ = ask("seen")
        assert CANARY not in json.dumps([commands, environment, shown])
    with serving(tmp_path, tag, BENTOTOOL_ARG_TOKEN=CANARY) as ask:
        assert ask("hello") == ["hi", CANARY]
    missing = run(tmp_path, "serve", tag, "--port", "0")
    assert missing.returncode == 2
    assert "secret argument 'token' (Secret) is missing" in missing.stderr
    assert "BENTOTOOL_ARG_TOKEN" in missing.stderr
    assert files_with(CANARY, store, folder, tmp_path / "cache") == []


@pytest.mark.parametrize(
    "change",
    [
        ('labels={"greeting": args.greeting}', 'labels={"greeting": args.token.get_secret_value()}'),
        ('labels={"greeting": args.greeting}', 'labels={"greeting": "Bearer " + args.token.get_secret_value()}'),
        ('labels={"greeting": args.greeting}', 'labels={"greeting": f"Bearer {args.token}"}'),
        ('labels={"greeting": args.greeting}', 'envs=[{"name": "T", "value": args.token}]'),
        ("def hello(self)", "def hello(self, x: str = args.token.get_secret_value())"),
    ],
)
def test_a_service_cannot_write_a_secret_into_the_bento(make: Callable[..., Path], change: tuple[str, str]) -> None:
    folder = make(SERVICE.replace(*change))
    done = run(folder, "build", "--arg", "greeting=hi", "--arg", f"token={CANARY}")
    assert done.returncode == 2, done.stdout
    assert "the secret argument 'token' would be written into the Bento" in done.stderr
    assert CANARY not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('no ' + args.token.get_secret_value())", "ValueError: no **********"),
        ("sys.exit('no ' + args.token.get_secret_value())", "no **********"),
        ("print('no ' + args.token.get_secret_value(), flush=True); os._exit(3)", "no **********"),
    ],
)
def test_no_failure_tells_a_secret(make: Callable[..., Path], body: str, words: str, tmp_path: Path) -> None:
    folder = make(SERVICE + body + "\n")
    arguments = ("--arg", "greeting=hi", "--arg", f"token={CANARY}")
    done = run(folder, "build", *arguments)
    assert (done.returncode, CANARY in done.stderr) == (1, False), done.stderr
    assert words in done.stderr
    if "_exit" not in body:
        served = run(tmp_path, "serve", str(folder), "--port", "0", *arguments)
        assert (served.returncode, CANARY in served.stdout + served.stderr) == (1, False), served.stderr


def test_a_secret_in_a_file_of_the_project_is_refused(make: Callable[..., Path]) -> None:
    folder = make(config=f"args: {{greeting: hi, token: {CANARY}}}\n")
    done = run(folder, "build")
    assert (done.returncode, CANARY in done.stderr) == (2, False)
    assert "bentofile.yaml → args → token" in done.stderr
    folder = make()
    (folder / "given.yaml").write_text(f"greeting: hi\ntoken: {CANARY}\n")
    done = run(folder, "build", "--arg-file", "given.yaml")
    assert (done.returncode, CANARY in done.stderr) == (2, False)
    assert "exclude: [given.yaml]" in done.stderr
    folder = make(config="exclude: [given.yaml]\n")
    assert run(folder, "build", "--arg-file", "given.yaml").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--arg", "greetin=hi"), 2, "'greetin' was given"),
        (("--arg", "greeting=hi", "--arg", "tiems=2"), 2, "did you mean 'times'?"),
        (("--arg", "greeting=hi", "--arg", "times=two"), 2, "argument 'times' must be int, not 'two'"),
        (("--arg", "greeting"), 2, "--arg is not of the form NAME=VALUE"),
        (("--arg", "greeting=a\x1bb"), 2, "control character"),
        (("--arg", "a b=c"), 2, "expected the name of an argument"),
        (("--arg-file", "none.yaml"), 3, "none.yaml"),
        (("--arg-file", "service.py"), 2, "service.py"),
    ],
)
def test_a_wrong_argument_is_one_line(
    make: Callable[..., Path], arguments: tuple[str, ...], status: int, words: str
) -> None:
    done = run(make(), "build", *arguments)
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_service_without_arguments_takes_none(make: Callable[..., Path]) -> None:
    service = "import bentotool\n@bentotool.service\nclass Hello:\n    @bentotool.api\n"
    done = run(make(service + "    def x(self) -> int:\n        return 1\n"), "build", "--arg", "x=1")
    assert (done.returncode, "the service takes none" in done.stderr) == (2, True)
