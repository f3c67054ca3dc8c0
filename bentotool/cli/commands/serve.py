"""``bentotool serve``."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from bentotool.cli.starting import (
    Authorities,
    Certificate,
    Ciphers,
    Delay,
    Demand,
    Grace,
    Host,
    Key,
    Port,
    run_server,
    server_options,
    tls_variables,
)
from bentotool.cli.state import current

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


def serve(
    target: Annotated[str, typer.Argument(metavar="[TARGET]", help="A folder, module:Service, or a Bento.")] = ".",
    host: Host = "127.0.0.1",
    port: Port = 3000,
    workers: Annotated[int | None, typer.Option(help="Worker processes; default: the service's.")] = None,
    reload: Annotated[bool, typer.Option("--reload", help="Serve anew when a file of the project changes.")] = False,
    development: Annotated[
        bool, typer.Option("--development", help="Run the services it depends on in its own process.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print services, workers and devices; serve nothing.")] = False,
    drain_delay: Delay = 0.0,
    grace: Grace = 30.0,
    arg: _Args = None,
    arg_file: _ArgFile = None,
    isolated: _Isolated = False,
    verify: _Verify = False,
    ssl_certfile: Certificate = None,
    ssl_keyfile: Key = None,
    ssl_ca_certs: Authorities = None,
    ssl_cert_reqs: Demand = None,
    ssl_ciphers: Ciphers = None,
) -> None:
    """Serve a folder, a service or a Bento over HTTP"""
    from bentotool.build.arguments import parse_pairs, read_arguments
    from bentotool.serving import plan_launch

    state = current()
    flags = {"--reload": reload, "--development": development, "--plan": plan}
    options = server_options(host, port, workers, drain_delay, grace, flags)
    tls = tls_variables(ssl_certfile, ssl_keyfile, ssl_ca_certs, ssl_cert_reqs, ssl_ciphers)
    values = read_arguments(arg_file, parse_pairs(arg or []))
    launch = plan_launch(
        target, state.layout, isolated=isolated, reload=reload, arguments=values, verify=verify, note=state.console.note
    )
    run_server(launch, options, tls)
