"""What Linux distributions call things: the base image, the packages of Python and its headers.

How packages are installed is a script of `bentotool.images.buildscripts`, which asks the base itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from bentotool.errors import BuildError

__all__ = ["COMPILERS", "Distro", "cuda_base", "distro_of"]


@dataclass(frozen=True)
class Distro:
    """A distribution, with ``{python}`` for ``X.Y`` and ``{digits}`` for ``XY`` in what it names.

    Args:
        base: reference of the image.
        python: packages with the interpreter; none where the base has it.
        headers: packages with what C extensions are compiled against.
        pythons: the versions that base or packages have; empty for all.
        other: base for the other versions, to which uv brings its own build; empty where there is none.
        managed: uv brings its own build.
    """

    name: str
    base: str
    python: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    pythons: tuple[str, ...] = ()
    other: str = ""
    managed: bool = False


_REDHAT = "registry.access.redhat.com"
_DISTROS = {
    each.name: each
    for each in (
        Distro("debian", "docker.io/library/python:{python}-slim"),
        Distro(
            "ubuntu",
            "docker.io/library/ubuntu:24.04",
            python=("python{python}",),
            headers=("python{python}-dev",),
            pythons=("3.12",),
            other="docker.io/library/ubuntu:24.04",
        ),
        Distro("alpine", "docker.io/library/python:{python}-alpine"),
        Distro(
            "ubi8",
            f"{_REDHAT}/ubi8/python-{{digits}}:latest",
            pythons=("3.11", "3.12"),
            other=f"{_REDHAT}/ubi8/ubi-minimal:latest",
        ),
        Distro(
            "ubi9",
            f"{_REDHAT}/ubi9/python-{{digits}}:latest",
            pythons=("3.11", "3.12"),
            other=f"{_REDHAT}/ubi9/ubi-minimal:latest",
        ),
        Distro(
            "amazonlinux",
            "docker.io/library/amazonlinux:2023",
            python=("python{python}",),
            headers=("python{python}-devel",),
            pythons=("3.11", "3.12", "3.13"),
            other="docker.io/library/amazonlinux:2023",
        ),
        Distro(
            "wolfi",
            "cgr.dev/chainguard/wolfi-base:latest",
            python=("python-{python}",),
            headers=("python-{python}-dev",),
        ),
    )
}
_CUDA = {
    "12": "12.8.1", "12.8": "12.8.1", "12.6": "12.6.3", "12.1": "12.1.1", "12.0": "12.0.1",
    "11": "11.8.0", "11.8": "11.8.0", "11.7": "11.7.1", "11.6": "11.6.2", "11.4": "11.4.3", "11.2": "11.2.2",
    "default": "12.8.1",
}  # fmt: skip

COMPILERS = "@compilers"
"""Stands among packages for what builds C and C++ extensions, by the name that the distribution has for it."""


def distro_of(name: str, python: str, cuda_version: str = "") -> Distro:
    """What is known of the distribution of that name, Debian's where there is none, for one version of Python.

    Raises:
        BuildError: one that is not known, or that has no images with CUDA.
    """
    if cuda_version:
        return Distro(name or "ubuntu", cuda_base(name, cuda_version), managed=True)
    if (name or "debian") not in _DISTROS:
        raise BuildError(f"unknown distribution {name[:40]!r}", hint=f"one of {', '.join(_DISTROS)}")
    found = _DISTROS[name or "debian"]
    if found.pythons and python not in found.pythons:
        return Distro(found.name, found.other, managed=True)
    digits = python.replace(".", "")
    return Distro(
        found.name,
        found.base.format(python=python, digits=digits),
        tuple(each.format(python=python) for each in found.python),
        tuple(each.format(python=python) for each in found.headers),
    )


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
        system = "ubuntu24.04" if number >= (12, 6) else "ubuntu22.04" if number >= (11, 7) else "ubuntu20.04"
    elif name in ("ubi8", "ubi9"):
        system = name
    else:
        raise BuildError(
            f"there is no image with CUDA for {name[:40]}", hint="distro: ubuntu or ubi8, or name one with base_image"
        )
    return f"docker.io/nvidia/cuda:{whole}-cudnn{'' if number >= (12, 4) else '8'}-runtime-{system}"
