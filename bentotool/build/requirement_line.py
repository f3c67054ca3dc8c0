"""One requirement (PEP 508) as the resolution takes it: a name with a version range, or an https archive."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from bentotool.build.schema import Where, check_text
from bentotool.errors import ConfigError, UnsafeError

__all__ = ["check_requirement", "no_credentials", "normal_name", "shown_url", "split_hashes"]

_LOCAL = re.compile(r"(git|hg|svn|bzr)\+|file:|https?:|[./~]|[A-Za-z]:[\\/]|-e\b|--editable")


def normal_name(line: str) -> str:
    """The normalised name (PEP 503) that a requirement or a pin starts with; empty when it starts with none."""
    match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
    return re.sub(r"[-_.]+", "-", match.group()).lower() if match else ""


def split_hashes(line: str, where: Where) -> tuple[str, tuple[str, ...]]:
    """A line of a requirements file as the requirement and its ``--hash=sha256:…`` options.

    Raises:
        ConfigError: another option, or another kind of hash.
    """
    spec, *options = re.split(r"\s+(?=--?[A-Za-z])", line)
    for option in options:
        name = re.split(r"[= ]", option)[0]
        if name in ("--config-settings", "--config-setting", "-C", "--global-option", "--install-option"):
            raise ConfigError(
                f"{name} is not supported: {shown_url(spec)!r}",
                path=where,
                hint="build the wheel with it yourself, and name the file under python.wheels",
            )
        if not re.fullmatch(r"--hash[= ]\s*sha256:[0-9a-f]{64}\s*", option):
            raise ConfigError(f"not a requirement: {shown_url(line)!r}", path=where, hint="hashes are --hash=sha256:…")
    return spec, tuple(option.strip() for option in options)


def check_requirement(line: str, where: Where) -> str:
    """The line in its normal form, hashes after it.

    Raises:
        ConfigError: no requirement, or one that only this machine could satisfy.
        UnsafeError: a URL that holds credentials.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    check_text(line, where)
    if "${" in line or re.search(r"\$[A-Za-z_(]", line):
        raise ConfigError(
            f"variables are not expanded: {shown_url(line)!r}",
            path=where,
            hint="write the value; credentials belong into ~/.netrc, a keyring or UV_INDEX_NAME_PASSWORD",
        )
    if _LOCAL.match(line):
        raise ConfigError(
            f"not supported here: {shown_url(line)!r}", path=where, hint="name a released package, or NAME @ https://…"
        )
    spec, hashes = split_hashes(line, where)
    try:
        parsed = Requirement(spec)
    except InvalidRequirement as error:
        reason = " ".join(str(error).split(":")[0].splitlines()[0].split())
        raise ConfigError(f"not a requirement: {shown_url(spec)!r}: {reason}", path=where) from None
    if parsed.url is not None:
        no_credentials(parsed.url, where)
        parts = urlsplit(parsed.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"not supported here: {shown_url(line)!r}",
                path=where,
                hint="name a released package, or NAME @ https://…",
            )
    return " ".join((str(parsed), *hashes))


def shown_url(line: str) -> str:
    """A line for a message: credentials that a URL in it holds are removed."""
    return re.sub(r"//[^/@\s]*@", "//***@", line)[:120]


def no_credentials(url: str, where: Where) -> None:
    """Raise UnsafeError for a URL with a user or password."""
    try:
        place = urlsplit(url).netloc
    except ValueError:
        raise ConfigError(f"not a URL: {shown_url(url)!r}", path=where) from None
    if "@" in place:
        raise UnsafeError(
            f"{' → '.join(where)}: the URL {shown_url(url)!r} holds credentials",
            hint="keep them in ~/.netrc, a keyring or the environment (UV_INDEX_…), not in the project",
        )
