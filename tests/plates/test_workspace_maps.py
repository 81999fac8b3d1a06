"""A batch's own platemaps: contradictions are refused together, solvents are controls, maps are found by name."""

import pytest

from coda.errors import ContractError
from coda.plates.jump.plate_maps import maps_of_workspace
from coda.plates.tabular.table import read_table
from coda.plates.tree import LocalTree

GOOD = [("B02", "BRD-A", "0.005", "DMSO"), ("B03", "BRD-B", "4.999130435", "DMSO"), ("B05", "", "", "DMSO")]


@pytest.fixture
def workspace(tmp_path):
    def build(
        maps, barcodes, compounds=None, head="plate_map_name\twell_position\tbroad_sample\tmmoles_per_liter\tsolvent"
    ):
        (tmp_path / "platemap").mkdir(exist_ok=True)
        (tmp_path / "barcode_platemap.csv").write_text(
            "Assay_Plate_Barcode,Plate_Map_Name\n" + "".join(f"{plate},{name}\n" for plate, name in barcodes)
        )
        for name, rows in maps.items():
            text = head + "\n" + "".join("\t".join(("m", *row)) + "\n" for row in rows)
            (tmp_path / "platemap" / name).write_text(text)
        maps, remarks = maps_of_workspace(LocalTree(tmp_path), {"0012345": {(1, 1)}}, compounds=compounds)
        rows = read_table(maps["0012345"].encode()).to_numpy().tolist()
        return {row[1]: row[2:] for row in rows}, " ".join(remarks)

    return build


def refused(build, *args, **how):
    with pytest.raises(ContractError) as caught:
        build(*args, **how)
    return str(caught.value)


BARCODES = [("0012345", "M1")]


def test_doses_keep_all_their_digits(workspace):
    wells, told = workspace({"M1.txt": GOOD}, BARCODES)
    assert told == ""
    assert wells == {
        "B02": ["BRD-A", "BRD-A@5", "trt", "5"],
        "B03": ["BRD-B", "BRD-B@4999.13", "trt", "4999.130435"],
        "B05": ["DMSO", "DMSO", "negcon", ""],
    }


def test_contradictions_are_refused_together_and_equal_rows_told(workspace):
    twice = [*GOOD, ("B3", "BRD-Z", "0.02", "DMSO"), ("b02", "BRD-A", "0.01", "DMSO"), ("B99", "x", "abc", "")]
    told = refused(workspace, {"M1.txt": twice}, BARCODES)
    for part in (
        "line 5: found well B03 a second time: 'BRD-Z' (trt) at 20 uM, and in line 3",
        "line 6",
        "dose 'abc'",
    ):
        assert part in told
    wells, told = workspace({"M1.txt": [*GOOD, ("B2", "BRD-A", "0.0050", "DMSO")]}, [*BARCODES, *BARCODES])
    assert wells["B02"][0] == "BRD-A"
    assert "1 well(s) stand there twice, equal (B02)" in told
    assert "1 plate(s) stand there twice with the same map (0012345)" in told
    told = refused(workspace, {"M1.txt": GOOD, "M2.txt": GOOD}, [*BARCODES, ("0012345", "M2")])
    assert "line 3: found the map 'M2' for plate '0012345', and in line 2 'M1'" in told


@pytest.mark.parametrize("name", ["DMSO", "dmso 0.1%", "Vehicle control", "Untreated", "water"])
def test_a_solvent_written_as_the_sample_is_a_control(workspace, name):
    wells, told = workspace({"M1.txt": [*GOOD[:2], ("B05", name, "0", "DMSO")]}, BARCODES)
    assert wells["B05"] == [name, name, "negcon", ""]
    assert f"{name!r} stands as the sample of 1 well(s) (B05)" in told


def test_an_empty_well_by_name_is_asked_about(workspace):
    assert "the sample 'EMPTY'" in refused(workspace, {"M1.txt": [("B02", "EMPTY", "", "DMSO")]}, BARCODES)


def test_the_metadata_says_which_sample_is_a_solvent(workspace):
    named = b"broad_sample\tpert_iname\tInChIKey\nBRD-A\taaa\tK1\nBRD-B\tDimethyl sulfoxide\tK2\n"
    wells, told = workspace({"M1.txt": GOOD}, BARCODES, compounds=named)
    assert wells["B03"][2] == "negcon"
    assert "'Dimethyl sulfoxide' is a solvent" in told
    said = b"broad_sample\tpert_iname\tpert_type\nBRD-A\taaa\ttrt\nBRD-B\tDMSO\ttrt\n"
    assert "line 3: found 'DMSO' as a treatment (trt)" in refused(workspace, {"M1.txt": GOOD}, BARCODES, compounds=said)
    two = b"broad_sample\tInChIKey\nBRD-A\tK1\nBRD-A\tK2\nBRD-B\tK3\n"
    assert "K2 and 'BRD-A' (trt) K1" in refused(workspace, {"M1.txt": GOOD}, BARCODES, compounds=two)
    equal = b"broad_sample\tInChIKey\nBRD-A\tK1\nBRD-A\tk1\n"
    assert workspace({"M1.txt": GOOD}, BARCODES, compounds=equal)[0]["B02"][0] == "BRD-A"


@pytest.mark.parametrize(("file", "name"), [("M1.txt", "M1.txt"), ("M1.txt.txt", "M1"), ("M1.csv", "M1"),
                                            ("M1.txt.txt", "M1.txt.txt"), ("M1.TXT", "M1")])  # fmt: skip
def test_a_map_is_found_with_or_without_its_endings(workspace, file, name):
    assert workspace({file: GOOD}, [("0012345", name)])[0]["B02"][0] == "BRD-A"


def test_two_maps_of_one_name_are_refused_unless_they_are_equal(workspace):
    assert workspace({"M1.txt": GOOD, "M1.txt.txt": GOOD}, BARCODES)[0]["B02"][0] == "BRD-A"
    assert "M1.txt, platemap/M1.txt.txt, which differ" in refused(
        workspace, {"M1.txt": GOOD, "M1.txt.txt": GOOD[:1]}, BARCODES
    )


def test_doses_are_in_the_unit_of_their_column(workspace):
    head = "plate_map_name\twell_position\tbroad_sample\tconcentration_nM\tsolvent"
    wells, _ = workspace(
        {"M1.txt": [("B02", "BRD-A", "2500", "DMSO"), ("B03", "BRD-B", "0,5", "DMSO")]}, BARCODES, head=head
    )
    assert [wells[name][3] for name in ("B02", "B03")] == ["2.5", "0.0005"]
