"""Whole Dockerfiles, one for each distribution, kept for people to read: what changes in them is seen in a review.

The scripts that all of them have are named in place of their text. ``BENTOTOOL_TEST_WRITE=1`` writes the files anew.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from bentotool.images import buildscripts
from bentotool.images import dockerfile as df
from bentotool.images.recipe import Recipe, recipe_text

_PATH = Path(__file__).with_name("test_dockerfile.py")
_SPEC = importlib.util.spec_from_file_location("plans", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
plans: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(plans)

FOLDER = Path(__file__).with_name("dockerfiles")
STEPS = ({"system_packages": ["libgomp1"]}, {"run": "echo one > /one"}, {"script": "setup.sh"})
CASES: dict[str, dict[str, Any]] = {
    "debian": {"steps": STEPS, "post_steps": ({"run": "python -m nltk.downloader punkt"},)},
    "ubuntu": {"distro": "ubuntu", "python": "3.12", "from_source": ("x",)},
    "ubuntu-other-python": {"distro": "ubuntu", "python": "3.13"},
    "alpine": {"distro": "alpine", "steps": STEPS[:1]},
    "ubi8": {"distro": "ubi8", "steps": STEPS[:1]},
    "ubi9-other-python": {"distro": "ubi9", "python": "3.10"},
    "amazonlinux": {"distro": "amazonlinux", "from_source": ("x",)},
    "wolfi": {"distro": "wolfi", "steps": STEPS[:1]},
    "cuda": {"cuda_version": "12.6", "steps": STEPS[:1]},
    "conda": {"conda": {"dependencies": ["gdal>=3"]}, "build_env": {"TOKEN": ""}, "steps": STEPS[1:2]},
}


def shortened(text: str) -> str:
    for name in ("CONDA", "ENTER", "ENVIRONMENT", "INSTALL"):
        line = df.Run(("x",), script=getattr(buildscripts, name)).line()
        text = text.replace(line.removeprefix('RUN ["/bin/sh", "-c", ').partition(', "bentotool"')[0], f"<{name}>")
    return text


@pytest.mark.parametrize("name", CASES)
def test_it_is_as_it_was(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENTOTOOL_CONDA_IMAGE", raising=False)
    models = ("models/iris",)
    text = shortened(recipe_text(Recipe(plans.plan_of(**CASES[name]), uv_version="0.9.0", whole=True, models=models)))
    file = FOLDER / f"{name}.Dockerfile"
    if os.environ.get("BENTOTOOL_TEST_WRITE") == "1":
        file.write_text(text, encoding="utf-8", newline="\n")
    assert text == file.read_text(encoding="utf-8")


def test_no_file_is_left_over() -> None:
    assert {file.stem for file in FOLDER.iterdir()} == set(CASES)
