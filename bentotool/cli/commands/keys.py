"""``bentotool key``: keys to sign with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from bentotool.cli.signing import ask_password
from bentotool.cli.state import State, current
from bentotool.errors import UsageError

__all__ = ["new_key", "public_key"]


def new_key(
    path: Annotated[
        Path,
        typer.Argument(metavar="[FILE]", help="The private key; the public one lies beside it as .pub."),
    ] = Path("bentotool.key"),
    kind: Annotated[str, typer.Option("--type", metavar="ecdsa-p256|ed25519", help="Kind of key.")] = "ecdsa-p256",
    form: Annotated[
        str, typer.Option("--format", metavar="pkcs8|cosign", help="cosign: as cosign's own generate-key-pair.")
    ] = "pkcs8",
    no_password: Annotated[
        bool, typer.Option("--no-password", help="Do not encrypt the private key: for keys that a vault keeps.")
    ] = False,
) -> None:
    """Make a pair of keys to sign and verify with"""
    from bentotool.trust.privatekeys import make_pair

    state = current()
    if no_password and form == "cosign":
        raise UsageError("--format cosign is always encrypted", hint="leave out --no-password")
    made = make_pair(path, b"" if no_password else _new_password(state, path), kind, form)
    document = {
        "path": str(made.private),
        "public": str(made.public),
        "type": made.key.kind,
        "fingerprint": made.key.fingerprint,
        "encrypted": not no_password,
    }

    def show() -> None:
        state.console.line(f"wrote {made.private}{'' if no_password else ' (encrypted)'} and {made.public}")
        state.console.line(f"{made.key.kind} {made.key.fingerprint}")
        state.console.note(f"Next: bentotool sign --key {made.private} REF; others: verify --key {made.public} REF")

    state.console.result(document, show)


def public_key(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="A key, private or public: a file, or SCHEME:… of a plugin.")
    ],
) -> None:
    """Print the public key of a key"""
    from bentotool.trust.keys import load_public_key, read_key_file
    from bentotool.trust.privatekeys import load_private_key
    from bentotool.trust.signers import open_public_key

    state = current()
    path = Path(key)
    if path.is_file() and b"PRIVATE KEY" in read_key_file(path):
        found = load_private_key(path, ask_password(state)).public
    else:
        found = load_public_key(path) if path.is_file() else open_public_key(state.plugins, key)
    text = found.pem.decode()
    state.console.result({"pem": text, "type": found.kind, "fingerprint": found.fingerprint}, text.rstrip("\n"))


def _new_password(state: State, path: Path) -> bytes:
    from bentotool.trust.privatekeys import PASSWORD_VARIABLES

    for name in PASSWORD_VARIABLES:
        if os.environ.get(name):
            return os.environ[name].encode()
    ask = ask_password(state)
    password = ask(f"New password of {path}")
    if password is None:
        raise UsageError("a new key needs a password", hint=f"set {PASSWORD_VARIABLES[0]}, or give --no-password")
    if not password:
        raise UsageError("the password is empty", hint="give one, or --no-password")
    if ask("The same again") != password:
        raise UsageError("the two passwords differ", hint="try again")
    return password
