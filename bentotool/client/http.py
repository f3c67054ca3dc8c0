"""Clients of a service over HTTP: one method per API, made from its ``/schema.json``."""

from __future__ import annotations

from bentotool.client.asynchronous import AsyncHTTPClient
from bentotool.client.blocking import SyncHTTPClient
from bentotool.client.errors import CallError
from bentotool.client.tasks import AsyncTask, ResultStatus, Task, TaskStatus

__all__ = ["AsyncHTTPClient", "AsyncTask", "CallError", "ResultStatus", "SyncHTTPClient", "Task", "TaskStatus"]
