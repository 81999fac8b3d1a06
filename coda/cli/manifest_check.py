"""What `coda manifest check` prints."""

from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coda.plates.manifests.check import Checked

MOST_ROWS = 200
"""Rows that are printed; the rest are counted."""


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


def print_findings(manifest: str, found: Checked) -> None:
    """Print what a check found, as one table."""
    console = Console(highlight=False)
    read = f"; {found.read} of them read" if found.read else ""
    console.print(
        f"{manifest}: {found.files} files, {found.size_bytes / 1e9:.2f} GB{read}.", soft_wrap=True, markup=False
    )
    if not found.findings:
        console.print("Everything is there as the manifest says, and nothing else.")
        return
    table = Table(title=f"{found.wrong} wrong, {found.count('extra')} extra", title_justify="left")
    for name in ("what", "files", "plate", "path", "found", "expected"):
        table.add_column(name, overflow="fold")
    for item in found.findings[:MOST_ROWS]:
        table.add_row(*map(Text, (item.kind, str(item.count), item.plate, item.path, item.found, item.expected)))
    console.print(table)
    if len(found.findings) > MOST_ROWS:
        console.print(f"... and {len(found.findings) - MOST_ROWS} more (--json prints all).")
