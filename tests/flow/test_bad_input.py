"""Bad deliveries and bad days, as they arrive: each ends in words, and nothing of it is lost or half-registered.

docs/bad_input.md has one row for each case here.
"""

import json
import os
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from coda.cli.ledger import app as ledger_app
from coda.cli.trigger import app as trigger_app
from coda.contracts import QualityReport
from coda.errors import ConfigError, ContractError
from coda.local.offline import offline_settings
from coda.monitoring.report import write_report
from coda.registry.releases import ReleaseLog
from coda.registry.versions import list_versions
from coda.runners.port import run_pipeline
from coda.simulation.delivery import simulate_batch
from coda.simulation.design import plan_experiment
from coda.steps.adapt import adapt
from coda.steps.ingest import ingest
from coda.steps.judge import judge
from coda.steps.record import read_run
from coda.steps.validate import validate
from coda.storage.data_registry import list_batches
from coda.storage.objects import store_for
from coda.trigger.ledger import Ledger
from coda.trigger.service import Pace, Trigger
from coda.trigger.submit import LocalSubmitter
from tests.flow.breakage import (
    cut,
    edit_table,
    flip_a_byte,
    give,
    images_of,
    manifest_of,
    rename,
    scribble,
    write_manifest,
)
from tests.flow.loop import DESIGN, smoke_params

pytestmark = pytest.mark.timeout(600)

PACE = Pace(lease_s=5.0, backoff_s=0.5, tick_s=0.2)
SECRETS_OF_PYTHON = ("Traceback", "object at 0x", "b'\\x", "NoneType", "Errno", "Input should be", "\\x")
"""What no message for a biologist or an operator may hold."""


# --------------------------------------------------------------------------------- one plate, judged by the two steps


@pytest.fixture(scope="module")
def params(root):
    return smoke_params(root)


@pytest.fixture
def judged(params, tmp_path):
    """Deliver one plate, spoil it, ingest and validate it, and return the two reports."""

    def run(spoil, plates=1):
        names = [f"p{number}" for number in range(1, plates + 1)]
        simulate_batch(plan_experiment(3, DESIGN), "lab_b", "b1", names, tmp_path / "in", workers=1)
        folder = tmp_path / "in" / "lab_b" / "b1"
        spoil(folder)
        settings = offline_settings(tmp_path)
        (read,) = ingest([str(folder / "manifest.json")], tmp_path / "dataset", params=params, settings=settings)
        (verdict,) = validate(tmp_path / "dataset", params=params, settings=settings)
        assert_readable(read.to_json() + verdict.to_json())
        return read, verdict

    return run


def assert_readable(text):
    found = [words for words in SECRETS_OF_PYTHON if words in text]
    assert not found, (found, text)


def without_controls(rows):
    for row in rows:
        if row["Metadata_pert_type"] == "negcon":
            row["Metadata_pert_type"] = "trt"


def a_row_down(rows):
    for row in rows:
        row["Metadata_Well"] = f"{chr(ord(row['Metadata_Well'][0]) + 1)}{row['Metadata_Well'][1:]}"
    return [row for row in rows if row["Metadata_Well"][0] <= "D"]


def filled_rows_alone(rows):
    return [row for row in rows if row["Metadata_Well"] not in ("B02", "B03")]


REFUSED = {
    "unreadable TIFFs": (
        lambda folder: scribble(folder, *images_of(folder)[:40:15]),
        ("Only 13 of 16 expected fields can be read", "neither TIFF nor PNG", "Upload the missing or damaged files"),
    ),
    "truncated uploads": (
        lambda folder: [cut(folder, path) for path in images_of(folder)[:40:15]],
        ("Only 13 of 16 expected fields can be read", "bytes where the manifest says", "broken or repeated upload"),
    ),
    "missing images": (
        lambda folder: [(folder / path).unlink() for path in images_of(folder)[:40:15]],
        ("Only 13 of 16 expected fields can be read", "is in the manifest but was not delivered"),
    ),
    "a missing table": (
        lambda folder: (folder / manifest_of(folder)["plates"][0]["load_data"]).unlink(),
        ("a table that is in the manifest but was not delivered", "Deliver it again"),
    ),
    "other digests": (
        lambda folder: flip_a_byte(folder, *images_of(folder)[:40:15]),
        ("Only 13 of 16 expected fields can be read", "was changed since the manifest was written"),
    ),
    "an unknown stain in load_data": (
        lambda folder: edit_table(
            folder, "load_data", rename(FileName_OrigAGP="FileName_OrigActin", PathName_OrigAGP="PathName_OrigActin")
        ),
        ("unknown stain 'Actin'", "stains among DNA, ER, RNA, AGP, Mito", "Rename the column to the stain it holds"),
    ),
    "a stain that was not imaged": (
        lambda folder: write_manifest(folder, {**manifest_of(folder), "channels": ["DNA", "ER", "RNA", "Mito"]}),
        ("the stains DNA, ER, RNA, Mito", "missing: AGP", "Image these stains"),
    ),
    "the plate map of another plate": (
        lambda folder: edit_table(folder, "plate_map", give("Metadata_Plate", "p9")),
        ("the plate map of 'p9'; expected that of plate 'p1'", "Deliver the plate map of this plate"),
    ),
    "a plate map that lacks imaged wells": (
        lambda folder: edit_table(folder, "plate_map", filled_rows_alone),
        ("fields of 2 wells that the plate map lacks (B02, B03)", "Deliver the plate map of this plate, complete"),
    ),
    "a plate map shifted by a row": (
        lambda folder: edit_table(folder, "plate_map", a_row_down),
        ("pictures of 4 wells that the plate map calls empty (B02", "none of 4 wells that it fills (D02", "shifted"),
    ),
    "a plate map of a larger plate": (
        lambda folder: edit_table(
            folder, "plate_map", give("Metadata_Well", lambda row: row["Metadata_Well"].replace("A", "P"))
        ),
        ("well 'P01'", "a well of a 24-well plate"),
    ),
    "no controls": (
        lambda folder: edit_table(folder, "plate_map", without_controls),
        ("0 negative-control wells", "Mark the DMSO wells as negcon in the plate map"),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_plate_is_refused_with_what_is_wrong_and_what_to_do(judged, case):
    spoil, words = REFUSED[case]
    _, verdict = judged(spoil)
    assert verdict.verdict == "refused"
    assert verdict.sentence.startswith("Batch lab_b/b1 was refused: ")
    missing = [text for text in words if text not in verdict.sentence]
    assert not missing, verdict.sentence


SET_ASIDE = {
    "is neither TIFF nor PNG": lambda folder, path: scribble(folder, path),
    "bytes where the manifest says": lambda folder, path: cut(folder, path),
    "is in the manifest but was not delivered": lambda folder, path: (folder / path).unlink(),
    "was changed since the manifest was written": lambda folder, path: flip_a_byte(folder, path),
}


@pytest.mark.parametrize("reason", SET_ASIDE)
def test_a_single_bad_file_sets_its_field_aside_and_the_batch_goes_on(judged, reason):
    read, verdict = judged(lambda folder: SET_ASIDE[reason](folder, images_of(folder)[3]))
    assert verdict.verdict == "accepted_with_warnings"
    (aside,) = verdict.quarantined
    assert reason in aside.reason
    assert (aside.well, aside.site, aside.channel) == ("B02", 1, "AGP")
    assert (read.fields_accepted, read.fields_expected) == (15, 16)
    (check,) = [check for check in verdict.checks if check.name == "plates_are_complete"]
    assert "15 of 16 fields" in check.observed


def test_a_bad_plate_beside_a_good_one_is_refused_alone(judged):
    _, verdict = judged(lambda folder: edit_table(folder, "plate_map", without_controls), plates=2)
    assert verdict.verdict == "accepted_with_warnings"
    assert (verdict.plates_accepted, verdict.plates_refused) == (("p2",), ("p1",))
    assert "1 of 2 plates can be used. Plate p1: 0 negative-control wells" in verdict.sentence


def test_a_batch_of_one_plate_is_accepted_with_the_consequence_told(judged):
    _, verdict = judged(lambda folder: None)
    assert verdict.verdict == "accepted_with_warnings"
    checks = {check.name: check for check in verdict.checks if not check.passed}
    assert checks["there_is_more_than_one_plate"].observed == "plates with usable fields: 1"
    assert "not with a second plate of this one" in checks["there_is_more_than_one_plate"].reason
    assert "5 of 5 treatments" in checks["treatments_can_be_paired"].observed


# ------------------------------------------------------------------------------------------ treatments without a partner


def rename_a_treatment(folder):
    """Give the batch a treatment that no other batch has; which of its own, then, the others have alone."""

    def edit(rows):
        for row in rows:
            if row["Metadata_Treatment"].startswith("CPD-2074"):
                row["Metadata_Treatment"] = "CPD-NEW_5uM"

    for plate in range(len(manifest_of(folder)["plates"])):
        edit_table(folder, "plate_map", edit, plate)


@pytest.fixture(scope="module")
def two_batches(loop, tmp_path_factory):
    """Two accepted batches of two plates; one treatment of each is in no other batch."""
    folder = tmp_path_factory.mktemp("two")
    datasets = {}
    for batch, spoil in (("n1", None), ("n2", rename_a_treatment)):
        names = [f"{batch}_p{number}" for number in (1, 2)]
        simulate_batch(plan_experiment(3, DESIGN), "lab_c", batch, names, folder / "in", workers=1)
        delivery = folder / "in" / "lab_c" / batch
        if spoil is not None:
            spoil(delivery)
        out = folder / batch
        ingest([str(delivery / "manifest.json")], out, params=loop.params, settings=loop.settings)
        datasets[batch] = out
    (report,) = validate(datasets["n2"], params=loop.params, settings=offline_settings(folder), history=datasets["n1"])
    return SimpleNamespace(folder=folder, new=datasets["n2"], old=datasets["n1"], report=report)


def test_a_treatment_in_one_batch_only_is_paired_with_another_plate_and_everybody_is_told(loop, two_batches):
    checks = {check.name: check for check in two_batches.report.checks if not check.passed}
    assert "1 of 5 treatments in no other batch of lab_c (CPD-NEW_5uM)" in (
        checks["treatments_are_in_another_batch"].observed
    )
    out, gate = two_batches.folder / "candidates", two_batches.folder / "gate.json"
    given = {"params": loop.params, "settings": loop.settings}
    tried = adapt(two_batches.new, two_batches.old, out, run_id="bad-alone", **given)
    assert "coda" in {candidate.name for candidate in tried}
    log = json.loads((out / "training.json").read_text())
    # 2 of the 5 treatments are in one batch; the controls do not count
    assert log["pairable_share"] == pytest.approx(3 / 5)
    assert log["pairs"] == "batch"
    assert log["pair_report"]["without_partner"] == ["CPD-2074_5uM", "CPD-NEW_5uM"]
    assert log["pair_report"]["fallbacks"]["plate"] > 0
    report = judge(two_batches.new, out, gate, **given)
    told = (
        "How the adapted model learned: CODA, pairs across batches: 60% of the treated fields have a partner (the same "
        "treatment) in another batch (at least 50% are needed).",
        "2 treatments are in one batch only (CPD-2074_5uM, CPD-NEW_5uM): their images were paired with an image of "
        f"another plate of that batch ({log['pair_report']['fallbacks']['plate']} fields).",
    )
    assert report.advice[:2] == told
    page = write_report(
        two_batches.new, two_batches.folder / "report.html", params=loop.params, run_id="bad-alone", candidates=out,
        gate=gate,
    ).path.read_text(encoding="utf-8")  # fmt: skip
    for sentence in told:
        assert sentence in page


# -------------------------------------------------------------------------------------------------- through the trigger


def trigger_of(loop, work=None, **changes):
    submitter = LocalSubmitter(loop.settings, work or loop.folder / "work")
    return Trigger(
        loop.settings, submitter, params=loop.params, ignore_sources=("lab_a",), pace=replace(PACE, **changes)
    )


def entry_of(loop, name):
    (entry,) = Ledger(store_for(loop.settings.platform, loop.settings)).entries(name)
    return entry


def registered(loop, source):
    """All that a batch could leave in a registry."""
    return (
        list_versions(loop.settings),
        ReleaseLog(loop.settings).history(source),
        [(item.batch, item.revision) for item in list_batches(source, settings=loop.settings)],
    )


def shown(loop, *arguments):
    """Return what `coda ledger` shows an operator."""
    with variables(loop.settings.environment | {"COLUMNS": "400"}):
        done = CliRunner().invoke(ledger_app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0
    assert_readable(done.output)
    return done.output


@contextmanager
def variables(values):
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def three_ways(folder):
    """Unreadable TIFFs on the first plate, another digest on the second, another plate's map on the third."""
    scribble(folder, *images_of(folder, 0)[:40:15])
    edit_table(folder, "plate_map", give("Metadata_Plate", "elsewhere"), 2)
    flip_a_byte(folder, *images_of(folder, 1)[:40:15])


def test_a_bad_batch_is_refused_with_every_reason_and_registers_nothing(loop):
    before = registered(loop, "lab_b")
    loop.deliver("lab_b", "bad1", plates=3, change=three_ways)
    (handled,) = trigger_of(loop).run_once()
    assert handled.state == "refused"
    (sentence,) = handled.reasons
    for words in (
        "Batch lab_b/bad1 was refused: 3 of 3 plates cannot be used.", "neither TIFF nor PNG",
        "was changed since the manifest was written", "the plate map of 'elsewhere'", "What to do: ",
    ):  # fmt: skip
        assert words in sentence, sentence
    assert registered(loop, "lab_b") == before
    entry = entry_of(loop, "lab_b/bad1")
    assert [state.state for state in entry.states] == ["landed", "claimed", "running", "refused"]
    assert sentence in shown(loop, "show", "lab_b/bad1")
    run = read_run(handled.run_id, loop.settings)
    assert (run.outcome, run.data, run.models, run.release_id) == ("refused", (), (), None)
    platform = store_for(loop.settings.platform, loop.settings)
    quality = QualityReport.parse(platform.get(f"runs/{handled.run_id}/quality.json"), "quality.json")
    assert len(quality.quarantined) == 6
    (page,) = [item.key for item in platform.list("reports/lab_b/bad1/") if item.key.endswith("report.html")]
    html = platform.get(page).decode()
    assert "Not usable" in html
    assert_readable(html)
    assert not list(platform.list("predictions/lab_b/bad1/"))
    # the same delivery again, and the same event again: nothing more happens
    loop.deliver("lab_b", "bad1", plates=3, change=three_ways)
    assert trigger_of(loop).run_once() == []
    assert entry_of(loop, "lab_b/bad1") == entry


def call_agp_actin(folder):
    manifest = manifest_of(folder)
    manifest["channels"] = ["Actin" if stain == "AGP" else stain for stain in manifest["channels"]]
    write_manifest(folder, manifest)


def test_an_unknown_stain_in_the_manifest_is_refused_as_it_arrives_and_is_no_crash(loop):
    before = registered(loop, "lab_b")
    uri = loop.deliver("lab_b", "bad2", plates=1, change=call_agp_actin)
    trigger = trigger_of(loop)
    (handled,) = trigger.run_once()
    assert handled.state == "refused"
    words = "channels.3: found \"Actin\"; expected 'DNA', 'ER', 'RNA', 'AGP' or 'Mito'"
    assert words in " ".join(handled.reasons)
    assert [state.state for state in entry_of(loop, "lab_b/bad2").states] == ["refused"]
    assert words in shown(loop, "show", "lab_b/bad2")
    assert not (loop.folder / "work" / handled.run_id).exists()
    assert trigger.metrics.registry.get_sample_value("coda_trigger_dead_letters") == 0
    # a person who runs the pipeline by hand is told the same, with the exit code for the producer
    with pytest.raises(ContractError) as caught:
        loop.adapt(uri, "bad-2")
    assert words in str(caught.value)
    assert_readable(str(caught.value))
    assert read_run("bad-2", loop.settings) is None
    assert registered(loop, "lab_b") == before


def test_an_empty_bucket_starts_nothing_and_a_missing_one_is_for_the_operator(loop, root, tmp_path):
    empty = loop.settings.model_copy(update={"landing": f"{loop.settings.landing}/nobody", "queue_url": None})
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(loop.params.model_dump(mode="json")))
    with variables({**empty.environment, "CODA_QUEUE_URL": ""}):
        done = CliRunner().invoke(trigger_app, ["once", "--params", str(params)], catch_exceptions=False)
    assert (done.exit_code, done.output.strip()) == (0, "Nothing new.")
    missing = loop.settings.model_copy(update={"landing": "s3://no-such-bucket", "queue_url": None})
    trigger = Trigger(missing, LocalSubmitter(missing, tmp_path), params=loop.params)
    with pytest.raises(ConfigError) as caught:
        trigger.run_once()
    assert "s3://no-such-bucket" in str(caught.value)
    assert "Create the bucket, or correct its name" in str(caught.value)
    with pytest.raises(ConfigError, match="manifest_uris: found \\[\\]; expected a list that is not empty"):
        run_pipeline(
            "training", {"run_id": "bad-none", "manifest_uris": [], "labels": "x", "params": loop.params},
            runner="local", settings=loop.settings, work=tmp_path,
        )  # fmt: skip
