"""Solvents by their names, whatever a laboratory adds to them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coda.errors import ConfigError
from coda.plates.solvents import Solvents, listed, packaged, read_solvents


@pytest.mark.parametrize(
    "name",
    [
        "DMSO", "dmso", " Dmso ", "0.1% DMSO", "DMSO 0,5 %", "DMSO (0.1% v/v)", "DMSO control", "DMSO_ctrl", "DMSO-2",
        "DMSO_01", "DMSO3", "dimethyl sulfoxide", "Dimethyl-Sulfoxide", "dimethylsulfoxide", "Dimethyl sulphoxide",
        "dimethyl\u2010sulfoxide", "ＤＭＳＯ", "vehicle", "Vehicle control", "vehicle (DMSO)", "EtOH", "70% ethanol",
        "water", "H2O", "ddH2O", "sterile water", "PBS", "1x PBS", "DMSO in PBS", "DMSO/media", "Media", "medium only",
        "untreated", "UNTREATED", "non-treated", "no treatment", "mock", "mock-treated", "Me2SO",
        "IAZDPXIOMUYVGZ-UHFFFAOYSA-N",
    ],
)  # fmt: skip
def test_names_of_solvents(name):
    assert packaged().meaning(name) == "solvent"


@pytest.mark.parametrize("name", ["control", "Negative control", "neg_ctrl", "empty", "EMPTY", "blank", "no cells"])
def test_names_that_do_not_say_what_a_well_holds(name):
    assert packaged().meaning(name) == "unclear"


@pytest.mark.parametrize(
    "name",
    ["", "BRD-K83029223", "JCP2022_033924", "positive control", "ethanolamine", "water-soluble vitamin E", "PBS-1086",
     "mediamycin", "waterfall 3", "dimethylsulfone", "AMG900", "5-fluorouracil", "methanolic extract", "cmpd-1",
     "unknown:p1:A01",
     "KBPLFHHGFOOTCA-UHFFFAOYSA-N", "phosphate", "1-octanol", "mocetinostat", "carrierin"],
)  # fmt: skip
def test_names_of_compounds(name):
    assert packaged().meaning(name) is None


@given(
    st.sampled_from(["DMSO", "dimethyl sulfoxide", "water", "untreated"]), st.sampled_from([" ", "-", "_", "  "]),
    st.sampled_from(["", "0.1% ", "1 % (v/v) "]), st.sampled_from(["", " control", " ctrl", "_7"]), st.booleans(),
)  # fmt: skip
def test_spelling_does_not_matter(name, blank, before, after, upper):
    text = before + name.replace(" ", blank) + after
    assert packaged().meaning(text.upper() if upper else text) == "solvent"


def test_a_laboratory_has_its_own_list(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("solvents: [DMSO, corn oil]\n")
    mine = read_solvents(own)
    assert [mine.meaning(name) for name in ("1% DMSO", "Corn-Oil", "ethanol")] == ["solvent", "solvent", None]
    assert listed(("corn oil",)).meaning("DMSO") is None
    assert listed(()) is packaged()
    for text in ("", "[1]", "solvents: 3", "solvents: [1]", "solvents: []", "a: [b", "other: [x]"):
        own.write_text(text)
        with pytest.raises(ConfigError, match=r"solvents\.yaml|mine\.yaml"):
            read_solvents(own)
    with pytest.raises(ConfigError):
        read_solvents(tmp_path / "none.yaml")


def test_no_compound_of_the_real_set_is_taken_for_a_solvent(shared_data):
    from coda.plates.tabular.table import read_table

    table = read_table((shared_data / "jump" / "target2" / "JUMP-Target-2_compound_metadata.tsv").read_bytes())
    found = set(table.loc[[packaged().meaning(name) is not None for name in table["pert_iname"]], "pert_iname"])
    assert found == {"DMSO"}


def test_an_empty_list_knows_nothing():
    assert Solvents([]).meaning("DMSO") is None
