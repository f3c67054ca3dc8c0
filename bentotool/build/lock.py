"""The lock: every distribution of the Bento's environment, pinned with its hashes, for the target, not this host.

Format of ``bento.lock``: four comment lines (format, digest of the inputs, Python, platform), then a requirements file
as PEP 508 and pip's hash-checking mode have it. Nothing in it says where the packages came from.
"""

from __future__ import annotations

import json
import os
import platform as host
import re
import subprocess  # uv has no other interface; always an argument list
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bentotool.build.contain import open_inside
from bentotool.build.requirements import LITESTAR_NEEDS, Requirements, demanded_hashes, normal_name
from bentotool.errors import BuildError, NotFoundError, RemoteError, UsageError, VerificationError
from bentotool.oci.descriptor import canonical_json
from bentotool.oci.digest import sha256_bytes

__all__ = ["LOCK_FILE", "PLATFORMS", "Lock", "default_platform", "make_lock", "parse_lock", "read_lock"]

LOCK_FILE = "bento.lock"
PLATFORMS = {"linux/amd64": "x86_64-manylinux_2_36", "linux/arm64": "aarch64-manylinux_2_36"}
"""Targets, and what uv calls them: the C library of Debian 12, the oldest base that images are made from."""

_FORMAT = 1
_LIMIT = 4 << 20
_HEADER = re.compile(
    r"# bento\.lock, format 1: made by `bentotool build`, not to be edited\n"
    r"# inputs: (sha256:[0-9a-f]{64})\n# python: (3\.\d{1,2})\n# platform: (linux/(?:amd64|arm64))\n"
)
_PIN = re.compile(r"[A-Za-z0-9][\w.-]*(?:\[[\w.,-]+\])?(?:==[\w.!+]+| @ https?://[^\s@]+)(?: ; [^\\\n]+| ?)")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Lock:
    """A lock.

    Args:
        text: the whole file; what the Bento carries.
        inputs: digest of what it was made from.
        python: ``X.Y``.
        platform: ``linux/amd64`` or ``linux/arm64``.
        reused: it stood in the project already.
    """

    text: str
    inputs: str
    python: str
    platform: str
    reused: bool = False

    @property
    def pins(self) -> tuple[str, ...]:
        """The pinned distributions, ``name==version``."""
        return tuple(
            line.split(" \\")[0].split(" ;")[0].strip() for line in self.text.splitlines() if line and line[0].isalnum()
        )


def default_platform() -> str:
    """The Linux platform of this machine's kind of processor."""
    return "linux/arm64" if host.machine().lower() in ("arm64", "aarch64") else "linux/amd64"


def inputs_digest(requirements: Requirements, python: str, platform: str) -> str:
    """Digest of everything a resolution is asked for; equal digests need no new resolution."""
    indexes = requirements.indexes
    document = {
        "format": _FORMAT,
        "python": python,
        "platform": PLATFORMS[platform],
        "requirements": sorted(requirements.lines),
        "constraints": sorted(requirements.constraints),
        "index_url": indexes.index_url,
        "extra_index_url": list(indexes.extra_index_url),
        # A wheelhouse in the project has another absolute path on each machine.
        "find_links": [link if "://" in link else Path(link).name for link in indexes.find_links],
        "no_index": indexes.no_index,
        "litestar": list(LITESTAR_NEEDS) if requirements.lean_litestar else None,
    }
    return sha256_bytes(canonical_json(document))


def parse_lock(text: str) -> Lock:
    """Read a lock, checking that it holds pins with hashes and nothing else: no option, index or path.

    Raises:
        VerificationError: naming the line.
    """
    header = _HEADER.match(text)
    if not header:
        raise VerificationError(
            f"{LOCK_FILE} does not start as a lock of this format", hint=f"delete {LOCK_FILE} and build again"
        )
    pinned = hashed = True
    for number, line in enumerate(text.splitlines(), 1):
        body = line.strip()
        if number <= 4 or not body:
            continue
        content = body.removesuffix("\\").rstrip()
        if line[0] in " \t" and _HASH.fullmatch(content):
            hashed = True
        elif hashed and line[0] not in " \t" and _PIN.fullmatch(content):
            pinned, hashed = True, False
        else:
            pinned = False
        if not pinned:
            raise VerificationError(
                f"{LOCK_FILE}, line {number}: not a pin with hashes", hint=f"delete {LOCK_FILE} and build again"
            )
    if not hashed:
        raise VerificationError(
            f"{LOCK_FILE}: the last package has no hash", hint=f"delete {LOCK_FILE} and build again"
        )
    return Lock(text, header.group(1), header.group(2), header.group(3))


def read_lock(project: Path) -> Lock | None:
    """The project's lock, or None when it has none.

    Raises:
        VerificationError: when the file is damaged.
    """
    try:
        with open_inside(project, LOCK_FILE) as file:
            content = file.read(_LIMIT + 1)
    except NotFoundError:
        return None
    try:
        text = content.decode().replace("\r\n", "\n") if len(content) <= _LIMIT else ""
    except UnicodeDecodeError:
        text = ""
    return parse_lock(text)


def make_lock(
    requirements: Requirements,
    python: str,
    platform: str,
    *,
    previous: Lock | None = None,
    locked: bool = False,
    offline: bool = False,
    timeout: float = 600.0,
) -> Lock:
    """The lock for some requirements: the previous one while its inputs stand, else a new resolution.

    Args:
        previous: the project's lock; its pins are kept where they still fit.
        locked: refuse to resolve.
        offline: take packages from uv's cache and ``find_links`` only.
        timeout: seconds for the resolution.

    Raises:
        UsageError: ``locked``, and the lock is absent or made from other inputs.
        BuildError: the requirements cannot be satisfied, or uv fails.
        RemoteError: an index could not be reached.
    """
    inputs = inputs_digest(requirements, python, platform)
    if previous is not None and previous.inputs == inputs:
        return Lock(previous.text, previous.inputs, previous.python, previous.platform, reused=True)
    if locked:
        state = "is out of date" if previous else "is missing"
        raise UsageError(
            f"{LOCK_FILE} {state} and --locked was given",
            hint="run bentotool build without --locked, and commit the lock",
        )
    with tempfile.TemporaryDirectory(prefix="bentotool-lock-") as folder:
        workspace = Path(folder)
        _prepare(workspace, requirements, previous if previous and previous.python == python else None)
        _resolve(workspace, _arguments(requirements, python, platform, offline), offline, timeout)
        lines = (workspace / "lock.txt").read_text(encoding="utf-8").splitlines()
    body = "".join(f"{line.rstrip()}\n" for line in lines if line.strip() and not line.lstrip().startswith("#"))
    body = _only_demanded(body, demanded_hashes(requirements))
    header = f"# bento.lock, format {_FORMAT}: made by `bentotool build`, not to be edited\n"
    header += f"# inputs: {inputs}\n# python: {python}\n# platform: {platform}\n"
    return parse_lock(header + body)


def _only_demanded(body: str, demanded: dict[str, frozenset[str]]) -> str:
    """Keep, of each package whose hashes the project pins, those hashes alone.

    Raises:
        VerificationError: the index offers no file with a pinned hash.
    """
    if not demanded:
        return body
    blocks: list[list[str]] = []
    for line in body.splitlines():
        if line[0] in " \t":
            blocks[-1].append(line.strip().removesuffix("\\").strip())
        else:
            blocks.append([line.removesuffix("\\").strip()])
    for block in blocks:
        wanted = demanded.get(normal_name(block[0]))
        if wanted is not None:
            block[1:] = [item for item in block[1:] if item.removeprefix("--hash=") in wanted]
        if len(block) == 1:
            raise VerificationError(
                f"{block[0]}: the package index has no file with a hash that the requirements pin",
                hint="correct the hashes in the requirements file, or find out who changed the package",
            )
    return "".join(" \\\n    ".join(block) + "\n" for block in blocks)


def _arguments(requirements: Requirements, python: str, platform: str, offline: bool) -> list[str]:
    indexes = requirements.indexes
    output = [
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
        "--no-progress",
        "--color",
        "never",
        "--output-file",
        "lock.txt",
    ]
    target = ["--python-version", python, "--python-platform", PLATFORMS[platform], "--python", sys.executable]
    arguments = ["pip", "compile", "requirements.in", *output, *target]
    if requirements.constraints:
        arguments += ["--constraints", "constraints.txt"]
    arguments += ["--index-url", indexes.index_url] if indexes.index_url else []
    for url in indexes.extra_index_url:
        arguments += ["--extra-index-url", url]
    for link in indexes.find_links:
        arguments += ["--find-links", link]
    for name in indexes.trusted_host:
        arguments += ["--allow-insecure-host", name]
    return arguments + (["--no-index"] if indexes.no_index else []) + (["--offline"] if offline else [])


def _prepare(folder: Path, requirements: Requirements, previous: Lock | None) -> None:
    """Write what uv reads into its working folder."""
    (folder / "requirements.in").write_text("\n".join(requirements.lines) + "\n", encoding="utf-8")
    (folder / "constraints.txt").write_text("\n".join(requirements.constraints) + "\n", encoding="utf-8")
    # As the folder's own uv.toml this adds to the user's configuration, where --config-file would replace it.
    needs = f'[[dependency-metadata]]\nname = "litestar"\nrequires-dist = {json.dumps(LITESTAR_NEEDS)}\n'
    settings = f"{_named_configuration()}\n{needs if requirements.lean_litestar else ''}"
    (folder / "uv.toml").write_text(settings, encoding="utf-8")
    if previous is not None:
        (folder / "lock.txt").write_text(previous.text, encoding="utf-8")


def _named_configuration() -> str:
    """The file that UV_CONFIG_FILE names. uv then reads no other, so ours has to repeat it."""
    named = os.environ.get("UV_CONFIG_FILE")
    if not named:
        return ""
    try:
        return Path(named).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"UV_CONFIG_FILE={named} cannot be read: {error}", hint="unset it or correct it") from None


def _resolve(folder: Path, arguments: list[str], offline: bool, timeout: float) -> None:
    command = [_uv(), *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in ("UV_CONFIG_FILE", "UV_NO_CONFIG")}
    if len(environment) != len(os.environ):
        command += ["--config-file", "uv.toml"]
    environment |= {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BuildError(
            f"resolving the requirements took more than {timeout:.0f} s", hint="bentotool build -v shows more"
        ) from None
    except OSError as error:
        raise BuildError(f"uv could not be started: {error.strerror}", hint="pip install uv") from None
    if done.returncode:
        raise _explain(done.stderr.decode("utf-8", "replace"), offline)


def _uv() -> str:
    try:
        import uv
    except ImportError:
        raise BuildError("uv is not installed", hint="pip install uv") from None
    try:
        return str(uv.find_uv_bin())
    except FileNotFoundError:
        raise BuildError(
            "the uv program is missing from its package", hint="pip install --force-reinstall uv"
        ) from None


def _explain(stderr: str, offline: bool) -> BuildError | RemoteError:
    """Turn uv's report into one line; credentials that a URL in it may hold are removed."""
    words = re.sub(r"//[^/@\s]*@", "//***@", re.sub(r"[^\x00-\x7f]+", " ", stderr))
    lines = [line for line in words.splitlines() if line.strip() and not line.lstrip().lower().startswith("warning:")]
    said, _, advice = "\n".join(line.strip() for line in lines).partition("\nhint:")
    message = " ".join(said.split()).removeprefix("error: ")
    message = re.sub(r"^No solution found when resolving dependencies.*?(cause:|:)\s*", "", message)
    message = re.sub(r"^cause:\s*", "", message)
    message = message.replace(", we can conclude that your requirements are unsatisfiable", "").rstrip(".")[:600]
    message = message or "uv failed without saying why"
    lowered = message.lower()
    if any(
        sign in lowered
        for sign in ("error sending request", "dns error", "failed to fetch", "connection refused", "timed out")
    ):
        return RemoteError(
            f"the package index did not answer: {message}",
            hint="check the network, or use --offline with python.find_links",
        )
    if offline and ("cache" in lowered or "network was disabled" in advice.lower()):
        absent = re.search(r"([A-Za-z0-9][\w.-]*)\S* was not found in the cache", message)
        return BuildError(
            f"requirements cannot be resolved offline: {absent[1] if absent else 'a package'} is not in uv's cache",
            hint="build once without --offline, or add a folder of wheels: python.find_links",
        )
    if "wheel filename" in lowered and "invalid" in lowered:
        return BuildError(
            f"requirements cannot be resolved: {message}", hint="name it NAME-VERSION-PYTHON-ABI-PLATFORM.whl"
        )
    if "not found in the package registry" in lowered or "was not found in the provided package locations" in lowered:
        return BuildError(f"requirements cannot be resolved: {message}", hint="check the names under python.packages")
    return BuildError(f"requirements cannot be resolved: {message}", hint="loosen one of the versions named above")
