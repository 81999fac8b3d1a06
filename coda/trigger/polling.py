"""Polling: manifests below the landing prefix that are new or changed, found by folders and not by images.

Each look asks for the manifest of every folder that is new, of those that changed last, and of some of all others in
turn, so it costs the same whatever lies there; what it may see late, and what not at all, is in decision 0027.
"""

import random
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from heapq import nlargest
from itertools import chain
from typing import Self

from coda.contracts import MANIFEST_NAME
from coda.errors import ConfigError, Problem
from coda.storage.objects import ObjectInfo, ObjectStore
from coda.trigger.batch_versions import Arrival, is_manifest, owner_of
from coda.trigger.event_source import EventSource, SourceContext, Take
from coda.trigger.rounds import Landed, Rounds
from coda.trigger.side_by_side import side_by_side

WATCHED = 64
"""Folders asked for at each look, besides those that are new: the ones that changed last."""

SWEPT = 64
"""Folders of the others that are asked for at each look, in turn."""

WALKED = 1
"""Folders without a manifest of their own in which one look searches for misplaced ones, in turn."""

WALK = 20
"""Requests of one such search."""


class Poll(EventSource):
    """Polls the landing prefix; remembers entity tags, so settled manifests cost no reads."""

    name = "poll"
    says = "the list of the landing prefix: poll=SECONDS between two listings"

    def __init__(
        self, landing: ObjectStore, rounds: Rounds, ignored: Callable[[], Collection[str]], every_s: float = 0.0
    ) -> None:
        """Poll below the landing prefix.

        Args:
            landing: The landing prefix.
            rounds: What is known of the manifests of each source and batch; asked once, at the first look.
            ignored: Returns the sources that are not looked at.
            every_s: Seconds between two listings; 0 lists at each look.
        """
        self.landing = landing
        self._rounds = rounds
        self._every_s = every_s
        self._polled = float("-inf")
        self._known: Mapping[tuple[str, str], Landed] | None = None
        self._ignored = ignored
        self._settled: dict[str, str] = {}
        self._seen: dict[str, str] = {}
        self._changed: dict[str, datetime] = {}
        self._bare: set[str] = set()
        self._unsettled: set[str] = set()
        self._turns: dict[str, str] = {}

    @classmethod
    def make(cls, context: SourceContext, where: str) -> Self:
        """Return the source that lists so often."""
        try:
            every_s = float(where or 0)
        except ValueError as error:
            problem = Problem(
                "--events poll", repr(where), "seconds between two listings", "Write for example poll=30."
            )
            raise ConfigError("How often to list the landing prefix cannot be understood.", [problem]) from error
        return cls(context.landing, context.rounds, context.ignored, every_s)

    @property
    def description(self) -> str:
        """How often it lists."""
        return f"the list of the landing prefix, every {self._every_s:.0f} s"

    def drain(self, take: Take, *, wait_s: int = 0, everything: bool = False) -> int:
        """Take what is new or changed, unless the last listing was a moment ago."""
        del wait_s
        if time.monotonic() - self._polled < self._every_s:
            return 0
        done = sum(take(key) for key in self.keys(everything=everything))
        self._polled = time.monotonic()
        return done

    def keys(self, *, everything: bool = False) -> Iterator[str]:
        """Yield the key of every manifest that was found and is not settled as it is now.

        Args:
            everything: Ask for the manifest of every folder.

        Raises:
            TransientError: The object store is away.
        """
        if self._known is None:
            self._known = self._rounds.landed()
        ignored = frozenset(self._ignored())
        top = self.landing.level()
        sources = [name for name in top.folders if name[:-1] not in ignored]
        levels = [top, *side_by_side(self.landing.level, sources)]
        folders = sorted(name for level in levels[1:] for name in level.folders)
        self._keep(folders)
        chosen = folders if everything else self._chosen(folders)
        manifests = [f"{folder}{MANIFEST_NAME}" for folder in chosen]
        unsettled = sorted(self._unsettled - set(manifests))
        again = [key for key in unsettled if owner_of(key)[0] not in ignored]
        own = side_by_side(self.landing.info, manifests)
        once_more = side_by_side(self.landing.info, again)
        asked = dict(zip(chosen, own, strict=True))
        bare = sorted(
            (self._bare | {name for name in chosen if asked[name] is None})
            - {name for name in chosen if asked[name] is not None}
        )
        walked = {name for name in bare if everything or name not in self._changed}
        walked.update(self._turn("walk", bare, WALKED))
        deeper = side_by_side(self._walk, sorted(walked))
        # only now, after the last request that may fail, is anything taken for asked
        now = datetime.now(UTC)
        self._bare = set(bare)
        for name, item in asked.items():
            self._changed[name] = item.modified if item is not None else self._changed.get(name, now)
        self._unsettled -= {key for key, item in zip(again, once_more, strict=True) if item is None}
        misplaced = [item for level in levels for item in level.objects if is_manifest(item.key)]
        found = {item.key: item for item in (*misplaced, *own, *once_more, *chain.from_iterable(deeper)) if item}
        self._seen = {key: item.etag for key, item in found.items()}
        fresh = [key for key, item in found.items() if not self._is_settled(item)]
        self._unsettled.update(fresh)
        yield from fresh

    def settle(self, arrival: Arrival, *, known: bool) -> None:
        """Read a manifest again only when it changed: has another entity tag than what was read, or was found."""
        key = arrival.version.key
        if arrival.etag or key in self._seen:
            self._settled[key] = arrival.etag or self._seen[key]
        if known and key in self._unsettled:
            # without its tag in the ledger it was read for nothing: not again by the next start
            self._rounds.remember(arrival.version, arrival.etag)
        self._unsettled.discard(key)

    def hasten(self, key: str) -> None:
        """Ask for a manifest at every poll until it is settled, whosever turn it is; for any thread."""
        self._unsettled.add(key)

    def _is_settled(self, item: ObjectInfo) -> bool:
        of_ledger = (self._known or {}).get(owner_of(item.key))
        return self._settled.get(item.key) == item.etag or (of_ledger is not None and item.etag in of_ledger.etags)

    def _keep(self, folders: Collection[str]) -> None:
        """Forget what is gone."""
        here = frozenset(folders)
        self._bare &= here
        self._changed = {name: at for name, at in self._changed.items() if name in here}

    def _chosen(self, folders: list[str]) -> list[str]:
        """Return the folders whose manifests are asked for at this poll, of sorted ones."""
        for name in folders:
            if name not in self._changed and (landed := (self._known or {}).get(owner_of(name + MANIFEST_NAME))):
                self._changed[name] = landed.at
        rest = [name for name in folders if name in self._changed]
        watched = set(nlargest(WATCHED, rest, key=self._changed.__getitem__))
        turn = self._turn("sweep", [name for name in rest if name not in watched], SWEPT)
        return sorted(watched.union(turn, (name for name in folders if name not in self._changed)))

    def _turn(self, what: str, names: list[str], count: int) -> list[str]:
        """Return the next of sorted names, round and round; the first turn begins anywhere, as starts may be many."""
        if not names:
            return []
        after = self._turns.get(what) or random.choice(names)  # noqa: S311
        place = bisect_right(names, after)
        turn = (names[place:] + names[:place])[:count]
        self._turns[what] = turn[-1]
        return turn

    def _walk(self, folder: str) -> list[ObjectInfo]:
        """Return manifests below a folder that has none of its own: nearest first, with bounds."""
        folders, found = [folder], list[ObjectInfo]()
        for _ in range(WALK):
            if not folders:
                break
            level = self.landing.level(folders.pop(0), pages=1)
            found += [item for item in level.objects if is_manifest(item.key)]
            folders += level.folders
        return found
