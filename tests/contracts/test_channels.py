"""Channels: which names there are, who plays which role, in which colour; and that old manifests are what they were."""

import json
import re
import string

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from coda.contracts import STAINS, BatchManifest
from coda.contracts.base import digest_of_json
from coda.contracts.channels import (
    LEFT_OUT,
    PALETTE,
    clashes,
    colours_of,
    in_order,
    in_yaml,
    is_transmitted,
    listed,
    name_fault,
    nuclei_of,
    roles_of,
    tints_of,
    words_of,
)
from coda.quality.stats import STATISTICS, channel_of, pair_name, statistic_names

LETTERS = string.ascii_letters + string.digits
NAMES = st.text(LETTERS + "-_", min_size=1, max_size=40).filter(lambda name: not name_fault(name))


def is_name(text: str) -> bool:
    """Say it in other words: every sign is allowed, the first is a letter or digit, at most 40, no stain misspelt."""
    plain = 1 <= len(text) <= 40 and all(sign in LETTERS + "-_" for sign in text) and text[0] in LETTERS
    misspelt = text not in STAINS and text.lower() in {stain.lower() for stain in STAINS}
    return plain and not misspelt and text.lower() != LEFT_OUT


@given(
    st.one_of(st.text(max_size=45), st.text(LETTERS + "-_ .", max_size=45), st.sampled_from(["dna", "MITO", "None"]))
)
def test_a_name_is_what_the_rule_says(text: str) -> None:
    assert (name_fault(text) == "") == is_name(text)


@given(st.lists(NAMES, max_size=8))
def test_names_that_differ_by_case_alone_are_found_and_no_others(names: list[str]) -> None:
    folded = [name.lower() for name in set(names)]
    assert bool(clashes(names)) == (len(set(folded)) < len(folded))


@given(st.sets(NAMES, max_size=10))
def test_the_order_depends_on_names_alone(names: set[str]) -> None:
    found = in_order(iter(names))
    assert set(found) == names
    assert len(found) == len(names)
    assert [name for name in found if name in STAINS] == [stain for stain in STAINS if stain in names]
    assert found == in_order(reversed(found))
    others = [name.lower() for name in found if name not in STAINS]
    assert others == sorted(others)
    assert not any(name in STAINS for name in found[len(found) - len(others) :])


@given(st.lists(NAMES, min_size=1, max_size=6, unique=True))
def test_a_list_of_names_can_be_typed_as_a_parameter(names: list[str]) -> None:
    assert yaml.safe_load(listed(names)) == names
    assert yaml.safe_load("{" + ", ".join(f"{in_yaml(name)}: {in_yaml(name)}" for name in names) + "}") == {
        name: name for name in names
    }


@given(st.lists(NAMES, min_size=2, max_size=6, unique=True))
def test_no_two_statistics_share_a_name_whatever_channels_are_called(names: list[str]) -> None:
    columns = statistic_names(tuple(names), names[0])
    assert len(set(columns)) == len(columns)
    single = [(statistic, name) for name in names for statistic in STATISTICS]
    assert [channel_of(f"QC_{statistic}_{name}") for statistic, name in single] == single


def test_pairs_of_usual_names_are_called_as_before_and_others_are_told_apart() -> None:
    assert pair_name("corr", "DNA", "ER") == "corr_DNA_ER"
    assert pair_name("corr", "a", "b_c") != pair_name("corr", "a_b", "c")


@pytest.mark.parametrize(
    "name",
    ["Brightfield", "brightfield_2", "BF", "BF-low", "Phase", "DPC", "DigitalPhase", "HighZBF", "Brightfield high",
     "DIC", "Digital Phase Contrast"],
)  # fmt: skip
def test_transmitted_light_is_known_by_its_name(name: str) -> None:
    assert is_transmitted(name)


@pytest.mark.parametrize("name", ["DNA", "Actin", "GFP", "Tubulin", "Golgi", "Hoechst", "EdU", "ABF1x"])
def test_stains_are_no_transmitted_light(name: str) -> None:
    assert not is_transmitted(name)


def test_roles_are_those_of_the_preset_until_somebody_says_otherwise() -> None:
    assert roles_of(STAINS, {}) == {"DNA": "nuclei", **dict.fromkeys(STAINS[1:], "cytoplasm")}
    assert roles_of(("Hoechst", "Actin", "BF"), {}) == {"BF": "transmitted"}
    assert nuclei_of(roles_of(("Hoechst", "Actin"), {})) is None
    stated = {"Hoechst": "nuclei", "Actin": "cytoplasm"}
    assert roles_of(("DNA", "Hoechst", "Actin"), stated) == stated, "who is said to show nuclei is the only one"
    assert nuclei_of(roles_of(("Actin", "Hoechst"), stated)) == "Hoechst"


def test_colours_are_stated_usual_or_of_the_palette_and_transmitted_light_hides_nothing() -> None:
    names = ("DNA", "Actin", "BF", "Tubulin")
    colours = colours_of(names, {"Tubulin": "123456"})
    assert colours == {"DNA": "0000FF", "Actin": PALETTE[0], "BF": "FFFFFF", "Tubulin": "123456"}
    roles = roles_of(names, {})
    tints = tints_of(names, roles, colours)
    assert tints["BF"] == (0.0, 0.0, 0.0)
    red, green, blue = tints["Actin"]
    assert red == blue > green == 0.0, "magenta"
    assert words_of(names, roles, colours) == "DNA blue, Actin #FF00FF, BF not in colour, Tubulin #123456"
    alone = tints_of(("BF",), roles_of(("BF",), {}), colours)
    assert alone["BF"] == (1.0, 1.0, 1.0), "where there is nothing else it is shown"


def document(**changes: object) -> dict[str, object]:
    entry = {"path": "a.csv", "size_bytes": 1, "sha256": "0" * 64}
    plate = {"plate": "p", "plate_map": "a.csv", "load_data": "a.csv", "sites_per_well": 1, "files": [entry]}
    return {
        "schema_version": 1, "source": "lab", "batch": "b", "created_at": "2026-11-01T10:00:00Z",
        "instrument": {"name": "scope", "modality": "confocal", "pixel_size_um": 0.6},
        "channels": ["DNA", "ER"], "plate_wells": 384, "plates": [plate], **changes,
    }  # fmt: skip


def test_a_manifest_without_roles_is_written_and_named_as_before_there_were_any() -> None:
    read = BatchManifest.parse(json.dumps(document()), "m")
    written = read.model_dump(mode="json")
    assert not {"roles", "colours"} & set(written)
    assert read.digest() == digest_of_json(written)
    said = BatchManifest.parse(json.dumps(document(roles={"ER": "nuclei"})), "m")
    assert said.model_dump(mode="json")["roles"] == {"ER": "nuclei"}
    assert said.digest() != read.digest()


def test_channels_under_other_names_keep_what_is_said_of_them() -> None:
    given_names = document(channels=["Hoechst", "Actin"], roles={"Hoechst": "nuclei"}, colours={"Actin": "00FFFF"})
    read = BatchManifest.parse(json.dumps(given_names), "m")
    named = read.renamed({"Actin": "AGP"})
    assert (named.channels, named.roles, named.colours) == (
        ("Hoechst", "AGP"),
        {"Hoechst": "nuclei"},
        {"AGP": "00FFFF"},
    )
    assert read.renamed({}) is read


def test_the_schema_says_what_a_name_is() -> None:
    schema = BatchManifest.model_json_schema()["properties"]["channels"]
    pattern = re.compile(schema["items"]["pattern"])
    assert pattern.search("Actin-2_b")
    assert not pattern.search("Actin 2")
    assert schema["maxItems"] == 32
