"""The gate's policy: a file of the package or of a laboratory, checked whole, and carried by the parameters."""

from typing import Any

import pytest
import yaml

from coda.config import Params, load_params, params_digest
from coda.config.policy import POLICIES, STANDARD_POLICY, GatePolicy, policy_path
from coda.errors import ConfigError


def standard() -> dict[str, Any]:
    return yaml.safe_load(policy_path(STANDARD_POLICY).read_text())


def write(path, **changes) -> None:
    path.write_text(yaml.safe_dump({**standard(), **changes}))


def test_every_policy_of_the_package_has_the_name_and_version_of_its_file(root):
    found = sorted(POLICIES.glob("*.yaml"))
    assert found
    for path in found:
        policy = load_params(root / "params.yaml", (), [f"gate.policy={path.stem}"]).gate.policy
        assert policy.title == path.stem


def test_a_laboratorys_own_policy_lies_beside_the_file_that_names_it(root, tmp_path):
    own = {**standard()["health"], "min_feature_spread": 0.3}
    write(tmp_path / "strict.yaml", name="strict", version=7, health=own)
    (tmp_path / "overlay.yaml").write_text("gate: {policy: strict.yaml}")
    params = load_params(root / "params.yaml", [tmp_path / "overlay.yaml"])
    assert (params.gate.policy.title, params.gate.policy.health.min_feature_spread) == ("strict-v7", 0.3)
    direct = load_params(root / "params.yaml", (), [f"gate.policy={tmp_path / 'strict.yaml'}"])
    assert direct == params
    # it travels with the parameters: no step needs the file
    (tmp_path / "strict.yaml").unlink()
    assert Params.model_validate_json(params.model_dump_json()) == params


def test_all_problems_of_a_policy_are_told_at_once_with_their_places(root, tmp_path):
    write(
        tmp_path / "bad.yaml",
        health={"min_marginal_entropy": 1.5, "min_feature_spread": "low", "max_top_class_share": 0.6},
        guards={"replicate_map": {"max_fall": -1.0, "min_treatments": 0, "otherwise": "shrug"}, "beauty": {}},
        surprise=1,
    )
    with pytest.raises(ConfigError) as caught:
        load_params(root / "params.yaml", (), [f"gate.policy={tmp_path / 'bad.yaml'}", "seed=-1"])
    places = {problem.where for problem in caught.value.problems}
    assert places >= {
        "seed",
        "gate.policy.health.min_marginal_entropy",
        "gate.policy.health.min_feature_spread",
        "gate.policy.health.min_rank_share",
        "gate.policy.guards.replicate_map.max_fall",
        "gate.policy.guards.replicate_map.min_treatments",
        "gate.policy.guards.replicate_map.otherwise",
        "gate.policy.surprise",
    }
    assert any("beauty" in place for place in places)
    assert "bad.yaml" in caught.value.message


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("deciding", {**standard()["deciding"], "measure": "neighbour"}, "neighbour decides"),
        ("deciding", {**standard()["deciding"], "measure": "rankme"}, "agreement"),
        ("approval", {"releases": "person", "approvers": [], "sources": {}}, "at least one approver"),
        (
            "approval",
            {"releases": "automatic", "approvers": [], "sources": {"lab": {"releases": "person", "approvers": []}}},
            "at least one approver",
        ),
        ("baseline", "aligned_by_hand", "one of adaptation.candidates"),
    ],
)
def test_policies_that_contradict_themselves(root, tmp_path, section, values, words):
    write(tmp_path / "p.yaml", **{section: values})
    with pytest.raises(ConfigError, match=words):
        load_params(root / "params.yaml", (), [f"gate.policy={tmp_path / 'p.yaml'}"])


def test_a_policy_that_is_not_there_does_not_hide_other_problems(root):
    with pytest.raises(ConfigError) as caught:
        load_params(root / "params.yaml", (), ["gate.policy=gate-v99", "seed=-1"])
    assert {problem.where for problem in caught.value.problems} == {"gate.policy", "seed"}
    assert STANDARD_POLICY in str(caught.value)


@pytest.mark.parametrize("setting", ["gate.policy.health.min_feature_spread=0.1", "gate.policy=3"])
def test_a_policy_is_named_whole_and_never_patched(root, setting):
    with pytest.raises(ConfigError, match="raise its version") as caught:
        load_params(root / "params.yaml", (), [setting])
    assert [problem.where for problem in caught.value.problems] == ["gate.policy"]


def test_the_digest_names_the_values_and_nothing_else(root, tmp_path):
    text = policy_path(STANDARD_POLICY).read_text()
    (tmp_path / "same.yaml").write_text(f"# another comment\n{text}")
    (tmp_path / "other.yaml").write_text(text.replace("min_gain: 0.0 ", "min_gain: 0.1 "))
    plain = load_params(root / "params.yaml")
    same, other = (
        load_params(root / "params.yaml", (), [f"gate.policy={tmp_path / name}"])
        for name in ("same.yaml", "other.yaml")
    )
    assert same.gate.policy.digest() == plain.gate.policy.digest()
    assert params_digest(same) == params_digest(plain)
    assert other.gate.policy.digest() != plain.gate.policy.digest()
    assert params_digest(other) != params_digest(plain)


def test_a_source_without_its_own_line_has_the_default_approval():
    own = {"releases": "person", "approvers": ("Ada", "Grace")}
    content = {**standard(), "approval": {"releases": "automatic", "approvers": ("Lise",), "sources": {"lab_b": own}}}
    policy = GatePolicy.model_validate(content)
    assert policy.approval_of("lab_b").approvers == ("Ada", "Grace")
    assert policy.approval_of("lab_b").releases == "person"
    assert (policy.approval_of("lab_c").releases, policy.approval_of("lab_c").approvers) == ("automatic", ("Lise",))
