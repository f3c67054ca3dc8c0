"""What an endpoint's containers say, from CloudWatch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import botocore.exceptions as failures

from bentotool.errors import NotFoundError
from bentotool_sagemaker.cloud import Cloud, explained, is_missing
from bentotool_sagemaker.names import log_group

__all__ = ["lines"]

_POLL_S = 2.0
_PAGE = 10_000
_LATE_MS = 60_000  # CloudWatch may take so long to show a line; what was shown is not shown again


def lines(cloud: Cloud, name: str, *, follow: bool, tail: int) -> Iterator[str]:
    """Lines of all its containers in the order of time, the last ``tail`` (0: all); with ``follow`` those to come.

    Raises:
        NotFoundError: nothing was said yet.
    """
    client, seen, start = cloud.client("logs"), set[str](), 0
    found = list(_events(client, name, start))
    for event in found[-tail:] if tail else found:
        yield str(event["message"]).rstrip("\n")
    while follow:
        seen |= {str(event["eventId"]) for event in found}
        start = max([start, *(int(event["timestamp"]) - _LATE_MS for event in found)])
        time.sleep(_POLL_S)
        found = list(_events(client, name, start))
        for event in found:
            if str(event["eventId"]) not in seen:
                yield str(event["message"]).rstrip("\n")


def _events(client: Any, name: str, start: int) -> Iterator[dict[str, Any]]:
    with explained(f"read the logs of {name}"):
        try:
            pages = client.get_paginator("filter_log_events").paginate(
                logGroupName=log_group(name), startTime=max(0, start), PaginationConfig={"PageSize": _PAGE}
            )
            events = [event for page in pages for event in page["events"]]
        except failures.ClientError as error:
            if is_missing(error):
                raise NotFoundError(
                    f"CloudWatch has no logs of {name} yet", hint=f"bentotool deployment show {name}"
                ) from None
            raise
    yield from sorted(events, key=lambda event: (event["timestamp"], str(event["eventId"])))
