"""Policy files: reading one with the keys that it names, and which of them are in force.

Two can be in force at once: that of the environment (``BENTOTOOL_POLICY``) and that of the project (``policy`` in
``bentofile.yaml`` or ``[tool.bentotool]``). Each has to be met, so that a project can ask for more and never for less.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bentotool.build.yamlfile import parse_yaml
from bentotool.errors import BentotoolError, ConfigError, NotFoundError
from bentotool.trust.named import VARIABLE, may_name_policy
from bentotool.trust.policyschema import Policy, SignerRule, read_policy

if TYPE_CHECKING:
    from bentotool.trust.keys import PublicKey

__all__ = ["PolicyFile", "load_policy", "policies_in_force"]

_LIMIT = 1 << 20


@dataclass(frozen=True)
class PolicyFile:
    """A policy, with what it names read.

    Args:
        name: the file, as messages call it.
        origin: who put it in force: ``option``, ``environment`` or ``project``.
        keys: every public key that it names.
        fingerprints: of those, by what stands at ``key`` or ``key_pem``.
        trust_config: file with the services of a private sigstore.
        identities: whether any signer is an identity, which only certificates prove.
    """

    name: str
    origin: str
    policy: Policy
    keys: tuple[PublicKey, ...] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    trust_config: Path | None = None
    identities: bool = False


def load_policy(path: Path, origin: str = "option") -> PolicyFile:
    """Read a policy file and the keys that it names.

    Raises:
        ConfigError: it does not say what a policy may say; or it, or a key that it names, is not there.
    """
    policy = read_policy(parse_yaml(_content(path), str(path)), (str(path),))
    fingerprints: dict[str, str] = {}
    keys: dict[str, PublicKey] = {}
    signers = list(_signers(policy))
    for where, signer in signers:
        if signer.key or signer.key_pem:
            found = _public_key(path, where, signer)
            keys[found.fingerprint] = found
            fingerprints[signer.key or signer.key_pem] = found.fingerprint
    trust_config = path.parent / policy.trust_config if policy.trust_config else None
    if trust_config is not None and not trust_config.is_file():
        raise ConfigError(f"{trust_config} does not exist", path=(str(path), "trust_config"))
    identities = any(signer.issuer for _, signer in signers)
    return PolicyFile(str(path), origin, policy, tuple(keys.values()), fingerprints, trust_config, identities)


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"policy {path} does not exist", hint="docs/trust.md has one to begin with") from None
    except OSError as error:
        raise ConfigError(f"policy {path} cannot be read: {error.strerror}") from None
    if len(data) > _LIMIT:
        raise ConfigError(f"policy {path} has more than {_LIMIT} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"policy {path} is not UTF-8 text") from None


def _signers(policy: Policy) -> list[tuple[tuple[str, ...], SignerRule]]:
    """Every signer of a policy, and where it stands."""
    found: list[tuple[tuple[str, ...], SignerRule]] = []
    for place, rule in enumerate(policy.rules):
        where = ("rules", str(place))
        found += [((*where, "signers", str(n)), signer) for n, signer in enumerate(rule.signers)]
        for number, wanted in enumerate(rule.attestations):
            inner = (*where, "attestations", str(number), "signers")
            found += [((*inner, str(n)), signer) for n, signer in enumerate(wanted.signers)]
    return found


def _public_key(path: Path, where: tuple[str, ...], signer: SignerRule) -> PublicKey:
    from bentotool.trust.keys import load_public_key, parse_public_key

    place = (str(path), *where, "key" if signer.key else "key_pem")
    try:
        if signer.key:
            return load_public_key(path.parent / signer.key)
        return parse_public_key(signer.key_pem.encode(), "of the policy")
    except NotFoundError as error:
        raise ConfigError(error.message, path=place, hint="paths are relative to the policy") from None
    except BentotoolError as error:
        raise ConfigError(error.message, path=place, hint=error.hint) from None


def policies_in_force(project: Path | None = None) -> tuple[PolicyFile, ...]:
    """The policies that hold here, that of the environment first; none where nobody asks for any.

    Args:
        project: folder of the project; default: the working folder.

    Raises:
        ConfigError: one that is named is not there, or is wrong. It is never passed over.
    """
    found = []
    named = os.environ.get(VARIABLE, "")
    if named:
        found.append(load_policy(Path(named).expanduser(), "environment"))
    folder = project or Path.cwd()
    own = _of_project(folder)
    if own:
        path = folder / own
        if not (found and path.exists() and path.samefile(found[0].name)):
            found.append(load_policy(path, "project"))
    return tuple(found)


def _of_project(folder: Path) -> str:
    """What the configuration of the project in a folder names as its policy; cheap where there is no project."""
    if not may_name_policy(folder):
        return ""
    from bentotool.build.configfile import stated_policy

    return stated_policy(folder)
