"""What is attached to an image: the bills of materials of its Bento, and how the image itself was made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from bentotool.build.bentos import StoredBento
from bentotool.build.media import LOCK
from bentotool.errors import BentotoolError
from bentotool.imagespec import BuiltImage
from bentotool.oci.attached import MADE_HERE, Attachment, attach, referrers
from bentotool.oci.descriptor import canonical_json
from bentotool.oci.layout import Layout
from bentotool.trust.attached import FORMATS, LIMIT, PROVENANCE, is_document
from bentotool.trust.ci import run_of
from bentotool.trust.provenance import PREDICATE_TYPE, STATEMENT_TYPE

__all__ = ["BUILD_TYPE", "attach_image_documents", "image_provenance"]

BUILD_TYPE = "https://github.com/bentotool/bentotool/blob/main/docs/images.md#build-type-v1"
_KIND = "io.bentotool.kind"


def attach_image_documents(layout: Layout, bento: StoredBento, image: BuiltImage, builder: str) -> None:
    """Attach to an image the bills of materials that its Bento has, and its own provenance.

    Raises:
        BentotoolError: the store refuses.
    """
    for kind in FORMATS.values():
        for found in referrers(layout, bento.digest, kind):
            for layer in found.manifest.layers:
                try:
                    data = layout.read(layer.digest, LIMIT)
                except BentotoolError:  # damaged, which is for the Bento's reader to say
                    continue
                if is_document(kind, bento.digest, data):
                    copied = attach(layout, image.digest, kind, [Attachment(data, kind)], {_KIND: "sbom"})
                    if layout.remarked(found.digest) == MADE_HERE:
                        layout.remark(copied.digest, MADE_HERE)
    statement = canonical_json(image_provenance(bento, image, builder))
    made = attach(layout, image.digest, PROVENANCE, [Attachment(statement, PROVENANCE)], {_KIND: "provenance"})
    layout.remark(made.digest, MADE_HERE)


def image_provenance(bento: StoredBento, image: BuiltImage, builder: str) -> Mapping[str, Any]:
    """SLSA provenance of an image in an in-toto statement: a function of the image and of what ran the command."""
    from bentotool import __version__

    run = run_of(os.environ)
    lock = bento.layer(LOCK)
    materials = [
        {"name": "base", "digest": {"sha256": image.base_digest[7:]}},
        {"name": bento.tag, "digest": {"sha256": bento.digest[7:]}},
        {"name": "bento.lock", "digest": {"sha256": lock.digest[7:]}},
        *({"name": f"{each.name}:{each.version}", "digest": {"sha256": each.digest[7:]}} for each in bento.models),
    ]
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": bento.name, "digest": {"sha256": image.digest[7:]}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"bento": bento.tag, "platform": image.platform, "builder": builder},
                "resolvedDependencies": materials,
            },
            "runDetails": {"builder": {"id": run.builder, "version": {"bentotool": __version__}}},
        },
    }
