"""From an address to a store: ``redis://[user:password@]host[:port][/database][?prefix=…]``, ``rediss://`` with TLS."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from bentotool.errors import ConfigError

if TYPE_CHECKING:
    from bentotool_redis.store import RedisStore

__all__ = ["open_store", "read_address"]

_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,100}")
_TIMEOUT = 10.0
_CONNECT_TIMEOUT = 5.0
_OLDEST = (6, 2)
"""Scripts read the server's clock and write, which earlier releases do not replicate."""


def read_address(address: str) -> tuple[str, str]:
    """The address for the library, and the prefix of all keys.

    Raises:
        ConfigError: the prefix is none.
    """
    parts = urlsplit(address)
    query = dict(parse_qsl(parts.query))
    prefix = query.pop("prefix", "bentotool")
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError(f"{prefix[:40]!r} is no prefix of keys", hint="letters, digits, dots, _ and -")
    return urlunsplit(parts._replace(query=urlencode(query))), prefix


def open_store(address: str, service: str) -> RedisStore:
    """The store of a service's tasks.

    Args:
        address: see above; further fields of its query are options of `redis.Redis`.
        service: its name, so that several share a database.

    Raises:
        ConfigError: the server does not answer, refuses, or is too old.
    """
    import redis

    from bentotool_redis.store import RedisStore

    url, prefix = read_address(address)
    where = urlsplit(address).netloc.rpartition("@")[2]  # without the password
    try:
        client: Any = redis.Redis.from_url(
            url, socket_timeout=_TIMEOUT, socket_connect_timeout=_CONNECT_TIMEOUT, retry=None, health_check_interval=30
        )
        info = client.info("server")
    except (redis.RedisError, OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"tasks cannot be kept in redis at {where}: {error}", hint="BENTOTOOL_TASKS=redis://host:6379/0"
        ) from error
    version = str(info["redis_version"])
    if tuple(int(number) for number in version.split(".")[:2]) < _OLDEST:
        client.close()
        raise ConfigError(f"redis at {where} is version {version}", hint="6.2 or later is needed")
    return RedisStore(client, f"{prefix}:{{{service}}}")
