"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from bentotool.hookspecs import hookimpl
from bentotool.imagespec import ImageBuilderDecl
from bentotool.targetspec import OptionSpec, TargetDecl
from bentotool_docker.compose.options import OPTIONS as COMPOSE
from bentotool_docker.compose.options import VARIABLES as COMPOSE_VARIABLES

OPTIONS = (
    OptionSpec("engine", "text", "The engine; default: DOCKER_HOST, or the current context", metavar="URL",
               place=True),
    OptionSpec("image", "text", "Image to run in place of the Bento's own", metavar="REF"),
    OptionSpec("pull", "text", "Whether an --image that is not there is pulled", default="missing",
               choices=("missing", "never"), needs=("image",)),
    OptionSpec("port", "integer", "Port to publish, 0 for a free one", default=3000, minimum=0, maximum=65535),
    OptionSpec("address", "text", "Address to publish it at; 0.0.0.0 for all networks", default="127.0.0.1"),
    OptionSpec("restart", "text", "Restart policy", default="always",
               choices=("no", "on-failure", "always", "unless-stopped")),
    OptionSpec("cpu", "number", "CPUs, also parts of one", minimum=0.01, metavar="N"),
    OptionSpec("memory", "text", "Memory, such as 512m or 4g", metavar="SIZE"),
    OptionSpec("gpus", "text", "GPUs: all, a number, or ids separated by commas", metavar="all|N|ID,…"),
    OptionSpec("secret", "text", "File to mount as /run/secrets/NAME, read-only", repeated=True, metavar="NAME=FILE"),
    OptionSpec("tmp", "text", "Size of /tmp, which is in memory", default="256m", metavar="SIZE"),
    OptionSpec("read-only", "flag", "Keep the root file system read-only", default=True),
    OptionSpec("user", "text", "User of the process; default: the image's", metavar="UID[:GID]"),
    OptionSpec("network", "text", "Network of the engine to join", metavar="NAME"),
    # who asks again within these is told that the connection ends: an update cuts only what was idle for longer
    OptionSpec("drain", "number", "Seconds in which clients of an old version are sent to the new one", default=6,
               minimum=0, maximum=3600, metavar="SECONDS"),
    OptionSpec("grace", "number", "Seconds for requests in flight after that", default=30, minimum=0, maximum=3600,
               metavar="SECONDS"),
    OptionSpec("timeout", "number", "Seconds to wait for readiness", default=120, minimum=1, maximum=86400,
               metavar="SECONDS"),
)  # fmt: skip

VARIABLES = {
    "PORT": "", "BENTOTOOL_HOST": "", "BENTOTOOL_DRAIN_DELAY": "drain", "BENTOTOOL_GRACE": "grace",
}  # fmt: skip
"""What is set in the containers, and the option that says what is in it."""


@hookimpl
def bentotool_targets() -> list[TargetDecl]:
    return [
        TargetDecl("docker", "bentotool_docker.target:DockerTarget", "Containers on a Docker engine", options=OPTIONS,
                   variables=VARIABLES),
        TargetDecl(
            "compose", "bentotool_docker.compose.target:ComposeTarget", "A graph of Services on one machine",
            options=COMPOSE, variables=COMPOSE_VARIABLES,
        ),
    ]  # fmt: skip


@hookimpl
def bentotool_image_builders() -> list[ImageBuilderDecl]:
    return [
        ImageBuilderDecl(
            "buildkit", "bentotool_docker.builder:BuildkitBuilder", "A Dockerfile run by docker, podman or nerdctl"
        )
    ]
