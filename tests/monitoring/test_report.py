import base64
import io
import re
import tracemalloc
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.image import imread
from report_inputs import (
    manifest,
    quality,
    release_record,
    write_batch,
    write_examples,
    write_metrics,
    write_run,
)

from coda.adaptation.abstain import withhold
from coda.contracts import STAINS, GateReport, QuarantinedField
from coda.contracts.channels import PRESET_COLOURS, PRESET_ROLES, tints_of
from coda.contracts.gate import Measure
from coda.errors import ContractError
from coda.evaluation.predictions.prediction_levels import well_features
from coda.monitoring.facts import samples
from coda.monitoring.report import gather, headline, write_report
from coda.monitoring.report.composites import composite, read_examples
from coda.monitoring.report.embeddings import draw_embeddings, principal_plane
from coda.monitoring.report.heatmaps import chosen_statistics, draw_heat_maps
from coda.plates.layout import well_name
from coda.plates.plate_pictures import plate_matrix

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Reads a page strictly: tags must close in order; collects what tests ask about."""

    def __init__(self, path):
        super().__init__()
        self.open, self.images, self.identifiers, self.links, self.headings, self.addresses = [], [], [], [], [], []
        self.words = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "action", "data")]
        if tag == "img":
            self.images.append(given)
        if "id" in given:
            self.identifiers.append(given["id"])
        if tag == "a":
            self.links.append(given["href"])
        if tag in ("h1", "h2", "h3"):
            self.headings.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(run, tmp_path_factory, demo_params):
    out = tmp_path_factory.mktemp("page") / "report.html"
    return write_report(run.dataset, out, params=demo_params, run_id="run-77", **run.arguments())


@pytest.fixture(scope="module")
def read(page):
    return Reader(page.path)


def test_the_page_is_one_file_that_fetches_nothing(page, read):
    html = page.path.read_text()
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in read.addresses)
    assert "default-src 'none'" in html
    assert not re.search(r"url\(|@import|<script|<link|<iframe", html)
    assert page.path.stat().st_size < 5e6


def test_every_picture_is_a_readable_png_with_words_for_it(read):
    # examples and stains by plate, heat maps, embedding, three pairs of what changed
    assert len(read.images) == 3 * (2 * 2 + 1) + 4 + 1 + 2 * 3
    for image in read.images:
        pixels = imread(io.BytesIO(base64.b64decode(image["src"].split(",", 1)[1])))
        assert pixels.shape[:2] == (int(image["height"]), int(image["width"]))
        assert np.ptp(pixels) > 0.5, f"nothing to see: {image['alt']}"
        assert len(image["alt"]) > 20


def test_the_page_is_put_together_well(read):
    assert len(set(read.identifiers)) == len(read.identifiers)
    assert {link[1:] for link in read.links} <= set(read.identifiers)
    assert read.headings[0] == "h1"
    assert read.headings.count("h1") == 1


def test_the_verdict_stands_first_in_one_sentence(page, read):
    start = read.text[:700]
    assert page.sentence in start
    assert "Usable, with remarks" in start
    assert page.sentence.count(".") == 1
    assert read.text.index(page.sentence) < read.text.index("What arrived", read.text.index("What to do"))


def test_everything_a_reader_needs_is_there(read, run):
    document = manifest()
    for word in (
        "Opera Phenix", "142 of 144", "Plate p3 is a little out of focus", "Check the autofocus offset",
        "was changed since the manifest was written", "coda+aligned", "+0.27", "one mechanism takes 82 %",
        "dna damage", "CPD-05", "negative controls of different batches", "run-77",
        document.digest(), release_record(document).release_id, "coda-extractor, version 4", "gate-v1",
        "Only 10 compounds were seen",
    ):  # fmt: skip
        assert word in read.text, word


def test_the_figures_of_each_plate_stand_in_a_table(read):
    row = re.search(r"p1 \(gray flag: late <fixation>\) (.*?) p2 ", read.text)
    assert row is not None
    assert row.group(1).split() == ["61.5", "-1.25", "-11.7", "0.67", "p50_AGP", "0.42", "0.09"]


def test_control_wells_are_not_counted_as_a_class(read):
    # 10 compounds on 5 classes: 60 treated wells of 3 plates, controls not among them
    rows = re.findall(r"\d (actin|dna damage|er stress|kinase|tubulin) (\d+) \d+%", read.text)
    assert sum(int(count) for _, count in rows) == 60


def test_a_refused_batch_has_a_page_with_reasons_and_without_predictions(tmp_path, demo_params):
    write_batch(tmp_path / "dataset", manifest(), verdict="refused")
    page = write_report(tmp_path / "dataset", tmp_path / "r.html", params=demo_params, run_id="r")
    read = Reader(page.path)
    assert "refused by quality control" in page.sentence
    assert "Not usable" in read.text
    assert "Most images of plate p3 cannot be read." in read.text
    assert "Upload the plate again." in read.text
    assert "predictions" not in read.identifiers
    assert not read.images


def test_what_a_delivery_says_is_text_and_never_markup(tmp_path, demo_params):
    folder = write_batch(tmp_path / "dataset", manifest())
    attack = '<script>alert(1)</script><img src="http://evil/x">'
    report = quality(manifest()).model_copy(
        update={"sentence": attack, "quarantined": (QuarantinedField(plate="p1", path=attack, reason=attack),)}
    )
    report.write(folder / "quality.json")
    page = write_report(tmp_path / "dataset", tmp_path / "r.html", params=demo_params, run_id=attack)
    assert "<script>" not in page.path.read_text()
    read = Reader(page.path)
    assert not [address for address in read.addresses if "evil" in address]
    assert read.text.count(attack) == 4


def test_a_training_run_shows_its_batches_figures_and_release(tmp_path, demo_params):
    for name in ("b1", "b2"):
        write_batch(tmp_path / "dataset", manifest("lab_a", name, ("p1",)), verdict="accepted")
    release = release_record(manifest("lab_a")).write(tmp_path / "release.json")
    page = write_report(
        tmp_path / "dataset",
        tmp_path / "r.html",
        params=demo_params,
        run_id="r",
        release=release,
        evaluation=write_metrics(tmp_path / "metrics.json"),
    )
    read = Reader(page.path)
    assert page.inputs.pipeline == "training"
    assert "serve as release lab_a-0007" in page.sentence
    assert "2 batches of lab_a" in read.text
    assert "none / accuracy well 0.71" in read.text
    assert {"metrics", "arrived"} <= set(read.identifiers)
    assert "decision" not in read.identifiers


@pytest.mark.parametrize(
    ("outcome", "tone", "words"),
    [
        ("release", "caution", "a model fitted to this batch was released"),
        ("keep_incumbent", "caution", "the model without adaptation serves it"),
        ("hold", "caution", "a person must decide"),
        ("refuse", "bad", "no model is fit for them"),
    ],
)
def test_each_decision_has_its_sentence(tmp_path, outcome, tone, words):
    run = write_run(tmp_path, outcome=outcome)
    verdict = headline(gather(run.dataset, gate=run.gate), "run-77")
    assert verdict.tone == tone
    assert words in verdict.sentence


def test_a_held_decision_names_who_decides_and_what_to_type(tmp_path):
    run = write_run(tmp_path, outcome="hold")
    waiting = {"chosen": "coda+aligned", "approvers": ("Ada", "Grace")}
    report = GateReport.read(run.gate).model_copy(update=waiting)
    report.write(run.gate)
    verdict = headline(gather(run.dataset, gate=run.gate), "run-77")
    assert verdict.next_step.startswith("Ada or Grace reads the decision")
    assert 'coda registry promote run-77 --reason "..."' in verdict.next_step
    assert "until then the model without adaptation predicts it" in verdict.sentence
    report.model_copy(update={"approvers": (), "fit_to_predict": False}).write(run.gate)
    verdict = headline(gather(run.dataset, gate=run.gate), "run-77")
    assert verdict.next_step.startswith("A person who may promote")
    assert "it has no predictions" in verdict.sentence


def test_withheld_predictions_are_no_predictions(tmp_path, demo_params):
    run = write_run(tmp_path, outcome="refuse")
    for name in ("field", "well", "compound"):
        path = run.predictions / f"{name}.parquet"
        table = pd.read_parquet(path)
        withhold(table, table["predicted"] != "", "Withheld.").to_parquet(path)
    page = write_report(run.dataset, tmp_path / "r.html", params=demo_params, run_id="r", **run.arguments())
    assert "predictions" not in Reader(page.path).identifiers
    batch, summary = page.inputs.batches[0], page.summaries[0]
    names = {sample.name for sample in samples(page.inputs, batch, summary, ())}
    assert "coda_gate_outcome" in names
    assert not any(name.startswith("coda_prediction") for name in names)


def test_what_serves_already_has_its_row_its_gain_and_its_embedding(tmp_path, demo_params):
    run = write_run(tmp_path, outcome="keep_incumbent")
    gate = GateReport.read(run.gate)
    over = Measure(value=-0.07, low=-0.11, high=-0.03, n=10)
    own = gate.candidates[3].model_copy(update={"name": "incumbent"})
    others = tuple(score.model_copy(update={"gain_over_incumbent": over}) for score in gate.candidates)
    kept = {"candidates": (*others, own), "incumbent": "incumbent", "chosen": "incumbent"}
    gate.model_copy(update=kept).write(run.gate)
    (run.candidates / "coda+aligned").rename(run.candidates / "incumbent")
    page = write_report(run.dataset, tmp_path / "r.html", params=demo_params, run_id="r", **run.arguments())
    read = Reader(page.path)
    assert "Gain over what serves now" in read.text
    assert "model that serves this laboratory now" in read.text
    assert "-0.07" in read.text.replace("\N{MINUS SIGN}", "-")
    assert any("as served" in image.get("alt", "") for image in read.images)
    assert "the earlier model keeps serving" in page.sentence


def test_going_back_to_the_model_without_adaptation_is_said(tmp_path):
    run = write_run(tmp_path)
    back = {"chosen": "unadapted", "incumbent": "incumbent"}
    GateReport.read(run.gate).model_copy(update=back).write(run.gate)
    assert (
        "the model without adaptation was released" in headline(gather(run.dataset, gate=run.gate), "run-77").sentence
    )


def test_a_batch_without_remarks_is_simply_usable(tmp_path):
    run = write_run(tmp_path, verdict="accepted")
    assert headline(gather(run.dataset, gate=run.gate), "run-77").label == "Usable"


def test_wells_without_an_answer_are_marked_with_their_reason(tmp_path, demo_params):
    run = write_run(tmp_path)
    wells = pd.read_parquet(run.predictions / "well.parquet").assign(abstain_reason="")
    treated = wells.index[wells["Metadata_pert_type"] == "trt"]
    wells.loc[treated[0], ["predicted", "abstain_reason"]] = ["", "No field of this well was delivered."]
    wells.loc[treated[0], "top_probability"] = np.nan
    wells.loc[treated[1], "abstain_reason"] = "Too uncertain: the most probable mechanism has 0.21."
    wells.to_parquet(run.predictions / "well.parquet")
    page = write_report(run.dataset, tmp_path / "r.html", params=demo_params, run_id="r", **run.arguments())
    text = Reader(page.path).text
    assert "71 wells were predicted" in text
    assert "1 well: No field of this well was delivered." in text
    assert "1 well: Too uncertain" in text
    assert "nan" not in text.lower()


def test_a_page_of_real_size_stays_small_enough_to_send(tmp_path, demo_params):
    """Six plates of 384 wells with four sites each, predicted, with features of 384 numbers."""
    names = tuple(f"plate{k}" for k in range(6))
    document = manifest(plates=names).model_copy(update={"plate_wells": 384})
    folder = write_batch(tmp_path / "dataset", document, verdict="accepted")
    write_examples(folder / "bigger", document, np.random.default_rng(0), side=256)
    (folder / "examples").rename(folder / "small")
    (folder / "bigger").rename(folder / "examples")
    small = pd.read_parquet(folder / "index.parquet")
    wells = [well_name(row, column) for row in range(16) for column in range(24)]
    rows = pd.concat([small.head(8).assign(Metadata_Plate=plate) for plate in names for _ in range(192)])
    rows = rows.reset_index(drop=True)
    rows["Metadata_Well"] = np.tile(np.repeat(wells, 4), len(names))
    rows.to_parquet(folder / "index.parquet")
    run = write_run(tmp_path / "other")
    rng = np.random.default_rng(1)
    rows.to_parquet(run.candidates / "fields.parquet")
    for name in ("features_base.npy", "features_adapted.npy", "coda+aligned/features.npy"):
        np.save(run.candidates / name, rng.normal(size=(len(rows), 384)).astype(np.float32))
    page = write_report(folder.parent.parent, tmp_path / "r.html", params=demo_params, run_id="r", **run.arguments())
    assert page.path.stat().st_size < 12e6


def test_an_empty_dataset_is_an_error_that_says_what_to_give(tmp_path):
    with pytest.raises(ContractError, match=r"manifest\.json") as caught:
        gather(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_outputs_that_are_named_but_missing_are_all_told(tmp_path):
    write_batch(tmp_path / "dataset", manifest())
    with pytest.raises(ContractError) as caught:
        gather(tmp_path / "dataset", gate=tmp_path / "gate.json", predictions=tmp_path / "predictions")
    assert {problem.where for problem in caught.value.problems} == {"gate", "predictions"}


def test_features_that_do_not_fit_their_fields_are_refused(tmp_path):
    run = write_run(tmp_path)
    np.save(run.candidates / "features_base.npy", np.zeros((3, 4)))
    with pytest.raises(ContractError, match="3 rows"):
        gather(run.dataset, candidates=run.candidates)


def test_features_of_an_archive_stay_in_their_files_and_give_the_same_picture(tmp_path):
    """What is in memory at once is less than one of the matrices, of which a run leaves eight."""
    run = write_run(tmp_path)
    fields = pd.read_parquet(run.candidates / "fields.parquet")
    many = pd.concat([fields] * (8000 // len(fields)), ignore_index=True)
    many.to_parquet(run.candidates / "fields.parquet")
    whole = np.random.default_rng(2).normal(size=(len(many), 512)).astype(np.float32)
    for name in ("features_base.npy", "features_adapted.npy", "coda+aligned/features.npy"):
        np.save(run.candidates / name, whole)
    tracemalloc.start()
    try:
        found = gather(run.dataset, candidates=run.candidates).candidates
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for name in ("before", "after", "coda+aligned"):
            well_features(found.fields, found.features[name])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < whole.nbytes / 4
    assert peak < whole.nbytes
    expected = draw_embeddings({"before": whole, "served": whole}, many, "coda+aligned")
    features = {"before": found.features["before"], "served": found.features["coda+aligned"]}
    assert draw_embeddings(features, found.fields, "coda+aligned") == expected


def test_a_heat_map_of_equal_wells_has_a_scale_that_can_be_read(monkeypatch):
    limits = []
    plain = Axes.imshow

    def watched(self, *arguments, **options):
        limits.append((options["vmin"], options["vmax"]))
        return plain(self, *arguments, **options)

    monkeypatch.setattr(Axes, "imshow", watched)
    for value in (190.0, -5.8, 0.0):
        rows = pd.DataFrame({"Metadata_Plate": ["p1"], "Metadata_Well": ["A01"], "QC_cells_DNA": [value]})
        assert draw_heat_maps(rows, ["p1"], 96)
        low, high = limits.pop()
        assert low < value < high
        assert high - low >= 0.05 * abs(value)


def test_heat_maps_place_wells_where_they_are():
    rows = pd.DataFrame({"Metadata_Well": ["A01", "A01", "H12", "Z99"], "QC_x_DNA": [1.0, 3.0, 5.0, 9.0]})
    matrix = plate_matrix(rows, "QC_x_DNA", 96)
    assert matrix.shape == (8, 12)
    assert matrix[0, 0] == 2.0
    assert matrix[7, 11] == 5.0
    assert np.isfinite(matrix).sum() == 2


def test_a_plate_that_differs_is_seen_at_once():
    rows = pd.DataFrame({"Metadata_Plate": ["p1", "p2"], "Metadata_Well": ["D06", "D06"], "QC_cells_DNA": [10.0, 50.0]})
    wells = [well_name(row, column) for row in range(8) for column in range(12)]
    rows = pd.concat([rows.assign(Metadata_Well=well) for well in wells])
    [(words, picture)] = draw_heat_maps(rows, ["p1", "p2"], 96)
    pixels = imread(io.BytesIO(base64.b64decode(picture.uri.split(",", 1)[1])))[..., :3]
    plates = pixels[pixels.shape[0] // 2, : int(pixels.shape[1] * 0.85)]
    dark = np.abs(plates - np.array([0.267, 0.005, 0.329])).max(axis=1) < 0.02  # ends of the colour scale
    bright = np.abs(plates - np.array([0.993, 0.906, 0.144])).max(axis=1) < 0.02
    assert 0.3 < dark.mean() < 0.5
    assert 0.3 < bright.mean() < 0.5
    assert np.flatnonzero(dark).max() < np.flatnonzero(bright).min(), "the first plate is on the left"
    assert words == "Nuclei in a field"
    assert "p1 10, p2 50" in picture.alt


def test_other_statistics_are_drawn_where_the_usual_stains_are_missing():
    index = pd.DataFrame({"QC_focus_ER": [1.0], "QC_p50_ER": [2.0], "QC_p95_ER": [np.nan], "QC_snr_ER": [1.0]})
    assert {column for column, _ in chosen_statistics(index)} == {"QC_focus_ER", "QC_p50_ER"}


def test_the_plane_is_that_of_the_largest_variance():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)) * np.array([5.0, 2.0, 0.1, 0.1, 0.1])
    places, share = principal_plane(x)
    assert abs(np.corrcoef(places[:, 0], x[:, 0])[0, 1]) > 0.99
    assert abs(np.corrcoef(places[:, 1], x[:, 1])[0, 1]) > 0.99
    assert share == pytest.approx(np.sort(x.var(axis=0))[-2:].sum() / x.var(axis=0).sum(), rel=0.01)
    again, _ = principal_plane(x.copy())
    assert np.array_equal(places, again)


def test_a_composite_shows_each_stain_in_its_colour(tmp_path):
    image = np.zeros((2, 32, 32))
    image[0, :, :8] = 1.0
    image[1, :, -8:] = 1.0
    rgb = composite(image, ("DNA", "Mito"), tints_of(("DNA", "Mito"), PRESET_ROLES, PRESET_COLOURS))
    assert rgb[:, 0, 2].min() > 2 * rgb[:, 0, 0].max()
    assert rgb[:, -1, 0].min() > 2 * rgb[:, -1, 2].max() * 0.9
    assert rgb[:, 16].max() == 0


def test_examples_are_read_as_ingest_writes_them(tmp_path):
    write_examples(tmp_path / "examples", manifest(), np.random.default_rng(0), side=32)
    found = read_examples(tmp_path, most=2)
    assert [examples.plate for examples in found] == ["p1", "p2"]
    assert found[0].channels == STAINS
    assert found[0].names[0] == "B02, site 0"
    assert found[0].before.shape == (2, 5, 32, 32)
