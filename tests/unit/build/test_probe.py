"""The real probe over real service files: what a person meets when a service does not import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bentotool.build.probe import TIMEOUT_ENV, probe_service
from bentotool.errors import BentotoolError, ConfigError, NotFoundError, ServiceLoadError

Write = Callable[[dict[str, str]], Path]

SERVICE = """
import bentotool
print("noise on stdout")

@bentotool.service(labels={"team": "a"}, envs=[{"name": "DEPTH", "value": "3"}])
class Iris:
    "Tells irises apart."
    model = bentotool.models.BentoModel("iris:latest")

    @bentotool.api
    def predict(self, x: list[float]) -> float:
        return sum(x)
"""


@pytest.fixture(autouse=True)
def _serving(require_package: Callable[[str], None]) -> None:
    require_package("litestar")


def test_a_service_says_what_it_is(write: Write, store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write({"service.py": SERVICE})
    probe = probe_service(folder, "service:Iris", store=store)
    assert (probe.service, probe.name, probe.models) == ("service:Iris", "iris", ("iris:latest",))
    assert "/predict" in probe.openapi["paths"]
    assert probe.labels == {"team": "a"}
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in folder.iterdir()) == ["service.py"], "no bytecode is left in the project"
    assert probe_service(folder, "service", store=store) == probe
    assert probe_service(folder, "service.py:Iris", store=store) == probe


@pytest.mark.parametrize(
    ("source", "target", "kind", "words"),
    [
        ("class Iris(:", "service:Iris", ServiceLoadError, ["service.py", "1"]),
        ("raise RuntimeError('no weights')", "service:Iris", ServiceLoadError, ["RuntimeError", "no weights"]),
        ("import absent_module_of_no_one", "service:Iris", ServiceLoadError, ["absent_module_of_no_one"]),
        ("x = 1", "service:Iris", (ServiceLoadError, NotFoundError), ["Iris"]),
        ("x = 1", "absent:Iris", (ServiceLoadError, NotFoundError), ["absent"]),
        ("import os; os._exit(7)", "service:Iris", ServiceLoadError, ["status 7"]),
        ("import sys; sys.exit(3)", "service:Iris", ServiceLoadError, []),
    ],
)
def test_what_is_wrong_with_a_service(
    write: Write, store: Path, source: str, target: str, kind: type[BentotoolError], words: list[str]
) -> None:
    with pytest.raises(kind) as caught:
        probe_service(write({"service.py": source}), target, store=store)
    assert "\n" not in caught.value.message
    assert not [word for word in words if word not in caught.value.message]


def test_a_service_that_hangs(write: Write, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write({"service.py": "import time; time.sleep(60)"})
    with pytest.raises(ServiceLoadError, match="did not finish importing") as caught:
        probe_service(folder, "service:Iris", store=store, timeout=1)
    assert TIMEOUT_ENV in str(caught.value.hint)
    for value in ("soon", "-1", "nan"):
        monkeypatch.setenv(TIMEOUT_ENV, value)
        with pytest.raises(ConfigError, match=TIMEOUT_ENV):
            probe_service(folder, "service:Iris", store=store)


def test_modules_below_src_are_found(write: Write, store: Path) -> None:
    folder = write({"src/pkg/__init__.py": "", "src/pkg/serving.py": SERVICE, "service.py": "import pkg.serving\n"})
    assert probe_service(folder, "pkg.serving:Iris", store=store).service == "pkg.serving:Iris"
    with pytest.raises(ServiceLoadError, match="nothing"):
        probe_service(folder, "pkg.serving:nothing", store=store)
    package = write({"src/__init__.py": "", "src/serving.py": SERVICE})
    assert probe_service(package, "src.serving:Iris", store=store).service == "src.serving:Iris"
