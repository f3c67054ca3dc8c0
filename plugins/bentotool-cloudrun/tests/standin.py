"""A stand-in for Cloud Run's Admin API v2, its token endpoint and Cloud Logging.

What a body may hold is the table `fields.json`, taken from the published discovery documents: names, types and enums of
fields. Anything else is refused as the API refuses it. Services, revisions, traffic, etags and long-running operations
behave as their documentation says; what becomes of a revision is told by its image's name.
"""

from __future__ import annotations

import copy
import json
import re
import secrets
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

FIELDS: dict[str, Any] = json.loads((Path(__file__).parent / "fields.json").read_text())
REGIONS = ("europe-west1", "us-central1")
RESERVED = {"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"}
LOGS = "https://console.cloud.google.com/logs/viewer?project=p&resource=cloud_run_revision"
MISSING = "Image 'IMAGE' not found."
DENIED = (
    "Google Cloud Run Service Agent service-123@serverless-robot-prod.iam.gserviceaccount.com must have permission to "
    "read the image, IMAGE. Ensure that the provided container image URL is correct."
)
BROKEN = (
    "The user-provided container failed to start and listen on the port defined provided by the PORT=3000 environment "
    "variable within the allocated timeout. Logs for this revision might contain more information.\n\n"
    f"Logs URL: {LOGS}\n"
    "For more troubleshooting guidance, see https://cloud.google.com/run/docs/troubleshooting"
)
QUOTA = "Quota exceeded for total allowable count of GPUs per project per region."
SECRET = "Permission denied on secret: projects/1/secrets/token/versions/latest for Revision service account x@y."
OUTCOMES = {
    "missing": (MISSING, {"reason": "CONTAINER_MISSING"}),
    "denied": (DENIED, {"reason": "CONTAINER_IMAGE_UNAUTHORIZED"}),
    "broken": (BROKEN, {"revisionReason": "HEALTH_CHECK_CONTAINER_ERROR"}),
    "quota": (QUOTA, {"revisionReason": "MIN_INSTANCES_NOT_PROVISIONED"}),
    "secret": (SECRET, {"reason": "SECRETS_ACCESS_CHECK_FAILED"}),
}


class Refused(Exception):
    def __init__(self, http: int, status: str, message: str, details: list[Any] | None = None) -> None:
        self.http, self.status, self.message, self.details = http, status, message, details or []


def check(value: Any, kind: str, where: str) -> None:
    """Refuse what is not of a kind of the table; fields for output are passed over, as the API does."""
    kind = kind.removesuffix(" output")
    if kind == "any":
        return
    if kind in FIELDS:
        wrong(not isinstance(value, dict), where, value)
        for name, each in value.items():
            if name not in FIELDS[kind]:
                raise Refused(
                    400,
                    "INVALID_ARGUMENT",
                    f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': Cannot find field.",
                )
            check(each, FIELDS[kind][name], f"{where}.{name}")
    elif kind.startswith("["):
        wrong(not isinstance(value, list), where, value)
        for number, each in enumerate(value):
            check(each, kind[1:-1], f"{where}[{number}]")
    elif kind.startswith("{"):
        wrong(not isinstance(value, dict), where, value)
        for name, each in value.items():
            check(each, kind[1:-1], f"{where}.{name}")
    else:
        check_basic(value, kind, where)


def check_basic(value: Any, kind: str, where: str) -> None:
    basic, _, form = kind.partition(":")
    if basic == "boolean":
        wrong(not isinstance(value, bool), where, value)
    elif basic in ("integer", "number"):
        wrong(isinstance(value, bool) or not isinstance(value, int), where, value)
    else:
        wrong(not isinstance(value, str), where, value)
        wrong("|" in basic and value not in basic.split("|"), where, value)
        wrong(form == "google-duration" and not re.fullmatch(r"\d+(\.\d+)?s", value), where, value)


def wrong(is_wrong: bool, where: str, value: Any) -> None:
    if is_wrong:
        raise Refused(400, "INVALID_ARGUMENT", f"Invalid value at '{where}': {value!r}")


def invalid(is_wrong: bool, field: str, why: str) -> None:
    if is_wrong:
        details = [
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"field": field, "description": why}],
            }
        ]
        raise Refused(400, "INVALID_ARGUMENT", "Violation in the request", details)


def check_meaning(name: str, body: dict[str, Any]) -> None:
    """Rules of the service beyond its fields, as its pages and error messages have them."""
    template = body["template"]
    [container] = template["containers"]
    invalid(not re.fullmatch(r"[a-z]([a-z0-9-]{0,47}[a-z0-9])?", name), "serviceId", "must be less than 50 characters")
    for labels in (body.get("labels", {}), template.get("labels", {})):
        for key, value in labels.items():
            invalid(not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key), "labels", f"key {key}")
            invalid(not re.fullmatch(r"[a-z0-9_-]{0,63}", value), "labels", f"value {value}")
    for notes in (body.get("annotations", {}), template.get("annotations", {})):
        for key in notes:
            invalid("knative.dev/" in key or "googleapis.com/" in key, "annotations", key)
    names = [each["name"] for each in container.get("env", [])]
    invalid(bool(RESERVED & {*names}), "env", f"The following reserved env names were provided: {RESERVED & {*names}}")
    invalid(len(names) != len({*names}), "env", "names stand twice")
    limits = container["resources"]["limits"]
    cpu = float(limits["cpu"].removesuffix("m")) / (1000 if limits["cpu"].endswith("m") else 1)
    gib = float(re.sub(r"[A-Za-z]", "", limits["memory"])) / (1024 if limits["memory"].endswith("Mi") else 1)
    gpu = limits.get("nvidia.com/gpu", "0") == "1"
    invalid(not gpu and not (0.08 <= cpu < 1 or cpu in (1, 2, 4, 6, 8)), "cpu", f"Invalid value {cpu} for cpu")
    invalid(not gpu and gib > 32, "memory", "Must be at most 32Gi")
    invalid(gib > {1: 4, 2: 8, 4: 16, 6: 24}.get(int(cpu), 1000), "memory", "more CPU is needed for so much memory")
    invalid(cpu < 1 and template["maxInstanceRequestConcurrency"] > 1, "concurrency", "cpu < 1 needs concurrency 1")
    invalid(gpu and (cpu < 4 or gib < 16), "gpu", "GPU needs 4 CPU and 16Gi")
    invalid(gpu and container["resources"].get("cpuIdle", True), "gpu", "CPU must always be allocated")
    invalid(gpu != ("nodeSelector" in template), "nodeSelector", "the accelerator and the limit belong together")
    invalid(not 1 <= template["maxInstanceRequestConcurrency"] <= 1000, "concurrency", "out of range")
    invalid(not 1 <= float(template["timeout"][:-1]) <= 3600, "timeout", "out of range")
    probe = container["startupProbe"]
    invalid(probe["failureThreshold"] * probe["periodSeconds"] > 240, "startupProbe", "more than 240 s")
    invalid(probe["timeoutSeconds"] > probe["periodSeconds"], "startupProbe", "timeout above period")
    volumes = {each["name"] for each in template.get("volumes", [])}
    mounts = list(container.get("volumeMounts", []))
    invalid({each["name"] for each in mounts} != volumes, "volumeMounts", "volumes and mounts differ")
    invalid(len({each["mountPath"] for each in mounts}) != len(mounts), "volumeMounts", "one path twice")


class Cloud:
    """The state of one project.

    Attributes:
        requests: method, path and body of all that was asked, in order.
        faults: for each a method, a piece of the path and what happens instead, once: ``(status, text, headers)``,
            ``"cut"``: done, and the answer lost; ``"cut before"``: not done; ``"hang"``: no answer until the end.
        shares: what share each revision had after each write, by service.
        ticks: how often an operation is asked for before it is done.
        held: while set, operations do not end.
        log: entries by service.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.services: dict[str, dict[str, Any]] = {}
        self.revisions: dict[str, dict[str, Any]] = {}
        self.operations: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.faults: list[tuple[str, str, Any]] = []
        self.shares: dict[str, list[dict[str, int]]] = {}
        self.log: list[dict[str, Any]] = []
        self.ticks = 4
        self.held = threading.Event()
        self.ended = threading.Event()
        self.tokens: set[str] = set()
        self.lacking: set[str] = set()  # permissions

    # -- what is asked ------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        if path == "/v2/entries:list":
            return self.entries(body)
        found = re.fullmatch(
            r"/v2/projects/([\w-]+)/locations/([\w-]+)/(services|operations)(?:/([\w-]+))?(?:/revisions/([\w-]+))?",
            path,
        )
        if found is None:
            raise Refused(404, "NOT_FOUND", "The requested URL was not found on this server.")
        project, region, what, name, revision = found.groups()
        self.may(
            project, {"POST": "create", "GET": "get" if name else "list", "PATCH": "update", "DELETE": "delete"}[method]
        )
        if region not in REGIONS:
            raise Refused(404, "NOT_FOUND", f"Location {region} is not found or access is unauthorized.")
        place = f"projects/{project}/locations/{region}"
        if what == "operations":
            return self.operation(path.removeprefix("/v2/"))
        if revision:
            return self.get(self.revisions, f"{place}/services/{name}/revisions/{revision}")
        if name is None:
            return self.create(place, query, body) if method == "POST" else self.listed(place, query)
        full = f"{place}/services/{name}"
        if method == "GET":
            self.pass_time(full)
            return self.get(self.services, full)
        return self.patch(full, body) if method == "PATCH" else self.delete(full, query.get("etag", ""))

    def may(self, project: str, verb: str) -> None:
        if project == "disabled":
            details = [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "SERVICE_DISABLED",
                    "domain": "googleapis.com",
                }
            ]
            raise Refused(
                403,
                "PERMISSION_DENIED",
                "Cloud Run Admin API has not been used in project 1 before or it is disabled.",
                details,
            )
        permission = f"run.services.{verb}"
        if permission in self.lacking:
            raise Refused(
                403,
                "PERMISSION_DENIED",
                f"Permission '{permission}' denied on resource 'projects/{project}' (or resource may not exist).",
            )

    def get(self, things: dict[str, Any], name: str) -> Any:
        if name not in things:
            raise Refused(
                404,
                "NOT_FOUND",
                f"Resource '{name.rsplit('/', 1)[-1]}' of kind 'SERVICE' in region 'x' in project 'y' does not exist.",
            )
        return {key: value for key, value in things[name].items() if not key.startswith("_")}

    def listed(self, place: str, query: dict[str, str]) -> Any:
        every = sorted(name for name in self.services if name.startswith(f"{place}/"))
        start = int(query.get("pageToken") or 0)
        more = {"nextPageToken": str(start + 2)} if len(every) > start + 2 else {}
        return {"services": [self.get(self.services, name) for name in every[start : start + 2]], **more}

    def create(self, place: str, query: dict[str, str], body: Any) -> Any:
        name = query["serviceId"]
        check(body, "Service", "service")
        check_meaning(name, body)
        full = f"{place}/services/{name}"
        if full in self.services:
            raise Refused(409, "ALREADY_EXISTS", f"Resource '{name}' already exists.")
        self.services[full] = {
            "name": full,
            "_count": 0,
            "uri": f"https://{name}-123.run.app",
            "createTime": "2026-01-01T00:00:00Z",
        }
        return self.write(full, body)

    def patch(self, full: str, body: Any) -> Any:
        check(body, "Service", "service")
        check_meaning(full.rsplit("/", 1)[-1], body)
        if full not in self.services:
            self.get(self.services, full)
        if body.get("etag") and body["etag"] != self.services[full]["etag"]:
            raise Refused(409, "ABORTED", "Conflict for resource: version X was specified but current version is Y.")
        return self.write(full, body)

    def delete(self, full: str, etag: str) -> Any:
        service = self.get(self.services, full)
        if etag and etag != service["etag"]:
            raise Refused(409, "ABORTED", "Conflict for resource.")
        del self.services[full]
        for name in [each for each in self.revisions if each.startswith(f"{full}/")]:
            del self.revisions[name]
        return {"name": f"{full.split('/services/', maxsplit=1)[0]}/operations/{secrets.token_hex(8)}", "done": True}

    def entries(self, body: Any) -> Any:
        check(body, "ListLogEntriesRequest", "request")
        wanted = dict(re.findall(r'resource\.labels\.(\w+)="([^"]*)"', body["filter"]))
        since = re.search(r'timestamp>="([^"]*)"', body["filter"])
        found = [
            each for each in self.log
            if all(each["resource"]["labels"].get(key) == value for key, value in wanted.items())
            and (since is None or each["timestamp"] >= since[1])
        ]  # fmt: skip
        found.sort(key=lambda each: each["timestamp"], reverse=body["orderBy"].endswith("desc"))
        return {"entries": found[: body["pageSize"]]}

    # -- what becomes of it -------------------------------------------------------------------------------------------

    def write(self, full: str, body: dict[str, Any]) -> Any:
        service = self.services[full]
        outputs = {key for key, kind in FIELDS["Service"].items() if kind.endswith(" output")} | {"name", "etag", "uri"}
        changed = body["template"] != service.get("template")
        kept = {key: value for key, value in service.items() if key in outputs or key.startswith("_")}
        # what is not in the body is back at its default: there is no mask of fields
        service.clear()
        service.update(kept, **{key: copy.deepcopy(value) for key, value in body.items() if key not in outputs})
        service["etag"] = f'"{secrets.token_hex(6)}"'
        service["reconciling"] = True
        service["terminalCondition"] = {
            "type": "Ready",
            "state": "CONDITION_RECONCILING",
            "message": "Deploying Revision.",
        }
        if changed:
            service["_count"] += 1
            name = f"{full.rsplit('/', 1)[-1]}-{service['_count']:05}-abc"
            service["latestCreatedRevision"] = f"{full}/revisions/{name}"
            template = copy.deepcopy(body["template"])
            self.revisions[service["latestCreatedRevision"]] = {
                "name": service["latestCreatedRevision"],
                "containers": template["containers"],
            }
        self.check_traffic(full, service)
        identity = f"{full.split('/services/', maxsplit=1)[0]}/operations/{secrets.token_hex(8)}"
        self.operations[identity] = {"full": full, "etag": service["etag"], "left": self.ticks}
        self.route(full)
        return {
            "name": identity,
            "done": False,
            "metadata": {"@type": "type.googleapis.com/google.cloud.run.v2.Service"},
        }

    def check_traffic(self, full: str, service: dict[str, Any]) -> None:
        traffic = service["traffic"]
        invalid(sum(each.get("percent", 0) for each in traffic) != 100, "traffic", "percents must add up to 100")
        tags = [each["tag"] for each in traffic if each.get("tag")]
        invalid(len(tags) != len({*tags}), "traffic", "a tag stands twice")
        for each in traffic:
            revision = f"{full}/revisions/{each.get('revision')}"
            invalid("revision" in each and revision not in self.revisions, "traffic", f"Revision {revision} not found")
            invalid(not each.get("percent") and not each.get("tag"), "traffic", "neither percent nor tag")

    def operation(self, identity: str) -> Any:
        found = self.get(self.operations, identity)
        if not found.get("result"):
            state = self.operations[identity]
            state["left"] -= 1
            if state["left"] > 0 or self.held.is_set():
                return {"name": identity, "done": False}
            state["result"] = self.finish(found["full"])
        return {"name": identity, "done": True, **self.operations[identity]["result"]}

    def pass_time(self, full: str) -> None:
        """Work goes on, whether its operation or its service is looked at."""
        for identity, state in self.operations.items():
            if state["full"] == full and "result" not in state:
                self.operation(identity)

    def finish(self, full: str) -> dict[str, Any]:
        """The newest revision becomes ready, or does not: its image says which."""
        service = self.services.get(full)
        if service is None:
            return {"error": {"code": 5, "message": "gone"}}
        service["reconciling"] = False
        newest = self.revisions[service["latestCreatedRevision"]]
        image = newest["containers"][0]["image"]
        outcome = next((each for word, each in OUTCOMES.items() if word in image), None)
        if outcome is not None:
            message = outcome[0].replace("IMAGE", image)
            newest["conditions"] = [{"type": "Ready", "state": "CONDITION_FAILED", "message": message, **outcome[1]}]
            name = newest["name"].rsplit("/", 1)[-1]
            whole = f"Revision '{name}' is not ready and cannot serve traffic. {message}"
            service["terminalCondition"] = {
                "type": "Ready",
                "state": "CONDITION_FAILED",
                "message": whole,
                "reason": "REVISION_FAILED",
            }
            return {"error": {"code": 9, "message": whole}}
        newest["conditions"] = [{"type": "Ready", "state": "CONDITION_SUCCEEDED"}]
        service["latestReadyRevision"] = newest["name"]
        service["terminalCondition"] = {"type": "Ready", "state": "CONDITION_SUCCEEDED"}
        self.route(full)
        return {
            "response": {"@type": "type.googleapis.com/google.cloud.run.v2.Service", **self.get(self.services, full)}
        }

    def route(self, full: str) -> None:
        """Who gets the requests now."""
        service, shares = self.services[full], {}
        statuses = []
        for each in service["traffic"]:
            latest = each["type"].endswith("LATEST")
            revision = service.get("latestReadyRevision", "").rsplit("/", 1)[-1] if latest else each["revision"]
            status = {**each, **({"uri": f"https://{each['tag']}---x.run.app"} if each.get("tag") else {})}
            statuses.append(status)
            if revision and each.get("percent"):
                shares[revision] = shares.get(revision, 0) + each["percent"]
        service["trafficStatuses"] = statuses
        self.shares.setdefault(full.rsplit("/", 1)[-1], []).append(shares)

    def say(self, service: str, revision: str, text: str, at: str) -> None:
        labels = {"service_name": service, "revision_name": revision, "location": "europe-west1"}
        self.log.append(
            {"insertId": secrets.token_hex(4), "timestamp": at, "textPayload": text, "resource": {"labels": labels}}
        )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cloud: Cloud

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.respond()

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 - names of http.server

    def respond(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        split = urlsplit(self.path)
        if split.path in ("/token", "/no-token"):
            return self.token(data if split.path == "/token" else b"")
        query = {key: values[0] for key, values in parse_qs(split.query).items()}
        body = json.loads(data) if data else None
        cloud = self.cloud
        with cloud.lock:
            cloud.requests.append((self.command, split.path, body))
            fault = next((each for each in cloud.faults if each[0] == self.command and each[1] in split.path), None)
            if fault is not None:
                cloud.faults.remove(fault)
        if fault is not None and self.fails(fault[2]):
            return None
        if self.headers.get("Authorization", "").removeprefix("Bearer ") not in cloud.tokens:
            return self.send(
                401,
                {
                    "error": {
                        "code": 401,
                        "status": "UNAUTHENTICATED",
                        "message": "Request had invalid authentication credentials.",
                    }
                },
            )
        try:
            with cloud.lock:
                document = cloud.answer(self.command, split.path, query, body)
        except Refused as error:
            return self.send(
                error.http,
                {
                    "error": {
                        "code": error.http,
                        "status": error.status,
                        "message": error.message,
                        "details": error.details,
                    }
                },
            )
        if fault is not None and fault[2] == "cut":
            return self.cut()
        return self.send(200, document)

    def fails(self, what: Any) -> bool:
        if what == "cut":
            return False
        if what == "hang":
            self.cloud.ended.wait(60)
        if what in ("hang", "cut before"):
            self.cut()
        elif callable(what):
            what(self.cloud)
            return False
        else:
            status, text, headers = what
            self.send(status, text, headers)
        return True

    def cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def token(self, data: bytes) -> None:
        form = {key: values[0] for key, values in parse_qs(data.decode()).items()}
        if (
            form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer"
            or form.get("assertion", "").count(".") != 2
        ):
            return self.send(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
        token = secrets.token_hex(16)
        self.cloud.tokens.add(token)
        return self.send(200, {"access_token": token, "expires_in": 3600, "token_type": "Bearer"})

    def send(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        data = (document if isinstance(document, str) else json.dumps(document)).encode()
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(data)),
            "Content-Type": "application/json",
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def serve(cloud: Cloud) -> ThreadingHTTPServer:
    """Answer on a port of this machine until `shutdown`."""
    handler = type("Bound", (Handler,), {"cloud": cloud})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server
