"""load_data tables in every dress, and tables of plates that nobody asked for."""

import pytest

from coda.errors import ContractError
from coda.plates.jump.consortium_tables import JumpTables
from coda.plates.readers.assemble import Identity, check_plates
from coda.plates.readers.layouts import find_plates
from coda.plates.readers.read_options import ReadOptions
from coda.plates.tabular.dialect import Dialect, Dialects
from coda.plates.tree import LocalTree

HEAD = "Metadata_Plate,Metadata_Well,Metadata_Site,FileName_OrigDNA,PathName_OrigDNA"


@pytest.fixture
def tree(tmp_path):
    def build(tables, *, encoding="utf-8", plates=("P1", "P2")):
        for plate in plates:
            folder = tmp_path / "images" / plate
            folder.mkdir(parents=True, exist_ok=True)
            for site in (1, 2):
                (folder / f"B02_{site}.tif").write_bytes(b"II*\0")
        for path, text in tables.items():
            place = tmp_path / "tables" / path / "load_data.csv"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(text.encode(encoding))
        return LocalTree(tmp_path)

    return build


def table(plate="P1", sites=("1", "2")):
    rows = [f"{plate},B02,{site},B02_{site[0]}.tif,/x/images/{plate}" for site in sites]
    return "\n".join([HEAD, *rows]) + "\n"


def fields(found):
    return {
        (plate.plate, item.place, item.site): item.files["DNA"].path for plate in found for item in plate.fields
    }  # fmt: skip


GOOD = {("P1", (1, 1), 1): "images/P1/B02_1.tif", ("P1", (1, 1), 2): "images/P1/B02_2.tif"}


@pytest.mark.parametrize("sites", [("1", "2"), ("1.0", "2.0"), ("1.", "2"), ('"1,0"', '"2,0"')])
def test_a_site_is_a_whole_number_however_it_is_written(tree, sites):
    text = table(sites=("1", "2")).replace("B02,1,", f"B02,{sites[0]},").replace("B02,2,", f"B02,{sites[1]},")
    assert fields(find_plates("load_data", tree({"P1": text}), ReadOptions())) == GOOD


@pytest.mark.parametrize("site", ["1.5", "s1", "1,000", "IXMtest", ""])
def test_a_site_that_is_none_is_refused_with_its_line(tree, site):
    text = table().replace("B02,2,", f'B02,"{site}",')
    with pytest.raises(ContractError, match="line 3: found well 'B02', site"):
        find_plates("load_data", tree({"P1": text}), ReadOptions())


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-16"), ("|", "utf-8")])
def test_any_separator_and_encoding(tree, separator, encoding):
    found = find_plates("load_data", tree({"P1": table().replace(",", separator)}, encoding=encoding), ReadOptions())
    assert fields(found) == GOOD
    assert "parted by" in " ".join(found[0].notes)


@pytest.mark.parametrize("nothing", ["", "nan", "NA", "None"])
def test_a_file_that_is_none_is_no_name_of_a_file(tree, nothing):
    (plate,) = find_plates("load_data", tree({"P1": table().replace("B02_2.tif", nothing)}), ReadOptions())
    assert [item.files for item in plate.fields if item.site == 2] == [{}]
    assert not any("not found" in note for note in plate.notes)


def test_the_first_cause_is_told_where_no_image_was_found(tree):
    place = tree({"P1": table().replace("B02_", "elsewhere_")})
    plates = find_plates("load_data", place, ReadOptions())
    with pytest.raises(
        ContractError, match=r"no image: 2 image\(s\) of the table were not found, the first: "
    ) as caught:
        check_plates(plates, Identity("s", "b", "x", "confocal", 0.6), "tree", {})
    assert "--channel" not in str(caught.value)


def test_an_option_is_about_the_table_of_that_name(tree):
    place = tree({"P1": table().replace("P1,B02,2", "P1,B02,2,é")}, encoding="mac_roman")
    with pytest.raises(ContractError, match="--table-encoding"):
        find_plates("load_data", place, ReadOptions())
    named = Dialects(named={"load_data.csv": Dialect(encoding="mac_roman")})
    with pytest.raises(ContractError, match=r"line 3 has 6 values \('P1,B02,2,é"):
        find_plates("load_data", place, ReadOptions(tables=named))


@pytest.mark.parametrize("bad", ["", HEAD + "\n", "\x00\x01", HEAD + "\nP2,B02,1\n"])
def test_a_table_that_cannot_be_read_blocks_its_own_plate_alone(tree, bad):
    place = tree({"P1": table(), "RC4": bad})
    with pytest.raises(ContractError, match=r"RC4/load_data\.csv.*--only-plate"):
        find_plates("load_data", place, ReadOptions())
    (plate,) = find_plates("load_data", place, ReadOptions(plates=frozenset({"P1"})))
    assert fields([plate]) == GOOD
    assert "RC4/load_data.csv" in " ".join(plate.notes)
    with pytest.raises(ContractError, match=r"RC4/load_data\.csv"):
        find_plates("load_data", place, ReadOptions(plates=frozenset({"P1", "RC4"})))


def test_rows_of_other_plates_do_not_block_a_plate_either(tree):
    place = tree({"P1": table(), "P2": table("P2", ("1", "sX"))})
    with pytest.raises(ContractError, match="site 'sX'"):
        find_plates("load_data", place, ReadOptions())
    assert fields(find_plates("load_data", place, ReadOptions(plates=frozenset({"P1"})))) == GOOD
    renamed = ReadOptions(plates=frozenset({"new"}), renames={"P2": "new"})
    with pytest.raises(ContractError, match="site 'sX'"):
        find_plates("load_data", place, renamed)


CONSORTIUM = {
    "plate.csv": "Metadata_Source,Metadata_Batch,Metadata_Plate,Metadata_PlateType\ns,b1,p,TARGET2\n",
    "perturbation_control.csv": "Metadata_JCP2022,Metadata_pert_type,Metadata_Name,Metadata_modality\n"
    "J1,negcon,D,compound\n",
    "microscope_config.csv": "Metadata_Source,Metadata_Microscope_Name,Metadata_Widefield_vs_Confocal,"
    "Metadata_Objective_NA,Metadata_Sites_Per_Well,Metadata_Pixel_Size_Microns\ns,X,Widefield,0.8,9,0.6\n",
    "well.csv": "Metadata_Source,Metadata_Plate,Metadata_Well,Metadata_JCP2022\ns,p,B03,J1\n",
}


@pytest.mark.parametrize(
    ("name", "row", "read", "told"),
    [
        ("plate.csv", "s,b2,p,COMPOUND", lambda tables: tables.plates("s"), "p of b2 (COMPOUND), and of b1 (TARGET2)"),
        ("perturbation_control.csv", "J1,poscon,D,compound", lambda tables: tables.controls(), "line 3, J1"),
        ("microscope_config.csv", "s,Y,Confocal,0.8,9,0.6", lambda tables: tables.microscope("s"), "one microscope"),
        ("well.csv", "s,p,B3,J2", lambda tables: tables.wells("s", ["p"]), "J1 and J2"),
        ("well.csv", "s,p,B03,J2", lambda tables: tables.wells("s", ["p"]), "J1 and J2"),
    ],
)  # fmt: skip
def test_the_consortiums_tables_may_not_contradict_themselves(tmp_path, name, row, read, told):
    for file, text in CONSORTIUM.items():
        (tmp_path / file).write_text(text)

    def tables():
        return JumpTables(LocalTree(tmp_path))

    before = read(tables())
    equal = CONSORTIUM[name].splitlines()[1]
    (tmp_path / name).write_text(CONSORTIUM[name] + equal + "\n")
    assert read(tables()) == before
    (tmp_path / name).write_text(CONSORTIUM[name] + row + "\n")
    with pytest.raises(ContractError, match="contradicts itself") as caught:
        read(tables())
    assert told in str(caught.value)
