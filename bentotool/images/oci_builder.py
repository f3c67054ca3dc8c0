"""The ``oci`` builder: an image put together from layers, with no daemon, no root, and nothing executed.

From the bottom: the base's layers as they are, the Python environment, the runtime, the models' own layers, the Bento's
own code layer. Everything lies in the store afterwards, the layers of models as the models' files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from bentotool.build.bentos import BentoStore, StoredBento
from bentotool.build.media import CODE, WHEEL
from bentotool.build.wheel import open_wheel
from bentotool.errors import BuildError, UsageError
from bentotool.images.basefiles import find_python
from bentotool.images.baseimage import BaseImage, find_base
from bentotool.images.bytecode import bytecode_layer
from bentotool.images.config import image_config
from bentotool.images.environment import PythonLayer, python_layer
from bentotool.images.installed import site_packages
from bentotool.images.layer import PLAIN_LAYER, LayerEntry, write_layer
from bentotool.images.selfcheck import checks_itself, document_entries
from bentotool.imagespec import BuiltImage, ImageLayer, ImagePlan, ImageRequest
from bentotool.models.store import ModelStore
from bentotool.oci.descriptor import MANIFEST, Descriptor, Manifest, canonical_json
from bentotool.oci.layout import Layout

__all__ = ["BASE_DIGEST", "BASE_NAME", "OciBuilder", "assemble", "check_plan"]

IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"
_WHEEL_LIMIT = 256 << 20
_OTHER = "--builder buildkit (pip install bentotool-docker)"


class OciBuilder:
    """See :class:`~bentotool.imagespec.ImageBuilder`."""

    def build(self, request: ImageRequest) -> Sequence[BuiltImage]:
        """Make the images.

        Raises:
            BuildError: a plan asks for what only a builder that runs commands can do, the base has no such Python, or
                a package has no wheel for the platform.
            NotFoundError, VerificationError, RemoteError: the base, or part of the Bento, is missing or damaged.
        """
        for plan in request.plans:
            check_plan(plan)
        return [_build(request, plan) for plan in request.plans]


def check_plan(plan: ImagePlan) -> None:
    """Refuse what this builder cannot do.

    Raises:
        BuildError: naming it, and the builder that can.
    """
    demands = plan.demands
    if (demands and plan.platform == plan.locked_for) or any("built from source" not in each for each in demands):
        more = f" and {len(demands) - 1} more" if len(demands) > 1 else ""
        raise BuildError(
            f"the image of {plan.tag} needs {demands[0]}{more}, which the oci builder cannot give: it runs nothing",
            hint=f"make it with {_OTHER}{_instead(demands[0])}",
            details={"demands": list(demands)},
        )
    if plan.base_from == "default" and (plan.cuda_version or plan.distro not in ("", "debian")):
        wanted = f"CUDA {plan.cuda_version}" if plan.cuda_version else f"distribution {plan.distro}"
        raise BuildError(
            f"the image of {plan.tag} is to have {wanted}, and the oci builder knows no base image with it",
            hint=f"name one with --base, or make it with {_OTHER}",
        )


def _instead(demand: str) -> str:
    """What helps without another builder."""
    if demand.startswith("system package"):
        return ", or take it out of bentofile.yaml, build again, and name a base image that has it: --base"
    return ", or give its wheel to the build: python.wheels" if "built from source" in demand else ""


def _build(request: ImageRequest, plan: ImagePlan) -> BuiltImage:
    layout = request.layout
    bento = BentoStore(layout).get(f"{plan.name}@{plan.digest}")
    base = find_base(
        plan.base,
        plan.platform,
        layout,
        request.open_registry,
        offline=request.offline,
        jobs=request.jobs,
        progress=request.progress,
    )
    interpreter = find_python(layout, base, plan.python)
    packages = python_layer(
        layout,
        bento,
        plan,
        offline=request.offline,
        find_links=request.find_links,
        compress=request.compress,
        note=request.note,
    )
    bytecode = None
    if request.bytecode:
        bytecode = bytecode_layer(layout, bento, plan, packages.layer, compress=request.compress)
    return assemble(layout, bento, plan, base, interpreter, packages, bytecode)


def assemble(
    layout: Layout,
    bento: StoredBento,
    plan: ImagePlan,
    base: BaseImage,
    interpreter: str,
    packages: PythonLayer | None = None,
    bytecode: PythonLayer | None = None,
) -> BuiltImage:
    """Put the Bento's own layers over a base.

    Args:
        interpreter: path of the base's Python.
        packages: the Python environment; None where the base has it already.
        bytecode: of packages and runtime.
    """
    runtime = write_layer(layout, _runtime(layout, bento, plan, interpreter))
    code = bento.layer(CODE)
    ours = [
        (ImageLayer("runtime", *_key(runtime.descriptor), False), runtime.diff_id),
        *((ImageLayer("model", *_key(layer), True), layer.digest) for layer in _models(layout, bento)),
        (ImageLayer("code", *_key(code), True), code.digest),
    ]
    if checks_itself(plan):
        known = write_layer(layout, document_entries(layout, bento))
        ours.append((ImageLayer("signed", *_key(known.descriptor), False), known.diff_id))
    types = dict[str, str]()
    for place, kind, layer in ((1, "bytecode", bytecode), (0, "python", packages)):
        if layer is not None:
            made = layer.layer
            ours.insert(place, (ImageLayer(kind, *_key(made.descriptor), layer.cached), made.diff_id))
            types[made.descriptor.digest] = made.descriptor.media_type
    layers = [Descriptor(types.get(each.digest, PLAIN_LAYER), each.digest, each.size) for each, _ in ours]
    config = image_config(plan, base, [(layer.kind, diff_id) for layer, diff_id in ours], _created())
    return _store(layout, plan, base, config, layers, [each for each, _ in ours])


def _key(descriptor: Descriptor) -> tuple[str, int]:
    return descriptor.digest, descriptor.size


def _store(
    layout: Layout,
    plan: ImagePlan,
    base: BaseImage,
    config: dict[str, Any],
    layers: Sequence[Descriptor],
    ours: Sequence[ImageLayer],
) -> BuiltImage:
    stored = layout.put(canonical_json(config), IMAGE_CONFIG)
    annotations = {
        **{
            key: value for key, value in plan.labels.items() if key.startswith(("org.opencontainers.", "io.bentotool."))
        },
        **({BASE_NAME: base.public_name} if base.public_name else {}),
        BASE_DIGEST: base.digest,
    }
    manifest = Manifest(stored, (*base.layers, *layers), annotations=annotations)
    put = layout.put(manifest.to_bytes(), MANIFEST)
    system, architecture = plan.platform.split("/")
    descriptor = Descriptor(MANIFEST, put.digest, put.size, platform={"os": system, "architecture": architecture})
    of_base = [ImageLayer("base", layer.digest, layer.size, True) for layer in base.layers]
    size = stored.size + sum(layer.size for layer in manifest.layers)
    return BuiltImage(plan.platform, descriptor, base.reference, base.digest, size, (*of_base, *ours))


def _models(layout: Layout, bento: StoredBento) -> list[Descriptor]:
    store = ModelStore(layout)
    found: dict[str, Descriptor] = {}
    for model in bento.models:
        for layer in store.by_digest(model.name, model.digest).manifest.layers:
            found.setdefault(layer.digest, layer)
    return list(found.values())


def _runtime(layout: Layout, bento: StoredBento, plan: ImagePlan, interpreter: str) -> Iterator[LayerEntry]:
    """The runtime's files among the packages, and what makes their folder an environment of the base's Python."""
    site, root = site_packages(plan.prefix, plan.python), plan.prefix.strip("/")
    for name, content in open_wheel(layout.read(bento.layer(WHEEL).digest, _WHEEL_LIMIT)):
        yield LayerEntry(f"{site}/{name}", content)
    home = interpreter.rpartition("/")[0]
    seen = "true" if plan.conda.get("dependencies") else "false"  # conda's packages are those of the interpreter
    settings = f"home = {home}\ninclude-system-site-packages = {seen}\nversion = {plan.python}\n"
    yield LayerEntry(f"{root}/pyvenv.cfg", settings.encode())
    yield LayerEntry(f"{root}/bin/python", link=interpreter)
    for name in ("python3", f"python{plan.python}"):
        yield LayerEntry(f"{root}/bin/{name}", link="python")


def _created() -> int:
    """The date of the image, in seconds since the epoch: the one that is set, else 0, so that two builds are one."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "").strip() or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise UsageError(f"SOURCE_DATE_EPOCH={text[:40]!r} is not a number of seconds", hint="unset it or correct it")
    return int(text)
