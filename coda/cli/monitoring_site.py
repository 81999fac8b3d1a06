"""`coda monitoring site`: the pages about batches, drift, controls and models, into the platform bucket or a folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from coda.storage.objects import ObjectStore


def site(
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the pages, in place of the bucket.")] = None,
    *,
    reports: Annotated[bool, typer.Option("--reports", help="With --out: also the reports that they link to.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Build all pages, also those that did not change.")] = False,
) -> None:
    """Build the pages that changed; `coda trigger serve` does it by itself and shows them at /."""
    from coda.monitoring import history
    from coda.monitoring.frames import batches_of
    from coda.monitoring.site import build_site
    from coda.settings import read_settings
    from coda.storage.objects import store_for
    from coda.trigger.site import now

    settings = read_settings()
    store = store_for(settings.platform, settings)

    def put(key: str, body: bytes) -> None:
        if out is not None:
            path = out / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)

    written = build_site(store, now(settings), None if out is None else put, everything=everything or out is not None)
    if out is not None and reports:
        for page in batches_of(history(settings))["page"]:
            for key in (page, *_pictures(store, page)) if page else ():
                body = store.find(key)
                if body is not None:
                    put(key, body)
    place = out / "site" / "index.html" if out is not None else store.url("site/index.html")
    typer.echo(f"wrote {len(written)} file(s); open {place}")


def _pictures(store: "ObjectStore", page: str) -> list[str]:
    """Return the keys of the pictures beside a report."""
    return [item.key for item in store.list(f"{page.rpartition('/')[0]}/") if item.key.endswith(".png")]
