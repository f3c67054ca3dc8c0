"""The real probe over real service files: what a person meets when a service does not import."""

from __future__ import annotations

import os
import time
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


def test_a_thread_that_does_not_end_keeps_nobody_waiting(write: Write, store: Path) -> None:
    endless = "import threading, time\nthreading.Thread(target=lambda: time.sleep(600)).start()\n"
    probe = probe_service(write({"service.py": endless + SERVICE}), "service:Iris", store=store, timeout=60)
    assert probe.labels == {"team": "a"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_what_a_service_starts_while_it_is_imported_ends_with_that(write: Write, store: Path) -> None:
    fork = "import os, pathlib, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nchild = os.fork()\n"
    fork += "if not child:\n    time.sleep(600)\npathlib.Path('child').write_text(str(child))\n"
    ends = {"": None, "os._exit(3)\n": "status 3", "time.sleep(600)\n": "did not finish"}
    for ending, words in ends.items():
        folder = write({"service.py": fork + ending + SERVICE})
        if words is None:
            assert probe_service(folder, "service:Iris", store=store).labels == {"team": "a"}
        else:
            with pytest.raises(ServiceLoadError, match=words):
                probe_service(folder, "service:Iris", store=store, timeout=2)
        assert _ends(int((folder / "child").read_text())), ending


def _ends(process: int) -> bool:
    """Whether a process is gone, or dead and not yet buried, within ten seconds."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{process}/stat").read_text() if Path("/proc/self").exists() else os.kill(process, 0)
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state and state.rpartition(") ")[2].startswith("Z"):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_of_the_import_does_not_speak_for_it(write: Write, store: Path) -> None:
    source = "import os\nteam = 'child' if not os.fork() else 'parent'\n"
    source += SERVICE.replace('"team": "a"', '"team": team')
    for _ in range(3):
        assert probe_service(write({"service.py": source}), "service:Iris", store=store).labels == {"team": "parent"}


def test_an_absent_package_and_what_to_do(write: Write, store: Path) -> None:
    with pytest.raises(ServiceLoadError, match="no module named 'absent_of_no_one'") as caught:
        probe_service(write({"service.py": "import absent_of_no_one"}), "service:Iris", store=store)
    assert "bentotool.importing()" in str(caught.value.hint)
    with pytest.raises(ServiceLoadError, match=r"service.py:1: MemoryError$"):
        probe_service(write({"service.py": "raise MemoryError"}), "service:Iris", store=store)


def test_modules_below_src_are_found(write: Write, store: Path) -> None:
    folder = write({"src/pkg/__init__.py": "", "src/pkg/serving.py": SERVICE, "service.py": "import pkg.serving\n"})
    assert probe_service(folder, "pkg.serving:Iris", store=store).service == "pkg.serving:Iris"
    with pytest.raises(NotFoundError, match="nothing"):
        probe_service(folder, "pkg.serving:nothing", store=store)
    package = write({"src/__init__.py": "", "src/serving.py": SERVICE})
    assert probe_service(package, "src.serving:Iris", store=store).service == "src.serving:Iris"


def test_a_misspelt_class_is_not_found_and_the_near_one_is_named(write: Write, store: Path) -> None:
    folder = write({"service.py": SERVICE})
    with pytest.raises(NotFoundError, match="service has no 'Irsi'") as caught:
        probe_service(folder, "service:Irsi", store=store)
    assert caught.value.hint == "did you mean 'Iris'?"
    with pytest.raises(NotFoundError) as other:
        probe_service(folder, "service:Classifier", store=store)
    assert other.value.hint == "declared there: Iris"


def test_a_service_with_a_websocket_gets_the_library_for_it(write: Write, store: Path) -> None:
    talking = "  @bentotool.websocket\n  async def talk(self, socket): pass\n"
    mounting = "async def app(scope, receive, send): pass\nS.mount_asgi_app(app)\n"
    for more, needs in (("", []), (talking, ["wsproto>=1.2"]), (mounting, ["wsproto>=1.2"])):
        source = f"import bentotool\n@bentotool.service\nclass S:\n  pass\n{more}"
        found = probe_service(write({"service.py": source}), "service:S", store=store)
        assert list(found.requirements) == needs


def test_a_service_that_is_traced_gets_the_packages_for_it(write: Write, store: Path) -> None:
    for options, count in (("", 0), ("(tracing={'sample_rate': 0})", 0), ("(tracing={'exporter_type': 'otlp'})", 2)):
        source = f"import bentotool\n@bentotool.service{options}\nclass S:\n  pass\n"
        found = probe_service(write({"service.py": source}), "service:S", store=store)
        assert [name.startswith("opentelemetry") for name in found.requirements] == [True] * count
