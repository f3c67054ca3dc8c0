"""Websockets: parameters, messages, how each ends, who may open one."""

import pytest

import bentotool
from bentotool.errors import ConfigError, ServiceLoadError
from bentotool.exceptions import InvalidArgument
from bentotool.runtime import websockets
from bentotool.runtime.websockets import websocket_protocol
from bentotool.testing import TestClient

left = []


@bentotool.service(
    path_prefix="/v1",
    traffic={"max_concurrency": 2},
    http={"allowed_hosts": ["testserver"], "cors": {"enabled": True, "access_control_allow_origins": ["https://a.example"]}},
)  # fmt: skip
class Chat:
    def __init__(self):
        self.seen = 0

    @bentotool.websocket("/rooms/{room}")
    async def talk(self, socket: bentotool.WebSocket, room: str, times: int = 1):
        async for message in socket:
            if message == "refuse":
                raise InvalidArgument("not that word")
            if message == "fail":
                raise RuntimeError("secret")
            if message == "close":
                await socket.close(4000, "enough")
                return
            self.seen += 1
            for _ in range(times):
                if isinstance(message, bytes):
                    await socket.send(message[::-1])
                else:
                    await socket.send_json({"room": room, "message": message, "seen": self.seen})
        left.append(room)

    @bentotool.websocket
    async def plain(self, socket, ctx: bentotool.Context):
        await socket.accept("b", {"x-a": "1"})
        ctx.state["subprotocols"] = socket.subprotocols
        await socket.send_text(socket.headers["host"])
        try:
            await socket.receive()
        except bentotool.WebSocketDisconnect as gone:
            left.append(gone.close_code)
            raise

    @bentotool.websocket
    async def refuses(self, socket: bentotool.WebSocket):
        raise InvalidArgument("nobody")

    @bentotool.websocket
    async def typed(self, socket: bentotool.WebSocket):
        await socket.send_json(await socket.receive_json())
        await socket.receive_text()


@pytest.fixture
def client():
    left.clear()
    with TestClient(Chat) as found:
        yield found


def test_messages_of_both_kinds(client):
    with client.websocket("/v1/rooms/red?times=2") as socket:
        socket.send("hello")
        assert [socket.receive_json()["room"] for _ in range(2)] == ["red", "red"]
        socket.send(b"abc")
        assert [socket.receive() for _ in range(2)] == [b"cba", b"cba"]
    assert left == ["red"], "the loop over messages ended with the connection"
    assert client.app.in_flight == 0


@pytest.mark.parametrize(
    ("word", "code", "reason"),
    [("close", 4000, "enough"), ("refuse", 1008, "not that word"), ("fail", 1011, "the service failed")],
)
def test_endings(client, word, code, reason):
    with client.websocket("/v1/rooms/red") as socket:
        socket.send(word)
        with pytest.raises(bentotool.WebSocketDisconnect) as ended:
            socket.receive()
    assert (ended.value.close_code, ended.value.reason) == (code, reason)


def test_accepting_with_a_subprotocol(client):
    with client.websocket("/v1/plain", subprotocols=("a", "b")) as socket:
        assert socket.subprotocol == "b"
        assert socket.receive() == "testserver"
    assert left == [1001]
    assert client.app.state["subprotocols"] == ("a", "b")


def test_json_and_the_wrong_kind_of_message(client):
    with client.websocket("/v1/typed") as socket:
        socket.send_json({"a": [1]})
        assert socket.receive_json() == {"a": [1]}
        socket.send(b"x")
        with pytest.raises(bentotool.WebSocketDisconnect, match="text message was expected"):
            socket.receive()


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/rooms/red?times=x", {}),
        ("/v1/none", {}),
        ("/rooms/red", {}),
        ("/v1/refuses", {}),
        ("/v1/rooms/red", {"host": "evil.example"}),
        ("/v1/rooms/red", {"origin": "https://evil.example"}),
        ("/v1/rooms/red", {"origin": "https://testserver"}),
        ("/v1/rooms/red", {"origin": "null"}),
    ],
)
def test_refused(client, path, headers):
    with pytest.raises(bentotool.WebSocketDisconnect), client.websocket(path, headers=headers):
        pass


@pytest.mark.parametrize("origin", ["https://a.example", "http://testserver", "http://testserver:80"])
def test_pages_that_may_open_one(client, origin):
    with client.websocket("/v1/rooms/red", headers={"origin": origin}) as socket:
        socket.send("x")
        assert socket.receive_json()["message"] == "x"


def test_the_limit_on_requests_holds_for_websockets(client):
    third, refused = client.websocket("/v1/rooms/3"), pytest.raises(bentotool.WebSocketDisconnect)
    with client.websocket("/v1/rooms/1"), client.websocket("/v1/rooms/2"), refused:
        third.__enter__()
    with client.websocket("/v1/rooms/4"):
        pass


def test_declared_wrongly():
    @bentotool.service
    class Sync:
        @bentotool.websocket
        def talk(self, socket: bentotool.WebSocket):
            pass

    @bentotool.service
    class NoSocket:
        @bentotool.websocket
        async def talk(self):
            pass

    @bentotool.service
    class Route:
        @bentotool.websocket("/{room}")
        async def talk(self, socket: bentotool.WebSocket):
            pass

    for service, text in ((Sync, "coroutine"), (NoSocket, "no socket"), (Route, "{room}")):
        with pytest.raises(ConfigError, match=text):
            _ = service.websockets


def test_the_library_is_asked_for_where_it_is_needed(monkeypatch):
    @bentotool.service
    class Plain:
        pass

    assert websocket_protocol(Plain) == "none"
    monkeypatch.setattr(websockets, "_LIBRARIES", (("json", "wsproto"),))
    assert websocket_protocol(Chat) == "wsproto"
    monkeypatch.setattr(websockets, "_LIBRARIES", (("no_such_module", "wsproto"),))
    with pytest.raises(ServiceLoadError, match=r"Chat\.talk") as failed:
        websocket_protocol(Chat)
    assert "wsproto" in (failed.value.hint or "")
