"""``Image``: what a service asks of its container image. A declaration: nothing is read or run here.

The build checks it, as it does the configuration: paths lie inside the project, and no text holds control characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bentotool.errors import ConfigError

__all__ = ["Image", "PythonImage"]


class Image:
    """The image of a service, for ``@service(image=...)``.

    Steps run in the order in which they were added. What is added before the first Python package runs before Python
    packages are installed, the rest after that. Every method changes the image and gives it back.

    Args:
        base_image: reference of an image.
        distro: ``debian``, ``ubuntu``, ``alpine``, ``ubi8``, ``ubi9``, ``amazonlinux`` or ``wolfi``.
        python_version: ``X.Y``.
        commands: shell commands before Python packages are installed.
        lock_python_packages: accepted as BentoML has it; packages are always pinned with their hashes.
        pack_git_packages: whether packages of git repositories are packed into the Bento.
        python_requirements: lines as in requirements.txt.
        post_commands: shell commands after that.

    Raises:
        ConfigError: a value of the wrong type.
    """

    def __init__(
        self,
        base_image: str = "",
        distro: str = "",
        python_version: str = "",
        commands: Iterable[str] = (),
        lock_python_packages: bool = True,
        pack_git_packages: bool = True,
        python_requirements: str = "",
        post_commands: Iterable[str] = (),
    ) -> None:
        self.base_image = _text("base_image", base_image)
        self.distro = _text("distro", distro)
        self.python_version = _text("python_version", python_version)
        self.lock_python_packages = bool(lock_python_packages)
        self.pack_git_packages = bool(pack_git_packages)
        self._before: list[dict[str, Any]] = [{"run": text} for text in _texts("commands", commands)]
        self._after: list[dict[str, Any]] = [{"run": text} for text in _texts("post_commands", post_commands)]
        self._python: list[dict[str, str]] = []
        self._include: list[str] = []
        self._uv_lock = False
        for line in _text("python_requirements", python_requirements).splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                self._python.append({"package": line.strip()})

    @property
    def _steps(self) -> list[dict[str, Any]]:
        return self._after if self._python or self._uv_lock else self._before

    def system_packages(self, *packages: str) -> Image:
        """Install packages of the distribution."""
        if names := _texts("system_packages", packages):
            self._steps.append({"system_packages": names})
        return self

    def python_packages(self, *packages: str) -> Image:
        """Add Python packages, as in requirements.txt."""
        self._python += [{"package": line} for line in _texts("python_packages", packages)]
        return self

    def requirements_file(self, path: str) -> Image:
        """Add the packages of a requirements file of the project, with the files that it names."""
        self._python.append({"file": _text("requirements_file", path)})
        return self

    def pyproject_toml(self, path: str = "pyproject.toml") -> Image:
        """Add ``project.dependencies`` of a ``pyproject.toml`` of the project."""
        self._python.append({"pyproject": _text("pyproject_toml", path)})
        return self

    def uv_lock(self) -> Image:
        """Take the versions of the project's ``uv.lock``."""
        self._uv_lock = True
        return self

    def run(self, command: str) -> Image:
        """Run a shell command."""
        self._steps.append({"run": _text("run", command)})
        return self

    def run_script(self, path: str) -> Image:
        """Run a script of the project; it has to be among the Bento's files."""
        self._steps.append({"script": _text("run_script", path)})
        return self

    def build_include(self, *paths: str) -> Image:
        """Have files or folders of the Bento in place before Python packages are installed."""
        self._include += _texts("build_include", paths)
        return self

    def to_dict(self) -> dict[str, Any]:
        """The declaration as plain data; what says nothing is left out."""
        every = {
            "base_image": self.base_image,
            "distro": self.distro,
            "python_version": self.python_version,
            "steps": self._before,
            "python": self._python,
            "uv_lock": self._uv_lock,
            "post_steps": self._after,
            "build_include": self._include,
        }
        switches = {name: False for name in ("lock_python_packages", "pack_git_packages") if not getattr(self, name)}
        return {**{name: value for name, value in every.items() if value}, **switches}

    def __repr__(self) -> str:
        return f"Image({self.to_dict()})"


PythonImage = Image
"""BentoML's earlier name."""


def _text(what: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{what} of an image takes text, not {type(value).__name__}")
    return value


def _texts(what: str, values: object) -> list[str]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ConfigError(f"{what} of an image takes a list of texts, not {type(values).__name__}")
    return [_text(what, value) for value in values]
