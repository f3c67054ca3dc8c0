"""``bentotool login`` and ``bentotool logout``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bentotool.cli.registries import asks_registry, open_registry
from bentotool.cli.state import current
from bentotool.errors import AuthenticationError, UsageError

__all__ = ["login", "logout"]

_Host = Annotated[str, typer.Argument(metavar="HOST", help="The registry, as HOST[:PORT]; docker.io is Docker Hub.")]
_PASSWORD_LIMIT = 64 << 10


@asks_registry
def login(
    host: _Host,
    username: Annotated[str | None, typer.Option("--username", "-u", help="User name.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password or token from standard input.")
    ] = False,
) -> None:
    """Log in to a registry"""
    state = current()
    registry_name = _registry(host)
    from bentotool.oci.credentials import Credentials, CredentialStore

    credentials = Credentials(*_ask(host, username, password_stdin))
    with open_registry(state, registry_name, credentials=CredentialStore(lambda *asked: credentials)) as registry:
        try:
            registry.ping()
        except AuthenticationError as error:
            raise AuthenticationError(error.message, hint="check the user name and the password") from None
    place = CredentialStore().save(registry_name, credentials)
    document = {"registry": registry_name, "username": credentials.username, "stored": place}
    state.console.result(document, f"logged in to {registry_name} as {credentials.username}; kept in {place}")


def logout(host: _Host) -> None:
    """Forget the credentials of a registry"""
    state = current()
    registry_name = _registry(host)
    from bentotool.oci.credentials import CredentialStore

    forgotten = CredentialStore().erase(registry_name)
    text = f"logged out of {registry_name}" if forgotten else f"not logged in to {registry_name}"
    state.console.result({"registry": registry_name, "forgotten": forgotten}, text)


def _registry(host: str) -> str:
    """The registry's name as references spell it.

    Raises:
        UsageError: when it is none.
    """
    from bentotool.oci.reference import DOCKER_HUB, RemoteReference

    if host.startswith(("http://", "https://")) or "/" in host:
        raise UsageError(f"{host!r} is not a registry", hint="write HOST[:PORT], without a scheme or a repository")
    if host in (DOCKER_HUB, "index.docker.io", "registry-1.docker.io"):
        return DOCKER_HUB
    # "ghcr" alone would be read as a repository of Docker Hub.
    parsed = RemoteReference.parse(f"{host}/any")
    if parsed.registry != host:
        raise UsageError(f"{host!r} is not a registry", hint="write HOST[:PORT], as in ghcr.io or localhost:5000")
    return host


def _ask(host: str, username: str | None, password_stdin: bool) -> tuple[str, str]:
    interactive = sys.stdin.isatty()
    if password_stdin:
        if not username:
            raise UsageError("--password-stdin needs --username")
        password = sys.stdin.read(_PASSWORD_LIMIT).rstrip("\r\n")
    elif interactive:
        import getpass

        username = username or typer.prompt("Username", err=True)
        password = getpass.getpass("Password: ")
    else:
        raise UsageError("no password given", hint=f"bentotool login {host} --username USER --password-stdin < FILE")
    if not password or not username or ":" in username:
        raise UsageError("the user name or the password is empty or not valid")
    return username, password
