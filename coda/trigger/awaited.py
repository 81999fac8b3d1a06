"""Files that a batch waits for: asked for one by one, so that a recheck costs what is missing and not what is there."""

from dataclasses import dataclass

from coda.contracts import BatchManifest
from coda.contracts.manifest import MANIFEST_NAME, FileEntry
from coda.errors import CodaError
from coda.plates.split_files import table_paths
from coda.settings import Settings
from coda.storage.named_places import images_tree
from coda.storage.objects import ObjectStore
from coda.trigger.batch_versions import BatchVersion, Missing

REMEMBERED = 100
"""Missing files of one batch that are remembered; once they have come, all files are looked for again."""


@dataclass
class Awaited:
    """What one version of a batch waits for.

    Attributes:
        etag: Entity tag of its manifest.
        images_at: Where its images lie, when not beside the manifest.
        files: Some of the missing files, with whether each lies beside the manifest. While one of them is missing, the
            batch is not complete. The last of the manifest stands at the end and is asked for first: producers send in
            the order of the manifest, so it alone is asked for until nearly everything is there.
    """

    etag: str
    images_at: str | None
    files: list[tuple[FileEntry, bool]]

    def complete(self, landing: ObjectStore, version: BatchVersion, settings: Settings) -> bool:
        """Return whether all of the remembered files have come; one that came is not asked for again.

        Raises:
            TransientError: The landing prefix is away. Another place that is away holds up this batch alone.
        """
        folder = version.key.removesuffix(MANIFEST_NAME)
        while self.files:
            file, beside = self.files[-1]
            if beside or self.images_at is None:
                size = landing.size(f"{folder}{file.path}")
            else:
                try:
                    size = images_tree(self.images_at, settings).size(file.path)
                except CodaError:
                    return False
            if size != file.size_bytes:
                return False
            self.files.pop()
        return True


def awaited_of(missing: Missing, manifest: BatchManifest, etag: str) -> Awaited | None:
    """Return what to ask for until a batch is complete; None when all its files must be looked for each time."""
    # a name that may be stored in another Unicode normal form is not found by asking for it
    plain = [file for file in missing.files if file.path.isascii()]
    if not plain or not etag:
        return None
    step = -(-len(plain) // REMEMBERED)
    tables = table_paths(manifest)
    spread = plain[::-1][::step][::-1]
    return Awaited(etag, manifest.images_at, [(file, file.path in tables) for file in spread])
