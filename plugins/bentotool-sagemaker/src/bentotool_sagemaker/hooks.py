"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from bentotool.hookspecs import hookimpl
from bentotool.interfaces import Credentials
from bentotool.targetspec import OptionSpec, TargetDecl

OPTIONS = (
    OptionSpec("region", "text", "Region; default: that of the profile or AWS_REGION", metavar="NAME", place=True),
    OptionSpec("profile", "text", "Profile of the AWS configuration; default: AWS_PROFILE", metavar="NAME", place=True),
    OptionSpec("role", "text", "IAM role that the endpoint runs as", metavar="ARN|NAME"),
    OptionSpec("api", "text", "The API that /invocations calls; default: the only one", metavar="NAME"),
    OptionSpec("registry", "text", "Registry, and path in it, to push the image to; default: the account's own ECR",
               metavar="HOST[/PATH]"),
    OptionSpec("image", "text", "Image in ECR to run in place of the Bento's own", metavar="REF"),
    OptionSpec("instance-type", "text", "Instances; default: ml.m5.large, or ml.g5.xlarge for a GPU", metavar="TYPE"),
    OptionSpec("instances", "integer", "How many instances, or the fewest of them", default=1, minimum=1, metavar="N"),
    OptionSpec("max-instances", "integer", "The most instances; above --instances it scales", minimum=1, metavar="N"),
    OptionSpec("per-instance", "number", "Scale to so many requests a minute and instance", default=600, minimum=1,
               metavar="REQUESTS", needs=("max-instances",)),
    OptionSpec("scale-out", "integer", "Seconds after which it may grow again", default=60, minimum=0, maximum=86400,
               metavar="SECONDS", needs=("max-instances",)),
    OptionSpec("scale-in", "integer", "Seconds after which it may shrink again", default=300, minimum=0, maximum=86400,
               metavar="SECONDS", needs=("max-instances",)),
    OptionSpec("serverless", "integer", "No instances: so many MB of memory, when it is called", minimum=1024,
               maximum=6144, metavar="MB"),
    OptionSpec("concurrency", "integer", "Most requests at once, of --serverless", default=5, minimum=1, maximum=200,
               metavar="N", needs=("serverless",)),
    OptionSpec("async-output", "text", "Asynchronous: answers go to this place", metavar="s3://BUCKET/PATH"),
    OptionSpec("async-concurrency", "integer", "Most requests at once of an instance, of --async-output", minimum=1,
               maximum=1000, metavar="N", needs=("async-output",)),
    OptionSpec("subnet", "text", "Subnet that the endpoint reaches", repeated=True, metavar="ID",
               needs=("security-group",)),
    OptionSpec("security-group", "text", "Security group in the subnets' VPC", repeated=True, metavar="ID",
               needs=("subnet",)),
    OptionSpec("isolated", "flag", "No network for the container", default=False),
    OptionSpec("volume", "integer", "Disk of an instance", minimum=1, maximum=512, metavar="GB"),
    OptionSpec("kms-key", "text", "Key that encrypts the disk", metavar="ID|ARN"),
    OptionSpec("rollback-alarm", "text", "CloudWatch alarm that takes an update back", repeated=True, metavar="NAME"),
    OptionSpec("tag", "text", "Tag of all that is made", repeated=True, metavar="NAME=VALUE"),
    OptionSpec("startup", "integer", "Seconds that the container may take to answer /ping", default=600, minimum=60,
               maximum=3600, metavar="SECONDS"),
    OptionSpec("timeout", "number", "Seconds to wait for readiness", default=1800, minimum=1, maximum=86400,
               metavar="SECONDS"),
)  # fmt: skip


@hookimpl
def bentotool_targets() -> list[TargetDecl]:
    return [
        TargetDecl(
            "sagemaker",
            "bentotool_sagemaker.target:SageMakerTarget",
            "Endpoints of Amazon SageMaker",
            options=OPTIONS,
            variables={"PORT": "", "BENTOTOOL_HOST": "", "BENTOTOOL_PATHS": "api"},
        )
    ]


@hookimpl
def bentotool_registry_credentials(registry: str) -> Credentials | None:
    from bentotool_sagemaker.names import ecr_place

    if ecr_place(registry) is None:
        return None
    from bentotool_sagemaker.ecr import login

    return login(registry)
