"""A Cloud Run of the test's own, reached as the real one is: by a service account's key and google-auth."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bentotool.deployspec import DeployService
from bentotool.targetspec import DeployBento, Deployment, DeployOptions

LIMIT = 180.0
IMAGE = "europe-west1-docker.pkg.dev/p/bentos/iris"
BENTO = DeployBento(
    "iris", "1", "sha256:" + "1" * 64, "service:Iris", "3.11", "linux/amd64",
    services=(DeployService("Iris", "service:Iris", traffic={"timeout": 30, "max_concurrency": 16}),),
)  # fmt: skip


def _load(name: str) -> ModuleType:
    """A file of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"cloudrun_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _absent(what: str, *, on_purpose: bool = False) -> None:
    if os.environ.get("BENTOTOOL_TEST_REQUIRE_ALL") == "1" and not on_purpose:
        pytest.fail(f"needs {what}, which is not here", pytrace=False)
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session", autouse=True)
def _needs_plugin() -> None:
    lacking = os.environ.get("BENTOTOOL_TEST_WITHOUT", "").split()
    for name in ("bentotool_cloudrun", "google.auth"):
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            _absent(f"the package {name}", on_purpose=name in lacking)


@pytest.fixture(scope="session")
def standin() -> ModuleType:
    """The module ``standin.py``."""
    return _load("standin")


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A service account's key, whose token endpoint is still to be named."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "type": "service_account", "project_id": "p", "private_key_id": "1", "private_key": pem.decode(),
        "client_email": "deployer@p.iam.gserviceaccount.com", "client_id": "1",
    }  # fmt: skip


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials, no place, a home and a store of the test's own."""
    for name in ("HOME", "USERPROFILE", "APPDATA", "CLOUDSDK_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("BENTOTOOL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    # google-auth asks in the background where an account may be used from: nobody is to be asked here
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    for name in (
        "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "GOOGLE_CLOUD_REGION",
        "CLOUDSDK_RUN_REGION", "CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN", "BENTOTOOL_REGISTRY", "BENTOTOOL_DISABLE_PLUGINS",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cloud(standin: ModuleType, key: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A stand-in that answers, and surroundings in which it is what is meant."""
    cloud = standin.Cloud()
    server = standin.serve(cloud)
    root = f"http://127.0.0.1:{server.server_address[1]}/"
    file = tmp_path / "key.json"
    file.write_text(json.dumps({**key, "token_uri": f"{root}token"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN", root)
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING", root)
    monkeypatch.setenv("CLOUDSDK_RUN_REGION", "europe-west1")
    yield cloud
    cloud.ended.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits between two questions; the pauses that there would have been."""
    from bentotool_cloudrun import api

    pauses: list[float] = []
    connect = api.connect

    def connect_quickly(*args: Any) -> Any:
        client = connect(*args)
        client.pause = pauses.append
        return client

    monkeypatch.setattr("bentotool_cloudrun.target.connect", connect_quickly)
    return pauses


def make_options(*pairs: str, name: str = "iris", previous: Deployment | None = None, **more: Any) -> DeployOptions:
    """The options of a command line."""
    from bentotool_cloudrun.hooks import bentotool_targets

    from bentotool.deploy.options import option_values

    values = option_values(next(iter(bentotool_targets())), pairs)
    return DeployOptions(name, values, previous=previous, **more)


@pytest.fixture
def options() -> Callable[..., DeployOptions]:
    return make_options


@pytest.fixture
def bento() -> DeployBento:
    return BENTO


@pytest.fixture
def deploy(cloud: Any, quick: list[float]) -> Callable[..., Deployment]:
    """``deploy("image=…", …)`` deploys as the command does, and gives the outcome."""
    from bentotool_cloudrun.target import CloudRunTarget

    def run(*pairs: str, version: str = "1", wait: bool = True, **more: Any) -> Deployment:
        bento = DeployBento(**{**vars(BENTO), "version": version, "digest": "sha256:" + version * 64})
        given = pairs if any(pair.startswith("image=") for pair in pairs) else (f"image={IMAGE}:{version}", *pairs)
        target = CloudRunTarget()
        return target.apply(target.plan(bento, make_options(*given, **more)), wait)

    return run


@dataclass
class Outcome:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The line that says what is wrong."""
        return next(line for line in self.err.splitlines() if line.startswith("error: "))


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A store with a Bento ``iris:1`` and ``iris:2``."""
    from bentotool.oci.descriptor import MANIFEST, Descriptor, Manifest, canonical_json
    from bentotool.oci.layout import Layout
    from bentotool.oci.refs import RefStore

    layout = Layout(tmp_path / "store")
    layout.prepare()
    for version in "12":
        config = {
            "schema": 1, "name": "iris", "version": version, "service": "service:Iris", "python": "3.11",
            "platform": "linux/amd64", "description": "", "labels": {}, "models": [],
        }  # fmt: skip
        manifest = Manifest(
            layout.put(canonical_json(config), "application/vnd.bentotool.bento.config.v1+json"),
            (
                layout.put(bytes(1024), "application/vnd.bentotool.bento.code.v1.tar"),
                layout.put(b"lock", "application/vnd.bentotool.bento.lock.v1+txt"),
            ),
            artifact_type="application/vnd.bentotool.bento.v1",
            annotations={"io.bentotool.name": "iris", "org.opencontainers.image.version": version},
        )
        put = layout.put(manifest.to_bytes(), MANIFEST)
        descriptor = Descriptor(MANIFEST, put.digest, put.size, artifact_type=manifest.artifact_type)
        RefStore(layout).set("bentos", "iris", version, descriptor, size=put.size)
    return tmp_path / "store"


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Outcome]:
    """The command line as a user starts it."""

    def run(*words: str) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "bentotool", *words], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT,
            check=False,
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """The command line, while it runs; it takes ctrl-C whatever this process does with it."""
    started: list[subprocess.Popen[str]] = []
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: None)

    def run(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "bentotool", *words]
        started.append(
            subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, before)
