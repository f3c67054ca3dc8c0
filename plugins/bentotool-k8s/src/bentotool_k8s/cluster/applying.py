"""Putting a deployment in place: everything checked first, then one object after another, then the wait, or back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from bentotool.errors import BentotoolError, ConflictError, RemoteError
from bentotool_k8s.cluster.api import Api, Object, kind_of, name_of, title
from bentotool_k8s.cluster.marks import Anchor, anchor_name, find_anchor, is_ours, marked, selector
from bentotool_k8s.cluster.refusals import ApiError
from bentotool_k8s.cluster.removing import remove_others
from bentotool_k8s.cluster.rollout import Rollout, older_serves

__all__ = ["Request", "bring_up", "check"]

_TRIES = 20


@dataclass(frozen=True)
class Request:
    """What is to be in place.

    Args:
        name: of the deployment.
        target: what deploys it; a name is one of one target.
        objects: in the order in which they are made.
        force: fields that others set are taken over.
        wait: come back when it answers requests; else when it is asked for.
        timeout_s: for the wait.
        note, progress: as of :class:`bentotool.targetspec.DeployOptions`.
        committed: told once the new version is what counts.
    """

    name: str
    tag: str
    digest: str
    url: str
    objects: tuple[Object, ...]
    target: str = "k8s"
    force: bool = False
    wait: bool = True
    timeout_s: float = 300.0
    note: Callable[[str], None] = lambda text: None
    progress: Callable[[str], None] = lambda text: None
    committed: Callable[[], None] = lambda: None


class _GaveWay(ConflictError):
    """Another deployment of the name has the turn: what stands there is its own."""


def check(api: Api, request: Request) -> list[tuple[Object, Object | None, Object]]:
    """Whether the cluster takes every object; nothing is changed.

    Returns:
        Each object as it is applied, the one that stands there, and what would become of it.

    Raises:
        RemoteError: a kind that the cluster has not, or the first object that is refused.
        ConflictError: something else has a name, or has set a field.
    """
    absent = sorted({kind_of(each) for each in request.objects if api.kind(*kind_of(each)) is None})
    if absent:
        what = ", ".join(f"{kind} ({version})" for version, kind in absent)
        raise RemoteError(f"the cluster does not know {what}; nothing is changed", hint=_bring(absent[0][0]))
    found: list[tuple[Object, Object | None, Object]] = []
    for each in request.objects:
        item = marked(each, request.name)
        live = api.get(*kind_of(item), name_of(item))
        if live is not None:
            _check_live(live, request.name, api.namespace)
        found.append((item, live, _dry_run(api, item, request)))
    return found


def _check_live(live: Object, name: str, namespace: str) -> None:
    if not is_ours(live, name):
        raise ConflictError(
            f"there is a {title(live)} in namespace {namespace} that is not of this deployment",
            hint="choose another --name or --namespace",
        )
    if live["metadata"].get("deletionTimestamp"):
        raise ConflictError(
            f"{title(live)} of an earlier deployment is just being deleted",
            hint="give the same command again in a moment",
        )


def _dry_run(api: Api, item: Object, request: Request) -> Object:
    try:
        return api.apply(item, dry_run=True, force=request.force)
    except ApiError as error:
        if error.status == 409 and error.fields_of_others:
            raise _set_by_others(item, error) from None
        if error.status == 400 and "dry run" in error.message:  # a webhook that has side effects: it is asked later
            return item
        raise


def _set_by_others(item: Object, error: ApiError) -> ConflictError:
    fields: dict[str, list[str]] = {}
    for path, who in error.fields_of_others:
        fields.setdefault(who, []).append(path.lstrip("."))
    told = "; ".join(f"{who} set {', '.join(sorted(paths)[:5])}" for who, paths in sorted(fields.items()))
    return ConflictError(
        f"{title(item)} has values that another set since: {told}",
        hint="--force-conflicts takes them over; --diff shows what would change",
    )


def _bring(api_version: str) -> str:
    group = api_version.partition("/")[0]
    known = {
        "keda.sh": "install KEDA, or leave scale to zero out",
        "gateway.networking.k8s.io": "install the Gateway API, or use an Ingress",
        "serving.kserve.io": "install KServe",
        "serving.knative.dev": "install Knative Serving",
        "policy": "Kubernetes 1.21 or later has it; --replicas 1 without --max-replicas makes none",
    }
    return known.get(group, "the cluster is too old for it, or what brings it is not installed")


def bring_up(api: Api, request: Request) -> None:
    """Put a deployment in place, wait for it, and take away what it no longer has.

    Raises:
        BentotoolError: what was in place before is in place again, and has been serving all the time.
        ConflictError: another deployment of the name has taken its turn; nothing more is done.
        KeyboardInterrupt: what stands then is said; the same command goes on.
    """
    planned = check(api, request)
    before = _anchor_of(api, request)
    anchor = before.taken(request.target, request.tag, request.digest, request.url, request.objects)
    rollout = Rollout(api, request.name, [item for item, _, _ in planned], request.timeout_s)
    try:
        api.apply(anchor.to_object(), force=True)
        for item, _, _ in planned:
            request.progress(f"apply {title(item)}")
            _apply_in_turn(api, item, anchor, force=request.force)
        for item, live, _ in planned:  # what was not there has no version to go by: another may have made it as well
            if live is None:
                _apply_in_turn(api, item, anchor, force=request.force)
        _tell_warnings(api, request)
        if request.wait:
            rollout.wait(request.progress, lambda: _check_turn(api, anchor))
        _check_turn(api, anchor)
    except _GaveWay:
        raise
    except BentotoolError as error:
        raise _put_back(api, anchor, before, error, request) from None
    except KeyboardInterrupt:
        request.note(_interrupted(api, before, rollout))
        raise
    placed = replace(anchor, state="placed", objects=tuple(item for item, _, _ in planned))
    request.committed()
    _finish(api, placed, request)


def _anchor_of(api: Api, request: Request) -> Anchor:
    anchor, item = find_anchor(api, request.name)
    if anchor.target and anchor.target != request.target:
        raise ConflictError(
            f"{request.name} in namespace {api.namespace} is deployed by {anchor.target}",
            hint=f"choose another --name; or bentotool deployment delete {request.name} --target {anchor.target}",
        )
    if item is not None and not is_ours(item, request.name):
        raise ConflictError(
            f"there is a {title(item)} in namespace {api.namespace} that is not of this deployment",
            hint="choose another --name or --namespace",
        )
    return anchor


def _finish(api: Api, placed: Anchor, request: Request) -> None:
    """Note what is in place and take away the rest. It is deployed, whatever becomes of this."""
    try:
        _settle(api, placed)
        for what in remove_others(api, placed.name, placed.kinds, placed.objects, lambda: _check_turn(api, placed)):
            request.progress(f"removed: {what}")
        _settle(api, replace(placed, kinds=tuple(dict.fromkeys(map(kind_of, placed.objects)))))
    except _GaveWay:
        return
    except BentotoolError as error:
        request.note(f"warning: what it no longer has is not cleared away: {error.message}")


def _apply_in_turn(api: Api, item: Object, anchor: Anchor, *, force: bool) -> None:
    """Apply, if nobody else has begun since, and none does so in between.

    The object is read first, then the anchor; it is applied only as it was read. So of two at the same time the one
    that came to the anchor last finds every object as it left it.
    """
    for _ in range(_TRIES):
        live = api.get(*kind_of(item), name_of(item))
        _check_turn(api, anchor)
        version = str(live["metadata"]["resourceVersion"]) if live is not None else ""
        try:
            api.apply(item, force=force, version=version)
            return
        except ApiError as error:
            if error.status == 409 and error.fields_of_others:
                raise _set_by_others(item, error) from None
            if error.status != 409 or live is None or error.reason == "AlreadyExists":
                raise
    raise ConflictError(f"{title(item)} is changed all the time by others", hint="give the same command again")


def _settle(api: Api, anchor: Anchor) -> None:
    """Write the anchor, unless another has taken it."""
    for _ in range(_TRIES):
        now, item = find_anchor(api, anchor.name)
        if item is None or now.stamp != anchor.stamp:
            break
        try:
            api.apply(anchor.to_object(), force=True, version=str(item["metadata"]["resourceVersion"]))
            return
        except ApiError as error:
            if error.status != 409:
                raise
    raise _GaveWay(f"another command has taken over {anchor.name}")


def _check_turn(api: Api, anchor: Anchor) -> None:
    now, item = find_anchor(api, anchor.name)
    if item is None or now.stamp != anchor.stamp:
        what = f"deployed {now.tag or 'it'}" if item is not None else "deleted it"
        raise _GaveWay(
            f"another command {what} under the name {anchor.name} in the meantime; this one gave way",
            hint=f"bentotool deployment show {anchor.name} says what runs; to have yours, give the same command again",
        )


def _put_back(api: Api, anchor: Anchor, before: Anchor, error: BentotoolError, request: Request) -> BentotoolError:
    """Have it as it was, and say so together with the error."""
    request.progress("go back to what was in place")
    try:
        _check_turn(api, anchor)
        if before.objects:
            for item in before.objects:
                api.apply(item, force=True, strict=False)
        remove_others(api, anchor.name, anchor.kinds, before.objects, lambda: _check_turn(api, anchor))
        if before.objects:
            _settle(api, replace(before, stamp=anchor.stamp, state="placed"))
        else:
            _remove_anchor(api, anchor.name)
    except _GaveWay as other:
        return other
    except BentotoolError as second:
        request.note(f"warning: it could not be taken back: {second.message}")
        request.note(f"the same command goes on from there; or bentotool deployment delete {anchor.name}")
        return error
    request.note(
        f"{before.tag} runs as before" if before.objects else "nothing is left of it: it was the first deployment"
    )
    return error


def _remove_anchor(api: Api, name: str) -> None:
    item = api.get("v1", "ConfigMap", anchor_name(name))
    if item is not None:
        api.delete(item)


def _interrupted(api: Api, before: Anchor, rollout: Rollout) -> str:
    said = rollout.said or "not all of it is applied"
    serving = f"; {before.tag} serves meanwhile" if before.objects and _serves(api, rollout.name) else ""
    # by what the store notes of an attempt: with --target it would be looked for in the current context
    return (
        f"interrupted: {said}{serving}; the same command goes on, "
        f"bentotool deployment delete {rollout.name} takes it away"
    )


def _serves(api: Api, name: str) -> bool:
    """Whether pods of the version before are ready; no where that cannot be told."""
    labels = selector(name)
    try:
        found = api.find("apps/v1", "Deployment", labels)
        sets, pods = api.find("apps/v1", "ReplicaSet", labels), api.find("v1", "Pod", labels)
    except BentotoolError:
        return False
    return not found or any(older_serves(each, sets, pods) for each in found)  # none: Knative keeps the last that was


def _tell_warnings(api: Api, request: Request) -> None:
    for text in api.warnings:
        request.note(f"warning of the cluster: {text}")
    api.warnings.clear()
