"""``bentotool serve --plan``, and names that are misspelt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 60.0
SERVICE = """
import bentotool

@bentotool.service(resources={"gpu": 2}, workers=2)
class Big:
    pass

@bentotool.service(workers=[{"gpus": 1}, {"gpus": 1}])
class Front:
    big = bentotool.depends(Big)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "service.py").write_text(SERVICE)
    return tmp_path


def run(project: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bentotool", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
    )


def test_the_plan_for_people(project: Path) -> None:
    done = run(project, "serve", "--plan", CUDA_VISIBLE_DEVICES="4,5,6,7")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "devices: 4, 5, 6, 7",
        "Front: 2 workers, calls Big",
        "  worker 1: CUDA_VISIBLE_DEVICES=6",
        "  worker 2: CUDA_VISIBLE_DEVICES=7",
        "Big: 2 workers",
        "  worker 1: CUDA_VISIBLE_DEVICES=4,5",
        "  worker 2: CUDA_VISIBLE_DEVICES=4,5",
    ]


def test_the_plan_for_programs(project: Path) -> None:
    done = run(project, "--json", "serve", "service:Big", "--plan", "--workers", "3", CUDA_VISIBLE_DEVICES="1,0")
    document = json.loads(done.stdout)
    assert document["devices"] == ["1", "0"]
    [service] = document["services"]
    assert [worker["index"] for worker in service["workers"]] == [1, 2, 3]
    assert service["workers"][0]["devices"] == ["1", "0"]


def test_too_few_devices(project: Path) -> None:
    done = run(project, "serve", "--plan", CUDA_VISIBLE_DEVICES="0,1")
    assert done.returncode == 2
    assert "service Front asks for 1 GPU, 0 of 2 are free" in done.stderr
    served = run(project, "serve", "--port", "0", CUDA_VISIBLE_DEVICES="0,1")
    assert (served.returncode, served.stderr) == (2, done.stderr)


def test_workers_have_what_the_plan_says(project: Path) -> None:
    import bentotool

    (project / "service.py").write_text(
        SERVICE.replace("    pass", MORE).replace("depends(Big)\n", f"depends(Big)\n{MORE}")
    )
    with bentotool.serve(project, environment={"CUDA_VISIBLE_DEVICES": "4,5,6,7"}) as server:
        found = set()
        client = server.client()
        for _ in range(60):
            found.add(client.mine())
            client.close()  # another connection, and with luck another worker
            client = server.client()
            if len(found) == 2:
                break
        assert found <= {"1: 6", "2: 7"}
        assert found


STORE = "in the store\nhint: did you mean service:Front?\n"
MORE = """
    @bentotool.api
    def mine(self) -> str:
        import os
        return f"{bentotool.server_context.worker_index}: {os.environ['CUDA_VISIBLE_DEVICES']}"
"""


@pytest.mark.parametrize(
    ("target", "status", "message"),
    [
        ("service:Fron", 3, "error: service has no 'Fron'\nhint: did you mean 'Front'?\n"),
        ("servic:Front", 3, f"error: no servic.py in this folder, and no Bento servic:Front {STORE}"),
        ("nothing/here", 3, "error: no folder 'nothing/here'\nhint: bentotool init DIR makes a project\n"),
    ],
)  # fmt: skip
def test_misspelt(project: Path, target: str, status: int, message: str) -> None:
    done = run(project, "serve", target, "--port", "0")
    assert (done.returncode, done.stdout, done.stderr) == (status, "", message)


def test_a_bento_is_not_reloaded(project: Path) -> None:
    (project / "bento.json").write_text("{}")
    done = run(project, "serve", "--reload", "--port", "0")
    assert done.returncode == 2
    assert "a Bento never changes" in done.stderr
