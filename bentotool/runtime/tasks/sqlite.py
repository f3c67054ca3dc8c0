"""The store that needs no server: one SQLite file, shared by all workers (https://sqlite.org/wal.html).

Submitting waits until the disk has it; everything else may be lost in a power cut, after which a task is run again.
Bodies above 256 KiB lie beside the file, one each, so that the file stays small.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bentotool.errors import ConfigError
from bentotool.runtime.tasks.records import (
    CANCELED,
    FAILED,
    IN_PROGRESS,
    MAX_LOSSES,
    PENDING,
    Claim,
    Message,
    NewTask,
    QueueFull,
    TaskConflict,
    TaskRecord,
)

__all__ = ["SQLiteStore", "TemporaryStore"]

_VERSION = 1
_INLINE = 256 * 1024
_ORPHANED = 3600.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    due REAL NOT NULL,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    attempt INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,
    owner TEXT,
    lease REAL,
    progress REAL,
    message TEXT,
    key TEXT,
    fingerprint TEXT,
    ttl REAL NOT NULL,
    expires REAL
);
CREATE INDEX IF NOT EXISTS waiting ON tasks (name, priority DESC, number) WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS leased ON tasks (lease) WHERE state = 'in_progress';
CREATE UNIQUE INDEX IF NOT EXISTS keys ON tasks (name, key) WHERE key IS NOT NULL;
CREATE INDEX IF NOT EXISTS expiring ON tasks (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS bodies (
    number INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    side TEXT NOT NULL,
    head TEXT NOT NULL,
    body BLOB,
    file TEXT,
    UNIQUE (task, side)
);
"""
_COLUMNS = "id, name, state, priority, created, started, finished, attempt, progress, message"


class SQLiteStore:
    """A `TaskStore` in a file.

    Args:
        path: of the file; its folder is made, for this user alone.

    Raises:
        ConfigError: the folder cannot be written to, or the file is of a newer bentotool or no database.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._files = path, path.with_name(path.name + ".files")
        try:
            self._files.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=30.0, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > _VERSION:
                raise ConfigError(f"{path} is of a newer bentotool", hint="set BENTOTOOL_TASKS to another folder")
            if version < _VERSION:
                self._db.executescript(f"{_SCHEMA}PRAGMA user_version = {_VERSION};")
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"tasks cannot be kept in {path}: {error}", hint="set BENTOTOOL_TASKS to a folder that can be written"
            ) from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk has rolled back already
                self._db.execute("ROLLBACK")
            raise

    def _put(self, task: str, side: str, message: Message, token: str = "") -> None:
        head = json.dumps({"headers": dict(message.headers), "status": message.status, "query": message.query})
        body: bytes | None = message.body
        file = None
        if len(message.body) > _INLINE:
            file, body = f"{task}.{side}{token}", None
            self._write(self._files / file, message.body)
        self._db.execute(
            "INSERT OR REPLACE INTO bodies (task, side, head, body, file) VALUES (?, ?, ?, ?, ?)",
            (task, side, head, body, file),
        )

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        try:
            with path.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()  # a full disk needs the room
            raise

    def _take(self, task: str, side: str) -> Message | None:
        row = self._db.execute(
            "SELECT head, body, file FROM bodies WHERE task = ? AND side = ?", (task, side)
        ).fetchone()
        if row is None:
            return None
        head = json.loads(row[0])
        body = row[1] if row[2] is None else (self._files / row[2]).read_bytes()
        return Message(head["headers"], body, head["status"], head["query"])

    def _input(self, task: str) -> Message:
        """What a task was submitted with; without its body where somebody removed the file: then its run fails."""
        try:
            found = self._take(task, "input")
        except OSError:
            found = None
        return found or Message({"content-type": "application/json"}, b"")

    def submit(self, tasks: Sequence[NewTask]) -> list[TaskRecord | QueueFull | TaskConflict]:
        outcomes: list[TaskRecord | QueueFull | TaskConflict] = []
        self._db.execute("PRAGMA synchronous = FULL")
        try:
            with self._transaction():
                waiting: dict[str, int] = {}
                outcomes.extend([self._submit(task, waiting) for task in tasks])
        finally:
            self._db.execute("PRAGMA synchronous = NORMAL")
        return outcomes

    def _submit(self, task: NewTask, waiting: dict[str, int]) -> TaskRecord | QueueFull | TaskConflict:
        fingerprint = None
        if task.key is not None:
            kind = task.request.headers.get("content-type", "").partition(";")[0]  # without the boundary of a form
            fingerprint = hashlib.sha256(kind.encode() + b"\n" + task.request.body).hexdigest()
            found = self._db.execute(
                f"SELECT {_COLUMNS}, fingerprint FROM tasks WHERE name = ? AND key = ?",  # noqa: S608 - a constant
                (task.name, task.key),
            ).fetchone()
            if found is not None:
                same = found[-1] == fingerprint or kind == "multipart/form-data"
                return TaskRecord(*found[:-1]) if same else TaskConflict()
        if task.name not in waiting:
            waiting[task.name] = self._waiting(task.name)
        if waiting[task.name] >= task.max_waiting:
            return QueueFull(waiting[task.name])
        waiting[task.name] += 1
        now = time.time()
        self._put(task.id, "input", task.request)
        self._db.execute(
            "INSERT INTO tasks (id, name, state, priority, due, created, key, fingerprint, ttl)"
            " VALUES (?, ?, 'pending', ?, ?, ?, ?, ?, ?)",
            # due at once, wherever the clock is moved to
            (task.id, task.name, task.priority, 0.0, now, task.key, fingerprint, task.ttl),
        )
        return TaskRecord(task.id, task.name, PENDING, task.priority, now, None, None, 0, None, None)

    def _waiting(self, name: str) -> int:
        row = self._db.execute("SELECT count(*) FROM tasks WHERE state = 'pending' AND name = ?", (name,)).fetchone()
        return int(row[0])

    def claim(self, name: str, owner: str, limit: int, lease: float) -> list[Claim]:
        now = time.time()
        chosen = (
            "SELECT id, attempt FROM tasks WHERE state = 'pending' AND name = ? AND due <= ?"
            " ORDER BY priority DESC, number LIMIT ?"
        )
        if self._db.execute(chosen, (name, now, 1)).fetchone() is None:  # without a lock: mostly there is nothing
            return []
        claims = []
        with self._transaction():
            for id_, attempt in self._db.execute(chosen, (name, now, limit)).fetchall():
                self._db.execute(
                    "UPDATE tasks SET state = 'in_progress', owner = ?, lease = ?, started = ?, attempt = ?,"
                    " progress = NULL, message = NULL WHERE id = ?",
                    (owner, now + lease, now, attempt + 1, id_),
                )
                claims.append(Claim(id_, name, attempt + 1, self._input(id_)))
        return claims

    def owned(self, owner: str) -> set[str]:
        rows = self._db.execute("SELECT id FROM tasks WHERE state = 'in_progress' AND owner = ?", (owner,))
        return {row[0] for row in rows}

    def renew(self, owner: str, ids: Sequence[str], lease: float) -> set[str]:
        until = time.time() + lease
        with self._transaction():
            self._db.executemany(
                "UPDATE tasks SET lease = ? WHERE id = ? AND state = 'in_progress' AND owner = ?",
                [(until, id_, owner) for id_ in ids],
            )
        return self.owned(owner)

    def _update(self, change: str, values: Sequence[Any], id_: str, owner: str) -> bool:
        done = self._db.execute(
            f"UPDATE tasks SET {change} WHERE id = ? AND owner = ? AND state = 'in_progress'",  # noqa: S608 - our text
            (*values, id_, owner),
        )
        return done.rowcount == 1

    def tell(self, id_: str, owner: str, progress: float | None, message: str | None) -> bool:
        change = "progress = coalesce(?, progress), message = coalesce(?, message)"
        return self._update(change, (progress, message), id_, owner)

    def finish(self, id_: str, owner: str, state: str, answer: Message) -> bool:
        now = time.time()
        with self._transaction():
            change = "state = ?, finished = ?, expires = ? + ttl, owner = NULL, lease = NULL"
            if not self._update(change, (state, now, now), id_, owner):
                return False
            self._put(id_, "result", answer, f".{os.urandom(4).hex()}")
        return True

    def give_back(self, id_: str, owner: str, delay: float | None) -> bool:
        change = "state = 'pending', owner = NULL, lease = NULL, due = ?, attempt = attempt - ?"
        due = 0.0 if delay is None else time.time() + delay
        return self._update(change, (due, int(delay is None)), id_, owner)

    def reclaim(self, owners: str) -> int:
        change = "UPDATE tasks SET lease = 0 WHERE state = 'in_progress' AND substr(owner, 1, ?) = ?"
        return self._db.execute(change, (len(owners), owners)).rowcount

    def reap(self, answer: Message) -> int:
        now = time.time()
        expired = "SELECT id, losses FROM tasks WHERE state = 'in_progress' AND lease < ?"
        if self._db.execute(expired, (now,)).fetchone() is None:
            return 0
        with self._transaction():
            rows = self._db.execute(expired, (now,)).fetchall()
            for id_, losses in rows:
                hopeless = losses + 1 >= MAX_LOSSES
                self._db.execute(
                    "UPDATE tasks SET state = ?, losses = ?, owner = NULL, lease = NULL, due = ?, finished = ?,"
                    " expires = ? WHERE id = ?",
                    (FAILED if hopeless else PENDING, losses + 1, 0.0, now if hopeless else None, None, id_),
                )
                if hopeless:
                    self._db.execute("UPDATE tasks SET expires = ? + ttl WHERE id = ?", (now, id_))
                    self._put(id_, "result", answer)
        return len(rows)

    def cancel(self, name: str, id_: str) -> TaskRecord | None:
        now = time.time()
        self._db.execute(
            "UPDATE tasks SET state = ?, finished = ?, expires = ? + ttl, owner = NULL, lease = NULL"
            " WHERE id = ? AND name = ? AND state IN ('pending', 'in_progress')",
            (CANCELED, now, now, id_, name),
        )
        return self.get(name, id_)

    def get(self, name: str, id_: str) -> TaskRecord | None:
        query = f"SELECT {_COLUMNS} FROM tasks WHERE id = ? AND name = ?"  # noqa: S608 - a constant
        row = self._db.execute(query, (id_, name)).fetchone()
        return None if row is None else TaskRecord(*row)

    def answer(self, id_: str) -> Message | None:
        return self._take(id_, "result")

    def request(self, id_: str) -> Message | None:
        return self._take(id_, "input")

    def counts(self) -> Mapping[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for state in (PENDING, IN_PROGRESS):
            query = f"SELECT name, count(*) FROM tasks WHERE state = '{state}' GROUP BY name"  # noqa: S608 - a constant
            found.update({(name, state): number for name, number in self._db.execute(query)})
        return found

    def purge(self) -> int:
        now = time.time()
        expired = "SELECT id FROM tasks WHERE expires IS NOT NULL AND expires <= ? LIMIT 500"
        if self._db.execute(expired, (now,)).fetchone() is None:
            return 0
        with self._transaction():
            ids = [row[0] for row in self._db.execute(expired, (now,))]
            marks = [(id_,) for id_ in ids]
            self._db.executemany("DELETE FROM bodies WHERE task = ?", marks)
            self._db.executemany("DELETE FROM tasks WHERE id = ?", marks)
        self._remove_files(set(ids), now)
        return len(ids)

    def _remove_files(self, ids: set[str], now: float) -> None:
        """Remove the files of these tasks, and old ones that no row names: their process died between the two."""
        kept = {row[0] for row in self._db.execute("SELECT file FROM bodies WHERE file IS NOT NULL")}
        for file in list(self._files.iterdir()):
            with contextlib.suppress(OSError):  # another process removes the same
                gone = file.name.partition(".")[0] in ids
                if file.name not in kept and (gone or now - file.stat().st_mtime > _ORPHANED):
                    file.unlink()

    def close(self) -> None:
        self._db.close()


class TemporaryStore(SQLiteStore):
    """A store that goes when it is closed."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bentotool-tasks-")
        super().__init__(Path(self._folder.name) / "tasks.sqlite3")

    def close(self) -> None:
        super().close()
        self._folder.cleanup()
