"""What Linux distributions call things: the base image, the packages of Python, and how packages are installed.

Package names are arguments of the scripts here, never part of their text.
"""

from __future__ import annotations

from dataclasses import dataclass

from bentotool.errors import BuildError

__all__ = ["COMPILERS", "INSTALL", "Distro", "cuda_base", "distro_of"]


@dataclass(frozen=True)
class Distro:
    """A distribution.

    Args:
        base: reference; ``{python}`` stands for ``X.Y``, ``{digits}`` for ``XY``.
        python: packages with the interpreter; none where the base has it.
        managed: no package has every Python, so uv brings its own build.
    """

    name: str
    base: str
    python: tuple[str, ...] = ()
    managed: bool = False


_DISTROS = {
    each.name: each
    for each in (
        Distro("debian", "docker.io/library/python:{python}-slim"),
        Distro("ubuntu", "docker.io/library/ubuntu:24.04", managed=True),
        Distro("alpine", "docker.io/library/python:{python}-alpine"),
        Distro("ubi8", "registry.access.redhat.com/ubi8/python-{digits}:latest"),
        Distro("ubi9", "registry.access.redhat.com/ubi9/python-{digits}:latest"),
        Distro("amazonlinux", "docker.io/library/amazonlinux:2023", python=("python{python}",)),
        Distro("wolfi", "cgr.dev/chainguard/wolfi-base:latest", python=("python-{python}",)),
    )
}
_CUDA = {
    "12": "12.8.1", "12.8": "12.8.1", "12.6": "12.6.3", "12.1": "12.1.1", "12.0": "12.0.1",
    "11": "11.8.0", "11.8": "11.8.0", "11.7": "11.7.1", "11.6": "11.6.2", "default": "12.8.1",
}  # fmt: skip

COMPILERS = "@compilers"
"""Stands among packages for what builds C and C++ extensions, by the name that the distribution has for it."""

INSTALL = """
set -eu
compilers=
for each do
  shift
  if [ "$each" = @compilers ]; then compilers=1; else set -- "$@" "$each"; fi
done
if command -v apt-get >/dev/null; then
  if [ -n "$compilers" ]; then
    set -- "$@" build-essential pkg-config
    if [ -x /usr/bin/python3 ]; then set -- "$@" python3-dev; fi
  fi
  export DEBIAN_FRONTEND=noninteractive
  ca=${SSL_CERT_FILE:+-oAcquire::https::CAInfo=$SSL_CERT_FILE}
  apt-get $ca -q update
  apt-get $ca -q install --yes --no-install-recommends -- "$@"
  rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /var/cache/apt/*.bin /var/log/apt /var/log/dpkg.log
elif command -v apk >/dev/null; then
  [ -z "$compilers" ] || set -- "$@" build-base pkgconf
  apk add --no-cache -- "$@"
elif command -v microdnf >/dev/null && ! command -v dnf >/dev/null; then
  [ -z "$compilers" ] || set -- "$@" gcc gcc-c++ make
  microdnf install -y --nodocs --setopt=install_weak_deps=0 -- "$@"
  microdnf clean all
elif command -v dnf >/dev/null; then
  [ -z "$compilers" ] || set -- "$@" gcc gcc-c++ make
  dnf install -y --nodocs --setopt=install_weak_deps=False -- "$@"
  dnf clean all
  rm -rf /var/cache/dnf /var/log/dnf*
elif command -v yum >/dev/null; then
  [ -z "$compilers" ] || set -- "$@" gcc gcc-c++ make
  yum install -y -- "$@"
  yum clean all
  rm -rf /var/cache/yum
else
  echo "bentotool: the base image has none of apt-get, apk, microdnf, dnf and yum" >&2
  exit 64
fi
""".strip()
"""Install the packages that are the arguments, with whatever the base image has for it."""


def distro_of(name: str, cuda_version: str = "") -> Distro:
    """The distribution of that name; Debian's where there is none.

    Raises:
        BuildError: one that is not known, or that has no images with CUDA.
    """
    if cuda_version:
        return Distro(name or "ubuntu", cuda_base(name, cuda_version), managed=True)
    if (name or "debian") not in _DISTROS:
        raise BuildError(f"unknown distribution {name[:40]!r}", hint=f"one of {', '.join(_DISTROS)}")
    return _DISTROS[name or "debian"]


def cuda_base(name: str, version: str) -> str:
    """The image with CUDA's run-time libraries and cuDNN.

    Raises:
        BuildError: there is none for the distribution, or no such version.
    """
    whole = _CUDA.get(version, version)
    parts = whole.split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise BuildError(
            f"CUDA {version[:40]} is no version that images are named by", hint=f"one of {', '.join(_CUDA)}, or X.Y.Z"
        )
    number = (int(parts[0]), int(parts[1]))
    if name in ("", "debian", "ubuntu"):
        system = "ubuntu24.04" if number >= (12, 6) else "ubuntu22.04"
    elif name in ("ubi8", "ubi9"):
        system = name
    else:
        raise BuildError(
            f"there is no image with CUDA for {name[:40]}", hint="distro: ubuntu or ubi8, or name one with base_image"
        )
    return f"docker.io/nvidia/cuda:{whole}-cudnn{'' if number >= (12, 4) else '8'}-runtime-{system}"
