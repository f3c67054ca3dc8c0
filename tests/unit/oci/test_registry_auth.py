"""Challenges, scopes and tokens, without a network."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest

from bentotool.errors import AuthenticationError, UnsafeError
from bentotool.oci.auth import Authenticator, Challenge, Scope, parse_challenges
from bentotool.oci.credentials import Credentials
from bentotool.oci.origins import Origin

HOME = Origin("https", "r.example", 443)
BEARER = 'Bearer realm="https://auth.example/token",service="r.example",scope="repository:x:*"'


class TokenService:
    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, Mapping[str, str], list[tuple[str, str]]]] = []

    def __call__(self, method: str, url: str, headers: Mapping[str, str], parameters: list[tuple[str, str]]) -> bytes:
        self.asked.append((method, url, headers, parameters))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def make(service: TokenService, credentials: Credentials | None = None, home: Origin = HOME) -> Authenticator:
    return Authenticator("r.example", home, lambda repository, actions: credentials, service)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            BEARER,
            [("bearer", {"realm": "https://auth.example/token", "service": "r.example", "scope": "repository:x:*"})],
        ),
        ("basic", [("basic", {})]),
        (
            'Basic realm="a, bearer b", Bearer realm="c"',
            [("basic", {"realm": "a, bearer b"}), ("bearer", {"realm": "c"})],
        ),
        (
            'Negotiate abc=, Basic realm="a", Bearer realm="b",scope="x y"',
            [("basic", {"realm": "a"}), ("bearer", {"realm": "b", "scope": "x y"})],
        ),
        ('Bearer realm="a\\"b", service=c', [("bearer", {"realm": 'a"b', "service": "c"})]),
        ("Digest x", []),
        ("", []),
    ],
)
def test_challenges(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(header) == [Challenge(*each) for each in expected]


def test_a_scope_asks_for_no_more_than_it_needs() -> None:
    assert Scope().parts() == ()
    assert Scope("a/b").parts() == ("repository:a/b:pull",)
    assert Scope("a/b", ("pull", "push"), "c").parts() == ("repository:a/b:pull,push", "repository:c:pull")
    assert Scope("a/b", mount_from="a/b").parts() == ("repository:a/b:pull",)


def test_tokens_are_kept_per_scope() -> None:
    service = TokenService(b'{"token": "one"}', b'{"token": "two"}')
    authenticator = make(service, Credentials("u", "p"))
    assert authenticator.answer(BEARER, Scope("a"), None) == "Bearer one"
    assert authenticator.value_for(Scope("a")) == "Bearer one"
    assert authenticator.value_for(Scope("b")) is None
    assert authenticator.answer(BEARER, Scope("b"), None) == "Bearer two"
    assert authenticator.value_for(Scope("a")) == "Bearer one"
    assert [dict(asked[3])["scope"] for asked in service.asked] == ["repository:a:pull", "repository:b:pull"]
    assert all(asked[2] == {"Authorization": Credentials("u", "p").basic} for asked in service.asked)


def test_without_credentials_the_token_is_anonymous() -> None:
    service = TokenService(b'{"token": "anonymous"}')
    assert make(service).answer(BEARER, Scope("a"), None) == "Bearer anonymous"
    assert service.asked[0][2] == {}


@pytest.mark.parametrize(("life", "good", "bad"), [(100, 94, 96), (2, 1.4, 1.6)])
def test_a_token_that_ran_out_is_made_anew_before_it_is_sent(life: float, good: float, bad: float) -> None:
    now = [0.0]
    service = TokenService(b'{"token": "one", "expires_in": %d}' % life, b'{"token": "two"}')
    authenticator = Authenticator("r.example", HOME, lambda *asked: None, service, lambda: now[0])
    authenticator.answer(BEARER, Scope("a"), None)
    now[0] = good
    assert authenticator.value_for(Scope("a")) == "Bearer one"
    now[0] = bad
    assert authenticator.value_for(Scope("a")) == authenticator.value_for(Scope("a")) == "Bearer two"
    assert len(service.asked) == 2


def test_the_same_token_again_ends_the_tries() -> None:
    authenticator = make(TokenService(b'{"token": "t"}'))
    value = authenticator.answer(BEARER, Scope("a"), None)
    with pytest.raises(AuthenticationError, match="refused the credentials"):
        authenticator.answer(BEARER, Scope("a"), value)


def test_one_refresh_serves_all_threads() -> None:
    service = TokenService(b'{"token": "old"}', b'{"token": "new"}')
    authenticator = make(service)
    authenticator.answer(BEARER, Scope("a"), None)
    values: list[str] = []
    threads = [
        threading.Thread(target=lambda: values.append(authenticator.answer(BEARER, Scope("a"), "Bearer old")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert values == ["Bearer new"] * 8
    assert len(service.asked) == 2


def test_bearer_is_preferred_to_sending_the_password() -> None:
    service = TokenService(b'{"token": "t"}')
    assert make(service, Credentials("u", "p")).answer(f'Basic realm="x", {BEARER}', Scope("a"), None) == "Bearer t"


def test_basic_needs_credentials() -> None:
    with pytest.raises(AuthenticationError, match="asks for a user name") as caught:
        make(TokenService(b"")).answer('Basic realm="x"', Scope("a"), None)
    assert caught.value.hint == "bentotool login r.example"


@pytest.mark.parametrize(
    ("home", "realm", "allowed"),
    [
        (HOME, "https://elsewhere.example/token", True),
        (HOME, "http://r.example/token", False),
        (HOME, "http://elsewhere.example/token", False),
        (Origin("http", "localhost", 5000), "http://localhost:5000/token", True),
        (Origin("http", "localhost", 5000), "http://localhost:5001/token", False),
        (Origin("http", "localhost", 5000), "http://elsewhere.example/token", False),
        (Origin("http", "localhost", 5000), "https://elsewhere.example/token", True),
        (HOME, "ftp://r.example/token", False),
        (HOME, "https://user@elsewhere.example/token", False),
        (HOME, "https:///token", False),
    ],
)
def test_realm_rules(home: Origin, realm: str, allowed: bool) -> None:
    service = TokenService(b'{"token": "t"}')
    authenticator = make(service, Credentials("u", "p"), home)
    if allowed:
        assert authenticator.answer(f'Bearer realm="{realm}"', Scope("a"), None) == "Bearer t"
    else:
        with pytest.raises(UnsafeError):
            authenticator.answer(f'Bearer realm="{realm}"', Scope("a"), None)
        assert service.asked == []
