"""The global options: one definition, accepted before the command and after it.

Each leaf command gets its own copies appended, so they show in its help and complete there. Their values never
reach the command function; a callback gathers them into :class:`GlobalOptions`, which the state is made of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.core import TyperOption

from bentotool.errors import UsageError

__all__ = [
    "PANEL",
    "PLACE_PANEL",
    "REGISTRY_PANEL",
    "SIGNING_PANEL",
    "TARGET_PANEL",
    "GlobalOptions",
    "RegistryOptions",
    "SigningOptions",
    "global_params",
    "registry_params",
    "signing_params",
]

PANEL = "Global options"
REGISTRY_PANEL = "Registry options"
SIGNING_PANEL = "Signing options"
TARGET_PANEL = "Target options"
PLACE_PANEL = "Where to look (default: where it was deployed)"
_MAX_JOBS = 64


@dataclass
class RegistryOptions:
    """How the commands that talk to a registry are to do so."""

    jobs: int = 4
    plain_http: bool | None = None
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    insecure: bool = False


@dataclass
class SigningOptions:
    """How the commands that sign are to do so."""

    key: str | None = None
    identity_token: str | None = field(default=None, repr=False)
    trust_config: Path | None = None


@dataclass
class GlobalOptions:
    """What the user said globally in this invocation, gathered while the arguments are parsed."""

    store: Path | None = None
    json: bool = False
    quiet: bool = False
    verbose: int = 0
    no_color: bool = False
    disable_plugin: list[str] = field(default_factory=list)
    registry: RegistryOptions = field(default_factory=RegistryOptions)
    signing: SigningOptions = field(default_factory=SigningOptions)
    target: list[str] = field(default_factory=list)  # NAME=VALUE, of options that deployment targets declare


def global_params(options: GlobalOptions) -> list[TyperOption]:
    """New option objects whose values are gathered into ``options``; later ones add to or replace earlier ones."""

    def store(_ctx: Any, _param: Any, value: str | None) -> None:
        if value == "":
            raise UsageError("--store is empty", hint="name a folder, or leave --store out")
        if value is not None:
            options.store = Path(value)

    def flag(name: str) -> Any:
        def remember(_ctx: Any, _param: Any, value: bool | None) -> None:
            if value:
                setattr(options, name, True)

        return remember

    def verbose(_ctx: Any, _param: Any, value: int | None) -> None:
        options.verbose += value or 0

    def disable(_ctx: Any, _param: Any, value: tuple[str, ...] | None) -> None:
        options.disable_plugin.extend(value or ())

    def option(declarations: list[str], help: str, callback: Any, **settings: Any) -> TyperOption:
        shared = {"callback": callback, "expose_value": False, "rich_help_panel": PANEL}
        return TyperOption(param_decls=declarations, help=help, **shared, **settings)

    return [
        option(["--store"], "The store to work on (env BENTOTOOL_STORE).", store, metavar="PATH", type=str),
        option(["--json"], "Print one JSON document.", flag("json"), is_flag=True, default=False),
        option(["-q", "--quiet"], "Print results only.", flag("quiet"), is_flag=True, default=False),
        option(["-v", "--verbose"], "Say more; twice for tracebacks.", verbose, count=True, default=0, type=int),
        option(["--no-color"], "Plain output (env NO_COLOR).", flag("no_color"), is_flag=True, default=False),
        option(["--disable-plugin"], "Leave a plugin out (repeatable).", disable, metavar="NAME", multiple=True),
    ]


def registry_params(options: GlobalOptions, *, moves: bool = True) -> list[TyperOption]:
    """New option objects of the commands that talk to a registry; their values are gathered into ``options``.

    Args:
        moves: whether the command moves files.
    """
    shared = options.registry

    def remember(name: str, convert: Any = None) -> Any:
        def callback(_ctx: Any, _param: Any, value: Any) -> None:
            if value is not None and value is not False:
                setattr(shared, name, convert(value) if convert else value)

        return callback

    def option(declarations: list[str], help: str, callback: Any, **settings: Any) -> TyperOption:
        return TyperOption(
            param_decls=declarations,
            help=help,
            callback=callback,
            expose_value=False,
            rich_help_panel=REGISTRY_PANEL,
            **settings,
        )

    def transport(_ctx: Any, _param: Any, value: bool | None) -> None:
        if value is not None:
            shared.plain_http = value

    def jobs(_ctx: Any, _param: Any, value: int | None) -> None:
        if value is not None and not 1 <= value <= _MAX_JOBS:
            raise UsageError(f"--jobs {value} is not between 1 and {_MAX_JOBS}")
        shared.jobs = value or shared.jobs

    file: dict[str, Any] = {"metavar": "FILE", "type": str}
    at_once = option(["--jobs", "-j"], "Files moved at once, 1 to 64.  [default: 4]", jobs, type=int, metavar="N")
    return [
        *([at_once] if moves else []),
        option(
            ["--plain-http/--tls"],
            "Speak HTTP or HTTPS.  [default: HTTPS, but HTTP on this machine]",
            transport,
            is_flag=True,
            default=None,
        ),
        option(["--ca-file"], "Trust the authorities in this PEM file.", remember("ca_file", Path), **file),
        option(["--client-cert"], "Show this certificate (PEM).", remember("client_cert", Path), **file),
        option(["--client-key"], "Its key (PEM), when it is in another file.", remember("client_key", Path), **file),
        option(
            ["--insecure-skip-tls-verify"],
            "Take any certificate: others on the line can read and change what passes.",
            remember("insecure"),
            is_flag=True,
            default=False,
        ),
    ]


def signing_params(options: GlobalOptions) -> list[TyperOption]:
    """New option objects of the commands that sign; their values are gathered into ``options``."""
    shared = options.signing

    def remember(name: str, convert: Any = str) -> Any:
        def callback(_ctx: Any, _param: Any, value: str | None) -> None:
            if value == "":
                raise UsageError(f"--{name.replace('_', '-')} is empty", hint="leave it out, or give a value")
            if value is not None:
                setattr(shared, name, convert(value))

        return callback

    def option(declaration: str, help: str, callback: Any, metavar: str) -> TyperOption:
        shown: dict[str, Any] = {"help": help, "metavar": metavar, "rich_help_panel": SIGNING_PANEL}
        return TyperOption(param_decls=[declaration], callback=callback, expose_value=False, type=str, **shown)

    return [
        option(
            "--key",
            "Private key: a file, or SCHEME:… of a plugin (env BENTOTOOL_SIGNING_KEY).",
            remember("key"),
            "KEY",
        ),
        option(
            "--identity-token",
            "Sign without a key, by this OIDC token or a file with it (env SIGSTORE_ID_TOKEN).",
            remember("identity_token"),
            "TOKEN",
        ),
        option("--trust-config", "The services of a private Sigstore.", remember("trust_config", Path), "FILE"),
    ]
