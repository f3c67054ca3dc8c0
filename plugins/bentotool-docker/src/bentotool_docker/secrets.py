"""The secrets of a build, which are in no layer: where packages come from, and whom to trust."""

from __future__ import annotations

import configparser
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from bentotool.build.requirements import LITESTAR_NEEDS
from bentotool.build.tomlfile import parse_toml
from bentotool.build.uvrun import toml_text
from bentotool.errors import BentotoolError, BuildError, NotFoundError
from bentotool.imagespec import ImagePlan

__all__ = ["write_secrets"]

_INDEX = re.compile(
    r"UV_(?:INDEX|DEFAULT_INDEX|INDEX_URL|EXTRA_INDEX_URL|INSECURE_HOST|INDEX_STRATEGY|INDEX_[A-Z0-9_]+_(?:USERNAME|PASSWORD))"
    r"|UV_PYTHON_INSTALL_MIRROR|PIP_(?:INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST)"
)
_PROXY = re.compile(r"(?:https?|all)_proxy", re.IGNORECASE)
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def write_secrets(folder: Path, plan: ImagePlan, ca_bundle: str | None = None) -> dict[str, Path]:
    """Write what the build may use and the image must not hold; id → file.

    Package indexes are those that pip and uv have here: from the environment, uv's and pip's configuration, netrc.

    Args:
        folder: private to this user.
        ca_bundle: file of certificates; the system's where a proxy is set, since one may look into the traffic.

    Raises:
        NotFoundError: the bundle is not there.
        BuildError: a variable that only the build gets has no value.
    """
    found: dict[str, bytes] = {}
    if bundle := _bundle(ca_bundle):
        found["bentotool-ca"] = bundle
    settings = _uv_settings(plan)
    if settings:
        found["bentotool-uv"] = settings
    if assignments := _assignments(os.environ, has_settings=bool(_uv_file())):
        found["bentotool-index"] = _sourced(assignments)
    if variables := _variables(plan, os.environ):
        found["bentotool-env"] = _sourced(variables)
    if plan.conda.get("dependencies") and (settings_file := _conda_file(os.environ)):
        found["bentotool-conda"] = settings_file.read_bytes()
    netrc = Path(os.environ.get("NETRC") or Path.home() / (".netrc" if os.name == "posix" else "_netrc"))
    if netrc.is_file():
        found["bentotool-netrc"] = netrc.read_bytes()
    files = {}
    for name, data in found.items():
        files[name] = folder / name
        with open(files[name], "xb", opener=_private) as file:  # pathlib has no opener
            file.write(data)
    return files


def _sourced(values: Mapping[str, str]) -> bytes:
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(values.items())).encode()


def _variables(plan: ImagePlan, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of ``envs`` that steps get: the Bento's value, else that of the environment."""
    found = {name: value or environment.get(name, "") for name, value in plan.build_env.items()}
    for name in plan.build_only:
        if not found[name]:
            raise BuildError(
                f"the build of {plan.tag}'s image needs a variable {name} (envs, stage: build), which has no value",
                hint=f"set it where this runs: {name}=... bentotool containerize",
            )
    return {name: value for name, value in found.items() if value}


def _conda_file(environment: Mapping[str, str]) -> Path | None:
    """The user's own settings of conda: channels, and what is needed to read them."""
    named = [Path(environment[name]) for name in ("CONDARC", "MAMBARC") if environment.get(name)]
    places = [*named, Path.home() / ".condarc", Path.home() / ".mambarc"]
    return next((place for place in places if place.is_file()), None)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _bundle(given: str | None) -> bytes | None:
    if given is not None:
        try:
            data = Path(given).read_bytes()
        except OSError as error:
            raise NotFoundError(f"--ca-bundle {given} cannot be read: {error.strerror}") from None
        if b"-----BEGIN CERTIFICATE-----" not in data:
            raise BentotoolError(f"--ca-bundle {given} holds no certificate", hint="a file in PEM form")
        return data
    if not any(_PROXY.fullmatch(name) and value for name, value in os.environ.items()):
        return None
    for path in (os.environ.get("SSL_CERT_FILE"), *_BUNDLES):
        if path and Path(path).is_file():
            return Path(path).read_bytes()
    return None


def _uv_file() -> Path | None:
    """The user's own settings of uv."""
    named = os.environ.get("UV_CONFIG_FILE")
    base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    found = Path(named) if named else base / "uv" / "uv.toml"
    return found if found.is_file() else None


def _uv_settings(plan: ImagePlan) -> bytes:
    file = _uv_file()
    settings = dict(parse_toml(file.read_text(encoding="utf-8"), str(file))) if file else {}
    for name in ("cache-dir", "cache-keys", "find-links", "python-preference", "link-mode"):
        settings.pop(name, None)  # they speak of this machine
    if plan.platform != plan.locked_for:  # the same that the lock was made with; see LITESTAR_NEEDS
        known = settings.get("dependency-metadata", [])
        settings["dependency-metadata"] = [*known, {"name": "litestar", "requires-dist": list(LITESTAR_NEEDS)}]
    return toml_text(settings).encode()


def _assignments(environment: Mapping[str, str], *, has_settings: bool) -> dict[str, str]:
    found = {name: value for name, value in environment.items() if _INDEX.fullmatch(name) and value}
    pip = _pip_settings(environment)
    url, extra = found.get("PIP_INDEX_URL") or pip.get("index-url"), pip.get("extra-index-url", "")
    more = found.get("PIP_EXTRA_INDEX_URL") or " ".join(each for each in extra.split() if each.startswith("http"))
    found |= {"PIP_INDEX_URL": url} if url and url.startswith("http") else {}
    if not has_settings and not any(name.startswith("UV_") and name.endswith(("INDEX", "INDEX_URL")) for name in found):
        found |= {"UV_DEFAULT_INDEX": url} if url and url.startswith("http") else {}
        found |= {"UV_INDEX": more} if more else {}
    return found


def _pip_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """``index-url`` and ``extra-index-url`` of pip's configuration, the user's over the system's."""
    home = Path.home()
    places = [Path("/etc/pip.conf"), home / ".pip" / "pip.conf", home / ".config" / "pip" / "pip.conf"]
    if named := environment.get("PIP_CONFIG_FILE"):
        places.append(Path(named))
    parser = configparser.RawConfigParser(strict=False)
    for place in places:
        try:
            parser.read(place, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue  # pip itself says what is wrong with it
    sections = [parser[name] for name in ("global", "install") if parser.has_section(name)]
    return {key: section[key] for section in sections for key in ("index-url", "extra-index-url") if section.get(key)}
