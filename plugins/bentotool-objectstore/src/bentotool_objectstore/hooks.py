"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from bentotool.hookspecs import hookimpl
from bentotool.interfaces import SourceDecl


@hookimpl
def bentotool_sources() -> list[SourceDecl]:
    return [
        SourceDecl(
            "objectstore",
            "bentotool_objectstore.source:ObjectStoreSource",
            "objects of S3, Google Cloud Storage or Azure Blob Storage",
            schemes=("s3", "gs", "az", "abfss"),
            forms=("s3://BUCKET/KEY", "gs://BUCKET/KEY", "az://CONTAINER/KEY"),
        )
    ]
