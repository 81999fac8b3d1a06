"""Ways of serving, and the choice between pairs and single images."""

from pathlib import Path

import pandas as pd
import pytest

from coda.adaptation.candidates import candidates_for, read_candidates, write_candidates
from coda.adaptation.pairing_policy import choose_pairing, pairings_for
from coda.config import Params
from coda.errors import ConfigError, IntegrityError

ALL = ("coda+coral", "unadapted", "coda", "aligned", "coda+aligned", "coral")


def rows(*places: tuple[str, str, str], pert_type: str = "trt") -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"Metadata_Source": "lab", "Metadata_Batch": batch, "Metadata_Plate": plate,
             "Metadata_Treatment": treatment, "Metadata_pert_type": pert_type}
            for treatment, batch, plate in places
        ]
    )  # fmt: skip


def test_candidates_come_from_simple_to_involved_whatever_the_order_of_the_parameters() -> None:
    found = candidates_for(ALL, "coda")
    assert [candidate.name for candidate in found] == [
        "unadapted", "aligned", "coral", "coda", "coda+aligned", "coda+coral",
    ]  # fmt: skip
    places = [candidate.complexity for candidate in found]
    assert places == sorted(set(places))
    assert {c.name for c in found if c.extractor == "adapted"} == {"coda", "coda+aligned", "coda+coral"}
    assert {c.name for c in found if c.head == "standardise"} == {"aligned", "coda+aligned"}


def test_without_pairs_the_adapted_candidates_are_named_oda() -> None:
    names = [candidate.name for candidate in candidates_for(ALL, "oda")]
    assert names == ["unadapted", "aligned", "coral", "oda", "oda+aligned", "oda+coral"]


def test_oda_and_coda_can_both_be_candidates_where_there_are_pairs() -> None:
    found = candidates_for((*ALL, "oda", "oda+aligned"), "coda")
    assert [candidate.name for candidate in found] == [
        "unadapted", "aligned", "coral", "oda", "oda+aligned", "coda", "coda+aligned", "coda+coral",
    ]  # fmt: skip
    places = [candidate.complexity for candidate in found]
    assert places == sorted(set(places))
    assert {c.name for c in found if c.extractor == "adapted"} == {"coda", "coda+aligned", "coda+coral"}
    assert {c.name for c in found if c.extractor == "adapted_oda"} == {"oda", "oda+aligned"}
    assert [c.method for c in found] == [None, None, None, "oda", "oda", "coda", "coda", "coda"]
    without_pairs = candidates_for((*ALL, "oda", "oda+aligned"), "oda")
    assert [c.name for c in without_pairs if c.method] == ["oda", "oda+aligned", "oda+coral"]
    assert {c.extractor for c in without_pairs} == {"base", "adapted"}


def test_each_adapted_extractor_has_its_rung(demo_params: Params) -> None:
    pairs = demo_params.pairs
    table = rows(("a", "b1", "p1"), ("a", "b2", "p1"))

    def methods(*names: str, table: pd.DataFrame = table, by: str = "batch") -> dict[str, tuple[str, str]]:
        adaptation = demo_params.adaptation.model_copy(update={"candidates": names})
        found = pairings_for(table, adaptation, pairs.model_copy(update={"by": by}))
        return {name: (pairing.method, pairing.by) for name, pairing in found.items()}

    assert methods("unadapted", "coda") == {"adapted": ("coda", "batch")}
    assert methods("coda", "oda+aligned") == {"adapted": ("coda", "batch"), "adapted_oda": ("oda", "none")}
    assert methods("unadapted", "oda") == {"adapted": ("oda", "none")}
    assert methods("coda", "oda", table=table.iloc[:1]) == {"adapted": ("oda", "none")}
    assert methods("coda", by="none") == {"adapted": ("oda", "none")}


def test_pairs_by_plate_are_taken_as_asked_even_where_batches_could_be_paired() -> None:
    table = rows(("a", "b1", "p1"), ("a", "b2", "p1"))
    pairing = choose_pairing(table, min_pairable_share=0.5, by="plate")
    assert (pairing.method, pairing.by) == ("coda", "plate")
    assert "as the parameters ask for" in pairing.reason


def test_the_demos_candidates_are_known(demo_params: Params) -> None:
    assert candidates_for(demo_params.adaptation.candidates, "coda")
    with pytest.raises(ConfigError, match="wizardry"):
        candidates_for(("unadapted", "wizardry"), "coda")


def test_candidates_survive_the_file_and_a_broken_file_is_named(tmp_path: Path) -> None:
    written = candidates_for(ALL, "coda")
    write_candidates(tmp_path, written)
    assert read_candidates(tmp_path) == written
    (tmp_path / "candidates.json").write_text("[{}]")
    with pytest.raises(IntegrityError, match=r"candidates\.json"):
        read_candidates(tmp_path)
    with pytest.raises(IntegrityError):
        read_candidates(tmp_path / "nowhere")


def test_pairs_across_batches_come_first() -> None:
    table = rows(("a", "b1", "p1"), ("a", "b2", "p1"), ("b", "b1", "p1"), ("b", "b2", "p2"))
    pairing = choose_pairing(table, min_pairable_share=0.5)
    assert (pairing.method, pairing.by, pairing.pairable_share) == ("coda", "batch", 1.0)


def test_a_first_batch_pairs_across_its_plates() -> None:
    table = rows(("a", "b1", "p1"), ("a", "b1", "p2"), ("b", "b1", "p1"), ("b", "b1", "p2"))
    pairing = choose_pairing(table, min_pairable_share=0.5)
    assert (pairing.method, pairing.by) == ("coda", "plate")
    assert "100%" in pairing.reason


def test_the_same_plate_name_in_another_batch_is_another_plate() -> None:
    assert choose_pairing(rows(("a", "b1", "p1"), ("a", "b2", "p1")), min_pairable_share=0.5).by == "batch"
    assert choose_pairing(rows(("a", "b1", "p1"), ("a", "b1", "p1")), min_pairable_share=0.5).method == "oda"


def test_too_few_partners_mean_single_images() -> None:
    table = rows(("a", "b1", "p1"), ("b", "b1", "p1"), ("c", "b1", "p1"), ("a", "b1", "p2"))
    assert choose_pairing(table, min_pairable_share=0.6).method == "oda"
    assert choose_pairing(table, min_pairable_share=0.5).method == "coda"
    assert choose_pairing(table.iloc[:3], min_pairable_share=0.0).method == "oda"


def test_controls_do_not_count_as_partners() -> None:
    controls = rows(("DMSO", "b1", "p1"), ("DMSO", "b1", "p2"), pert_type="negcon")
    alone = rows(("a", "b1", "p1"))
    assert choose_pairing(pd.concat([controls, alone], ignore_index=True), min_pairable_share=0.1).method == "oda"


def test_rescaled_ways_are_served_by_the_head_on_raw_tokens():
    found = {c.name: c for c in candidates_for(("unadapted", "rescaled", "coral", "coda+rescaled"), "coda")}
    assert list(found) == ["unadapted", "rescaled", "coral", "coda+rescaled"], "from simple to involved"
    assert {(c.alignment, c.head) for n, c in found.items() if "rescaled" in n} == {("rescale", "none")}
