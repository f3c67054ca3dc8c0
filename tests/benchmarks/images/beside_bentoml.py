"""``bentotool containerize``, with both builders, beside ``bentoml containerize``: seconds, sizes, bytes sent.

    python tests/benchmarks/images/beside_bentoml.py BASE --bentoml PYTHON [--override REQUIREMENT] [--rounds 3]
        [--ca-bundle FILE] [--work DIR] [--only oci|buildkit|bentoml]

BASE is an image of the engine with this interpreter's version and pip, such as ``python:3.11-slim``; PYTHON is an
interpreter that has BentoML 1.4. Needed: docker with buildx, ``docker-registry``, ``bentotool-docker``.

One service for all three: the iris model of ``bentotool init`` as a model of the store, ONNX Runtime, and scikit-learn
for the names of the species. ``cold`` is the first image; ``edit`` follows a change of one line of ``service.py``;
``dependency`` one more package (orjson). Of each state two times are taken: ``build`` of the Bento, and ``image``, from
that Bento to an image that the registry has (``bentotool containerize --push``; ``bentoml containerize``, then
``docker push``). The least of the rounds counts.

What makes it fair:

- One engine and, in each round, one new registry for all three, where the base lies already. Each round has a base of
  its own, BASE with one more small file, so nothing of an earlier round is reused: neither steps in the engine, nor
  layers in the registry, nor anything in a store. All bytes to the registry go through one counter.
- The caches of packages are warm for all: uv's on this machine (both lock with uv, ``oci`` installs from there), and
  the cache mounts of the engine for the two that install there. A round before the first one, which does not count,
  fills them (``--filled``: an earlier run did). Not cached, as BentoML's Dockerfile has it: packages of the
  distribution and uv itself.
- Package indexes are those of this machine's configuration; where it names one by ``PIP_INDEX_URL`` or
  ``UV_DEFAULT_INDEX``, BentoML gets it as variables of stage ``build``, which are secrets of the build.
- BentoML has its defaults but for ``docker.base_image``, so also its compiler and git in the image. ``--override`` is
  for an index that lacks a version which BentoML's metadata asks for: what uv takes in its place (``UV_OVERRIDE``),
  here and in the image; the file is in the base.
- ``--ca-bundle`` is handed to ``buildkit``. In a network that looks into TLS the base has to trust it for BentoML.

Afterwards each image of ``dependency`` is pulled and run, has to answer rightly, and lists its distributions.
Prints one JSON document, with a table of it on stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from counted import Counter, registry

STATES = ("cold", "edit", "dependency")
SUBJECTS = ("oci", "buildkit", "bentoml")
OVERRIDE = "etc/uv-override.txt"
LIMIT_S = 1800
SERVICE = """
import {tool}

with {tool}.importing():
    import numpy
    import onnxruntime
    from sklearn.datasets import load_iris

@{tool}.service
class Hello:
    model = {tool}.models.BentoModel("iris:latest")

    def __init__(self) -> None:
        self.session = onnxruntime.InferenceSession(self.model.path_of("iris.onnx"))
        self.names = [str(name) for name in load_iris().target_names]

    @{tool}.api
    def species(self, rows: list[list[float]]) -> list[str]:
        (label,) = self.session.run(["label"], {{"measurements": numpy.array(rows, numpy.float32)}})
        return [self.names[int(each)] for each in label]  # {edit}
"""
PACKAGES = ("scikit-learn", "onnxruntime", "numpy")
ASKED, ANSWER = {"rows": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]}, ["setosa", "virginica"]
CREATE = """
import shutil, sys, bentoml
with bentoml.models.create("iris") as model:
    shutil.copy(sys.argv[1], model.path_of("iris.onnx"))
"""
INVENTORY = """
import importlib.metadata, json, os, sys
def size(path): return os.lstat(path).st_size if os.path.lexists(path) else 0
found = {}
for each in importlib.metadata.distributions(path=[p for p in sys.path if p.startswith(sys.prefix)]):
    found[f"{each.name}=={each.version}"] = sum(size(each.locate_file(name)) for name in each.files or ())
whole = sum(size(os.path.join(top, name)) for top, _, names in os.walk(sys.prefix) for name in names)
print(json.dumps({"distributions": found, "environment": whole}))
"""


def run(command: list[str], folder: Path | None = None, environment: dict[str, str] | None = None) -> str:
    """Run it and give what it printed, or end with what it said."""
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)[:300]} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


@dataclass
class Subject:
    """One of the three, with a project and a store of its own in one round."""

    name: str
    folder: Path
    python: str
    base: str
    ca_bundle: str | None = None
    override: bool = False
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def tool(self) -> str:
        return "bentoml" if self.name == "bentoml" else "bentotool"

    def prepare(self, model: Path) -> None:
        """An empty store with the model."""
        self.folder.mkdir(parents=True)
        place = {"bentotool": "BENTOTOOL_STORE", "bentoml": "BENTOML_HOME"}[self.tool]
        self.environment |= {place: str(self.folder.parent / f"{self.name}-store"), "BENTOML_DO_NOT_TRACK": "True"}
        if self.tool == "bentoml":
            if self.override:
                self.environment["UV_OVERRIDE"] = str(self.folder.parent / "base" / OVERRIDE)
            run([self.python, "-c", CREATE, str(model)], self.folder, self.environment)
        else:
            self.command("model", "import", str(model), "--name", "iris")

    def command(self, *words: str) -> str:
        return run([self.python, "-m", self.tool, *words], self.folder, self.environment)

    def write(self, state: str) -> None:
        (self.folder / "service.py").write_text(SERVICE.format(tool=self.tool, edit=STATES.index(state) > 0))
        packages = [*PACKAGES, *(["orjson"] if state == "dependency" else [])]
        config: dict[str, Any] = {"service": "service:Hello", "name": "hello", "models": ["iris:latest"]}
        config["python"] = {"packages": packages}
        if self.tool == "bentoml":
            config["docker"] = {"base_image": self.base}
            named = [each for each in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX") if os.environ.get(each)]
            config["envs"] = [{"name": each, "stage": "build"} for each in named]
            config["envs"] += [{"name": "UV_OVERRIDE", "value": f"/{OVERRIDE}"}] if self.override else []
        else:
            config["python"]["version"] = f"{sys.version_info.major}.{sys.version_info.minor}"
        (self.folder / "bentofile.yaml").write_text(json.dumps(config))

    def build(self) -> str:
        """Its tag."""
        if self.tool == "bentotool":
            return str(json.loads(self.command("build", "--json", "--quiet"))["tag"])
        return self.command("build", "--output", "tag").strip().splitlines()[-1].removeprefix("__tag__:")

    def image(self, tag: str, image: str) -> None:
        """From the Bento to the registry."""
        if self.tool == "bentoml":
            self.command("containerize", tag, "-t", image)
            run(["docker", "push", "--quiet", image])
            return
        trusted = ["--ca-bundle", self.ca_bundle] if self.ca_bundle and self.name == "buildkit" else []
        self.command("containerize", tag, "--builder", self.name, "--base", self.base, "-t", image, "--push", *trusted)


def manifest(image: str) -> dict[str, Any]:
    """Of an image in the registry; of an index the entry that is an image."""
    host, _, rest = image.partition("/")
    name, _, reference = rest.partition(":")
    kinds = ("oci.image.index.v1", "oci.image.manifest.v1", "docker.distribution.manifest.v2")
    accept = ", ".join(f"application/vnd.{kind}+json" for kind in kinds)
    while True:
        request = urllib.request.Request(f"http://{host}/v2/{name}/manifests/{reference}", headers={"accept": accept})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        if "layers" in found:
            return found
        reference = next(each["digest"] for each in found["manifests"] if "platform" in each)


def measure(subject: Subject, state: str, image: str, counter: Counter, before: set[str]) -> dict[str, Any]:
    """One state of one round."""
    subject.write(state)
    start = time.perf_counter()
    tag = subject.build()
    built = time.perf_counter()
    counter.sent = 0
    subject.image(tag, image)
    end, sent = time.perf_counter(), counter.sent
    layers = {layer["digest"]: layer["size"] for layer in manifest(image)["layers"]}
    fresh = [size for digest, size in layers.items() if digest not in before]
    before |= set(layers)
    return {
        "build_s": built - start, "image_s": end - built, "sent": sent, "image": sum(layers.values()),
        "new_layers": len(fresh), "load": os.getloadavg()[0],
    }  # fmt: skip


def based(base: str, folder: Path, number: int, override: str | None, image: str) -> set[str]:
    """BASE with files of this round, pushed; the digests of its layers."""
    (folder / "etc").mkdir(parents=True)
    (folder / "etc" / "round").write_text(f"{number} {os.urandom(8).hex()}\n")
    (folder / OVERRIDE).write_text(f"{override or ''}\n")
    (folder / "Dockerfile").write_text(f"FROM {base}\nCOPY etc /etc\n")
    run(["docker", "build", "--quiet", "-t", image, str(folder)])
    run(["docker", "push", "--quiet", image])
    return {layer["digest"] for layer in manifest(image)["layers"]}


def one_round(options: argparse.Namespace, work: Path, number: int) -> dict[str, Any]:
    model = work / "project" / "iris.onnx"
    folder = work / f"round-{number}"
    folder.mkdir()
    found: dict[str, Any] = {}
    with registry(folder) as counter:
        base = f"{counter.address}/base:{number}"
        layers = based(options.base, folder / "base", number, options.override, base)
        made = [base]
        for name in options.only:
            python = options.bentoml if name == "bentoml" else sys.executable
            subject = Subject(name, folder / name, python, base, options.ca_bundle, bool(options.override))
            subject.prepare(model)
            before = set(layers)
            for state in STATES:
                image = f"{counter.address}/{name}:{state}"
                made.append(image)
                found.setdefault(name, {})[state] = taken = measure(subject, state, image, counter, before)
                print(f"round {number} {name} {state}: {taken}", file=sys.stderr, flush=True)
            if number == 1:
                of_base = sum(each["size"] for each in manifest(base)["layers"])
                found[name]["inside"] = {**inside(subject, image), "above_base": taken["image"] - of_base}
        for image in made:
            subprocess.run(["docker", "image", "rm", image], capture_output=True, check=False)
    return found


@contextmanager
def started(image: str) -> Iterator[str]:
    """A container of the image; its name."""
    name = f"image-bench-{os.urandom(6).hex()}"
    try:
        run(["docker", "run", "--detach", "--name", name, "--publish", "127.0.0.1::3000", image])
        yield name
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False)


def inside(subject: Subject, image: str) -> dict[str, Any]:
    """What a pulled image answers and holds."""
    subprocess.run(["docker", "image", "rm", image], capture_output=True, check=False)
    run(["docker", "pull", "--quiet", image])
    with started(image) as container:
        address = run(["docker", "port", container, "3000/tcp"]).splitlines()[0]
        request = urllib.request.Request(
            f"http://{address}/species", json.dumps(ASKED).encode(), {"content-type": "application/json"}
        )
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    said = json.loads(answer.read())
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    sys.exit(f"{image} does not answer: {error}\n{run(['docker', 'logs', container])[-2000:]}")
                time.sleep(0.3)
        if said != ANSWER:
            sys.exit(f"{image} answers {said}")
        python = "/app/.venv/bin/python" if subject.tool == "bentoml" else "/opt/bentotool/env/bin/python"
        held = json.loads(run(["docker", "exec", container, python, "-c", INVENTORY]))
    unpacked = int(run(["docker", "image", "inspect", "--format", "{{.Size}}", image]))
    return {**held, "count": len(held["distributions"]), "unpacked": unpacked, "wheels": wheels(subject)}


def wheels(subject: Subject) -> dict[str, int] | None:
    """Sizes of the wheels that a lock of ours names, as the index has them."""
    if subject.tool == "bentoml":
        return None
    target = subject.folder.parent / f"{subject.name}-wheels"
    lock = str(subject.folder / "bento.lock")
    options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--dest", str(target)]
    run([sys.executable, "-m", "pip", "download", *options, "--requirement", lock])
    return {path.name: path.stat().st_size for path in sorted(target.iterdir())}


def least(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The best of the rounds, figure by figure."""
    result: dict[str, Any] = {}
    for name in rounds[0]:
        result[name] = {}
        for state in STATES:
            taken = [each[name][state] for each in rounds]
            result[name][state] = {key: round(min(one[key] for one in taken), 2) for key in taken[0]}
            result[name][state]["load"] = [round(one["load"], 1) for one in taken]
        result[name] |= {"inside": rounds[0][name]["inside"]}
    return result


def table(result: dict[str, Any]) -> None:
    print(f"{'':22}{'build':>8}{'image':>8}{'sent':>14}{'new layers':>12}{'image':>14}", file=sys.stderr)
    for name, states in result.items():
        for state in STATES:
            row = states[state]
            text = (
                f"{row['build_s']:7.2f}s{row['image_s']:7.2f}s{row['sent']:14,}{row['new_layers']:12}{row['image']:14,}"
            )
            print(f"{name:11}{state:11}{text}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("base", metavar="BASE")
    parser.add_argument("--bentoml", metavar="PYTHON")
    parser.add_argument("--override", metavar="REQUIREMENT")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ca-bundle", metavar="FILE")
    parser.add_argument("--work", type=Path, help="where the files lie; default: the temporary folder")
    parser.add_argument(
        "--filled", action="store_true", help="leave out the first round: caches of packages are filled"
    )
    parser.add_argument("--only", nargs="*", choices=SUBJECTS)
    options = parser.parse_args()
    options.only = options.only or [each for each in SUBJECTS if each != "bentoml" or options.bentoml]
    if "bentoml" in options.only and not options.bentoml:
        parser.error("--bentoml PYTHON is needed")
    work = Path(tempfile.mkdtemp(prefix="image-bench-", dir=options.work))
    try:
        run([sys.executable, "-m", "bentotool", "init", str(work / "project")])
        if not options.filled:
            one_round(options, work, 0)
        result = least([one_round(options, work, number) for number in range(1, options.rounds + 1)])
    finally:
        shutil.rmtree(work, ignore_errors=True)
    table(result)
    print(json.dumps({"cpus": os.cpu_count(), **result}, indent=1))


if __name__ == "__main__":
    main()
