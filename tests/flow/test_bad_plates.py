"""Bad plates through ingest and validation: refused, or set aside field by field, in words a biologist understands.

docs/bad_input.md has one row for each case here.
"""

import re

import pandas as pd
import pytest

from coda.local.offline import offline_settings
from coda.quality.fingerprints import FINGERPRINTS, fingerprints_of
from coda.simulation.broken import break_batch
from coda.simulation.delivery import simulate_batch
from coda.simulation.design import plan_experiment
from coda.steps.ingest import ingest
from coda.steps.validate import validate
from tests.flow.breakage import (
    cut,
    edit_table,
    flip_a_byte,
    give,
    images_of,
    manifest_of,
    record,
    rename,
    scribble,
    without_controls,
    write_manifest,
)
from tests.flow.loop import DESIGN, smoke_params
from tests.flow.watching import assert_readable


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


def solvent_as_treatment(rows):
    for row in rows:
        row["Metadata_pert_type"] = row["Metadata_pert_type"].replace("negcon", "trt")


def a_well_twice(rows):
    first = next(row for row in rows if row["Metadata_Well"] == "B02")
    return [*rows, {**first, "Metadata_Compound": "c-other"}]


def a_comma_too_many(folder):
    path = manifest_of(folder)["plates"][0]["plate_map"]
    head, first, *rest = (folder / path).read_text(encoding="utf-8").splitlines()
    (folder / path).write_text("\n".join([head, f"{first},5", *rest]) + "\n", encoding="utf-8")
    record(folder, path)


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
        (
            "unknown channel 'Actin'",
            "the channels of the manifest (DNA, ER, RNA, AGP, Mito)",
            "rename the column to the channel it holds",
        ),
    ),
    "a stain that was not imaged": (
        lambda folder: write_manifest(folder, {**manifest_of(folder), "channels": ["DNA", "ER", "RNA", "Mito"]}),
        ("the stains DNA, ER, RNA, Mito", "missing: AGP", "Image these stains"),
    ),
    "the plate map of another plate": (
        lambda folder: edit_table(folder, "plate_map", give("Metadata_Plate", "p9")),
        ("the plate map of 'p9'; expected that of plate 'p1'", "Deliver the plate map of this plate"),
    ),
    "a decimal comma": (
        a_comma_too_many,
        ("line 2 has 7 values", "Write it as CSV: UTF-8"),
    ),
    "a well twice": (
        lambda folder: edit_table(folder, "plate_map", a_well_twice),
        ("well B02 a second time", "Remove the row that is wrong"),
    ),
    "a solvent as a treatment": (
        lambda folder: edit_table(folder, "plate_map", solvent_as_treatment),
        ("of 'DMSO' (the first: B05)", "Write negcon in Metadata_pert_type"),
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


def test_swapped_stains_of_the_cytoplasm_are_refused_beside_what_the_model_was_trained_on(params, tmp_path):
    """Nothing is lost: what ingest wrote stays, and the same pictures under their right names are accepted."""
    settings, experiment = offline_settings(tmp_path), plan_experiment(3, DESIGN)

    def judged(name, laboratory, *kinds, history=None):
        simulate_batch(experiment, laboratory, "b1", ["p1"], tmp_path / name / "in", workers=1)
        folder = tmp_path / name / "in" / laboratory / "b1"
        break_batch(folder, kinds, 0)
        dataset = tmp_path / name / "dataset"
        ingest([str(folder / "manifest.json")], dataset, params=params, settings=settings)
        (report,) = validate(dataset, params=params, settings=settings, history=history)
        assert_readable(report.to_json())
        return report, dataset / laboratory / "b1"

    trained, source = judged("trained", "lab_a")
    assert "not checked: there is nothing to compare with" in told(trained, "stains_can_be_compared")
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    fingerprints_of([pd.read_parquet(source / "index.parquet")]).write(earlier / FINGERPRINTS)

    swapped, folder = judged("swapped", "lab_c", "swapped_cytoplasm", history=earlier)
    assert swapped.verdict == "refused"
    words = (
        "stains of the cytoplasm seem swapped: ", "those named AGP look like RNA", "those named RNA look like AGP",
        "the 1 plate(s) that the model was trained on", "what FileName_OrigAGP has into FileName_OrigRNA",
    )  # fmt: skip
    assert not [text for text in words if text not in swapped.sentence], swapped.sentence
    assert len(pd.read_parquet(folder / "index.parquet")) == 0
    assert len(pd.read_parquet(folder / "index_ingested.parquet")) == 16

    right, folder = judged("right", "lab_c", history=earlier)
    assert right.verdict == "accepted_with_warnings"
    assert len(pd.read_parquet(folder / "index.parquet")) == 16
    assert told(right, "stains_can_be_compared") == "as expected"


def test_a_shuffled_plate_map_is_refused_beside_plates_whose_maps_fit(params, tmp_path):
    design = DESIGN.model_copy(
        update={"mechanisms": 4, "compounds_per_mechanism": 3, "negcon_wells": 6, "sites_per_well": 1}
    )
    simulate_batch(plan_experiment(3, design), "lab_b", "b1", ["p1", "p2", "p3"], tmp_path / "in", workers=1)
    folder = tmp_path / "in" / "lab_b" / "b1"
    break_batch(folder, ["shuffled_platemap"], 0)
    settings = offline_settings(tmp_path)
    ingest([str(folder / "manifest.json")], tmp_path / "dataset", params=params, settings=settings)
    (verdict,) = validate(tmp_path / "dataset", params=params, settings=settings)
    assert (verdict.plates_accepted, verdict.plates_refused) == (("p2", "p3"), ("p1",))
    words = (
        "the plate map, replaced by that of plate p",
        "would fit the pictures much better",
        "deliver the right one",
    )
    assert not [text for text in words if text not in verdict.sentence], verdict.sentence
    assert "no more alike than those of random treatments" in told(verdict, "plate_map_explains_the_pictures")


def told(report, name):
    return next(check.observed for check in report.checks if check.name == name)


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


def test_the_words_in_the_documentation_are_the_words_that_tests_ask_for(root):
    page = (root / "docs" / "bad_input.md").read_text(encoding="utf-8")
    rows = [row.split("|") for row in page.splitlines() if row.startswith("| ") and row.count("|") == 5]
    quoted = {words for row in rows for words in re.findall(r"`([^`]+)`", row[3]) if " " in words}
    asked = "".join(
        re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8")).replace('\\"', '"')
        for folder in ("flow", "steps", "trigger")
        for path in sorted((root / "tests" / folder).glob("*.py"))
    )
    assert len(quoted) > 20
    assert not [words for words in quoted if words not in asked]
