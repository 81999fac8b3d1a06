"""Bad deliveries as they arrive, through the trigger: each ends in words, and nothing of it is half-registered.

docs/bad_input.md has one row for each case here.
"""

import json
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from coda.cli.trigger import app as trigger_app
from coda.contracts import QualityReport
from coda.errors import ConfigError, ContractError
from coda.local.offline import offline_settings
from coda.monitoring.report import write_report
from coda.runners.port import run_pipeline
from coda.runners.submit import LocalSubmitter
from coda.simulation.delivery import simulate_batch
from coda.simulation.design import plan_experiment
from coda.steps.adapt import adapt
from coda.steps.ingest import ingest
from coda.steps.judge import judge
from coda.steps.record import read_run
from coda.steps.validate import validate
from coda.storage.objects import store_for
from coda.trigger.service import Trigger
from tests.flow.breakage import edit_table, flip_a_byte, give, images_of, manifest_of, scribble, write_manifest
from tests.flow.loop import DESIGN
from tests.flow.watching import assert_readable, entry_of, registered, shown, trigger_of, variables

pytestmark = pytest.mark.timeout(600)


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
    manifest["channels"] = ["Actin 2" if stain == "AGP" else stain for stain in manifest["channels"]]
    write_manifest(folder, manifest)


def test_a_channel_without_a_valid_name_is_refused_as_it_arrives_and_is_no_crash(loop):
    before = registered(loop, "lab_b")
    uri = loop.deliver("lab_b", "bad2", plates=1, change=call_agp_actin)
    trigger = trigger_of(loop)
    (handled,) = trigger.run_once()
    assert handled.state == "refused"
    words = "channels.3: found \"Actin 2\"; expected a channel's name: letters, digits, '-' and '_'"
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
    # 4 treatments a batch, 3 of them in both; the controls do not count
    assert log["pairable_share"] == pytest.approx(6 / 8)
    assert log["pairs"] == "batch"
    assert log["pair_report"]["without_partner"] == ["CPD-2074_5uM", "CPD-NEW_5uM"]
    assert log["pair_report"]["fallbacks"]["plate"] > 0
    report = judge(two_batches.new, out, gate, **given)
    told = (
        "How the adapted model learned: CODA, pairs across batches: 75% of the treated fields have a partner (the same "
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
