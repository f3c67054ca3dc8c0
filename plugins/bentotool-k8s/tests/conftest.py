"""What tests of this plugin need that may not be there."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable

import pytest


def _absent(what: str, *, on_purpose: bool) -> None:
    if os.environ.get("BENTOTOOL_TEST_REQUIRE_ALL") == "1" and not on_purpose:
        pytest.fail(f"needs {what}, which is not here", pytrace=False)
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session")
def require_package() -> Callable[[str], None]:
    """``require_package("kubernetes")`` skips the test by that name where the package is not installed."""

    def require(name: str) -> None:
        if importlib.util.find_spec(name) is None:
            _absent(f"the package {name}", on_purpose=name in os.environ.get("BENTOTOOL_TEST_WITHOUT", "").split())

    return require


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str], str]:
    """``require_tool("helm")`` gives the program's path, or skips the test by that name."""

    def require(name: str) -> str:
        found = shutil.which(name)
        if found is None:
            listed = os.environ.get("BENTOTOOL_TEST_WITHOUT_TOOLS", "").split()
            _absent(f"the program {name}", on_purpose=name in listed)
        return str(found)

    return require
