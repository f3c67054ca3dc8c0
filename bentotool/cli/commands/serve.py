"""``bentotool serve``."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer

from bentotool.cli.state import current


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
