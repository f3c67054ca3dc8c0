"""The contract kit for signers: a target that cannot do what was declared is named."""

from __future__ import annotations

from typing import Any

import pytest

from bentotool.testing import ContractError, check_plugin

SIGNER = """
from bentotool.signspec import SignerDecl

class Vault:
    def signer(self, request): ...
    {verifier}

@hookimpl
def bentotool_signers():
    yield SignerDecl("vault", __name__ + ":Vault", "Keys of the vault", schemes=("vault",))
"""


def test_a_signer_that_keeps_the_contract(make: Any) -> None:
    make.add("vault", SIGNER.format(verifier="def verifier(self, request): ..."))
    assert check_plugin("vault").hooks == ("bentotool_signers",)


def test_a_signer_without_a_verifier(make: Any) -> None:
    make.add("vault", SIGNER.format(verifier=""))
    with pytest.raises(ContractError, match="is not a Signers: it lacks signer or verifier"):
        check_plugin("vault")
