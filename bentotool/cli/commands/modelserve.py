"""``bentotool model serve``."""

from __future__ import annotations

from typing import Annotated

import typer

from bentotool.cli.names import ModelReference
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


def serve_model(
    reference: ModelReference,
    host: Host = "127.0.0.1",
    port: Port = 3000,
    workers: Annotated[int | None, typer.Option(help="Worker processes; default: 1.")] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Load a model that runs code when it is loaded, such as a pickle.")
    ] = False,
    max_batch_size: Annotated[
        int, typer.Option(min=1, metavar="ROWS", help="Rows in one call at most; 1: requests share none.")
    ] = 100,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every byte of the model against its digest before it starts.")
    ] = False,
    drain_delay: Delay = 0.0,
    grace: Grace = 30.0,
    ssl_certfile: Certificate = None,
    ssl_keyfile: Key = None,
    ssl_ca_certs: Authorities = None,
    ssl_cert_reqs: Demand = None,
    ssl_ciphers: Ciphers = None,
) -> None:
    """Serve a model with no code: JSON and the Open Inference Protocol

    POST /predict takes the model's inputs by name and gives its outputs by name. Below /v2 it answers the Open
    Inference Protocol. Requests that come together share calls of the model. /docs.json describes it all, as a page
    at /.
    """
    from bentotool.modellaunch import plan_model_launch

    state = current()
    options = server_options(host, port, workers, drain_delay, grace)
    tls = tls_variables(ssl_certfile, ssl_keyfile, ssl_ca_certs, ssl_cert_reqs, ssl_ciphers)
    launch = plan_model_launch(
        reference,
        state.models,
        state.plugins,
        trust=trust,
        verify=verify,
        max_batch_size=max_batch_size,
        note=state.console.note,
    )
    run_server(launch, options, tls)
