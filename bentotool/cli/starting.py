"""What the commands that serve share: their options, and how the server takes over."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from bentotool.cli.state import current
from bentotool.errors import UsageError

if TYPE_CHECKING:
    from bentotool.serving import Launch

__all__ = [
    "Authorities",
    "Certificate",
    "Ciphers",
    "Delay",
    "Demand",
    "Grace",
    "Host",
    "Key",
    "Port",
    "run_server",
    "server_options",
    "tls_variables",
]

Host: TypeAlias = Annotated[str, typer.Option(help="Address to listen on.")]
Port: TypeAlias = Annotated[int, typer.Option("--port", "-p", help="Port; 0 picks a free one.", envvar="PORT")]
Grace: TypeAlias = Annotated[float, typer.Option(metavar="SECONDS", help="For requests in flight, at the end.")]
Delay: TypeAlias = Annotated[float, typer.Option(metavar="SECONDS", help="Not ready but still serving, after SIGTERM.")]
Certificate: TypeAlias = Annotated[
    str | None, typer.Option(metavar="FILE", help="Speak TLS with this certificate, PEM.")
]
Key: TypeAlias = Annotated[str | None, typer.Option(metavar="FILE", help="TLS: its private key, PEM.")]
Authorities: TypeAlias = Annotated[
    str | None, typer.Option(metavar="FILE", help="TLS: demand certificates of callers, signed by these.")
]
Demand: TypeAlias = Annotated[
    int | None, typer.Option(min=0, max=2, help="TLS: certificates of callers: 0 none, 1 taken, 2 demanded.")
]
Ciphers: TypeAlias = Annotated[
    str | None, typer.Option(metavar="LIST", help="Ciphers below TLS 1.3, as OpenSSL names them.")
]


def server_options(
    host: str, port: int, workers: int | None, drain_delay: float, grace: float, flags: Mapping[str, bool] | None = None
) -> list[str]:
    """The server's own arguments.

    Args:
        flags: further ones, and whether each is wanted.

    Raises:
        UsageError: the port is none, or a number is out of bounds.
    """
    from bentotool.runtime.bounds import check_port, check_seconds, check_workers

    state = current()
    options = ["--host", host, "--port", str(check_port(port))]
    for said, seconds in (("--drain-delay", drain_delay), ("--grace", grace)):
        options += [said, str(check_seconds(seconds, said))]
    if workers is not None:
        options += ["--workers", str(check_workers(workers, "--workers"))]
    options += ["--log-format", "json"] if state.json else []
    return options + [flag for flag, wanted in {"--quiet": state.quiet, **(flags or {})}.items() if wanted]


def tls_variables(
    certfile: str | None, keyfile: str | None, ca_certs: str | None, cert_reqs: int | None, ciphers: str | None
) -> dict[str, str]:
    """The variables that tell a server of TLS; its paths are those of the folder that the user is in.

    Raises:
        UsageError: an option is given and empty, as by a variable of the shell that is not set.
    """
    files = {"CERTFILE": certfile, "KEYFILE": keyfile, "CA_CERTS": ca_certs}
    plain = {"CERT_REQS": cert_reqs, "CIPHERS": ciphers}
    for key, value in {**files, **plain}.items():
        if value == "":
            raise UsageError(f"--ssl-{key.lower().replace('_', '-')} is empty", hint="name a value, or leave it out")
    tls = {key: os.path.abspath(file) for key, file in files.items() if file}
    tls |= {key: str(value) for key, value in plain.items() if value is not None}
    return {f"BENTOTOOL_SSL_{key}": value for key, value in tls.items()}


def run_server(launch: Launch, options: list[str], variables: Mapping[str, str]) -> None:
    """Start the server in its folder, and be it where the platform lets us."""
    from bentotool.paths import remove_folder
    from bentotool.runtime.endings import hold, release

    launch = launch.placed()
    try:
        os.chdir(launch.folder)
        command, environment = launch.command(options), {**launch.variables(), **variables}
        if sys.platform != "win32":
            # The tool has nothing more to do: the server takes over this process, its signals and its exit status.
            sys.stdout.flush()
            sys.stderr.flush()
            hold()  # a signal that comes from now on is the server's, as soon as it is there
            os.execve(command[0], command, environment)  # noqa: S606 - our own interpreter and module, no shell
        raise typer.Exit(_wait(command, environment))
    except (OSError, KeyboardInterrupt):  # it did not come to that
        release()
        if launch.temporary:
            remove_folder(launch.folder)
        raise


def _wait(command: list[str], variables: Mapping[str, str]) -> int:
    """Windows has no exec: stay, pass the exit status on, and let ctrl-C reach the child by itself."""
    with subprocess.Popen(command, env=variables) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue
