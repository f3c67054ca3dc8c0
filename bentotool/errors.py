"""Every failure a user can meet, with its exit status, HTTP status and next step.

::

    BentotoolError                     1   something failed
    ├── UsageError                     2   wrong usage
    │   └── ConfigError                2   wrong configuration (carries the key's path)
    ├── NotFoundError                  3   no such model, Bento, file, service
    ├── VerificationError              4   digest, signature or policy not satisfied
    ├── RemoteError                    5   a registry or remote refused or did not answer
    │   └── AuthenticationError        5   credentials missing or refused
    ├── UnsafeError                    6   refused for safety
    ├── ConflictError                  1   the name is taken by other content
    ├── MissingDependencyError         1   an optional package is not installed
    ├── PluginError                    1   a plugin failed to load, or broke its contract
    ├── BuildError                     1   a Bento could not be built
    └── ServiceLoadError               1   service.py failed to import or declares no service

This module imports nothing but the standard library: the command line, the SDK and the runtime inside a Bento share it.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "AuthenticationError",
    "BentotoolError",
    "BuildError",
    "ConfigError",
    "ConflictError",
    "MissingDependencyError",
    "NotFoundError",
    "PluginError",
    "RemoteError",
    "ServiceLoadError",
    "UnsafeError",
    "UsageError",
    "VerificationError",
]


_DISTRIBUTIONS = {
    "PIL": "pillow",
    "ai_edge_litert": "ai-edge-litert",
    "cv2": "opencv-python-headless",
    "cyclonedx": "cyclonedx-python-lib",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "google": "google-auth",
    "huggingface_hub": "huggingface-hub",
    "jwt": "pyjwt",
    "llama_cpp": "llama-cpp-python",
    "packageurl": "packageurl-python",
    "sentence_transformers": "sentence-transformers",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Package → the distribution it comes in, of those that we and our plugins need and that are called otherwise."""


class BentotoolError(Exception):
    """A failure that is explained to the user in one line, never with a traceback.

    Args:
        message: what failed and which input caused it; starts lower case, no final full stop.
        hint: what to do next, as a sentence or a command to type.
        details: JSON-able facts for the machine-readable form.
    """

    code = "error"
    exit_status = 1
    http_status = 500

    def __init__(self, message: str, *, hint: str | None = None, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = dict(details or {})

    def to_dict(self) -> dict[str, object]:
        """The JSON form: ``{"error": {"code", "message", "hint", ...}}``."""
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint, **self.details}}


class UsageError(BentotoolError):
    code = "usage"
    exit_status = 2
    http_status = 400


class ConfigError(UsageError):
    """A wrong value in a configuration file.

    Args:
        path: where the value stands, outermost first, e.g. ``("bentofile.yaml", "python", "packages", "0")``.
    """

    code = "config"

    def __init__(self, message: str, *, path: tuple[str, ...] = (), hint: str | None = None) -> None:
        where = " → ".join(path)
        located = f"{where}: {message}" if where else message
        super().__init__(located, hint=hint, details={"path": list(path)} if path else None)
        self.path = path


class NotFoundError(BentotoolError):
    code = "not_found"
    exit_status = 3
    http_status = 404


class VerificationError(BentotoolError):
    code = "verification_failed"
    exit_status = 4


class RemoteError(BentotoolError):
    """A registry or another remote answered with failure, or not at all."""

    code = "remote"
    exit_status = 5
    http_status = 502


class AuthenticationError(RemoteError):
    code = "authentication"


class UnsafeError(BentotoolError):
    code = "unsafe"
    exit_status = 6
    http_status = 400


class ConflictError(BentotoolError):
    code = "conflict"
    http_status = 409


class MissingDependencyError(BentotoolError, ImportError):
    """An optional package is needed and not installed.

    Args:
        package: the import name that is missing.
        install: the distribution to install, where it is not the one that is known to have the package.
        purpose: what needs it.
    """

    code = "missing_dependency"

    def __init__(self, package: str, *, install: str | None = None, purpose: str | None = None) -> None:
        needed = f" ({purpose})" if purpose else ""
        distribution = _DISTRIBUTIONS.get(package.partition(".")[0], package)
        super().__init__(f"package {package!r} is not installed{needed}", hint=f"pip install {install or distribution}")
        self.package = package


class PluginError(BentotoolError):
    code = "plugin"


class BuildError(BentotoolError):
    code = "build"


class ServiceLoadError(BentotoolError):
    code = "service_load"
