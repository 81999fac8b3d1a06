"""The picture of the packages is the code's: nothing in it is drawn by hand."""

import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from tests.architecture_picture import PICTURE, imports, layers, necessary, picture

NAMES = "abcdef"


def reachable(edges, start):
    found, waiting = set(), [start]
    while waiting:
        for below in edges[waiting.pop()] - found:
            found.add(below)
            waiting.append(below)
    return found


def test_the_picture_in_the_docs_is_the_one_that_the_code_gives():
    assert PICTURE.read_text() == picture(), "run: python -m tests.architecture_picture"


def test_every_package_is_in_it_and_arrows_point_down_or_sideways():
    rows = layers()
    level = {name: number for number, row in enumerate(rows) for name in row}
    found = imports(list(level))
    assert all(level[name] <= level[below] for name, own in found.items() for below in own)
    ET.fromstring(PICTURE.read_bytes())  # noqa: S314  a file of this repository
    text = PICTURE.read_text()
    assert all(f">{name}</text>" in text for name in level)
    assert "coda.steps imports coda.registry</title>" in text


@given(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda pair: pair[0] < pair[1])))
def test_what_is_left_out_is_said_by_other_arrows_and_nothing_else_is(pairs):
    edges = {name: {NAMES[below] for above, below in pairs if NAMES[above] == name} for name in NAMES}
    left = necessary(edges)
    for name in NAMES:
        assert left[name] <= edges[name]
        assert reachable(left, name) == reachable(edges, name)
        for below in left[name]:
            without = {**left, name: left[name] - {below}}
            assert below not in reachable(without, name)
