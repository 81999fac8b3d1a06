"""Names of mechanisms: spellings are joined and told, several in a cell are parted as named or asked about."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from coda.cli.labels import app
from coda.errors import ConfigError, ContractError
from coda.training.labels import read_labels
from coda.training.mechanism_names import normal, parted, several, spellings


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Tubulin Inhibitor", "tubulin inhibitor"), ("HDAC-inhibitor", "hdac  inhibitor"),
        ("HDAC inhibitors", "HDAC inhibitor"),
        ("β-adrenergic agonist", "beta adrenergic agonist"), ("5\u2011HT antagonist", "5-HT antagonist"),
        ("mTOR\u00a0inhibitor", "MTOR_inhibitor"), ("récepteur agonist", "re\u0301cepteur agonist"),
        ("µ-opioid agonist", "mu-opioid agonist"), ("ＨＤＡＣ inhibitor", "HDAC inhibitor"),
        ("A\u2212B blocker", "A-B blockers"),
    ],
)  # fmt: skip
def test_spellings_of_one_mechanism(one, other):
    assert normal(one) == normal(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("HDAC inhibitor", "HDAC1 inhibitor"), ("agonist", "antagonist"), ("alpha agonist", "beta agonist"),
     ("virus", "viru"), ("PI3K inhibitor", "PI3K/mTOR inhibitor"), ("Na+ blocker", "Na blocker")],
)  # fmt: skip
def test_other_mechanisms_stay_apart(one, other):
    assert normal(one) != normal(other)


@given(st.lists(st.sampled_from(["A x", "a x", "A-X", "B y", "b  Y"]), min_size=1))
def test_the_order_of_names_does_not_matter(names):
    mixed = random.Random(0).sample(names, len(names))
    assert spellings(names) == spellings(mixed)
    shown, joined = spellings(names)
    assert {normal(name) for name in names} == {normal(name) for name in shown.values()}
    assert len(set(shown.values())) == len({normal(name) for name in names})
    assert set().union(*map(set, joined.values())) <= set(names)


@pytest.mark.parametrize(
    ("name", "separator"),
    [
        ("FLT3 inhibitor, KIT inhibitor", ","), ("FLT3 inhibitor,KIT inhibitor", ","), ("FLT3; KIT inhibitor", ";"),
        ("FLT3 inhibitor；KIT inhibitor", ";"), ("A inhibitor\nB inhibitor", ";"), ("A inhibitor/B agonist", "/"),
        ("A / B", "/"), ("A inhibitor and B inhibitor", "and"), ("A inhibitor & B inhibitor", "&"),
        ("A inhibitor + B inhibitor", "+"), ("a|b", "|"), ("known, other", ","), ("known/other one", "/"),
        ("1,3-beta-glucan synthase inhibitor", None), ("nociceptin/orphanin FQ receptor agonist", None),
        ("PI3K/mTOR inhibitor", None), ("Na+/K+ ATPase inhibitor", None), ("calcium channel blocker", None),
        ("norepinephrine and dopamine reuptake inhibitor", None),
    ],
)  # fmt: skip
def test_names_that_seem_to_be_several(name, separator):
    assert several(name, {"known", "other one"}) == separator


def test_cells_are_parted_by_what_was_named():
    assert parted("a|b; c") == ["a", "b; c"]
    assert parted("a|b; c , NA;", [";"]) == ["a", "b", "c , NA"]
    assert parted("1,3-glucan x, B y,unknown", [","]) == ["1,3-glucan x", "B y"]


def call(*args):
    result = CliRunner().invoke(app, [str(item) for item in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


BASE = "Metadata_Compound,moa\nc1,HDAC inhibitor\nc2,HDAC inhibitor\nc3,tubulin inhibitor\nc4,tubulin inhibitor\n"


def test_several_in_a_cell_are_asked_about_and_the_answer_is_taken(tmp_path):
    table, out = tmp_path / "a.csv", tmp_path / "labels.csv"
    table.write_text(BASE + 'd1,"HDAC inhibitor, KIT inhibitor"\nd2,"KIT inhibitor, HDAC inhibitor"\n')
    with pytest.raises(ContractError, match="--mechanism-separator comma") as caught:
        call("build", table, "--out", out)
    assert "'KIT inhibitor, HDAC inhibitor' in line 7" in str(caught.value)
    call("build", table, "--out", out, "--mechanism-separator", "comma")
    report = json.loads((tmp_path / "labels.report.json").read_text())
    both = ["HDAC inhibitor", "KIT inhibitor"]
    assert report["dropped"]["several_mechanisms"] == {"d1": both, "d2": both}
    assert report["options"]["mechanism_separators"] == ["|", ","]
    table.write_text(BASE + 'd1,"HDAC inhibitor, KIT inhibitor"\nd2,"HDAC inhibitor, KIT inhibitor"\n')
    call("build", table, "--out", out, "--mechanism-separator", "bar")
    assert "HDAC inhibitor, KIT inhibitor" in read_labels(out.read_bytes(), "l", built=True).classes
    with pytest.raises(ConfigError, match="ampersand"):
        call("build", table, "--out", out, "--mechanism-separator", "dot")


def test_spellings_are_joined_and_told(tmp_path):
    table, out = tmp_path / "a.csv", tmp_path / "labels.csv"
    table.write_text(BASE + "e1,Tubulin-Inhibitor\ne2,TUBULIN INHIBITORS\ne2,tubulin inhibitor\n", encoding="utf-8")
    said = " ".join(call("build", table, "--out", out).split())
    assert "Joined as 'tubulin inhibitor': 'TUBULIN INHIBITORS', 'Tubulin-Inhibitor'." in said
    labels = read_labels(out.read_bytes(), "l")
    assert labels.classes == ("HDAC inhibitor", "tubulin inhibitor")
    assert labels.compounds["e2"] == "tubulin inhibitor"
    report = json.loads((tmp_path / "labels.report.json").read_text())
    assert set(report["spellings"]["tubulin inhibitor"]) == {
        "tubulin inhibitor",
        "TUBULIN INHIBITORS",
        "Tubulin-Inhibitor",
    }


def test_names_and_keys_are_found_however_they_are_written(tmp_path):
    table, compounds, out = tmp_path / "a.csv", tmp_path / "c.csv", tmp_path / "l.csv"
    table.write_text("pert_iname,moa\n5-fluorouracil,A\nbeta-estradiol,B\ncafé-acid,A\n(+)-JQ1,B\n(-)-JQ1,A\n")
    compounds.write_text(
        "Metadata_Compound,pert_iname\nk1,5\u2011Fluorouracil\nk2,β-estradiol\nk3,cafe\u0301 acid\n"
        "k4,(+)-JQ1\nk5,(−)-JQ1\n"
    )
    call("build", table, "--by", "name", "--compounds", compounds, "--out", out)
    assert read_labels(out.read_bytes(), "l").compounds == {"k1": "A", "k2": "B", "k3": "A", "k4": "B", "k5": "A"}
    table.write_text("InChIKey,moa\nK-1,A\nK-2,A\nK-3,B\nK-4,B\n")
    keys = "Metadata_Compound,InChIKey\nk1,InChIKey=K-1\nk2,inchikey= k-2\nk3,K-3\nk4,K-4\nk1,k-1\n"
    compounds.write_text(keys)
    call("build", table, "--by", "inchikey", "--compounds", compounds, "--out", out)
    assert read_labels(out.read_bytes(), "l").compounds == {"k1": "A", "k2": "A", "k3": "B", "k4": "B"}
    compounds.write_text(keys + "k1,K-2\n")
    with pytest.raises(ContractError, match="line 7: found 'K-2' for 'k1', and in line 2 'K-1'"):
        call("build", table, "--by", "inchikey", "--compounds", compounds, "--out", out)


def test_a_solvent_is_no_compound_to_learn_and_controls_do_not_contradict(tmp_path):
    table, controls, out = tmp_path / "a.csv", tmp_path / "c.csv", tmp_path / "l.csv"
    table.write_text(BASE + "DMSO,HDAC inhibitor\n")
    assert "Solvents by their names, taken as negative controls: DMSO" in " ".join(
        call("build", table, "--out", out).split()
    )
    assert "DMSO" not in read_labels(out.read_bytes(), "l").compounds
    controls.write_text("Metadata_Compound,Metadata_pert_type\nc1,poscon\nc1,trt\n")
    with pytest.raises(ContractError, match="'trt' for 'c1', and in line 2 'poscon'"):
        call("build", table, "--controls", controls, "--out", out)


@pytest.mark.parametrize(
    ("rows", "told"),
    [("e1,Tubulin-inhibitor\n", "'Tubulin-inhibitor' and 'tubulin inhibitor'"), ("e1,a; b\n", "'a; b' in line 6"),
     ("e1,HDAC inhibitor|x\n", "HDAC inhibitor|x"), ("e1,x, y\n", "line 6 has 3 values")],
)  # fmt: skip
def test_a_label_table_written_by_hand_is_held_to_the_same(rows, told):
    with pytest.raises(ContractError) as caught:
        read_labels((BASE + rows).encode(), "labels.csv")
    assert told in str(caught.value)
