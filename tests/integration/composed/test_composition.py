"""Services that call one another, each in worker processes of its own."""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import bentotool
from bentotool.client.serving import Server
from bentotool.sdk.elsewhere import Elsewhere

LIMIT = 30.0
THREE = Path(__file__).with_name("three.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("three")
    shutil.copy(THREE, found / "service.py")
    return found


@pytest.fixture(scope="module", params=["socket", "tcp"])
def server(folder: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    environment = {"BENTOTOOL_NO_UDS": "1"} if request.param == "tcp" else {}
    with bentotool.serve(folder, environment=environment) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def _client() -> Iterator[None]:
    """One for all: to make one takes longer than a call."""
    global CLIENT
    with httpx.Client(timeout=LIMIT) as CLIENT:
        yield


CLIENT: httpx.Client


def post(server: Server, name: str, headers: dict[str, str] | None = None, **named: Any) -> httpx.Response:
    return CLIENT.post(f"{server.url}/front/{name}", json=named, headers=headers)


def call(server: Server, name: str, **named: Any) -> Any:
    answer = post(server, name, **named)
    assert answer.status_code == 200, answer.text
    return answer.json() if answer.headers["content-type"] == "application/json" else answer.text


def test_each_service_has_processes_of_its_own(server: Server) -> None:
    pids = call(server, "where")
    assert len(set(pids)) == 3
    assert call(server, "ready") is True


def test_three_at_once(server: Server) -> None:
    call(server, "together", seconds=0)
    started = time.monotonic()
    pids = call(server, "together", seconds=1.0)
    assert time.monotonic() - started < 2.0  # one after the other they would take 3 s
    assert len(set(pids)) >= 2


def test_values_keep_their_types(server: Server) -> None:
    assert call(server, "scale", values=[1, 2.5]) == [3.0, 7.5]
    assert call(server, "mirror", x=1, y=2) == [2.0, 1.0]
    assert call(server, "twice", word="ab") == "abab"
    assert call(server, "told") == ["1 /told", "2 /told"]


def test_exceptions_keep_their_type(server: Server) -> None:
    assert call(server, "caught", how="quota") == "quota 429: that is enough"
    assert call(server, "caught", how="value") == "ValueError('wrong')"
    assert call(server, "caught", how="key") == "KeyError('wrong')"
    assert call(server, "caught", how="panic") == "RuntimeError('it raised Panic: wrong')"
    assert call(server, "caught", how="exit") == "RuntimeError('it raised SystemExit: wrong')"
    assert call(server, "caught", how="worn") == "belt after 70 hours: belt, 70"
    assert call(server, "caught", how="limit") == "429: limit of rows: rows"
    assert "too many positional arguments" in call(server, "wrong_call")
    refused = post(server, "passed_on", how="quota")
    assert (refused.status_code, refused.json()["error"]["message"]) == (429, "that is enough")
    assert post(server, "passed_on", how="value").status_code == 500


def test_streams_keep_their_borders(server: Server) -> None:
    assert call(server, "count", n=4) == ["0", "1", "2", "3", "0"]
    assert call(server, "lines", n=2) == [[0, 0], [1, 1]]
    assert call(server, "lines", n=3) == [[0, 0], [1, 1], [2, 2], [429]]
    with CLIENT.stream("POST", f"{server.url}/front/stream", json={"n": 200}) as answer:
        assert "".join(answer.iter_text()) == "".join(str(number) for number in range(200))


@pytest.mark.parametrize("how", ["cancel", "exit", "odd"])
def test_a_stream_that_breaks_off_over_there_ends_here(server: Server, how: str) -> None:
    headers = {"accept": "text/event-stream"}
    text = post(server, "broken", how=how, headers=headers).text
    assert text.startswith("data: one\n\nevent: error\ndata: ")
    assert ("wrong \ufffd" in text) == (how == "odd")
    with pytest.raises(httpx.RemoteProtocolError):
        post(server, "broken", how=how)


def test_trace_context_and_request_id_travel(server: Server) -> None:
    sent = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x-request-id": "from-outside"}
    found = post(server, "trace", headers=sent).json()
    assert found["x-request-id"] == "from-outside"
    assert found["traceparent"].split("-")[1] == sent["traceparent"].split("-")[1]


def test_deadlines_travel_and_what_is_late_is_cancelled(server: Server) -> None:
    before, started = call(server, "noticed"), time.monotonic()
    answer = post(server, "hurried", headers={"x-request-timeout-ms": "400"})
    assert time.monotonic() - started < 10
    assert answer.status_code == 504 or answer.text == "deadline_exceeded"
    end = time.monotonic() + LIMIT
    while call(server, "noticed") <= before and time.monotonic() < end:
        time.sleep(0.05)
    assert call(server, "noticed") > before


def test_a_lost_worker_is_an_error_of_its_own_and_replaced(server: Server) -> None:
    assert call(server, "kill") == "RemoteException 503"
    assert call(server, "scale", values=[1]) == [3.0]


def test_the_documents_are_below_the_prefix(server: Server) -> None:
    assert CLIENT.get(f"{server.url}/front/readyz").status_code == 200
    assert "/front/together" in CLIENT.get(f"{server.url}/front/docs.json").json()["paths"]
    assert CLIENT.post(f"{server.url}/together", json={"seconds": 0}).status_code == 404


def test_metrics_of_all_services(server: Server) -> None:
    call(server, "scale", values=[1])
    text = CLIENT.get(f"{server.url}/front/metrics").text
    assert 'endpoint="/scale"' in text


def test_a_worker_killed_under_load(folder: Path) -> None:
    """Only what it had in hand fails; the server stays ready and the others never notice."""
    with bentotool.serve(folder) as server:
        call(server, "where")

        def one(number: int) -> tuple[int, str]:
            seconds = 0.05 if number % 2 else 0.0
            answer = post(server, "pid", seconds=seconds)
            return answer.status_code, answer.text

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            first = [pool.submit(one, number) for number in range(100)]
            victims = {int(found.result()[1]) for found in first if found.result()[0] == 200}
            assert len(victims) == 2
            load = [pool.submit(one, number) for number in range(600)]
            time.sleep(0.3)
            victim = victims.pop()
            os.kill(victim, 9)
            outcomes = [found.result() for found in load]
        failed = [text for status, text in outcomes if status != 200]
        assert all("its worker was lost" in text for text in failed), failed
        assert len(failed) <= 16  # no more than were under way at that moment
        assert {status for status, _ in outcomes} <= {200, 503}
        pids = {int(one(1)[1]) for _ in range(20)}
        assert victim not in pids
        assert "restarting" in server.log


def test_an_entry_worker_killed_under_load(folder: Path) -> None:
    with bentotool.serve(folder, workers=2) as server:
        found = {call(server, "where")[0] for _ in range(60)}
        with concurrent.futures.ThreadPoolExecutor(8) as pool:

            def one(_number: int) -> int:
                try:
                    return post(server, "pid", seconds=0.02).status_code
                except httpx.TransportError:
                    return 0

            load = [pool.submit(one, number) for number in range(200)]
            time.sleep(0.2)
            os.kill(found.pop(), 9)
            outcomes = [status.result() for status in load]
        assert outcomes.count(200) >= 200 - 8
        assert set(outcomes) <= {200, 0}


@pytest.mark.parametrize("options", [[], ["--development"]])
def test_ready_is_who_can_be_called_and_says_so(folder: Path, tmp_path: Path, options: list[str]) -> None:
    sign = tmp_path / "sign"
    with bentotool.serve(folder, options=options, environment={"NOT_READY": str(sign)}) as server:
        assert CLIENT.get(f"{server.url}/front/readyz").status_code == 200
        sign.touch()
        answer = CLIENT.get(f"{server.url}/front/readyz")
        assert answer.status_code == 503
        expected = "service Numbers: the service says that it is not ready"
        assert answer.json()["error"]["message"] == expected
        if not options:
            assert call(server, "ready") is False
        sign.unlink()
        assert CLIENT.get(f"{server.url}/front/readyz").status_code == 200


def test_in_development_all_is_one_process(folder: Path) -> None:
    with bentotool.serve(folder, options=["--development"]) as server:
        assert len(set(call(server, "where"))) == 1
        assert call(server, "scale", values=[1, 2]) == [3.0, 6.0]
        assert call(server, "told") == ["1 /told", "2 /told"]
        assert call(server, "twice", word="ab") == "abab"
        assert call(server, "lines", n=2) == [[0, 0], [1, 1]]
        assert call(server, "caught", how="quota") == "quota 429: that is enough"


AWAY = """
import bentotool

@bentotool.service
class Away:
    by_url = bentotool.depends(url="{url}/front")
    by_name = bentotool.depends(deployment="three")

    @bentotool.api
    def scale(self, values: list[float]) -> list[float]:
        return self.by_url.scale(values=values)

    @bentotool.api
    async def named(self, values: list[float]) -> list[float]:
        return await self.by_name.to_async.scale(values=values)

    @bentotool.api
    def refused(self) -> str:
        try:
            self.by_url.passed_on(how="quota")
        except bentotool.exceptions.BentoMLException as error:
            return f"{{error.http_status}} {{error}}"
        return "none"
"""


def test_by_url_and_by_deployment(server: Server, tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(AWAY.format(url=server.url))
    known = {"BENTOTOOL_DEPENDS": f"three={server.url}/front"}
    with bentotool.serve(tmp_path, environment=known) as away:
        client = away.client()
        assert client.scale(values=[1]) == [3.0]
        assert client.named(values=[2]) == [6.0]
        assert client.refused() == "429 that is enough"


def test_callers_do_not_learn_where_a_dead_service_stands(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "service.py").write_text(AWAY.format(url="http://127.0.0.1:9"))
    with bentotool.serve(tmp_path, environment={"BENTOTOOL_DEPENDS": "three=http://127.0.0.1:9/three"}) as away:
        for name in ("scale", "named"):
            answer = CLIENT.post(f"{away.url}/{name}", json={"values": [1]})
            assert answer.status_code == 503
            assert "the service that this one asks does not answer" in answer.json()["error"]["message"]
            assert "127.0.0.1" not in answer.text
            assert answer.headers["retry-after"] == "1"
    with pytest.raises(bentotool.exceptions.ServiceUnavailable, match="does not answer"):
        Elsewhere("http://127.0.0.1:9").scale(values=[1])
    assert "scale at http://127.0.0.1:9: " in caplog.text


def test_a_deployment_whose_address_nobody_knows(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(AWAY.format(url="http://127.0.0.1:9"))
    with pytest.raises(bentotool.errors.ServiceLoadError, match="address of deployment 'three' is not known"):
        bentotool.serve(tmp_path)


def test_nothing_is_left_behind(folder: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with bentotool.serve(folder, environment={"TMPDIR": str(scratch)}) as server:
        call(server, "where")
        if os.name == "posix":
            [sockets] = scratch.glob("bentotool-calls-*")
            assert sockets.stat().st_mode & 0o777 == 0o700
    assert not list(scratch.iterdir())
