"""Which cluster is meant, and what is said where it cannot be had."""

from __future__ import annotations

import http.server
import json
import os
import socket
import ssl
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from bentotool.errors import RemoteError, UsageError

pytestmark = pytest.mark.timeout(120)


def asked(context: str | None = None) -> Any:
    """The anchors of the cluster that is meant."""
    from bentotool_k8s.cluster.api import Api
    from bentotool_k8s.cluster.connection import connect
    from bentotool_k8s.cluster.marks import find_anchors

    with Api(connect(context=context)) as api:
        return find_anchors(api)


def changed(cluster: Any, **users: Any) -> None:
    """Give users of the kubeconfig other credentials; contexts are named as they are."""
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    for name, user in users.items():
        document["users"].append({"name": name, "user": user})
        document["contexts"].append({"name": name, "context": {"cluster": "c", "user": name}})
    cluster.kubeconfig.write_text(yaml.safe_dump(document))


def test_no_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bentotool_k8s.cluster.connection import connect

    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with pytest.raises(UsageError, match="no cluster is known here: there is no .*config") as caught:
        connect()
    assert "--kubeconfig FILE" in str(caught.value.hint)


def test_a_wrong_context(cluster: Any) -> None:
    from bentotool_k8s.cluster.connection import connect

    with pytest.raises(UsageError, match="there is no context 'two' in ") as caught:
        connect(context="two")
    assert "late, one, robot" in str(caught.value.hint)


@pytest.mark.parametrize("text", ["", "[]", "contexts: 7", "a: [", "contexts: [{context: {}}]"])
def test_a_file_that_is_no_kubeconfig(cluster: Any, text: str) -> None:
    from bentotool_k8s.cluster.connection import connect

    cluster.kubeconfig.write_text(text)
    with pytest.raises(UsageError) as caught:
        connect()
    assert "\n" not in caught.value.message
    assert str(cluster.kubeconfig) in caught.value.message


def test_a_certificate_that_is_not_there(cluster: Any) -> None:
    from bentotool_k8s.cluster.connection import connect

    cluster.kubeconfig.with_name("ada.crt").unlink()
    with pytest.raises(UsageError, match="context one of .* cannot be used: .*ada.crt"):
        connect()


def test_several_files_as_kubectl_takes_them(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A context of one file with the cluster and the user of another."""
    first = tmp_path / "first"
    context = {"name": "both", "context": {"cluster": "c", "user": "robot"}}
    first.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "contexts": [context]}))
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([str(first), str(tmp_path / "gone"), str(cluster.kubeconfig)]))
    assert asked("both") == []
    assert asked() == []  # the last file names the current one


def test_nobody_answers(cluster: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = cluster.kubeconfig.read_text()
    cluster.kubeconfig.write_text(text.replace(cluster.server, f"https://127.0.0.1:{port}"))
    with pytest.raises(RemoteError, match=rf"no cluster answers at https://127.0.0.1:{port}: \D*refused") as caught:
        asked()
    assert "kubectl cluster-info" in str(caught.value.hint)


def test_another_authority(cluster: Any) -> None:
    import trustme

    trustme.CA().cert_pem.write_to_path(str(cluster.kubeconfig.with_name("ca.crt")))
    with pytest.raises(
        RemoteError, match="no secure connection to the cluster at .*certificate verify failed"
    ) as caught:
        asked()
    assert "certificate-authority" in str(caught.value.hint)


def test_something_else_answers(cluster: Any, authority: Any) -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>sign in here</html>")

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        text = cluster.kubeconfig.read_text()
        cluster.kubeconfig.write_text(text.replace(cluster.server, f"https://127.0.0.1:{server.server_address[1]}"))
        with pytest.raises(RemoteError, match="answers, but not as a Kubernetes API does"):
            asked()
        server.shutdown()


def program(tmp_path: Path, status: Any, version: str = "v1") -> dict[str, Any]:
    """A program for credentials, as ``aws``, ``gke-gcloud-auth-plugin`` or ``kubelogin`` are."""
    told = {"apiVersion": f"client.authentication.k8s.io/{version}", "kind": "ExecCredential", "status": status}
    script = tmp_path / "credentials.py"
    script.write_text(f"print({json.dumps(told)!r})")
    return {
        "exec": {
            "apiVersion": f"client.authentication.k8s.io/{version}", "command": sys.executable, "args": [str(script)],
            "interactiveMode": "Never",
        }
    }  # fmt: skip


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_credentials_of_a_program(cluster: Any, tmp_path: Path, version: str) -> None:
    changed(cluster, cloud=program(tmp_path, {"token": "good-token"}, version))
    assert asked("cloud") == []


def test_a_certificate_of_a_program(cluster: Any, authority: Any, tmp_path: Path) -> None:
    issued = authority.issue_cert(common_name="eve", organization_unit_name="eve")
    status = {
        "clientCertificateData": b"".join(blob.bytes() for blob in issued.cert_chain_pems).decode(),
        "clientKeyData": issued.private_key_pem.bytes().decode(),
    }
    changed(cluster, cloud=program(tmp_path, status))
    assert asked("cloud") == []


def test_a_program_that_gives_none(cluster: Any, tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text("import sys\nsys.exit('your session has ended')")
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": [str(script)]}
    changed(cluster, cloud={"exec": command})
    with pytest.raises(
        RemoteError, match="the context's program gave no credentials: .*your session has ended"
    ) as caught:
        asked("cloud")
    assert "sign in again" in str(caught.value.hint)


def test_a_program_that_is_not_there(cluster: Any, tmp_path: Path) -> None:
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(tmp_path / "none")}
    changed(cluster, cloud={"exec": command})
    with pytest.raises(UsageError, match="the context's program for credentials cannot be started: .*none") as caught:
        asked("cloud")
    assert "\n" not in caught.value.message
    assert "install it" in str(caught.value.hint)


def test_a_namespace_that_is_none(cluster: Any) -> None:
    from bentotool_k8s.cluster.connection import connect

    cluster.kubeconfig.write_text(cluster.kubeconfig.read_text().replace("namespace: ml", "namespace: ../ml"))
    with pytest.raises(UsageError, match=r"'\.\./ml' is no name of a namespace, and context robot has it"):
        connect(context="robot")


def test_the_account_of_a_pod(cluster: Any, authority: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bentotool_k8s.cluster import connection
    from kubernetes.config import incluster_config

    (tmp_path / "token").write_text("good-token")
    (tmp_path / "namespace").write_text("ml")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    host, _, port = cluster.server.removeprefix("https://").partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setattr(connection, "_ACCOUNT", tmp_path)
    loader = incluster_config.InClusterConfigLoader
    monkeypatch.setattr(
        incluster_config, "InClusterConfigLoader",
        lambda **given: loader(**{
            **given, "token_filename": str(tmp_path / "token"), "cert_filename": str(tmp_path / "ca.crt"),
        }),
    )  # fmt: skip
    assert asked() == []
    assert cluster.seen[-1][1].startswith("/api/v1/namespaces/ml/configmaps")
