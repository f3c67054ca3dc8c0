"""``bentotool serve``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Annotated, TypeAlias

import typer

from bentotool.cli.state import current

_Grace: TypeAlias = Annotated[float, typer.Option(metavar="SECONDS", min=0, help="For requests in flight, at the end.")]
_Delay: TypeAlias = Annotated[
    float, typer.Option(metavar="SECONDS", min=0, help="Not ready but still serving, after SIGTERM.")
]
_Args: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Template argument; of a Bento, a secret one. May be repeated."),
]
_ArgFile: TypeAlias = Annotated[
    str | None, typer.Option("--arg-file", metavar="FILE", help="YAML or JSON file of template arguments.")
]
_Isolated: TypeAlias = Annotated[
    bool, typer.Option("--isolated", help="Run a Bento in an environment made from its lock.")
]
_Verify: TypeAlias = Annotated[
    bool, typer.Option("--verify", help="Check every byte of a Bento against its digest before it starts.")
]
_Certificate: TypeAlias = Annotated[
    str | None, typer.Option(metavar="FILE", help="Speak TLS with this certificate, PEM.")
]
_Key: TypeAlias = Annotated[str | None, typer.Option(metavar="FILE", help="TLS: its private key, PEM.")]
_Authorities: TypeAlias = Annotated[
    str | None, typer.Option(metavar="FILE", help="TLS: demand certificates of callers, signed by these.")
]
_Demand: TypeAlias = Annotated[
    int | None, typer.Option(min=0, max=2, help="TLS: certificates of callers: 0 none, 1 taken, 2 demanded.")
]
_Ciphers: TypeAlias = Annotated[
    str | None, typer.Option(metavar="LIST", help="Ciphers below TLS 1.3, as OpenSSL names them.")
]


def serve(
    target: Annotated[str, typer.Argument(metavar="[TARGET]", help="A folder, module:Service, or a Bento.")] = ".",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", help="Port; 0 picks a free one.", envvar="PORT")] = 3000,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: the service's.")] = None,
    reload: Annotated[bool, typer.Option("--reload", help="Serve anew when a file of the project changes.")] = False,
    development: Annotated[
        bool, typer.Option("--development", help="Run the services it depends on in its own process.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print services, workers and devices; serve nothing.")] = False,
    drain_delay: _Delay = 0.0,
    grace: _Grace = 30.0,
    arg: _Args = None,
    arg_file: _ArgFile = None,
    isolated: _Isolated = False,
    verify: _Verify = False,
    ssl_certfile: _Certificate = None,
    ssl_keyfile: _Key = None,
    ssl_ca_certs: _Authorities = None,
    ssl_cert_reqs: _Demand = None,
    ssl_ciphers: _Ciphers = None,
) -> None:
    """Serve a folder, a service or a Bento over HTTP"""
    from bentotool.build.arguments import parse_pairs, read_arguments
    from bentotool.serving import check_port, plan_launch

    state = current()
    values = read_arguments(arg_file, parse_pairs(arg or []))
    launch = plan_launch(
        target, state.layout, isolated=isolated, reload=reload, arguments=values, verify=verify, note=state.console.note
    )
    options = ["--host", host, "--port", str(check_port(port))]
    options += ["--drain-delay", str(drain_delay), "--grace", str(grace)]
    if workers is not None:
        options += ["--workers", str(workers)]
    options += ["--log-format", "json"] if state.json else []
    flags = {"--quiet": state.quiet, "--reload": reload, "--development": development, "--plan": plan}
    options += [flag for flag, wanted in flags.items() if wanted]
    files = {"CERTFILE": ssl_certfile, "KEYFILE": ssl_keyfile, "CA_CERTS": ssl_ca_certs}
    tls = {key: os.path.abspath(file) for key, file in files.items() if file}
    plain = {"CERT_REQS": ssl_cert_reqs, "CIPHERS": ssl_ciphers}
    tls |= {key: str(value) for key, value in plain.items() if value is not None}
    variables = launch.variables() | {f"BENTOTOOL_SSL_{key}": value for key, value in tls.items()}
    os.chdir(launch.folder)
    _run(launch.command(options), variables)


def _run(command: list[str], variables: Mapping[str, str]) -> None:
    if sys.platform != "win32":
        # The tool has nothing more to do: the server takes over this process, its signals and its exit status.
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(command[0], command, variables)  # noqa: S606 - our own interpreter and module, no shell
    raise typer.Exit(_wait(command, variables))


def _wait(command: list[str], variables: Mapping[str, str]) -> int:
    """Windows has no exec: stay, pass the exit status on, and let ctrl-C reach the child by itself."""
    with subprocess.Popen(command, env=variables) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue
