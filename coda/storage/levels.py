"""One level of a bucket's names: what lies directly below a prefix, without what lies deeper."""

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from coda.storage.failures import explained

if TYPE_CHECKING:
    from coda.storage.objects import ObjectInfo, ObjectStore


@dataclass(frozen=True)
class Level:
    """What lies directly below a prefix.

    Attributes:
        objects: Its objects.
        folders: Prefixes that hold more, relative to the store, each with a slash at its end.
    """

    objects: tuple["ObjectInfo", ...]
    folders: tuple[str, ...]


def level_of(store: "ObjectStore", prefix: str, pages: int | None) -> Level:
    """Return one level of a store.

    Args:
        store: Where.
        prefix: '' or ending in '/'.
        pages: Answers that are read at most, of 1,000 names each; all when not given.

    Raises:
        TransientError: The service is away.
    """
    objects: list[ObjectInfo] = []
    folders: list[str] = []
    cut = len(store.path(""))
    listing = store.client.get_paginator("list_objects_v2")
    with explained("list", store.url(prefix), store.endpoint):
        answers = listing.paginate(Bucket=store.bucket, Prefix=store.path(prefix), Delimiter="/")
        for answer in islice(answers, pages):
            objects += [store.listed(item) for item in answer.get("Contents", ())]
            folders += [item["Prefix"][cut:] for item in answer.get("CommonPrefixes", ())]
    return Level(tuple(objects), tuple(folders))
