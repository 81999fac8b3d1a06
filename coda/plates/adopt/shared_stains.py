"""Channels that hold two stains at once, told by their names."""

import re
from collections.abc import Mapping, Sequence

from coda.contracts.manifest import STAINS

_JOINT = re.compile(r"[\s_+/&-]*")


def one_of_two(names: Sequence[str], channels: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Give a channel whose name joins two stains (`ERRNA`, `ER_RNA`) to the first of them in the usual order.

    A laboratory that images ER and RNA through one filter (JUMP's source_15) has no separate RNA stain. Its one
    channel stands for ER; RNA is absent, and said to be. A channel that the user maps is left to the user.

    Args:
        names: Channel names of a table or an index.
        channels: Channel -> stain as the user gave it.

    Returns:
        `channels` with the joint ones added; and a remark for each of these.
    """
    known = dict(channels)
    remarks = []
    for name in names:
        pair = _pair(name)
        if name in known or name in STAINS or pair is None:
            continue
        known[name] = pair[0]
        remarks.append(
            f"{pair[0]} and {pair[1]} share the channel {name!r}; it stands for {pair[0]}, and there is no separate "
            f"{pair[1]} stain"
        )
    return known, tuple(remarks)


def _pair(name: str) -> tuple[str, str] | None:
    text = _JOINT.sub("", name).lower()
    for first in STAINS:
        for second in STAINS[STAINS.index(first) + 1 :]:
            if text in {(first + second).lower(), (second + first).lower()}:
                return first, second
    return None
