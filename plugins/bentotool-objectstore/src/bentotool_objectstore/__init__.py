"""Models from S3, Google Cloud Storage and Azure Blob Storage for bentotool."""

__version__ = "0.1.0"
