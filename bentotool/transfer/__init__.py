"""Moving models and Bentos between a store and an OCI registry.

Order of a push: blobs, model manifests, Bento manifest, index, tag last. Order of a pull: the tag is resolved once to a
digest; blobs, model manifests and Bento manifest follow, names last. So a reader on either side never sees a half.
"""

from __future__ import annotations

from bentotool.transfer.pull import pull
from bentotool.transfer.push import push_bento, push_model
from bentotool.transfer.result import Progress, ProgressMaker, Transferred

__all__ = ["Progress", "ProgressMaker", "Transferred", "pull", "push_bento", "push_model"]
