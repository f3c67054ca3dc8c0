"""Servers of the zoo, and calls of its APIs through either client."""

import asyncio
import contextlib
import inspect
import io
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import typing
import urllib.request

from binary_cases import FILE, IMAGE

HERE = pathlib.Path(__file__).parent
_UNFINISHED = ("pending", "queued", "in_progress", "running")
SERVICE = "import {library}\nimport zoo\nservice, _, _ = zoo.declared({library}, {prefix!r})\n"


def arguments(case, folder):
    """The call's arguments with files and images made."""

    def made(value):
        if isinstance(value, (list, tuple)):
            return [made(item) for item in value]
        if isinstance(value, dict):
            return {key: made(item) for key, item in value.items()}
        if isinstance(value, str) and value.startswith(FILE):
            path = folder / f"{case.name}-{len(value)}.txt"
            path.write_text(value.removeprefix(FILE))
            return path
        if isinstance(value, str) and value.startswith(IMAGE):
            return _picture(folder / f"{case.name}.{value.removeprefix(IMAGE)}")
        return value

    return made(case.args), made(case.kwargs)


def _picture(path):
    import PIL.Image

    PIL.Image.new("RGB", (3, 2), "red").save(path)
    return path


def shown(value):
    """An answer as text, the same whichever client gave it."""
    package = type(value).__module__.partition(".")[0]
    if package == "numpy":
        return f"array {value.dtype} {value.tolist()}"
    if package == "pandas":
        return f"frame {value.to_dict('list')}"
    if package == "torch":
        return f"tensor {value.dtype} {value.tolist()}"
    if package == "PIL":
        return f"image {value.format} {value.size}"
    if isinstance(value, pathlib.PurePath):
        return _file(pathlib.Path(value).read_bytes())
    if isinstance(value, typing.Generator):
        return repr("".join(part if isinstance(part, str) else json.dumps(part) for part in value))
    return repr(value)


def _file(content):
    if content[:4] not in (b"\x89PNG", b"\xff\xd8\xff\xe0"):
        return f"file {content!r}"
    import PIL.Image

    return shown(PIL.Image.open(io.BytesIO(content)))


def called(client, case, folder):
    """The outcome of one call as text; of an error, its type."""
    args, kwargs = arguments(case, folder)
    try:
        if case.task:
            return shown(asyncio.run(_task(client, case.name, args, kwargs)))
        return shown(client.call(case.name, *args, **kwargs))
    except Exception as error:  # the outcome is what is asked for
        return type(error).__name__


@contextlib.contextmanager
def bentoml_client(url):
    """BentoML's client, which leaves its folder of files behind."""
    import bentoml

    client = bentoml.SyncHTTPClient(url)
    try:
        yield client
    finally:
        client.close()
        client._temp_dir.cleanup()


async def _task(client, name, args, kwargs):
    """Through the asynchronous client of the same library: BentoML's other one cannot submit."""
    module = sys.modules[type(client).__module__.partition(".")[0].replace("_bentoml_impl", "bentoml")]
    async with module.AsyncHTTPClient(client.url) as other, contextlib.AsyncExitStack() as left:
        if hasattr(other, "_temp_dir"):
            left.callback(other._temp_dir.cleanup)
        task = await getattr(other, name).submit(*args, **kwargs)
        end = time.monotonic() + 20
        while time.monotonic() < end and (await task.get_status()).value in _UNFINISHED:
            await asyncio.sleep(0.05)
        return await task.get()


def signature(case):
    """The signature as it is written, without self."""
    source = inspect.getsource(case.func).split("def ", 1)[1]
    head = " ".join(source[: source.index(":\n")].split()).replace("( ", "(").replace(" )", ")")
    return head.replace("(self, ", "(").replace("(self)", "()").replace("zoo.library.", "").replace("|", "\\|")


def _free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@contextlib.contextmanager
def serving(library, folder, prefix=""):
    """A server of a library's zoo in a process of its own; gives its address.

    Args:
        library: ``bentoml`` or ``bentotool``.
        folder: its home.
        prefix: ``path_prefix`` of the service.
    """
    (folder / "service.py").write_text(SERVICE.format(library=library, prefix=prefix))
    port = str(_free_port())
    command = [sys.executable, "-m", "bentotool.runtime", ".", "--port", port]
    if library == "bentoml":
        command = [sys.executable, "-m", "bentoml", "serve", "service:service", "--port", port, "--host", "127.0.0.1"]
    environment = {
        **os.environ,
        "BENTOML_HOME": str(folder),
        "BENTOML_DO_NOT_TRACK": "true",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH")))),
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(process, url + prefix, folder / "log")
            yield url
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process, url, log):
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(log.read_text())
