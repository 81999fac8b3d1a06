"""Requests that do not wait for each other: most of a request's time is the way to the object store and back."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

AT_ONCE = 8
"""Requests at once; boto3's client shares its connections among threads."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def side_by_side(ask: Callable[[Item], Answer], items: Iterable[Item]) -> list[Answer]:
    """Return the answers to a question about each item, in the order of the items.

    Args:
        ask: May be called by several threads at once.
        items: What it is asked about.

    Raises:
        Exception: What `ask` raised about the first item for which it did.
    """
    known = list(items)
    if len(known) < 2 or AT_ONCE < 2:
        return [ask(item) for item in known]
    with ThreadPoolExecutor(min(AT_ONCE, len(known)), thread_name_prefix="requests") as pool:
        return list(pool.map(ask, known))
