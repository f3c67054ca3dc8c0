"""A cluster that is none, and kubeconfigs for it."""

from __future__ import annotations

import importlib.util
import os
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml


def _absent(what: str, *, on_purpose: bool = False) -> None:
    if os.environ.get("BENTOTOOL_TEST_REQUIRE_ALL") == "1" and not on_purpose:
        pytest.fail(f"needs {what}, which is not here", pytrace=False)
    pytest.skip(f"needs {what}")


def _load(name: str) -> ModuleType:
    """A module beside this file; those that it needs itself are loaded before it."""
    spec = importlib.util.spec_from_file_location(f"k8s_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[f"k8s_{name}"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", autouse=True)
def _needs_client() -> None:
    for name in ("kubernetes", "trustme"):
        if importlib.util.find_spec(name) is None:
            lacking = os.environ.get("BENTOTOOL_TEST_WITHOUT", "").split()
            _absent(f"the package {name}", on_purpose=name in lacking)


@pytest.fixture(scope="session")
def standin() -> SimpleNamespace:
    loaded = {name: _load(name) for name in ("fields", "store", "controllers", "standin")}
    return SimpleNamespace(**loaded)


@pytest.fixture(scope="session")
def authority() -> Any:
    import trustme

    return trustme.CA(organization_name="test cluster")


@pytest.fixture
def cluster(standin: SimpleNamespace, authority: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A running stand-in, and ``KUBECONFIG`` for it: context ``one`` has a client certificate, ``robot`` a token."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    made = standin.standin.Cluster()
    server = standin.standin.Server(made, context)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    made.server = f"https://127.0.0.1:{server.server_address[1]}"
    made.kubeconfig = write_kubeconfig(tmp_path / "kube" / "config", made.server, authority)
    monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig))
    yield made
    made.controllers.close()
    server.shutdown()
    server.server_close()
    thread.join(5)


def write_kubeconfig(path: Path, server: str, authority: Any) -> Path:
    """A kubeconfig with files beside it, named from it, as clouds' commands and kind write them."""
    path.parent.mkdir(exist_ok=True)
    authority.cert_pem.write_to_path(str(path.with_name("ca.crt")))
    issued = authority.issue_cert(common_name="ada", organization_unit_name="ada", organization_name="dev")
    path.with_name("ada.crt").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(path.with_name("ada.key")))
    users = [
        {"name": "ada", "user": {"client-certificate": "ada.crt", "client-key": "ada.key"}},
        {"name": "robot", "user": {"token": "good-token"}},
        {"name": "late", "user": {"token": "expired"}},
    ]
    contexts = {"one": ("ada", None), "robot": ("robot", "ml"), "late": ("late", None)}
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "one", "users": users,
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": "ca.crt"}}],
        "contexts": [
            {"name": name, "context": {"cluster": "c", "user": user, **({"namespace": space} if space else {})}}
            for name, (user, space) in contexts.items()
        ],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def api(cluster: Any) -> Iterator[Any]:
    from bentotool_k8s.cluster.api import Api
    from bentotool_k8s.cluster.connection import connect

    with Api(connect()) as found:
        yield found


@pytest.fixture
def deploy(api: Any) -> Callable[..., SimpleNamespace]:
    """Puts objects in place as a deployment does, and keeps what it said."""
    from bentotool_k8s.cluster.applying import Request, bring_up

    said = SimpleNamespace(notes=[], progress=[], committed=[])

    def run(*objects: Any, name: str = "iris", tag: str = "iris:1", through: Any = api, **settings: Any) -> Any:
        settings = {"timeout_s": 20.0, **settings}
        request = Request(
            name, tag, f"sha256:{tag}", f"http://{name}", objects, note=said.notes.append,
            progress=said.progress.append, committed=lambda: said.committed.append(tag), **settings,
        )  # fmt: skip
        bring_up(through, request)
        return said

    run.said = said  # type: ignore[attr-defined]
    return run


@pytest.fixture
def things() -> SimpleNamespace:
    """Objects as manifests have them."""

    def deployment(name: str = "iris", tag: str = "good", replicas: int | None = 1, **container: Any) -> dict[str, Any]:
        labels = {"app": name}
        ports = [{"name": "http", "containerPort": 3000, "protocol": "TCP"}]
        resources = {"requests": {"cpu": "1000m", "memory": "512Mi"}}
        service = {"name": "service", "image": f"reg.example/iris:{tag}", "ports": ports, "resources": resources}
        return {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels},
            "spec": {
                **({"replicas": replicas} if replicas is not None else {}), "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels}, "spec": {"containers": [{**service, **container}]},
                },
            },
        }  # fmt: skip

    def service(name: str = "iris") -> dict[str, Any]:
        ports = [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]
        return {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": {"app": name}, "ports": ports},
        }  # fmt: skip

    def plain(api_version: str, kind: str, name: str = "iris", **spec: Any) -> dict[str, Any]:
        return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec}

    return SimpleNamespace(deployment=deployment, service=service, plain=plain)
