"""The model, the endpoint configuration and the scaling of a deployment, as AWS's interfaces take them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bentotool.errors import UsageError
from bentotool.targetspec import DeployBento, DeployOptions
from bentotool_sagemaker.names import DEPLOYMENT, VARIANT

__all__ = [
    "BENTO",
    "DIGEST",
    "UNKNOWN",
    "Wanted",
    "config_body",
    "entry_path",
    "instance_type",
    "model_body",
    "scaling_bodies",
    "tags_of",
    "wanted",
]  # fmt: skip

BENTO = "bentotool:bento"
DIGEST = "bentotool:digest"

UNKNOWN = "/API"
"""The path of the API of a Bento that is not built yet; in a plan only."""

_PORT = 8080  # SageMaker's
_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/\S+")
_ROLE = re.compile(r"[\w+=,.@/-]{1,512}", re.ASCII)
_PATH = re.compile(r"/[A-Za-z0-9._~/-]{0,200}")
_INSTANCE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9-]+")
_OURS = ("PORT", "BENTOTOOL_HOST", "BENTOTOOL_PATHS")
_VALUE = 1024  # characters that SageMaker takes of a variable


@dataclass(frozen=True)
class Wanted:
    """What is asked for, judged.

    Args:
        role: ARN, or the name that is still to be completed.
        path: of the API, below the service's prefix.
        instance: type of the instances; empty where there are none (serverless).
    """

    role: str
    path: str
    instance: str
    tags: Mapping[str, str]


def wanted(bento: DeployBento, options: DeployOptions) -> Wanted:
    """Judge the options among themselves.

    Raises:
        UsageError: one is missing, or two do not go together.
    """
    values = options.values
    role = str(values["role"] or "")
    if not role:
        raise UsageError(
            "no role is named for the endpoint to run as",
            hint="--role NAME: one that trusts sagemaker.amazonaws.com and may pull from ECR",
        )
    if not (_ARN.fullmatch(role) or _ROLE.fullmatch(role)):
        raise UsageError(f"role {role[:80]!r} is neither a name nor an ARN", hint="--role NAME")
    for name in _OURS:
        if name in options.env:
            raise UsageError(f"--env {name} is set by the deployment itself", hint="leave it out")
    if long := next((name for name, value in options.env.items() if len(value) > _VALUE), None):
        raise UsageError(f"--env {long} is longer than the {_VALUE} characters that SageMaker takes")
    _check_together(values)
    return Wanted(role, entry_path(bento, str(values["api"] or "")), instance_type(bento, values), _tags(values["tag"]))


def _check_together(values: Mapping[str, Any]) -> None:
    if bool(values["subnet"]) != bool(values["security-group"]):
        raise UsageError("a VPC is named by --subnet and --security-group, and one of them lacks", hint="give both")
    most = values["max-instances"]
    if most is not None and most < values["instances"]:
        raise UsageError(
            f"--max-instances {most} is less than --instances {values['instances']}", hint="--instances is the fewest"
        )
    if values["serverless"]:
        if values["serverless"] % 1024:
            raise UsageError(f"--serverless {values['serverless']} is no multiple of 1024", hint="--serverless 2048")
        others = ("instance-type", "max-instances", "async-output", "volume", "kms-key", "rollback-alarm", "subnet")
        if other := next((name for name in others if values[name]), None):
            raise UsageError(f"--serverless and --{other} do not go together", hint="leave one of them out")
        if values["instances"] > 1:
            raise UsageError("--serverless and --instances do not go together", hint="leave one of them out")
    if values["async-output"] and not str(values["async-output"]).startswith("s3://"):
        raise UsageError(f"--async-output {values['async-output']} is no place in S3", hint="s3://BUCKET/PATH")


def _tags(pairs: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name or name.startswith(("aws:", "bentotool:")):
            raise UsageError(f"tag {pair[:60]!r} is not of the form NAME=VALUE", hint="--tag team=search")
        found[name] = value
    return found


def entry_path(bento: DeployBento, api: str) -> str:
    """The path that ``/invocations`` stands for, below the service's prefix.

    Args:
        api: its name, or a path; empty: the only one.

    Raises:
        UsageError: there is none of that name, or several and none is named.
    """
    if api.startswith("/"):
        if not _PATH.fullmatch(api):
            raise UsageError(f"--api {api[:80]!r} is no path", hint="--api NAME")
        return api
    entry = bento.services[0] if bento.services else None
    known = {name: path.removeprefix(entry.path_prefix) for name, path in entry.apis.items()} if entry else {}
    there = f"{entry.name if entry else bento.tag} has: {', '.join(known) or 'none that is known'}"
    if api:
        if entry is not None and known and api not in known:
            raise UsageError(f"there is no API {api[:60]!r} that is called by POST", hint=there)
        return known.get(api, f"/{api}")
    if not bento.service:  # it is to be built, or is gone from the store: nothing is known of it but its name
        return UNKNOWN
    if len(known) != 1:
        raise UsageError("/invocations is one API, and none is named", hint=f"--api NAME; {there}")
    return next(iter(known.values()))


def instance_type(bento: DeployBento, values: Mapping[str, Any]) -> str:
    """The type of the instances; empty where there are none.

    Raises:
        UsageError: it is none.
    """
    if values["serverless"]:
        if any(_gpus(service.resources) for service in bento.services):
            raise UsageError("--serverless has no GPU, and the service asks for one", hint="leave --serverless out")
        return ""
    named = str(values["instance-type"] or "")
    if named and not _INSTANCE.fullmatch(named):
        raise UsageError(f"--instance-type {named[:60]!r} is none", hint="--instance-type ml.m5.large")
    gpu = any(_gpus(service.resources) for service in bento.services)
    return named or ("ml.g5.xlarge" if gpu else "ml.m5.large")


def _gpus(resources: Mapping[str, Any]) -> bool:
    found = resources.get("gpu")
    return bool(found) and str(found) not in ("0", "0.0")


def tags_of(bento: DeployBento, options: DeployOptions, own: Mapping[str, str]) -> list[dict[str, str]]:
    """The tags of all that is made."""
    found = {**own, DEPLOYMENT: options.name, BENTO: bento.tag, DIGEST: bento.digest}
    return [{"Key": key, "Value": value} for key, value in found.items()]


def model_body(
    bento: DeployBento, options: DeployOptions, asked: Wanted, name: str, image: str, role: str
) -> dict[str, Any]:
    """``CreateModel``."""
    values = options.values
    body: dict[str, Any] = {
        "ModelName": name,
        "ExecutionRoleArn": role,
        "PrimaryContainer": {
            "Image": image,
            "Environment": {
                **options.env,
                "PORT": str(_PORT),
                "BENTOTOOL_HOST": "0.0.0.0",  # noqa: S104 - within the container; SageMaker calls it there
                "BENTOTOOL_PATHS": f"/ping=/readyz,/invocations={asked.path}",
            },
        },
        "Tags": tags_of(bento, options, asked.tags),
    }
    if values["subnet"]:
        body["VpcConfig"] = {"Subnets": [*values["subnet"]], "SecurityGroupIds": [*values["security-group"]]}
    if values["isolated"]:
        body["EnableNetworkIsolation"] = True
    return body


def config_body(bento: DeployBento, options: DeployOptions, asked: Wanted, name: str, instances: int) -> dict[str, Any]:
    """``CreateEndpointConfig``.

    Args:
        name: its own and the model's.
        instances: to begin with.
    """
    values = options.values
    variant: dict[str, Any] = {"VariantName": VARIANT, "ModelName": name}
    if values["serverless"]:
        variant["ServerlessConfig"] = {
            "MemorySizeInMB": values["serverless"], "MaxConcurrency": values["concurrency"],
        }  # fmt: skip
    else:
        variant |= {
            "InstanceType": asked.instance,
            "InitialInstanceCount": instances,
            "InitialVariantWeight": 1.0,
            "ContainerStartupHealthCheckTimeoutInSeconds": values["startup"],
        }
        if values["volume"]:
            variant["VolumeSizeInGB"] = values["volume"]
    body: dict[str, Any] = {
        "EndpointConfigName": name, "ProductionVariants": [variant], "Tags": tags_of(bento, options, asked.tags),
    }  # fmt: skip
    if values["kms-key"]:
        body["KmsKeyId"] = values["kms-key"]
    if values["async-output"]:
        body["AsyncInferenceConfig"] = {"OutputConfig": {"S3OutputPath": values["async-output"]}}
        if values["async-concurrency"]:
            body["AsyncInferenceConfig"]["ClientConfig"] = {
                "MaxConcurrentInvocationsPerInstance": values["async-concurrency"]
            }
    return body


def scaling_bodies(name: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """``RegisterScalableTarget`` and ``PutScalingPolicy`` of Application Auto Scaling; None where it does not scale."""
    most = values["max-instances"]
    if most is None or most <= values["instances"]:
        return None
    whose = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{name}/variant/{VARIANT}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    tracked: dict[str, Any] = {
        "TargetValue": float(values["per-instance"]),
        "ScaleOutCooldown": values["scale-out"],
        "ScaleInCooldown": values["scale-in"],
    }
    if values["async-output"]:  # nobody waits for an answer: what counts is how many are queued
        tracked["CustomizedMetricSpecification"] = {
            "MetricName": "ApproximateBacklogSizePerInstance",
            "Namespace": "AWS/SageMaker",
            "Dimensions": [{"Name": "EndpointName", "Value": name}],
            "Statistic": "Average",
        }
    else:
        tracked["PredefinedMetricSpecification"] = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    policy = {
        **whose, "PolicyName": f"{name}-requests", "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": tracked,
    }  # fmt: skip
    return {**whose, "MinCapacity": values["instances"], "MaxCapacity": most}, policy
