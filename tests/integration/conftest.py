"""Real registries, a faulty one, and stores with something to move."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bentotool.models.manifest import ModelDetails, ModelFile
from bentotool.models.store import ModelStore, StoredModel
from bentotool.oci.descriptor import MANIFEST, Descriptor, Manifest, canonical_json
from bentotool.oci.layout import Layout
from bentotool.oci.refs import Ref, RefStore
from bentotool.oci.tar import BLOCK, TRAILER, TarEntry, tar_header

DETAILS = ModelDetails("test", "raw", "data", "w.bin", {"inputs": [], "outputs": []}, (), {"team": "a"}, {})
FILES = {"w.bin": b"weights" * 50_000, "empty.bin": b"", "config.json": b"{}", "README.md": b"# hi", "sub/t.bin": b"t"}


@dataclass(frozen=True)
class RealRegistry:
    """A running docker-registry."""

    host: str
    username: str = ""
    password: str = ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _running(program: str, folder: Path, auth: str = "", http: str = "") -> Iterator[str]:
    port = _free_port()
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: '{(folder / 'data').as_posix()}'}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'{', ' if http else ''}{http}}}\n{auth}"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError((folder / "log").read_text()) from None
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture(scope="session")
def start_registry(require_tool: Callable[[str], str]) -> Callable[..., contextlib.AbstractContextManager[str]]:
    """``with start_registry(folder, http="tls: …") as host`` runs another docker-registry."""
    return lambda folder, **options: _running(require_tool("docker-registry"), folder, **options)


@pytest.fixture(scope="session")
def real_registry(
    require_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealRegistry]:
    """docker-registry, open to all."""
    with _running(require_tool("docker-registry"), tmp_path_factory.mktemp("registry")) as host:
        yield RealRegistry(host)


@pytest.fixture(scope="session")
def password_file(require_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a docker-registry needs in its configuration to ask for the name ``ada`` and password ``s3cret:pass``."""
    file = tmp_path_factory.mktemp("passwords") / "htpasswd"
    command = [require_tool("htpasswd"), "-Bbn", "ada", "s3cret:pass"]
    file.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    return f"auth: {{htpasswd: {{realm: test, path: '{file.as_posix()}'}}}}\n"


@pytest.fixture(scope="session")
def locked_registry(
    require_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory, password_file: str
) -> Iterator[RealRegistry]:
    """docker-registry that asks for a user name and password."""
    with _running(require_tool("docker-registry"), tmp_path_factory.mktemp("locked"), password_file) as host:
        yield RealRegistry(host, "ada", "s3cret:pass")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``server``, ``client``, ``expired``, ``misnamed`` (.pem, .key), by the authority ``ca.pem``; ``other-ca.pem``."""
    import trustme

    folder, authority = tmp_path_factory.mktemp("certificates"), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
    past = datetime(2001, 1, 1, tzinfo=timezone.utc)
    for name, certificate in (
        ("server", authority.issue_cert("127.0.0.1", "localhost")),
        ("client", authority.issue_cert("ada@example.com")),
        ("expired", authority.issue_cert("127.0.0.1", not_after=past)),
        ("misnamed", authority.issue_cert("other.example")),
    ):
        certificate.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
    return folder


@pytest.fixture
def make_model() -> Callable[..., StoredModel]:
    """``make_model(layout, "iris", files={...})`` puts a model into a store."""

    def make(
        layout: Layout, name: str = "iris", version: str = "1", files: dict[str, bytes] | None = None
    ) -> StoredModel:
        listing = [
            ModelFile(path, len(data), layout.put(data, "application/octet-stream").digest)
            for path, data in (files or FILES).items()
        ]
        return ModelStore(layout).add(name, version, listing, DETAILS)

    return make


@pytest.fixture
def make_bento() -> Callable[..., Ref]:
    """``make_bento(layout, models)`` puts a small Bento into a store."""

    def make(layout: Layout, models: list[StoredModel], name: str = "svc", version: str = "7") -> Ref:
        entries = [
            {"alias": m.tag, "name": m.name, "version": m.version, "digest": m.digest, "path": f"models/{m.name}"}
            for m in models
        ]
        config = canonical_json(
            {
                "schema": 1,
                "name": name,
                "version": version,
                "service": "service:S",
                "python": "3.12",
                "platform": "linux/amd64",
                "description": "",
                "labels": {},
                "models": entries,
            }
        )
        code = b"# code " * 5000
        entry = tar_header(TarEntry("home/bento/app/service.py", len(code))) + code + bytes(-len(code) % BLOCK)
        layers = (
            layout.put(entry + TRAILER, "application/vnd.bentotool.bento.code.v1.tar"),
            layout.put(b"lock", "application/vnd.bentotool.bento.lock.v1+txt"),
        )
        manifest = Manifest(
            layout.put(config, "application/vnd.bentotool.bento.config.v1+json"),
            layers,
            artifact_type="application/vnd.bentotool.bento.v1",
            annotations={"io.bentotool.name": name, "org.opencontainers.image.version": version},
        )
        data = manifest.to_bytes()
        stored = layout.put(data, MANIFEST)
        descriptor = Descriptor(MANIFEST, stored.digest, stored.size, artifact_type=manifest.artifact_type)
        size = stored.size + manifest.config.size + sum(layer.size for layer in layers)
        return RefStore(layout).set("bentos", name, version, descriptor, size=size)

    return make


def _load(name: str) -> ModuleType:
    """A file of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"integration_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def simulator() -> ModuleType:
    """The module ``simulator.py``: a registry with faults."""
    return _load("simulator")


@pytest.fixture
def make_faulty(simulator: ModuleType) -> Iterator[Callable[..., Any]]:
    """Starts faulty registries; each call another one."""
    with contextlib.ExitStack() as running:

        def make(**options: Any) -> Any:
            registry, end = simulator.start(**options)
            running.callback(end)
            return registry

        yield make


@pytest.fixture
def faulty(make_faulty: Callable[..., Any]) -> Any:
    """One faulty registry."""
    return make_faulty()


@pytest.fixture
def reply(simulator: ModuleType) -> Any:
    """The simulator's class ``Reply``, for tests, which cannot import it."""
    return simulator.Reply


@pytest.fixture
def fault(simulator: ModuleType) -> Any:
    """The simulator's class ``Fault``."""
    return simulator.Fault
