"""Objects as they are now, kept up to date by watching."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Any

from bentotool.errors import BentotoolError
from bentotool_k8s.cluster.api import Api
from bentotool_k8s.cluster.refusals import ApiError

__all__ = ["Mirror"]

_AGAIN_S = 1.0
_POLL_S = 2.0
_GIVE_UP_S = 60.0


class Mirror:
    """Objects of some kinds with some labels, in a ``with`` block.

    One thread for each kind lists and then watches; where a stream ends, it goes on from there, and where the server
    has forgotten that version (410), it lists again. Where watching is not allowed, it lists every two seconds.
    """

    def __init__(self, api: Api, kinds: Sequence[tuple[str, str]], labels: str) -> None:
        self._api, self._labels = api, labels
        self._items: dict[str, dict[str, Any]] = {}
        self._refused: dict[str, BentotoolError] = {}
        self._opened: list[Any] = []
        self._changed, self._ending = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=self._run, args=kind, daemon=True) for kind in kinds]

    def __enter__(self) -> Mirror:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for answer in self._opened[:]:
            with contextlib.suppress(Exception):  # ends a read in the other thread, where the library can
                answer.shutdown()
        for thread in self._threads:
            thread.join(0.5)

    def wait(self, seconds: float) -> None:
        """Until something changes, at most so long."""
        self._changed.wait(seconds)
        self._changed.clear()

    def items(self, kind: str) -> list[dict[str, Any]] | None:
        """Those of a kind; None before the first answer, and where they may not be asked for."""
        found = self._items.get(kind)
        return list(found.values()) if found is not None else None

    def refusal(self, kind: str) -> BentotoolError | None:
        """Why there are none of a kind: it is not allowed, or nobody has answered for a minute."""
        return self._refused.get(kind)

    def _run(self, api_version: str, kind: str) -> None:
        answered = time.monotonic()
        while not self._ending.is_set():
            try:
                items, version = self._api.listed(api_version, kind, self._labels)
                self._items[kind] = {each["metadata"]["uid"]: each for each in items}
                self._refused.pop(kind, None)
                self._changed.set()
                answered = time.monotonic()
                self._follow(api_version, kind, version)
            except BentotoolError as error:
                if isinstance(error, ApiError) and error.status == 410:
                    continue
                watchable = kind in self._items and isinstance(error, ApiError) and error.status in (403, 405)
                if not watchable and (isinstance(error, ApiError) or time.monotonic() - answered > _GIVE_UP_S):
                    self._refused[kind] = error
                self._changed.set()
                self._ending.wait(_POLL_S if watchable else _AGAIN_S)

    def _follow(self, api_version: str, kind: str, version: str) -> None:
        while not self._ending.is_set():
            began = time.monotonic()
            for event in self._api.watch(api_version, kind, version, self._labels, opened=self._opened):
                meta = event.object.get("metadata") or {}
                version = str(meta.get("resourceVersion") or version)
                if event.type == "DELETED":
                    self._items[kind].pop(meta["uid"], None)
                elif event.type != "BOOKMARK":
                    self._items[kind] = {**self._items[kind], meta["uid"]: dict(event.object)}
                self._changed.set()
                if self._ending.is_set():
                    return
            self._opened[:] = [each for each in self._opened if not each.closed]
            if time.monotonic() - began < 1:  # a server that ends streams at once is not asked without a pause
                self._ending.wait(_AGAIN_S)
