"""What engines say when a build fails, as one line and the next step. The reports are what docker 26 printed."""

from __future__ import annotations

from typing import Any

import pytest
from bentotool_docker.report import explained_build

from bentotool.errors import BuildError, NotFoundError, RemoteError
from bentotool.imagespec import ImagePlan

HEAD = (
    "#9 [x]\n------\n > [{stage} 2/3] RUN {what}:\n{said}\n------\nDockerfile:4\n--------------------\n   2 |     x\n"
)
TAIL = 'ERROR: failed to solve: process "/bin/sh -c x" did not complete successfully: exit code: {code}\n'


def plan(**changes: Any) -> ImagePlan:
    values: dict[str, Any] = dict.fromkeys(("digest", "service", "base_from", "prefix", "user", "workdir", "base"), "x")
    values |= {"name": "iris", "version": "1", "platform": "linux/amd64", "locked_for": "linux/amd64", "python": "3.11"}
    values |= {"env": {}, "entrypoint": (), "healthcheck": (), "port": 3000, "labels": {}, "layers": ()}
    return ImagePlan(**{**values, **changes})


def report(stage: str, what: str, said: str, code: int = 1) -> str:
    return HEAD.format(stage=stage, what=what, said=said) + TAIL.format(code=code)


PACKAGES = '--mount=type=bind,source=packages,target=/opt/bentotool/packages ["/bin/sh", "-c", "..."]'
SCRIPT = report(
    "system", '--mount=x ["/bin/sh","-c","...","bentotool","/bin/sh","/opt/bentotool/scripts/before-0"]',
    "0.101 first\n0.102 the disk of wishes is empty", 3,
)  # fmt: skip
PODMAN = (
    "[1/3] STEP 3/4: RUN true\nof another step\n--> 1fce\n"
    '[1/3] STEP 4/4: RUN ["x"]\nfirst\nno more wishes\nsubprocess exited with status 3\n'
    "subprocess exited with status 3\n"
    'Error: building at STEP "{what}": exit status 3\n'
)
CASES: list[tuple[str, dict[str, Any], type[Exception], str, str]] = [
    (
        SCRIPT,
        {"steps": ({"script": "setup.sh"},)},
        BuildError,
        "script setup.sh of the image of iris:1 failed (exit status 3): first | the disk of wishes is empty",
        "correct it",
    ),
    (
        report("environment", '["/bin/sh","-c","false --quickly"]', "0.1 Traceback\n0.2 ValueError: no"),
        {"post_steps": ({"run": "false --quickly"},)},
        BuildError,
        "command 'false --quickly' of the image of iris:1 failed (exit status 1): ValueError: no",
        "correct it",
    ),
    (
        report("system", '["/bin/sh","-c","...","bentotool","nosuch"]', "0.3 E: Unable to locate package nosuch", 100),
        {"steps": ({"system_packages": ["nosuch"]},)},
        BuildError,
        "system packages nosuch of the image of iris:1 failed (exit status 100): E: Unable to locate package nosuch",
        "docker.system_packages",
    ),
    (
        report("packages", "x", "0.1 bentotool: no-python: the base image has no Python 3.11", 65),
        {},
        BuildError,
        "base image base:1 has no Python 3.11",
        "--base docker.io/library/python:3.11-slim",
    ),
    (
        report(
            "packages", PACKAGES,
            "0.4 error: Failed to fetch: `https://ada:canary@index/simple/x/`\n0.4   Caused by: dns error",
        ),
        {},
        RemoteError,
        "the packages of iris:1 cannot be installed for linux/amd64: the package index did not answer",
        "--ca-bundle",
    ),
    (
        report(
            "packages", PACKAGES,
            "0.4 error: Distribution `x==1` can't be installed because it is marked as `--no-build` but has no binary"
            " distribution; building from source is disabled",
        ),
        {},
        BuildError,
        "the packages of iris:1 cannot be installed for linux/amd64: Distribution",
        "python.wheels",
    ),
    (
        report("system", "x", "0.1 cp: error writing '/x': No space left on device"),
        {},
        BuildError,
        "the image of iris:1 cannot be made: no space left on the engine's disk",
        "prune",
    ),
    (
        report("system", "x", "0.1 exec /bin/sh: exec format error"),
        {"platform": "linux/arm64"},
        BuildError,
        "the engine cannot run programs of linux/arm64",
        "qemu",
    ),
    (
        "ERROR: failed to solve: base:1: failed to resolve source metadata for docker.io/library/base:1: no such host",
        {},
        NotFoundError,
        "base image base:1: failed to solve",
        "--base",
    ),
    (
        "Step 3/9 : RUN x\nThe command '/bin/sh -c x' returned a non-zero code: 7\n",
        {},
        BuildError,
        "a step of the image of iris:1 failed (exit status 7)",
        "correct it",
    ),
    ("", {}, BuildError, "a step of the image of iris:1 failed: it said nothing", "correct it"),
    (
        report("conda", '"... create --yes ...", "bentotool", "/opt/bentotool/conda"', "0.1 error: nosuch not found"),
        {},
        BuildError,
        "the conda packages of iris:1 cannot be installed for linux/amd64: error: nosuch not found",
        "conda.channels",
    ),
    (
        report("conda", "x", "0.1 bentotool: no-conda: the image has none of micromamba, mamba and conda", 66),
        {},
        BuildError,
        "the image that makes conda's environment for iris:1 has none of micromamba",
        "BENTOTOOL_CONDA_IMAGE",
    ),
    (
        PODMAN.format(what="RUN --mount=x /bin/sh -c if x\ny\nfi bentotool /opt/bentotool/scripts/before-0"),
        {"steps": ({"script": "setup.sh"},)},
        BuildError,
        "script setup.sh of the image of iris:1 failed (exit status 3): first | no more wishes",
        "correct it",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("said", "changes", "kind", "message", "hint"), CASES)
def test_one_line_and_the_next_step(
    said: str, changes: dict[str, Any], kind: type[Exception], message: str, hint: str
) -> None:
    error = explained_build(plan(**changes), said, "base:1")
    assert type(error) is kind
    assert error.message.startswith(message)
    assert "\n" not in error.message
    assert error.message.isprintable()
    assert hint in str(error.hint)
    assert "canary" not in f"{error.message} {error.hint} {error.details}"
