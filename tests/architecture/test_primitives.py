"""Dangerous and platform-bound primitives: none in the product but those on the list, each with a reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("allowed_primitives.toml")

MODULES = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "cloudpickle", "dill"}
POSIX_MODULES = {"fcntl", "pwd", "grp", "resource", "termios", "pty", "tty", "syslog"}
CALLS = {
    "joblib.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "tempfile.mktemp",
    "os.path.commonprefix",
    "shutil.unpack_archive",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "multiprocessing.Pipe",
    "multiprocessing.Queue",
    "jinja2.Environment",
    "builtins.eval",
    "builtins.exec",
    "numpy.load",
    "np.load",
    "torch.load",
}
POSIX_CALLS = {
    "os.fork",
    "os.forkpty",
    "os.getuid",
    "os.geteuid",
    "os.getgid",
    "os.setuid",
    "os.setgid",
    "os.killpg",
    "os.setsid",
    "os.mkfifo",
    "os.sched_getaffinity",
    "os.posix_fadvise",
    "os.sendfile",
    "os.uname",
    "signal.SIGKILL",
    "signal.SIGHUP",
    "signal.SIGALRM",
    "socket.AF_UNIX",
}
METHODS = {"extractall", "unpack_archive", "mktemp"}
SHELLS = {"sh", "bash", "zsh", "cmd"}
GUARDS = ("hasattr", "sys.platform", "os.name", "getattr", "supports_")


class Use(NamedTuple):
    file: str
    line: int
    name: str


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
        yield str(node.module).split(".")[0]
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dangerous(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each use, however it was imported."""
    for node in ast.walk(tree):
        for name in _imports(node):
            if name in MODULES or name in CALLS:
                yield node.lineno, name
        if isinstance(node, ast.Call):
            name = _dotted(node.func)
            if name in CALLS or name.rpartition(".")[2] in METHODS:
                yield node.lineno, name
            yield from ((node.lineno, f"{key.arg}=True") for key in node.keywords if _is_shell(key))
            yield from ((node.lineno, f"{key.arg}=True") for key in node.keywords if _allows_pickle(key))
        if isinstance(node, (ast.List, ast.Tuple)) and _runs_a_shell(node):
            yield node.lineno, "sh -c"


def _true(key: ast.keyword) -> bool:
    return not (isinstance(key.value, ast.Constant) and not key.value.value)


def _is_shell(key: ast.keyword) -> bool:
    return key.arg == "shell" and _true(key)


def _allows_pickle(key: ast.keyword) -> bool:
    return key.arg == "allow_pickle" and _true(key)


def _runs_a_shell(node: ast.List | ast.Tuple) -> bool:
    words = [str(item.value) for item in node.elts[:2] if isinstance(item, ast.Constant)]
    return len(words) == 2 and words[0].rpartition("/")[2] in SHELLS and words[1] in {"-c", "/c"}


def platform_bound(source: str) -> Iterator[tuple[int, str]]:
    """Uses of what Windows lacks, unless the statement around it, or the few lines before, ask for the platform."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        names = [name for name in _imports(node) if name in POSIX_MODULES]
        if isinstance(node, ast.Attribute) and _dotted(node) in POSIX_CALLS:
            names.append(_dotted(node))
        around = "\n".join(lines[max(0, node.lineno - 8) : node.lineno]) if names else ""
        if not any(guard in around for guard in GUARDS):
            yield from ((node.lineno, name) for name in names)


def _sources() -> list[Path]:
    plugins = (ROOT / "plugins").glob("*/src/**/*.py")
    return sorted([*(ROOT / "bentotool").rglob("*.py"), *plugins])


def _found() -> list[Use]:
    uses = []
    for path in _sources():
        source = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT).as_posix()
        uses += [Use(name, line, what) for line, what in dangerous(ast.parse(source))]
        uses += [Use(name, line, what) for line, what in platform_bound(source)]
    return uses


def _allowed() -> dict[tuple[str, str], str]:
    entries = tomllib.loads(LIST.read_text(encoding="utf-8")).get("allow", [])
    return {(entry["file"], entry["name"]): entry["reason"] for entry in entries}


def test_no_primitive_outside_the_list() -> None:
    allowed = _allowed()
    refused = [f"{use.file}:{use.line}: {use.name}" for use in _found() if (use.file, use.name) not in allowed]
    assert not refused, "\n".join(refused)


def test_the_list_is_current_and_gives_reasons() -> None:
    found = {(use.file, use.name) for use in _found()}
    assert not set(_allowed()) - found
    assert all(len(reason) > 20 for reason in _allowed().values())


@pytest.mark.parametrize(
    "planted",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import cloudpickle as c",
        "import yaml\nyaml.load(x)",
        "from yaml import load",
        "eval('1')",
        "exec(code)",
        "archive.extractall(path)",
        "shutil.unpack_archive(a)",
        "subprocess.run(line, shell=True)",
        "subprocess.run(line, shell=flag)",
        "subprocess.run(['sh', '-c', line])",
        "subprocess.run(('/bin/bash', '-c', line))",
        "os.system('ls')",
        "tempfile.mktemp()",
        "os.path.commonprefix(paths)",
        "joblib.load(path)",
        "thing.load(path, allow_pickle=True)",
    ],
)
def test_a_planted_violation_is_found(planted: str) -> None:
    assert list(dangerous(ast.parse(planted)))


@pytest.mark.parametrize("innocent", ["yaml.safe_load(x)", "json.loads(x)", "run(a, shell=False)", "re.compile(x)"])
def test_an_innocent_line_is_not(innocent: str) -> None:
    assert not list(dangerous(ast.parse(innocent)))


@pytest.mark.parametrize("planted", ["import fcntl", "import os\nos.fork()", "def f():\n    from pwd import getpwnam"])
def test_planted_platform_use_is_found(planted: str) -> None:
    assert list(platform_bound(planted))


def test_a_guarded_platform_use_is_not() -> None:
    assert not list(platform_bound("import os\nif hasattr(os, 'fork'):\n    os.fork()"))
