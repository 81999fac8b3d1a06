"""`coda manifest build` over the batches of a source: which plates, which batches, and what one that fails costs."""

import csv
from dataclasses import replace

import pandas as pd
import pytest
from batches import field, tiff
from jump_trees import source
from typer.testing import CliRunner

from coda.cli.manifest import app
from coda.contracts import BatchManifest
from coda.errors import CodaError, ConfigError, ContractError
from coda.plates.jump.by_type import wells_by_type
from coda.plates.jump.consortium_tables import JumpTables
from coda.plates.jump.selection import PlateFilter
from coda.plates.layout import parse_well
from coda.plates.tree import LocalTree

PLATES = {"B1": ("BR1", "BR2"), "B2": ("BR3",), "B3": ("XR4",)}
KINDS = {"BR1": "TARGET2", "BR2": "COMPOUND", "BR3": "TARGET2", "XR4": "COMPOUND"}


@pytest.fixture
def place(tmp_path):
    """A source of three batches, and JUMP's tables of it."""
    folder = tmp_path / "source_4"
    for batch, plates in PLATES.items():
        source(folder, {plate: f"{plate}__x" for plate in plates}, batch=batch, illum=False)
    for path in folder.rglob("*.tiff"):
        path.write_bytes(tiff(field(len(str(path)), (16, 16))["DNA"]))
    rows = {
        "plate": ["Metadata_Source,Metadata_Batch,Metadata_Plate,Metadata_PlateType",
                  *(f"source_4,{batch},{name},{KINDS[name]}" for batch in PLATES for name in PLATES[batch])],
        "well": ["Metadata_Source,Metadata_Plate,Metadata_Well,Metadata_JCP2022",
                 *(f"source_4,{name},{well},JCP2022_{number}" for name in KINDS
                   for number, well in enumerate(("A01", "A02")))],
        "perturbation_control": ["Metadata_JCP2022,Metadata_pert_type,Metadata_Name,Metadata_modality",
                                 "JCP2022_0,negcon,DMSO,compound"],
        "microscope_config": ["Metadata_Source,Metadata_Microscope_Name,Metadata_Widefield_vs_Confocal,"
                              "Metadata_Objective_NA,Metadata_Sites_Per_Well,Metadata_Pixel_Size_Microns",
                              "source_4,Opera Phenix,Widefield,1.0,2,0.6"],
    }  # fmt: skip
    (tmp_path / "tables").mkdir()
    for name, lines in rows.items():
        (tmp_path / "tables" / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def build(place, *options, tables=True, code=0):
    given = ["--jump-tables", str(place / "tables")] if tables else ["--instrument", "scope"]
    arguments = ["build", str(place / "source_4"), "--source", "source_4", "--work", str(place / "work"), *given]
    result = CliRunner().invoke(app, [*arguments, "--out", str(place / "out"), *map(str, options)])
    if isinstance(result.exception, CodaError):
        assert result.exception.exit_code == code, result.exception
        result.error = result.exception
        return result
    assert result.exit_code == code, (result.output, result.exception)
    return result


def written(place):
    found = {}
    for path in (place / "out").rglob("manifest.json"):
        manifest = BatchManifest.read(path)
        found[str(path.parent.relative_to(place / "out"))] = sorted(plate.plate for plate in manifest.plates)
    return found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--plate-type", "target2"), {"source_4/B1": ["BR1"], "source_4/B2": ["BR3"]}),
        (("--plate-pattern", "BR*"), {"source_4/B1": ["BR1", "BR2"], "source_4/B2": ["BR3"]}),
        (("--plate-pattern", "*R[34]", "--plate-type", "COMPOUND"), {"source_4/B3": ["XR4"]}),
        (("--all-batches", "--plate", "BR2"), {"source_4/B1": ["BR2"]}),
        (("--jump-batch", "B1", "--jump-batch", "B2", "--plate-type", "COMPOUND"), {"source_4/B1": ["BR2"]}),
        (("--jump-batch", "B1", "--plate-type", "TARGET2"), {".": ["BR1"]}),
        (("--jump-batch", "B1", "--plate-pattern", "*2"), {".": ["BR2"]}),
    ],
)
def test_filters_choose_batches_and_plates(place, options, expected):
    build(place, *options)
    assert written(place) == expected


def test_a_file_names_plates_and_names_without_a_plate_are_refused(place):
    listed = place / "plates.txt"
    listed.write_text("# mine\nBR3\n\nXR4\n")
    build(place, "--plates", listed)
    assert written(place) == {"source_4/B2": ["BR3"], "source_4/B3": ["XR4"]}
    listed.write_text("Metadata_Plate;Metadata_Source\nBR1;source_4\nBR9;source_4\n")
    said = build(place, "--plates", listed, "--plate-type", "TARGET3", "--plate-pattern", "Z*", code=2).error
    assert [(problem.where, problem.found) for problem in said.problems] == [
        ("--plate-type", "TARGET3"), ("--plate", "BR9"), ("--plate-pattern", "Z*"),
    ]  # fmt: skip
    assert "jump-batch" in str(build(place, "--jump-batch", "B1", "--jump-batch", "B8", code=2).error)
    assert "no plate that is asked for" in str(
        build(place, "--plate-type", "TARGET2", "--plate-pattern", "X*", code=2).error
    )
    assert written(place).keys() == {"source_4/B2", "source_4/B3"}


def test_without_the_tables_batches_are_those_of_load_data_and_types_are_not_known(place):
    build(place, "--all-batches", "--modality", "widefield", "--pixel-size", "0.6", tables=False)
    assert written(place) == {"source_4/B1": ["BR1", "BR2"], "source_4/B2": ["BR3"], "source_4/B3": ["XR4"]}
    assert "--jump-tables" in str(build(place, "--plate-type", "TARGET2", tables=False, code=2).error)


def test_one_batch_that_fails_loses_no_other_and_the_same_command_goes_on(place):
    table = next((place / "source_4" / "workspace").rglob("B1/BR1/*.csv"))
    sound = table.read_text()
    table.write_text(sound + "one,value,too,few\n")
    absent = place / "absent.csv"
    (next((place / "source_4").rglob("BR3__x/**/*ch5*.tiff"))).unlink()
    failed = build(place, "--plate-type", "TARGET2", "--absent", absent, code=3)
    assert "1 of 2 batches could not be described; the others are written." in str(failed.error)
    assert all(problem.where.startswith("source_4/B1: ") for problem in failed.error.problems)
    assert "2 batch(es) of 1 source(s): 1 written, 1 failed." in failed.output
    assert written(place) == {"source_4/B2": ["BR3"]}
    (row,) = csv.DictReader(absent.read_text().splitlines())
    assert (row["source"], row["batch"], row["plate"], row["stain"]) == ("source_4", "B2", "BR3", "DNA")
    table.write_text(sound)
    said = build(place, "--plate-type", "TARGET2").output
    assert "2 batch(es) of 1 source(s): 1 written, 1 the same already." in said
    assert sorted(written(place)) == ["source_4/B1", "source_4/B2"]


def test_several_batches_need_a_place_and_have_their_own_names(place):
    arguments = ["build", str(place / "source_4"), "--source", "source_4", "--jump-tables", str(place / "tables")]
    result = CliRunner().invoke(app, [*arguments, "--all-batches"])
    assert "--out" in str(result.exception)
    assert "--batch" in str(build(place, "--all-batches", "--batch", "mine", code=2).error)
    assert "--layout" in str(build(place, "--all-batches", "--layout", "phenix", code=2).error)
    assert "no such folder" in str(build(place, "--source", "source_5", "--plate-type", "TARGET2", code=2).error)
    assert "--jump-batch" in str(build(place, "--batch", "mine", "--plate-type", "TARGET2", code=2).error)
    assert written(place) == {}
    assert "Would read" in build(place, "--all-batches", "--dry-run").output
    assert written(place) == {}


def test_an_empty_filter_takes_all():
    assert not PlateFilter()
    assert PlateFilter().takes("any", "")
    assert not PlateFilter(types=("TARGET2",)).takes("any", "")


def test_wells_by_type_are_what_a_plate_really_holds(shared_data):
    """Every 10th TARGET2 plate that the real table holds, told by the other plates alone."""
    tables = JumpTables(LocalTree(shared_data / "jump" / "datasets"))
    known = [plate for key, plate in sorted(tables.plates_of_type("TARGET2").items())]
    checked = 0
    for plate in known[::10]:
        own = tables.wells(plate.source, [plate.plate]).get(plate.plate)
        if own is None:
            continue
        told, said = wells_by_type(tables, plate)
        mine = {parse_well(well): jcp for well, jcp in own.items()}
        listed = {well: jcp for well, jcp in told.items() if parse_well(well) in mine}
        assert listed == {well: mine[parse_well(well)] for well in listed}, "no well is told that holds another thing"
        assert len(told) >= 0.9 * 384, said
        checked += 1
    assert checked >= 8


def test_plates_of_a_library_are_not_told_by_their_type(shared_data):
    tables = JumpTables(LocalTree(shared_data / "jump" / "datasets"))
    plate = tables.plates("source_4")["BR00117035"]
    with pytest.raises(ContractError, match="which agree in"):
        wells_by_type(tables, plate)
    with pytest.raises(ContractError, match="0 other NEW plates"):
        wells_by_type(tables, replace(plate, plate_type="NEW"))


def test_names_of_plates_may_be_given_for_any_layout(tmp_path):
    table = pd.DataFrame({"Metadata_Plate": ["P1", "P2"], "Metadata_Well": "A01", "Metadata_Site": 1})
    folder = tmp_path / "scope"
    for plate in ("P1", "P2"):
        (folder / plate).mkdir(parents=True)
        (folder / plate / "a.tif").write_bytes(tiff(field(1, (16, 16))["DNA"]))
    table.assign(FileName_OrigDNA="a.tif", PathName_OrigDNA=["P1", "P2"]).to_csv(folder / "load_data.csv", index=False)
    given = ["build", str(folder), "--source", "s", "--batch", "b", "--instrument", "i", "--modality", "confocal",
             "--pixel-size", "1", "--work", str(tmp_path / "work"), "--plate-pattern"]  # fmt: skip
    assert CliRunner().invoke(app, [*given, "?2"]).exit_code == 0
    assert [plate.plate for plate in BatchManifest.read(folder / "manifest.json").plates] == ["P2"]
    assert isinstance(CliRunner().invoke(app, [*given, "Q*"]).exception, ConfigError)
