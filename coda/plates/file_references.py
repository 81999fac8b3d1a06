"""Which file a reference means: one rule for every table of every reader (docs/decisions/0022).

Tables name images where they once were. For a plate and a set of channels one mapping from an old root to a new one is
learned, from all references together; a reference is the file that the mapping leads to, or it is missing. A mapping
that may lead to another plate, or another well, is none.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from coda.plates.addresses import Parts, spellings
from coda.plates.layout import parse_well
from coda.plates.name_forms import composed, spelled, twins
from coda.plates.tabular.wording import shown

CONTAINERS = frozenset((
    "data", "export", "exported", "exports", "download", "downloads", "files", "image", "images", "img", "imgs",
    "in", "incoming", "input", "inputs", "measurement", "measurements", "new", "photos", "pictures", "plate",
    "plates", "png", "pngs", "raw", "raw_data", "rawdata", "staging", "tif", "tiff", "tiffs", "tifs",
))  # fmt: skip
"""Names of folders that only hold something, and tell no plate from another."""

SHORTEST_NAME = 4
"""Letters of a plate's name from which its presence at the head of a file's name is taken for more than chance."""

Root = tuple[Parts, Parts]
"""An old root and the new one that takes its place."""


@dataclass(frozen=True)
class Moved:
    """What the user says about a move: everything below `old` lies below `new` now."""

    old: Parts
    new: Parts


@dataclass(frozen=True)
class Resolved:
    """What came of the references of a plate: reference -> path, or why there is none."""

    paths: Mapping[str, str]
    reasons: Mapping[str, str]

    def resolve(self, reference: str) -> str:
        """Return the path of a reference.

        Raises:
            LookupError: There is none; the text says why.
        """
        if reference in self.paths:
            return self.paths[reference]
        raise LookupError(self.reasons.get(reference, f"{shown(reference)} is not among the files of the manifest"))


@dataclass
class _Folder:
    """Files of a folder: name -> path, and the same by names without regard to case (None where two are one)."""

    names: dict[str, str] = field(default_factory=dict)
    folded: dict[str, str | None] = field(default_factory=dict)

    def add(self, name: str, path: str) -> None:
        self.names[name] = path
        key = name.casefold()
        self.folded[key] = None if key in self.folded else path

    def find(self, name: str) -> str | None:
        return self.names.get(name) or self.folded.get(name.casefold())


class FileResolver:
    """The files that references may mean, and what is known of their tree."""

    def __init__(
        self,
        paths: Iterable[str],
        *,
        own: bool = True,
        others: Collection[str] = (),
        home: str = "",
        moved: Sequence[Moved] = (),
    ) -> None:
        """Index the files.

        Args:
            paths: Files with forward slashes, relative to one root.
            own: Whether all of them are the plate's own, as a manifest's are; then none can be another plate's.
            others: Plates that the tree's tables are about, this one may be among them.
            home: Folder of the table, where the tables below it are about one plate; new roots count from there.
            moved: Moves that the user named; they replace learning for the references they fit.
        """
        paths = list(paths)
        self._twins = twins(paths)
        # names are compared in NFC, unless two files differ in nothing else: then only exact names mean one of them
        self._form: Callable[[str], str] = str if self._twins else composed
        self._own, self._others = own, frozenset(map(self._form, others))
        self._moved = tuple(Moved(self._formed(move.old), self._formed(move.new)) for move in moved)
        self._home: Parts = self._formed(home.split("/")) if home else ()
        self._folders: dict[Parts, _Folder] = defaultdict(_Folder)
        self._named: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            *folder, name = self._form(path).split("/")
            self._folders[tuple(folder)].add(name, path)
            self._named[name.casefold()].append(path)
        self._by_last: dict[str, list[Parts]] = defaultdict(list)
        for parts in self._folders:
            self._by_last[parts[-1] if parts else ""].append(parts)

    def _formed(self, parts: Iterable[str]) -> Parts:
        return tuple(map(self._form, parts))

    def _read(self, text: str) -> dict[str, Parts]:
        return {name: self._formed(parts) for name, parts in spellings(text).items()}

    def resolve(self, reference: str, plate: str = "") -> str:
        """Return the path of a reference that stands alone; see `learn`."""
        return self.learn(plate, {"": [reference]}).resolve(reference)

    def learn(self, plate: str, references: Mapping[str, Iterable[str]]) -> Resolved:
        """Return what the references of a plate mean.

        Args:
            plate: The plate as its table calls it.
            references: Channel -> its references; empty ones are passed over.
        """
        paths: dict[str, str] = {}
        reasons: dict[str, str] = {}
        for texts in _sets(references, self._read):
            self._learn_set(self._form(plate), texts, paths, reasons)
        return Resolved(paths, reasons)

    def _learn_set(self, plate: str, texts: Sequence[str], paths: dict[str, str], reasons: dict[str, str]) -> None:
        read = {text: self._read(text) for text in texts}
        rest = []
        for text in texts:
            hit = self._told(read[text])
            if hit is None:
                rest.append(text)
            elif isinstance(hit, str):
                paths[text] = hit
            else:
                reasons[text] = f"{shown(text)} is not where --moved says ({'/'.join(hit.new) or 'the folder itself'})"
        if not rest:
            return
        best: tuple[dict[str, str], list[Root]] = ({}, [])
        for spelling in dict.fromkeys(name for text in rest for name in read[text]):
            wanted = {text: read[text].get(spelling) or next(iter(read[text].values())) for text in rest}
            found, roots = self._mapped(plate, wanted)
            if len(found) > len(best[0]) or (not best[0] and len(roots) > len(best[1])):
                best = (found, roots)
        paths.update(best[0])
        for text in rest:
            if text not in paths:
                reasons[text] = self._reason(text, next(iter(read[text].values())))

    def _told(self, read: Mapping[str, Parts]) -> str | Moved | None:
        """Return where the user's moves lead; the move itself where nothing is there, None where none fits."""
        fitting: list[Moved] = []
        for parts in read.values():
            for move in sorted(self._moved, key=lambda item: -len(item.old)):
                if parts[: len(move.old)] == move.old and len(parts) > len(move.old):
                    fitting.append(move)
                    *folder, name = (*move.new, *parts[len(move.old) :])
                    path = self._at(tuple(folder), name)
                    if path is not None:
                        return path
        return fitting[0] if fitting else None

    def _at(self, folder: Parts, name: str) -> str | None:
        return self._folders[folder].find(name) if folder in self._folders else None

    def _mapped(self, plate: str, wanted: Mapping[str, Parts]) -> tuple[dict[str, str], list[Root]]:
        """Return reference -> path by the one mapping that fits; where several fit equally, these roots and no path."""
        folders: dict[Parts, list[str]] = defaultdict(list)
        for parts in wanted.values():
            if parts:
                folders[parts[:-1]].append(parts[-1])
        identity = _Identity(plate, self._own, self._others - {plate}, self._home)
        flat = [place for place in self._folders if identity.at_the_top(place)]
        roots = {root for folder, names in folders.items() for root in self._roots(folder, names, identity, flat)}
        rank = {root: sum(not _holds(part) for part in root[0]) for root in roots}
        fitting = sorted(root for root in roots if rank[root] == min(rank.values()))
        if len(fitting) == 1:
            old, new = fitting[0]
            found = {}
            for text, parts in wanted.items():
                if parts[: len(old)] == old and len(parts) > len(old):
                    *folder, name = (*new, *parts[len(old) :])
                    path = self._at(tuple(folder), name)
                    if path is not None:
                        found[text] = path
            whole = len(found) == len(wanted) and all(place[: len(new)] == new for place in self._folders)
            return (found if whole or not identity.nameless(fitting[0], folders) else {}), fitting
        if by_name := self._by_names(wanted, identity):
            return by_name, []
        return {}, fitting

    def _roots(
        self, folder: Parts, names: Sequence[str], identity: "_Identity", flat: Sequence[Parts]
    ) -> Iterator[Root]:
        """Yield the mappings by which some file of an old folder is there, and which lead to no other plate or well."""
        near = self._by_last.get(folder[-1] if folder else "", [])
        for place in {*near, *(() if identity.inner(folder) else flat)}:
            common = _common_end(folder, place)
            root = (folder[: len(folder) - common], place[: len(place) - common])
            if identity.kept(folder, root) and any(self._folders[place].find(name) for name in names):
                yield root

    def _by_names(self, wanted: Mapping[str, Parts], identity: "_Identity") -> dict[str, str]:
        """Return the files by their bare names, where a name is asked for once, there once, and says the plate."""
        asked = Counter(parts[-1].casefold() for parts in wanted.values() if parts)
        found = {}
        for text, parts in wanted.items():
            there = self._named.get(parts[-1].casefold(), []) if parts else []
            if len(there) == 1 and asked[parts[-1].casefold()] == 1 and identity.says(parts[-1]):
                found[text] = there[0]
        return found

    def _reason(self, text: str, parts: Parts) -> str:
        there = self._named.get(parts[-1].casefold(), []) if parts else []
        if not there:
            alike = [path for path in self._twins if composed(parts[-1]) == composed(path).rpartition("/")[2]]
            if alike:
                return f"{spelled(text)} may mean any of {' and '.join(map(spelled, alike))}, whose names look alike"
            return f"{shown(text)} is not among the files of the manifest"
        if len(there) > 1:
            places = ", ".join(dict.fromkeys(path.rpartition("/")[0] or "." for path in there[:3]))
            return (
                f"{shown(text)} may be any of {len(there)} files of the manifest (in {places}); --moved OLD=NEW decides"
            )
        new = there[0].rpartition("/")[0]
        where = shown(new) if new else "the folder itself"
        move = f"{'/'.join(parts[:-1]) or '.'}={new or '.'}"  # a dot: neither side of an option may be empty
        return (
            f"{shown(text)} is not among the files of the manifest: a file of its name lies in {where}, which "
            f"may be another plate's or well's (if it is this one: --moved {shown(move)})"
        )


@dataclass(frozen=True)
class _Identity:
    """What tells a plate and its wells from others in the names of folders."""

    plate: str
    own: bool
    others: frozenset[str]
    home: Parts

    def kept(self, folder: Parts, root: Root) -> bool:
        """Return whether a mapping of a folder keeps what tells its plate and well from others."""
        old, new = root
        if self.others & set(new):
            return False
        place = self._place(folder)
        if place is not None and place >= len(old):
            return True
        dropped = old if place is None else old[place + 1 :]
        if any(map(self._is_well, (*dropped, *new))) or (place is not None and not all(map(_holds, dropped))):
            return False
        return self.own or self.at_the_top(new)

    def at_the_top(self, place: Parts) -> bool:
        """Return whether a folder is a plate's own by its name, or holds the only plate there is."""
        if self.own:
            return True
        named = max((number for number, part in enumerate(place) if part == self.plate), default=None)
        if named is not None:
            return all(map(_holds, place[named + 1 :]))
        inside = bool(self.home) and place[: len(self.home)] == self.home
        below = place[len(self.home) :] if inside else place
        return (inside or not self.others) and all(map(_holds, below))

    def inner(self, folder: Parts) -> bool:
        """Return whether a folder is a part of a plate, for which only one of the same name can stand."""
        place = self._place(folder)
        parts = folder[-1:] if place is None else folder[place + 1 :]
        return any(map(self._is_well, parts)) or (place is not None and not all(map(_holds, parts)))

    def nameless(self, root: Root, folders: Iterable[Parts]) -> bool:
        """Return whether the names of the new folders do not say whose they are."""
        old, new = root
        literal = not old and new in {(), self.home}
        if self.own or literal or self.plate in new or (self.home and new[: len(self.home)] == self.home):
            return False
        places = [self._place(folder) for folder in folders]
        return any(place is None or place < len(old) for place in places)

    def says(self, name: str) -> bool:
        """Return whether a file's name cannot be another plate's."""
        head, behind = name[: len(self.plate)], name[len(self.plate) :][:1]
        said = head.casefold() == self.plate.casefold() and behind in {"_", "-", "."}
        return self.own or (said and len(self.plate) >= SHORTEST_NAME)

    def _place(self, folder: Parts) -> int | None:
        """Return the last part of a folder that names the plate."""
        if not self.plate:
            return None
        word = re.compile(rf"(?<![^\W_]){re.escape(self.plate)}(?![^\W_])", re.IGNORECASE)
        named = [number for number, part in enumerate(folder) if word.search(part)]
        while len(named) > 1 and folder[named[-1]] == self.plate and parse_well(self.plate) is not None:
            named.pop()  # plate P1, well P1: the deeper folder may be the well's, which other plates have, too
        return named[-1] if named else None

    def _is_well(self, part: str) -> bool:
        return part != self.plate and parse_well(part) is not None


def _sets(references: Mapping[str, Iterable[str]], read: Callable[[str], Mapping[str, Parts]]) -> list[list[str]]:
    """Return the references of channels that belong together: those that share a folder."""
    sets: list[tuple[set[Parts], dict[str, None]]] = []
    for texts in references.values():
        own = dict.fromkeys(text for text in texts if text)
        folders = {next(iter(read(text).values()))[:-1] for text in own}
        joined = [item for item in sets if item[0] & folders]
        for others, more in joined:
            folders |= others
            own = {**more, **own}
        sets = [item for item in sets if item not in joined] + [(folders, own)]
    return [list(texts) for _, texts in sets if texts]


def _holds(part: str) -> bool:
    return part.casefold() in CONTAINERS


def _common_end(left: Parts, right: Parts) -> int:
    pairs = zip(reversed(left), reversed(right), strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
