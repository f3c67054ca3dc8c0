"""Loads a scikit-learn model from a skops file, after a check of our own; a pickle only with ``trust=True``.

This package travels in a Bento: standard library, numpy, scipy, scikit-learn, skops and joblib only.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .audit import vouch
from .known import unknown_types
from .schema import InvalidModelError, check_sizes, nodes, read_schema, starts_as_zip

__all__ = ["InvalidModelError", "UnsafeModelError", "load", "nodes", "read_schema", "starts_as_zip", "unknown_types"]


class UnsafeModelError(ValueError):
    """Loading would make objects that nobody vouches for."""

    unsafe = True


def load(path, *, trusted: Iterable[str] = (), trust: bool = False):
    """The estimator of a ``.skops`` file.

    Args:
        path: the file.
        trusted: full names of further types to accept, as the error lists them.
        trust: accept every type; and load a joblib or pickle file, which runs whatever code its author put in.

    Raises UnsafeModelError for types that are not accepted, InvalidModelError for a damaged file.
    """
    path = Path(path)
    if not starts_as_zip(path):
        return _load_pickle(path, trust)
    schema = read_schema(path)
    import skops.io

    with zipfile.ZipFile(path) as archive:
        check_sizes(schema, archive)
        try:
            theirs = skops.io.get_untrusted_types(file=path)
        except Exception as error:
            raise InvalidModelError(f"{path.name} is damaged: {error}") from error
        verdicts = vouch(schema, archive, theirs)
    needed = sorted(name for name in {*unknown_types(schema), *theirs} if verdicts.get(name) != "")
    refused = [name for name in needed if name not in set(trusted)]
    if refused and trust is not True:
        reasons = ", ".join(f"{name} ({verdicts[name]})" if verdicts.get(name) else name for name in refused)
        raise UnsafeModelError(
            f"{path.name} holds types that are not known to be safe: {reasons}; "
            f"if you trust them, pass trusted={refused!r}"
        )
    return skops.io.load(path, trusted=sorted(theirs))


def _load_pickle(path: Path, trust: bool) -> Any:
    if trust is not True:
        raise UnsafeModelError(f"{path.name} is a pickle, which runs code when it is loaded; trust=True loads it")
    import joblib

    return joblib.load(path)
