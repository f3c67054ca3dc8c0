"""Write what is made of each case of ``cases.yaml`` beside it: ``python regenerate.py``. The tests compare with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from bentotool_k8s.manifests import group_of, notes, objects
from bentotool_k8s.options import OPTIONS
from bentotool_k8s.output import as_yaml

from bentotool.deploy.options import check_deployment_name, option_values
from bentotool.deployspec import DeployModel, DeployService, PublishedImage
from bentotool.targetspec import DeployBento, DeployOptions, TargetDecl

FOLDER = Path(__file__).parent
DECL = TargetDecl("k8s", "bentotool_k8s.target:KubernetesTarget", "Kubernetes", options=OPTIONS)


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def bento_of(given: Mapping[str, Any]) -> DeployBento:
    services = tuple(
        DeployService(**{
            **each, "depends": tuple(each.get("depends", ())),
            "probes": {name: f"{each.get('path_prefix', '')}/{name}" for name in ("livez", "readyz", "healthz")},
        })
        for each in given["services"]
    )  # fmt: skip
    models = tuple(
        DeployModel(**each, digest=digest(number), volume=digest(number + 100))
        for number, each in enumerate(given.get("models", ()), 11)
    )
    packages = frozenset(given.get("packages", ("httpx", "litestar")))
    return DeployBento(
        "iris", "4f0c2a9b1d3e", digest(1), "service:Iris", "3.11", "linux/amd64",
        services=services, models=models, packages=packages,
    )  # fmt: skip


def cases() -> Iterator[tuple[str, str, DeployBento, DeployOptions, PublishedImage, str]]:
    """Name and description of each, and what is deployed: Bento, options, image, namespace."""
    document = yaml.safe_load((FOLDER / "cases.yaml").read_text(encoding="utf-8"))
    for case in document["cases"]:
        bento = bento_of(document["bentos"][case["bento"]])
        given = [text if text != "no-network-policy" else "network-policy=false" for text in case.get("set", ())]
        name = check_deployment_name(case.get("deployment", "iris"))
        options = DeployOptions(name, option_values(DECL, given), case.get("env", {}))
        volumes = {model.digest: model.volume for model in bento.models}
        image = PublishedImage("ghcr.io/flowers/iris", "4f0c2a9b1d3e", digest(2), volumes=volumes)
        if "image" in case:
            repository, _, tag = case["image"].rpartition(":")
            image = PublishedImage(repository, tag)
        yield case["name"], case["about"], bento, options, image, case.get("namespace", "")


def golden(
    name: str, about: str, bento: DeployBento, options: DeployOptions, image: PublishedImage, namespace: str
) -> str:
    """The text of a case's file."""
    told = [f"# {name}: {about}", *(f"# note: {each}" for each in notes(group_of(bento, options, image, namespace)))]
    return "\n".join([*told, as_yaml(objects(bento, options, image, namespace))])


def main() -> None:
    kept = set()
    for case in cases():
        path = FOLDER / f"{case[0]}.yaml"
        path.write_text(golden(*case), encoding="utf-8", newline="\n")
        kept.add(path.name)
    for path in FOLDER.glob("*.yaml"):
        if path.name not in {*kept, "cases.yaml"}:
            path.unlink()


if __name__ == "__main__":
    sys.exit(main())
