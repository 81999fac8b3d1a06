"""The single-mechanism rule: golden counts of the real annotations, and every reason to leave a compound out."""

import hashlib
import json
from collections import Counter
from functools import partial

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coda.errors import ContractError
from coda.training.annotations import Annotated, annotate, read_keyed
from coda.training.label_rule import LABEL_RULES, labels_by, read_report, report_beside, report_of, table_of
from coda.training.labels import LabelList, read_labels

RULE = LABEL_RULES["single-mechanism-1"]
single_mechanism = partial(labels_by, RULE)

COLUMNS = {
    "moa_hub2020_by_name": (287, 257, 171, (58, 144), (54, 136)),
    "moa_hub2018_by_name": (295, 265, 176, (59, 148), (55, 140)),
    "moa_jump_annotator_by_inchikey": (295, 261, 174, (58, 145), (54, 137)),
    "moa_hub2020_by_brd": (274, 245, 170, (50, 125), (47, 119)),
}
"""Annotated, with exactly one mechanism, their classes; classes and compounds with two or more a class, with and
without the eight positive controls (the table of jump.md)."""


@pytest.mark.parametrize("column", COLUMNS)
def test_the_real_annotations_give_the_published_counts(shared_data, column):
    path = shared_data / "jump" / "target2" / "target2_moa_joined.csv"
    table = read_keyed(path.read_bytes(), path.name, "compound")
    kinds = pd.read_csv(shared_data / "jump" / "datasets" / "perturbation_control.csv")
    controls = dict(zip(kinds["Metadata_JCP2022"], kinds["Metadata_pert_type"], strict=True))
    annotated = annotate(table, table, "compound", column)
    with_, _, counts = single_mechanism(annotated, controls, keep_poscon=True)
    without, dropped, _ = single_mechanism(annotated, controls)
    one = (counts["annotated"], counts["one_mechanism"], counts["classes_of_one_mechanism"])
    sizes = [(len(labels.classes), len(labels.compounds)) for labels in (with_, without)]
    assert (*one, *sizes) == COLUMNS[column]
    assert counts["compounds"] == 302
    positive = {name for name, kind in dropped.controls.items() if kind == "poscon"}
    assert len(positive) <= 8
    assert not positive & set(without.compounds)


def annotated(mechanisms, missed=()):
    return Annotated(mechanisms, tuple(missed), (), 3, 10)


def test_every_compound_is_labelled_or_left_out_for_one_reason():
    found = annotated(
        {"a1": ("a",), "a2": ("a",), "b1": ("b",), "b2": ("b",), "c1": ("c",), "none": (), "two": ("a", "b"),
         "dmso": ("vehicle",), "pos": ("a",), "pos2": ("d",)},
        ["lost"],
    )  # fmt: skip
    controls = {"dmso": "negcon", "pos": "poscon", "pos2": "poscon"}
    labels, dropped, counts = single_mechanism(found, controls)
    assert labels.compounds == {"a1": "a", "a2": "a", "b1": "b", "b2": "b"}
    assert dropped.no_mechanism == ("none",)
    assert dropped.several_mechanisms == {"two": ("a", "b")}
    assert dropped.controls == controls
    assert dropped.too_few == {"c1": "c"}
    assert counts == {"compounds": 11, "annotated": 8, "one_mechanism": 7, "classes_of_one_mechanism": 4,
                      "labelled": 4, "classes": 2}  # fmt: skip
    kept, dropped, _ = single_mechanism(found, controls, keep_poscon=True)
    assert kept.compounds == {**labels.compounds, "pos": "a"}
    assert dropped.too_few == {"c1": "c", "pos2": "d"}
    assert dropped.controls == {"dmso": "negcon"}


@given(
    st.dictionaries(st.text("xyz", min_size=1, max_size=3), st.sets(st.sampled_from("abcd"), max_size=2), max_size=30),
    st.dictionaries(st.text("xyz", min_size=1, max_size=3), st.sampled_from(["negcon", "poscon", "empty"]), max_size=6),
    st.booleans(),
)
def test_the_rule_is_what_it_says(mechanisms, controls, keep):
    found = annotated({name: tuple(sorted(values)) for name, values in mechanisms.items()})
    try:
        labels, dropped, _ = single_mechanism(found, controls, keep_poscon=keep)
    except ContractError:
        return
    sizes = Counter(labels.compounds.values())
    assert min(sizes.values()) >= 2
    for name, mechanism in labels.compounds.items():
        assert mechanisms[name] == {mechanism}
        assert controls.get(name) not in {"negcon", "empty"}
        assert keep or controls.get(name) != "poscon"
    groups = [set(labels.compounds), set(dropped.no_mechanism), set(dropped.several_mechanisms),
              set(dropped.controls), set(dropped.too_few)]  # fmt: skip
    assert sum(map(len, groups)) == len(set().union(*groups)) == len(mechanisms)


def test_too_little_to_learn_is_refused_with_the_counts():
    with pytest.raises(ContractError, match=r"0 compound.* of 0 mechanism.*'one_mechanism': 2"):
        single_mechanism(annotated({"x": ("a",), "y": ("b",)}), {})


def test_the_table_is_what_training_reads_and_the_report_knows_it(tmp_path):
    found = annotated({"a1": ("a",), "a2": ("a",), "b,1": ('b "x"',), "b2": ('b "x"',)}, ["lost"])
    labels, dropped, counts = single_mechanism(found, {})
    report = report_of(RULE, labels, dropped, counts, found, options={"joined_by": "name"}, inputs={"hub.txt": b"abc"})
    read = read_labels(table_of(labels), "labels.csv")
    assert read == labels
    assert read.digest == report.digest
    said = json.loads(report.to_bytes())
    assert said["classes"] == {"a": 2, 'b "x"': 2}
    assert said["inputs"] == {"hub.txt": hashlib.sha256(b"abc").hexdigest()}
    assert (said["missed"], said["counts"]["unused_annotations"], said["rule"]) == (["lost"], 3, "single-mechanism-1")
    assert read_report(report.to_bytes(), labels, "r") == said
    assert report_beside("s3://a/labels.csv") == "s3://a/labels.report.json"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"digest": "00"}', b"\xff"])
def test_the_report_of_another_table_is_never_taken_for_this_one(content):
    with pytest.raises(ContractError, match=r"coda labels build"):
        read_report(content, LabelList({"a": "x", "b": "y"}), "labels.report.json")
