"""What is said of a transfer that broke."""

from __future__ import annotations

import socket

import pytest
import requests

from bentotool.oci.failures import broken
from bentotool.oci.reference import hub_hint


def test_a_registry_that_went_away_was_not_slow() -> None:
    """urllib3 counts a refused connection among the time limits, and nobody waited for 120 seconds."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/v2/"
        with pytest.raises(requests.ConnectionError) as caught:
            requests.get(address, timeout=5, proxies={"http": ""})
    error = broken("the transfer with registry r", caught.value, 120)
    assert "nothing listens there any more" in error.message
    assert error.hint == "the same command goes on with it"


def test_a_name_that_is_gone_was_not_slow() -> None:
    wrapped = requests.ConnectionError(requests.ConnectTimeout(socket.gaierror(-2, "unknown")))
    assert "no way to it" in broken("the transfer", wrapped, 120).message


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (requests.ReadTimeout(), "too little within 120 seconds"),
        (requests.ConnectTimeout(), "takes no connection"),
        (requests.ConnectionError(ConnectionResetError()), "connection lost"),
    ],
)
def test_what_broke_is_told(error: Exception, expected: str) -> None:
    assert expected in broken("the transfer", error, 120).message


def test_at_docker_hub_the_host_may_have_been_forgotten() -> None:
    assert "elsewhere write HOST/REPOSITORY" in hub_hint("docker.io", "check the network")
    assert hub_hint("ghcr.io", "check the network") == "check the network"
