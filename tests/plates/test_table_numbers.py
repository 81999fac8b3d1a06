"""Numbers and doses of people's tables: right, or refused; the decimal sign is told by the column, never guessed."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coda.plates.tabular.doses import DoseColumn, dose_columns, exponent_of, read_doses
from coda.plates.tabular.table import read
from coda.plates.tabular.typed_numbers import as_text, read_numbers, whole_number

NUMBERS = st.decimals(min_value=0, max_value=99999, places=3, allow_nan=False).map(lambda number: number.normalize())


def written(number, sign, *, thousands):
    """A number as a spreadsheet of some country shows it."""
    text = format(number, ",f" if thousands else "f")
    other = "," if sign == "." else "."
    return text.replace(",", "\0").replace(".", sign).replace("\0", other)


@given(st.lists(NUMBERS, min_size=1, max_size=6), st.sampled_from(".,"), st.booleans(), st.sampled_from(",;\t"))
def test_a_column_is_read_as_it_was_written_or_refused(numbers, sign, thousands, separator):
    if separator == "," and sign == ",":
        return  # such a file has its numbers in quotation marks: the next test
    cells = [(line, written(number, sign, thousands=thousands)) for line, number in enumerate(numbers)]
    # in a file with commas between values programs write points; thousands parted by points there are from no program
    found, faults = read_numbers(cells, separator=separator)
    assert faults or found == dict(enumerate(numbers))
    named, wrong = read_numbers(cells, decimal=sign, separator=separator)
    assert not wrong
    assert named == dict(enumerate(numbers))


@given(st.lists(NUMBERS, min_size=1, max_size=6), st.booleans())
def test_quoted_decimal_commas_are_read_as_they_were_written_or_refused(numbers, thousands):
    cells = [(line, written(number, ",", thousands=thousands)) for line, number in enumerate(numbers)]
    if thousands and not any("," in text for _, text in cells) and any("." in text for _, text in cells):
        return
    found, faults = read_numbers(cells)
    assert faults or found == dict(enumerate(numbers))


@pytest.mark.parametrize(
    ("texts", "separator", "numbers"),
    [
        (["2.5", "10"], ",", ["2.5", "10"]),
        (["2,5", "10"], ";", ["2.5", "10"]),
        (["2,5", "1,250"], ";", ["2.5", "1.25"]),
        (["1.250"], ",", ["1.25"]),
        (["0.125"], ";", ["0.125"]),
        (["2.5E+00", "1.025e1", ".75"], ",", ["2.5", "10.25", "0.75"]),
        (["7,5E-01"], ";", ["0.75"]),
        (["1.250"], ";", None),
        (["1,250"], ",", None),
        (["10,000", "1,000"], "\t", None),
        (["2.5", "2,5"], ";", None),
        (["2.5", "1,000"], ";", None),
        (["1,234.5"], ";", None),
        (["1.234.567"], ";", None),
        (["1 000"], ",", None),
        (["1_000"], ",", None),
        (["0x10"], ",", None),
        (["inf"], ",", None),
        (["٣"], ",", None),
    ],
)
def test_signs(texts, separator, numbers):
    found, faults = read_numbers(list(enumerate(texts)), separator=separator)
    assert (list(found.values()) if not faults else None) == (numbers and [Decimal(one) for one in numbers])


def test_thousands_are_understood_once_the_sign_is_named():
    assert read_numbers([(2, "1,250.5"), (3, "10,000")], decimal=".")[0] == {2: Decimal("1250.5"), 3: Decimal(10000)}
    assert read_numbers([(2, "1.250,5")], decimal=",")[0] == {2: Decimal("1250.5")}
    assert [fault.line for fault in read_numbers([(2, "2,5"), (3, "1,2345")], decimal=".")[1]] == [2, 3]


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("1.0", 1), ("01", 1), ("12.", 12), ("3,0", 3), (" 2 ", 2), ("1.5", None), ("s1", None), ("", None),
     ("1,000", None), ("-1", None), ("1e0", None), ("nan", None)],
)  # fmt: skip
def test_whole_numbers(text, number):
    assert whole_number(text) == number


def test_numbers_are_written_without_loss():
    assert [as_text(Decimal(text)) for text in ("2.50", "10", "1E+3", "0.0", "0.000012345678", "1e-30")] == [
        "2.5", "10", "1000", "0", "0.000012345678", "1E-30"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("unit", "exponent"),
    [("uM", 0), ("µM", 0), ("μM", 0), ("um", 0), ("nM", -3), ("mM", 3), ("pM", -6), ("M", 6), ("umol/L", 0),
     ("mmol/l", 3), ("micromolar", 0), ("nmol/L", -3), ("mmoles_per_liter", 3), ("µmol per litre", 0), ("molar", 6),
     ("m", None), ("mg/mL", None), ("%", None), ("ug/ml", None), ("", None), ("mol", 6)],
)  # fmt: skip
def test_units(unit, exponent):
    assert exponent_of(unit) == exponent


@pytest.mark.parametrize(
    ("name", "exponent"),
    [("Metadata_Dose_uM", 0), ("Metadata_Dose_nM", -3), ("Dose (µM)", 0), ("Concentration [nM]", -3), ("conc_mM", 3),
     ("Metadata_mmoles_per_liter", 3), ("mmoles_per_liter", 3), ("Metadata_Dose", None), ("dose um", 0), ("DOSE_UM", 0),
     ("pert_dose_uM", 0), ("Metadata_Concentration_micromolar", 0), ("Compound concentration (mM)", 3)],
)  # fmt: skip
def test_columns_of_doses(name, exponent):
    assert dose_columns([name]) == [DoseColumn(name, exponent)]


@pytest.mark.parametrize(
    "name", ["Metadata_Well", "dosed_by", "Metadata_Compound", "solvent", "M", "um", "Medium", "moa"]
)
def test_other_columns_are_none(name):
    assert dose_columns([name]) == []


def doses(column, *cells, separator=";"):
    table = read("\n".join([f"n{separator}{column}", *(f"x{separator}{cell}" for cell in cells)]).encode())
    found, faults = read_doses(table, dose_columns([column])[0])
    return [str(fault.found) for fault in faults] or [as_text(found[line]) for line in found]


def test_doses_are_micromolar_whatever_the_header_names():
    assert doses("Dose_nM", "2500", "10,5") == ["2.5", "0.0105"]
    assert doses("mmoles_per_liter", "0.005", "4.999130435", separator="\t") == ["5", "4999.130435"]
    assert doses("Dose_uM", "2,5 µM", "10", "NaN", "n/a", "") == ["2.5", "10"]
    assert doses("Dose", "2500 nM", "1 µM", "0,1mM") == ["2.5", "1", "100"]
    assert doses("Dose_uM", "2500 nM") == ["dose '2500 nM' in the column Dose_uM"]
    assert doses("Dose", "1 uM", "2") == ["dose '2' without a unit"]
    assert doses("Dose_uM", "3 mg/mL", "-1") == ["dose '3 mg/mL'", "dose '-1'"]
    assert doses("Dose_uM", "1.250", "3.500") == ["dose '1.250', which may have a decimal sign or part thousands"]
