"""The lock: every distribution of the Bento's environment, pinned with its hashes, for the target, not this host.

Format of ``bento.lock``: four comment lines (format, digest of the inputs, Python, platform), one with the digest of
all that follows it (``# content: sha256:…``; older locks have none), one for the commit of each package from git
(``# commit: NAME COMMIT``), one for each package without a wheel for the target (``# source: NAME``), then a
requirements file as PEP 508 and pip's hash-checking mode have it. Nothing in it says where the packages came from. A
package that the Bento carries as a wheel stands as any other.
"""

from __future__ import annotations

import platform as host
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bentotool.build.contain import open_inside
from bentotool.build.packing import PackedWheel, Packer
from bentotool.build.requirements import LITESTAR_NEEDS, Requirements, demanded_hashes, normal_name
from bentotool.build.resolve import resolve
from bentotool.build.target import PLATFORMS
from bentotool.errors import BuildError, NotFoundError, UsageError, VerificationError
from bentotool.oci.descriptor import canonical_json
from bentotool.oci.digest import sha256_bytes

__all__ = ["LOCK_FILE", "PLATFORMS", "Lock", "default_platform", "make_lock", "parse_lock", "read_lock"]

LOCK_FILE = "bento.lock"
_FORMAT = 1
_LIMIT = 4 << 20
_HEADER = re.compile(
    r"# bento\.lock, format 1: made by `bentotool build`, not to be edited\n"
    r"# inputs: (sha256:[0-9a-f]{64})\n# python: (3\.\d{1,2})\n# platform: (linux/(?:amd64|arm64))\n"
    r"(?:# content: (?P<content>sha256:[0-9a-f]{64})\n)?"
    r"(?P<commits>(?:# commit: [a-z0-9-]+ [0-9a-f]{40,64}\n)*)(?P<built>(?:# source: [a-z0-9-]+\n)*)"
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
        commits: of git repositories, by package.
        built: packages without a wheel for the target: they are built from source where the Bento is installed.
        wheels: of the packages that the Bento carries; they are not part of the file.
    """

    text: str
    inputs: str
    python: str
    platform: str
    reused: bool = False
    commits: Mapping[str, str] = field(default_factory=dict)
    built: tuple[str, ...] = ()
    wheels: tuple[PackedWheel, ...] = ()

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
    document: dict[str, object] = {
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
    more: dict[str, object] = {
        "indexes": [[item.name, item.url, item.default, item.explicit, item.flat] for item in indexes.named],
        "pinned_indexes": dict(indexes.pinned),
        "own_lock": [[pin.line, *pin.hashes] for pin in requirements.pinned],
        "sources": [source.inputs() for source in requirements.sources],
        "overrides": sorted(requirements.overrides),
        "exclude_newer": requirements.exclude_newer,
        "prerelease": requirements.prerelease,
        "only_binary": list(requirements.only_binary),
        "no_binary": list(requirements.no_binary),
    }
    document |= {name: value for name, value in more.items() if value}
    return sha256_bytes(canonical_json(document))


def parse_lock(text: str) -> Lock:
    """Read a lock, checking that it holds pins with hashes and nothing else: no option, index or path.

    Raises:
        VerificationError: naming the line, or saying that the lock was edited.
    """
    header = _HEADER.match(text)
    if not header:
        raise VerificationError(
            f"{LOCK_FILE} does not start as a lock of this format", hint=f"delete {LOCK_FILE} and build again"
        )
    pinned = hashed = True
    head = header.group().count("\n")
    for number, line in enumerate(text.splitlines(), 1):
        body = line.strip()
        if number <= head or not body:
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
    if header["content"] and header["content"] != sha256_bytes(text[header.start("commits") :].encode()):
        raise VerificationError(
            f"{LOCK_FILE} was changed since it was made",
            hint=f"take the change back, or delete {LOCK_FILE} and build again with other requirements",
        )
    commits = dict(line.split()[2:] for line in header["commits"].splitlines())
    built = tuple(line.split()[2] for line in header["built"].splitlines())
    return Lock(text, header.group(1), header.group(2), header.group(3), commits=commits, built=built)


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
    packer: Packer | None = None,
) -> Lock:
    """The lock for some requirements: the previous one while its inputs stand, else a new resolution.

    Args:
        previous: the project's lock; its pins are kept where they still fit.
        locked: refuse to resolve.
        offline: take packages from uv's cache and ``find_links`` only.
        timeout: seconds for the resolution.
        packer: makes the wheels of the packages that the Bento carries.

    Raises:
        UsageError: ``locked``, and the lock is absent or made from other inputs.
        BuildError: the requirements cannot be satisfied, a package does not build, or uv fails.
        NotFoundError: what a git repository is asked for.
        RemoteError: an index or a git repository could not be reached.
    """
    inputs = inputs_digest(requirements, python, platform)
    state = "is out of date" if previous else "is missing"
    if previous is not None and previous.inputs == inputs:
        wheels = _pack(packer, requirements, python, platform, previous.commits, offline)
        other = next((wheel for wheel in wheels if f"--hash={wheel.digest}" not in previous.text), None)
        if other is None:
            return replace(previous, reused=True, wheels=wheels)
        state = f"holds another wheel of {other.name} than is built here"
    if locked:
        raise UsageError(
            f"{LOCK_FILE} {state} and --locked was given",
            hint="run bentotool build without --locked, and commit the lock",
        )
    wheels = _pack(packer, requirements, python, platform, {}, offline)
    text = previous.text if previous and previous.python == python else ""
    blocks, built = resolve(requirements, python, platform, wheels, previous=text, offline=offline, timeout=timeout)
    body = "".join(" \\\n    ".join(block) + "\n" for block in _only_demanded(blocks, demanded_hashes(requirements)))
    header = f"# bento.lock, format {_FORMAT}: made by `bentotool build`, not to be edited\n"
    header += f"# inputs: {inputs}\n# python: {python}\n# platform: {platform}\n"
    content = "".join(f"# commit: {wheel.name} {wheel.commit}\n" for wheel in wheels if wheel.commit)
    content += "".join(f"# source: {name}\n" for name in built) + body
    header += f"# content: {sha256_bytes(content.encode())}\n"
    return replace(parse_lock(header + content), wheels=wheels)


def _pack(
    packer: Packer | None,
    requirements: Requirements,
    python: str,
    platform: str,
    commits: Mapping[str, str],
    offline: bool,
) -> tuple[PackedWheel, ...]:
    if not requirements.sources:
        return ()
    if packer is None:
        raise BuildError(f"{requirements.sources[0].shown} cannot be packed here")
    return packer.pack(requirements, python, platform, commits=commits, offline=offline)


def _only_demanded(blocks: list[list[str]], demanded: dict[str, frozenset[str]]) -> list[list[str]]:
    """Keep, of each package whose hashes the project pins, those hashes alone.

    Raises:
        VerificationError: the index offers no file with a pinned hash.
    """
    for block in blocks:
        wanted = demanded.get(normal_name(block[0]))
        if wanted is not None:
            block[1:] = [item for item in block[1:] if item.removeprefix("--hash=") in wanted]
        if len(block) == 1:
            raise VerificationError(
                f"{block[0]}: the package index has no file with a hash that the requirements pin"
                if wanted is not None
                else f"{block[0]}: the package index states no hash of its files",
                hint="correct the hashes in the requirements file, or find out who changed the package"
                if wanted is not None
                else "use an index that states them",
            )
    return blocks
