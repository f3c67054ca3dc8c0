"""Starting the runtime on this machine: for a project folder, a service, or a Bento of the store.

The runtime is always a process of its own. For a Bento it is the one the Bento carries; nothing of this package is
imported there.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bentotool.build.arguments import check_size
from bentotool.build.bentos import BentoStore
from bentotool.environments import locked_environment, missing_packages
from bentotool.errors import BentotoolError, NotFoundError, ServiceLoadError, UsageError, VerificationError
from bentotool.oci.layout import Layout
from bentotool.paths import STORE_ENV, remove_folder
from bentotool.runtime.bento import ARGUMENTS_VARIABLE
from bentotool.runtime.leftovers import make_work_folder
from bentotool.trust.enforcing import check_folder, check_stored_bento, in_force

__all__ = ["Launch", "plan_launch", "running"]

_IMPORT_STRING = re.compile(r"([A-Za-z_][\w./\\]*?)(?:\.py)?:([A-Za-z_]\w*)", re.ASCII)
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Launch:
    """How to start the runtime.

    Attributes:
        name: what is served, for people.
        folder: the working folder, which the service is imported from.
        arguments: after ``python -m bentotool.runtime``.
        environment: set beside what this process has.
        python: the interpreter.
        values: template arguments by name. They travel in one variable, which the runtime takes out of its environment:
            an argument list is there for all to see.
        temporary: it serves no files, and starts in a folder that is made for it, see :meth:`placed`.
    """

    name: str
    folder: Path
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    temporary: bool = False

    def placed(self) -> Launch:
        """As it is to be started now: with a folder that is there. One that is made for it goes with the server.

        A server imports from where it starts. Nobody else could ever put anything into a new folder of this user's own.
        """
        if not self.temporary:
            return self
        folder = make_work_folder()
        return replace(self, folder=folder, arguments=(str(folder), *self.arguments))

    def command(self, options: Sequence[str] = ()) -> list[str]:
        """The argument list of the process."""
        own = ["--own-folder"] if self.temporary else []
        return [self.python, "-m", "bentotool.runtime", *self.arguments, *own, *options]

    def variables(self) -> dict[str, str]:
        """The environment of the process."""
        values = {ARGUMENTS_VARIABLE: json.dumps(dict(self.values))} if self.values else {}
        inherited = {name: value for name, value in os.environ.items() if name != ARGUMENTS_VARIABLE}
        return {**inherited, **self.environment, **values}


def plan_launch(
    target: str,
    layout: Layout,
    *,
    isolated: bool = False,
    reload: bool = False,
    arguments: Mapping[str, Any] | None = None,
    verify: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> Launch:
    """Decide what ``target`` is.

    Args:
        target: a folder (a project, or an unpacked Bento), ``module:Service`` in this folder, or a Bento's reference.
        isolated: run a Bento in an environment made from its lock.
        reload: files are to be watched, which those of a Bento need not be.
        arguments: template arguments by name; of a Bento the secret ones.
        verify: hold every byte of the Bento against its digest first. A policy may ask for that too.
        note: told what a policy that is not enforced would refuse.

    Raises:
        NotFoundError: when it is none of them.
        VerificationError: a policy refuses the Bento, or a byte of it differs.
        UsageError: the arguments are too large, or a Bento is to be reloaded.
        BentotoolError: when packages that a Bento needs are missing here.
    """
    launch = _launch(target, layout, isolated, verify, note)
    if reload and "--service" not in launch.arguments:
        raise UsageError("a Bento never changes: --reload is for project folders", hint="leave --reload out")
    values = {**launch.values, **(arguments or {})}
    check_size(values)
    return replace(launch, values=values)


def _launch(target: str, layout: Layout, isolated: bool, verify: bool, note: Callable[[str], None]) -> Launch:
    path, policies = Path(target), in_force()  # one that is named and not there is an error, whatever is served
    if path.is_dir():
        if verify:
            raise UsageError(
                f"{target!r} is a folder, which has no digest to be held against",
                hint="bentotool serve NAME[:VERSION] --verify serves a Bento of the store",
            )
        bento = next((p for p in (path, path / "home" / "bento") if (p / "bento.json").is_file()), None)
        if bento is None:
            _tell_twins(target, layout, any(each.policy.enforce for each in policies), note)
            return _project(path, layout)
        check_folder(target, why="an unpacked Bento has no signature", hint="serve it by its name", note=note)
        return _unpacked(bento.resolve().parent.parent, target)
    found = _IMPORT_STRING.fullmatch(target)
    if found:
        module = found[1].replace("/", ".").replace("\\", ".")
        file = Path(module.replace(".", "/"))
        if file.with_suffix(".py").is_file() or file.is_dir():
            store = {STORE_ENV: str(layout.root)}
            if verify:
                raise UsageError(f"{target} is a module, which has no digest to be held against")
            return Launch(target, Path.cwd(), (str(Path.cwd()), "--service", f"{module}:{found[2]}"), store)
    if os.sep in target or target.startswith("."):
        raise NotFoundError(f"no folder {target!r}", hint="bentotool init DIR makes a project")
    try:
        return _stored(target, layout, isolated=isolated, verify=verify, note=note)
    except NotFoundError as error:
        if not found:
            raise
        # as likely a module that is misspelt as a Bento that is not there
        modules = [path.stem for path in Path.cwd().glob("*.py")]
        close = difflib.get_close_matches(found[1], modules, 1)
        hint = f"did you mean {close[0]}:{found[2]}?" if close else error.hint
        message = f"no {found[1].removesuffix('.py')}.py in this folder, and no Bento {target} in the store"
        raise NotFoundError(message, hint=hint) from error


def _tell_twins(target: str, layout: Layout, enforced: bool, note: Callable[[str], None]) -> None:
    """Say which one is meant where a folder has the name of a Bento: a policy judges the Bento alone."""
    try:
        if not BentoStore(layout).list(target):
            return
    except BentotoolError:  # no Bento can have the name
        return
    unjudged = "; no policy judges a project folder" if enforced else ""
    warning = "warning: " if enforced else ""
    note(f"{warning}this serves the folder {target}, not the Bento of that name: that is {target}:latest{unjudged}")


def _project(folder: Path, layout: Layout) -> Launch:
    from bentotool.build.configfile import load_config

    project = load_config(folder.resolve())
    variables = {env.name: env.value for env in project.config.envs if env.stage != "build" and env.value}
    variables[STORE_ENV] = str(layout.root)
    arguments = (str(project.project), "--service", project.config.service or "service")
    return Launch(str(folder), project.project, arguments, variables, values=project.config.args)


def _unpacked(root: Path, name: str, python: str = sys.executable) -> Launch:
    home = root / "home" / "bento"
    runtime = root / "opt" / "bentotool" / "runtime"
    path = os.pathsep.join([str(runtime), *filter(None, [os.environ.get("PYTHONPATH")])])
    return Launch(name, home / "app", (str(home),), {"PYTHONPATH": path} if runtime.is_dir() else {}, python)


def _stored(reference: str, layout: Layout, *, isolated: bool, verify: bool, note: Callable[[str], None]) -> Launch:
    bentos = BentoStore(layout)
    bento = bentos.get(reference)
    passed = check_stored_bento(layout, bento, note=note)
    lock = bentos.requirements(bento)
    python = sys.executable
    if isolated:
        wheels = bentos.materialise(bento) / "wheels"
        python = str(locked_environment(layout.root / "envs", lock, bento.python, wheels))
    elif missing := missing_packages(lock):
        named = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise BentotoolError(
            f"Bento {bento.tag} needs packages that are not installed here: {named}",
            hint=f"bentotool serve {bento.tag} --isolated makes an environment from its lock",
        )
    folder = bentos.materialise(bento)
    if verify or passed.runtime_check:
        _verify(layout, folder, bento.digest, note)
    return _unpacked(folder, bento.tag, python)


def _verify(layout: Layout, folder: Path, digest: str, note: Callable[[str], None]) -> None:
    """Check an unpacked Bento, by this package and not by the Bento's own runtime, which is among what is checked."""
    from bentotool.runtime.verifying import verify_bento

    for cache in [*folder.rglob("__pycache__")]:  # made by Python when it was served before, and made again
        remove_folder(cache)
    documents, runtime = layout.root / "blobs" / "sha256", folder / "opt" / "bentotool" / "runtime"
    try:
        done = verify_bento(folder, digest, documents, runtime)
    except VerificationError as error:
        hint = f"bentotool store verify checks the store; without {folder} it is unpacked anew"
        raise VerificationError(error.message, hint=hint) from None
    note(f"verified {done.files} files, {done.size / 1e6:.1f} MB, against {digest} in {done.seconds:.1f} s")


@dataclass(frozen=True)
class RunningServer:
    """A server started by :func:`running`."""

    url: str
    process: subprocess.Popen[str]


@contextmanager
def running(launch: Launch, options: Sequence[str] = ()) -> Iterator[RunningServer]:
    """Run the server on a free port for the length of a block.

    Raises:
        ServiceLoadError: when it does not start; its own last line says why.
    """
    launch = launch.placed()
    with tempfile.TemporaryDirectory(prefix="bentotool-serve-") as folder:
        port_file, log = Path(folder) / "port", Path(folder) / "log"
        command = launch.command(["--port", "0", "--port-file", str(port_file), *options])
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                command, cwd=launch.folder, env=launch.variables(), stdout=output, stderr=output, text=True
            )
        try:
            yield RunningServer(f"http://127.0.0.1:{_wait(process, port_file, log)}", process)
        finally:
            _stop(process)


def _wait(process: subprocess.Popen[str], port_file: Path, log: Path) -> int:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        if port_file.exists() and (text := port_file.read_text(encoding="utf-8").strip()):
            return int(text)
        time.sleep(0.02)
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    reason = next(
        (line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "it said nothing"
    )
    raise ServiceLoadError(f"the server did not start: {reason.removeprefix('error: ')}")


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
