"""Bad days: an upload cut short, an object store that goes away during a run, a disk that is full.

docs/bad_input.md has one row for each case here.
"""

import errno
import html
import re
import subprocess
import threading
import time
from types import SimpleNamespace

import pandas as pd
import pytest

from coda.contracts import GateReport, QualityReport
from coda.errors import ConfigError
from coda.plates.store import PlateStoreWriter
from coda.registry.releases import ReleaseLog
from coda.registry.versions import list_versions
from coda.simulation.delivery import simulate_batch
from coda.simulation.design import plan_experiment
from coda.steps.ingest import ingest
from coda.steps.record import read_run
from coda.storage.bulk import upload_folder
from coda.storage.data_registry import list_batches
from coda.storage.objects import store_for
from coda.trigger.server import TriggerService
from tests.flow.breakage import cut, edit_table, images_of, scribble, without_controls
from tests.flow.loop import DESIGN
from tests.flow.watching import entry_of, registered, shown, trigger_of

pytestmark = pytest.mark.timeout(600)


def until(question, what, patience_s=240.0):
    deadline = time.monotonic() + patience_s
    while not question():
        assert time.monotonic() < deadline, f"{what} did not happen within {patience_s:.0f} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def story(loop):
    """A batch of one plate with an unreadable TIFF: its upload is cut short, and while it runs the store is away."""
    whole = {}

    def spoil(folder):
        images = images_of(folder)
        scribble(folder, images[7])
        whole[images[30]] = cut(folder, images[30])

    before = registered(loop, "lab_c")
    loop.deliver("lab_c", "small", plates=1, change=spoil)
    trigger = trigger_of(loop)
    at_once = trigger.run_once()
    waiting = entry_of(loop, "lab_c/small")
    landing = store_for(loop.settings.landing, loop.settings)
    for path, body in whole.items():
        landing.put(f"lab_c/small/{path}", body)
    troubles, log = set(), loop.folder / "work" / waiting.last.run_id / "trigger.txt"
    service = TriggerService(trigger, poll_every_s=0.5)
    thread = threading.Thread(target=service.serve)

    def said(words):
        troubles.add(service.health.trouble)
        return log.is_file() and words in log.read_text()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coda.trigger.server.PAUSE_S", 0.5)
        thread.start()
        try:
            until(lambda: said("Versioning the data ..."), "the run")
            loop.services.stop_object_store()
            try:
                until(lambda: said("A service was away"), "the failure")
            finally:
                loop.services.start_object_store()
            until(lambda: entry_of(loop, "lab_c/small").last.final, "the end")
        finally:
            service.stop()
            thread.join(60)
    # the producer's tool sends the manifest once more, byte for byte: a second event
    key = "lab_c/small/manifest.json"
    landing.put(key, landing.get(key))
    again = trigger_of(loop).run_once()
    return SimpleNamespace(
        before=before, at_once=at_once, waiting=waiting, troubles=troubles, log=log.read_text(), again=again,
        entry=entry_of(loop, "lab_c/small"), run_id=waiting.last.run_id, thread=thread, trigger=trigger,
    )  # fmt: skip


def test_a_truncated_upload_waits_with_the_file_named_and_starts_when_it_is_whole(loop, story):
    assert story.at_once == []
    assert [state.state for state in story.waiting.states] == ["landed"]
    first, file = story.waiting.last.reasons
    assert first == "waits for 1 file(s)"
    assert "plate lab_c_small_p1: found 1 of 82 files with another size (images/" in file
    assert "has 31976 bytes instead of 32976" in file
    assert "Upload these files (again); the batch then starts by itself." in file
    assert [state.state for state in story.entry.states[:3]] == ["landed", "claimed", "running"]


def test_a_store_that_goes_away_during_a_run_costs_time_and_nothing_else(loop, story):
    assert not story.thread.is_alive()
    assert story.entry.last.state in ("released", "incumbent_kept"), story.entry.last
    assert story.log.count("A service was away (") == 1
    assert "trying again in 10 s" in story.log
    # finished steps were not repeated
    assert story.log.count("Reading the plates: done in") == 1
    assert any("cannot be reached" in words or "does not answer" in words for words in story.troubles)
    (batch,) = list_batches("lab_c", settings=loop.settings)
    run = read_run(story.run_id, loop.settings)
    assert [(item.batch, item.revision) for item in run.data] == [("small", batch.revision)]
    assert run.release_id == ReleaseLog(loop.settings).current("lab_c").release_id
    # one run registers at most one extractor, however often its steps were tried
    assert len(list_versions(loop.settings)) - len(story.before[0]) <= 1
    assert len(ReleaseLog(loop.settings).history("lab_c")) == 1


def test_an_unreadable_tiff_of_an_accepted_batch_gets_no_prediction_and_its_reason_is_kept(loop, story):
    platform = store_for(loop.settings.platform, loop.settings)
    quality = QualityReport.parse(platform.get(f"runs/{story.run_id}/quality.json"), "quality.json")
    assert (quality.verdict, quality.fields_accepted, quality.fields_expected) == ("accepted_with_warnings", 15, 16)
    (aside,) = quality.quarantined
    assert "is neither TIFF nor PNG" in aside.reason
    (key,) = [item.key for item in platform.list("predictions/lab_c/small/") if item.key.endswith("/field.parquet")]
    target = loop.folder / "field.parquet"
    platform.download(key, target)
    fields = pd.read_parquet(target)
    assert len(fields) == 15
    assert f"lab_c/small/{aside.plate}/{aside.well}/{aside.site}" not in set(fields["image_id"])


def test_a_batch_of_one_plate_falls_back_to_oda_and_says_so_everywhere(loop, story):
    platform = store_for(loop.settings.platform, loop.settings)
    gate = GateReport.parse(platform.get(f"runs/{story.run_id}/gate.json"), "gate.json")
    names = {candidate.name for candidate in gate.candidates}
    assert names == {"unadapted", "classical", "aligned", "oda", "oda+aligned"}
    told = (
        "How the adapted model learned: ODA, views of single images: only 0% of the treated fields have a partner (the "
        "same treatment) on another plate (at least 50% are needed)."
    )
    assert gate.advice[0] == told
    assert "no compound was seen on two batches or plates" in gate.sentence
    assert gate.sentence in shown(loop, "show", "lab_c/small")
    (page,) = [item.key for item in platform.list("reports/lab_c/small/") if item.key.endswith("report.html")]
    text = html.unescape(platform.get(page).decode())
    assert told in text
    assert gate.sentence in text


def test_a_second_identical_event_starts_nothing(loop, story):
    assert story.again == []
    assert entry_of(loop, "lab_c/small") == story.entry
    assert len([state for state in story.entry.states if state.final]) == 1


def test_a_full_disk_while_plates_are_written_is_for_the_operator_and_leaves_no_half(loop, tmp_path, monkeypatch):
    simulate_batch(plan_experiment(3, DESIGN), "lab_b", "b1", ["p1"], tmp_path / "in", workers=1)
    store = store_for(loop.settings.platform, loop.settings)  # where no trigger looks
    upload_folder(store, tmp_path / "in" / "lab_b" / "b1", "aside/lab_b/b1", last=("manifest.json",), workers=4)
    address, given = store.url("aside/lab_b/b1/manifest.json"), {"params": loop.params, "settings": loop.settings}
    put, room = PlateStoreWriter._put, [20]

    def until_full(writer, name, data):
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(writer.path))
        put(writer, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(PlateStoreWriter, "_put", until_full)
        with pytest.raises(ConfigError) as caught:
            ingest([address], tmp_path / "dataset", **given)
    assert "Ingest cannot write to" in str(caught.value)
    assert "found No space left on device" in str(caught.value)
    assert "Free space on this disk, or choose another output folder" in str(caught.value)
    assert not [path for path in (tmp_path / "dataset").rglob("*") if path.is_file()]
    (report,) = ingest([address], tmp_path / "dataset", **given)
    assert report.fields_accepted == 16


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 128 kB: less than a run needs."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount program here")
    if done.returncode != 0:
        pytest.skip(f"only root may mount a small disk: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_under_the_trigger_fails_in_words_and_goes_on_when_there_is_room(loop, small_disk):
    before = registered(loop, "lab_b")
    # a plate that is read whole, so that its store is written, and that validation then refuses at once
    loop.deliver("lab_b", "bad4", plates=1, change=lambda folder: edit_table(folder, "plate_map", without_controls))
    (handled,) = trigger_of(loop, small_disk).run_once()
    assert handled.state == "failed"
    words = " ".join(handled.reasons)
    # which step meets it first depends on the sizes; ingest's own words are held by the test above
    assert "No space left on device" in words
    assert re.search("Free (some space and repeat the step|space on this disk)", words)
    assert handled.reasons[-1] == "When this is put right: coda ledger retry lab_b/bad4"
    assert words.partition(":")[0] in shown(loop, "show", "lab_b/bad4")
    assert registered(loop, "lab_b") == before
    # the operator gives the runs another disk and asks for the batch again
    assert "is open again" in shown(loop, "retry", "lab_b/bad4")
    (handled,) = trigger_of(loop).run_once()
    assert handled.state == "refused"
    assert "0 negative-control wells" in handled.reasons[0]
    assert registered(loop, "lab_b") == before
