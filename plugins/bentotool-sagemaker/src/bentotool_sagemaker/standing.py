"""What AWS has of a deployment now; read, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import botocore.exceptions as failures

from bentotool.targetspec import Status
from bentotool_sagemaker.cloud import Cloud, explained, is_missing, one_line
from bentotool_sagemaker.names import DEPLOYMENT, VARIANT, log_group, number_of

__all__ = ["BUSY", "Standing", "last_lines", "look", "numbered", "scalable", "state_of", "tags", "url_of"]

BUSY = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
_STATUS: Mapping[str, Status] = {
    "InService": "ready", "Updating": "ready", "SystemUpdating": "ready", "RollingBack": "ready",
    "Creating": "starting", "Deleting": "stopped",
}  # fmt: skip
_DETAIL = {
    "Updating": "it is being updated: the version before answers until the new one does",
    "SystemUpdating": "AWS maintains it",
    "RollingBack": "an update is taken back",
    "Deleting": "it is being deleted",
}


@dataclass(frozen=True)
class Standing:
    """An endpoint as AWS describes it.

    Args:
        status: AWS's own word; empty where there is no endpoint.
        config: name of its endpoint configuration, and the configuration itself where it is still there.
        tags: of the configuration: whose it is, and what runs.
        ours: the endpoint carries our tag.
    """

    name: str
    status: str = ""
    config: str = ""
    reason: str = ""
    variant: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    ours: bool = False

    @property
    def instances(self) -> int:
        """How many instances are asked for now; 0 where that is not known."""
        return int(self.variant.get("DesiredInstanceCount") or self.variant.get("CurrentInstanceCount") or 0)

    @property
    def instance_type(self) -> str:
        variants: Any = self.body.get("ProductionVariants") or ({},)
        return str(variants[0].get("InstanceType") or "")


def look(cloud: Cloud, name: str) -> Standing:
    """The endpoint of a deployment."""
    client = cloud.client("sagemaker")
    with explained(f"look at endpoint {name}"):
        try:
            found = client.describe_endpoint(EndpointName=name)
        except failures.ClientError as error:
            if is_missing(error):
                return Standing(name)
            raise
        config, body, owned = str(found.get("EndpointConfigName") or ""), {}, {}
        try:
            body = client.describe_endpoint_config(EndpointConfigName=config)
            owned = tags(client, str(body["EndpointConfigArn"]))
        except failures.ClientError as error:
            if not is_missing(error):
                raise
        ours = tags(client, str(found["EndpointArn"])).get(DEPLOYMENT) == name
    variants = found.get("ProductionVariants") or ()
    variant: Any = next((each for each in variants if each.get("VariantName") == VARIANT), {})
    reason = str(found.get("FailureReason") or "")
    return Standing(name, str(found["EndpointStatus"]), config, reason, variant, body, owned, ours)


def tags(client: Any, arn: str) -> dict[str, str]:
    """The tags of a resource of SageMaker."""
    pages = client.get_paginator("list_tags").paginate(ResourceArn=arn)
    return {str(each["Key"]): str(each["Value"]) for page in pages for each in page["Tags"]}


def state_of(standing: Standing) -> tuple[Status, str]:
    """How it is, and a line on it where there is something to say."""
    if not standing.status:
        return "missing", "SageMaker has nothing of it"
    if standing.status in _STATUS:
        return _STATUS[standing.status], _DETAIL.get(standing.status, "")
    return "unhealthy", f"SageMaker says {standing.status}: {one_line(standing.reason)}".rstrip(": ")


def url_of(cloud: Cloud, name: str) -> str:
    """Where an endpoint is called, with requests that are signed."""
    suffix = "amazonaws.com.cn" if cloud.partition == "aws-cn" else "amazonaws.com"
    return f"https://runtime.sagemaker.{cloud.region}.{suffix}/endpoints/{name}/invocations"


def numbered(cloud: Cloud, name: str) -> tuple[dict[int, str], dict[int, str]]:
    """Models and endpoint configurations that have a name of the deployment's: ARNs by number."""
    client = cloud.client("sagemaker")
    found: list[dict[int, str]] = []
    for operation, key, named, arn in (
        ("list_models", "Models", "ModelName", "ModelArn"),
        ("list_endpoint_configs", "EndpointConfigs", "EndpointConfigName", "EndpointConfigArn"),
    ):
        there: dict[int, str] = {}
        with explained(f"list what SageMaker has of {name}"):
            for page in client.get_paginator(operation).paginate(NameContains=f"{name}-"):
                for each in page[key]:
                    if number := number_of(name, str(each[named])):
                        there[number] = str(each[arn])
        found.append(there)
    return found[0], found[1]


def scalable(cloud: Cloud, name: str) -> Mapping[str, Any] | None:
    """What Application Auto Scaling has registered of an endpoint."""
    with explained(f"look at the scaling of {name}"):
        answer = cloud.client("application-autoscaling").describe_scalable_targets(
            ServiceNamespace="sagemaker", ResourceIds=[f"endpoint/{name}/variant/{VARIANT}"]
        )
    found: list[Mapping[str, Any]] = answer.get("ScalableTargets") or []
    return found[0] if found else None


def last_lines(cloud: Cloud, name: str, count: int) -> list[str]:
    """The last lines that a container of the endpoint said; none where it said nothing, or they may not be read."""
    client, group = cloud.client("logs"), log_group(name)
    try:
        streams = client.describe_log_streams(logGroupName=group, orderBy="LastEventTime", descending=True, limit=1)[
            "logStreams"
        ]
        if not streams:
            return []
        events = client.get_log_events(
            logGroupName=group, logStreamName=streams[0]["logStreamName"], limit=count, startFromHead=False
        )["events"]
    except (failures.ClientError, failures.BotoCoreError):
        return []
    return [str(event["message"]).rstrip() for event in events[-count:]]
