"""Channels that a batch lacks, or has beside those that are asked for: which, and what to type."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from coda.contracts.channels import STAINS, in_yaml, is_transmitted, listed


def cure(
    present: Sequence[str],
    needed: Sequence[str],
    *,
    unstored: Sequence[str] = (),
    already: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return what to do about channels that are needed and absent.

    Args:
        present: Channels that are there.
        needed: Channels that are asked for, some of which are not.
        unstored: Channels that the delivery has and ingest did not store.
        already: Channel as delivered -> name that it is stored under.

    Returns:
        Sentences with options of `coda step ingest` and of pipelines: `ingest.renamed` for a channel that stands under
        another name, `ingest.channels` for one that was only not stored.
    """
    absent = [name for name in needed if name not in present]
    left = [name for name in absent if name in unstored]
    spare = [name for name in (*present, *unstored) if name not in needed]
    renamed = _stand_ins([name for name in absent if name not in left], spare)
    stored = [*(renamed.get(name, name) for name in present), *left]
    stored += [new for old, new in renamed.items() if old not in present]
    options = [f"--set 'ingest.channels={listed(stored)}'"]
    if renamed:
        before = {new: old for old, new in already.items()}
        names = {**already, **{before.get(old, old): new for old, new in renamed.items()}}
        pairs = ", ".join(f"{in_yaml(old)}: {in_yaml(new)}" for old, new in names.items())
        options.insert(0, f"--set 'ingest.renamed={{{pairs}}}'")
    rest = [name for name in absent if name not in left and name not in renamed.values()]
    lost = f"No other channel of the batch could stand for {', '.join(rest)}: image it, or use a model without it."
    if not renamed and not left:
        return lost
    typed = f"ingest the batch again with {' '.join(options)}"
    if not renamed:
        advice = f"Ingest did not store {', '.join(left)}: {typed}."
    else:
        shown = " and ".join(f"{old} shows what is called {new} here" for old, new in renamed.items())
        more = [name for name in spare if name not in renamed and _may_be(name, next(iter(renamed.values())))]
        others = f" (or {', '.join(more)} does)" if more else ""
        advice = f"If {shown}{others}, {typed}."
    return f"{advice} {lost}" if rest else advice


def _may_be(name: str, wanted: str) -> bool:
    """Return whether a channel may show what another name stands for: none of the five is another one of them."""
    return not is_transmitted(name) and not (name in STAINS and wanted in STAINS)


def _stand_ins(absent: Sequence[str], spare: Sequence[str]) -> dict[str, str]:
    """Return spare channel -> absent one that it may be: one of the same letters first, else the first that could."""
    found: dict[str, str] = {}
    for name in absent:
        same = [other for other in spare if other.casefold() == name.casefold()]
        found |= dict.fromkeys(same[:1], name)
    for name in absent:
        free = [other for other in spare if other not in found and _may_be(other, name)]
        if free and name not in found.values():
            found[free[0]] = name
    return found


def unread(stored: Mapping[str, Sequence[str]], needed: Sequence[str]) -> list[str]:
    """Return sentences about channels that batches have beside those that a model reads."""
    extra: dict[tuple[str, ...], list[str]] = {}
    for batch, channels in stored.items():
        more = tuple(name for name in channels if name not in needed)
        if more:
            extra.setdefault(more, []).append(batch)
    return [
        f"Of {', '.join(batches)} the model reads {', '.join(needed)}; {', '.join(more)} {_are(more)} not read."
        for more, batches in extra.items()
    ]


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
