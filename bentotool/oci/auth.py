"""Answers to a registry's authentication challenges (RFC 9110 §11, distribution's token and OAuth2 specifications)."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import oras.auth.base

from bentotool.errors import AuthenticationError, UnsafeError
from bentotool.oci.credentials import Credentials
from bentotool.oci.origins import Origin, origin_of
from bentotool.oci.reference import hub_hint

__all__ = ["TOKEN_LIMIT", "Authenticator", "Challenge", "Scope", "TokenFetcher", "parse_challenges"]

TOKEN_LIMIT = 64 << 10
"""Largest answer of a token server that is read, in bytes."""
_PARAMETER = re.compile(r'([a-zA-Z][\w-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))', re.ASCII)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_SCHEME = re.compile(r"(?:^|,\s*)(basic|bearer)(?=\s|,|$)", re.ASCII | re.IGNORECASE)
_TOKEN = re.compile(r"[\x21-\x7e]+", re.ASCII)
_MARGIN = 5.0  # seconds a token must still live to be worth sending; a quarter of its life where that is less
_MINIMUM_LIFE = 60.0  # what the token specification says when expires_in is absent


@dataclass(frozen=True)
class Scope:
    """What a request needs: actions on its repository, and reading another one for a cross-repository mount."""

    repository: str = ""
    actions: tuple[str, ...] = ("pull",)
    mount_from: str = ""

    def parts(self) -> tuple[str, ...]:
        """The ``scope`` parameters asked of a token server: never more than the request needs."""
        wanted = [f"repository:{self.repository}:{','.join(self.actions)}"] if self.repository else []
        if self.mount_from and self.mount_from != self.repository:
            wanted.append(f"repository:{self.mount_from}:pull")
        return tuple(wanted)


@dataclass(frozen=True)
class Challenge:
    """One entry of ``WWW-Authenticate``: ``basic`` or ``bearer`` with its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """The Basic and Bearer challenges of a ``WWW-Authenticate`` header; others are left out."""
    found = []
    header = header[:8192]
    # What stands in quotes is no scheme, whatever it looks like.
    matches = list(_SCHEME.finditer(_QUOTED.sub(lambda quoted: "_" * len(quoted[0]), header)))
    for index, match in enumerate(matches):
        end = matches[index + 1].start() if index + 1 < len(matches) else len(header)
        parameters = {
            name.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else bare
            for name, quoted, bare in _PARAMETER.findall(header[match.end() : end])
        }
        found.append(Challenge(match[1].lower(), parameters))
    return found


TokenFetcher = Callable[[str, str, Mapping[str, str], "list[tuple[str, str]]"], bytes]
"""``(method, url, headers, parameters)`` → body: one bounded request to a token server, without redirects."""


class Authenticator(oras.auth.base.AuthBackend):  # type: ignore[misc]
    """Keeps one Authorization value per scope of one registry, and makes it anew when it is refused.

    oras' own back ends keep a single token per client, and give it to whatever host asks.

    Args:
        registry: name of the registry, for messages and the look-up of credentials.
        home: where the registry is; nothing made here is meant for another origin.
        find: looks credentials up; called at most once per repository.
        fetch: makes requests to token servers.
    """

    def __init__(
        self,
        registry: str,
        home: Origin,
        find: Callable[[str, tuple[str, ...]], Credentials | None],
        fetch: TokenFetcher,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._registry = registry
        self._home = home
        self._find = find
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.RLock()
        self._values: dict[tuple[str, ...], tuple[str, float]] = {}
        self._challenges: dict[tuple[str, ...], str] = {}
        self._credentials: dict[str, Credentials | None] = {}

    def get_auth_header(self) -> dict[str, str]:
        """Headers that hold without a scope; for code of oras."""
        value = self.value_for(Scope())
        return {"Authorization": value} if value else {}

    def value_for(self, scope: Scope) -> str | None:
        """The Authorization value known for ``scope``, or None.

        One that has run out is made anew here: a request that is refused for it has sent its body for nothing.

        Raises:
            AuthenticationError: when there is none to be had any more.
        """
        with self._lock:
            value, expires = self._values.get(scope.parts(), (None, 0.0))
            if value is None or expires > self._clock():
                return value
            return self._make(self._challenges[scope.parts()], scope, None)

    def answer(self, header: str, scope: Scope, refused: str | None) -> str:
        """A new Authorization value for a request that got 401.

        Args:
            header: its ``WWW-Authenticate``.
            scope: what the request needs.
            refused: the value the request carried, if any.

        Raises:
            AuthenticationError: when there is nothing (more) to answer with.
            UnsafeError: when the challenge points to a place that must not see credentials.
        """
        with self._lock:
            # Another thread may have renewed the value while this one's request was under way.
            current = self.value_for(scope)
            if current and current != refused:
                return current
            return self._make(header, scope, refused)

    def _make(self, header: str, scope: Scope, refused: str | None) -> str:
        challenges = parse_challenges(header)
        bearer = next((c for c in challenges if c.scheme == "bearer"), None)
        if bearer is not None:
            value, lifetime = self._bearer(bearer, scope)
        elif any(c.scheme == "basic" for c in challenges):
            value, lifetime = self._basic(scope), float("inf")
        else:
            raise AuthenticationError(f"registry {self._registry} asks for an unknown kind of authentication")
        if value == refused:
            raise self._refused(scope)
        expires = self._clock() + lifetime - min(_MARGIN, lifetime / 4)
        self._values[scope.parts()], self._challenges[scope.parts()] = (value, expires), header
        return value

    def _refused(self, scope: Scope) -> AuthenticationError:
        credentials = self._credentials.get(scope.repository)
        place = f" in {credentials.source}" if credentials is not None and credentials.source else ""
        return AuthenticationError(
            f"registry {self._registry} refused the credentials{place}",
            hint=hub_hint(self._registry, f"bentotool login {self._registry}"),
        )

    def _lookup(self, scope: Scope) -> Credentials | None:
        if scope.repository not in self._credentials:
            self._credentials[scope.repository] = self._find(scope.repository, scope.actions)
        return self._credentials[scope.repository]

    def _basic(self, scope: Scope) -> str:
        credentials = self._lookup(scope)
        if credentials is None or not credentials.username:
            raise AuthenticationError(
                f"registry {self._registry} asks for a user name and password",
                hint=hub_hint(self._registry, f"bentotool login {self._registry}"),
            )
        return credentials.basic

    def _bearer(self, challenge: Challenge, scope: Scope) -> tuple[str, float]:
        realm = challenge.parameters.get("realm", "")
        target = origin_of(realm)
        if target.scheme != "https" and target != self._home:
            raise UnsafeError(
                f"registry {self._registry} sends log-ins to {target}, which is another host without encryption",
                hint="nothing was sent there; ask the registry's operator for an https token service",
            )
        credentials = self._lookup(scope)
        parameters = [("scope", part) for part in scope.parts()]
        if service := challenge.parameters.get("service"):
            parameters.insert(0, ("service", service))
        headers: dict[str, str] = {}
        method = "GET"
        if credentials is not None and credentials.identity_token:
            method = "POST"
            parameters += [("grant_type", "refresh_token"), ("refresh_token", credentials.identity_token)]
            parameters.append(("client_id", "bentotool"))
        elif credentials is not None:
            headers["Authorization"] = credentials.basic
        return self._read_token(self._fetch(method, realm, headers, parameters))

    def _read_token(self, body: bytes) -> tuple[str, float]:
        try:
            document: Any = json.loads(body)
            token = document.get("token") or document.get("access_token")
            lifetime = float(document.get("expires_in") or _MINIMUM_LIFE)
        except (ValueError, AttributeError, TypeError, RecursionError):
            raise AuthenticationError(
                f"the token service of registry {self._registry} did not answer with JSON"
            ) from None
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise AuthenticationError(f"the token service of registry {self._registry} gave no token")
        # A token that is said to have run out already lives until it is refused.
        return f"Bearer {token}", min(lifetime, 86400.0) if lifetime > 0 else _MINIMUM_LIFE
