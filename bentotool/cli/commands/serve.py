"""``bentotool serve``."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer

from bentotool.cli.state import current

_TLS = "TLS (the key's password: BENTOTOOL_SSL_KEYFILE_PASSWORD)"


def serve(
    target: Annotated[str, typer.Argument(metavar="[TARGET]", help="A folder, module:Service, or a Bento.")] = ".",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", help="Port; 0 picks a free one.", envvar="PORT")] = 3000,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: the service's.")] = None,
    drain_delay: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="Not ready but still serving, after SIGTERM.")
    ] = 0.0,
    grace: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="For requests in flight, when stopping.")
    ] = 30.0,
    arg: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Template argument; of a Bento, a secret one. May be repeated."),
    ] = None,
    arg_file: Annotated[
        str | None, typer.Option("--arg-file", metavar="FILE", help="YAML or JSON file of template arguments.")
    ] = None,
    isolated: Annotated[
        bool, typer.Option("--isolated", help="Run a Bento in an environment made from its lock.")
    ] = False,
    ssl_certfile: Annotated[
        str | None, typer.Option(metavar="FILE", help="Speak TLS with this certificate, PEM.", rich_help_panel=_TLS)
    ] = None,
    ssl_keyfile: Annotated[
        str | None, typer.Option(metavar="FILE", help="Its private key, PEM.", rich_help_panel=_TLS)
    ] = None,
    ssl_ca_certs: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Demand certificates of callers, signed by these.", rich_help_panel=_TLS),
    ] = None,
    ssl_cert_reqs: Annotated[
        int | None,
        typer.Option(min=0, max=2, help="Certificates of callers: 0 none, 1 taken, 2 demanded.", rich_help_panel=_TLS),
    ] = None,
    ssl_ciphers: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Ciphers below TLS 1.3, as OpenSSL names them.", rich_help_panel=_TLS),
    ] = None,
) -> None:
    """Serve a folder, a service or a Bento over HTTP"""
    from bentotool.build.arguments import parse_pairs, read_arguments
    from bentotool.serving import check_port, plan_launch

    state = current()
    values = read_arguments(arg_file, parse_pairs(arg or []))
    launch = plan_launch(target, state.layout, isolated=isolated, arguments=values)
    options = ["--host", host, "--port", str(check_port(port))]
    options += ["--drain-delay", str(drain_delay), "--grace", str(grace)]
    if workers is not None:
        options += ["--workers", str(workers)]
    if state.json:
        options += ["--log-format", "json"]
    if state.quiet:
        options += ["--quiet"]
    command, variables = launch.command(options), launch.variables()
    tls = {"CERTFILE": ssl_certfile, "KEYFILE": ssl_keyfile, "CA_CERTS": ssl_ca_certs}
    variables |= {f"BENTOTOOL_SSL_{key}": os.path.abspath(file) for key, file in tls.items() if file}
    plain = {"CERT_REQS": ssl_cert_reqs, "CIPHERS": ssl_ciphers}
    variables |= {f"BENTOTOOL_SSL_{key}": str(value) for key, value in plain.items() if value is not None}
    os.chdir(launch.folder)
    if sys.platform != "win32":
        # The tool has nothing more to do: the server takes over this process, its signals and its exit status.
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(command[0], command, variables)  # noqa: S606 - our own interpreter and module, no shell
    raise typer.Exit(_wait(command, variables))


def _wait(command: list[str], variables: dict[str, str]) -> int:
    """Windows has no exec: stay, pass the exit status on, and let ctrl-C reach the child by itself."""
    with subprocess.Popen(command, env=variables) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue
