"""Putting a version in place of another, and taking all of it away.

A version is a model and an endpoint configuration with a number of its own. SageMaker itself starts it beside the one
that runs, and sends requests over once it answers ``/ping``; where it does not, the old one stays. What is left here is
to make the two, to wait, to say what went wrong, and to clear away what nothing uses.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import botocore.exceptions as failures

from bentotool.errors import BentotoolError, ConflictError, NotFoundError, UsageError
from bentotool.targetspec import Plan
from bentotool_sagemaker.cloud import Cloud, QuotaError, explained, is_missing, one_line
from bentotool_sagemaker.names import DEPLOYMENT, VARIANT, number_of, resource_name
from bentotool_sagemaker.spec import Wanted, config_body, model_body, scaling_bodies, tags_of
from bentotool_sagemaker.standing import BUSY, Standing, last_lines, look, numbered, scalable, tags

__all__ = ["UnhealthyError", "bring_up", "check_owner", "starting_count", "take_away", "under_way"]

_FIRST_S, _MOST_S, _SLOWER = 0.5, 10.0, 1.5
_GONE_S = 900.0
_TRIES = 5
_LOG_LINES = 20


class UnhealthyError(BentotoolError):
    """An endpoint that does not come into service."""

    code = "unhealthy"


def under_way(name: str) -> ConflictError:
    """Something else changes the endpoint: this is the one that gives way."""
    return ConflictError(
        f"another deployment of {name} is under way",
        hint=f"see what came of it, and deploy again: bentotool deployment show {name}",
    )


def check_owner(standing: Standing) -> None:
    """Raises: ConflictError: there is an endpoint of the name that this tool did not make."""
    if standing.status and not standing.ours:
        raise ConflictError(
            f"there is an endpoint {standing.name} that is not of this deployment", hint="choose another --name"
        )


def starting_count(standing: Standing, values: Any) -> int:
    """Instances to begin with: as many as run now, as far as that is allowed, so that an update takes none away."""
    least = int(values["instances"])
    most = int(values["max-instances"] or least)
    return min(max(standing.instances, least), most)


class _Attempt:
    """One attempt to put a version in place.

    Attributes:
        name: of the model and the configuration; empty until they are being made.
        submitted: the endpoint was told to take them.
    """

    def __init__(self, cloud: Cloud, plan: Plan, before: Standing) -> None:
        self.cloud, self.plan, self.before = cloud, plan, before
        self.client = cloud.client("sagemaker")
        self.name, self.submitted, self._unscaled = "", False, False
        self._made: list[tuple[str, str]] = []

    def make(self, asked: Wanted, image: str, role: str) -> None:
        """Make the model and the configuration, under the first number that nobody has."""
        plan, options = self.plan, self.plan.options
        models, configs = numbered(self.cloud, plan.name)
        number = max((*models, *configs), default=0) + 1
        for left in reversed(range(_TRIES)):
            name = resource_name(plan.name, number)
            try:
                self._create("model", name, model_body(plan.bento, options, asked, name, image, role))
                break
            except ConflictError:  # another attempt has this number
                if not left:
                    raise under_way(plan.name) from None
                number += 1
        self.name = name
        body = config_body(plan.bento, options, asked, name, starting_count(self.before, options.values))
        self._create("endpoint_config", name, body)

    def _create(self, kind: str, name: str, body: dict[str, Any]) -> None:
        self._made.append((kind, name))  # an interrupt may come while AWS is at it
        try:
            with explained(f"make {kind.replace('_', ' ')} {name}"):
                getattr(self.client, f"create_{kind}")(**body)
        except ConflictError:
            self._made.pop()
            raise

    def submit(self, asked: Wanted) -> None:
        """Have the endpoint take what was made."""
        plan, values = self.plan, self.plan.options.values
        if not self.before.status:
            self.submitted = True
            try:
                with explained(f"make endpoint {plan.name}"):
                    self.client.create_endpoint(
                        EndpointName=plan.name, EndpointConfigName=self.name,
                        Tags=tags_of(plan.bento, plan.options, asked.tags),
                    )  # fmt: skip
            except ConflictError:
                self.submitted = False
                raise under_way(plan.name) from None
            return
        if scalable(self.cloud, plan.name) is not None and (
            scaling_bodies(plan.name, values) is None or asked.instance != self.before.instance_type
        ):
            self._unscaled = True
            _unscale(self.cloud, plan.name)  # SageMaker refuses another instance type while it scales
        body: dict[str, Any] = {"EndpointName": plan.name, "EndpointConfigName": self.name}
        if values["rollback-alarm"]:
            alarms = [{"AlarmName": alarm} for alarm in values["rollback-alarm"]]
            body["DeploymentConfig"] = {
                "BlueGreenUpdatePolicy": {
                    "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 300}
                },
                "AutoRollbackConfiguration": {"Alarms": alarms},
            }
        try:
            with explained(f"update endpoint {plan.name}"):
                self.client.update_endpoint(**body)
        except ConflictError:
            raise under_way(plan.name) from None
        self.submitted = True

    def await_service(self) -> None:
        """Wait until the endpoint serves the new version.

        Raises:
            UnhealthyError: it does not come into service, or not in time.
            ConflictError: somebody else changed it meanwhile.
        """
        plan, timeout = self.plan, float(self.plan.options.values["timeout"])
        start, pause = time.monotonic(), _FIRST_S
        while True:
            now = look(self.cloud, plan.name)
            if not now.status:
                raise ConflictError(f"endpoint {plan.name} was deleted meanwhile", hint="deploy it again")
            if now.status == "InService" and now.config == self.name:
                return
            passed = time.monotonic() - start
            if now.status not in BUSY:
                raise self._failed(now)
            if passed >= timeout:
                raise UnhealthyError(
                    f"endpoint {plan.name} is still {now.status} after {timeout:g} s", hint="give it longer: --timeout"
                )
            said = " ".join(" ".join(last_lines(self.cloud, plan.name, 1)).split())[:200]
            plan.options.progress(f"endpoint {plan.name} is {now.status}, {passed:.0f} s: {said}".rstrip(": "))
            time.sleep(pause)
            pause = min(_MOST_S, pause * _SLOWER)

    def _failed(self, now: Standing) -> BentotoolError:
        name = self.plan.name
        if now.status == "InService" and number_of(name, now.config) > number_of(name, self.name):
            return under_way(name)
        lines = last_lines(self.cloud, name, _LOG_LINES)
        for line in lines:
            self.plan.options.note(f"{name} | {line}")
        said = next((line for line in reversed(lines) if "error" in line.lower()), "")
        reason = one_line(now.reason) if now.reason else f"SageMaker says {now.status}, and not why"
        whole = f"{name} does not come into service: {reason}" + (f": {said.strip()[:300]}" if said else "")
        if "capacity" in reason.lower() or "limit" in reason.lower():
            return QuotaError(whole, hint="another --instance-type, or another region")
        return UnhealthyError(whole, hint=f"CloudWatch has the log: /aws/sagemaker/Endpoints/{name}")

    def take_back(self) -> str:
        """Take away what was made, as far as AWS lets go of it; how things stand then, in words."""
        name, first = self.plan.name, not self.before.status
        now = look(self.cloud, name) if self.submitted else self.before
        if self.submitted and not first and now.status in BUSY:
            # there is no call that stops an update; it ends by itself, one way or the other
            return f"SageMaker goes on with the update by itself: bentotool deployment show {name}"
        if self.submitted and first and now.status:
            try:
                _delete_endpoint(self.cloud, name)
            except BentotoolError:
                return (
                    f"SageMaker goes on making it, and lets nobody stop it; then:"
                    f" bentotool deployment delete {name} --target sagemaker"
                )
        if now.config != self.name or first:
            for kind, made in reversed(self._made):
                _delete(self.client, kind, made)
        if self._unscaled:
            return f"{name} goes on as it was, and does not scale: deploy it again"
        return "nothing is left of it" if first else f"{name} goes on as it was"


def bring_up(
    cloud: Cloud,
    plan: Plan,
    asked: Wanted,
    image: Callable[[], str],
    role: str,
    *,
    wait: bool,
    commit: Callable[[], None],
) -> None:
    """Start a version of a deployment; with ``wait``, come back when it alone answers.

    Args:
        image: gives its reference; it is pushed then, where that is needed.
        commit: called once the new version is what counts.

    Raises:
        UnhealthyError: it does not come into service; what ran before runs on.
        ConflictError: somebody else changes the endpoint, or it is not of this deployment.
    """
    options, before = plan.options, look(cloud, plan.name)
    check_owner(before)
    if before.status in BUSY:
        raise under_way(plan.name)
    scaling = scaling_bodies(plan.name, options.values)
    if before.status and not wait:
        raise UsageError(f"{plan.name} runs: an update has to wait for the new version", hint="leave --no-wait out")
    if scaling and not wait:
        raise UsageError("it scales once it is in service", hint="leave --no-wait out, or --max-instances")
    if before.status == "Failed":  # nothing of it ever answered, and SageMaker updates no such endpoint
        options.note(f"endpoint {plan.name} never came into service: it is deleted first")
        _delete_endpoint(cloud, plan.name)
        before = Standing(plan.name)
    reference = image()
    attempt = _Attempt(cloud, plan, before)
    try:
        attempt.make(asked, reference, role)
        attempt.submit(asked)
        options.note(f"endpoint {plan.name} {'takes' if before.status else 'starts with'} {attempt.name}")
        if wait:
            attempt.await_service()
        commit()
    except BaseException as error:
        _tell_undone(error, plan, attempt)
        raise
    _finish(cloud, plan, scaling, attempt.name, wait=wait)


def _tell_undone(error: BaseException, plan: Plan, attempt: _Attempt) -> None:
    try:
        text = attempt.take_back()
    except BentotoolError:
        text = f"what was made for it may still be there: bentotool deployment delete {plan.name} --target sagemaker"
    if isinstance(error, BentotoolError) and error.hint is None:
        error.hint = text
    else:
        plan.options.note(f"interrupted: {text}" if isinstance(error, KeyboardInterrupt) else text)


def _finish(cloud: Cloud, plan: Plan, scaling: Any, kept: str, *, wait: bool) -> None:
    """What comes after the new version answers: scaling, and clearing away what was before."""
    if scaling is not None:
        client = cloud.client("application-autoscaling")
        with explained(f"{plan.name} is deployed, but does not scale"):
            client.register_scalable_target(**scaling[0])
            client.put_scaling_policy(**scaling[1])
    if not wait:
        return
    try:
        for what in _clear(cloud, plan.name, below=number_of(plan.name, kept)):
            plan.options.progress(f"removed: {what}")
    except BentotoolError as error:  # it is deployed all the same
        plan.options.note(f"warning: the versions before are not cleared away: {error.message}")


def _clear(cloud: Cloud, name: str, *, below: int = 1 << 62) -> list[str]:
    """Remove models and configurations of a deployment that carry its tag and a lower number.

    One with a higher number is of an attempt that is under way.
    """
    client, removed = cloud.client("sagemaker"), []
    models, configs = numbered(cloud, name)
    for kind, found in (("endpoint_config", configs), ("model", models)):
        for number, arn in sorted(found.items()):
            if number >= below:
                continue
            with contextlib.suppress(NotFoundError), explained(f"look at {kind} {arn}"):
                if tags(client, arn).get(DEPLOYMENT) != name:
                    continue
            _delete(client, kind, resource_name(name, number))
            removed.append(f"{kind.replace('_', ' ')} {resource_name(name, number)}")
    return removed


def _delete(client: Any, kind: str, name: str) -> None:
    key = {"model": "ModelName", "endpoint_config": "EndpointConfigName", "endpoint": "EndpointName"}[kind]
    with explained(f"delete {kind.replace('_', ' ')} {name}"):
        try:
            getattr(client, f"delete_{kind}")(**{key: name})
        except failures.ClientError as error:
            if not is_missing(error):
                raise


def _unscale(cloud: Cloud, name: str) -> None:
    """Take away the scaling of an endpoint, and the alarms that go with it."""
    with explained(f"stop the scaling of {name}"):
        cloud.client("application-autoscaling").deregister_scalable_target(
            ServiceNamespace="sagemaker", ResourceId=f"endpoint/{name}/variant/{VARIANT}",
            ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        )  # fmt: skip


def _delete_endpoint(cloud: Cloud, name: str) -> None:
    """Delete an endpoint, and wait until it is gone.

    Raises:
        ConflictError: AWS does something with it just now, or it does not go.
    """
    client = cloud.client("sagemaker")
    if look(cloud, name).status != "Deleting":
        _delete(client, "endpoint", name)
    deadline, pause = time.monotonic() + _GONE_S, _FIRST_S
    while look(cloud, name).status:
        if time.monotonic() >= deadline:
            raise ConflictError(f"endpoint {name} is still being deleted", hint="do it again later")
        time.sleep(pause)
        pause = min(_MOST_S, pause * _SLOWER)


def take_away(cloud: Cloud, name: str) -> Sequence[str]:
    """Remove the endpoint, its scaling, and the models and configurations that carry the tag of a deployment.

    Raises:
        ConflictError: the endpoint is not of this deployment, or is being changed.
    """
    standing, removed = look(cloud, name), []
    check_owner(standing)
    if standing.status in ("Updating", "SystemUpdating", "RollingBack"):
        raise ConflictError(
            f"endpoint {name} is {standing.status}, and SageMaker deletes none that is",
            hint=f"try again when it is ready: bentotool deployment show {name}",
        )
    if scalable(cloud, name) is not None:
        _unscale(cloud, name)
        removed.append(f"scaling of {name}")
    if standing.status:
        _delete_endpoint(cloud, name)
        removed.append(f"endpoint {name}")
    return [*removed, *_clear(cloud, name)]
