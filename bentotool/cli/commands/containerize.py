"""``bentotool containerize``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bentotool.cli.formats import human_size
from bentotool.cli.names import bento_names
from bentotool.cli.registries import open_registry, talks_to_registry, transfer_progress
from bentotool.cli.state import State, current

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bentotool.build.bentos import StoredBento
    from bentotool.imagespec import BuiltImage, ImagePlan

__all__ = ["containerize"]


Tags = Annotated[
    list[str] | None,
    typer.Option("-t", "--tag", metavar="IMAGE", help="[HOST[:PORT]/]REPOSITORY[:TAG]; may be repeated."),
]
Builder = Annotated[str | None, typer.Option(metavar="oci|buildkit", help="Default: oci where nothing has to be run.")]
Platforms = Annotated[
    list[str] | None,
    typer.Option(metavar="OS/ARCH", help="linux/amd64, linux/arm64; may be repeated. Default: the lock's."),
]
Base = Annotated[
    str | None,
    typer.Option(metavar="IMAGE", help="Base image: HOST/REPOSITORY:TAG, oci:FOLDER[:TAG] or FILE.tar."),
]
Push = Annotated[bool, typer.Option("--push", help="Push it to each --tag, with the Bento and its models.")]
Output = Annotated[
    str | None, typer.Option(metavar="oci:DIR|FILE.tar", help="Write an OCI layout, or a file for docker load.")
]
Load = Annotated[bool, typer.Option("--load", help="Load it into the engine of this machine.")]
Engine = Annotated[
    str | None, typer.Option(metavar="PROGRAM", help="docker, podman, nerdctl or buildah. Default: what is there.")
]
Bundle = Annotated[
    str | None,
    typer.Option("--ca-bundle", metavar="FILE", help="Certificates (PEM) for buildkit's steps; none stays inside."),
]
FindLinks = Annotated[
    list[Path] | None, typer.Option("--find-links", metavar="DIR", help="Folder of wheels; may be repeated.")
]
Verify = Annotated[bool, typer.Option("--verify", help="The server checks every byte of the Bento when it starts.")]
Print = Annotated[bool, typer.Option("--print-dockerfile", help="Print the Dockerfile of buildkit and make nothing.")]
Context = Annotated[
    Path | None,
    typer.Option("--context", metavar="DIR", help="Write that Dockerfile and all it needs into a new folder."),
]


@talks_to_registry
def containerize(
    bento: Annotated[str, typer.Argument(metavar="BENTO", help="NAME[:VERSION].", autocompletion=bento_names)],
    *,
    tag: Tags = None,
    builder: Builder = None,
    platform: Platforms = None,
    base: Base = None,
    push: Push = False,
    output: Output = None,
    load: Load = False,
    engine: Engine = None,
    ca_bundle: Bundle = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use no network but to push.")] = False,
    find_links: FindLinks = None,
    compress: Annotated[
        bool, typer.Option("--compress/--no-compress", help="Gzip the layer of Python packages.")
    ] = True,
    bytecode: Annotated[
        bool, typer.Option("--bytecode", help="Compile packages beforehand, for a faster start.")
    ] = False,
    verify: Verify = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and make nothing.")] = False,
    print_dockerfile: Print = False,
    context: Context = None,
) -> None:
    """Make a container image of a Bento"""
    from bentotool.build.bentos import BentoStore
    from bentotool.images.containerize import build_images, choose_builder
    from bentotool.images.loading import engine_program
    from bentotool.images.outputs import check_output
    from bentotool.imagespec import ImageRequest

    state = current()
    found = BentoStore(state.layout).get(bento)
    names, target = _names(tag, found, push), check_output(output) if output is not None else None
    _check_folders(find_links or ())
    plans = _plans(state, found, platform, base, verify=verify, dockerfile=print_dockerfile or context is not None)
    if print_dockerfile or context is not None:
        _dockerfile(state, found, plans[0], offline, find_links or (), context)
        return
    program = engine_program(engine) if load else None
    decl = choose_builder(builder, plans, state.plugins)
    if dry_run:
        _dry_run(state, found, plans, decl.name)
        return
    request = ImageRequest(
        plans, state.layout, lambda host: open_registry(state, host), transfer_progress(state),
        offline=offline, find_links=tuple(map(str, find_links or ())), compress=compress,
        bytecode=bytecode, verify=verify, jobs=state.options.registry.jobs, note=state.console.note,
        options={name: value for name, value in (("engine", engine), ("ca_bundle", ca_bundle)) if value},
    )  # fmt: skip
    images = build_images(state.layout, found, request, decl, state.plugins)
    document = _document(found, images, decl.name, names)
    if target is not None:
        document |= _write(state, found, images, names, target)
    if program is not None:
        document |= _load(state, found, images, names, program)
    if push:
        document |= _push(state, found, images, names)
    state.console.result(document, lambda: _show(state, document))


def _plans(
    state: State, bento: StoredBento, platforms: list[str] | None, base: str | None, *, verify: bool, dockerfile: bool
) -> tuple[ImagePlan, ...]:
    from bentotool.errors import UsageError
    from bentotool.images.plan import check_platforms, plan_image
    from bentotool.images.selfcheck import checked_plan

    if verify and dockerfile:
        raise UsageError("a Dockerfile of one's own makes no image that checks itself", hint="leave --verify out")
    wanted = check_platforms(platforms or (), bento.platform)
    plans = (plan_image(state.layout, bento, each, base=base) for each in wanted)
    return tuple(checked_plan(state.layout, bento, plan) if verify else plan for plan in plans)


def _names(tags: list[str] | None, bento: StoredBento, push: bool) -> tuple[str, ...]:
    """The references that the image gets, each whole.

    Raises:
        UsageError: one is no reference, or there is none to push to.
    """
    from bentotool.errors import UsageError
    from bentotool.oci.reference import RemoteReference

    if push and not tags:
        raise UsageError("--push needs a name to push to", hint="-t HOST[:PORT]/REPOSITORY[:TAG]")
    found = [RemoteReference.parse(name) for name in tags or [bento.tag]]
    for each in found:
        if each.digest:
            raise UsageError(f"{each}: an image is given a tag, not a digest", hint="-t HOST/REPOSITORY[:TAG]")
    return tuple(str(each.with_tag(each.tag or "latest")) for each in found)


def _check_folders(folders: Sequence[Path]) -> None:
    """Refuse a folder of wheels that is not there, which uv passes over where its cache has all.

    Raises:
        NotFoundError: naming it.
    """
    from bentotool.errors import NotFoundError

    for folder in folders:
        if not folder.is_dir():
            raise NotFoundError(f"no folder {str(folder)!r} with wheels", hint="--find-links DIR")


def _facts(bento: StoredBento) -> dict[str, Any]:
    return {"name": bento.name, "version": bento.version, "tag": bento.tag, "bento": bento.digest}


def _document(bento: StoredBento, images: Sequence[BuiltImage], builder: str, names: tuple[str, ...]) -> dict[str, Any]:
    from bentotool.oci.descriptor import Index
    from bentotool.oci.digest import sha256_bytes

    several = Index(tuple(image.descriptor for image in images)).to_bytes()
    return {
        **_facts(bento),
        "digest": images[0].digest if len(images) == 1 else sha256_bytes(several),
        "size": sum(image.size for image in images),
        "builder": builder,
        "images": [image.to_dict() for image in images],
        "references": list(names),
    }


def _write(
    state: State, bento: StoredBento, images: Sequence[BuiltImage], names: Sequence[str], target: tuple[str, Path]
) -> dict[str, Any]:
    from bentotool.images.outputs import Images, write_archive, write_folder

    written = Images(state.layout, images, [(model.name, model.digest) for model in bento.models], names)
    kind, path = target
    with state.console.progress(written.size, f"write {path.name}") as progress:
        if kind == "folder":
            write_folder(written, path, progress.advance)
        else:
            write_archive(written, path, progress.advance)
    return {"output": str(path)}


def _load(
    state: State, bento: StoredBento, images: Sequence[BuiltImage], names: Sequence[str], program: str
) -> dict[str, Any]:
    from bentotool.images.loading import load_images
    from bentotool.images.outputs import Images

    loaded = Images(state.layout, images, [(model.name, model.digest) for model in bento.models], names)
    with state.console.progress(loaded.size, f"load into {program}") as progress:
        return {"loaded": load_images(loaded, program, progress.advance)}


def _dockerfile(
    state: State, bento: StoredBento, plan: ImagePlan, offline: bool, links: Sequence[Path], folder: Path | None
) -> None:
    from bentotool.images.context import whole_dockerfile, write_whole_context

    text = whole_dockerfile(bento, plan, offline=offline, find_links=bool(links))
    document = {**_facts(bento), "platform": plan.platform, "dockerfile": text}
    if folder is None:
        state.console.result(document, lambda: state.console.line(text.rstrip("\n")))
        return
    write_whole_context(folder, state.layout, bento, plan, text, tuple(map(str, links)))

    def show() -> None:
        state.console.line(f"wrote {folder}")
        state.console.note(f"Next: docker build -t {bento.tag} {folder}")

    state.console.result({**document, "context": str(folder)}, show)


def _push(state: State, bento: StoredBento, images: Sequence[BuiltImage], names: Sequence[str]) -> dict[str, Any]:
    """Push these images, whatever another command makes of the same Bento meanwhile.

    The digest of several is then that of the index which the registry has.

    Raises:
        BentotoolError: one cannot be pushed; its details say which were.
    """
    from bentotool.cli.delivery import push_ref
    from bentotool.errors import BentotoolError
    from bentotool.images.containerize import image_index
    from bentotool.oci.digest import sha256_bytes
    from bentotool.oci.refs import RefStore

    ref = RefStore(state.layout).get("bentos", bento.tag)
    index = sha256_bytes(image_index(state.layout, bento, images).to_bytes())
    done: list[dict[str, Any]] = []
    for name in names:
        try:
            done.append(push_ref(state, ref, name, index=index).to_dict("sent"))
        except BentotoolError as error:
            if done:
                error.details["pushed"] = done
                _show_pushed(state, done)
            raise
    several = {"digest": index} if len(images) > 1 else {}
    return {**several, "index": index, "pushed": done}


def _dry_run(state: State, bento: StoredBento, plans: Sequence[ImagePlan], builder: str) -> None:
    """Show what would be made.

    Raises:
        BuildError: the builder would refuse it, or there is no base image for what the Bento asks for.
    """
    from dataclasses import replace

    from bentotool.images.containerize import BUILT_IN
    from bentotool.images.oci_builder import check_plan
    from bentotool.images.recipe import base_of

    for plan in plans if builder == BUILT_IN.name else ():
        check_plan(plan)
    shown = [replace(plan, base=base_of(plan)) for plan in plans]
    document = {**_facts(bento), "builder": builder, "plans": [plan.to_dict() for plan in shown]}
    state.console.result(document, lambda: _show_plans(state, shown, builder))


def _show_plans(state: State, plans: Sequence[ImagePlan], builder: str) -> None:
    for plan in plans:
        state.console.line(f"{plan.tag} for {plan.platform}, by {builder}")
        state.console.fields(
            {
                "base": f"{plan.base} ({plan.base_from})",
                "python": plan.python,
                "user": plan.user,
                "entrypoint": " ".join(plan.entrypoint),
                "port": str(plan.port),
                "needs": ", ".join(plan.demands),
            }
        )
        for layer in plan.layers:
            state.console.line(f"  layer  {layer.kind:<8} {layer.title}")
        for name, value in plan.env.items():
            state.console.line(f"  env    {name}={value}")


def _show(state: State, document: dict[str, Any]) -> None:
    console = state.console
    console.line(f"Made {document['references'][0].removeprefix('docker.io/library/')}")
    console.line(str(document["digest"]))
    for image in document["images"]:
        ours = [layer for layer in image["layers"] if layer["kind"] != "base"]
        added = sum(layer["size"] for layer in ours)
        console.note(
            f"{image['platform']}: {human_size(image['size'])}, {human_size(added)} of it above {image['base']}"
        )
        for layer in ours:
            kept = "  kept" if layer["cached"] else ""
            console.detail(
                f"  {layer['kind']:<8} {human_size(layer['size']):>9}  {console.digest(layer['digest'])}{kept}"
            )
    if "output" in document:
        console.line(f"wrote {document['output']}")
    if "loaded" in document:
        console.line(f"loaded into {document['loaded']}")
    _show_pushed(state, document.get("pushed", ()))
    if not document.keys() & {"pushed", "output", "loaded"}:
        placed = not document["references"][0].startswith("docker.io/library/")
        push = "add --push" if placed else f"bentotool push {document['tag']} HOST/REPOSITORY, or add"
        console.note(f"Next: {push}{',' if placed else ''} --load or --output FILE.tar")


def _show_pushed(state: State, pushed: Sequence[dict[str, Any]]) -> None:
    for each in pushed:
        state.console.line(f"pushed {each['remote']}@{each['index']}, {human_size(each['sent'])} sent")
