"""Targets by kind of shift: named, simulated from the source, and told apart from nothing but the shift."""

import numpy as np
import pytest

from coda.benchmark.setting import simulated_setting
from coda.benchmark.specs import loaded
from coda.errors import ConfigError
from coda.simulation import LABORATORIES
from coda.simulation.shifts import read_shifts
from tests.benchmark.conftest import DESIGN

SHIFTS = ("optical:1", "all:0", "all:1", "all:1+missing:0.5")


@pytest.fixture(scope="module")
def shifted(short, plates):
    shifts = [read_shifts(text) for text in SHIFTS]
    return simulated_setting([3], short, plates, targets=["lab_b", "lab_a"], shifts=shifts, design=DESIGN)


def test_each_shift_is_a_target_by_its_name(shifted):
    assert shifted.sources == ("lab_a",)
    assert shifted.targets == ("lab_b-optical-1", "lab_b-all-0", "lab_b-all-1", "lab_b-all-1-missing-0.5")
    made = {source.name: source for source in shifted.data[3].plan.sources}
    assert list(made) == ["lab_a", *shifted.targets]
    assert made["lab_b-all-1"].laboratory == LABORATORIES["lab_b"]
    assert made["lab_b-optical-1"].laboratory.camera == LABORATORIES["lab_a"].camera
    assert (made["lab_a"].batches, made["lab_b-optical-1"].batches) == (5, 3)


def test_the_whole_shift_has_the_pixels_of_the_laboratory_itself(shifted, setting):
    usual, found = loaded(setting.data[3]), loaded(shifted.data[3])
    for source, name in (("lab_a", "lab_a"), ("lab_b", "lab_b-all-1")):
        np.testing.assert_array_equal(found.of(name).images, usual.of(source).images)
    assert not np.array_equal(found.of("lab_b-optical-1").images, usual.of("lab_b").images)


def test_a_mechanism_is_missing_where_the_layout_says_so(shifted):
    found = loaded(shifted.data[3])
    told = {
        name: set(found.of(name).table["Metadata_Compound"]) & set(found.labels.compounds) for name in found.sources
    }
    mechanisms = {name: {found.labels.compounds[compound] for compound in own} for name, own in told.items()}
    assert {name: len(own) for name, own in mechanisms.items()} == {
        "lab_a": 2, "lab_b-optical-1": 2, "lab_b-all-0": 2, "lab_b-all-1": 2, "lab_b-all-1-missing-0.5": 1,
    }  # fmt: skip
    assert len(found.of("lab_b-all-1-missing-0.5")) == len(found.of("lab_b-all-1"))


def test_shifts_begin_at_one_source(short, plates):
    with pytest.raises(ConfigError, match="only one"):
        simulated_setting([3], short, plates, sources=["lab_a", "lab_b"], shifts=[read_shifts("all:1")], design=DESIGN)
