"""Exponents against powers that are known; verdicts against figures that meet every target, and then miss one."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scale.growth import each_more, exponent, last_doubling
from benchmarks.scale.scale_command import read_plates
from benchmarks.scale.scale_json import as_json
from benchmarks.scale.scale_verdicts import verdicts_of
from coda.errors import ConfigError

SIZES = [1, 2, 4, 8, 16]


@given(st.floats(0.1, 3), st.floats(0.01, 1e9))
def test_a_power_is_found_again(power, factor):
    values = [factor * size**power for size in SIZES]
    assert last_doubling(SIZES, values) == pytest.approx(power, abs=1e-6)
    assert exponent(SIZES, values) == pytest.approx(power, abs=1e-6)


@given(st.floats(0, 1e6), st.floats(0.01, 1e6))
def test_a_fixed_part_and_a_part_a_plate(fixed, each):
    values = [fixed + each * size for size in SIZES]
    assert each_more(SIZES, values) == pytest.approx(each, rel=1e-6, abs=fixed * 1e-12)
    assert last_doubling(SIZES, values) <= 1 + 1e-9


def test_the_order_of_the_sizes_is_of_no_matter():
    assert last_doubling([8, 1, 4], [64.0, 1.0, 16.0]) == pytest.approx(2)
    assert each_more([8, 1], [80.0, 10.0]) == pytest.approx(10)


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [3.0, 0.0]])
def test_nothing_is_said_of_one_size_or_of_nothing(values):
    sizes = [1, 2][: len(values)]
    assert last_doubling(sizes, values) is None
    assert exponent(sizes, values) is None


MIB = 2**20


def row(plates, **changes):
    """A size that meets every target: half of everything is a fixed part."""
    stored = 10 * MIB * plates
    steps = {
        "ingest_plate": used(5.0 * plates, 300 * MIB),
        "adapt": used(20.0 + plates, 3000 * MIB + 100 * MIB * plates),
        "report": used(1.0, 400 * MIB),
    }
    figures = {
        "plates": plates, "archive": 0, "stored_bytes": stored, "seconds": 50.0 + 6 * plates,
        "cpu_s": sum(step["cpu_s"] for step in steps.values()), "requests": 100 + 20 * plates, "outcome": "released",
        "moved_bytes": 2 * stored + 5 * MIB, "moved_stores_bytes": 2 * stored,
        "left_bytes": stored // 10 + MIB, "steps": steps,
    }  # fmt: skip
    return {**figures, **changes}


def used(cpu_s, peak):
    part = {"requests": 1, "read_bytes": 2, "written_bytes": 3}
    return {
        "tasks": 1, "seconds": cpu_s, "cpu_s": cpu_s, "peak_bytes": peak, "inherited_bytes": 200 * MIB,
        "peak_all_bytes": peak, "handed_bytes": 4,
        "output_bytes": 5, "inside_s": None, "raw": part, "data": part, "records": part,
    }  # fmt: skip


def missed(rows):
    return [verdict.target for verdict in verdicts_of(rows) if verdict.met is False]


def test_all_targets_are_met():
    verdicts = verdicts_of([row(1), row(4), row(8)])
    assert [verdict for verdict in verdicts if verdict.met is not True] == []


def test_one_size_has_no_growth():
    told = [(verdict.target, verdict.met) for verdict in verdicts_of([row(8)])]
    unknown = ("grow", "one more", "exponent", "every step above")
    assert [met for _, met in told] == [None if any(word in target for word in unknown) else True for target, _ in told]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"moved_bytes": 4 * 80 * MIB}, ["bytes moved at most", "one more plate", "bytes moved: exp"]),
        ({"left_bytes": 80 * MIB}, ["nothing of size D", "one more plate"]),
        ({"cpu_s": 200.0}, ["processor time: exp"]),
        ({"requests": 1000}, ["requests: exp"]),
        ({"seconds": 400.0}, ["seconds: exp"]),
    ],
)
def test_a_target_that_is_missed_is_named(change, words):
    found = missed([row(1), row(4), row(8, **change)])
    assert len(found) == len(words)
    assert all(target.startswith(word) for target, word in zip(found, words, strict=True))


@pytest.mark.parametrize(
    ("step", "change", "words"),
    [
        ("report", {"peak_bytes": 2000 * MIB}, ["memory of", "it grows"]),
        ("report", {"peak_bytes": 500 * MIB}, ["it grows"]),
        ("report", {"peak_bytes": 600 * MIB, "inherited_bytes": 400 * MIB}, []),  # imported meanwhile
        ("adapt", {"peak_bytes": 9000 * MIB}, []),  # its memory is its budget
        ("ingest_plate", {"cpu_s": 100.0}, ["every step above"]),
        ("report", {"cpu_s": 4.9}, []),  # too little to tell
    ],
)
def test_a_step_that_misses_a_target_is_named(step, change, words):
    last = copy.deepcopy(row(8))
    last["steps"][step] |= change
    rows = [row(1), row(4), last]
    assert [target.startswith(word) for target, word in zip(missed(rows), words, strict=True)] == [True] * len(words)
    if words:
        assert any(verdict.found.startswith(step) for verdict in verdicts_of(rows) if verdict.met is False)


def test_memory_of_steps_that_ran_beside_adapt_is_not_judged():
    last = copy.deepcopy(row(8))
    last["steps"]["adapt+report"] = used(1.0, 9000 * MIB)
    assert missed([row(1), last]) == []


def test_the_json_holds_sizes_growth_and_verdicts():
    made = as_json([row(1), row(8)], {"looks": {"objects": 3}}, 256)
    assert made["growth"]["steps"]["ingest_plate"]["cpu_s"]["last_doubling"] == pytest.approx(1)
    assert made["growth"]["steps"]["ingest_plate"]["cpu_s"]["a_plate"] == pytest.approx(5)
    assert made["parts"] == {"looks": {"objects": 3}}
    assert all(verdict["met"] for verdict in made["verdicts"])


def test_plates_are_read():
    assert read_plates("8, 1,4") == [1, 4, 8]


@pytest.mark.parametrize("text", ["", "0,1", "1,1", "a", "-1", "1,100", "1.5", "²"])
def test_plates_that_are_none_are_refused(text):
    with pytest.raises(ConfigError) as refused:
        read_plates(text)
    assert refused.value.problems[0].where == "--plates"
    assert refused.value.problems[0].found == repr(text)
