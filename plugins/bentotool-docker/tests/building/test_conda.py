"""Packages of conda in an image. Its channels may not be reached from here: a program stands in for micromamba, which
makes an environment of the arguments that it is given; everything else is real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="engines run here on Linux"), pytest.mark.timeout(300)]

CANARY = "canary-of-the-channel"
STAND_IN = r"""#!/bin/sh
set -eu
words="$*"
case $words in *nosuch*) echo "error: package nosuch is in no channel" >&2; exit 1 ;; esac
while [ "$1" != --prefix ]; do shift; done
prefix=$2
mkdir -p "$prefix/bin" "$prefix/conda-meta" "$prefix/lib/python3/dist-packages" "$prefix/lib/python3.11/site-packages"
cp /usr/bin/python3.11 "$prefix/bin/python3.11"
cp -r /usr/lib/python3.11/. "$prefix/lib/python3.11/"
module=$prefix/lib/python3/dist-packages/condapkg.py
printf 'WORDS = "%s"\nRC = %s\n' "$words" "$(wc -c <"$CONDARC")" >"$module"
cp "$module" "$prefix/lib/python3.11/site-packages/"
secret=$(cat "$CONDARC")
printf '{"channel": "https://ada:%s@c.example/t/%s/main"}' "$secret" "$secret" >"$prefix/conda-meta/x.json"
echo "$words" >"$prefix/conda-meta/history"
"""
SERVICE = """
import pathlib, sys
import bentotool

with bentotool.importing():
    import condapkg

@bentotool.service
class Probe:
    @bentotool.api
    def facts(self) -> dict[str, str]:
        meta = pathlib.Path(sys.base_prefix, "conda-meta")
        return {
            "words": condapkg.WORDS, "rc": str(condapkg.RC), "prefix": sys.base_prefix,
            "meta": " ".join(path.read_text() for path in sorted(meta.iterdir())),
        }
"""
CONFIG: dict[str, Any] = {
    "service": "service:Probe",
    "python": {"version": "3.11"},
    "conda": {"channels": ["conda-forge", "bioconda"], "dependencies": ["gdal>=3.8", "samtools"]},
}


@pytest.fixture(scope="module")
def conda(kit: Any, builds: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image of the stand-in."""
    folder = tmp_path_factory.mktemp("conda")
    (folder / "micromamba").write_text(STAND_IN)
    (folder / "micromamba").chmod(0o755)
    (folder / "Dockerfile").write_text(f"FROM {kit.BASE}\nCOPY micromamba /usr/bin/micromamba\n")
    name = f"localhost/bentotool-test-conda:{os.getpid()}"
    make = ["docker", "buildx", "build", "--quiet", "--load", "--tag", name, str(folder)]
    subprocess.run(make, env=builds.environment, check=True, capture_output=True, timeout=120)
    yield name
    subprocess.run(["docker", "image", "rm", "--force", name], check=False, capture_output=True, timeout=60)


def test_conda_and_lock_together(kit: Any, builds: Any, engine: Any, conda: str, tools: Any, tmp_path: Path) -> None:
    tag = builds.bento("conda", CONFIG, {"service.py": SERVICE})
    (tmp_path / "condarc").write_text(CANARY)
    variables = {"BENTOTOOL_CONDA_IMAGE": conda, "CONDARC": str(tmp_path / "condarc")}
    image = builds.made("containerize", tag, "--base", kit.BASE, "--load", **variables)["images"][0]
    try:
        with kit.running(engine, tag, tools.wait_for, read_only=True) as (_, url):
            facts = tools.call(url, "facts")
        _, data = kit.names_and_bytes(engine, tag)
    finally:
        engine.images.remove(tag, force=True)
    assert facts["words"] == (
        "create --yes --quiet --prefix /opt/bentotool/conda --channel conda-forge --channel bioconda"
        " --override-channels python=3.11 gdal>=3.8 samtools"
    )
    assert (facts["rc"], facts["prefix"]) == (str(len(CANARY)), "/opt/bentotool/conda")
    assert facts["meta"] == '{"channel": "https://c.example/main"}'
    assert CANARY.encode() not in data
    path = next(each for each in builds.config(image)["config"]["Env"] if each.startswith("PATH="))
    assert path.startswith("PATH=/opt/bentotool/env/bin:/opt/bentotool/conda/bin:")


def test_what_conda_says_is_told(kit: Any, builds: Any, conda: str) -> None:
    tag = builds.bento("nosuch", {**CONFIG, "conda": {"dependencies": ["nosuch"]}}, {"service.py": SERVICE})
    done = builds.run("containerize", tag, "--base", kit.BASE, BENTOTOOL_CONDA_IMAGE=conda)
    expected = f"error: the conda packages of {tag} cannot be installed for linux/amd64: error: package nosuch is in"
    assert kit.error(done).startswith(expected)
    assert "conda.channels" in done.stderr
    done = builds.run("containerize", tag, "--base", kit.BASE, BENTOTOOL_CONDA_IMAGE=kit.BASE)
    assert "has none of micromamba, mamba and conda" in kit.error(done)


def test_the_other_builder_names_this_one(kit: Any, builds: Any) -> None:
    tag = builds.bento("conda", CONFIG, {"service.py": SERVICE})
    done = builds.run("--json", "containerize", tag, "--builder", "oci", "--base", kit.BASE)
    said = json.loads(done.stderr.splitlines()[-1])["error"]
    assert "needs conda packages" in said["message"]
    assert "--builder buildkit" in said["hint"]
