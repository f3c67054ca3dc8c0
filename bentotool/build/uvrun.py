"""Running uv: its settings from a folder of ours, its report as one line, and no credential in either.

Indexes reach uv in a file and not as arguments, which other users of a machine can read. Their credentials reach it in
the environment, in ``.netrc`` or in a keyring, where uv itself looks for them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess  # uv has no other interface; always an argument list
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bentotool.build.indexes import Indexes
from bentotool.build.tomlfile import parse_toml
from bentotool.errors import BuildError, RemoteError

__all__ = ["explain", "run_uv", "uv_program", "write_settings"]

_DEFAULTS = ("UV_DEFAULT_INDEX", "UV_INDEX_URL")


def uv_program() -> str:
    """The path of uv. BuildError where it is not installed."""
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


def write_settings(folder: Path, indexes: Indexes, metadata: Mapping[str, Sequence[str]]) -> None:
    """Write ``uv.toml`` into uv's working folder.

    As the folder's own file it adds to the user's configuration, where ``--config-file`` would replace it.

    Args:
        metadata: the dependencies that uv takes a package to have.
    """
    settings = _named_configuration()
    used = [
        {
            **({"name": item.name} if item.name else {}),
            "url": item.url,
            **({"default": True} if item.default else {}),
            **({"explicit": True} if item.explicit else {}),
            **({"format": "flat"} if item.flat else {}),
        }
        for item in indexes.used()
    ]
    if any(item.get("default") for item in used):
        settings.pop("index-url", None)
        settings["index"] = [{**item, "default": False} for item in settings.get("index", ())]
    settings["index"] = [*used, *settings.get("index", ())]
    settings["dependency-metadata"] = [
        *settings.get("dependency-metadata", ()),
        *({"name": name, "requires-dist": list(needs)} for name, needs in metadata.items()),
    ]
    (folder / "uv.toml").write_text(toml_text(settings), encoding="utf-8")


def toml_text(document: Mapping[str, Any]) -> str:
    """A document as TOML, with inline tables below its top level. JSON's strings are TOML's basic strings."""
    return "".join(f"{_text(key)} = {_value(value)}\n" for key, value in document.items())


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_text(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, (str, bool, int, float)):
        return _text(value)
    return str(value.isoformat() if hasattr(value, "isoformat") else value)


def _named_configuration() -> dict[str, Any]:
    """The file that UV_CONFIG_FILE names. uv then reads no other, so ours has to repeat it."""
    named = os.environ.get("UV_CONFIG_FILE")
    if not named:
        return {}
    try:
        text = Path(named).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"UV_CONFIG_FILE={named} cannot be read: {error}", hint="unset it or correct it") from None
    return dict(parse_toml(text, f"UV_CONFIG_FILE={named}"))


def run_uv(
    folder: Path,
    arguments: Sequence[str],
    *,
    own_default: bool = False,
    offline: bool = False,
    timeout: float = 600.0,
    purpose: str = "resolving the requirements",
    variables: Mapping[str, str] | None = None,
    building: bool = False,
) -> bytes:
    """Run uv in a folder with ``uv.toml``, and give what it wrote on stdout.

    Args:
        own_default: the settings name a default index, which counts before one of the environment.
        timeout: seconds.
        building: it builds a package, whose backend says what is wrong.

    Raises:
        BuildError, RemoteError: it failed; one line without credentials.
    """
    command = [uv_program(), *arguments]
    left_out = ("UV_CONFIG_FILE", "UV_NO_CONFIG", *(_DEFAULTS if own_default else ()))
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    if "UV_CONFIG_FILE" in os.environ or "UV_NO_CONFIG" in os.environ:
        command += ["--config-file", str(folder / "uv.toml")]
    environment |= {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", **(variables or {})}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"{purpose} took more than {timeout:.0f} s", hint="bentotool build -v shows more") from None
    except OSError as error:
        raise BuildError(f"uv could not be started: {error.strerror}", hint="pip install uv") from None
    if done.returncode:
        report = done.stderr.decode("utf-8", "replace")
        raise explain_build(report, offline) if building else explain(report, offline)
    return done.stdout


def _clean(report: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//***@", re.sub(r"[^\x00-\x7f]+", " ", report))


def explain_build(stderr: str, offline: bool) -> BuildError | RemoteError:
    """What a package's build backend said last, or why it could not be started."""
    said = re.split(r"(?m)^\s*(?:error: )?Failed to build", _clean(stderr))[0]
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("Building ")]
    if lines:
        return BuildError(lines[-1].removeprefix("error: ")[:300])
    found = explain(stderr, offline)
    if isinstance(found, BuildError):
        message = re.sub(r"^requirements cannot be resolved:? ?|Failed to build `[^`]*` ?|cause: ", "", found.message)
        return BuildError(message, hint=found.hint)
    return found


def explain(stderr: str, offline: bool) -> BuildError | RemoteError:
    """Turn uv's report into one line; credentials that a URL in it may hold are removed."""
    words = _clean(stderr)
    lines = [line for line in words.splitlines() if line.strip() and not line.lstrip().lower().startswith("warning:")]
    said, _, advice = "\n".join(line.strip() for line in lines).partition("\nhint:")
    message = " ".join(said.split()).removeprefix("error: ")
    message = re.sub(r"^No solution found when resolving dependencies.*?(cause:|:)\s*", "", message)
    message = re.sub(r"^cause:\s*", "", message)
    message = message.replace(", we can conclude that your requirements are unsatisfiable", "").rstrip(".")[:600]
    message = message or "uv failed without saying why"
    lowered = message.lower()
    if re.search(r"\b(unauthorized|forbidden)\b|authentication credentials", f"{lowered} {advice.lower()}"):
        asked = re.search(r"index URL \((\S+)\)", advice)
        return RemoteError(
            f"the package index refused the credentials: {asked[1] if asked else message}",
            hint="set UV_INDEX_NAME_USERNAME and UV_INDEX_NAME_PASSWORD for index NAME, or add the host to ~/.netrc",
        )
    if any(
        sign in lowered
        for sign in ("error sending request", "dns error", "failed to fetch", "connection refused", "timed out")
    ):
        return RemoteError(
            _unanswered(message),
            hint="check the network, or use --offline with python.find_links",
        )
    return _unresolved(message, advice.lower(), offline)


def _unanswered(message: str) -> str:
    """The chain of causes that uv reports, as the address that was asked for and the last of them."""
    causes = re.split(r"\s*cause: ", message)[1:]
    fetched = re.search(r"[Ff]ailed to fetch:? `?(\S+?)`?(?:\s|$)", message)
    why = re.sub(r" for url \(\S*\)", "", causes[-1]) if causes else ""
    if fetched is None or not why or why.startswith("Failed to fetch"):
        return f"the package index did not answer: {message}"
    said = "answered with an error" if why.startswith("HTTP status") else "did not answer"
    return f"the package index {said}: {fetched[1]}: {why}"


def _unresolved(message: str, advice: str, offline: bool) -> BuildError:
    lowered = message.lower()
    if offline and ("cache" in lowered or "network was disabled" in advice):
        absent = re.search(r"([A-Za-z0-9][\w.-]*)\S* was not found in the cache", message)
        return BuildError(
            f"requirements cannot be resolved offline: {absent[1] if absent else 'a package'} is not in uv's cache",
            hint="build once without --offline, or add a folder of wheels: python.find_links",
        )
    hint = "loosen one of the versions named above"
    if "wheel filename" in lowered and "invalid" in lowered:
        hint = "name it NAME-VERSION-PYTHON-ABI-PLATFORM.whl"
    elif "not found in the package registry" in lowered or "was not found in the provided package locations" in lowered:
        hint = "check the names under python.packages"
    elif "exclude-newer" in lowered or "exclude newer" in lowered or "exclude-newer" in advice:
        hint = "choose a later python.exclude_newer"
    elif "no wheels" in lowered or "no usable wheels" in lowered or "building from source is disabled" in lowered:
        hint = "it has no wheel for the target: allow its source (remove --only-binary), or pack a wheel: python.wheels"
    return BuildError(f"requirements cannot be resolved: {message}", hint=hint)
