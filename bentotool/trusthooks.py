"""The hooks of signing; :mod:`bentotool.hookspecs` has them beside all others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bentotool.hookmarkers import hookspec

if TYPE_CHECKING:
    from bentotool.signspec import SignerDecl

__all__ = ["bentotool_signers", "bentotool_signing_identity"]


@hookspec
def bentotool_signers() -> Iterable[SignerDecl]:
    """Declare signers: keys that lie in a KMS, or identities that sign without a key.

    When:
        Something is signed or verified that keys in files alone do not decide; once per process.

    Arguments:
        None.

    Return:
        :class:`~bentotool.signspec.SignerDecl` records. Two plugins that declare one name, or one scheme of keys, are
        an error.

    Example::

        from bentotool.hookspecs import hookimpl
        from bentotool.signspec import SignerDecl

        @hookimpl
        def bentotool_signers():
            return [SignerDecl("vault", "my_plugin.vault:Vault", "Keys of the vault", schemes=("vault",))]
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def bentotool_signing_identity(artifact: object) -> str | None:
    """Say with which key, or as whom, something is signed where the user does not say it.

    When:
        ``bentotool sign``, ``build --sign`` and ``push --sign`` without ``--key`` and ``--identity-token``. A failure
        stops the work: something signed by another would not be what was asked for.

    Arguments:
        ``artifact``: the stored Bento or model, with ``name``, ``version``, ``tag`` and ``digest``.

    Return:
        What could stand after ``--key``: a file, or a reference with a scheme, such as ``vault:release``; or
        ``keyless``; or None: no opinion. The first answer counts.

    Example::

        from bentotool.hookspecs import hookimpl

        @hookimpl
        def bentotool_signing_identity(artifact):
            return "vault:release" if artifact.name.startswith("prod-") else None
    """
    raise NotImplementedError
