"""``make soak``: many small batches through the trigger with faults; prints figures and writes a summary.

BATCHES, SOURCES, SEED and DELIVER_S in the environment give the size. Exit code 1 when anything was lost, doubled or
left without an owner.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.soak.figures import summary_of, table_of
from tests.soak.soak import Size, soak

OUT = Path("runs/soak/summary.json")


def main() -> int:
    """Soak, tell, and return the exit code."""
    default = Size()
    size = Size(
        int(os.environ.get("BATCHES") or default.batches), int(os.environ.get("SOURCES") or default.sources),
        int(os.environ.get("SEED") or default.seed), float(os.environ.get("DELIVER_S") or default.deliver_s),
    )  # fmt: skip
    OUT.parent.mkdir(parents=True, exist_ok=True)
    # not below runs/: the path of a socket must be short
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"All files of this soak are below {folder} until it ends well.", flush=True)
    outcome = soak(folder, size, lambda line: print(line, flush=True))
    OUT.write_text(json.dumps(summary_of(outcome), indent=2) + "\n", encoding="utf-8")
    print(table_of(outcome))
    if not outcome.findings.clean:
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
