"""Every signature of the zoo, served by a real server and called through our clients and through BentoML's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import zoo
from calls import bentoml_client, called, serving, shown, signature

import bentotool

DOCUMENT = Path(__file__).parents[3] / "docs/signatures.md"
PACKAGES = [package for package, _ in zoo.GROUPS]
pytestmark = [
    pytest.mark.timeout(400),  # a server of all of them starts once: torch and pandas take their time
    pytest.mark.filterwarnings("default"),  # what those packages and BentoML warn of
]


@pytest.fixture(scope="session")
def cases():
    service, cases, refused = zoo.declared(bentotool)
    assert not refused
    assert len({case.name for case in cases}) == len(cases) == len(service.apis)
    return cases


@pytest.fixture(params=sorted({str(package) for package in PACKAGES}))
def some(request: pytest.FixtureRequest, cases, require_package: Callable[[str], None]):
    """The cases whose types come from one package."""
    if request.param != "None":
        require_package(request.param)
    return [case for case in cases if str(case.package) == request.param]


def test_our_client_gets_what_each_gives(some, zoo_url, tmp_path):
    with bentotool.SyncHTTPClient(zoo_url, timeout=60) as client:
        found = {case.name: called(client, case, tmp_path) for case in some}
    assert found == {case.name: case.expected for case in some}


def test_positional_arguments(zoo_url):
    with bentotool.SyncHTTPClient(zoo_url) as client:
        assert client.variadic([3, 1, 2]) == [3, 1, 2]
        assert client.keywords({"a": 1}) == {"a": 1}


def test_the_asynchronous_client_gets_the_same(cases, zoo_url, tmp_path):
    plain = [case for case in cases if case.package is None and not case.task and "stream" not in case.name]

    async def every():
        async with bentotool.AsyncHTTPClient(zoo_url) as client:
            return {case.name: shown(await client.call(case.name, *case.args, **case.kwargs)) for case in plain_ones}

    plain_ones = [case for case in plain if "file" not in case.name and "bytes" not in case.name]
    assert asyncio.run(every()) == {case.name: case.expected for case in plain_ones}


def test_bentomls_client_gets_what_each_gives(some, zoo_url, tmp_path, require_package):
    require_package("bentoml")
    with bentoml_client(zoo_url) as client:
        found = {case.name: called(client, case, tmp_path) for case in some}
    assert found == {case.name: case.theirs for case in some}


def test_bentomls_client_under_a_prefix(tmp_path, require_package):
    require_package("bentoml")
    with serving("bentotool", tmp_path, "/v1") as url, bentoml_client(f"{url}/v1") as client:
        assert client.call("add", a=1, b=2) == 3
        assert client.call("file", f=Path(__file__)) == Path(__file__).stat().st_size


def test_the_page_has_every_signature(cases):
    text = DOCUMENT.read_text("utf-8")
    assert [case.name for case in cases if f"`{signature(case)}`" not in text] == []
    assert len(re.findall(r"^\| `", text, re.MULTILINE)) >= 60


def test_the_page_is_true(require_package):
    """BentoML's servers and ours are called anew; signatures whose packages are not here are not."""
    require_package("bentoml")
    from table import rows

    text = DOCUMENT.read_text("utf-8").splitlines()
    assert [row for row in rows() if row.strip() not in text] == []
