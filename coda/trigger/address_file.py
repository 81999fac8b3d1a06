"""A file of addresses: whoever delivers adds a line for each manifest, on a disk that the trigger sees."""

from pathlib import Path
from typing import Self

from coda.errors import ConfigError, Problem, TransientError
from coda.storage.objects import ObjectStore
from coda.trigger.event_source import EventSource, SourceContext, Take
from coda.trigger.events import Message, Notice, manifest_keys


class AddressFile(EventSource):
    """Reads the lines that were added to a file: ``s3://landing/source/batch/manifest.json``, one manifest each."""

    name = "address_file"
    says = "a file to which the address of each delivered manifest is added as a line: address_file=FILE"

    def __init__(self, path: Path, landing: ObjectStore) -> None:
        """Name the file; it need not be there yet.

        Args:
            path: The file. After a start it is read from its beginning: what is in the ledger is only read once more.
            landing: Store at the landing prefix; lines that name another place are passed over.
        """
        self._path = path
        self._landing = landing
        self._read = 0
        self._waiting: dict[str, None] = {}

    @classmethod
    def make(cls, context: SourceContext, where: str) -> Self:
        """Return the source at a path."""
        if not where:
            problem = Problem("--events address_file", "no file", "address_file=FILE", "Say which file.")
            raise ConfigError("The file of addresses is not named.", [problem])
        return cls(Path(where), context.landing)

    @property
    def description(self) -> str:
        """Which file it is."""
        return f"the addresses in {self._path}"

    def drain(self, take: Take, *, wait_s: int = 0, everything: bool = False) -> int:
        """Take what was added, and what could not be taken before."""
        del wait_s, everything
        self._waiting.update(dict.fromkeys(self._added()))
        done = 0
        for key in list(self._waiting):
            if take(key):
                del self._waiting[key]
                done += 1
        return done

    def _added(self) -> list[str]:
        """Return the keys of the lines that were finished since this was last asked."""
        try:
            with self._path.open("rb") as file:
                # a file that got shorter is another one
                self._read = file.seek(self._read if self._read <= self._path.stat().st_size else 0)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise TransientError(f"The file of addresses {self._path} cannot be read: {error.strerror}.") from error
        self._read += len(whole + newline)
        lines = whole.decode(errors="replace").split("\n")
        notices = (line.strip().removeprefix("s3://").partition("/") for line in lines)
        return manifest_keys(Message(tuple(Notice(bucket, key) for bucket, _, key in notices)), self._landing)
