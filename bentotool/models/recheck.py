"""What a publisher says of a model's safety, and its bytes held against that before the model gets a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bentotool.errors import PluginError, UnsafeError, UsageError
from bentotool.interfaces import SourceFile
from bentotool.models.detect import describe_model
from bentotool.models.manifest import model_files, read_details
from bentotool.models.pickles import find_pickle
from bentotool.models.trust import require_trust
from bentotool.oci.digest import sha256_bytes
from bentotool.plugins import load_plugins

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bentotool.oci.descriptor import Manifest
    from bentotool.oci.layout import Layout
    from bentotool.plugins import Plugins

__all__ = ["recheck_safety", "require_stated_trust"]

_ORDER = ("data", "program", "pickle")  # from the harmless to the dangerous
_PICKLED = ("pickle", "joblib")  # formats that are never less, whoever reads them
_MAX_FILES = 10_000


def require_stated_trust(manifest: Manifest, title: str, *, trust: bool) -> None:
    """Refuse a model that says of itself that it runs code when it is loaded, before any of it is fetched.

    Raises:
        UnsafeError: naming the model, and what in it needs trust.
    """
    details = read_details(manifest)
    facts = details.metadata
    reasons = facts.get("needs_trust")
    require_trust(
        details.safety,
        title,
        trust=trust,
        instead=facts.get("instead"),
        reasons=reasons,
        format=details.format if reasons else "pickle",  # its class is all that is known of it
    )


def recheck_safety(
    layout: Layout,
    manifest: Manifest,
    title: str,
    *,
    trust: bool,
    plugins: Plugins | None = None,
    digest: str | None = None,
) -> str | None:
    """Refuse a model whose files are of a more dangerous class than its manifest states.

    Only headers are read, by the plugins that are installed; where none of them knows the files, those are searched
    for pickles.

    Args:
        layout: holds the content of the model.
        manifest: the model's.
        title: names the model in a message.
        trust: takes the model all the same, and records the class that was found: in this store the model is of that.
        plugins: who looks at the files; all installed when absent.
        digest: of the manifest; found out when absent.

    Returns:
        a note for the user, where the model is taken all the same.

    Raises:
        UnsafeError: naming both classes; or a file asks for what is refused.
        VerificationError: when the manifest lists no files.
    """
    details = read_details(manifest)
    if details.safety not in _ORDER[:-1]:
        return None
    why = ""
    if details.format in _PICKLED:
        found = "pickle"
    else:
        files = [SourceFile(layout.blob_path(file.sha256), file.path) for file in model_files(manifest, title)]
        try:
            found, why = _look(files, plugins or load_plugins(), details.framework, details.safety)
        except UnsafeError:
            if trust is not True:
                raise
            found = details.safety
    if _ORDER.index(found) <= _ORDER.index(details.safety):
        return None
    lie = f"{title} is said to be of class {details.safety!r}, but its files are of class {found!r}{why}"
    if trust is not True:
        hint = "--trust (trust=True) takes it all the same, if you trust where it comes from"
        raise UnsafeError(lie, hint=hint)
    layout.remark(digest or sha256_bytes(manifest.to_bytes()), found)
    return f"{lie}: it is recorded as {found!r} here"


def _look(files: Sequence[SourceFile], plugins: Plugins, framework: str, stated: str) -> tuple[str, str]:
    """The class of the files, as far as anybody knows, and what is to be added to it in a message."""
    if framework in plugins.frameworks() and (found := _class(files, plugins, framework)):
        return found, ""
    # Another framework may take a stranger's program for its own; that something is a pickle is beyond opinion.
    found = _class(files, plugins, None)
    if found == "pickle":
        return found, ""
    for file in files[:_MAX_FILES] if found is None else ():
        if reason := _pickle_in(file, stated):
            return "pickle", f" ({file.name!r:.100}: {reason})"
    return stated, ""


def _pickle_in(file: SourceFile, stated: str) -> str | None:
    try:
        return find_pickle(file.path, program=stated == "program")
    except OSError:
        return None


def _class(files: Sequence[SourceFile], plugins: Plugins, framework: str | None) -> str | None:
    try:
        return describe_model(files, plugins, framework, trust=True).safety
    except (UsageError, PluginError, OSError):
        return None
