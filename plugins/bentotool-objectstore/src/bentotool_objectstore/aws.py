"""What AWS's own tools read: the ``AWS_*`` variables first, then the profile in the shared files.

Sources: the variables and files of the AWS SDKs and Tools Reference Guide, "Shared config and credentials files".
"""

from __future__ import annotations

import configparser
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from bentotool.errors import AuthenticationError, MissingDependencyError, UsageError
from bentotool_objectstore.address import Address
from bentotool_objectstore.failures import no_credentials
from bentotool_objectstore.switches import is_true

__all__ = ["settings"]

_LOGS_IN = (
    "role_arn",
    "sso_session",
    "sso_start_url",
    "credential_process",
    "web_identity_token_file",
    "login_session",
)
_ELSEWHERE = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_LEASE = timedelta(minutes=5)
"""How long the store uses credentials before it asks the profile again, which renews them when they run out."""


def settings(address: Address, env: Mapping[str, str]) -> tuple[dict[str, Any], str | None]:
    """Options for the store, and the endpoint where it is not Amazon's own.

    Raises:
        AuthenticationError: the profile does not exist or does not log in, or there are no credentials at all.
        MissingDependencyError: the profile logs in by a way that needs botocore.
        UsageError: the shared files cannot be read.
    """
    name = env.get("AWS_PROFILE") or env.get("AWS_DEFAULT_PROFILE") or "default"
    profile = _profile(name, env)
    if not profile and name != "default" and not env.get("AWS_ACCESS_KEY_ID"):
        raise AuthenticationError(
            f"there is no AWS profile {name!r:.80}",
            hint="set AWS_PROFILE to one that aws configure list-profiles tells",
        )
    region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or profile.get("region") or "us-east-1"
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    endpoint = next((env[each] for each in names if env.get(each)), None) or profile.get("endpoint_url")
    options: dict[str, Any] = {"region": region}
    if endpoint:
        options["endpoint"] = endpoint
    return options | _login(address, name, profile, env), endpoint


def _login(address: Address, name: str, profile: Mapping[str, str], env: Mapping[str, str]) -> dict[str, Any]:
    """Nothing where the library finds its way by itself."""
    if is_true(env.get("AWS_SKIP_SIGNATURE")):
        return {"skip_signature": True}
    if env.get("AWS_ACCESS_KEY_ID"):
        if not env.get("AWS_SECRET_ACCESS_KEY"):
            raise AuthenticationError("AWS_ACCESS_KEY_ID has no secret", hint="set AWS_SECRET_ACCESS_KEY as well")
        return {}
    if env.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return {}
    if profile.keys() & _LOGS_IN:
        return {"credential_provider": _botocore(name)}
    if profile.get("aws_access_key_id") and profile.get("aws_secret_access_key"):
        token = {"session_token": profile["aws_session_token"]} if profile.get("aws_session_token") else {}
        return {
            "access_key_id": profile["aws_access_key_id"],
            "secret_access_key": profile["aws_secret_access_key"],
            **token,
        }
    if not any(env.get(each) for each in _ELSEWHERE) and is_true(env.get("AWS_EC2_METADATA_DISABLED")):
        raise no_credentials(address)
    return {}


def _profile(name: str, env: Mapping[str, str]) -> dict[str, str]:
    """All that the two shared files say of a profile; what the credentials file says goes first."""
    home = Path(env.get("HOME") or env.get("USERPROFILE") or Path.home()) / ".aws"
    config = Path(env.get("AWS_CONFIG_FILE") or home / "config").expanduser()
    credentials = Path(env.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials").expanduser()
    section = name if name == "default" else f"profile {name}"
    return {**_section(config, section), **_section(credentials, name)}


def _section(path: Path, name: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False, default_section="")
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (configparser.Error, OSError, ValueError) as error:
        # the parser's message quotes the line, which may be a secret
        raise UsageError(f"{path} cannot be read: {type(error).__name__}", hint="correct the file") from None
    return dict(parser[name]) if parser.has_section(name) else {}


def _botocore(profile: str) -> Callable[[], dict[str, Any]]:
    """Credentials of a profile that logs in: a role, IAM Identity Center, a program."""
    try:
        import botocore.exceptions
        import botocore.session
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "botocore", install="'bentotool-objectstore[aws]'", purpose=f"AWS profile {profile!r:.80} logs in with it"
        ) from error
    try:
        credentials = botocore.session.Session(profile=profile).get_credentials()
        if credentials is None:
            raise AuthenticationError(f"AWS profile {profile!r:.80} gives no credentials", hint="run aws sso login")
        credentials.get_frozen_credentials()
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise AuthenticationError(
            f"AWS profile {profile!r:.80} does not log in: {type(error).__name__}",
            hint="run aws sso login, or check it",
        ) from None

    def provide() -> dict[str, Any]:
        frozen = credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(timezone.utc) + _LEASE,
        }

    return provide
