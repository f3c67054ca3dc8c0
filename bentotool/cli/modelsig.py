"""The signature of a model's files as a file of its own, for the tools of OpenSSF Model Signing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bentotool.errors import UsageError, VerificationError

if TYPE_CHECKING:
    from bentotool.cli.signing import Target
    from bentotool.trust.signing import Signed

__all__ = ["check_one_model", "write_model_signature"]


def check_one_model(target: Target, path: Path | None) -> None:
    """Refuse, before anything is signed, a file that could not be written.

    Raises:
        UsageError: the artifact has no model, or several; or the place is no file's.
    """
    if path is None:
        return
    models = [each.name for each in target.objects if each.files_digest]
    if len(models) != 1:
        raise UsageError(
            f"--model-sig is for one model, and {target.title} has {len(models)}", hint="sign each: sign --model NAME"
        )
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"--model-sig {path} is no file in a folder that exists", hint="--model-sig model.sig")


def write_model_signature(target: Target, signed: Sequence[Signed], path: Path) -> None:
    """Write the bundle that was attached.

    Raises:
        VerificationError: it is not there any more.
    """
    from bentotool.paths import write_atomic
    from bentotool.trust.readers import FoundBundle
    from bentotool.trust.statements import MODEL_SIGNING

    wanted = next(each for each in signed if each.predicate_type == MODEL_SIGNING)
    for found in target.place.reader.bundles(wanted.about.digest):
        if isinstance(found, FoundBundle) and found.referrer == wanted.referrer:
            write_atomic(path, found.data)
            return
    raise VerificationError(f"the signature {wanted.referrer} is not there", hint="sign it again")
