"""moto's AWS behind a door that does what moto leaves out: time that things take, updates, and refusals."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import importlib.util
import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REGION, ACCOUNT = "eu-central-1", "123456789012"
HOST = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
BUSY = ("Creating", "Updating", "RollingBack")
OCI = "application/vnd.oci.image"


def _absent(what: str, *, on_purpose: bool) -> None:
    if os.environ.get("BENTOTOOL_TEST_REQUIRE_ALL") == "1" and not on_purpose:
        pytest.fail(f"needs {what}, which is not here", pytrace=False)
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session", autouse=True)
def _children_take_ctrl_c() -> Iterator[None]:
    """A shell's background job ignores SIGINT, and programs started by it inherit that; a handler they do not."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: None)  # pytest itself goes on as it was started
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def require_package() -> Callable[[str], None]:
    def require(name: str) -> None:
        if importlib.util.find_spec(name) is None:
            lacking = os.environ.get("BENTOTOOL_TEST_WITHOUT", "").split()
            _absent(f"the package {name}", on_purpose=name in lacking)

    return require


class Aws:
    """A WSGI application in front of moto's.

    Attributes:
        slow: how often an endpoint is looked at before what happens to it has happened.
        fails: why the next version does not come into service; empty: it does.
        refused: code and message with which an operation is refused, by its name.
        calls: operations in order.
        wrong: what no client may do.
        seen: told of each operation before it is done.
    """

    def __init__(self, moto: Any) -> None:
        self._moto, self._lock = moto, threading.RLock()
        self.reset()

    def reset(self) -> None:
        self.slow, self.fails = 0, ""
        self.refused: dict[str, tuple[str, str]] = {}
        self.calls: list[str] = []
        self.wrong: list[str] = []
        self.seen: Callable[[str], None] = lambda operation: None
        self.endpoints: dict[str, dict[str, Any]] = {}
        self._names: dict[str, set[str]] = {"CreateModel": set(), "CreateEndpointConfig": set()}
        self._configs: dict[str, Any] = {}

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        if not operation:
            return self._moto(environ, start)
        self.seen(operation)
        with self._lock:
            self.calls.append(operation)
            said = json.loads(body or b"{}")
            if operation in self.refused:
                return _refuse(start, *self.refused[operation])
            own = getattr(self, f"_{operation}", None) if "SageMaker" in environ["HTTP_X_AMZ_TARGET"] else None
            refusal = own(said) if own is not None else None
            if isinstance(refusal, tuple):
                return _refuse(start, *refusal)
            if isinstance(refusal, dict):
                return _answer(start, "200 OK", refusal)
            if operation != "DescribeEndpoint":
                return self._moto(environ, start)
            begun: list[str] = []
            parts = self._moto(environ, lambda status, headers, *_: begun.append(status))
            data = b"".join(part if isinstance(part, bytes) else part.encode() for part in parts)
            return _answer(start, begun[0], self._described(said["EndpointName"], json.loads(data)))

    def _CreateModel(self, said: Any) -> Any:
        return self._once("CreateModel", said["ModelName"])

    def _CreateEndpointConfig(self, said: Any) -> Any:
        self._configs[said["EndpointConfigName"]] = copy.deepcopy(said)
        return self._once("CreateEndpointConfig", said["EndpointConfigName"])

    def _once(self, operation: str, name: str) -> Any:
        if name in self._names[operation]:
            return "ValidationException", f"Cannot create already existing thing {name}."
        self._names[operation].add(name)
        return None

    def _DeleteModel(self, said: Any) -> None:
        self._names["CreateModel"].discard(said["ModelName"])
        if said["ModelName"] in self._in_use():
            self.wrong.append(f"model {said['ModelName']} is deleted while it is in use")

    def _DeleteEndpointConfig(self, said: Any) -> None:
        self._names["CreateEndpointConfig"].discard(said["EndpointConfigName"])
        if said["EndpointConfigName"] in self._in_use():
            self.wrong.append(f"configuration {said['EndpointConfigName']} is deleted while it is in use")

    def _in_use(self) -> set[str]:
        both = [(each["config"], each["next"] if each["status"] in BUSY else "") for each in self.endpoints.values()]
        return {name for pair in both for name in pair}

    def _CreateEndpoint(self, said: Any) -> Any:
        name = said["EndpointName"]
        if name in self.endpoints:
            return "ValidationException", f"Cannot create already existing endpoint {name}."
        self.endpoints[name] = self._changing("Creating", said["EndpointConfigName"], "")
        return None

    def _changing(self, status: str, then: str, now: str) -> dict[str, Any]:
        return {"status": status, "next": then, "config": now, "left": self.slow, "fails": self.fails, "reason": ""}

    def _UpdateEndpoint(self, said: Any) -> Any:
        there = self.endpoints[said["EndpointName"]]
        if there["status"] in BUSY:
            return "ValidationException", "Cannot update in-progress endpoint"
        types = [self._configs[name]["ProductionVariants"][0].get("InstanceType")
                 for name in (there["config"], said["EndpointConfigName"])]  # fmt: skip
        if types[0] != types[1] and self._scales(said["EndpointName"]):
            return "ValidationException", "Cannot change the instance type of a variant that scales"
        self.endpoints[said["EndpointName"]] = self._changing("Updating", said["EndpointConfigName"], there["config"])
        return {"EndpointArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{said['EndpointName']}"}

    @staticmethod
    def _scales(name: str) -> bool:
        from moto.applicationautoscaling.models import applicationautoscaling_backends

        targets = applicationautoscaling_backends[ACCOUNT][REGION].targets
        return any(name in key for each in targets.values() for key in each)

    def _DeleteEndpoint(self, said: Any) -> Any:
        there = self.endpoints.get(said["EndpointName"])
        if there is not None and there["status"] in BUSY:
            return "ValidationException", "Cannot update in-progress endpoint"
        self.endpoints.pop(said["EndpointName"], None)
        return None

    def _described(self, name: str, document: Any) -> Any:
        there = self.endpoints.get(name)
        if there is None or "EndpointName" not in document:
            return document
        if there["status"] in BUSY:
            there["left"] -= 1
            if there["left"] < 0:
                self._settle(there)
        config = there["config"] or there["next"]
        if there.get("instances") is None:
            there["instances"] = self._configs[config]["ProductionVariants"][0].get("InitialInstanceCount", 0)
        document |= {"EndpointStatus": there["status"], "EndpointConfigName": config}
        document["ProductionVariants"] = [{"VariantName": "main", "DesiredInstanceCount": there["instances"]}]
        return {**document, "FailureReason": there["reason"]} if there["reason"] else document

    @staticmethod
    def _settle(there: dict[str, Any]) -> None:
        there["reason"], there["instances"] = there["fails"], None
        if not there["fails"]:
            there["status"], there["config"] = "InService", there["next"]
        elif there["status"] == "Creating":
            there["status"] = "Failed"
        else:
            there["status"] = "InService"  # with the configuration before: SageMaker has taken it back


def _answer(start: Any, status: str, document: Any) -> list[bytes]:
    data = json.dumps(document).encode()
    start(status, [("content-type", "application/x-amz-json-1.1"), ("content-length", str(len(data)))])
    return [data]


def _refuse(start: Any, code: str, message: str) -> list[bytes]:
    return _answer(start, "400 Bad Request", {"__type": code, "message": message})


@contextlib.contextmanager
def _opened() -> Iterator[tuple[Aws, str]]:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        def log(self, *arguments: object) -> None:
            pass

    aws = Aws(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, aws, threaded=True, request_handler=Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield aws, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.fixture(scope="session")
def _server(require_package: Callable[[str], None]) -> Iterator[tuple[Aws, str]]:
    for name in ("boto3", "moto", "bentotool_sagemaker"):
        require_package(name)
    with _opened() as opened:
        yield opened


@pytest.fixture(autouse=True)
def _own_place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has its own store and home, and no credentials of this machine."""
    monkeypatch.setenv("BENTOTOOL_STORE", str(tmp_path_factory.mktemp("store")))
    home = str(tmp_path_factory.mktemp("home"))
    for name in ("HOME", "USERPROFILE", "APPDATA"):
        monkeypatch.setenv(name, home)
    for name in list(os.environ):
        if name.startswith("AWS_") or name in ("BENTOTOOL_BENTO", "BENTOTOOL_DISABLE_PLUGINS"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # never ask the network what this machine is


@pytest.fixture
def aws(_server: tuple[Aws, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """An account of nobody's, empty, and the environment that leads to it."""
    import urllib.request

    aws, url = _server
    with urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST"), timeout=30):
        aws.reset()
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFNOBODY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-of-nobody")
    monkeypatch.setenv("AWS_REGION", REGION)
    yield aws
    assert aws.wrong == []


@pytest.fixture
def client(aws: Aws) -> Callable[[str], Any]:
    """``client("sagemaker")`` is one of boto3 of the tests' own."""
    return _client


@functools.cache
def _client(service: str) -> Any:
    import boto3

    return boto3.client(service, region_name=REGION)


class Registry:
    """What stands for :class:`bentotool.deployspec.ImagePublisher`: puts an OCI image into ECR, as a push would."""

    def __init__(self, ecr: Any, name: str, version: str) -> None:
        self._ecr, self._name, self._version = ecr, name, version
        self.pushed: list[str] = []
        self.layer = f"{OCI}.layer.v1.tar+gzip"

    def planned(self, where: str, platforms: Any = (), *, lean: bool = False) -> Any:
        from bentotool.deployspec import PublishedImage

        return PublishedImage(f"{where}/{self._name}", self._version)

    def publish(self, where: str, platforms: Any = (), *, lean: bool = False) -> Any:
        from bentotool.deployspec import PublishedImage

        repository = f"{where}/{self._name}"
        self.pushed.append(repository)
        config = {"mediaType": f"{OCI}.config.v1+json", "size": 7, "digest": "sha256:" + "c" * 64}
        layers = [{"mediaType": self.layer, "size": 9, "digest": "sha256:" + "1" * 64}]
        manifest = {"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "config": config, "layers": layers,
                    "annotations": {"of": self._version}}  # fmt: skip
        name, text = repository.partition("/")[2], json.dumps(manifest)
        with contextlib.suppress(self._ecr.exceptions.ImageAlreadyExistsException):
            self._ecr.put_image(
                repositoryName=name, imageManifest=text, imageTag=self._version,
                imageManifestMediaType=manifest["mediaType"],
                imageDigest="sha256:" + hashlib.sha256(text.encode()).hexdigest(),
            )  # fmt: skip
        there = self._ecr.batch_get_image(repositoryName=name, imageIds=[{"imageTag": self._version}])
        digest = there["images"][0]["imageId"]["imageDigest"]
        return PublishedImage(repository, self._version, "sha256:" + "9" * 64, {platforms[0]: digest})


class Deployer:
    """Deploys through the same steps as the command, on a store of the test's own."""

    def __init__(self, folder: Path, client: Callable[[str], Any]) -> None:
        from bentotool.oci.layout import Layout
        from bentotool.plugins import Plugins

        self.layout, self.plugins, self._client = Layout(folder), Plugins(), client
        self.plugins.targets()  # found once: threads are to share it
        self.notes: list[str] = []
        self.told: list[str] = []
        self.registry: Registry | None = None

    def bento(self, version: str = "1", **fields: Any) -> Any:
        from bentotool.deployspec import DeployService
        from bentotool.targetspec import DeployBento

        service = DeployService("Iris", "service:Iris", apis={"predict": "/predict"})
        self.registry = Registry(self._client("ecr"), "iris", version)
        digest = "sha256:" + version[0] * 64
        given = {"services": (service,), "registry": self.registry, **fields}
        return DeployBento("iris", version, digest, "service:Iris", "3.11", "linux/amd64", **given)

    def plan(self, name: str, bento: Any, *pairs: str, env: dict[str, str] | None = None) -> Any:
        from bentotool.deploy.api import find_target, make_plan
        from bentotool.deploy.options import option_values
        from bentotool.targetspec import DeployOptions

        values = option_values(find_target(self.plugins, "sagemaker"), ["role=runner", *pairs])
        options = DeployOptions(name, values, env or {}, self.notes.append, self.told.append)
        return make_plan(self.layout, self.plugins, "sagemaker", bento, options)

    def deploy(self, name: str, bento: Any, *pairs: str, wait: bool = True, env: dict[str, str] | None = None) -> Any:
        from bentotool.deploy.api import apply_plan

        return apply_plan(self.layout, self.plugins, self.plan(name, bento, *pairs, env=env), wait=wait).deployment


@pytest.fixture
def deployer(aws: Aws, client: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployer:
    from bentotool_sagemaker import target, update

    target._opened.cache_clear()

    monkeypatch.setattr(update, "_FIRST_S", 0.01)
    monkeypatch.setattr(update, "_MOST_S", 0.02)
    return Deployer(tmp_path / "store", client)


@pytest.fixture
def there(client: Callable[[str], Any]) -> Callable[[], dict[str, list[str]]]:
    """Names of what the account has."""

    def look() -> dict[str, list[str]]:
        sagemaker, scaling = client("sagemaker"), client("application-autoscaling")
        return {
            "models": sorted(each["ModelName"] for each in sagemaker.list_models()["Models"]),
            "configs": sorted(
                each["EndpointConfigName"] for each in sagemaker.list_endpoint_configs()["EndpointConfigs"]
            ),
            "endpoints": sorted(each["EndpointName"] for each in sagemaker.list_endpoints()["Endpoints"]),
            "scaling": [
                each["ResourceId"]
                for each in scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
            ],
        }

    return look
