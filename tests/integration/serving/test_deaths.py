"""Workers that die, hang or start no more, under load: what callers see, what takes their place, what probes say."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

SERVICE = """
import asyncio, ctypes, os, pathlib, re, resource, signal, time
import bentotool

FOLDER = pathlib.Path(__file__).parent

@bentotool.service(traffic={"timeout": 40}, threads=2)
class Mortal:
    def __init__(self) -> None:
        if (FOLDER / "broken").exists():
            raise RuntimeError("the weights are gone")

    @bentotool.api
    async def pid(self) -> int:
        return os.getpid()

    @bentotool.api
    async def hold(self) -> int:
        while not (FOLDER / "released").exists():
            await asyncio.sleep(0.02)
        return os.getpid()

    @bentotool.api
    def end(self, how: str) -> None:
        if how == "exit":
            os._exit(7)
        if how == "segfault":
            ctypes.string_at(0)
        if how == "loop":
            re.match("(a+)+$", "a" * 60 + "b")
        os.kill(os.getpid(), getattr(signal, how))
        time.sleep(1)

    @bentotool.api
    async def block(self) -> None:
        (FOLDER / "blocking").touch()
        time.sleep(600)

    @bentotool.api
    def hoard(self) -> int:
        hoard = []
        while len(hoard) < 200:
            hoard.append(bytearray(b"x") * (1 << 22))
        return len(hoard)

    @bentotool.api(batchable=True)
    def batch(self, rows: list[int]) -> list[int]:
        if 13 in rows:
            os._exit(7)
        (FOLDER / f"batch-{os.getpid()}").touch()
        while 0 in rows and not (FOLDER / "released").exists():
            time.sleep(0.02)
        return [2 * row for row in rows]

    @bentotool.api
    async def nap(self, seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    @bentotool.api
    def fill(self) -> int:
        used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
        try:
            return len(bytes(1 << 30))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


TLS = ssl.create_default_context()  # made once: it takes longer than a request does


def ask(url: str, path: str, client: httpx.Client | None = None, **body: Any) -> httpx.Response:
    """Over a connection of its own, unless a client is given."""
    if client is not None:
        return client.post(f"{url}/{path}", json=body, timeout=30)
    return httpx.post(f"{url}/{path}", json=body, timeout=30, verify=TLS)


def status_of(url: str, path: str, client: httpx.Client | None = None, **body: Any) -> int:
    """0 where the connection broke."""
    try:
        return ask(url, path, client, **body).status_code
    except httpx.TransportError:
        return 0


def pids(url: str, wanted: int) -> set[int]:
    """Of workers that answer, each asked over a connection of its own; none where one does not answer 200."""
    try:
        found = [ask(url, "pid") for _ in range(8 * wanted)]
    except httpx.TransportError:
        return set()
    return {answer.json() for answer in found} if all(answer.status_code == 200 for answer in found) else set()


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ready(url: str) -> tuple[int, str]:
    answer = httpx.get(f"{url}/readyz", timeout=30)
    return answer.status_code, answer.text


@pytest.fixture
def mortal(serving: Any, tmp_path: Path) -> Any:
    def start(*options: str, stall: float | None = None, **further: Any) -> Any:
        source = SERVICE if stall is None else SERVICE.replace('"timeout": 40', f'"timeout": 40, "max_stall": {stall}')
        return serving(tmp_path / "project", source, *options, **further)

    return start


class Load:
    """Callers, one connection for each request, until told to stop."""

    def __init__(self, url: str, callers: int) -> None:
        self._url, self._stop = url, threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(callers)
        self._calling = [self._pool.submit(self._call) for _ in range(callers)]

    def _call(self) -> list[int]:
        found = []
        while not self._stop.is_set():
            found.append(status_of(self._url, "pid"))
        return found

    def end(self) -> list[int]:
        self._stop.set()
        found = [status for future in self._calling for status in future.result()]
        self._pool.shutdown()
        return found


def in_progress(url: str) -> float:
    """Requests for batches that are being answered, over all workers."""
    text = httpx.get(f"{url}/metrics", timeout=30).text
    found = re.findall(r'_request_in_progress\{[^}]*endpoint="/batch"[^}]*\} (\S+)', text)
    return sum(map(float, found))


def test_a_worker_that_exits_in_the_middle_of_a_batch_takes_that_queue_and_no_more(mortal: Any, wire: Any) -> None:
    with mortal("--workers", "2") as server, contextlib.ExitStack() as stack:
        victim, other = sorted(wire.wait_for(lambda: len(up := pids(server.url, 2)) == 2 and up))
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(12))
        doomed = [stack.enter_context(connection_to(server.url, victim)) for _ in range(6)]
        spared = [stack.enter_context(connection_to(server.url, other)) for _ in range(6)]
        first = [pool.submit(ask, server.url, "batch", client, rows=[0]) for client in (doomed[0], spared[0])]
        wire.wait_for(lambda: all((server.folder / f"batch-{pid}").exists() for pid in (victim, other)))
        rest = [pool.submit(ask, server.url, "batch", spared[number], rows=[number]) for number in range(1, 6)]
        lost = [pool.submit(ask, server.url, "batch", doomed[number - 8], rows=[number]) for number in range(9, 14)]
        wire.wait_for(lambda: in_progress(server.url) == 12)
        (server.folder / "released").touch()
        assert first[1].result().json() == [0]
        assert [call.result().json() for call in rest] == [[2 * number] for number in range(1, 6)]
        assert all(isinstance(call.exception(), httpx.TransportError) for call in lost), "all of the batch, at once"
        wire.wait_for(lambda: len(now := pids(server.url, 2)) == 2 and victim not in now and other in now)
        assert "exit status 7" in server.log
        assert ask(server.url, "batch", rows=[5]).json() == [10]


@contextlib.contextmanager
def connection_to(url: str, pid: int) -> Iterator[httpx.Client]:
    """A client whose kept connection is answered by that worker."""
    while True:
        with httpx.Client(limits=httpx.Limits(max_connections=1), verify=TLS) as client:
            if ask(url, "pid", client).json() == pid:
                yield client
                return


DEATHS = {
    "SIGKILL": "killed by SIGKILL",
    "SIGSTOP": "it was stopped",
    "segfault": "killed by SIGSEGV",
    "exit": "exit status 7",
}


@pytest.mark.parametrize("how", DEATHS)
def test_a_death_takes_what_that_worker_was_answering_and_no_more(mortal: Any, wire: Any, how: str) -> None:
    with mortal("--workers", "2") as server:
        victim, other = sorted(wire.wait_for(lambda: len(up := pids(server.url, 2)) == 2 and up))
        load = Load(server.url, 4)
        with contextlib.ExitStack() as stack:
            pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(2))
            doomed, killer = (stack.enter_context(connection_to(server.url, victim)) for _ in range(2))
            spared = stack.enter_context(connection_to(server.url, other))
            broken, whole = (pool.submit(ask, server.url, "hold", client) for client in (doomed, spared))
            assert status_of(server.url, "end", killer, how=how) == 0
            assert isinstance(broken.exception(), httpx.TransportError), "at once, although it would have lasted on"
            wire.wait_for(lambda: len(now := pids(server.url, 2)) == 2 and victim not in now and other in now)
            (server.folder / "released").touch()
            assert whole.result().json() == other
        statuses = load.end()
        assert set(statuses) <= {200, 0}
        assert statuses.count(0) <= 4, "no more than were under way"
        assert ready(server.url)[0] == 200
        assert not exists(victim), "not even as a zombie"
        assert DEATHS[how] in server.log
        assert server.stop() == 0
        assert not exists(other)


def test_what_hangs_as_a_whole_is_noticed_by_its_silence(mortal: Any, wire: Any) -> None:
    """Code that never lets go of the interpreter."""
    with mortal("--workers", "2", stall=4) as server:
        victim, other = sorted(wire.wait_for(lambda: len(up := pids(server.url, 2)) == 2 and up))
        with connection_to(server.url, victim) as client:
            assert status_of(server.url, "end", client, how="loop") == 0
        wire.wait_for(lambda: len(now := pids(server.url, 2)) == 2 and victim not in now and other in now)
        assert "no sign of life" in server.log


def test_a_worker_whose_event_loop_is_blocked_is_replaced(mortal: Any, wire: Any) -> None:
    """An ``async def`` API that sleeps for ten minutes. Who waits there is cut, all others go on."""
    with mortal("--workers", "2", stall=4) as server:
        victim, other = sorted(wire.wait_for(lambda: len(up := pids(server.url, 2)) == 2 and up))
        with contextlib.ExitStack() as stack:
            pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(4))
            blocking, waiting = (stack.enter_context(connection_to(server.url, victim)) for _ in range(2))
            spared = stack.enter_context(connection_to(server.url, other))
            whole = pool.submit(ask, server.url, "hold", spared)
            broken = [pool.submit(ask, server.url, "block", blocking)]
            wire.wait_for(lambda: (server.folder / "blocking").exists())
            broken.append(pool.submit(ask, server.url, "pid", waiting))
            assert all(isinstance(call.exception(), httpx.TransportError) for call in broken), "long before 600 s"
            assert ready(server.url)[0] == 200
            wire.wait_for(lambda: len(now := pids(server.url, 2)) == 2 and victim not in now and other in now)
            (server.folder / "released").touch()
            assert whole.result().json() == other
        assert re.search(
            r"worker \d: its event loop has been blocked for \S+ seconds, at service.py:\d+ \(/block\)", server.log
        )
        assert re.search(
            r"replaced: its event loop was blocked for \S+ seconds, at service.py:\d+ \(/block\)", server.log
        )
        assert not exists(victim)


def test_who_waits_for_the_only_worker_is_answered_by_its_replacement(mortal: Any, wire: Any) -> None:
    with mortal("--workers", "1", stall=4) as server, concurrent.futures.ThreadPoolExecutor(6) as pool:
        before = ask(server.url, "pid").json()
        blocked = pool.submit(status_of, server.url, "block")
        wire.wait_for(lambda: (server.folder / "blocking").exists())
        waiting = [pool.submit(ask, server.url, "pid") for _ in range(4)]  # they are not accepted: no loop turns
        asked = pool.submit(ready, server.url)
        assert blocked.result() == 0
        answers = [call.result() for call in waiting]
        assert {answer.status_code for answer in answers} <= {200, 503}, "503 where it takes long to start"
        assert before not in {answer.json() for answer in answers if answer.status_code == 200}
        assert asked.result()[0] in (200, 503), "not while nobody answers"
        wire.wait_for(lambda: ready(server.url)[0] == 200)


def test_an_event_loop_that_is_slow_is_no_reason_to_replace_a_worker(mortal: Any, wire: Any) -> None:
    """It is blocked for a part of the time it may be, again and again: loading models late, say."""
    with mortal("--workers", "1", stall=10) as server:
        before = pids(server.url, 1)
        for _ in range(2):
            assert ask(server.url, "nap", seconds=2.5).json() in before
        assert pids(server.url, 1) == before
        assert "replaced" not in server.log


def test_code_that_blocks_one_worker_for_long_is_at_first_no_reason_to_end_it(mortal: Any, wire: Any) -> None:
    with mortal("--workers", "2", "--grace", "0") as server:
        victim, other = sorted(wire.wait_for(lambda: len(up := pids(server.url, 2)) == 2 and up))
        with concurrent.futures.ThreadPoolExecutor(1) as pool, connection_to(server.url, victim) as client:
            blocked = pool.submit(status_of, server.url, "block", client)
            wire.wait_for(lambda: (server.folder / "blocking").exists())
            for _ in range(200):
                assert ask(server.url, "pid").json() == other
            assert "replaced" not in server.log
            assert server.stop() == 0
            assert blocked.result() == 0
        assert not exists(victim), "what cannot stop in order is killed"


def test_no_memory_is_one_answer_and_no_death(mortal: Any, wire: Any) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("needs a limit on the address space that holds")
    with mortal() as server:
        before = pids(server.url, 1)
        for _ in range(3):
            answer = ask(server.url, "fill")
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
        assert pids(server.url, 1) == before
        assert "MemoryError" in server.log


def test_a_worker_that_the_system_ended_for_want_of_memory(mortal: Any, wire: Any, tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 0\noom_kill 3\noom_group_kill 0\n")
    prelude = "import pathlib\nfrom bentotool.runtime import causes\n"
    prelude += f"causes.counters = lambda _groups: [pathlib.Path({str(events)!r})]"
    with mortal(prelude=prelude) as server:
        assert status_of(server.url, "end", how="SIGKILL") == 0
        wire.wait_for(lambda: "(killed by SIGKILL)" in server.log and pids(server.url, 1))
        events.write_text("low 0\noom 1\noom_kill 4\noom_group_kill 0\n")
        assert status_of(server.url, "end", how="SIGKILL") == 0
        wire.wait_for(lambda: "(killed by SIGKILL, since memory ran out)" in server.log)


# of version 2 of control groups, and of version 1: where, the limit, that with swap space, what counts the kills
ROOMS = (
    ("/sys/fs/cgroup", "memory.max", "memory.swap.max", "memory.events"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.oom_control"),
)
ROOM = 400_000_000


@pytest.fixture
def small_room() -> Iterator[tuple[Path, Path]]:
    """A control group whose processes have little memory together: where they are named, and its counter."""
    for root, limit, swap, counter in ROOMS:
        group = Path(root, f"bentotool-test-{os.getpid()}")
        with contextlib.suppress(OSError):
            group.mkdir()
            try:
                if not (group / limit).exists():  # a folder like any other
                    continue
                (group / limit).write_text(str(ROOM))
                if (group / swap).exists():
                    (group / swap).write_text("0" if swap == "memory.swap.max" else str(ROOM))
                yield group / "cgroup.procs", group / counter
                return
            finally:
                with contextlib.suppress(OSError):
                    group.rmdir()
    pytest.skip("needs memory control groups that this user may make")


def test_the_kernel_ends_a_worker_for_want_of_memory(mortal: Any, wire: Any, small_room: tuple[Path, Path]) -> None:
    members, counter = small_room
    prelude = f"import os, pathlib\npathlib.Path({str(members)!r}).write_text(str(os.getpid()))"
    with mortal("--workers", "2", prelude=prelude) as server:
        victim, other = sorted(wire.wait_for(lambda: len(up := pids(server.url, 2)) == 2 and up))
        with contextlib.ExitStack() as stack:
            pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(2))
            doomed, greedy = (stack.enter_context(connection_to(server.url, victim)) for _ in range(2))
            spared = stack.enter_context(connection_to(server.url, other))
            broken, whole = (pool.submit(ask, server.url, "hold", client) for client in (doomed, spared))
            assert status_of(server.url, "hoard", greedy) == 0
            assert isinstance(broken.exception(), httpx.TransportError), "at once"
            wire.wait_for(lambda: len(now := pids(server.url, 2)) == 2 and victim not in now and other in now)
            assert ready(server.url)[0] == 200
            (server.folder / "released").touch()
            assert whole.result().json() == other
        assert "(killed by SIGKILL, since memory ran out); restarting in 0 s" in server.log
        assert re.search(r"^oom_kill 1$", counter.read_text(), re.MULTILINE), "it was the kernel"
        assert server.stop() == 0


def test_workers_that_crash_again_and_again_are_reported(mortal: Any, wire: Any) -> None:
    """Five deaths within a minute are a loop; here the minute is shorter."""
    prelude = "from bentotool.runtime import fleet\nfleet._CRASH_WINDOW = 15.0"
    with mortal("--workers", "2", prelude=prelude) as server:
        for number in range(5):
            assert ready(server.url)[0] == 200, f"{number} deaths are no loop"
            assert status_of(server.url, "end", how="SIGKILL") == 0
            wire.wait_for(lambda: pids(server.url, 1))
        status, text = ready(server.url)
        assert (status, "crash in a loop: killed by SIGKILL" in text) == (503, True)
        assert ask(server.url, "pid").status_code == 200, "what there is goes on answering"
        assert httpx.get(f"{server.url}/livez").status_code == 200
        wire.wait_for(lambda: ready(server.url)[0] == 200)


def test_a_worker_that_dies_soon_after_each_start_is_started_ever_later(mortal: Any, wire: Any) -> None:
    with mortal("--workers", "1") as server:
        for _ in range(4):
            wire.wait_for(lambda: status_of(server.url, "end", how="SIGKILL") == 0)
            wire.wait_for(lambda: status_of(server.url, "pid") == 200)
        assert re.findall(r"restarting in (\S+) s", server.log) == ["0", "0.25", "0.5", "1"]


def test_while_no_worker_starts_the_server_says_so(mortal: Any, wire: Any) -> None:
    with mortal("--workers", "1") as server:
        (server.folder / "broken").touch()
        assert status_of(server.url, "end", how="SIGKILL") == 0
        wire.wait_for(lambda: "RuntimeError: the weights are gone" in ready(server.url)[1] or len(server.log) > 1e5)
        status, text = ready(server.url)
        assert (status, "crash in a loop" in text) == (503, True)
        refused = ask(server.url, "pid")
        assert (refused.status_code, int(refused.headers["retry-after"]) >= 1) == (503, True)
        assert httpx.get(f"{server.url}/livez").status_code == 200
        (server.folder / "broken").unlink()
        wire.wait_for(lambda: status_of(server.url, "pid") == 200)
        pauses = [float(found) for found in re.findall(r"restarting in (\S+) s", server.log)]
        assert pauses == sorted(pauses)
        assert pauses[4] >= 1


def test_workers_end_with_their_supervisor_whatever_they_do(mortal: Any, wire: Any) -> None:
    """One blocks its event loop, so that it cannot even be told."""
    with mortal("--workers", "2", "--grace", "0") as server:
        victim, other = sorted(wire.wait_for(lambda: len(up := pids(server.url, 2)) == 2 and up))
        with concurrent.futures.ThreadPoolExecutor(1) as pool, connection_to(server.url, victim) as client:
            blocked = pool.submit(status_of, server.url, "block", client)
            wire.wait_for(lambda: (server.folder / "blocking").exists())
            server.process.kill()
            wire.wait_for(lambda: not exists(other) and not exists(victim))
            assert blocked.result() == 0


@pytest.mark.parametrize("moment", ["import", "init"])
@pytest.mark.parametrize("way", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_is_ended_while_it_loads_leaves_nobody(tmp_path: Path, wire: Any, moment: str, way: int) -> None:
    wait = "pathlib.Path(__file__).with_name('loading').write_text(str(os.getpid())); time.sleep(600)"
    (tmp_path / "service.py").write_text(
        f"import os, pathlib, time\nimport bentotool\n{wait if moment == 'import' else ''}\n@bentotool.service\n"
        f"class S:\n    def __init__(self) -> None:\n        {wait if moment == 'init' else 'pass'}\n"
    )
    command = [sys.executable, "-m", "bentotool.runtime", str(tmp_path), "--port", "0", "--grace", "600"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        note = tmp_path / "loading"
        wire.wait_for(lambda: note.exists() and note.read_text())
        process.send_signal(way)
        assert process.wait(wire.limit) == {signal.SIGTERM: 143, signal.SIGKILL: -9}[way], "and not after ten minutes"
        worker = int(note.read_text())
        wire.wait_for(lambda: not exists(worker))
    finally:
        process.kill()
        process.communicate()


GRAPH = """
import asyncio, os, pathlib, signal, time
import bentotool

FOLDER = pathlib.Path(__file__).parent

@bentotool.service(workers=2, traffic={"timeout": 40})
class Inner:
    @bentotool.api
    async def hold(self, name: str) -> int:
        (FOLDER / name).write_text(str(os.getpid()))
        while not (FOLDER / "released").exists():
            await asyncio.sleep(0.02)
        return os.getpid()

    @bentotool.api
    async def pid(self) -> int:
        return os.getpid()

@bentotool.service(traffic={"timeout": 40})
class Outer:
    inner = bentotool.depends(Inner)

    @bentotool.api
    async def hold(self, name: str) -> int:
        return await self.inner.hold(name)

    @bentotool.api
    async def pid(self) -> int:
        return await self.inner.pid()
"""


def test_callers_of_a_service_behind_another_get_an_answer(serving: Any, tmp_path: Path, wire: Any) -> None:
    with serving(tmp_path / "graph", GRAPH, "--service", "service:Outer") as server:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            first, second = (pool.submit(ask, server.url, "hold", name=name) for name in ("first", "second"))
            holding = {}
            for name in ("first", "second"):
                wire.wait_for(lambda name=name: server.said(name))
                holding[name] = int(server.said(name)[0])
            assert holding["first"] != holding["second"], "each worker has one call"
            os.kill(holding["first"], signal.SIGKILL)
            answer = first.result()
            assert answer.status_code == 503, "an answer, and no broken connection"
            assert int(answer.headers["retry-after"]) >= 1
            for _ in range(20):
                assert ask(server.url, "pid").status_code == 200, "others are answered meanwhile"
            (server.folder / "released").touch()
            assert second.result().json() == holding["second"]
        wire.wait_for(lambda: len({ask(server.url, "pid").json() for _ in range(8)}) == 2)
        assert ready(server.url)[0] == 200
