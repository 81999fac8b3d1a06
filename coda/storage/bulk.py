"""Whole folders to and from object storage, many files at a time."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from coda.errors import ContractError, Problem

if TYPE_CHECKING:
    from coda.storage.objects import ObjectStore

Progress = Callable[[int, int], None]
"""Called from the calling thread with the number of files done and the number of files in all."""


def upload_folder(
    store: "ObjectStore",
    folder: Path,
    prefix: str,
    *,
    last: Sequence[str],
    workers: int,
    progress: Progress | None = None,
    leave: Sequence[str] = (),
) -> int:
    """Send all files below a folder, the ones that announce it after all others.

    Args:
        store: Where to.
        folder: Folder whose files are sent; keys are their relative paths below `prefix`.
        prefix: Key prefix, with or without a slash at the end; '' for the store itself.
        last: File names that are sent one by one after all others, in this order: what starts readers.
        workers: Files under way at once, at least 1.
        progress: Called after each file.
        leave: Endings of file names that are not sent.

    Returns:
        Number of files sent.

    Raises:
        TransientError: The service went away; what was sent stays, and the announcing files were not sent.
    """
    base = f"{prefix.rstrip('/')}/" if prefix else ""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix not in leave)
    first = [path for path in paths if path.name not in last]
    final = sorted((path for path in paths if path.name in last), key=lambda path: last.index(path.name))
    total = len(paths)

    def send(path: Path) -> None:
        store.upload(path, base + path.relative_to(folder).as_posix(), content_type_of(path.name))

    done = _in_parallel([partial(send, path) for path in first], workers, total, progress)
    for path in final:
        send(path)
        done += 1
        if progress is not None:
            progress(done, total)
    return done


def download_folder(
    store: "ObjectStore", prefix: str, folder: Path, *, workers: int, progress: Progress | None = None
) -> tuple[Path, ...]:
    """Fetch all objects below a prefix into a folder.

    Args:
        store: Where from.
        prefix: Key prefix, with or without a slash at the end; '' for the whole store.
        folder: Where to; files keep their path below `prefix`.
        workers: Files under way at once, at least 1.
        progress: Called after each file.

    Returns:
        The files written, in the order of their keys.

    Raises:
        ContractError: A key would leave the folder ('..', an absolute path, a backslash).
    """
    base = f"{prefix.rstrip('/')}/" if prefix else ""
    names = [info.key[len(base) :] for info in store.list(base) if not info.key.endswith("/")]
    unsafe = [name for name in names if _leaves(name)]
    if unsafe:
        remedy = "Deliver the files under names without '..'."
        problems = [
            Problem(store.url(base + name), "a key that leaves its folder", "a path", remedy) for name in unsafe
        ]
        raise ContractError(f"{store.url(base)} holds keys that cannot be files here.", problems)
    jobs = [partial(store.download, base + name, folder / name) for name in names]
    _in_parallel(jobs, workers, len(jobs), progress)
    return tuple(folder / name for name in names)


def content_type_of(name: str) -> str:
    """Return the content type browsers need for a file of this name."""
    types = {
        ".json": "application/json", ".csv": "text/csv; charset=utf-8", ".html": "text/html; charset=utf-8",
        ".png": "image/png", ".tif": "image/tiff", ".tiff": "image/tiff", ".txt": "text/plain; charset=utf-8",
    }  # fmt: skip
    return types.get(PurePosixPath(name).suffix.lower(), "application/octet-stream")


def _leaves(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name


def _in_parallel(jobs: Iterable[Callable[[], object]], workers: int, total: int, progress: Progress | None) -> int:
    done = 0
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        pending = {pool.submit(job) for job in jobs}
        try:
            while pending:
                finished, pending = wait(pending, return_when=FIRST_EXCEPTION, timeout=0.2)
                for future in finished:
                    future.result()
                    done += 1
                if finished and progress is not None:
                    progress(done, total)
        finally:
            # after the first failure the files not yet begun are not sent at all
            pool.shutdown(wait=True, cancel_futures=True)
    return done
