"""``bentotool model``: import, list, show, path, tag, delete."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from bentotool.cli.formats import human_size, human_time, parse_labels, parse_metadata, parse_size
from bentotool.cli.names import ModelReference, model_names
from bentotool.cli.registries import Exclude, Include, choice_of, open_registry, talks_to_registry, tls_for
from bentotool.cli.remote import check_listed, is_remote, list_remote, show_referrers, show_remote
from bentotool.cli.state import State, current
from bentotool.errors import BentotoolError

if TYPE_CHECKING:
    from bentotool.models.sources import Fetched
    from bentotool.models.store import StoredModel

_Source = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help="A file, a folder or an address; see Sources below."),
]
_Checksum = Annotated[str | None, typer.Option(metavar="DIGEST", help="sha256:HEX of a downloaded file or manifest.")]
_MaxSize = Annotated[
    str | None, typer.Option("--max-size", metavar="SIZE", help="Most to download, e.g. 20GB; default 200 GiB.")
]
_Listed = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]",
        help="Only this model's versions; or HOST/REPOSITORY, for its tags.",
        autocompletion=model_names,
    ),
]
_Link = Annotated[bool, typer.Option("--link", help="Share the files instead of copying them; they become read-only.")]


@talks_to_registry
def import_model(
    source: _Source,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name in the store; default: the file's.")] = None,
    version: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Version; default: made from the content.")
    ] = None,
    framework: Annotated[
        str | None, typer.Option(metavar="NAME", help="Framework; default: detected from the files.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="K=V", help="A label (repeatable).")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="A fact, as JSON or text (repeatable).")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Take a model that runs code when it is loaded.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace another model of this version.")] = False,
    checksum: _Checksum = None,
    max_size: _MaxSize = None,
    link: _Link = False,
    include: Include = None,
    exclude: Exclude = None,
) -> None:
    """Import a model into the store"""
    from bentotool.models.importing import check_given
    from bentotool.models.sources import DEFAULT_MAX_BYTES, fetch, import_fetched
    from bentotool.models.web import public_address

    state = current()
    given: dict[str, Any] = {"name": name, "version": version, "framework": framework}
    given |= {"labels": parse_labels(label or []), "metadata": parse_metadata(metadata or [])}
    check_given(state.plugins, **given)
    with (
        state.console.progress(None, f"fetch {public_address(source) if '://' in source else source}") as fetching,
        fetch(
            source,
            state.layout,
            state.plugins,
            max_bytes=DEFAULT_MAX_BYTES if max_size is None else parse_size(max_size, "--max-size"),
            checksum=checksum,
            open_registry=partial(open_registry, state),
            jobs=state.options.registry.jobs,
            tls=tls_for(state, urlsplit(source).hostname or source) if source.lower().startswith("https://") else None,
            choice=choice_of(include, exclude),
            advance=fetching.advance,
            expect=fetching.expect,
        ) as found,
        state.console.progress(found.size, f"import {name or found.model.name}") as progress,
    ):
        model = import_fetched(
            state.models,
            found,
            plugins=state.plugins,
            **given,
            trust=trust,
            replace=replace,
            link=link,
            advance=progress.advance,
        )
    _note(state, source, found, model, link)
    kind = " ".join(dict.fromkeys((model.details.framework, model.details.format)))
    human = f"imported {model.tag} ({kind}, {human_size(model.size)})\n{model.digest}"
    state.console.result({**model.to_dict(), "left_out": list(found.left_out)}, human)


def _sources(state: State) -> tuple[str, list[tuple[str, str]]]:
    """What SOURCE may be, with the plugins that are installed."""
    rows = [
        ("PATH", "a file or folder of this machine"),
        ("https://HOST/FILE", "one file; the same command goes on with a broken download"),
        ("oci://HOST/REPOSITORY[:TAG]", "a model in a registry: ours, ModelPack, KitOps or Docker"),
        ("oci:LAYOUT[:NAME]", "a model in an OCI image layout, a folder or a tar"),
    ]
    try:
        declared = {each.name: each for each in state.plugins.sources().values()}
    except BentotoolError as error:
        return f"Sources (those of plugins are not known: {error.message})", rows
    for each in declared.values():
        first, *others = each.forms or tuple(f"{scheme}:" for scheme in each.schemes)
        rows += [(first, each.summary), *((other, "") for other in others)]
    return "Sources (plugins add more; bentotool plugin list)", rows


import_model.more_help = _sources  # type: ignore[attr-defined]


def _note(state: State, source: str, found: Fetched, model: StoredModel, link: bool) -> None:
    """What the result does not say: whether files are shared, and what was not taken."""
    if link and any(state.layout.linked.knows(file.sha256) for file in model.files):
        state.console.note(
            f"{source} and the store now share the same files, which are read-only: "
            "editing one in place would damage the store, and is noticed when the model is served, pushed or verified"
        )
    elif link:
        state.console.note("nothing is linked: the store has its own copy of every file")
    if found.left_out:
        shown = ", ".join(found.left_out[:10]) + (", …" if len(found.left_out) > 10 else "")
        state.console.note(f"left out, as caches or as what may keep secrets: {shown}")


@talks_to_registry
def list_models(
    name: _Listed = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="KEY=VALUE",
            help="label=K=V, label=K, framework=NAME, safety=data|program|pickle (repeatable; all must fit).",
        ),
    ] = None,
) -> None:
    """List the models in the store, or the tags of a repository"""
    from bentotool.cli.filters import labels_of, model_filter

    state = current()
    if name is not None and is_remote(name):
        list_remote(state, name, filters)
        return
    check_listed(name)
    wanted = model_filter(filters or [])
    refs = [ref for ref in state.models.list(name) if wanted(ref)]
    document = [
        {
            "name": ref.name,
            "version": ref.tag,
            "tag": ref.ref,
            "digest": ref.digest,
            "size": ref.size,
            "created": ref.created,
            "framework": ref.descriptor.annotations.get("io.bentotool.framework", ""),
            "safety": ref.descriptor.annotations.get("io.bentotool.safety", ""),
            "labels": labels_of(ref),
        }
        for ref in refs
    ]
    for path in state.models.refs.damaged:
        state.console.note(f"warning: {path} is damaged and left out")

    def human() -> None:
        if not refs and filters:
            state.console.note("no model fits the filter")
            return
        if not refs and name is not None:
            state.console.note(f"no model {name}; see what there is with: bentotool model list")
            return
        if not refs:
            state.console.note("no models yet; add one with: bentotool model import FILE")
            return
        short = state.console.digest
        rows = [
            (
                *(item["tag"], item["framework"], item["safety"]),
                *(human_size(ref.size), human_time(ref.created), short(ref.digest)),
            )
            for item, ref in zip(document, refs, strict=True)
        ]
        state.console.table(("tag", "framework", "safety", "size", "created", "digest"), rows)

    state.console.result(document, human)


def _text(value: Any) -> str:
    """A fact as ``--metadata`` takes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _shape(spec: dict[str, Any]) -> str:
    axes = ", ".join("?" if axis is None else str(axis) for axis in spec.get("shape") or [])
    return f"{spec.get('name')}: {spec.get('dtype')}[{axes}]"


@talks_to_registry
def show_model(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REF",
            help="name[:version] in the store; or HOST/REPOSITORY[:TAG], without a pull.",
            autocompletion=model_names,
        ),
    ],
) -> None:
    """Show one model, or one artifact of a registry"""
    state = current()
    if is_remote(reference):
        show_remote(state, reference)
        return
    from bentotool.oci.attached import notes_of

    model = state.models.get(reference)
    attached = notes_of(state.layout, [model.digest])

    def human() -> None:
        details = model.details
        state.console.fields(
            {
                "tag": model.tag,
                "digest": model.digest,
                "size": human_size(model.size),
                "created": human_time(model.created),
                "framework": " ".join(dict.fromkeys((details.framework, details.format))),
                "safety": details.safety,
                "inputs": "; ".join(_shape(spec) for spec in details.signature.get("inputs", [])),
                "outputs": "; ".join(_shape(spec) for spec in details.signature.get("outputs", [])),
                "requires": ", ".join(details.requirements),
                "labels": ", ".join(f"{key}={value}" for key, value in details.labels.items()),
                "metadata": ", ".join(f"{key}={_text(value)}" for key, value in details.metadata.items()),
            }
        )
        rows = [(file.path, human_size(file.size), state.console.digest(file.sha256)) for file in model.files]
        state.console.line()
        state.console.table(("file", "size", "digest"), rows)
        show_referrers(state, attached)

    state.console.result({**model.to_dict(), "referrers": attached}, human)


def path_model(reference: ModelReference) -> None:
    """Print a folder with the model's files"""
    state = current()
    model = state.models.get(reference)
    path = state.models.materialise(model)
    state.console.result({**_brief(model), "path": str(path)}, str(path))


def verify_model(reference: ModelReference) -> None:
    """Check every byte of one model"""
    state = current()
    model = state.models.get(reference)
    state.models.check_linked(model)
    with state.console.progress(model.size, f"verify {model.tag}") as progress:
        state.models.verify(model, progress.advance)
    state.console.result({**_brief(model), "verified": True}, f"{model.tag} is whole: {human_size(model.size)}")


def tag_model(
    reference: ModelReference,
    new: Annotated[str, typer.Argument(metavar="TAG", help="The new version, or name:version.")],
    replace: Annotated[bool, typer.Option("--replace", help="Replace other content under that tag.")] = False,
) -> None:
    """Give a model another tag"""
    state = current()
    model = state.models.tag(reference, new, replace=replace)
    state.console.result(_brief(model), f"{model.tag} is {model.digest}")


def delete_model(
    references: Annotated[
        list[str],
        typer.Argument(metavar="REF...", help="A bare name stands for all its versions.", autocompletion=model_names),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete models from the store"""
    from bentotool.cli.deleting import delete_references

    state = current()
    delete_references(state, references, state.models.refs, "models", yes=yes)


def _brief(model: Any) -> dict[str, Any]:
    return {key: getattr(model, key) for key in ("name", "version", "tag", "digest", "size")}
