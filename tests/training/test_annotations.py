"""Annotations joined with compounds by each kind of key; what is missed is told."""

import pytest

from coda.errors import ContractError
from coda.training.annotations import annotate, read_keyed

COMPOUNDS = (
    "Metadata_Compound,pert_iname,InChIKey,broad_sample\n"
    "J1,Alpha  One,AAAAAAAAAAAAAA-BBBBBBBBBB-N,BRD-K00000001-001-02-3\n"
    "J2,beta|gamma,CCCCCCCCCCCCCC-DDDDDDDDDD-N,BRD-K00000002-001-02-3|BRD-A00000022-003-01-1\n"
    "J3,delta,EEEEEEEEEEEEEE-FFFFFFFFFF-N,BRD-K00000003-001-02-3\n"
)


def join(annotations, by, mechanism="moa", compounds=COMPOUNDS, **columns):
    left = read_keyed(compounds.encode(), "compounds.csv", by, columns.get("left"))
    right = read_keyed(annotations.encode(), "hub.txt", by, columns.get("right"))
    return annotate(left, right, by, mechanism)


def test_names_are_compared_without_case_and_blanks():
    found = join("!terms of use\npert_iname\tmoa\nalpha-one\tx|y\nGAMMA\tz\nomega\tq\n", "name")
    assert found.mechanisms == {"J1": ("x", "y"), "J2": ("z",)}
    assert (found.missed, found.unused, found.rows) == (("J3",), 1, 3)


def test_inchikeys_fall_back_to_their_first_block_and_say_so():
    rows = ["aaaaaaaaaaaaaa-bbbbbbbbbb-n,x", "CCCCCCCCCCCCCC-OTHERSTERE-N,y", "AAAAAAAAAAAAAA-ZZZZZZZZZZ-N,never"]
    found = join("\n".join(["InChIKey,moa", *rows]), "inchikey")
    assert found.mechanisms == {"J1": ("x",), "J2": ("y",)}  # J1 has its own key: its block is not asked
    assert (found.by_block, found.missed, found.unused) == (("J2",), ("J3",), 1)


def test_brd_numbers_are_compared_without_their_batch():
    found = join("broad_id,moa\nBRD-K00000001-300-09-9,x\nbrd-a00000022,y\n", "brd")
    assert found.mechanisms == {"J1": ("x",), "J2": ("y",)}


def test_all_rows_about_a_compound_count_together_whatever_their_order():
    rows = ["J1,b", "J1,a", "J1,NA", "J2,", "J3,unknown", "J1,b | c"]
    for lines in (rows, rows[::-1]):
        found = join("\n".join(["Metadata_Compound,moa", *lines]), "compound")
        assert found.mechanisms == {"J1": ("a", "b", "c"), "J2": (), "J3": ()}


def test_any_columns_can_be_named():
    found = join("drug;\n".replace(";", ",kind") + "alpha one,x\n", "name", "kind", right="drug", left="pert_iname")
    assert found.mechanisms == {"J1": ("x",)}


@pytest.mark.parametrize(
    ("annotations", "by", "mechanism", "message"),
    [
        ("pert_iname,moa\nomega,x\n", "name", "moa", "No compound is in the annotations"),
        ("pert_iname,moa\ndelta,x\n", "name", "mechanism", "a column mechanism"),
        ("drug,moa\ndelta,x\n", "name", "moa", "a column pert_iname or"),
        ("", "name", "moa", "cannot be read"),
    ],
)
def test_tables_that_do_not_fit_are_refused(annotations, by, mechanism, message):
    with pytest.raises(ContractError, match=message):
        join(annotations, by, mechanism)


def test_a_compound_table_without_compounds_is_refused():
    with pytest.raises(ContractError, match="a column Metadata_Compound"):
        join("pert_iname,moa\ndelta,x\n", "name", compounds="pert_iname\ndelta\n")
