"""The store on a real Redis server: the contract, deaths, and a service whose tasks it keeps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from bentotool_redis.opening import open_store, read_address

import bentotool
from bentotool.build.configfile import load_config
from bentotool.build.taskstores import task_store_requirements
from bentotool.client.http import ResultStatus
from bentotool.errors import ConfigError
from bentotool.exceptions import ServiceUnavailable
from bentotool.runtime.tasks.records import Message, NewTask, TaskRecord
from bentotool.testing import check_task_store

JSON = {"content-type": "application/json"}
SERVICE = """
import asyncio, os, time
import bentotool

@bentotool.service(workers=2, tasks={"lease": 2.0})
class Work:
    @bentotool.task(parallel=2)
    async def hold(self, number: int) -> int:
        while not os.path.exists(os.environ["GO"]):
            await asyncio.sleep(0.02)
        return number

    @bentotool.task(parallel=4)
    def double(self, x: int) -> dict[str, int]:
        time.sleep(0.2)  # long enough for the other server to look, which was not told of it
        return {"x": 2 * x, "by": os.getppid()}
"""


@pytest.mark.parametrize(
    ("value", "needed"), [("redis://h", True), ("rediss://h/1", True), ("/data", False), ("", False), ("no://h", False)]
)
def test_a_bento_that_names_a_redis_gets_the_package(tmp_path: Path, value: str, needed: bool) -> None:
    (tmp_path / "service.py").write_text("")
    (tmp_path / "bentofile.yaml").write_text(f"service: service\nenvs:\n- name: BENTOTOOL_TASKS\n  value: '{value}'\n")
    added = task_store_requirements(load_config(tmp_path).config.envs)
    assert added == (("bentotool-redis",) if needed else ())


def test_it_keeps_the_contract(server: Any) -> None:
    check_task_store(lambda: open_store(server.address, "Work"))


def test_services_and_prefixes_are_apart(server: Any) -> None:
    stores = [
        open_store(server.address, "A"),
        open_store(server.address, "B"),
        open_store(f"{server.address}?prefix=x", "A"),
    ]
    for number, store in enumerate(stores):
        store.submit([NewTask(f"{number:032x}", "work", Message(JSON, b"{}"))])
    assert [[claim.id[-1] for claim in store.claim("work", "o", 9, 5.0)] for store in stores] == [["0"], ["1"], ["2"]]
    for store in stores:
        store.close()


def test_what_was_submitted_survives_the_server(server: Any) -> None:
    store = open_store(server.address, "Work")
    (record,) = store.submit([NewTask("1" * 32, "work", Message(JSON, b"\0\xff"))])
    assert isinstance(record, TaskRecord)
    server.kill()
    with pytest.raises(Exception, match="Connection|refused|closed"):
        store.get("work", record.id)
    server.start()
    assert store.get("work", record.id) == record  # the same store goes on
    assert store.claim("work", "o", 1, 5.0)[0].request.body == b"\0\xff"
    store.close()


def test_addresses(server: Any) -> None:
    assert read_address("rediss://u:p@h:1/2?prefix=a.b&db=3") == ("rediss://u:p@h:1/2?db=3", "a.b")
    with pytest.raises(ConfigError, match="no prefix"):
        read_address("redis://h?prefix={x}")
    server.kill()
    with pytest.raises(ConfigError, match="cannot be kept in redis at 127") as caught:
        open_store(server.address.replace("://", "://user:s3cret@"), "Work")
    assert "s3cret" not in str(caught.value)
    server.start("--requirepass", "right")
    with pytest.raises(ConfigError, match="cannot be kept") as caught:
        open_store(server.address.replace("://", "://:wrong@"), "Work")
    assert "wrong@" not in str(caught.value)
    open_store(server.address.replace("://", "://:right@"), "Work").close()


def test_two_servers_share_it_and_it_may_go_away(server: Any, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "service.py").write_text(SERVICE)
    environment = {"BENTOTOOL_TASKS": server.address, "GO": str(tmp_path / "go")}
    with (
        bentotool.serve(folder, environment=environment) as first,
        bentotool.serve(folder, environment=environment) as second,
    ):
        one, two = first.client(retries=0), second.client()
        tasks = [one.double.submit(x=number) for number in range(40)]
        results = [two.double.task(task.id).result(30) for task in tasks]
        assert [result["x"] for result in results] == [2 * number for number in range(40)]
        assert len({result["by"] for result in results}) == 2
        held = one.hold.submit(number=7)
        while held.get_status() is not ResultStatus.IN_PROGRESS:
            time.sleep(0.02)
        server.kill()
        with pytest.raises(ServiceUnavailable, match="queue of the tasks"):
            one.double.submit(x=1)
        (tmp_path / "go").touch()  # it ends while there is nobody to be told
        time.sleep(0.3)
        server.start()
        assert held.result(30) == 7
        assert held.status().attempt == 1
