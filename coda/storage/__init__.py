"""Object storage (boto3) and the data registry (Git and DVC)."""

from coda.storage.failures import ObjectNotFoundError
from coda.storage.objects import ObjectInfo, ObjectStore, locate, split_uri, store_for

__all__ = ["ObjectInfo", "ObjectNotFoundError", "ObjectStore", "locate", "split_uri", "store_for"]
