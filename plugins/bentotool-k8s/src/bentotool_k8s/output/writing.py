"""What ``--output`` writes: manifests, a Kustomize base or a Helm chart."""

from __future__ import annotations

from dataclasses import replace

from bentotool.errors import UsageError
from bentotool.targetoptions import planned_image, published_image
from bentotool.targetspec import Plan
from bentotool.yamltext import as_yaml
from bentotool_k8s.manifests import Shape
from bentotool_k8s.output.helm import RELEASE, Chart, chart
from bentotool_k8s.output.kustomize import base

__all__ = ["files_of"]


def files_of(shape: Shape, plan: Plan, form: str, publish: bool) -> dict[str, str]:
    """The files of a form, by name.

    Args:
        publish: bring the image to its registry, and name it by its digest.

    Raises:
        UsageError: an option that a chart leaves to Helm.
        BentotoolError: the image cannot be made or pushed.
    """
    bento, options = plan.bento, plan.options
    lean = options.values.get("models") == "volume"
    image = (
        published_image(bento, options.values, lean=lean)
        if publish
        else planned_image(bento, options.values, lean=lean)[0]
    )
    namespace = str(options.values["namespace"] or "")
    if form != "helm":
        made = shape.objects(bento, options, image, namespace)
        return base(made) if form == "kustomize" else {f"{options.name}.yaml": as_yaml(made)}
    if namespace:
        raise UsageError("a chart has no namespace of its own", hint=f"helm install --namespace {namespace}")
    made = shape.objects(bento, replace(options, name=RELEASE), image, "")
    return chart(Chart(options.name, bento.version, image.repository, image.tag, image.digest, made))
