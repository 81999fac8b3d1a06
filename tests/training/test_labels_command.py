"""`coda labels`, as a user types it."""

import json
import subprocess

import pandas as pd
import pytest
from typer.testing import CliRunner

from coda.cli.labels import app
from coda.errors import ConfigError, ContractError
from coda.training.label_rule import LABEL_RULES, LabelRule
from coda.training.labels import read_labels


def call(*args):
    result = CliRunner().invoke(app, [str(item) for item in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


HUB = "!Terms of use: yours\npert_iname\tmoa\none\ta\ntwo\tA B\nthree\ta\nfour\tb|a\nfive\tA B\nsix\tc\ndmso\tvehicle\n"
COMPOUNDS = "Metadata_Compound,pert_iname\n" + "".join(
    f"J{number},{name}\n" for number, name in enumerate(["one", "two", "three", "four", "five", "six", "dmso", "new"])
)
CONTROLS = "Metadata_JCP2022,Metadata_pert_type\nJ6,negcon\nJ2,poscon\n"


@pytest.fixture
def tables(tmp_path):
    for name, text in {"hub.txt": HUB, "compounds.csv": COMPOUNDS, "controls.csv": CONTROLS}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_label_table_is_built_with_its_report(tables):
    out = tables / "out" / "labels.csv"
    said = call("build", tables / "hub.txt", "--by", "name", "--compounds", tables / "compounds.csv", "--controls",
                tables / "controls.csv", "--keep-poscon", "--out", out)  # fmt: skip
    assert "4 compounds of 2 mechanisms" in said
    labels = read_labels(out.read_bytes(), str(out))
    assert labels.compounds == {"J0": "a", "J2": "a", "J1": "A B", "J4": "A B"}
    report = json.loads((tables / "out" / "labels.report.json").read_text())
    assert report["digest"] == labels.digest
    assert (report["missed"], report["dropped"]["several_mechanisms"]) == (["J7"], {"J3": ["a", "b"]})
    assert report["dropped"]["too_few"] == {"J5": "c"}
    assert set(report["inputs"]) == {"hub.txt", "compounds.csv", "controls.csv"}
    assert str(tables) not in json.dumps(report)


def test_a_rule_that_is_added_to_the_list_is_chosen_by_its_name_and_stands_in_the_report(tables, monkeypatch):
    joint = LabelRule("joint-1", "each set of mechanisms", " + ".join)
    monkeypatch.setitem(LABEL_RULES, joint.name, joint)
    (tables / "own.csv").write_text("Metadata_Compound,moa\nx,a\ny,a\nz,a|b\nw,b|a\nv,b\nu,\n")
    call("build", tables / "own.csv", "--rule", "joint-1", "--out", tables / "labels.csv")
    labels = read_labels((tables / "labels.csv").read_bytes(), "labels.csv", built=True)
    assert labels.compounds == {"x": "a", "y": "a", "z": "a + b", "w": "a + b"}
    report = json.loads((tables / "labels.report.json").read_text())
    assert report["rule"] == "joint-1"
    assert report["dropped"] == {
        "no_mechanism": ["u"], "several_mechanisms": {}, "controls": {}, "too_few": {"v": "b"}
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        call("build", tables / "own.csv", "--rule", "joint-2", "--out", tables / "labels.csv")
    assert "single-mechanism-1 (exactly one mechanism); joint-1" in str(caught.value)


def test_a_rule_stands_in_one_place(root):
    command = ["git", "grep", "-l", 'exactly one mechanism"', "--", "coda", "components", "pipelines"]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split()
    assert found == ["coda/training/label_rule.py"]


def test_positive_controls_are_left_out_unless_asked_for(tables):
    with pytest.raises(ContractError, match="at least two mechanisms"):
        call("build", tables / "hub.txt", "--by", "name", "--compounds", tables / "compounds.csv", "--controls",
             tables / "controls.csv", "--out", tables / "labels.csv")  # fmt: skip
    assert not (tables / "labels.csv").exists()


def test_without_a_compound_table_the_annotations_name_the_compounds(tables):
    (tables / "own.csv").write_text("Metadata_Compound,moa\nx,a\ny,a\nz,b\nw,b\n")
    said = call("build", tables / "own.csv", "--out", tables / "labels.csv")
    assert "No controls were named" in said
    assert len(read_labels((tables / "labels.csv").read_bytes(), "l").compounds) == 4
    with pytest.raises(ConfigError, match=r"ends in \.csv"):
        call("build", tables / "own.csv", "--out", tables / "labels.parquet")
    with pytest.raises(ConfigError, match="No such file"):
        call("build", tables / "nothing.csv", "--out", tables / "labels.csv")


def test_the_real_set_from_positions_to_labels(shared_data, tmp_path):
    jump = shared_data / "jump"
    target = jump / "target2"
    said = call("positions", "--platemap", target / "JUMP-Target-2_compound_platemap.tsv", "--metadata",
                target / "JUMP-Target-2_compound_metadata.tsv", "--jump-tables", jump / "datasets", "--source",
                "source_8", "--out", tmp_path / "compounds.csv")  # fmt: skip
    assert "302 compounds by 1536 wells of 4 plate(s)" in said
    # an annotation file of one's own, by name, as collections are laid out
    truth = pd.read_csv(target / "target2_moa_joined.csv", dtype=str, keep_default_na=False)
    hub = truth[["pert_iname", "moa_hub2020_by_name"]].rename(columns={"moa_hub2020_by_name": "moa"})
    hub.to_csv(tmp_path / "hub.txt", sep="\t", index=False)
    said = call("build", tmp_path / "hub.txt", "--by", "name", "--compounds", tmp_path / "compounds.csv", "--controls",
                jump / "datasets" / "perturbation_control.csv", "--out", tmp_path / "labels.csv")  # fmt: skip
    assert "136 compounds of 54 mechanisms" in said


def test_one_command_goes_from_plates_of_several_sources_to_the_same_labels(shared_data, tmp_path):
    jump = shared_data / "jump"
    target = jump / "target2"
    truth = pd.read_csv(target / "target2_moa_joined.csv", dtype=str, keep_default_na=False)
    hub = truth[["pert_iname", "moa_hub2020_by_name"]].rename(columns={"moa_hub2020_by_name": "moa"})
    hub.to_csv(tmp_path / "hub.txt", sep="\t", index=False)
    given = ["build", tmp_path / "hub.txt", "--by", "name", "--out", tmp_path / "labels.csv", "--jump-tables",
             jump / "datasets", "--platemap", target / "JUMP-Target-2_compound_platemap.tsv"]  # fmt: skip
    metadata = ["--metadata", target / "JUMP-Target-2_compound_metadata.tsv"]
    said = call(*given, *metadata, "--source", "source_8", "--source", "source_7", "--plate-type", "TARGET2")
    assert "302 compounds by 1536 wells of 4 plate(s)" in said
    assert "7 plate(s) are not in the table of wells, and were left out" in said
    assert "136 compounds of 54 mechanisms" in said
    assert "No controls were named" not in said
    with pytest.raises(ConfigError, match="--metadata: found nothing"):
        call(*given)
    with pytest.raises(ConfigError, match="--compounds"):
        call(*given, *metadata, "--compounds", tmp_path / "hub.txt")
    with pytest.raises(ConfigError, match="no wells of"):
        call(*given, *metadata, "--source", "source_7")


def test_plates_that_cannot_be_joined_are_told(shared_data, tmp_path):
    jump = shared_data / "jump"
    target = jump / "target2"
    given = ["positions", "--platemap", target / "JUMP-Target-2_compound_platemap.tsv", "--metadata",
             target / "JUMP-Target-2_compound_metadata.tsv", "--jump-tables", jump / "datasets", "--out",
             tmp_path / "c.csv"]  # fmt: skip
    with pytest.raises(ConfigError, match="no wells of NOWHERE"):
        call(*given, "--plate", "NOWHERE")
    with pytest.raises(ContractError, match="do not agree"):
        call(*given, "--source", "source_4", "--plate", "BR00117035")  # an ORF plate
    with pytest.raises(ContractError, match="a column well_position"):
        call(*given[:2], target / "target2_moa_joined.csv", *given[3:])
