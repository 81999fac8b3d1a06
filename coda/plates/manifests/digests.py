"""Digests of many files, several at a time, kept on this machine so that an interrupted build resumes."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Self, TextIO

from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.disk import writing
from coda.plates.manifests.places import Place
from coda.plates.tree import TreeFile

Progress = Callable[[int, int], None]
"""Called with the number of files and of bytes that were done since it was last called."""

MOST_PROBLEMS = 20


class _StoppedError(Exception):
    """Somebody else ended the work."""


class KeptDigests:
    """Digests by path, size and mark of the file, in a text file that grows as they are computed.

    A file that was replaced has another mark (or size), so its old digest is never used.
    """

    def __init__(self, folder: Path, place: str) -> None:
        """Name the file.

        Args:
            folder: Folder of this machine for such files; made when it is needed.
            place: The tree whose files are digested.
        """
        self.path = folder / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.digests.jsonl"
        self._known: dict[tuple[str, int, str], str] = {}
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        """Read what was kept; new digests are written behind it."""
        if self.path.is_file():
            with self.path.open(encoding="utf-8", errors="replace") as lines:
                self._known = dict(filter(None, map(_line, lines)))
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file; it stays for the next build."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def find(self, file: TreeFile, mark: str) -> str | None:
        """Return the digest of a file that has not changed since; else None."""
        return self._known.get((file.path, file.size_bytes, mark))

    def keep(self, file: TreeFile, mark: str, digest: str) -> None:
        """Write a digest down at once; a file without a mark is not kept."""
        if mark:
            self._known[file.path, file.size_bytes, mark] = digest
            with writing(self.path.parent):
                if self._file is None:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    self._file = self.path.open("a", encoding="utf-8")
                    # a line that a killed process left half-written must not swallow the next one
                    self._file.write("\n")
                self._file.write(json.dumps([file.path, file.size_bytes, mark, digest]) + "\n")
                self._file.flush()


def _line(text: str) -> tuple[tuple[str, int, str], str] | None:
    try:
        path, size, mark, digest = json.loads(text)
    except (ValueError, TypeError):
        return None
    sound = isinstance(path, str) and isinstance(size, int) and isinstance(mark, str) and isinstance(digest, str)
    return ((path, size, mark), digest) if sound else None


def digests_of(
    place: Place, files: Sequence[TreeFile], kept: KeptDigests, *, workers: int, progress: Progress
) -> Mapping[str, str]:
    """Return the SHA-256 of each file, reading each at most once; what is kept, or stored with it, is not read at all.

    Args:
        place: Where they lie; it was listed.
        files: The files with the size they were listed with.
        kept: Digests of earlier calls; new ones are added as they come.
        workers: Files under way at once, at least 1.
        progress: Called after every file.

    Returns:
        Path -> SHA-256 in hexadecimal.

    Raises:
        ContractError: Files vanished or changed while they were read, or cannot be read; all of them together.
        TransientError: The storage is away. The same call resumes where it stopped.
    """
    result: dict[str, str] = {}
    waiting: list[TreeFile] = []
    for file in files:
        known = kept.find(file, place.mark(file.path))
        if known is None:
            waiting.append(file)
        else:
            result[file.path] = known
            progress(1, file.size_bytes)
    problems: list[Problem] = []
    for file, outcome in _in_parallel(place, waiting, workers):
        if isinstance(outcome, ContractError):
            problems += outcome.problems
            continue
        mark, digest = outcome
        kept.keep(file, mark, digest)
        result[file.path] = digest
        progress(1, file.size_bytes)
    more = [Problem(place.where, f"{len(problems) - MOST_PROBLEMS} more such files", "none", "Check all of them.")]
    shown = problems if len(problems) <= MOST_PROBLEMS else [*problems[:MOST_PROBLEMS], *more]
    raise_if_any(ContractError, "Some files cannot be put into a manifest.", shown)
    return result


def _in_parallel(
    place: Place, files: Sequence[TreeFile], workers: int
) -> Iterator[tuple[TreeFile, tuple[str, str] | ContractError]]:
    """Yield each file with its mark and digest as they come, or with what is wrong with it."""
    stop = threading.Event()
    rest = iter(files)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        under_way: dict[Future[tuple[str, str]], TreeFile] = {}

        def begin(count: int) -> None:
            under_way.update({pool.submit(_digest, place, file, stop): file for file in islice(rest, count)})

        try:
            begin(4 * max(1, workers))
            while under_way:
                done, _ = wait(under_way, return_when=FIRST_COMPLETED, timeout=0.2)
                # what was read is kept before an error ends it all
                for future in sorted(done, key=lambda future: future.exception() is not None):
                    file = under_way.pop(future)
                    try:
                        yield file, future.result()
                    except ContractError as error:
                        yield file, error
                begin(len(done))
        finally:
            # whoever ends this early (an error, Ctrl-C) waits for single blocks, never for whole files
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _digest(place: Place, file: TreeFile, stop: threading.Event) -> tuple[str, str]:
    mark = place.mark(file.path)
    stored = place.stored_sha256(file.path)
    if stored is not None:
        return mark, stored
    digest, size = hashlib.sha256(), 0
    for block in place.blocks(file.path):
        if stop.is_set():
            raise _StoppedError
        digest.update(block)
        size += len(block)
    if size != file.size_bytes or place.mark(file.path) != mark:
        where, found = f"{place.where}: {file.path}", f"{size} bytes, listed with {file.size_bytes}"
        remedy = "Wait until nobody writes there any more, and build again."
        problem = Problem(where, f"{found}, or another time of writing", "a file that stays as it is", remedy)
        raise ContractError(f"{file.path} changed while it was read.", [problem])
    return mark, digest.hexdigest()


def verify(
    place: Place, files: Sequence[TreeFile], *, workers: int, progress: Progress
) -> Iterator[tuple[TreeFile, str | ContractError]]:
    """Yield each file with its SHA-256 (as it is now; none is remembered), or with why it cannot be read.

    Args:
        place: Where they lie; it was listed.
        files: The files with the size they were listed with.
        workers: Files under way at once, at least 1.
        progress: Called after every file.

    Raises:
        TransientError: The storage is away.
    """
    for file, outcome in _in_parallel(place, files, workers):
        progress(1, file.size_bytes)
        yield file, outcome if isinstance(outcome, ContractError) else outcome[1]
