"""What a plugin must do, checked against the plugin as it is installed.

A check that fails raises :class:`ContractError`, an :class:`AssertionError` whose text says what to change.
"""

from __future__ import annotations

import ast
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bentotool.errors import BentotoolError
from bentotool.interfaces import FrameworkDecl, Match, ModelInfo, SourceFile
from bentotool.models.detect import describe_model, detect_framework
from bentotool.plugins import Plugins, PluginState, load_plugins
from bentotool.protocols import Framework
from bentotool.signspec import SignerDecl, Signers

__all__ = ["ContractError", "check_framework", "check_plugin", "source_files"]

MAX_NEW_MODULES = 10
HEAVY = (
    *("numpy", "pandas", "scipy", "sklearn", "torch", "tensorflow", "onnx", "onnxruntime", "transformers", "PIL"),
    *("pydantic", "requests", "httpx", "aiohttp", "litestar", "rich", "typer", "docker", "kubernetes", "boto3"),
    *("asyncio", "ssl", "importlib.metadata", "oras", "sigstore", "skops", "joblib", "yaml"),
)
_DAMAGED_COPIES = 24
_MAX_SECONDS = 30.0
"""For one damaged copy: far above what any reader needs, far below for ever."""

# Runs in a fresh interpreter: what importing the hooks module adds to what bentotool has loaded before it.
_PROBE = """
import importlib, json, sys
import bentotool.plugins
before = set(sys.modules)
importlib.import_module(sys.argv[1])
print(json.dumps(sorted(set(sys.modules) - before)))
"""


class ContractError(AssertionError):
    """The plugin breaks its contract; the text says where."""


def check_plugin(name: str) -> PluginState:
    """Check an installed plugin: found, loads without failure, cheap to import, and everything it declares resolves.

    Args:
        name: of its entry point.

    Returns:
        its line of ``bentotool plugin list``.

    Raises:
        ContractError: something is wrong with it.
    """
    plugins = load_plugins(warn=lambda _: None)
    plugins.check()
    state = next((item for item in plugins.states() if item.name == name), None)
    if state is None:
        known = ", ".join(item.name for item in plugins.states()) or "none"
        raise ContractError(f"no plugin {name!r} is installed (found: {known}); see the entry points of its pyproject")
    if state.state != "loaded" or state.problem:
        raise ContractError(f"plugin {name!r} is {state.state}: {state.problem}")
    if not state.distribution or not state.version:
        raise ContractError(f"plugin {name!r} comes from no named and versioned distribution")
    _check_import_cost(state.target.partition(":")[0])
    for decl in plugins.declared_by(name):
        if isinstance(decl, FrameworkDecl):
            _check_loader(plugins, decl)
            if not isinstance(plugins.resolve(decl), Framework):
                raise ContractError(f"{decl.target} is not a Framework: it lacks detect, describe or save")
        elif isinstance(decl, SignerDecl) and not isinstance(plugins.resolve(decl), Signers):
            raise ContractError(f"{decl.target} is not a Signers: it lacks signer or verifier")
    return state


def check_framework(
    framework: str,
    samples: Sequence[Path],
    *,
    scratch: Path,
    options: dict[str, object] | None = None,
    seed: int = 0,
) -> list[ModelInfo]:
    """Check a framework plugin against sample models.

    Each sample is detected, described and, where its safety class allows, loaded by the stand-alone loader in a
    fresh process without bentotool. Foreign and damaged files must be refused with an error of one line, soon.

    Args:
        framework: its name.
        samples: model files or folders.
        scratch: an empty folder to write into.
        options: for the loader.
        seed: of the damage that is done to copies of the samples.

    Returns:
        what the plugin says of each sample.
    """
    plugins = load_plugins(warn=lambda _: None)
    infos = []
    for sample in samples:
        files = source_files(sample)
        _, match = detect_framework(files, plugins)
        if match.framework != framework:
            raise ContractError(f"{sample.name} was taken for a model of {match.framework!r}")
        info = _check_description(plugins, framework, files, match)
        infos.append(info)
        if info.safety != "pickle":
            _check_loading(plugins, framework, sample, info, options or {})
        _check_damaged(plugins, framework, files, scratch, random.Random(seed))  # noqa: S311 - reproducible damage
    _check_foreign(plugins, framework, scratch)
    return infos


def source_files(sample: Path) -> list[SourceFile]:
    """What ``detect`` and ``describe`` get for a file, or for a folder."""
    if sample.is_file():
        return [SourceFile(sample, sample.name)]
    found = sorted(path for path in sample.rglob("*") if path.is_file())
    return [SourceFile(path, path.relative_to(sample).as_posix()) for path in found]


def _check_import_cost(module: str) -> None:
    new = _in_fresh_process(_PROBE, module)
    heavy = sorted(name for name in new if name in HEAVY or name.partition(".")[0] in HEAVY)
    if heavy:
        raise ContractError(f"importing {module} imports {', '.join(heavy)}; import them where they are used")
    if len(new) > MAX_NEW_MODULES:
        raise ContractError(f"importing {module} loads {len(new)} modules, more than {MAX_NEW_MODULES}: {new}")


def _in_fresh_process(code: str, *arguments: str) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
        encoding="utf-8",
    )
    if done.returncode:
        raise ContractError(f"a fresh process failed: {done.stderr.strip()[-1000:]}")
    result: list[str] = json.loads(done.stdout.splitlines()[-1])
    return result


def _check_loader(plugins: Plugins, decl: FrameworkDecl) -> None:
    path, files = plugins.loader_path(decl.name), plugins.loader_files(decl.name)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = (decl.loader.partition(".")[0], "bentotool")
    for part in files.values():
        for node in ast.walk(ast.parse(part.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                beside = node.level == 1 and path.name == "__init__.py"
                names = ["" if beside else "." if node.level else node.module or ""]
            if any(name == "." or name.partition(".")[0] in own for name in names):
                raise ContractError(f"{part}: a loader travels alone, and imports {', '.join(names)}")
    if not any(isinstance(node, ast.FunctionDef) and node.name == "load" for node in tree.body):
        raise ContractError(f"{path} has no function load(path, **options)")


def _check_description(plugins: Plugins, framework: str, files: Sequence[SourceFile], match: Match) -> ModelInfo:
    info = describe_model(files, plugins, framework, trust=True)
    if (info.framework, info.main_file) != (framework, match.main_file):
        raise ContractError(f"describe answers {info.framework}, {info.main_file!r}; detect answered {match}")
    if describe_model(files, plugins, trust=True) != info:
        raise ContractError("describe answers differently the second time")
    try:
        json.dumps(dict(info.metadata), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ContractError(f"the metadata is not JSON: {error}") from error
    return info


_LOAD = """
import importlib.util, json, sys
path, target, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
inside = [path[: -len("__init__.py")]] if path.endswith("__init__.py") else None
spec = importlib.util.spec_from_file_location("_loader", path, submodule_search_locations=inside)
module = sys.modules["_loader"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
assert module.load(target, **options) is not None
print(json.dumps([name for name in sys.modules if name.partition(".")[0] == "bentotool"]))
"""


def _check_loading(plugins: Plugins, framework: str, sample: Path, info: ModelInfo, options: dict[str, object]) -> None:
    target = sample / info.main_file if sample.is_dir() and info.main_file else sample
    loader = plugins.loader_path(framework)
    needed = _in_fresh_process(_LOAD, str(loader), str(target), json.dumps(options))
    if needed:
        raise ContractError(f"{loader} imports {', '.join(needed)}, which a Bento may lack")


def _check_damaged(
    plugins: Plugins, framework: str, files: Sequence[SourceFile], scratch: Path, chance: random.Random
) -> None:
    main = max(files, key=lambda file: file.path.stat().st_size)
    content = main.path.read_bytes()
    for number in range(_DAMAGED_COPIES):
        damaged = bytearray(content)
        if number % 2:
            del damaged[chance.randrange(len(damaged)) :]
        else:
            for _ in range(1 + number):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        copy = scratch / f"damaged-{number}{main.path.suffix}"
        copy.write_bytes(damaged)
        others = [SourceFile(copy, file.name) if file is main else file for file in files]
        _must_end_well(plugins, framework, others, f"a damaged copy of {main.name}")
        copy.unlink()


def _check_foreign(plugins: Plugins, framework: str, scratch: Path) -> None:
    foreign = {"notes.txt": b"Just some text, which is no model.\n", "empty": b"", "zeros.bin": bytes(4096)}
    implementation = plugins.framework(framework)
    for name, content in foreign.items():
        path = scratch / name
        path.write_bytes(content)
        if implementation.detect([SourceFile(path, name)]) is not None:
            raise ContractError(f"{framework} claims {name}, which is no model")
        path.unlink()


def _must_end_well(plugins: Plugins, framework: str, files: Sequence[SourceFile], what: str) -> None:
    implementation = plugins.framework(framework)
    started = time.monotonic()
    try:
        if implementation.detect(files) is not None:
            implementation.describe(files)
    except BentotoolError as error:
        if "\n" in error.message:
            raise ContractError(f"{what} is refused with an error of several lines: {error.message!r}") from error
    except Exception as error:
        raise ContractError(f"{what} makes {framework} raise {type(error).__name__}: {error}") from error
    if time.monotonic() - started > _MAX_SECONDS:
        raise ContractError(f"{what} keeps {framework} busy for more than {_MAX_SECONDS} s")
