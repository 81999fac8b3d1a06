"""Where finished plates stay beyond one ingest: their stores by content, their records and tables by content key."""

from typing import Protocol

from coda.contracts.placement import StoreReference
from coda.plates.outputs import PlateFolders
from coda.plates.plate_ingest import PlateRecord


class PlateShelf(Protocol):
    """Keeps finished plates, for this ingest and for any other one of the same files and parameters."""

    def find(self, plate: str, content_key: str, folders: PlateFolders) -> PlateRecord | None:
        """Bring the tables of a plate that was finished before into the folders, and return its record.

        Returns:
            The record; None where no such plate was kept whole.

        Raises:
            TransientError: The storage is away.
        """
        ...

    def keep(self, record: PlateRecord, folders: PlateFolders) -> PlateRecord:
        """Keep a plate that was just finished; its store is no longer in the folders afterwards.

        Returns:
            The record with the reference to its store.

        Raises:
            TransientError: The storage is away; the plate is finished on the next attempt.
        """
        ...

    def holds(self, reference: StoreReference) -> bool:
        """Return whether a plate store is where a reference says."""
        ...
