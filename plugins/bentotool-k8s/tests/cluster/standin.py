"""An API server over TLS, for the unchanged client: discovery, server-side apply, watch, dry run, RBAC, quota, logs."""

from __future__ import annotations

import json
import re
import ssl
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from k8s_controllers import Controllers
from k8s_fields import Conflict, apply, managers_of, paths, record
from k8s_store import Refused, Store, now

LOG = ["starting", "loading the model", "ValueError: broken on purpose"]
_PLACE = re.compile(
    r"/apis?/(?P<version>[^/]+(?:/v[^/]+)?)(?:/namespaces/(?P<space>[^/]+))?/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>log|status))?"
)


class Cluster:
    """The stand-in; tests set what it refuses.

    Attributes:
        forbidden: pairs of a verb and a resource that no user may do.
        unknown: fields that this release does not know.
        tokens: bearer tokens that are taken.
        end_watches: every stream of events ends after so many.
        seen: method and path of each request.
    """

    def __init__(self) -> None:
        self.store = Store()
        self.controllers = Controllers(self.store)
        self.forbidden: set[tuple[str, str]] = set()
        self.unknown: set[str] = set()
        self.tokens = {"good-token"}
        self.end_watches = 0
        self.busy = 0
        self.warning = ""
        self.services_allowed = 100
        self.seen: list[tuple[str, str]] = []
        self.log = list(LOG)

    def by(self, manager: str, kind: tuple[str, str], name: str, **spec: Any) -> None:
        """Somebody else sets fields of an object's ``spec``."""

        def change(item: dict[str, Any]) -> None:
            item["spec"] = {**item["spec"], **spec}
            managers = managers_of(item)
            changed = set(paths({"spec": spec}))
            for owned in managers.values():
                owned -= changed
            managers[manager, "Update"] = managers.get((manager, "Update"), set()) | changed
            record(item, managers)

        assert self.store.edit(*kind, name, change)

    # -- one request

    def patch(self, kind: tuple[str, str], name: str, body: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
        if query.get("fieldValidation") == "Strict" and (wrong := sorted(_keys(body) & self.unknown)):
            raise Refused(400, "BadRequest", f'{kind[1]} in version "v1" cannot be handled as a {kind[1]}: strict '
                          f'decoding error: unknown field "spec.{wrong[0]}"')  # fmt: skip
        with self.store.lock:
            live = self.store.get(*kind, name)
            version = body["metadata"].pop("resourceVersion", None)
            if version is not None and (live is None or live["metadata"]["resourceVersion"] != version):
                raise Refused(409, "Conflict", f'Operation cannot be fulfilled on {kind[1]} "{name}": the object has '
                              "been modified; please apply your changes to the latest version", name=name)  # fmt: skip
            if live is None and kind[1] == "Service" and len(self.store.names("Service")) >= self.services_allowed:
                raise Refused(403, "Forbidden", f'services "{name}" is forbidden: exceeded quota: team, requested: '
                              "services=1, used: services=2, limited: services=2")  # fmt: skip
            body["metadata"].pop("namespace", None)
            try:
                made = apply(live, normal(body), query["fieldManager"], force=query.get("force") == "true")
            except Conflict as conflict:
                raise Refused(409, "Conflict", f"Apply failed with {len(conflict.found)} conflicts",
                              causes=conflict.causes()) from None  # fmt: skip
            if live and kind[1] == "Deployment" and live["spec"]["selector"] != made["spec"]["selector"]:
                raise Refused(422, "Invalid", f'Deployment.apps "{name}" is invalid: spec.selector: Invalid value: '
                              "v1.LabelSelector{}: field is immutable")  # fmt: skip
            made = defaulted(made)
            if query.get("dryRun") == "All":
                made["metadata"].setdefault("uid", "dry")
                return made
            return self.store.put(made)

    def delete(self, kind: tuple[str, str], name: str, options: dict[str, Any]) -> dict[str, Any]:
        with self.store.lock:
            item = self.store.get(*kind, name)
            if item is None:
                raise Refused(404, "NotFound", f'{kind[1]} "{name}" not found')
            uid = (options.get("preconditions") or {}).get("uid")
            if uid and uid != item["metadata"]["uid"]:
                raise Refused(409, "Conflict", f"Precondition failed: UID in precondition: {uid}")
            if options.get("propagationPolicy") == "Foreground":
                item["metadata"].update(deletionTimestamp=now(), finalizers=["foregroundDeletion"])
                self.store.put(item)
                threading.Timer(0.2, self.store.remove, [*kind, name]).start()
            else:
                self.store.remove(*kind, name)
            return {"kind": "Status", "apiVersion": "v1", "status": "Success"}


def _keys(item: Any) -> set[str]:
    if isinstance(item, dict):
        return set(item).union(*map(_keys, item.values()))
    return set().union(*map(_keys, item)) if isinstance(item, list) else set()


def normal(item: Any) -> Any:
    """Quantities as the server writes them, and the protocol of ports."""
    if isinstance(item, dict):
        found = {key: normal(value) for key, value in item.items()}
        if "cpu" in found and str(found["cpu"]).endswith("000m"):
            found["cpu"] = str(found["cpu"])[:-4]
        if "containerPort" in found or ("port" in found and "targetPort" in found):
            found.setdefault("protocol", "TCP")
        return found
    return [normal(each) for each in item] if isinstance(item, list) else item


def defaulted(item: dict[str, Any]) -> dict[str, Any]:
    """What the server fills in."""
    spec = item.get("spec") or {}
    if item["kind"] == "Deployment":
        item["spec"] = {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600, **spec}
        pod = item["spec"]["template"]["spec"]
        item["spec"]["template"]["spec"] = {
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30, **pod,
            "containers": [{"terminationMessagePath": "/dev/termination-log", **each} for each in pod["containers"]],
        }  # fmt: skip
    elif item["kind"] == "Service":
        item["spec"] = {"type": "ClusterIP", "clusterIP": "10.0.0.7", "sessionAffinity": "None", **spec}
    return item


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    cluster: Cluster

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("get")

    def do_PATCH(self) -> None:
        self._answer("patch")

    def do_DELETE(self) -> None:
        self._answer("delete")

    def _answer(self, verb: str) -> None:
        address = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(address.query))
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        self.cluster.seen.append((self.command, self.path))
        try:
            self._send(200, self._found(verb, address.path, query, body))
        except Refused as refused:
            self._send(refused.code, refused.document)
        except _Streamed:
            self.close_connection = True

    def _user(self) -> str:
        given = self.headers.get("Authorization", "")
        kind, _, token = given.partition(" ")
        if kind.lower() == "bearer" and token in self.cluster.tokens:
            return "robot"
        certificate = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        for part in (certificate or {}).get("subject", ()):
            for key, value in part:
                if key in ("commonName", "organizationalUnitName"):
                    return str(value)
        raise Refused(401, "Unauthorized", "Unauthorized")

    def _found(self, verb: str, path: str, query: dict[str, str], body: dict[str, Any]) -> Any:
        user, cluster = self._user(), self.cluster
        if cluster.busy:
            cluster.busy -= 1
            raise Refused(429, "TooManyRequests", "the server has received too many requests")
        if found := re.fullmatch(r"/apis?/(v1|[^/]+/v[^/]+)", path):
            return self._discovered(found[1])
        place = _PLACE.fullmatch(path)
        if place is None:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        wanted = (place["version"], place["plural"])
        kind = next((key for key, (plural, _) in cluster.store.kinds.items() if (key[0], plural) == wanted), None)
        if kind is None:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        verb = "watch" if "watch" in query else "list" if verb == "get" and not place["name"] else verb
        self._check(user, verb, kind, place)
        if place["sub"] == "log":
            return self._log(place["name"], query)
        if verb == "patch":
            return cluster.patch(kind, place["name"], body, query)
        if verb == "delete":
            return cluster.delete(kind, place["name"], body)
        if verb == "get":
            item = cluster.store.get(*kind, place["name"])
            if item is None:
                raise Refused(404, "NotFound", f'{place["plural"]} "{place["name"]}" not found')
            return item
        return self._watched(kind, query) if verb == "watch" else self._listed(kind, query)

    def _check(self, user: str, verb: str, kind: tuple[str, str], place: re.Match[str]) -> None:
        plural = place["plural"] + (f"/{place['sub']}" if place["sub"] else "")
        group = kind[0].partition("/")[0] if "/" in kind[0] else ""
        if (verb, plural) in self.cluster.forbidden:
            whole = f'{plural} "{place["name"]}" is forbidden: User "{user}" cannot {verb} resource "{plural}"'
            said = f'{whole} in API group "{group}" in the namespace "{place["space"]}"'
            raise Refused(403, "Forbidden", said)
        if verb == "patch" and place["space"] not in self.cluster.store.namespaces:
            raise Refused(404, "NotFound", f'namespaces "{place["space"]}" not found', kind="namespaces",
                          name=place["space"])  # fmt: skip

    def _discovered(self, version: str) -> dict[str, Any]:
        found = [(k, *place) for (v, k), place in self.cluster.store.kinds.items() if v == version]
        if not found:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        resources = [{"name": plural, "kind": kind, "namespaced": spaced} for kind, plural, spaced in found]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}

    def _listed(self, kind: tuple[str, str], query: dict[str, str]) -> dict[str, Any]:
        with self.cluster.store.lock:
            items = [each for each in self.cluster.store.find(*kind) if _selected(each, query)]
            start = int(query.get("continue") or 0)
            end = start + min(int(query.get("limit") or 500), 3)  # small pages, so that there are several
            meta = {"resourceVersion": str(self.cluster.store.version)}
        meta |= {"continue": str(end)} if end < len(items) else {}
        return {"kind": f"{kind[1]}List", "apiVersion": kind[0], "metadata": meta, "items": items[start:end]}

    def _watched(self, kind: tuple[str, str], query: dict[str, str]) -> None:
        self._begin("application/json")
        deadline = time.monotonic() + float(query.get("timeoutSeconds") or 60)
        sent = 0
        try:
            stream = self.cluster.store.since(int(query["resourceVersion"]), kind, deadline, time.monotonic)
            for what, item in stream:
                if _selected(item, query):
                    self._piece(json.dumps({"type": what, "object": item}) + "\n")
                    sent += 1
                if self.cluster.end_watches and sent >= self.cluster.end_watches:
                    break
                if self.cluster.controllers.ending.is_set():
                    break
        except Refused as refused:
            self._piece(json.dumps({"type": "ERROR", "object": refused.document}) + "\n")
        self._end()

    def _log(self, name: str, query: dict[str, str]) -> None:
        if self.cluster.store.get("v1", "Pod", name) is None:
            raise Refused(404, "NotFound", f'pods "{name}" not found')
        lines = self.cluster.log[-int(query["tailLines"]) :] if "tailLines" in query else list(self.cluster.log)
        self._begin("text/plain")
        for line in lines:
            self._piece((f"{now()} " if query.get("timestamps") else "") + line + "\n")
        known = len(self.cluster.log)
        ending = self.cluster.controllers.ending
        while query.get("follow") and self.cluster.store.get("v1", "Pod", name) and not ending.wait(0.05):
            for line in self.cluster.log[known:]:
                self._piece(line + "\n")
            known = len(self.cluster.log)
        self._end()

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _piece(self, text: str) -> None:
        data = text.encode()
        try:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        except OSError:  # the client has gone
            raise _Streamed from None

    def _end(self) -> None:
        try:
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass
        raise _Streamed

    def _send(self, status: int, document: Any) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.cluster.warning and self.command == "PATCH":
            self.send_header("Warning", f'299 - "{self.cluster.warning}"')
        self.end_headers()
        self.wfile.write(data)


class _Streamed(Exception):
    """The answer is sent."""


def _selected(item: dict[str, Any], query: dict[str, str]) -> bool:
    labels = item["metadata"].get("labels") or {}
    for pair in filter(None, query.get("labelSelector", "").split(",")):
        key, _, value = pair.partition("=")
        if labels.get(key) != value:
            return False
    for pair in filter(None, query.get("fieldSelector", "").split(",")):
        key, _, value = pair.partition("=")
        found: Any = item
        for part in key.split("."):
            found = (found or {}).get(part)
        if found != value:
            return False
    return True


class Server(ThreadingHTTPServer):
    """One over TLS: the handshake is the thread's, so that a client that hangs stops nobody else."""

    daemon_threads = True

    def __init__(self, cluster: Cluster, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), type("Bound", (Handler,), {"cluster": cluster}))
        self._context = context

    def get_request(self) -> Any:
        connection, address = super().get_request()
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, *where: Any) -> None:
        """A client that does not trust us, or has gone, is no event."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(*where)
