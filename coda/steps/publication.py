"""Prediction tables in the platform bucket: published once, never changed, replaced only by a person with a reason.

```
predictions/<source>/<batch>/<release_id>/<folder>/...                 tables, in a folder named by their digest
predictions/<source>/<batch>/<release_id>/publications/000001.json     what was published, by whom, made with what
```

The list is append-only, like the release log: an entry is created on the condition that nobody has created it yet.
Files come before the entry that names them, and their folder is named by their content; so writers at the same moment
never mix, and one that is killed has published nothing. Tables from before the list (decision 0015) lie in the
release's own folder; they are found and kept like an entry of no number.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coda.contracts import ReleaseRecord
from coda.contracts.base import digest_of_json
from coda.contracts.publication import Publication
from coda.errors import ConfigError, IntegrityError, Problem, TransientError
from coda.settings import Settings
from coda.steps.code import code_digest
from coda.steps.record import code_version
from coda.storage.objects import ObjectStore, store_for

ROOT, LIST, SUMMARY = "predictions", "publications", "predictions.json"
ATTEMPTS = 20
"""Times a writer looks again when others publish at the same moment."""


@dataclass(frozen=True)
class Replacement:
    """A person's decision to put other tables in the place of published ones."""

    by: str
    reason: str


@dataclass(frozen=True)
class Published:
    """Tables that were published.

    Attributes:
        prefix: Where they are in the bucket, without a slash at the end.
        files: SHA-256 of each by its name.
        entry: What the list says of them; None for tables from before it.
    """

    prefix: str
    files: Mapping[str, str]
    entry: Publication | None = None

    @property
    def called(self) -> str:
        """What they are called in messages."""
        return f"{self.prefix} (publication {self.entry.sequence})" if self.entry else self.prefix

    def read(self, store: ObjectStore, name: str) -> bytes:
        """Return a file of them, verified.

        Raises:
            IntegrityError: It is not the one that was published.
        """
        content = store.get(f"{self.prefix}/{name}")
        found = hashlib.sha256(content).hexdigest()
        if found != self.files.get(name):
            remedy = "Do not use it; find out who changed the bucket, and restore the object."
            problem = Problem(
                store.url(f"{self.prefix}/{name}"), f"SHA-256 {found}", f"SHA-256 {self.files.get(name)}", remedy
            )
            raise IntegrityError("A published table is not the one that was published.", [problem])
        return content


@dataclass(frozen=True)
class Draft:
    """Finished tables on this machine, and what they are.

    Attributes:
        folder: Folder with the files, ``predictions.json`` among them.
        files: SHA-256 of each by its name.
        batch: Name of the batch: ``source/batch``.
        manifest_digest: Its version.
        record: The release that predicts.
        served_as: Recorded parameters that they were made with.
        run_id: Pipeline run that publishes; empty for a person.
        by: Who publishes.
    """

    folder: Path
    files: Mapping[str, str]
    batch: str
    manifest_digest: str
    record: ReleaseRecord
    served_as: Mapping[str, Any]
    run_id: str
    by: str


def base_of(batch: str, release_id: str) -> str:
    """Return where everything that was ever published about a batch with a release lies."""
    return f"{ROOT}/{batch}/{release_id}"


def publications(store: ObjectStore, batch: str, release_id: str) -> list[Published]:
    """Return everything that was ever published about a batch (``source/batch``) with a release, the oldest first.

    Raises:
        IntegrityError: An entry of the list is missing in the middle, or is not what its name says.
    """
    base = base_of(batch, release_id)
    before = _before_the_list(store, base)
    found = [before] if before is not None else []
    for place, item in enumerate(store.list(f"{base}/{LIST}/"), start=1):
        entry = Publication.parse(store.get(item.key), store.url(item.key))
        if entry.sequence != place or (f"{entry.source}/{entry.batch}", entry.release_id) != (batch, release_id):
            seen = f"publication {entry.sequence} of {entry.source}/{entry.batch} with {entry.release_id}"
            remedy = "An entry was deleted or changed. Restore the bucket's own version of it."
            problem = Problem(store.url(item.key), seen, f"publication {place} of {batch} with {release_id}", remedy)
            raise IntegrityError("The list of publications is not whole.", [problem])
        found.append(Published(f"{base}/{entry.folder}", entry.files, entry))
    return found


def current(store: ObjectStore, batch: str, release_id: str, manifest_digest: str | None = None) -> Published | None:
    """Return what is published about a batch with a release now; None where nothing is.

    Args:
        store: The platform bucket.
        batch: Name of the batch: ``source/batch``.
        release_id: The release.
        manifest_digest: Only this version of the batch; the newest of any when none. Tables from before the list do
            not tell theirs and stand for any.
    """
    every = publications(store, batch, release_id)
    wanted = [
        item for item in every if manifest_digest is None or item.entry is None
        or item.entry.manifest_digest == manifest_digest
    ]  # fmt: skip
    return wanted[-1] if wanted else None


def publish(draft: Draft, settings: Settings, *, replacement: Replacement | None = None) -> Published:
    """Publish tables: a no-op where the same bytes are published, refused where others are and nobody replaces them.

    Args:
        draft: The tables.
        settings: Where the platform bucket is.
        replacement: Who puts them in the place of other bytes, and why.

    Returns:
        What is published now.

    Raises:
        ConfigError: Other bytes are published about this version of the batch with this release.
        TransientError: The object store does not answer; repeating the call is safe.
    """
    store = store_for(settings.platform, settings)
    base = base_of(draft.batch, draft.record.release_id)
    sent = False
    for _ in range(ATTEMPTS):
        every = publications(store, draft.batch, draft.record.release_id)
        before = current(store, draft.batch, draft.record.release_id, draft.manifest_digest)
        if before is not None and _tables(before.files) == _tables(draft.files):
            return before
        if before is not None and replacement is None:
            raise _refused(store, before, draft)
        entry = _entry(draft, settings, len([item for item in every if item.entry]) + 1, before, replacement)
        if not sent:
            store.upload_folder(draft.folder, f"{base}/{entry.folder}", last=(SUMMARY,))
            sent = True
        if store.put_if_absent(f"{base}/{LIST}/{entry.sequence:06d}.json", entry.to_json().encode()):
            return Published(f"{base}/{entry.folder}", entry.files, entry)
    raise TransientError(f"Others kept publishing below {store.url(base)} at the same moment; call again.")


def _entry(
    draft: Draft, settings: Settings, sequence: int, before: Published | None, replacement: Replacement | None
) -> Publication:
    source, _, name = draft.batch.partition("/")
    record = draft.record
    replaces = before.entry.sequence if before is not None and before.entry is not None else None
    return Publication(
        sequence=sequence,
        source=source,
        batch=name,
        manifest_digest=draft.manifest_digest,
        release_id=record.release_id,
        folder=digest_of_json(dict(draft.files))[:32],
        files=dict(draft.files),
        extractor=record.extractor,
        head=record.head,
        params_digest=record.params_digest,
        served_as=dict(draft.served_as),
        served_as_digest=digest_of_json(dict(draft.served_as)),
        code_version=code_version(),
        code_digest=code_digest(),
        image=settings.image,
        run_id=draft.run_id,
        by=replacement.by if replacement is not None and before is not None else draft.by,
        replaces=replaces,
        reason=replacement.reason if replacement is not None and before is not None else "",
        at=datetime.now(UTC),
    )


def _refused(store: ObjectStore, before: Published, draft: Draft) -> ConfigError:
    mine, theirs = _tables(draft.files), _tables(before.files)
    names = ", ".join(sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)))
    made = ""
    if before.entry is not None:
        made = f", published by {before.entry.by} with code {before.entry.code_version}"
    remedy = (
        "Find out what differs: code, library or machine. To put these in their place, which keeps the earlier ones: "
        f"coda predict {draft.batch} --release {draft.record.release_id} --replace-because '<why>'."
    )
    problem = Problem(
        store.url(before.prefix), f"other bytes now in {names}", f"the tables that are published there{made}", remedy
    )
    return ConfigError("Published predictions are not changed; nothing was published.", [problem])


def _tables(files: Mapping[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if name != SUMMARY}


def _before_the_list(store: ObjectStore, base: str) -> Published | None:
    """Return the tables that lie in the release's own folder, as they were published before the list."""
    content = store.find(f"{base}/{SUMMARY}")
    if content is None:
        return None
    try:
        # the first versions of the list named no digests: then nothing can be held against it
        files = {str(name): str(digest) for name, digest in json.loads(content).get("files", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = "Find out who changed it; restore the object."
        problem = Problem(store.url(f"{base}/{SUMMARY}"), str(error)[:200], "the list of the tables beside it", remedy)
        raise IntegrityError("Published tables cannot be read.", [problem]) from error
    return Published(base, files)
