"""The platform that faults happen to, and the figures they leave."""

import os
import tempfile
from pathlib import Path

import pytest

from tests.faults.standing import standing
from tests.faults.tally import Tally

SEED = int(os.environ.get("CODA_FAULTS_SEED", "0"))
TALLY = Tally(SEED)


def pytest_report_header():
    return f"seed of the faults: {SEED} (CODA_FAULTS_SEED)"


@pytest.fixture(scope="session")
def tally():
    return TALLY


@pytest.fixture(scope="session")
def platform(tmp_path_factory, root):
    """A trained platform, with temporary files of its own."""
    folder = tmp_path_factory.mktemp("faults")
    before = os.environ.get("TMPDIR"), tempfile.tempdir
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
    Path(tempfile.tempdir).mkdir()
    try:
        with standing(folder, root, SEED) as found:
            yield found
    finally:
        tempfile.tempdir = before[1]
        os.environ.pop("TMPDIR") if before[0] is None else os.environ.update(TMPDIR=before[0])


def pytest_terminal_summary(terminalreporter, config):
    """Print the table, and keep the summary, when faults were injected."""
    if not TALLY.rows:
        return
    path = TALLY.write(config.rootpath)
    terminalreporter.write_line("")
    terminalreporter.write_line(TALLY.table())
    terminalreporter.write_line(f"{TALLY.summary()}")
    terminalreporter.write_line(f"Summary: {path.relative_to(config.rootpath)}")
