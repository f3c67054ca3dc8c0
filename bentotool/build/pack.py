"""Writing a planned Bento into the store: layers, config, manifest, and its name last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from bentotool.build.collect import read_unchanged
from bentotool.build.media import API, ARTIFACT_TYPE, CODE, CONFIG, KIND, LOCK, TITLE, WHEEL, WHEELS, brief
from bentotool.build.packing import PackedWheel
from bentotool.build.plan import Plan
from bentotool.errors import BuildError, ConflictError, NotFoundError, VerificationError
from bentotool.oci.descriptor import MANIFEST, Descriptor, Manifest, canonical_json
from bentotool.oci.digest import CHUNK
from bentotool.oci.layout import Layout
from bentotool.oci.refs import Ref, RefStore
from bentotool.oci.tar import BLOCK, TRAILER, TarEntry, check_entry_names, tar_header

__all__ = ["code_files", "name_again", "pack", "write"]

_HOME = "home/bento"


def pack(plan: Plan, project: Path, layout: Layout, *, replace: bool = False) -> Ref:
    """Write a Bento and name it.

    Nothing is visible before the last step, and blobs that a failed build leaves behind are whole and nameless.

    Args:
        plan: settled.
        project: the folder that the plan's files lie in.
        replace: whether another Bento under this name and version is replaced.

    Raises:
        BuildError: a file changed since it was planned.
        ConflictError: the version stands for other content and ``replace`` is False.
        UnsafeError: two files would be one.
    """
    descriptor, size = write(plan, project, layout)
    return _name(RefStore(layout), plan, descriptor, size, replace)


def write(plan: Plan, project: Path, layout: Layout) -> tuple[Descriptor, int]:
    """Write the blobs of a Bento, and no name.

    Returns:
        the manifest's descriptor, and the size of all in bytes.

    Raises:
        BuildError, UnsafeError: as :func:`pack`.
    """
    layers = (
        _code_layer(plan, project, layout),
        layout.put(plan.lock.text.encode(), LOCK),
        layout.put(plan.wheel, WHEEL),
        layout.put(plan.api, API),
        *(_wheel_layer(wheel, layout) for wheel in plan.lock.wheels),
    )
    config = layout.put(canonical_json(plan.config()), CONFIG)
    annotations = {
        "io.bentotool.kind": "bento",
        "io.bentotool.name": plan.name,
        "org.opencontainers.image.title": plan.name,
        "org.opencontainers.image.version": plan.version,
    }
    manifest = Manifest(config, layers, artifact_type=ARTIFACT_TYPE, annotations=annotations).to_bytes()
    stored = layout.put(manifest, MANIFEST)
    facts = brief(plan.service, plan.python, plan.labels)
    descriptor = Descriptor(MANIFEST, stored.digest, stored.size, facts, ARTIFACT_TYPE)
    size = stored.size + config.size + sum(layer.size for layer in layers)
    return descriptor, size


def name_again(plan: Plan, layout: Layout, descriptor: Descriptor, size: int, *, replace: bool = False) -> Ref | None:
    """Name the Bento of an equal plan that was packed before; None where part of it is no longer stored.

    Raises:
        ConflictError: as :func:`pack`.
    """
    try:
        manifest = Manifest.from_bytes(layout.read(descriptor.digest))
    except (NotFoundError, VerificationError):
        return None
    parts = (manifest.config, *manifest.layers)
    if not all(layout.has_sized(part.digest, part.size) and layout.renew(part.digest) for part in parts):
        return None
    return _name(RefStore(layout), plan, descriptor, size, replace)


def _name(refs: RefStore, plan: Plan, descriptor: Descriptor, size: int, replace: bool) -> Ref:
    """Name the Bento. The same content built again after another becomes the newest, or ``latest`` would be stale."""
    standing = refs.list(KIND, plan.name)
    same = next((ref for ref in standing if ref.tag == plan.version and ref.digest == descriptor.digest), None)
    if same is not None and same == standing[0]:
        return same
    try:
        return refs.set(KIND, plan.name, plan.version, descriptor, size=size, replace=replace or same is not None)
    except ConflictError as error:
        hint = "choose another --version, or give --replace"
        raise ConflictError(error.message, hint=hint, details=error.details) from None


def code_files(plan: Plan) -> dict[str, bytes]:
    """The files of the code layer that are made and not read from the project, by their name in the layer."""
    made = {f"{_HOME}/app/{name}": content for name, content in plan.added.items()}
    made |= {f"{_HOME}/loaders/{name}.py": content for name, content in plan.loaders.items()}
    made[f"{_HOME}/bento.json"] = plan.bento_json()
    return made


def _code_layer(plan: Plan, project: Path, layout: Layout) -> Descriptor:
    contents: dict[str, tuple[int, Callable[[], Iterable[bytes]]]] = {}
    for file in plan.files:
        contents[f"{_HOME}/app/{file.name}"] = (file.size, lambda file=file: read_unchanged(project, file))  # type: ignore[misc]
    for name, content in code_files(plan).items():
        contents[name] = (len(content), lambda content=content: (content,))  # type: ignore[misc]
    names = sorted(contents, key=str.encode)
    check_entry_names(names)
    with layout.writer() as writer:
        for name in names:
            size, pieces = contents[name]
            for piece in _entry(TarEntry(name, size), pieces()):
                writer.write(piece)
        writer.write(TRAILER)
        digest, length = writer.commit()
    return Descriptor(CODE, digest, length)


def _wheel_layer(wheel: PackedWheel, layout: Layout) -> Descriptor:
    """A package that the Bento carries, as the file that installers take."""
    if not layout.has_sized(wheel.digest, wheel.size):
        with layout.writer() as writer, wheel.path.open("rb") as file:
            while piece := file.read(CHUNK):
                writer.write(piece)
            if writer.commit()[0] != wheel.digest:
                raise BuildError(f"{wheel.file} changed during the build", hint="build again")
    return Descriptor(WHEEL, wheel.digest, wheel.size, {TITLE: f"{WHEELS}{wheel.file}"})


def _entry(entry: TarEntry, pieces: Iterable[bytes]) -> Iterator[bytes]:
    yield tar_header(entry)
    yield from pieces
    yield bytes(-entry.size % BLOCK)
