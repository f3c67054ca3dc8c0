"""The options of deployment targets on the command line, and the image that a deployment needs."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Collection, Generator, Mapping
from typing import TYPE_CHECKING, Any

from typer.core import TyperOption

from bentotool.cli.lazy import WORDS
from bentotool.cli.options import PLACE_PANEL, TARGET_PANEL, GlobalOptions, registry_params
from bentotool.cli.state import State, current

if TYPE_CHECKING:
    from bentotool.build.bentos import StoredBento
    from bentotool.deploy.records import Revision
    from bentotool.targetspec import DeployBento, ImageArchive, ImageMaker, OptionSpec, Plan

__all__ = [
    "ShownProgress",
    "deployed_again",
    "describe_targets",
    "image_maker",
    "of_stored",
    "place_params",
    "placed_registry_params",
    "show_differences",
    "show_plan",
    "target_params",
]

_OWN = frozenset(
    {"name", "set", "env", "dry-run", "diff", "wait", "no-wait", "base", "builder", "offline", "help", "jobs", "output"}
)
_TOLD_S = 1.0
_MARKS = {"create": "+", "replace": "~", "keep": "~", "delete": "-"}


def target_params(options: GlobalOptions) -> list[TyperOption]:
    """Registry options, and one option for each that an installed target declares."""
    made = registry_params(options)
    taken = {word for param in made for word in (*param.opts, *param.secondary_opts)}
    return [*made, *(_param(options, who) for name, who in _declared().items() if f"--{name}" not in taken)]


def place_params(options: GlobalOptions) -> list[TyperOption]:
    """One option for each by which an installed target is told where deployments are."""
    return [_param(options, who, PLACE_PANEL) for who in _declared(places=True).values()]


def placed_registry_params(options: GlobalOptions) -> list[TyperOption]:
    """Those, and the registry options."""
    return [*place_params(options), *registry_params(options)]


def _declared(*, places: bool = False) -> dict[str, list[tuple[str, OptionSpec]]]:
    """The options by name, each with the targets that declare it."""
    found: dict[str, list[tuple[str, OptionSpec]]] = {}
    for name, decl in sorted(current().plugins.targets().items()):
        for option in decl.options:
            if option.name not in _OWN and (option.place or not places):
                found.setdefault(option.name, []).append((name, option))
    return found


class _TargetOption(TyperOption):
    """In the help of a target as that one declares it and where, and in no other help."""

    declared: Mapping[str, OptionSpec]
    """By target."""

    def help_place(self, ctx: Any) -> int:
        """What the help's order goes by: what counts is how the target itself has them."""
        decl = current().plugins.targets().get(_asked_for(ctx))
        names = [option.name for option in decl.options] if decl is not None else []
        return 1 + names.index(str(self.opts[0])[2:]) if str(self.opts[0])[2:] in names else 0

    def get_help_record(self, ctx: Any) -> tuple[str, str] | None:
        if self.rich_help_panel == PLACE_PANEL:
            asked = _asked_for(ctx)
            whose = [asked] if asked in self.declared else [] if asked else sorted(self.declared)
            summary = next(iter(self.declared.values())).summary.partition(";")[0]
            self.help = f"{summary} ({', '.join(whose)})."
            return super().get_help_record(ctx) if whose else None
        option = self.declared.get(_asked_for(ctx))
        if option is None:
            return None
        usual = f"--{option.name}" if option.default is True else option.default
        default = "" if option.default in (None, (), False) else f"  [default: {usual}]"
        needs = f"  [with {', '.join('--' + each.replace('=', ' ') for each in option.needs)}]" if option.needs else ""
        self.help = f"{option.summary}.{' May be repeated.' if option.repeated else ''}{default}{needs}"
        self.metavar = None if option.kind == "flag" else _metavar(option)
        return super().get_help_record(ctx)


def _asked_for(ctx: Any) -> str:
    """The target whose help is asked for; empty where none is named."""
    found, _, _ = ctx.command.make_parser(ctx).parse_args(list(ctx.meta.get(WORDS, ())))
    return str(found.get("target") or "")


def _param(options: GlobalOptions, who: list[tuple[str, OptionSpec]], panel: str = TARGET_PANEL) -> TyperOption:
    """One option, which may be that of several targets; what it takes is judged by the target that is chosen."""
    option = who[0][1]

    def remember(_ctx: Any, _param: Any, value: Any) -> None:
        if option.kind == "flag":
            options.target += [] if value is None else [f"{option.name}={'true' if value else 'false'}"]
        else:
            options.target += [f"{option.name}={each}" for each in value or ()]

    flag = option.kind == "flag"
    settings: dict[str, Any] = (
        {"is_flag": True} if flag else {"multiple": True, "metavar": _metavar(option), "type": str}
    )
    made = _TargetOption(
        param_decls=[f"--{option.name}/--no-{option.name}" if flag else f"--{option.name}"],
        help=f"{option.summary}.",
        callback=remember,
        expose_value=False,
        rich_help_panel=panel,
        default=None,
        **settings,
    )
    made.declared = dict(who)
    return made


def _metavar(option: OptionSpec) -> str:
    return option.metavar or ("|".join(option.choices) if option.choices else option.kind.upper())


def describe_targets(state: State) -> tuple[str, list[tuple[str, str]]]:
    """The installed targets, for the end of the help."""
    rows = [(name, decl.summary) for name, decl in sorted(state.plugins.targets().items())]
    return "Targets (deploy TARGET --help has the options of one)", rows or [
        ("none", "targets come with plugins, such as bentotool-docker")
    ]


def image_maker(
    state: State, bento: StoredBento, *, base: str | None, builder: str | None, offline: bool, verify: bool = False
) -> ImageMaker:
    """Makes the image of a Bento, as ``containerize`` does; see :class:`bentotool.targetspec.DeployBento`."""

    def make(platform: str) -> ImageArchive:
        from bentotool.cli.publishing import make_images
        from bentotool.images.outputs import Images, archive_pieces
        from bentotool.oci.reference import RemoteReference
        from bentotool.targetspec import ImageArchive

        images = make_images(state, bento, (platform,), base=base, builder=builder, offline=offline, verify=verify)
        name = str(RemoteReference.parse(bento.tag))
        written = Images(state.layout, images, [(model.name, model.digest) for model in bento.models], [name])

        def pieces(present: Collection[str]) -> Generator[bytes, None, None]:
            left_out = sum(written.parts[digest].size for digest in written.blobs_of(present))
            with state.console.progress(written.size - left_out, f"load the image of {bento.tag}") as progress:
                yield from archive_pieces(written, progress.advance, present)

        return ImageArchive(tuple(diff_id for diff_id, _ in written.layers), pieces, written.ids)

    return make


def of_stored(
    state: State, bento: StoredBento, *, base: str | None, builder: str | None, offline: bool, verify: bool = False
) -> DeployBento:
    """A Bento of the store as a target is given it.

    Args:
        base, builder, offline: how its image is made.
        verify: its servers check every byte when they start. A policy may ask for that too.
    """
    from bentotool.build.bentos import BentoStore
    from bentotool.cli.publishing import Publisher
    from bentotool.deploy.graph import models_of, packages_of, services_of
    from bentotool.targetspec import DeployBento
    from bentotool.trust.enforcing import in_force

    verify = verify or any(each.policy.runtime_check for each in in_force())
    registry = Publisher(state, bento, base=base, builder=builder, offline=offline, verify=verify)
    return DeployBento(
        bento.name, bento.version, bento.digest, bento.service, bento.python, bento.platform,
        make_image=image_maker(state, bento, base=base, builder=builder, offline=offline, verify=verify),
        anew=bool(base or builder or verify),
        services=services_of(bento),
        models=models_of(bento, registry.volumes()),
        packages=packages_of(BentoStore(state.layout).requirements(bento)),
        registry=registry,
    )  # fmt: skip


def deployed_again(
    state: State, revision: Revision, *, base: str | None, builder: str | None, offline: bool
) -> DeployBento:
    """The Bento of a revision: from the store while that has it, else by name alone, for a target that still can."""
    from bentotool.build.bentos import BentoStore
    from bentotool.errors import NotFoundError
    from bentotool.targetspec import DeployBento

    name, _, version = revision.deployment.tag.partition(":")
    digest = revision.deployment.digest
    try:
        stored = BentoStore(state.layout).get(f"{name}@{digest}")
    except NotFoundError:
        return DeployBento(name, version, digest, anew=bool(base or builder))
    return of_stored(state, stored, base=base, builder=builder, offline=offline)


def show_plan(state: State, plan: Plan) -> None:
    """As YAML, which a person reads and a file compares."""
    from bentotool.yamltext import as_yaml

    state.console.line(as_yaml([json.loads(json.dumps(plan.to_dict()))]).rstrip())  # enums and the like as plain data


def show_differences(state: State, plan: Plan) -> bool:
    """A line for each resource that changes, and one for each value; whether there is any.

    Raises:
        RemoteError: the target could not look at what runs.
        UsageError: it could not since nothing says where that is.
    """
    from bentotool.deploy.differences import differences, differences_document
    from bentotool.errors import RemoteError, UsageError

    if plan.blind:
        failure = UsageError if plan.unset else RemoteError
        raise failure(plan.blind, hint="--dry-run shows what would be made, and needs nothing that runs")
    document = differences_document(plan)

    def human() -> None:
        for resource, changes in differences(plan):
            place = f" in place of {resource.replaces}" if resource.replaces else ""
            state.console.line(f"{_MARKS[resource.action]} {resource.kind} {resource.name}{place}")
            for change in changes:
                state.console.line(f"    {change.path}: {_value(change.now)} -> {_value(change.then)}")
        if not document["changed"]:
            state.console.line(f"{plan.name} runs as it would be deployed")

    for note in plan.notes:
        state.console.note(note)
    state.console.result(document, human)
    return bool(document["changed"])


def _value(value: object) -> str:
    return "-" if value is None else json.dumps(value, ensure_ascii=False)[:200]


class ShownProgress:
    """How a deployment comes along: one line that is written over on a terminal, else a line now and then.

    Args:
        state: the invocation.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._fancy = not (state.json or state.quiet or state.options.no_color) and sys.stderr.isatty()
        self._drawn = False
        self._said, self._next = "", 0.0

    def note(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        self._state.console.note(text)

    def tell(self, text: str) -> None:
        """What is waited for just now, after ``: `` with what was said last."""
        from bentotool.cli.console import printable

        if self._fancy:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\x1b[2K{printable(text)[:width]}")
            sys.stderr.flush()
            self._drawn = True
        elif self._state.json and not self._state.quiet and time.monotonic() >= self._next:
            self._next = time.monotonic() + _TOLD_S
            sys.stderr.write(json.dumps({"progress": {"text": text}}) + "\n")
        elif not self._state.json:
            self._state.console.detail(text)

    def clear(self) -> None:
        """Take the line away."""
        if self._drawn:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._drawn = False

    def __enter__(self) -> ShownProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
