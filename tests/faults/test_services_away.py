"""A full disk, and MLflow away."""

import getpass
import os
import subprocess
from contextlib import contextmanager

import pytest

from coda.local.services import free_port
from coda.storage.objects import store_for
from coda.trigger.interventions import retry
from coda.trigger.ledger import Ledger
from tests.faults.deaths import Deaths, deaths_of
from tests.faults.processes import ChainSubmitter
from tests.faults.verdict import assert_whole

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

SIZES_KIB = (64, 256, 1024, 1600, 2200, 3000, 64_000)
"""Sizes of the disk, one after the other; the last one is enough."""


@contextmanager
def small_disk(folder):
    """A disk of a few KiB that can be made larger; only root may mount one."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZES_KIB[0]}k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk can only be mounted by root, with the right to mount")
    try:
        yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}k", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(platform, tally):
    source, work = platform.new_source("full-disk"), platform.work("full-disk")
    platform.deliver(source)
    ledger = Ledger(store_for(platform.settings.platform, platform.settings))
    full = 0
    with small_disk(work) as resize:
        trigger = platform.trigger(platform.submitter(work), attempts=3)
        for size in SIZES_KIB:
            resize(size)
            (entry,) = platform.settle(trigger, source)
            if entry.last.state != "failed":
                break
            full += 1
            assert "space" in " ".join(entry.last.reasons), entry.last.reasons
            assert retry(ledger, entry.last, getpass.getuser()) is not None
        outcome = assert_whole(platform, tally, source, found=("temporary_folder",))
    assert full >= 2
    tally.add("disk full, enlarged, opened again by a person", full, outcome)


class WithoutMlflow(ChainSubmitter):
    """Where every other run of a batch finds nobody at MLflow's address."""

    away = 0

    def start(self, task):
        known = self.settings
        (task.work / task.run_id).mkdir(parents=True, exist_ok=True)
        asked = task.work / task.run_id / "asked"
        if not asked.exists():
            asked.touch()
            self.away += 1
            self.settings = known.model_copy(update={"mlflow_uri": f"http://127.0.0.1:{free_port()}"})
            os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        else:
            asked.unlink()
        try:
            return super().start(task)
        finally:
            self.settings = known
            os.environ.pop("MLFLOW_HTTP_REQUEST_MAX_RETRIES", None)


def test_mlflow_away(platform, tally):
    source, work = platform.new_source("no-mlflow"), platform.work("no-mlflow")
    platform.deliver(source)
    # a death at the beginning of each step that needs MLflow has it start in a run that finds nobody there
    deaths = Deaths(platform.seed, steps=("register_adaptation", "release", "predict"), most=1)
    submitter = WithoutMlflow(platform.settings, work, platform.context, {}, deaths)
    platform.settle(platform.trigger(submitter), source)
    outcome = assert_whole(platform, tally, source, found=("temporary_folder",))
    assert submitter.away >= 2
    assert deaths_of(work)
    tally.add("MLflow away while a run starts or goes on", submitter.away, outcome)
