"""Starting a server for a model of the store, with no code: ``bentotool model serve``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bentotool.errors import UsageError
from bentotool.modelservice import VARIABLE, Asked, unserved
from bentotool.paths import STORE_ENV
from bentotool.plugins import DISABLE_VARIABLE
from bentotool.serving import Launch
from bentotool.trust.enforcing import check_stored_model

if TYPE_CHECKING:
    from bentotool.models.store import ModelStore
    from bentotool.plugins import Plugins

__all__ = ["plan_model_launch"]


def plan_model_launch(
    reference: str,
    store: ModelStore,
    plugins: Plugins,
    *,
    trust: bool = False,
    verify: bool = False,
    max_batch_size: int = 100,
    note: Callable[[str], None] = lambda text: None,
) -> Launch:
    """How to start the server.

    Args:
        reference: ``name``, ``name:version``, ``name@sha256:…`` or a unique prefix of a version.
        trust: a model that runs code when it is loaded may be loaded.
        verify: hold every byte of the model against its digest first. A policy may ask for that too.
        max_batch_size: rows in one call of the model at most.
        note: told what a policy that is not enforced would refuse.

    Raises:
        NotFoundError: there is no such model.
        VerificationError: a policy refuses the model, or a byte of it differs.
        UnsafeError: it runs code when it is loaded, and `trust` is False.
        UsageError: its framework cannot be asked without code.
        MissingDependencyError: its framework is not installed.
    """
    from bentotool.models.trust import require_trust

    model = store.get(reference)
    details = model.details
    passed = check_stored_model(store.layout, model, plugins=plugins, note=note)
    if not details.framework or details.framework not in plugins.frameworks():
        raise unserved(
            model.tag, details.framework or "it", f"no plugin here knows framework {details.framework or 'none'!r}"
        )
    if not plugins.framework_decl(details.framework).predictor:
        raise unserved(model.tag, details.framework)
    require_trust(
        details.safety,
        model.tag,
        trust=trust,
        instead=details.metadata.get("instead"),
        reasons=details.metadata.get("needs_trust"),
        format=details.format,
        how="--trust loads it",
    )
    if max_batch_size < 1:
        raise UsageError(f"--max-batch-size {max_batch_size}: at least 1 is needed")
    store.check_linked(model)
    if verify or passed.runtime_check:
        store.verify(model)
        count = f"{len(model.files)} file{'s' if len(model.files) > 1 else ''}"
        note(f"verified {count}, {model.size / 1e6:.1f} MB, against {model.digest}")
    asked = Asked(
        reference=f"{model.name}@{model.digest}",
        name=model.name,
        version=model.version,
        framework=details.framework,
        format=details.format,
        trust=trust,
        max_batch_size=max_batch_size,
    )
    environment = {STORE_ENV: str(store.layout.root), VARIABLE: asked.to_json()}
    if plugins.disabled:
        environment[DISABLE_VARIABLE] = ",".join(sorted(plugins.disabled))
    nowhere = Path(os.devnull)  # neither the files of the model, nor those that happen to lie here, are code
    arguments = ("--service", "bentotool.modelservice:served")
    return Launch(model.tag, nowhere, arguments, environment, temporary=True)
