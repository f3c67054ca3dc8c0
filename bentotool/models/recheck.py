"""What a publisher says of a model's safety, held against its bytes before the model gets a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bentotool.errors import PluginError, UnsafeError, UsageError
from bentotool.interfaces import SourceFile
from bentotool.models.detect import describe_model
from bentotool.models.manifest import model_files, read_details
from bentotool.plugins import load_plugins

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bentotool.oci.descriptor import Manifest
    from bentotool.oci.layout import Layout
    from bentotool.plugins import Plugins

__all__ = ["recheck_safety"]

_ORDER = ("data", "program", "pickle")  # from the harmless to the dangerous
_PICKLED = ("pickle", "joblib")  # formats that are never less, whoever reads them


def recheck_safety(
    layout: Layout, manifest: Manifest, title: str, *, trust: bool, plugins: Plugins | None = None
) -> None:
    """Refuse a model whose files are of a more dangerous class than its manifest states.

    Only headers are read, by the plugins that are installed; a model that none of them knows is taken at its word,
    since loading asks for trust once more.

    Args:
        layout: holds the content of the model.
        manifest: the model's.
        title: names the model in a message.
        trust: takes the model all the same.
        plugins: who looks at the files; all installed when absent.

    Raises:
        UnsafeError: naming both classes; or a file asks for what is refused.
        VerificationError: when the manifest lists no files.
    """
    details = read_details(manifest)
    if trust is True or details.safety not in _ORDER[:-1]:
        return
    if details.format in _PICKLED:
        found = "pickle"
    else:
        files = [SourceFile(layout.blob_path(file.sha256), file.path) for file in model_files(manifest, title)]
        found = _look(files, plugins or load_plugins(), details.framework) or details.safety
    if _ORDER.index(found) > _ORDER.index(details.safety):
        raise UnsafeError(
            f"{title} is said to be of class {details.safety!r}, but its files are of class {found!r}",
            hint="--trust (trust=True) takes it all the same, if you trust where it comes from",
        )


def _look(files: Sequence[SourceFile], plugins: Plugins, stated: str) -> str | None:
    """The class of the files, or None where nobody knows."""
    if stated in plugins.frameworks() and (found := _class(files, plugins, stated)):
        return found
    # Another framework may take a stranger's program for its own; that something is a pickle is beyond opinion.
    return "pickle" if _class(files, plugins, None) == "pickle" else None


def _class(files: Sequence[SourceFile], plugins: Plugins, framework: str | None) -> str | None:
    try:
        return describe_model(files, plugins, framework, trust=True).safety
    except (UsageError, PluginError, OSError):
        return None
