"""Some ten thousand requests of all kinds: a worker is afterwards what it was before.

The same for as long as one likes: ``python tests/benchmarks/serving/soak.py``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "serving" / "soak.py"
REQUESTS, LOOKS = 16_000, 8


@pytest.fixture(scope="module")
def soak() -> Any:
    spec = importlib.util.spec_from_file_location("soak", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(240)
def test_nothing_is_left_behind(serving: Any, tmp_path: Path, soak: Any) -> None:
    with serving(tmp_path / "project", soak.SERVICE) as server:
        looks, seen = asyncio.run(soak.soak(server.port, REQUESTS, clients=16, looks=LOOKS))
        log = server.log
    assert sum(seen.values()) == REQUESTS
    assert set(seen) == set(soak.MIX), "each kind was sent, and answered as it has to be"
    warm, last = looks[1], looks[-1]
    sent = last["requests"] - warm["requests"]
    assert last["pid"] == warm["pid"]
    assert last["objects"] - warm["objects"] < sent / 20, (
        "none for each request, nor for each of any kind that is common"
    )
    assert last["tasks"] <= warm["tasks"] + 2
    assert last["threads"] <= warm["threads"] + 6, "all of the lane, and some of the default executor"
    if sys.platform.startswith("linux"):
        assert last["descriptors"] <= warm["descriptors"] + 2
        assert last["kib"] - warm["kib"] < sent * 2, "KiB"
    assert "Traceback" not in log, log[-3000:]
    assert "never retrieved" not in log
