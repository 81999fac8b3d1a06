"""What `coda manifest check` prints."""

from dataclasses import asdict

import typer

from coda.cli.rows import Column, print_rows
from coda.plates.manifests.check import Checked

MOST_ROWS = 200
"""Rows that are printed; the rest are counted."""

FINDINGS = (
    Column("what", lambda item: item.kind),
    Column("files", lambda item: str(item.count), right=True),
    Column("plate", lambda item: item.plate),
    Column("path", lambda item: item.path, yields=1, least=20, middle=True),
    Column("found", lambda item: item.found, yields=2),
    Column("expected", lambda item: item.expected, yields=3),
)


def findings_json(manifest: str, found: Checked) -> dict[str, object]:
    """Return what a check found, for programs: JSON values."""
    kinds = sorted({item.kind for item in found.findings})
    return {
        "manifest": manifest,
        "files": found.files,
        "size_bytes": found.size_bytes,
        "files_read": found.read,
        "wrong": found.wrong,
        "counts": {kind: found.count(kind) for kind in kinds},
        "findings": [asdict(item) for item in found.findings],
    }


def print_findings(manifest: str, found: Checked, *, wide: bool) -> None:
    """Print what a check found, one line a finding."""
    read = f"; {found.read} of them read" if found.read else ""
    typer.echo(f"{manifest}: {found.files} files, {found.size_bytes / 1e9:.2f} GB{read}.")
    if not found.findings:
        typer.echo("Everything is there as the manifest says, and nothing else.")
        return
    typer.echo(f"{found.wrong} wrong, {found.count('extra')} extra:")
    print_rows(found.findings[:MOST_ROWS], FINDINGS, wide=wide)
    if len(found.findings) > MOST_ROWS:
        typer.echo(f"... and {len(found.findings) - MOST_ROWS} more (--json prints all).")
