"""Updates in place, seen from clients that no library helps: kept connections, streams, uploads, new connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.timeout(300)

DRAIN = 3
OPTIONS = ("--drain", str(DRAIN), "--grace", "30", "--port", "0")
PIECES, EVERY = 60, 0.1


@dataclass
class Seen:
    """What clients met."""

    answers: list[str] = field(default_factory=list)
    streams: list[list[str]] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stopping: bool = False

    @contextlib.contextmanager
    def noting(self, what: str) -> Any:
        try:
            yield
        except (OSError, asyncio.IncompleteReadError, AssertionError, ValueError) as error:
            self.failed.append(f"{what}: {error!r}")


@dataclass
class Wire:
    """One connection, with requests and answers of HTTP/1.1 as they are."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, method: str, body: bytes, *, length: int | None = None) -> None:
        head = f"POST /{method} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
        self.writer.write(f"{head}content-length: {length or len(body)}\r\n\r\n".encode() + body)

    async def head(self) -> dict[str, str]:
        first, *rest = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        assert first.startswith("HTTP/1.1 200"), first
        return dict(line.lower().split(": ", 1) for line in rest if line)

    async def answer(self) -> tuple[str, bool]:
        """The body, and whether the connection may be used again."""
        head = await self.head()
        body = await self.reader.readexactly(int(head["content-length"]))
        return body.decode().strip('"'), head.get("connection") != "close"

    async def pieces(self) -> list[str]:
        """The body of a stream: it has to end as it should."""
        assert (await self.head())["transfer-encoding"] == "chunked"
        found = []
        while size := int(await self.reader.readline(), 16):
            found.append((await self.reader.readexactly(size)).decode())
            await self.reader.readexactly(2)
        return "".join(found).split()


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Wire]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def keeps(url: str, seen: Seen, pause: random.Random) -> None:
    """Uses a connection for as long as the server lets it, with pauses shorter than those in which it drains."""
    while not seen.stopping:
        with seen.noting("kept connection"):
            async with connected(url) as wire:
                usable = True
                while usable and not seen.stopping:
                    wire.send("version", b"{}")
                    text, usable = await wire.answer()
                    seen.answers.append(text)
                    await asyncio.sleep(pause.uniform(0, DRAIN / 3))


async def connects(url: str, seen: Seen) -> None:
    """A connection for each request."""
    while not seen.stopping:
        with seen.noting("new connection"):
            async with connected(url) as wire:
                wire.send("version", b"{}")
                seen.answers.append((await wire.answer())[0])
        await asyncio.sleep(0.02)


async def streams(url: str, seen: Seen) -> None:
    while not seen.stopping:
        with seen.noting("stream"):
            async with connected(url) as wire:
                wire.send("count", json.dumps({"pieces": PIECES, "every": EVERY}).encode())
                seen.streams.append(await wire.pieces())


async def uploads(url: str, seen: Seen) -> None:
    """A body that is sent in six seconds."""
    body = json.dumps({"text": "x" * 6000}).encode()
    while not seen.stopping:
        with seen.noting("upload"):
            async with connected(url) as wire:
                for start in range(0, len(body), 500):
                    if start:
                        wire.writer.write(body[start : start + 500])
                    else:
                        wire.send("measure", body[:500], length=len(body))
                    await wire.writer.drain()
                    await asyncio.sleep(0.5)
                seen.uploads.append((await wire.answer())[0])


def test_nobody_notices_an_update(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    url = project.deploy(name, *OPTIONS, "--env", "VERSION=0").document["url"]
    seen = Seen()

    async def scenario() -> None:
        clients = [keeps(url, seen, random.Random(number)) for number in range(20)]
        clients += [connects(url, seen) for _ in range(2)]
        clients += [streams(url, seen) for _ in range(6)]
        clients += [uploads(url, seen) for _ in range(3)]
        running = asyncio.gather(*clients)
        try:
            for version in range(1, 4):
                await asyncio.to_thread(project.deploy, name, *OPTIONS, "--env", f"VERSION={version}")
        finally:
            seen.stopping = True
            await running

    asyncio.run(scenario())
    assert seen.failed == []
    assert set(seen.answers) == {"0", "1", "2", "3"}
    assert set(seen.uploads) == {"6000"}
    for pieces in seen.streams:  # whole, and from the version that began it
        assert len(pieces) == PIECES
        assert len(set(pieces)) == 1
    assert len(seen.streams) >= 6
    print(f"{len(seen.answers)} answers, {len(seen.streams)} streams, {len(seen.uploads)} uploads, none failed")
