"""Opening a store as the provider's own tools would: what they read from the environment, and nothing from the address.

Waits are bounded: whatever does not answer within 20 seconds (5 to connect) is tried twice more within half a minute.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bentotool.errors import AuthenticationError, UnsafeError, UsageError
from bentotool_objectstore import aws
from bentotool_objectstore.address import Address
from bentotool_objectstore.failures import no_credentials, translate
from bentotool_objectstore.switches import is_true

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["open_store"]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_CLIENT = {"connect_timeout": "5s", "read_timeout": "20s", "timeout": "15min", "user_agent": "bentotool"}
_GOOGLE_KEYS = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH")
_GOOGLE_VALUES = ("GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_BEARER_TOKEN")


def open_store(address: Address, environment: Mapping[str, str] | None = None) -> ObjectStore:
    """The bucket of an address, ready to be asked; nothing is sent yet.

    Raises:
        AuthenticationError: the environment names credentials that are not there, or none and no other way is open.
        UnsafeError: the endpoint is not encrypted.
        UsageError: a setting cannot be read.
    """
    from obstore import store as stores
    from obstore.exceptions import BaseError

    env = os.environ if environment is None else environment
    retries = {
        "max_retries": 2,
        "retry_timeout": timedelta(seconds=30),
        "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=3), "base": 2},
    }
    kinds: dict[str, tuple[Any, Any]] = {
        "s3": (stores.S3Store, aws.settings),
        "gs": (stores.GCSStore, _gs),
        "az": (stores.AzureStore, _az),
    }
    make, configure = kinds[address.kind]
    options, endpoint = configure(address, env)
    client = {**_CLIENT, "allow_http": _allow_http(address, endpoint, env), **_authority(address, env)}
    try:
        opened: ObjectStore = make(address.bucket, client_options=client, retry_config=retries, **options)
    except (BaseError, ValueError) as error:
        raise translate(error, address) from None
    return opened


def _allow_http(address: Address, endpoint: str | None, env: Mapping[str, str]) -> bool:
    if not endpoint:
        return False
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"the endpoint set for {address.kind}:// is no http address", hint="write https://HOST")
    if parts.username or parts.password:
        raise UsageError(f"the endpoint set for {address.kind}:// holds a user or password", hint="leave it out")
    if parts.scheme == "https":
        return False
    switch = {"s3": "AWS_ALLOW_HTTP", "gs": "GOOGLE_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP"}[address.kind]
    if parts.hostname not in _LOOPBACK and not is_true(env.get(switch)):
        raise UnsafeError(
            f"the endpoint {parts.hostname} is not encrypted",
            hint=f"use https://, or set {switch}=true if you trust the network",
        )
    return True


def _authority(address: Address, env: Mapping[str, str]) -> dict[str, bytes]:
    """Whom AWS's tools trust beside the system; ``SSL_CERT_FILE``, which counts for all, is read by the library."""
    bundle = env.get("AWS_CA_BUNDLE") if address.kind == "s3" else None
    if not bundle:
        return {}
    try:
        return {"root_certificate": Path(bundle).read_bytes()}
    except OSError as error:
        raise UsageError(f"AWS_CA_BUNDLE cannot be read: {error.strerror}", hint="correct it or unset it") from None


def _gs(address: Address, env: Mapping[str, str]) -> tuple[dict[str, Any], str | None]:
    emulator = env.get("STORAGE_EMULATOR_HOST")
    if emulator:  # as for Google's own clients: no credentials go there
        url = emulator if "://" in emulator else f"http://{emulator}"
        return {"base_url": url, "skip_signature": True}, url
    named = next((env[name] for name in _GOOGLE_KEYS if env.get(name)), None)
    if named is not None and not Path(named).is_file():
        raise AuthenticationError(
            f"there are no credentials for {address.place}: the file that is named for them does not exist",
            hint="set GOOGLE_APPLICATION_CREDENTIALS to a file of credentials",
        )
    known = named or any(env.get(name) for name in _GOOGLE_VALUES) or is_true(env.get("GOOGLE_SKIP_SIGNATURE"))
    if not known and is_true(env.get("NO_GCE_CHECK")) and not _gcloud_login(env).is_file():
        raise no_credentials(address)
    return {}, env.get("GOOGLE_BASE_URL")


def _gcloud_login(env: Mapping[str, str]) -> Path:
    """Where ``gcloud auth application-default login`` writes, and the library looks."""
    base = Path(env["APPDATA"]) if env.get("APPDATA") else Path(env.get("HOME") or Path.home()) / ".config"
    return base / "gcloud" / "application_default_credentials.json"


def _az(address: Address, env: Mapping[str, str]) -> tuple[dict[str, Any], str | None]:
    """The names of Azure's command line, beside those the library reads by itself."""
    told = _connection_string(env.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    own = told.get("AccountName") or env.get("AZURE_STORAGE_ACCOUNT") or env.get("AZURE_STORAGE_ACCOUNT_NAME")
    if address.account and own and own != address.account:  # its key or token is nothing for another account
        raise UsageError(
            f"{address.shown} is of another account than the credentials, which are of {own}",
            hint="set AZURE_STORAGE_ACCOUNT and its key, or unset them",
        )
    account = address.account or own
    options: dict[str, Any] = {
        "account_name": account,
        "account_key": told.get("AccountKey") or env.get("AZURE_STORAGE_KEY"),
        "sas_key": told.get("SharedAccessSignature"),
        "endpoint": told.get("BlobEndpoint"),
    }
    options = {name: value for name, value in options.items() if value}
    if not account and not is_true(env.get("AZURE_STORAGE_USE_EMULATOR")):
        raise UsageError(
            f"{address.shown} does not say which storage account",
            hint="set AZURE_STORAGE_ACCOUNT, or write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/KEY",
        )
    endpoint = options.get("endpoint") or env.get("AZURE_STORAGE_ENDPOINT") or env.get("AZURE_ENDPOINT")
    if is_true(env.get("AZURE_STORAGE_USE_EMULATOR")):
        endpoint = endpoint or "http://127.0.0.1:10000"
    return options, endpoint


def _connection_string(text: str) -> dict[str, str]:
    """``Name=value;Name=value``, as the portal shows it."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {name.strip(): value.strip() for name, _, value in pairs if value}
