"""Plate maps that people give: the wells, doses and kinds of the table, or a refusal with all lines."""

import pytest

from coda.errors import ContractError
from coda.plates.readers.given_maps import plate_maps
from coda.plates.readers.listing import FieldListing, PlateListing
from coda.plates.solvents import Solvents
from coda.plates.tabular.dialect import Dialect, Dialects
from coda.plates.tabular.table import read_table

HEAD = "Metadata_Plate,Metadata_Well,Metadata_Compound,Metadata_Treatment,Metadata_pert_type,Metadata_Dose_uM\n"
ROWS = 'P1,B02,c1,c1 low,trt,2.5\nP1,B3,c1,"c1, high",trt,10.25\nP1,B04,µ-x,µ-x,trt,0.75\nP1,B05,DMSO,DMSO,negcon,\n'
WELLS = [
    ["P1", "B02", "c1", "c1 low", "trt", "2.5"], ["P1", "B03", "c1", "c1, high", "trt", "10.25"],
    ["P1", "B04", "µ-x", "µ-x", "trt", "0.75"], ["P1", "B05", "DMSO", "DMSO", "negcon", ""],
]  # fmt: skip


@pytest.fixture
def given(tmp_path):
    def give(text, *, encoding="utf-8", dialects=None, solvents=None, name="wells.csv"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        plates = [PlateListing("P1", (FieldListing((1, 1), 1, {}),))]
        maps, remarks = plate_maps(plates, tmp_path / name, dialects or Dialects(), solvents)
        return read_table(maps["P1"].encode()).to_numpy().tolist(), " ".join(remarks)

    return give


def refusal(give, text, **how):
    with pytest.raises(ContractError) as caught:
        give(text, **how)
    return str(caught.value)


def german(text):
    return text.replace('"c1, high"', "\0").replace(",", ";").replace(".", ",").replace("\0", '"c1, high"')


def test_the_same_map_in_every_dress(given):
    assert given(HEAD + ROWS) == (WELLS, "")
    wells, told = given(german(HEAD + ROWS), encoding="utf-16")
    assert wells == WELLS
    assert "utf-16" in told
    assert "parted by semicolon" in told
    assert "decimal comma" in told
    assert given((HEAD + ROWS).replace("\n", "\r\n") + ",,,,,\r\n", encoding="cp1252")[0] == WELLS
    nano = HEAD.replace("Dose_uM", "Dose_nM") + ROWS.replace("2.5\n", "2500\n", 1).replace("10.25", "10250 nM")
    wells, told = given(nano.replace("0.75", "7.5E2"))
    assert wells == WELLS
    assert "Metadata_Dose_nM" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HEAD + "P1,B02,c1,c1,trt,2,5\nP1,B05,DMSO,DMSO,negcon,\n", "line 2 has 7 values"),
        (HEAD + "P1,B02,c1,c1,trt,10,000\n", "line 2 has 7 values"),
        (HEAD + "P1,B02,N,N-dimethyl,x,trt,1\n", "line 2 has 7 values"),
        (HEAD + 'P1,B02,c1,c1,trt,"1,000"\n', "may have a decimal sign or part thousands"),
        (HEAD + 'P1,B02,c1,c1,trt,2.5\nP1,B03,c1,c1,trt,"2,5"\n', "two decimal signs"),
        (HEAD + "P1,B02,c1,c1,trt,2500 nM\n", "dose '2500 nM'"),
        (HEAD + ROWS + "P1,B3,c2,c2,trt,1\n", "line 6: found well B03 a second time: 'c2' (trt) at 1 uM, and in line"),
        (HEAD + "P1,B02,DMSO,DMSO,trt,0\nP1,B03,0.1% dmso,x,poscon,\n", "trt in 1 well(s) of 'DMSO' (the first: B02)"),
        (HEAD + "P1,B02,c1,vehicle,trt,0\n", "a solvent as negative control"),
        (HEAD + "P1,B02,empty,empty,trt,0\n", "Write negcon or empty"),
        (HEAD + "P1,B02,c1,c1,drug,0\n", "pert_type 'drug'"),
        (HEAD + "P2,B02,c1,c1,trt,0\n", "rows of plate P1"),
        (HEAD.replace("Metadata_pert_type", "kind") + "P1,B02,c1,c1,trt,1\n", "no column Metadata_pert_type (but "),
        ("a,b\n1,2\n", "no column Metadata_Plate, Metadata_Well, Metadata_Compound"),
    ],
)  # fmt: skip
def test_what_is_not_sure_or_contradicts_itself_is_refused(given, text, told):
    assert told in refusal(given, text)


def test_options_and_lists_of_ones_own_settle_what_was_asked(given):
    thousands = HEAD + 'P1,B02,c1,c1,trt,"1,000"\n'
    assert "--table-decimal" in refusal(given, thousands)
    assert given(thousands, dialects=Dialects(named={"wells.csv": Dialect(decimal=".")}))[0][0][-1] == "1000"
    assert given(thousands, dialects=Dialects(Dialect(decimal=",")))[0][0][-1] == "1"
    drinks = HEAD + "P1,B02,ethanol,ethanol,trt,100000\n"
    assert "--solvents" in refusal(given, drinks)
    assert given(drinks, solvents=Solvents(["DMSO"]))[0][0][2] == "ethanol"


def test_equal_rows_are_told_and_count_once(given):
    wells, told = given(HEAD + ROWS + 'P1,b03,c1,"c1, high",trt,10.250\n')
    assert wells == WELLS
    assert "1 row(s) say of a well what another row says" in told


def test_rows_of_other_plates_do_not_matter(given):
    assert given(HEAD + ROWS + "P9,ZZ1,DMSO,DMSO,trt,\n")[0] == WELLS
