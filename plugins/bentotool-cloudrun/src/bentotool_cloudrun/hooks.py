"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bentotool.hookspecs import hookimpl
from bentotool.targetoptions import IMAGE_OPTIONS
from bentotool.targetspec import OptionSpec, TargetDecl

if TYPE_CHECKING:
    from bentotool.interfaces import Credentials

OPTIONS = (
    OptionSpec("project", "text", "Project; default: that of the credentials", metavar="ID", place=True),
    OptionSpec("region", "text", "Region; default: CLOUDSDK_RUN_REGION or GOOGLE_CLOUD_REGION", metavar="NAME",
               place=True),
    *(option for option in IMAGE_OPTIONS if option.name != "platform"),  # Cloud Run has one
    OptionSpec("cpu", "text", "CPUs of an instance; default: the service's resources", metavar="N",
               pattern=r"(?:1|2|4|6|8|[234]\d)(?:\.0+)?|0?\.\d+|\d{1,5}m",
               form="1, 2, 4, 6 or 8 CPUs, or less than one such as 500m"),
    OptionSpec("memory", "text", "Memory of an instance, such as 512Mi or 4Gi; default: the service's resources",
               metavar="SIZE", pattern=r"\d+(?:\.\d+)?\s*(?:[kKMGT]|[KMGT]i)?B?", form="a size such as 512Mi or 4Gi"),
    OptionSpec("gpus", "text", "GPUs of an instance: 0 or 1; default: the service's resources", metavar="N"),
    OptionSpec("gpu-type", "text", "Kind of GPU, such as nvidia-l4", metavar="TYPE"),
    OptionSpec("gpu-zonal-redundancy", "flag", "Hold GPUs in reserve for the failure of a zone", default=False),
    OptionSpec("cpu-throttling", "flag", "Give CPU only while requests are answered; always given beside a GPU",
               default=True),
    OptionSpec("min-instances", "integer", "Instances that are always there", default=0, minimum=0, maximum=1000,
               metavar="N"),
    OptionSpec("max-instances", "integer", "Instances at most; default: Cloud Run's", minimum=1, maximum=1000,
               metavar="N"),
    OptionSpec("concurrency", "integer", "Requests that an instance is sent at once; default: the service's traffic",
               minimum=1, maximum=1000, metavar="N"),
    OptionSpec("request-timeout", "number", "Seconds for a request; default: a little above the service's own",
               minimum=1, maximum=3600, metavar="SECONDS"),
    OptionSpec("allow-unauthenticated", "flag", "Anybody may call it; else callers need roles/run.invoker",
               default=False),
    OptionSpec("ingress", "text", "Networks that reach it", default="all",
               choices=("all", "internal", "internal-and-cloud-load-balancing")),
    OptionSpec("service-account", "text", "Account that the service runs as; default: the project's", metavar="EMAIL"),
    OptionSpec("secret", "text", "Secret of Secret Manager as variable NAME, or as file /FOLDER/FILE", repeated=True,
               metavar="NAME=SECRET[:VERSION]"),
    OptionSpec("traffic", "flag", "Send requests to the new revision once it is ready", default=True),
    OptionSpec("revision-tag", "text", "Tag that gives the new revision a URL of its own", metavar="TAG"),
    OptionSpec("timeout", "number", "Seconds to wait for readiness", default=900, minimum=1, maximum=86400,
               metavar="SECONDS"),
)  # fmt: skip
_SET = ("PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION", "BENTOTOOL_GRACE", "BENTOTOOL_HOST")
VARIABLES = dict.fromkeys(_SET, "")
"""What Cloud Run or the target set."""


@hookimpl
def bentotool_targets() -> list[TargetDecl]:
    return [
        TargetDecl("cloudrun", "bentotool_cloudrun.target:CloudRunTarget", "Cloud Run", options=OPTIONS,
                   variables=VARIABLES)
    ]  # fmt: skip


@hookimpl
def bentotool_registry_credentials(registry: str) -> Credentials | None:
    if not (registry == "gcr.io" or registry.endswith((".gcr.io", "-docker.pkg.dev"))):
        return None
    from bentotool_cloudrun.account import registry_login

    return registry_login()
