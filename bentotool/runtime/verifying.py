"""Holding every byte of a Bento on disk against one digest, that of its manifest, before anything of it is imported.

The manifest names its layers by digest. The code's layer is a tar archive and the runtime's wheel a zip archive, both
written in one way only, so they are made again from the files and hashed; a file too many changes the digest like one
that was changed. Models are files with digests of their own. Standard library only: this runs in containers.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bentotool.errors import VerificationError

__all__ = ["DOCUMENTS", "VARIABLE", "Verified", "check_started", "verify_bento"]

VARIABLE = "BENTOTOOL_VERIFY"
"""Digest of the Bento's manifest, from whoever started the server; without it nothing is checked."""
DOCUMENTS = "opt/bentotool/signed"
"""Folder of an image with what only this needs: the manifests, the lock and carried wheels, named by their digests."""

_BENTO = "application/vnd.bentotool.bento"
_CODE, _LOCK, _WHEEL = f"{_BENTO}.code.v1.tar", f"{_BENTO}.lock.v1+txt", f"{_BENTO}.wheel.v1+zip"
_TITLE = "org.opencontainers.image.title"
_FILES = "io.bentotool.files"
_PREFIX = "io.bentotool.model.prefix"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_CHUNK = 1 << 20
_DOCUMENT_LIMIT = 64 << 20
_WHEEL_LIMIT = 256 << 20
_BLOCK = 512
_USTAR_LIMIT = 8 << 30
_HINT = "it was changed after it was signed, or is not whole: take it again from where it is signed"


@dataclass(frozen=True)
class Verified:
    """What was checked.

    Args:
        size: bytes.
        seconds: that it took.
    """

    digest: str
    files: int
    size: int
    seconds: float


def check_started(bento: Path | None) -> Verified | None:
    """What the server does when it starts: check where it was told to, by :data:`VARIABLE`.

    Args:
        bento: path of ``bento.json``; None for a project folder.

    Raises:
        VerificationError: something differs, or there is no Bento that could be checked.
    """
    digest = os.environ.get(VARIABLE, "")
    if not digest:
        return None
    if bento is None:
        raise VerificationError(f"{VARIABLE} is set, and this is a project folder, which nobody signed")
    root = bento.resolve().parent.parent.parent
    return verify_bento(root, digest, root / DOCUMENTS, Path(__file__).resolve().parent.parent.parent)


def verify_bento(root: Path, digest: str, documents: Path, installed: Path) -> Verified:
    """Check a Bento on disk.

    Args:
        root: folder with ``home/bento`` and ``models``.
        digest: of its manifest, ``sha256:`` and 64 hexadecimal digits: what was signed.
        documents: folder with manifests and the lock, each named by the hexadecimal digits of its digest; also a
            store's ``blobs/sha256``.
        installed: folder in which the runtime's packages lie.

    Raises:
        VerificationError: naming the part that differs, is missing, or is too much.
    """
    started = time.monotonic()
    work = _Work(root, documents, installed)
    manifest = work.manifest(digest, "the manifest of the Bento")
    layers: dict[str, list[Mapping[str, Any]]] = {}
    for layer in _list(manifest.get("layers")):
        title = _mapping(layer.get("annotations")).get(_TITLE, "")
        kind = "carried" if layer.get("mediaType") == _WHEEL and str(title).startswith("wheels/") else ""
        layers.setdefault(kind or str(layer.get("mediaType")), []).append(layer)
    for kind, what in ((_CODE, "code"), (_LOCK, "lock"), (_WHEEL, "runtime")):
        if len(layers.get(kind, ())) != 1:
            raise VerificationError(f"the manifest {digest[:19]}… does not have one layer of {what}", hint=_HINT)
    work.code(_digest(layers[_CODE][0]))  # first: what follows is read from it
    jobs: list[Callable[[], object]] = [
        partial(work.document, _digest(layers[_LOCK][0]), "the lock"),
        partial(work.runtime, _digest(layers[_WHEEL][0])),
        *(partial(work.carried, layer) for layer in layers.get("carried", ())),
        *work.models(),
    ]
    _run(jobs)
    return Verified(digest, work.files, work.size, time.monotonic() - started)


def _run(jobs: Sequence[Callable[[], object]]) -> None:
    """Do all of them, side by side: hashing gives the interpreter's lock away."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()


class _Work:
    """One check, and how much it has read."""

    def __init__(self, root: Path, documents: Path, installed: Path) -> None:
        self._root, self._documents, self._installed = root, documents, installed
        self._lock = threading.Lock()
        self.files = self.size = 0

    def document(self, digest: str, what: str, limit: int = _DOCUMENT_LIMIT) -> bytes:
        """The bytes of a document, which are what its name says."""
        found = _DIGEST.fullmatch(digest)
        if found is None:
            raise VerificationError(f"{digest[:80]!r} is not a sha256 digest", hint=f"{VARIABLE} is the Bento's digest")
        data = self._read(self._documents / found[1], what, limit)
        if hashlib.sha256(data).hexdigest() != found[1]:
            raise VerificationError(f"{what} differs from {digest[:19]}…", hint=_HINT)
        return data

    def manifest(self, digest: str, what: str) -> Mapping[str, Any]:
        try:
            return _mapping(json.loads(self.document(digest, what)))
        except (ValueError, RecursionError):
            raise VerificationError(f"{what} is not JSON") from None

    def code(self, digest: str) -> None:
        """``home/bento``, made into its layer again."""
        base, hasher = self._root / "home" / "bento", hashlib.sha256()
        names = sorted(_below(base), key=os.fsencode)
        for name in names:
            path = base / name
            info = _regular(path)
            hasher.update(_tar_header(f"home/bento/{name}", info.st_size))
            read = 0
            for piece in self._pieces(path, f"home/bento/{name}"):
                hasher.update(piece)
                read += len(piece)
            hasher.update(bytes(-read % _BLOCK))
        hasher.update(bytes(2 * _BLOCK))
        if f"sha256:{hasher.hexdigest()}" != digest:
            extra = next((name for name in names if "__pycache__" in Path(name).parts), "")
            why = f" ({extra} is no part of it)" if extra else ""
            raise VerificationError(f"the code in {base} differs from what was signed{why}", hint=_HINT)

    def runtime(self, digest: str) -> None:
        """The runtime's files, made into their wheel again; its own list says in which order they stand in it."""
        records = sorted(self._installed.glob("bentotool_runtime-*.dist-info/RECORD"))
        if len(records) != 1:
            raise VerificationError(f"{self._installed} has {len(records)} runtimes of bentotool, not one", hint=_HINT)
        listed = self._read(records[0], "the runtime", 1 << 20).decode("utf-8", "replace").splitlines()
        names = [line.split(",", 1)[0] for line in listed]
        if not all(_plain(name) for name in names):
            raise VerificationError("the runtime's list of files is damaged", hint=_HINT)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name in names:
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                entry.create_system = 3
                entry.external_attr = 0o100644 << 16
                content = self._read(self._installed / name, name, _WHEEL_LIMIT)
                archive.writestr(entry, content, zipfile.ZIP_STORED)
        if f"sha256:{hashlib.sha256(buffer.getbuffer()).hexdigest()}" != digest:
            raise VerificationError(f"the runtime in {self._installed} differs from what was signed", hint=_HINT)
        known = set(names)
        for name in _below(self._installed / "bentotool"):
            if f"bentotool/{name}" not in known:
                raise VerificationError(f"bentotool/{name} is no part of the runtime that was signed", hint=_HINT)

    def carried(self, layer: Mapping[str, Any]) -> None:
        """A wheel that the Bento carries: the file itself, or what of it is installed."""
        title = str(_mapping(layer.get("annotations")).get(_TITLE, ""))
        digest = _digest(layer)
        file = self._root / "wheels" / title.rpartition("/")[2]
        if file.is_file():
            if self._hash(file, title) != digest:
                raise VerificationError(f"{title} differs from what was signed", hint=_HINT)
            return
        try:
            with zipfile.ZipFile(io.BytesIO(self.document(digest, title, _WHEEL_LIMIT))) as archive:
                for name in archive.namelist():
                    folder = name.split("/", 1)[0]
                    if name.endswith(("/", ".dist-info/RECORD")) or folder.endswith(".data") or not _plain(name):
                        continue  # installers write the one anew and put the others elsewhere
                    if self._read(self._installed / name, f"{title}: {name}", _WHEEL_LIMIT) != archive.read(name):
                        raise VerificationError(f"{name} of {title} differs from what was signed", hint=_HINT)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise VerificationError(f"{title} is damaged: {error}") from None

    def models(self) -> Iterator[Callable[[], object]]:
        """One job for each file of a model, the largest first."""
        described = json.loads(self._read(self._root / "home" / "bento" / "bento.json", "bento.json", _DOCUMENT_LIMIT))
        found: dict[Path, tuple[int, str]] = {}
        for entry in _list(described.get("models")):
            path, digest = str(entry.get("path")), str(entry.get("digest"))
            if not _plain(path):
                raise VerificationError(f"model {entry.get('name')} lies at {path[:80]!r}")
            files = self._files_of(digest, str(entry.get("name")))
            folder = self._root / path
            for each in _below(folder):
                if each not in files:
                    raise VerificationError(f"{path}/{each} is no part of the model that was signed", hint=_HINT)
            found |= {folder / name: known for name, known in files.items()}
        for file, (size, wanted) in sorted(found.items(), key=lambda item: -item[1][0]):
            yield partial(self._model_file, file, size, wanted)

    def _files_of(self, digest: str, name: str) -> dict[str, tuple[int, str]]:
        """Size and sha256 of the files of a model, by their names in its folder."""
        manifest = self.manifest(digest, f"the manifest of model {name}")
        prefix = str(_mapping(manifest.get("annotations")).get(_PREFIX, f"models/{name}")) + "/"
        found: dict[str, tuple[int, str]] = {}
        for layer in _list(manifest.get("layers")):
            listed = _mapping(layer.get("annotations")).get(_FILES)
            try:
                for file in json.loads(listed) if isinstance(listed, str) else ():
                    path = str(file["path"])
                    if not path.startswith(prefix) or not _plain(path):
                        raise VerificationError(f"model {name} lists the file {path[:80]!r}")
                    found[path[len(prefix) :]] = (int(file["size"]), str(file["sha256"]))
            except (ValueError, TypeError, KeyError, RecursionError):
                raise VerificationError(f"the manifest of model {name} is damaged") from None
        if not found:
            raise VerificationError(f"the manifest of model {name} lists no files")
        return found

    def _model_file(self, path: Path, size: int, wanted: str) -> None:
        shown = path.relative_to(self._root).as_posix()
        try:
            same = path.stat().st_size == size  # a file that grew or shrank is known without reading it
        except OSError:
            raise VerificationError(f"{shown} is missing", hint=_HINT) from None
        if not same or self._hash(path, shown) != f"sha256:{wanted}":
            raise VerificationError(f"{shown} differs from what was signed", hint=_HINT)

    def _hash(self, path: Path, what: str) -> str:
        hasher = hashlib.sha256()
        for piece in self._pieces(path, what):
            hasher.update(piece)
        return f"sha256:{hasher.hexdigest()}"

    def _read(self, path: Path, what: str, limit: int) -> bytes:
        return b"".join(map(bytes, self._pieces(path, what, limit)))

    def _pieces(self, path: Path, what: str, limit: int | None = None) -> Iterator[memoryview]:
        """The content of a file. The same memory is used for each piece."""
        buffer, read = bytearray(_CHUNK), 0
        view = memoryview(buffer)
        try:
            with path.open("rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    read += count
                    if limit is not None and read > limit:
                        raise VerificationError(f"{what} has more than {limit} bytes")
                    yield view[:count]
        except FileNotFoundError:
            raise VerificationError(f"{what} is missing ({path})", hint=_HINT) from None
        except OSError as error:
            raise VerificationError(f"{what} cannot be read: {error.strerror} ({path})") from None
        with self._lock:
            self.files += 1
            self.size += read


def _below(folder: Path) -> Iterator[str]:
    """Names of all that is no folder below one, with slashes."""
    waiting = [("", folder)]
    for prefix, place in waiting:
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((f"{prefix}{entry.name}/", Path(entry.path)))
                    else:
                        yield f"{prefix}{entry.name}"
        except OSError as error:
            raise VerificationError(f"{place} cannot be read: {error.strerror}", hint=_HINT) from None


def _regular(path: Path) -> os.stat_result:
    info = path.lstat()
    if not stat.S_ISREG(info.st_mode):
        raise VerificationError(f"{path} is no regular file", hint=_HINT)
    return info


def _plain(name: str) -> bool:
    return not name.startswith("/") and "\\" not in name and ":" not in name and ".." not in name.split("/")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Mapping[str, Any]]:
    return [_mapping(item) for item in value] if isinstance(value, list) else []


def _digest(layer: Mapping[str, Any]) -> str:
    return str(layer.get("digest"))


def _tar_header(name: str, size: int) -> bytes:
    """What stands before a file in the code's layer: POSIX ustar, with a PAX block where name or size do not fit."""
    encoded, records = os.fsencode(name), b""
    if len(encoded) > 100 or not encoded.isascii():
        records += _pax_record(b"path", encoded)
    if size >= _USTAR_LIMIT:
        records += _pax_record(b"size", str(size).encode())
    header = _ustar(encoded[:100] if encoded.isascii() else b"@PaxHeader", size if size < _USTAR_LIMIT else 0, b"0")
    if not records:
        return header
    return _ustar(b"@PaxHeader", len(records), b"x") + records + bytes(-len(records) % _BLOCK) + header


def _pax_record(key: bytes, value: bytes) -> bytes:
    body, length = b" " + key + b"=" + value + b"\n", 0
    while length != (length := len(body) + len(str(length))):  # the length counts its own digits
        pass
    return str(length).encode() + body


def _ustar(name: bytes, size: int, kind: bytes) -> bytes:
    block = bytearray(_BLOCK)
    block[: len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136], block[136:148] = f"{size:011o}\0".encode(), b"00000000000\0"
    block[148:156], block[156:157] = b" " * 8, kind
    block[257:265] = b"ustar\x0000"
    block[329:337], block[337:345] = b"0000000\0", b"0000000\0"
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)
