"""The file view of a model: a second manifest over the very blobs that the store holds, one layer for each file.

The store keeps raw files, while a model's own manifest lists tar layers that exist only when somebody reads them. So
that ``oras pull``, ``skopeo copy`` and others get the original files straight from the store's folder, each model has a
small manifest in ModelPack's raw form beside it: its layers are the files, ``org.opencontainers.image.title`` their
names. It is a function of the model's manifest and config alone. No byte of a file lies twice. An annotation names the
model, and a collection keeps the view as long as that; a ``subject`` would say the same, but makes ``oras cp`` send the
subject as well, whose layers are not there.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from bentotool.errors import BentotoolError, VerificationError
from bentotool.oci.descriptor import MANIFEST, MANIFEST_LIMIT, Descriptor, Manifest, canonical_json, parse_json_object
from bentotool.oci.digest import check_digest, sha256_bytes
from bentotool.oci.layers import LayerFile, layer_files
from bentotool.oci.layout import Layout
from bentotool.oci.reach import FILES_OF
from bentotool.paths import write_atomic

__all__ = ["FileViews", "file_view"]

_PREFIX = "io.bentotool.model.prefix"
_MAX_FILES = 1000
_FORM = 1
"""Goes up when views are written in another form, so that those remembered are derived again."""
_TAR, _RAW = ".tar", ".raw"


def file_view(layout: Layout, digest: str) -> tuple[bytes, bytes] | None:
    """Manifest and config of the file view of an artifact.

    Args:
        digest: of its own manifest.

    Returns:
        None when it has no such view: a layer is not virtual, or it has more files than a manifest may list.

    Raises:
        BentotoolError: when its manifest or config is missing or damaged.
    """
    manifest = Manifest.from_bytes(layout.read(digest))
    prefix = manifest.annotations.get(_PREFIX, "")
    layers: list[Descriptor] = []
    for layer in manifest.layers:
        files = layer_files(layer)
        if files is None or not layer.media_type.endswith(_TAR):
            return None
        kind = layer.media_type.removesuffix(_TAR) + _RAW
        layers += [_layer(kind, file, prefix) for file in files]
    if not 0 < len(layers) <= _MAX_FILES:
        return None
    config = parse_json_object(layout.read(manifest.config.digest), "the config of the model")
    config["modelfs"] = {"type": "layers", "diffIds": [layer.digest for layer in layers]}
    config_data = canonical_json(config)
    view = Manifest(
        config=Descriptor(manifest.config.media_type, sha256_bytes(config_data), len(config_data)),
        layers=tuple(layers),
        artifact_type=manifest.artifact_type,
        annotations={FILES_OF: digest, **{key: text for key, text in manifest.annotations.items() if key != _PREFIX}},
    ).to_bytes()
    return (view, config_data) if len(view) <= MANIFEST_LIMIT else None


def _layer(media_type: str, file: LayerFile, prefix: str) -> Descriptor:
    name = file.path.removeprefix(f"{prefix}/")
    about = {
        "name": name.rpartition("/")[2], "mode": 0o644, "uid": 0, "gid": 0, "size": file.size,
        "mtime": "1970-01-01T00:00:00Z", "typeflag": ord("0"),
    }  # fmt: skip
    notes = {
        "org.cncf.model.filepath": name,
        "org.cncf.model.file.metadata+json": canonical_json(about).decode(),
        "org.opencontainers.image.title": name,
    }
    return Descriptor(media_type, file.sha256, file.size, notes)


class FileViews:
    """The file views of a layout, made where they are missing.

    Which manifest has which view is remembered in a file; without it they are derived again.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._path: Path = layout.root / "refs" / ".views.json"
        self._known: dict[str, Any] | None = None
        self._changed = False

    def _load(self) -> dict[str, Any]:
        if self._known is None:
            try:
                document = json.loads(self._path.read_bytes())
            except (OSError, ValueError, RecursionError):
                document = None
            current = isinstance(document, dict) and document.get("form") == _FORM
            self._known = document["views"] if current and isinstance(document.get("views"), dict) else {}
        return self._known

    def of(self, digest: str, *, renew: bool = False) -> Descriptor | None:
        """The view of an artifact, stored; None when it can have none.

        Args:
            renew: say that the view is about to be used, as for any blob that gets a name.
        """
        known = self._load()
        with contextlib.suppress(KeyError, TypeError, ValueError, VerificationError):
            if known[digest] is None:
                return None
            view, size = known[digest]
            described = Descriptor(MANIFEST, check_digest(view), int(size))
            if self._layout.renew(view) if renew else self._layout.has(view):
                return described
        try:
            made = self._make(digest)
        except BentotoolError:  # said by those who use or check the model; other models are listed all the same
            return None
        known[digest] = (made.digest, made.size) if made else None
        self._changed = True
        return made

    def _make(self, digest: str) -> Descriptor | None:
        view = file_view(self._layout, digest)
        if view is None:
            return None
        manifest, config = view
        self._layout.put(config, Manifest.from_bytes(manifest).config.media_type)
        return self._layout.put(manifest, MANIFEST)

    def save(self, present: set[str]) -> None:
        """Remember what was derived.

        Args:
            present: the artifacts that still have a name; others are forgotten.
        """
        if self._changed:
            kept = {digest: view for digest, view in self._load().items() if digest in present}
            with contextlib.suppress(OSError):
                write_atomic(self._path, canonical_json({"form": _FORM, "views": kept}))
            self._changed = False
