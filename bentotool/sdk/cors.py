"""``http.cors``: which pages of other origins a browser lets call the service. The keys are BentoML's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bentotool.errors import ConfigError

__all__ = ["CorsOptions", "read_cors"]

_KEYS = (
    "enabled",
    "access_control_allow_origins",
    "access_control_allow_credentials",
    "access_control_allow_methods",
    "access_control_allow_headers",
    "access_control_allow_origin_regex",
    "access_control_max_age",
    "access_control_expose_headers",
)


@dataclass(frozen=True)
class CorsOptions:
    """Checked options.

    Attributes:
        origins: as a browser names them, ``https://example.org``; ``*`` for all.
        origin_pattern: further origins, as a whole.
        credentials: whether requests may carry cookies and the like.
        methods: ``*`` for all that the service answers.
        headers: request headers that a page may set; ``*`` for whatever it asks for.
        max_age: seconds for which a browser keeps the answer to a preflight request.
        expose: headers of answers that a page may read.
    """

    origins: tuple[str, ...] = ()
    origin_pattern: re.Pattern[str] | None = None
    credentials: bool = False
    methods: tuple[str, ...] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    headers: tuple[str, ...] = ("*",)
    max_age: int = 600
    expose: tuple[str, ...] = ()

    def allows(self, origin: str) -> bool:
        """Whether pages of an origin may call."""
        if "*" in self.origins or origin in self.origins:
            return True
        return self.origin_pattern is not None and self.origin_pattern.fullmatch(origin) is not None


def _names(value: object, path: tuple[str, ...]) -> tuple[str, ...]:
    """One text, or a list of them. What goes into a header must not start another."""
    values = [value] if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else [None]
    for entry in values:
        if not isinstance(entry, str) or not entry.isprintable() or "," in entry:
            raise ConfigError(f"{entry!r} is not a name", path=path, hint="give a text or a list of texts")
    return tuple(str(entry) for entry in values)


def read_cors(given: Mapping[str, Any] | None, service: str) -> CorsOptions | None:
    """The options, or None where CORS is off.

    Raises:
        ConfigError: an unknown key, a wrong value, or credentials for every origin.
    """
    base = (f"service {service}", "http", "cors")
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise ConfigError(f"{given!r} is not a table", path=base)
    for key in given:
        if key not in _KEYS:
            from bentotool.sdk.config import suggest

            raise ConfigError(f"unknown option {key!r}", path=base, hint=suggest(key, list(_KEYS)))
    if not given.get("enabled", False):
        return None

    def names(key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        found = given.get(f"access_control_{key}")
        return default if found is None else _names(found, (*base, f"access_control_{key}"))

    pattern = given.get("access_control_allow_origin_regex")
    try:
        compiled = re.compile(pattern) if pattern is not None else None
    except (re.error, TypeError) as error:
        path = (*base, "access_control_allow_origin_regex")
        raise ConfigError(f"{pattern!r} is not a regular expression: {error}", path=path) from error
    age = given.get("access_control_max_age", 600)
    if not isinstance(age, int) or isinstance(age, bool) or age < 0:
        raise ConfigError(f"{age!r} is not a number of seconds", path=(*base, "access_control_max_age"))
    options = CorsOptions(
        origins=names("allow_origins", ()),
        origin_pattern=compiled,
        credentials=bool(given.get("access_control_allow_credentials", False)),
        methods=tuple(name.upper() for name in names("allow_methods", CorsOptions.methods)),
        headers=names("allow_headers", CorsOptions.headers),
        max_age=age,
        expose=names("expose_headers", ()),
    )
    if options.credentials and "*" in options.origins:
        raise ConfigError(
            "any page could act with its visitor's cookies: credentials and the origin '*' do not go together",
            path=(*base, "access_control_allow_origins"),
            hint="name the origins",
        )
    return options
