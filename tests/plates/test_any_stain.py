"""Stains of other assays, from a folder to the refusal of a model that needs another channel; six real channels."""

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from batches import SETTINGS, field, tiff
from PIL import Image
from typer.testing import CliRunner
from zarr.storage import ZipStore

from coda.cli.plates import app as plates_app
from coda.contracts import STAINS, BatchManifest, IngestReport
from coda.contracts.channels import PALETTE
from coda.errors import ConfigError, ContractError
from coda.monitoring.report import write_report
from coda.plates.dataset import channels_unread, load_fields, open_batches
from coda.plates.lacking import cure
from coda.steps.ingest import ingest
from coda.steps.validate import validate

MADE_OF = {"Hoechst": "DNA", "Actin": "AGP", "Tubulin": "ER", "Brightfield": "RNA"}
"""Channel of the laboratory -> which of the made pictures it has."""

WELLS = ("B02", "B03", "C02", "C03")
ROLES = ("--role", "Hoechst=nuclei", "--role", "Actin=cytoplasm", "--role", "Tubulin=cytoplasm")
LISTED = ("--channel", "Hoechst=Hoechst", "--channel", "Brightfield=Brightfield")
ALL = "ingest.channels=[Hoechst,Actin,Tubulin,Brightfield]"


def picture(place: int, site: int, channel: str) -> np.ndarray:
    return field(100 * place + site)[MADE_OF[channel]]


def folder_of(root: Path, channels=("Tubulin", "Hoechst", "Brightfield", "Actin"), plate="p1") -> Path:
    """A plate as a laboratory leaves it: a load_data whose columns are its own names, in the order given."""
    root.mkdir(parents=True)
    rows = []
    for place, well in enumerate(WELLS):
        for site in (1, 2):
            row = {"Metadata_Plate": plate, "Metadata_Well": well, "Metadata_Site": site}
            for channel in channels:
                name = f"{well}_s{site}_{channel}.tiff"
                (root / name).write_bytes(tiff(picture(place, site, channel)))
                row[f"FileName_Orig{channel}"] = name
            rows.append(row)
    pd.DataFrame(rows).to_csv(root / "load_data.csv", index=False)
    wells = [
        {
            "Metadata_Plate": plate, "Metadata_Well": well, "Metadata_Compound": "DMSO" if place == 0 else f"c{place}",
            "Metadata_Treatment": "DMSO" if place == 0 else f"c{place}", "Metadata_Dose_uM": "",
            "Metadata_pert_type": "negcon" if place == 0 else "trt",
        }
        for place, well in enumerate(WELLS)
    ]  # fmt: skip
    pd.DataFrame(wells).to_csv(root.parent / f"{root.name}_wells.csv", index=False)
    return root


def imported(folder: Path, out: Path, *options: str):
    arguments = [
        "import", str(folder), str(out), "--source", "lab", "--batch", folder.name, "--instrument", "scope",
        "--modality", "widefield", "--pixel-size", "0.6",
        "--plate-map", str(folder.parent / f"{folder.name}_wells.csv"), *options,
    ]  # fmt: skip
    return CliRunner().invoke(plates_app, arguments)


def manifest_of(folder: Path, out: Path, *options: str) -> Path:
    done = imported(folder, out, *options)
    assert done.exit_code == 0, done.output + str(done.exception)
    return out / "lab" / folder.name / "manifest.json"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The folder of one plate; tests must not change it."""
    return folder_of(tmp_path_factory.mktemp("tree") / "b1")


def ingested(manifest: Path, out: Path, small_params, *changes: str) -> IngestReport:
    params = small_params("extractor.channels=[Actin]", "quality.min_negcon_wells=1", *changes)
    return ingest([str(manifest)], out, params=params, settings=SETTINGS)[0]


def test_channels_of_a_laboratory_are_kept_in_order_with_their_roles(tree, tmp_path):
    done = imported(tree, tmp_path / "in", *LISTED, *ROLES, "--colour", "Tubulin=00ff88")
    assert done.exit_code == 0, done.output
    read = BatchManifest.read(tmp_path / "in/lab/b1/manifest.json")
    assert read.channels == ("Actin", "Brightfield", "Hoechst", "Tubulin")
    assert read.roles == {"Hoechst": "nuclei", "Actin": "cytoplasm", "Tubulin": "cytoplasm"}
    assert read.colours == {"Tubulin": "00ff88"}
    said = " ".join(done.output.split())
    assert "No channel has the role nuclei" not in said
    assert "No role is known" not in said, "brightfield says by its name what it is"


def test_brightfield_is_left_out_until_it_is_listed_and_a_dye_means_its_stain(tree, tmp_path):
    done = imported(tree, tmp_path / "in")
    assert BatchManifest.read(tmp_path / "in/lab/b1/manifest.json").channels == ("DNA", "Actin", "Tubulin")
    said = " ".join(done.output.split())
    assert "8 images of channel 'Brightfield' left out." in said
    assert "--channel 'Brightfield=Brightfield'" in said
    assert "No role is known of Actin, Tubulin" in said
    assert "--role Actin=cytoplasm" in said


@pytest.mark.parametrize("order", list(permutations(("Hoechst", "Actin", "Tubulin")))[::2])
def test_pixels_go_by_name_whatever_the_order_of_columns_and_of_what_is_asked_for(order, tmp_path, small_params):
    folder = folder_of(tmp_path / "b1", order)
    manifest = manifest_of(folder, tmp_path / "in", "--channel", "Hoechst=Hoechst")
    ingested(manifest, tmp_path / "out", small_params, f"ingest.channels=[{','.join(reversed(order))}]",
             "ingest.scaling_factor=1.0", "ingest.illumination.enabled=false")  # fmt: skip
    (batch,) = open_batches(tmp_path / "out")
    wanted = ("Tubulin", "Actin")
    fields = load_fields([batch], wanted, 32)
    for row, (well, site) in enumerate(zip(fields.table["Metadata_Well"], fields.table["Metadata_Site"], strict=True)):
        for place, channel in enumerate(wanted):
            raw = picture(WELLS.index(well), site, channel)[16:48, 24:56].astype(float)
            others = [
                np.corrcoef(picture(WELLS.index(well), site, name)[16:48, 24:56].ravel(), raw.ravel())[0, 1]
                for name in order
                if name != channel
            ]
            own = np.corrcoef(fields.images[row, place].ravel().astype(float), raw.ravel())[0, 1]
            assert own > 0.98 > max(others) + 0.3, (well, site, channel)


def test_roles_decide_what_is_counted_and_compared_and_the_report_says_who_plays_them(tree, tmp_path, small_params):
    manifest = manifest_of(tree, tmp_path / "in", *LISTED, *ROLES)
    ingested(manifest, tmp_path / "out", small_params, ALL)
    (batch,) = open_batches(tmp_path / "out")
    assert "QC_cells_Hoechst" in batch.index
    assert [name for name in batch.index if name.startswith("QC_cells_")] == ["QC_cells_Hoechst"]
    params = small_params(ALL, "extractor.channels=[Actin]", "quality.min_negcon_wells=1")
    (report,) = validate(tmp_path / "out", params=params, settings=SETTINGS)
    names = {check.name for check in report.checks if not check.passed}
    assert not {"nuclei_can_be_looked_for", "swapped_stains_can_be_seen"} & names
    assert report.plates[0].cells_median is not None
    told = " ".join(check.observed for check in report.checks if check.name.startswith("nuclei_"))
    assert "DNA" not in told
    page = write_report(tmp_path / "out", tmp_path / "r.html", params=params, run_id="r").path.read_text()
    assert "<dt>Channels</dt><dd>Hoechst, Actin, Tubulin, Brightfield</dd>" in page
    assert "<dt>Nuclei</dt><dd>Hoechst</dd>" in page
    assert "Brightfield not in colour" in page


def test_where_nobody_plays_a_role_it_is_said_and_nothing_is_refused_for_it(tree, tmp_path, small_params):
    manifest = manifest_of(tree, tmp_path / "in", *LISTED)
    ingested(manifest, tmp_path / "out", small_params, ALL)
    params = small_params(ALL, "extractor.channels=[Actin]", "quality.min_negcon_wells=1")
    (report,) = validate(tmp_path / "out", params=params, settings=SETTINGS)
    failed = {check.name: check for check in report.checks if not check.passed}
    assert failed["nuclei_can_be_looked_for"].severity == "warning"
    assert "no channel has the role nuclei" in failed["nuclei_can_be_looked_for"].observed
    assert "--role CHANNEL=nuclei" in failed["nuclei_can_be_looked_for"].remedy
    assert [name for name, check in failed.items() if check.severity == "critical"] == []
    assert report.verdict == "accepted_with_warnings"
    assert report.plates[0].cells_median is None
    page = write_report(tmp_path / "out", tmp_path / "r.html", params=params, run_id="r").path.read_text()
    assert "<dt>Nuclei</dt><dd>shown by no channel: cells were not counted" in page


def test_a_store_names_and_colours_its_channels_and_pictures_are_drawn(tree, tmp_path, small_params):
    manifest = manifest_of(tree, tmp_path / "in", *LISTED, *ROLES, "--colour", "Tubulin=00FF88")
    ingested(manifest, tmp_path / "out", small_params, ALL)
    group = zarr.open_group(ZipStore(tmp_path / "out/lab/b1/p1.ome.zarr.zip", mode="r"), mode="r")
    given = group["B/2/1"].attrs["ome"]["omero"]["channels"]
    assert {item["label"]: item["color"] for item in given} == {
        "Hoechst": PALETTE[1], "Actin": PALETTE[0], "Tubulin": "00FF88", "Brightfield": "FFFFFF",
    }  # fmt: skip
    shown = CliRunner().invoke(plates_app, ["show", str(tmp_path / "out/lab/b1"), "--out", str(tmp_path / "pictures")])
    assert shown.exit_code == 0, shown.output
    said = " ".join(shown.output.split())
    assert "Hoechst (nuclei), Actin (cytoplasm), Tubulin (cytoplasm), Brightfield (transmitted)" in said
    assert "Tubulin #00FF88, Brightfield not in colour" in said
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 3


def test_a_model_refuses_a_batch_that_lacks_a_channel_and_what_it_says_can_be_typed(tree, tmp_path, small_params):
    manifest = manifest_of(tree, tmp_path / "in", *LISTED)
    ingested(manifest, tmp_path / "out", small_params, "ingest.channels=[Hoechst,Actin,Tubulin]")
    with pytest.raises(ConfigError) as caught:
        load_fields(open_batches(tmp_path / "out"), ("Hoechst", "AGP"), 32)
    (problem,) = caught.value.problems
    assert problem.where == "batch lab/b1"
    assert problem.found == "the channels Hoechst, Actin, Tubulin"
    assert problem.expected == "all that the model reads: Hoechst, AGP (missing: AGP)"
    settings = [part.split("'")[0] for part in problem.remedy.split("--set '")[1:]]
    assert settings == ["ingest.renamed={Actin: AGP}", "ingest.channels=[Hoechst,AGP,Tubulin]"]
    report = ingested(manifest, tmp_path / "again", small_params, *settings, "extractor.channels=[AGP]")
    assert report.renamed == {"Actin": "AGP"}
    assert "Stored under other names (ingest.renamed): Actin as AGP." in report.notes
    cured = load_fields(open_batches(tmp_path / "again"), ("Hoechst", "AGP"), 32)
    before = load_fields(open_batches(tmp_path / "out"), ("Hoechst", "Actin"), 32)
    assert np.array_equal(cured.images, before.images)
    assert channels_unread(open_batches(tmp_path / "again"), ("Hoechst", "AGP")) == [
        "Of lab/b1 the model reads Hoechst, AGP; Tubulin is not read."
    ]


@pytest.mark.parametrize(
    ("present", "unstored", "words"),
    [
        (["DNA", "agp2"], [], ["ingest.renamed={agp2: AGP}"]),
        (["DNA", "Tubulin", "Agp-1"], ["AGP"], ["Ingest did not store AGP", "[DNA,Tubulin,Agp-1,AGP]"]),
        (["DNA", "Mito", "Brightfield"], [], ["could stand for AGP"]),
        (["DNA", "Mito", "Actin", "GFP"], [], ["{Actin: AGP}", "(or GFP does)", "[DNA,Mito,AGP,GFP]"]),
        (["DNA", "488"], [], ['ingest.renamed={"488": AGP}', "ingest.channels=[DNA,AGP]"]),
    ],
)
def test_the_cure_is_that_of_the_case(present, unstored, words):
    said = cure(present, ["DNA", "AGP"], unstored=unstored)
    assert all(word in said for word in words), said


def test_no_stain_of_the_five_is_offered_for_another_and_all_that_is_lacking_is_named():
    said = cure(["DNA", "ER", "Mito", "Actin"], ["DNA", "AGP", "RNA"])
    assert "{Actin: AGP}" in said
    assert "Mito:" not in said
    assert "ER:" not in said
    assert "could stand for RNA" in said


def test_names_that_differ_by_case_stand_for_each_other_first():
    assert "{ACTIN: Actin}" in cure(["DNA", "Tubulin", "ACTIN"], ["DNA", "Actin"])


def test_batches_of_one_source_with_other_channel_sets_are_refused_together_in_words(tree, tmp_path, small_params):
    other = folder_of(tmp_path / "b2", ("Hoechst", "Tubulin"))
    for folder, channels in ((tree, "[Hoechst,Actin]"), (other, "[Hoechst,Tubulin]")):
        manifest = manifest_of(folder, tmp_path / "in", "--channel", "Hoechst=Hoechst")
        ingested(
            manifest, tmp_path / "out", small_params, f"ingest.channels={channels}", "extractor.channels=[Hoechst]"
        )
    batches = open_batches(tmp_path / "out")
    assert load_fields(batches, ("Hoechst",), 32).images.shape[0] == 16
    with pytest.raises(ConfigError) as caught:
        load_fields(batches, ("Hoechst", "Actin"), 32)
    assert [problem.where for problem in caught.value.problems] == ["batch lab/b2"]
    assert "the channels Hoechst, Tubulin" in str(caught.value)
    assert channels_unread(batches, ("Hoechst",)) == [
        "Of lab/b1 the model reads Hoechst; Actin is not read.",
        "Of lab/b2 the model reads Hoechst; Tubulin is not read.",
    ]


def test_ingest_refuses_names_that_meet_or_are_not_there_and_says_what_it_does_not_store(tree, tmp_path, small_params):
    manifest = manifest_of(tree, tmp_path / "in", *LISTED)
    for renamed, found in (
        ("{Acti: AGP}", "Acti, which the delivery does not have"),
        ("{Actin: Tubulin}", "Tubulin twice"),
    ):
        report = ingested(manifest, tmp_path / "bad", small_params, ALL, f"ingest.renamed={renamed}")
        assert [problem.found for problem in report.problems] == [found]
    report = ingested(manifest, tmp_path / "out", small_params, "ingest.channels=[Hoechst,Actin]")
    assert "Delivered and not stored, since ingest.channels does not list them: Brightfield, Tubulin." in report.notes
    lacking = ingested(manifest, tmp_path / "no", small_params, "ingest.channels=[DNA,Actin]")
    (problem,) = lacking.problems
    assert "missing: DNA" in problem.expected
    assert "--set 'ingest.renamed={Hoechst: DNA}'" in problem.remedy


def test_names_that_differ_by_case_alone_or_are_none_are_refused_in_words(tree, tmp_path):
    table = (tree / "load_data.csv").read_text()
    other = tmp_path / "b1"
    other.mkdir()
    for path in tree.iterdir():
        (other / path.name).hardlink_to(path)
    (other / "load_data.csv").unlink()
    (other / "load_data.csv").write_text(table.replace("OrigTubulin", "OrigACTIN"))
    (tmp_path / "b1_wells.csv").write_bytes((tree.parent / "b1_wells.csv").read_bytes())
    refused = imported(other, tmp_path / "in").exception
    assert isinstance(refused, ContractError)
    (problem,) = refused.problems
    assert problem.found in {"'Actin' and 'ACTIN'", "'ACTIN' and 'Actin'"}
    assert "--channel" in problem.remedy
    for option, found in (
        (("--channel", "Tubulin=beta tubulin"), "Tubulin=beta tubulin"),
        (("--channel", "Tubulin=dna"), "Tubulin=dna"),
        (("--role", "Tubulim=cytoplasm"), "Tubulim"),
        (("--colour", "Golgi=FFFFFF"), "Golgi"),
        (("--role", "Tubulin=nuclei", "--role", "Actin=nuclei"), "nuclei for Tubulin and Actin"),
    ):
        error = imported(tree, tmp_path / "in", *option).exception
        assert isinstance(error, ContractError), option
        assert [problem.found for problem in error.problems] == [found]
    for option in (("--role", "Tubulin=membrane"), ("--colour", "Tubulin=green"), ("--role", "nuclei")):
        assert isinstance(imported(tree, tmp_path / "in", *option).exception, ConfigError), option


def test_a_column_of_load_data_that_differs_by_case_from_the_manifest_says_so(tree, tmp_path, small_params):
    manifest = manifest_of(tree, tmp_path / "in", *LISTED)
    document = json.loads(manifest.read_text())
    document["channels"] = [name.replace("Actin", "actin") for name in document["channels"]]
    manifest.write_text(json.dumps(document))
    report = ingested(manifest, tmp_path / "out", small_params, "ingest.channels=[Hoechst,Tubulin]",
                      "extractor.channels=[Tubulin]")  # fmt: skip
    assert any("Write it as the manifest does: actin." in problem.remedy for problem in report.problems)


def test_rxrx1_goes_through_with_its_six_channels(shared_data, tmp_path, small_params):
    folder = shared_data / "images/rxrx1/train/HUVEC-01"
    arguments = ["import", str(folder), str(tmp_path / "in"), "--source", "lab", "--batch", "b", "--instrument", "IX",
                 "--pixel-size", "0.65", "--only-plate", "HUVEC-01_Plate1"]  # fmt: skip
    usual = CliRunner().invoke(plates_app, arguments)
    assert usual.exit_code == 0, usual.output
    manifest = tmp_path / "in/lab/b/manifest.json"
    assert BatchManifest.read(manifest).channels == (*STAINS, "Golgi")
    assert "AGP is actin alone (w3), Golgi is a channel of its own (w6)" in " ".join(usual.output.split())
    named = CliRunner().invoke(plates_app, [*arguments, "--channel", "w3=Actin"])
    assert named.exit_code == 0, named.output
    six = "[DNA,ER,RNA,Mito,Actin,Golgi]"
    report = ingested(manifest, tmp_path / "out", small_params, f"ingest.channels={six}", "quality.plate_quorum=0.5")
    assert report.fields_accepted == 1
    (batch,) = open_batches(tmp_path / "out")
    assert set(batch.index["channels"]) == {"DNA,ER,RNA,Mito,Actin,Golgi"}
    assert 80 < batch.index["QC_cells_DNA"].iloc[0] < 160
    # the files say which pixels are whose: w3 is actin, w6 Golgi
    fields = load_fields([batch], ("Golgi", "Actin"), 256)
    for place, wave in enumerate(("w6", "w3")):
        raw = np.asarray(Image.open(folder / f"Plate1/B02_s1_{wave}.png"), dtype=float)
        small = raw.reshape(256, 2, 256, 2).mean(axis=(1, 3))
        assert np.corrcoef(fields.images[0, place].ravel().astype(float), small.ravel())[0, 1] > 0.97


def test_phenix_goes_through_with_brightfield_and_phase(shared_data, tmp_path, small_params):
    folder = shared_data / "images/phenix_v5/images"
    arguments = ["import", str(folder), str(tmp_path / "in"), "--source", "lab", "--batch", "b",
                 "--instrument", "Phenix", "--channel", "Brightfield high=Brightfield",
                 "--channel", "Digital Phase Contrast=DPC"]  # fmt: skip
    done = CliRunner().invoke(plates_app, arguments)
    assert done.exit_code == 0, done.output
    manifest = tmp_path / "in/lab/b/manifest.json"
    six = ("ER", "RNA", "AGP", "Mito", "Brightfield", "DPC")
    assert BatchManifest.read(manifest).channels == six
    report = ingested(manifest, tmp_path / "out", small_params, f"ingest.channels=[{','.join(six)}]",
                      "extractor.channels=[ER]")  # fmt: skip
    assert report.fields_accepted == 1
    params = small_params(f"ingest.channels=[{','.join(six)}]", "extractor.channels=[ER]")
    (judged,) = validate(tmp_path / "out", params=params, settings=SETTINGS)
    critical = {check.name for check in judged.checks if not check.passed and check.severity == "critical"}
    assert critical == {"negative_controls_are_there", "enough_plates_are_left"}
    told = [check.observed for check in judged.checks if check.name.startswith("stains_") and not check.passed]
    assert told, "the empty Mito is told"
    assert not any("Brightfield" in text or "DPC" in text for text in told)
