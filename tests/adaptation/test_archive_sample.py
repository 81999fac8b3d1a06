"""Which archived fields an adaptation reads: the whole batch, whole wells, partners first, never above the budget."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from coda.adaptation.archive_sample import WELL, sample_archive

wells = st.lists(
    st.tuples(st.sampled_from("xyz"), st.sampled_from("pq"), st.integers(0, 9), st.integers(1, 4)), max_size=25,
    unique_by=lambda well: well[:3],
)  # fmt: skip


def table_of(archived: list[tuple[str, str, int, int]], batch: list[str], treatments: dict[int, str]) -> pd.DataFrame:
    rows = [("lab", "new", "p", f"W{place}", site, name) for place, name in enumerate(batch) for site in (1, 2)]
    rows += [
        ("lab", f"old-{name}", plate, f"W{number}", site, treatments[number])
        for name, plate, number, sites in archived
        for site in range(sites)
    ]
    columns = [*WELL, "Metadata_Site", "Metadata_Treatment"]
    return pd.DataFrame(rows, columns=columns)


@given(
    archived=wells,
    batch=st.lists(st.sampled_from(["DMSO", "a", "b", "c"]), min_size=1, max_size=6),
    names=st.lists(st.sampled_from(["DMSO", "a", "b", "c", "d", "e"]), min_size=10, max_size=10),
    most=st.integers(0, 60),
    seed=st.integers(0, 3),
)
def test_whole_wells_partners_first_within_the_budget(archived, batch, names, most, seed) -> None:
    table = table_of(archived, batch, dict(enumerate(names)))
    is_batch = (table["Metadata_Batch"] == "new").to_numpy()
    keep = sample_archive(table, is_batch, most, seed=seed)
    assert keep[is_batch].all()
    taken = keep & ~is_batch
    assert taken.sum() <= most
    if (~is_batch).sum() <= most:
        assert keep.all()
        return
    share = table.assign(kept=keep)[~is_batch].groupby(WELL)["kept"].mean()
    assert share.isin([0.0, 1.0]).all(), "a well was torn apart"
    shared = table["Metadata_Treatment"].isin(table.loc[is_batch, "Metadata_Treatment"]).to_numpy()
    if (taken & ~shared).any():
        assert taken[shared & ~is_batch].all(), "a well without a partner came before one with"
    # of treatments with partners, none has two wells more than another one that still has wells to give
    counts = {
        name: (len(rows[taken[rows.index]].drop_duplicates(WELL)), len(rows.drop_duplicates(WELL)))
        for name, rows in table[shared & ~is_batch].groupby("Metadata_Treatment")
    }
    for given_, _ in counts.values():
        assert all(other >= min(total, given_ - 1) for other, total in counts.values())
    again = sample_archive(table.sample(frac=1, random_state=1).sort_index(), is_batch, most, seed=seed)
    assert np.array_equal(again, keep)
