"""JUMP's layout: tables of both generations, folders of other names than the plates, plates without a table."""

import io

import pandas as pd
import pytest
from instrument_trees import found, put
from jump_trees import NUMBERS, PHENIX, npy, packed, rows, source

from coda.contracts import STAINS
from coda.errors import ContractError
from coda.plates.readers.layouts import ReadOptions, detect, find_plates
from coda.plates.tree import LocalTree


@pytest.mark.parametrize("generation", ["old", "new"])
@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_tables_of_all_kinds_and_generations_are_read(kind, generation, tmp_path):
    source(tmp_path, PHENIX, kind=kind, generation=generation)
    assert detect(LocalTree(tmp_path)) == "jump"
    (plate,) = found("jump", tmp_path)
    assert plate.plate == "BR00117035"
    assert [(item.place, item.site) for item in plate.fields] == [((0, 0), 1), ((0, 0), 2), ((0, 1), 1), ((0, 1), 2)]
    folder = "images/B1/images/BR00117035__2021-05-02T16_02_51-Measurement1/Images"
    assert {stain: image.path for stain, image in plate.fields[2].files.items()} == {
        stain: f"{folder}/r01c02f01p01-ch{number}sk1fk1fl1.tiff" for stain, number in NUMBERS.items()
    }
    assert plate.illumination == {stain: f"images/B1/illum/BR00117035/BR00117035_Illum{stain}.npy" for stain in STAINS}


def test_a_real_table_of_the_bucket_is_read_with_its_illumination(shared_data, tmp_path):
    data = (shared_data / "jump/load_data/pycytominer_BR00126114_load_data_with_illum.parquet").read_bytes()
    table = pd.read_parquet(io.BytesIO(data))
    batch, plate = "2021_08_23_Batch12", "BR00126114"
    files = {f"workspace/load_data_csv/{batch}/{plate}/load_data_with_illum.parquet": data}
    for stain in STAINS:
        for kind in ("Orig", "Illum"):
            paths = table[f"PathName_{kind}{stain}"].str.rstrip("/") + "/" + table[f"FileName_{kind}{stain}"]
            files |= {path.partition("source_4/")[2]: b"x" for path in paths}
    (found_plate,) = found("jump", put(tmp_path, files))
    assert found_plate.plate == plate
    assert len(found_plate.fields) == len(table)
    assert set(found_plate.fields[0].files) == set(found_plate.illumination) == set(STAINS)
    assert found_plate.notes == ()


def test_only_the_folders_of_the_wanted_plates_are_listed(tmp_path):
    plates = {f"BR{n}": f"BR{n}__2021-05-02T16_02_51-Measurement 1" for n in range(5)}
    asked = []

    class Counted(LocalTree):
        def files(self, under=""):
            asked.append(under)
            return super().files(under)

    tree = Counted(source(tmp_path, plates, generation="old"))
    assert detect(tree) == "jump"
    assert asked == ["workspace/load_data_csv"], "a source is told without a list of its images"
    asked.clear()
    (plate,) = find_plates("jump", tree, ReadOptions(batch="B1", plates=frozenset({"BR3"})))
    assert plate.plate == "BR3"
    assert len(plate.fields[0].files) == 5
    assert sorted(asked) == [
        "images/B1/illum/BR3", "images/B1/images/BR3__2021-05-02T16_02_51-Measurement 1", "workspace/load_data_csv/B1",
    ]  # fmt: skip


def test_a_folder_whose_name_holds_more_than_the_plate_is_found_by_the_table(tmp_path):
    def names(plate, well, site, stain):
        return f"P01_{plate}_{well}_T0001F{site:03d}L01A01Z01C{NUMBERS[stain]:02d}.tif"

    source(tmp_path, {"ADMJUM001": "P01_ADMJUM001"}, names=names, sites=(0, 2))
    (plate,) = found("jump", tmp_path)
    assert plate.plate == "ADMJUM001"
    assert {item.site for item in plate.fields} == {0, 2}, "sites as the laboratory counts them"
    assert plate.fields[0].files["AGP"].path.endswith("/P01_ADMJUM001_A01_T0001F000L01A01Z01C02.tif")


def test_a_plate_without_a_table_is_found_in_a_folder_that_holds_more_than_its_name(tmp_path):
    name = "P01_ADMJUM002_B03_T0001F001L01A01Z01C06.tif"
    put(tmp_path, {f"images/B1/images/P01_ADMJUM002/{name}": b"", "images/B1/images/XADMJUM002/x.tif": b""})
    (plate,) = found("jump", tmp_path, batch="B1", plates=["ADMJUM002"], channels={"C06": "DNA"})
    assert plate.plate == "ADMJUM002"
    assert plate.fields[0].files["DNA"].path == f"images/B1/images/P01_ADMJUM002/{name}"


def test_the_batch_must_be_named_where_there_are_several(tmp_path):
    source(tmp_path, PHENIX, batch="B1")
    source(tmp_path, {"BR2": "BR2"}, batch="B2")
    with pytest.raises(ContractError, match="the batches B1, B2"):
        found("jump", tmp_path)
    assert [plate.plate for plate in found("jump", tmp_path, batch="B2")] == ["BR2"]
    with pytest.raises(ContractError, match="--jump-batch"):
        found("jump", tmp_path, batch="B3")
    with pytest.raises(ContractError, match="no table"):
        found("jump", put(tmp_path / "none", {"a": ""}))


def test_illumination_of_another_plate_is_taken_and_told(tmp_path):
    source(tmp_path, PHENIX)
    table = rows("BR00117035", PHENIX["BR00117035"], "B1", generation="new", illum="BR00117036")
    put(tmp_path, {"workspace/load_data_csv/B1/BR00117035/load_data_with_illum.csv": packed(table, "csv")})
    put(tmp_path, {f"images/B1/illum/BR00117035/BR00117036_Illum{stain}.npy": npy() for stain in STAINS})
    (plate,) = found("jump", tmp_path)
    assert plate.illumination["ER"].endswith("/BR00117036_IllumER.npy")
    assert "the illumination function of ER carries another name: BR00117036_IllumER.npy" in plate.notes


def test_illumination_that_is_not_there_is_told_and_left_to_ingest(tmp_path):
    source(tmp_path, PHENIX)
    (tmp_path / "images/B1/illum/BR00117035/BR00117035_IllumDNA.npy").unlink()
    (plate,) = found("jump", tmp_path)
    assert set(plate.illumination) == {"ER", "RNA", "AGP", "Mito"}
    assert any(note.startswith("the illumination function of DNA was not found") for note in plate.notes)


def test_a_source_without_a_separate_rna_stain_is_read_by_name(tmp_path):
    source(tmp_path, {"PEC1": "PEC1__x"}, stains=("DNA", "ERRNA", "AGP", "Mito"), illum=False)
    (plate,) = found("jump", tmp_path)
    assert set(plate.fields[0].files) == {"DNA", "ER", "AGP", "Mito"}
    assert "ER and RNA share the channel 'ERRNA'; it stands for ER, and there is no separate RNA stain" in plate.notes
    (mapped,) = found("jump", tmp_path, channels={"ERRNA": "RNA"})
    assert set(mapped.fields[0].files) == {"DNA", "RNA", "AGP", "Mito"}


def test_a_plate_without_a_table_is_read_by_names_with_the_channels_of_the_batch(tmp_path):
    plates = {"BR1": "BR1__a-Measurement1", "BR2": "BR2__b-Measurement1"}
    source(tmp_path, plates, tables=["BR1"])
    one, two = found("jump", tmp_path)
    assert (one.plate, two.plate) == ("BR1", "BR2")
    assert {s: i.path.rpartition("/")[2] for s, i in two.fields[0].files.items()} == {
        s: i.path.rpartition("/")[2] for s, i in one.fields[0].files.items()
    }
    assert set(two.illumination) == set(STAINS)
    assert any("as in the batch's other tables" in note for note in two.notes)
    (alone,) = found("jump", tmp_path, batch="B1", plates=["BR2"])
    assert not alone.fields, "no other table is read, and no number means a stain by itself"
    assert alone.left_out == dict.fromkeys(("ch1", "ch2", "ch3", "ch4", "ch5"), 4)
    (mapped,) = found("jump", tmp_path, batch="B1", plates=["BR2"], channels={"ch5": "DNA"})
    assert mapped.fields[0].files["DNA"].path.endswith("ch5sk1fk1fl1.tiff")


def test_two_measurements_of_a_plate_without_a_table_are_refused_and_with_one_the_table_decides(tmp_path):
    source(tmp_path, {"BR1": "BR1__a"})
    put(tmp_path, {"images/B1/images/BR1__b/Images/r01c01f01p01-ch5sk1fk1fl1.tiff": b""})
    assert [plate.plate for plate in found("jump", tmp_path)] == ["BR1"]
    for name in ("BR2__a", "BR2__b"):
        put(tmp_path, {f"images/B1/images/{name}/Images/r01c01f01p01-ch5sk1fk1fl1.tiff": b""})
    with pytest.raises(ContractError, match="the folders BR2__a and BR2__b"):
        found("jump", tmp_path, channels={"5": "DNA"})


def test_images_that_the_table_names_and_the_bucket_lacks_are_told(tmp_path):
    source(tmp_path, PHENIX, illum=False)
    folder = tmp_path / "images/B1/images" / PHENIX["BR00117035"] / "Images"
    (folder / "r01c01f01p01-ch5sk1fk1fl1.tiff").unlink()
    (plate,) = found("jump", tmp_path)
    assert len(plate.fields) == 4
    assert "DNA" not in plate.fields[0].files
    assert any("1 image(s) of the table were not found" in note for note in plate.notes)


def test_a_table_that_leads_elsewhere_finds_nothing_outside_its_folders(tmp_path):
    table = rows("P", "../../../../etc", "B1", generation="new")
    table["URL_OrigDNA"] = "s3://x/images/../images/passwd"
    put(
        tmp_path,
        {"workspace/load_data_csv/B1/P/load_data.csv": packed(table, "csv"), "images/B1/images/P/Images/a": ""},
    )
    (plate,) = found("jump", tmp_path)
    assert all(not item.files for item in plate.fields)


def test_several_tables_of_a_folder_are_one_or_none(tmp_path):
    table = rows("P", "P", "B1", generation="new")
    images = {f"x/{url.rpartition('/')[2]}": b"" for url in table["URL_OrigDNA"]}
    put(tmp_path, {**images, "load_data.csv": packed(table, "csv"), "load_data.parquet": packed(table, "parquet")})
    put(tmp_path, {"load_data_with_illum.csv": packed(table, "csv")})
    (plate,) = found("load_data", tmp_path)
    assert len(plate.fields) == 4
    put(tmp_path, {"old_load_data_2.csv": packed(table, "csv")})
    with pytest.raises(ContractError, match="one table"):
        found("load_data", tmp_path)
    (tmp_path / "old_load_data_2.csv").unlink()
    put(tmp_path, {"more/load_data.csv": packed(table, "csv")})
    with pytest.raises(ContractError, match="2 tables with plate P"):
        found("load_data", tmp_path)


def test_two_columns_for_one_stain_and_a_broken_table_are_refused(tmp_path):
    table = rows("P", "P", "B1", generation="new", stains=("DNA", "Hoechst"))
    put(tmp_path, {"load_data.csv": packed(table, "csv")})
    with pytest.raises(ContractError, match="several columns that would be URL_OrigDNA"):
        found("load_data", tmp_path)
    put(tmp_path, {"load_data.csv": b"\x1f\x8bnot gzip"})
    with pytest.raises(ContractError, match="gzip"):
        found("load_data", tmp_path)
