"""Names: of what a deployment is made of, of images in ECR, of instances. Imports the standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["DEPLOYMENT", "VARIANT", "EcrPlace", "ecr_place", "log_group", "number_of", "platform_of", "resource_name"]

DEPLOYMENT = "bentotool:deployment"
"""The tag that says whose a resource is."""
VARIANT = "main"

_ECR = re.compile(r"(\d{12})\.dkr[.-]ecr(?:-fips)?\.([a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|on\.aws)")
_NUMBER = re.compile(r"[1-9]\d{0,8}")
_ARM = re.compile(r"ml\.[a-z]+\d+g[a-z-]*\..+")  # c7g, m6gd, im4gn, g5g: a g after the generation


@dataclass(frozen=True)
class EcrPlace:
    """A registry of ECR."""

    account: str
    region: str


def ecr_place(host: str) -> EcrPlace | None:
    """Whose registry a host is; None where it is none of ECR."""
    found = _ECR.fullmatch(host)
    return EcrPlace(found[1], found[2]) if found else None


def resource_name(name: str, number: int) -> str:
    """Name of a model and of an endpoint configuration; 63 characters at most, as a deployment's has 50."""
    return f"{name}-{number}"


def number_of(name: str, resource: str) -> int:
    """The number in a resource's name; 0 where it is none of the deployment's."""
    text = resource.removeprefix(f"{name}-")
    return int(text) if text != resource and _NUMBER.fullmatch(text) else 0


def platform_of(instance_type: str) -> str:
    """What an instance runs, such as ``linux/amd64``."""
    return "linux/arm64" if _ARM.fullmatch(instance_type) else "linux/amd64"


def log_group(name: str) -> str:
    """Where CloudWatch has what an endpoint's containers say."""
    return f"/aws/sagemaker/Endpoints/{name}"
