"""The Python environment of an image, made from a Bento's lock for the target platform; nothing of it is executed.

uv installs the lock's wheels below a folder, for another platform and Python where need be, and what it leaves there
becomes a layer: the same bytes wherever that is done, as all that tells of this machine is left out or made anew.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bentotool.build.bentos import BentoStore, StoredBento
from bentotool.build.indexes import Indexes
from bentotool.build.requirements import LITESTAR_NEEDS
from bentotool.build.room import Room
from bentotool.build.target import PLATFORMS
from bentotool.build.uvrun import run_uv, write_settings
from bentotool.environments import with_wheels
from bentotool.errors import BuildError, VerificationError
from bentotool.images.installed import environment_entries
from bentotool.images.layer import GZIP_LAYER, PLAIN_LAYER, WrittenLayer, write_layer
from bentotool.imagespec import ImagePlan
from bentotool.models.store import link_file
from bentotool.oci.descriptor import Descriptor
from bentotool.oci.digest import sha256_bytes
from bentotool.oci.layout import Layout, storage_error

__all__ = ["PythonLayer", "kept_layer", "note_layer", "python_layer", "room_below"]

_FORMAT = 2
"""Part of the key under which layers are kept; raised when the same lock shall give another layer."""
_TIMEOUT_S = 1800.0
_ABSENT = re.compile(
    r"hashed? requirement|must have (their|a) hash|no wheels|building from source is disabled|no (compatible|matching)",
    re.I,
)


@dataclass(frozen=True)
class PythonLayer:
    """The layer, and whether it was there already."""

    layer: WrittenLayer
    cached: bool


def python_layer(
    layout: Layout,
    bento: StoredBento,
    plan: ImagePlan,
    *,
    offline: bool = False,
    find_links: Sequence[str] = (),
    compress: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> PythonLayer:
    """The layer with what the Bento's lock names, from the store where it was made before.

    Args:
        offline: packages come from uv's cache and ``find_links`` alone.
        find_links: folders of wheels.
        compress: gzip it.
        note: told one line for people where it has to be made, which may take minutes.

    Raises:
        BuildError: a package has no wheel for the platform, or the lock lacks one that is needed there.
        RemoteError: an index could not be reached.
        VerificationError: a wheel that the Bento carries is damaged.
    """
    text = BentoStore(layout).requirements(bento)
    room = Room(layout.root)
    parts = (_FORMAT, sha256_bytes(text.encode()), plan.platform, plan.python, plan.prefix, compress)
    name = room.key("image-python", *parts)
    if (kept := kept_layer(layout, room, name, compress=compress)) is not None:
        return PythonLayer(kept, cached=True)
    note(f"putting together the packages of {plan.tag} for {plan.platform}")
    with room_below(layout) as folder:
        installed = _install(folder, layout, bento, text, plan, offline, find_links)
        layer = write_layer(layout, environment_entries(installed, plan.prefix, plan.python), compress=compress)
    note_layer(room, name, layer)
    return PythonLayer(layer, cached=False)


@contextlib.contextmanager
def room_below(layout: Layout) -> Iterator[Path]:
    """A folder for as long as it is used, in the store: packages may be larger than memory, which ``/tmp`` often is.

    Where a killed command leaves it, ``bentotool store gc`` removes it.

    Raises:
        BentotoolError: the disk refuses.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix="image-", dir=layout.temporary(), ignore_cleanup_errors=True)
    except OSError as error:
        raise storage_error(error, layout.root) from None
    with made as folder:
        yield Path(folder)


def note_layer(room: Room, name: str, layer: WrittenLayer) -> None:
    """Keep in mind which layer was made from what a name stands for."""
    found = layer.descriptor
    room.write(name, {"digest": found.digest, "size": found.size, "diff_id": layer.diff_id, "unpacked": layer.unpacked})


def kept_layer(layout: Layout, room: Room, name: str, *, compress: bool) -> WrittenLayer | None:
    """The layer that :func:`note_layer` was told of, where the store still has it."""
    document = room.read(name)
    if document is None:
        return None
    room.used(name)
    digest, size, diff_id = document.get("digest"), document.get("size"), document.get("diff_id")
    unpacked = document.get("unpacked")
    if not isinstance(digest, str) or not isinstance(size, int) or not isinstance(diff_id, str):
        return None
    if not isinstance(unpacked, int) or not layout.has_sized(digest, size) or not layout.renew(digest):
        return None
    return WrittenLayer(Descriptor(GZIP_LAYER if compress else PLAIN_LAYER, digest, size), diff_id, unpacked)


def _install(
    folder: Path,
    layout: Layout,
    bento: StoredBento,
    text: str,
    plan: ImagePlan,
    offline: bool,
    find_links: Sequence[str],
) -> Path:
    """Install the lock's wheels below ``folder``, where they stay unopened."""
    installed, wheels = folder / "installed", folder / "wheels"
    for name, layer in bento.wheels.items():
        if not layout.verify_blob(layer.digest):
            raise VerificationError(f"{name} of Bento {bento.tag} is damaged", hint="build or pull it again")
        wheels.mkdir(exist_ok=True)
        link_file(layout.blob_path(layer.digest), wheels / name)
    (folder / "bento.lock").write_text(
        with_wheels(text, wheels) if bento.wheels else text, encoding="utf-8", newline="\n"
    )
    foreign = plan.platform != plan.locked_for
    write_settings(folder, Indexes(), {"litestar": LITESTAR_NEEDS} if foreign else {})
    arguments = ["pip", "install", "--prefix", str(installed), "--requirements", "bento.lock", "--require-hashes"]
    arguments += ["--python", sys.executable, "--python-version", plan.python]
    arguments += ["--python-platform", PLATFORMS[plan.platform], "--only-binary", ":all:", "--color", "never", "-q"]
    # A lock made for the platform is whole. For another one uv looks whether something is needed that it lacks.
    arguments += [] if foreign else ["--no-deps"]
    for link in find_links:
        arguments += ["--find-links", os.path.abspath(link)]
    arguments += ["--offline"] if offline else []
    if not any(line and line[0].isalnum() for line in text.splitlines()):  # uv takes no empty lock
        installed.mkdir()
        return installed
    try:
        run_uv(folder, arguments, offline=offline, timeout=_TIMEOUT_S, purpose="installing the Python packages")
    except BuildError as error:
        if "No space left on device" in error.message or "os error 112" in error.message:  # 112: of Windows
            raise storage_error(OSError(errno.ENOSPC, "no space"), layout.root) from None
        raise _explained(error, plan, offline) from None
    return installed


def _explained(error: BuildError, plan: ImagePlan, offline: bool) -> BuildError:
    said = error.message.removeprefix("requirements cannot be resolved: ").removeprefix(
        "requirements cannot be resolved offline: "
    )
    if offline and "cache" in said:
        hint = "run it once without --offline, or give a folder of wheels: --find-links DIR"
    elif "no usable wheels" in said:
        hint = "an image with packages built from source is made by another builder: --builder buildkit"
    elif plan.platform != plan.locked_for and _ABSENT.search(said):
        hint = f"its lock is for {plan.locked_for}: bentotool build --platform {plan.platform} makes another Bento"
    elif _ABSENT.search(said):
        hint = "an image with packages built from source is made by another builder: --builder buildkit"
    else:
        hint = error.hint or "see: bentotool containerize -v"
    return BuildError(f"the packages of {plan.tag} cannot be installed for {plan.platform}: {said}", hint=hint)
