from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
if HERE not in sys.path:  # the zoo's modules import one another, as they do in the servers' processes
    sys.path.append(HERE)


@pytest.fixture(scope="session", autouse=True)
def _polars_is_imported() -> None:
    """Before a test is looked at: it sets a variable of the environment for its memory allocator."""
    if importlib.util.find_spec("polars") is not None:
        importlib.import_module("polars")


@pytest.fixture(scope="session")
def zoo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


@pytest.fixture(scope="session")
def zoo_url(zoo_folder: Path):
    """The address of a bentotool server of the zoo, of all signatures whose packages are here."""
    from calls import serving

    with serving("bentotool", zoo_folder) as url:
        yield url
