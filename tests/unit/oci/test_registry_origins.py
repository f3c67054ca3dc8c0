"""Which addresses a registry's reply may name."""

from __future__ import annotations

import socket
import sys

import pytest

from bentotool.errors import UnsafeError
from bentotool.oci import origins
from bentotool.oci.origins import Origin, check_reachable, is_internal, origin_of

INTERNAL = """0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.9 192.168.1.1
198.18.0.1 198.19.255.255 224.0.0.1 240.0.0.1 255.255.255.255 :: ::1 fc00::1 fd12::1 fe80::1 fe80::1%eth0 fec0::1
::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 64:ff9b::7f00:1 64:ff9b:1::1 2001::1 2002:7f00:1:: 2002:a00:1:: ff02::1"""
PUBLIC = "1.1.1.1 8.8.8.8 100.128.0.1 172.32.0.1 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::"


@pytest.mark.parametrize("address", INTERNAL.split())
def test_internal_addresses(address: str) -> None:
    assert is_internal(address)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_public_addresses(address: str) -> None:
    assert not is_internal(address)


def test_origins() -> None:
    assert origin_of("HTTPS://R.Example/v2/") == Origin("https", "r.example", 443)
    assert origin_of("http://[::1]:5000/x") == Origin("http", "::1", 5000)
    assert str(Origin("http", "::1", 5000)) == "http://[::1]:5000"


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "gopher://x", "//x", "", "https://", "https://u:p@x/", "https://u@x/", "http://x:99999/",
     "http://a\\b/", "javascript:1", "data:,x"],
)  # fmt: skip
def test_strange_addresses_are_refused(url: str) -> None:
    with pytest.raises(UnsafeError):
        origin_of(url)


@pytest.mark.parametrize(
    ("home", "target", "allowed"),
    [
        ("https://public.example", "https://cdn.example", True),
        ("https://public.example", "http://cdn.example", False),
        ("https://public.example", "http://public.example", False),
        ("https://public.example", "https://inside.example", False),
        ("https://public.example", "https://mixed.example", False),
        ("https://inside.example", "https://inside2.example", True),
        ("https://inside.example", "https://cdn.example", True),
        ("http://inside.example", "http://inside2.example", True),
        ("https://public.example", "https://unknown.example", True),
        ("https://inside.example", "https://mixed.example", False),
        ("https://inside.example", "https://metadata.example", False),
        ("https://inside.example", "https://metadata6.example", False),
        ("https://inside.example", "https://mapped.example", False),
        ("https://unknown.example", "https://link6.example", False),
        ("https://metadata.example", "https://metadata.example:8443", True),
    ],
)
def test_where_a_reply_may_send_us(monkeypatch: pytest.MonkeyPatch, home: str, target: str, allowed: bool) -> None:
    names = {
        "public.example": ["1.1.1.1"],
        "cdn.example": ["8.8.8.8"],
        "inside.example": ["10.0.0.1"],
        "inside2.example": ["192.168.0.1"],
        "mixed.example": ["8.8.8.8", "169.254.169.254"],
        "metadata.example": ["169.254.169.254"],
        "metadata6.example": ["fd00:ec2::254"],
        "mapped.example": ["::ffff:169.254.169.254"],
        "link6.example": ["fe80::1%eth0"],
    }

    def resolve(host: str, port: int, **options: object) -> list[tuple[object, ...]]:
        if host not in names:
            raise socket.gaierror
        return [(0, 0, 0, "", (address, port)) for address in names[host]]

    monkeypatch.setattr(origins.socket, "getaddrinfo", resolve)
    if allowed:
        check_reachable(origin_of(home), origin_of(target))
    else:
        with pytest.raises(UnsafeError):
            check_reachable(origin_of(home), origin_of(target))


def test_only_the_client_itself_loads_the_heavy_libraries() -> None:
    import subprocess

    code = (
        "import sys, bentotool.transfer, bentotool.cli.commands.push, bentotool.cli.commands.pull,"
        " bentotool.cli.commands.login, bentotool.oci.credentials, bentotool.oci.origins;"
        "print(*{'oras', 'requests', 'urllib3', 'jsonschema'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
