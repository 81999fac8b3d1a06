"""A share that misses its limit never reads like the limit."""

from hypothesis import given
from hypothesis import strategies as st

from coda.evaluation.percentages import against


def test_whole_percents_where_they_tell_enough() -> None:
    assert against(0.72, 0.6) == ("72%", "60%")
    assert against(0.6, 0.6) == ("60%", "60%")
    assert against(0.6041, 0.6) == ("60.4%", "60.0%")
    assert against(0.60001, 0.6) == ("60.001%", "60.000%")


@given(st.floats(0, 1), st.floats(0, 1))
def test_different_shares_read_differently(found: float, limit: float) -> None:
    texts = against(found, limit)
    assert (texts[0] == texts[1]) == (found == limit) or abs(found - limit) < 1e-14
