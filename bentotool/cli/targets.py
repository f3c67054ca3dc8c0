"""The options of deployment targets on the command line, and the image that a deployment needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.core import TyperOption

from bentotool.cli.options import TARGET_PANEL, GlobalOptions, registry_params
from bentotool.cli.registries import open_registry, transfer_progress
from bentotool.cli.state import State, current

if TYPE_CHECKING:
    from bentotool.build.bentos import StoredBento
    from bentotool.targetspec import OptionSpec

__all__ = ["describe_targets", "image_maker", "target_params"]

_OWN = frozenset({"name", "set", "env", "dry-run", "wait", "no-wait", "base", "builder", "offline", "help", "jobs"})


def target_params(options: GlobalOptions) -> list[TyperOption]:
    """Registry options, and one option for each that an installed target declares."""
    found: dict[str, list[tuple[str, OptionSpec]]] = {}
    for name, decl in sorted(current().plugins.targets().items()):
        for option in decl.options:
            if option.name not in _OWN:
                found.setdefault(option.name, []).append((name, option))
    made = registry_params(options)
    taken = {word for param in made for word in (*param.opts, *param.secondary_opts)}
    return [*made, *(_param(options, who) for name, who in found.items() if f"--{name}" not in taken)]


def _param(options: GlobalOptions, who: list[tuple[str, OptionSpec]]) -> TyperOption:
    """One option, which may be that of several targets; what it takes is judged by the target that is chosen."""
    option = who[0][1]

    def remember(_ctx: Any, _param: Any, value: Any) -> None:
        if option.kind == "flag":
            options.target += [] if value is None else [f"{option.name}={'true' if value else 'false'}"]
        else:
            options.target += [f"{option.name}={each}" for each in value or ()]

    flag = option.kind == "flag"
    default = "" if option.default in (None, (), False) else f"  [default: {option.default}]"
    settings: dict[str, Any] = (
        {"is_flag": True} if flag else {"multiple": True, "metavar": _metavar(option), "type": str}
    )
    return TyperOption(
        param_decls=[f"--{option.name}/--no-{option.name}" if flag else f"--{option.name}"],
        help=f"{', '.join(name for name, _ in who)}: {option.summary}.{default}",
        callback=remember,
        expose_value=False,
        rich_help_panel=TARGET_PANEL,
        default=None,
        **settings,
    )


def _metavar(option: OptionSpec) -> str:
    return option.metavar or ("|".join(option.choices) if option.choices else option.kind.upper())


def describe_targets(state: State) -> tuple[str, list[tuple[str, str]]]:
    """The installed targets, for the end of the help."""
    rows = [(name, decl.summary) for name, decl in sorted(state.plugins.targets().items())]
    return "Targets", rows or [("none", "targets come with plugins, such as bentotool-docker")]


def image_maker(
    state: State, bento: StoredBento, *, base: str | None, builder: str | None, offline: bool
) -> Callable[[str, Path], Path]:
    """Makes the image of a Bento, as ``containerize`` does; see :class:`bentotool.targetspec.DeployBento`."""

    def make(platform: str, folder: Path) -> Path:
        from bentotool.images.containerize import build_images, choose_builder
        from bentotool.images.outputs import Images, write_archive
        from bentotool.images.plan import check_platforms, plan_image
        from bentotool.imagespec import ImageRequest
        from bentotool.oci.reference import RemoteReference

        platforms = check_platforms((platform,), bento.platform)
        plans = tuple(plan_image(state.layout, bento, each, base=base) for each in platforms)
        request = ImageRequest(
            plans=plans,
            layout=state.layout,
            open_registry=lambda host: open_registry(state, host),
            progress=transfer_progress(state),
            offline=offline,
            jobs=state.options.registry.jobs,
            note=state.console.note,
        )
        images = build_images(
            state.layout, bento, request, choose_builder(builder, plans, state.plugins), state.plugins
        )
        name = str(RemoteReference.parse(bento.tag))
        written = Images(state.layout, images, [(model.name, model.digest) for model in bento.models], [name])
        archive = folder / "image.tar"
        with state.console.progress(written.size, f"write the image of {bento.tag}") as progress:
            write_archive(written, archive, progress.advance)
        return archive

    return make
