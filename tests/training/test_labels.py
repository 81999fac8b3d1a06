"""Labels: what a table may hold, what is joined, what is missed."""

import json

import numpy as np
import pytest

from coda.errors import ContractError
from coda.training.labels import LabelList, join, read_labels

GOOD = b"Metadata_Compound,moa\nc0,kinase\nc1,tubulin\nc2,kinase\nc9,proteasome\nc8,\n"


def test_a_good_table_gives_classes_in_alphabetical_order():
    labels = read_labels(GOOD, "labels.csv")
    assert labels.classes == ("kinase", "proteasome", "tubulin")
    assert "c8" not in labels.compounds


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"compound,mechanism\nc0,kinase\n", "a column Metadata_Compound"),
        (b"Metadata_Compound,moa\nc0,kinase\nc0,tubulin\n", "c0: found kinase and tubulin; expected one mechanism"),
        (b"Metadata_Compound,moa\nc0,kinase\nc1,kinase\n", "at least two"),
        (b"Metadata_Compound,moa\nc0,kinase\n,tubulin\nc1,tubulin\n", "line 3: found no compound"),
    ],
)
def test_bad_tables_are_refused_with_place_and_remedy(content, message):
    with pytest.raises(ContractError) as caught:
        read_labels(content, "labels.csv")
    assert message in str(caught.value)
    assert "labels.csv" in str(caught.value)


def test_all_problems_come_together():
    content = b"Metadata_Compound,moa\nc0,a\nc0,b\nc1,a\nc1,b\n,a\n"
    with pytest.raises(ContractError) as caught:
        read_labels(content, "labels.csv")
    assert len(caught.value.problems) == 3


def test_join_reports_what_was_missed_on_both_sides(make_table):
    table = make_table(
        5, Compound=["c0", "c1", "c7", "DMSO", "c0"], pert_type=["trt", "trt", "trt", "negcon", "trt"],
    )  # fmt: skip
    labels, report = join(read_labels(GOOD, "labels.csv"), table, "labels.csv")
    assert labels.classes == ("kinase", "tubulin")
    assert (report.labelled_fields, report.unlabelled_fields) == (3, 1)
    assert report.missed_compounds == ("c7",)
    assert report.absent_compounds == ("c2", "c9")
    assert labels.codes(table).tolist() == [0, 1, -1, -1, 0]


def test_a_control_is_never_labelled_even_when_the_table_names_it(make_table):
    table = make_table(2, Compound=["c0", "c0"], pert_type=["negcon", "trt"])
    assert LabelList({"c0": "kinase", "c1": "tubulin"}).codes(table).tolist() == [-1, 0]


def test_labels_of_other_plates_are_refused(make_table):
    with pytest.raises(ContractError, match="do not belong"):
        join(read_labels(GOOD, "labels.csv"), make_table(3, Compound=["x", "y", "z"]), "labels.csv")


def test_the_frozen_list_names_itself():
    one, other = LabelList({"a": "x", "b": "y"}), LabelList({"b": "y", "a": "x"})
    assert one.digest == other.digest
    content = json.loads(one.to_bytes())
    assert content["digest"] == one.digest
    assert content["classes"] == ["x", "y"]
    assert LabelList({"a": "y", "b": "y"}).digest != one.digest
    assert np.array_equal(LabelList(content["compounds"]).classes, ("x", "y"))
