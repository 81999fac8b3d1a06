"""CSV for people: what it says, and that nothing in it can run in a spreadsheet."""

import csv
import io

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from coda.evaluation.predictions.csv_export import compound_sheet, plain_cell, well_sheet

HOSTILE = [
    '=HYPERLINK("http://evil","x")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "a\r=1", "＝1+1", "=cmd|' /C calc'!A0",
]  # fmt: skip


def wells(names, p, reasons=None):
    p = np.asarray(p, dtype=np.float32)
    classes = [f"m{k}" for k in range(p.shape[1])]
    known = ~np.isnan(p).any(axis=1)
    best = [classes[k] if ok else "" for k, ok in zip(np.nan_to_num(p).argmax(axis=1), known, strict=True)]
    return pd.DataFrame(
        {
            "Metadata_Batch": "b1", "Metadata_Plate": "p1",
            "Metadata_Well": [f"A{k + 1:02d}" for k in range(len(names))],
            "Metadata_Compound": names, "Metadata_pert_type": "trt",
            **{f"p_{c}": p[:, k] for k, c in enumerate(classes)},
            "predicted": best, "top_probability": p.max(axis=1), "n_fields": 4, "n_wells": 2,
            "abstain_reason": reasons or [""] * len(names), "release_id": "r-1",
        }
    )  # fmt: skip


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_each_line_says_answer_runner_up_and_how_many():
    table = wells(["aspirin", "taxol"], [[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    first, second = read(compound_sheet(table))
    assert first == {
        "batch": "b1", "compound": "aspirin", "predicted_mechanism": "m1", "probability": "0.500", "runner_up": "m2",
        "runner_up_probability": "0.300", "wells": "2", "do_not_rely_because": "", "release": "r-1",
    }  # fmt: skip
    assert (second["predicted_mechanism"], second["runner_up"]) == ("m2", "m0")
    assert [row["well"] for row in read(well_sheet(table))] == ["A01", "A02"]
    assert read(well_sheet(table))[0]["fields"] == "4"


def test_without_an_answer_there_is_no_runner_up_and_with_one_class_neither():
    table = wells(["a"], [[np.nan, np.nan]], ["No field of this well was delivered."])
    (row,) = read(well_sheet(table))
    assert (row["predicted_mechanism"], row["probability"], row["runner_up"], row["runner_up_probability"]) == ("",) * 4
    assert row["do_not_rely_because"] == "No field of this well was delivered."
    (row,) = read(compound_sheet(wells(["a"], [[1.0]])))
    assert (row["predicted_mechanism"], row["runner_up"]) == ("m0", "")


def test_controls_are_left_out_of_the_wells():
    table = wells(["a", "DMSO"], [[0.6, 0.4]] * 2).assign(Metadata_pert_type=["trt", "negcon"])
    assert [row["compound"] for row in read(well_sheet(table))] == ["a"]


def test_names_that_are_formulas_become_text():
    for text in (
        well_sheet(wells(HOSTILE, [[0.6, 0.4]] * len(HOSTILE))),
        compound_sheet(wells(HOSTILE, [[0.6, 0.4]] * len(HOSTILE))),
    ):
        cells = [cell for line in csv.reader(io.StringIO(text, newline="")) for cell in line]
        assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r\n＝＋－＠")]
        assert {f"'{name}" for name in HOSTILE if name[0] in "=+-@"} <= set(cells)
        assert len(text.splitlines()) == 1 + len(HOSTILE)


@given(st.text(max_size=20))
def test_a_cell_is_one_line_that_begins_no_formula(text):
    cell = plain_cell(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t"))
    assert len(cell.splitlines()) <= 1
    if text.isprintable() and text == text.strip():
        assert cell in (text, f"'{text}")
