"""What the target ``compose`` can be told."""

from __future__ import annotations

from bentotool.targetspec import OptionSpec

__all__ = ["OPTIONS", "VARIABLES"]

OPTIONS = (
    OptionSpec("engine", "text", "The engine; default: DOCKER_HOST, or the current context", metavar="URL",
               place=True),
    OptionSpec("image", "text", "Image to run in place of the Bento's own", metavar="REF"),
    OptionSpec("pull", "text", "Whether an --image that is not there is pulled", default="missing",
               choices=("missing", "never"), needs=("image",)),
    OptionSpec("port", "integer", "Port to publish, 0 for a free one", default=3000, minimum=0, maximum=65535),
    OptionSpec("address", "text", "Address to publish it at; 0.0.0.0 for all networks", default="127.0.0.1"),
    OptionSpec("folder", "text", "Folder for compose.yaml; default: below the store", metavar="PATH"),
    OptionSpec("start", "flag", "Start it; without, the file is written and nothing else", default=True),
    OptionSpec("together", "flag", "One container for the whole graph", default=False),
    OptionSpec("restart", "text", "Restart policy", default="always",
               choices=("no", "on-failure", "always", "unless-stopped")),
    OptionSpec("cpu", "number", "CPUs, also parts of one; default: what the Service declares", minimum=0.01,
               metavar="N", per_service=True),
    OptionSpec("memory", "text", "Memory, such as 512m or 4g; default: what the Service declares",
               metavar="SIZE", per_service=True),
    OptionSpec("gpus", "text", "GPUs: all, a number, or ids separated by commas", metavar="all|N|ID,…",
               per_service=True),
    OptionSpec("workers", "integer", "Processes of a Service; default: what it declares", minimum=1, maximum=1024,
               per_service=True),
    OptionSpec("secret", "text", "File to mount as /run/secrets/NAME, read-only", repeated=True, metavar="NAME=FILE"),
    OptionSpec("env-file", "text", "File of variables, which is named and not copied", repeated=True, metavar="FILE"),
    OptionSpec("tmp", "text", "Size of /tmp, which is in memory", default="256m", metavar="SIZE", per_service=True),
    OptionSpec("read-only", "flag", "Keep the root file systems read-only", default=True),
    OptionSpec("user", "text", "User of the processes; default: the image's", metavar="UID[:GID]"),
    OptionSpec("trial", "flag", "Start an update beside what runs first, and take it only if it is ready",
               default=True),
    OptionSpec("grace", "number", "Seconds for requests in flight when a container ends", default=30, minimum=0,
               maximum=3600, metavar="SECONDS"),
    OptionSpec("timeout", "number", "Seconds to wait for readiness", default=120, minimum=1, maximum=86400,
               metavar="SECONDS"),
)  # fmt: skip

VARIABLES = {
    "PORT": "", "BENTOTOOL_HOST": "", "BENTOTOOL_WORKERS": "workers", "BENTOTOOL_GRACE": "grace",
}  # fmt: skip
"""What is set in the containers, and the option that says what is in it."""
