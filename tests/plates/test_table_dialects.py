"""Tables as people save them: each is read as what it says, or refused; never read as something else."""

import csv
import io
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coda.cli.options import table_dialects
from coda.errors import ConfigError
from coda.plates.tabular.dialect import Dialect, UnreadableTableError, dialects_of
from coda.plates.tabular.table import read
from coda.plates.tree import LocalTree

LETTERS = "abcXYZ0159.,;|\t\"'#!-+_/= éüµß°β\u00a0\n"
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "mac_roman", "cp850", "cp1253"]
CELL = st.text(LETTERS, max_size=8)
NAME = st.text("abcdefgXYZ_019 ,;|\"'", min_size=1, max_size=8).map(lambda text: "n" + text.strip() + "n")


@st.composite
def tables(draw, cell=CELL, name=NAME):
    header = draw(st.lists(name, min_size=1, max_size=5, unique=True))
    rows = draw(st.lists(st.lists(cell, min_size=len(header), max_size=len(header)), min_size=1, max_size=6))
    return [header, *rows]


def values(rows):
    """What a table says: its cells without blanks around them, without rows and columns that hold nothing."""
    stripped = [[" ".join(cell.splitlines()).strip() for cell in row] for row in rows]
    return [stripped[0], *(row for row in stripped[1:] if any(row))]


def seen(data, dialect=None):
    """What the reader makes of it with all warnings ignored; None when it refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            rows = read(data, dialect).rows
        except UnreadableTableError:
            return None
    cells = [[" ".join(str(value).splitlines()).strip() for value in row] for row in rows.to_numpy().tolist()]
    return [list(rows.columns), *cells]


@given(
    tables(), st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(),
    st.sampled_from(ENCODINGS),
    st.sampled_from(["", "# a remark, and more\n", "\n", "sep"]), st.integers(0, 2), st.booleans(),
)  # fmt: skip
def test_a_table_written_by_any_program_is_read_as_it_was_written_or_refused(
    rows, separator, end, every, encoding, before, empty, trailing
):
    if end == "\r":  # Python's writer leaves a line feed bare then
        rows = [[cell.replace("\n", " ") for cell in row] for row in rows]
    buffer = io.StringIO()
    quoting = csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL
    writer = csv.writer(buffer, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerows([*row, ""] if trailing else row for row in [*rows, *[[""] * len(rows[0])] * empty])
    start = f"sep={separator}{end}" if before == "sep" else before
    data = (start + buffer.getvalue()).encode(encoding, "ignore")
    written = values([[cell.encode(encoding, "ignore").decode(encoding) for cell in row] for row in rows])
    for dialect in (None, Dialect(separator=separator), Dialect(separator=separator, encoding=encoding)):
        assert seen(data, dialect) in (None, written)


@given(tables(name=NAME.map(lambda text: "".join(filter(str.isalnum, text)))), st.sampled_from(",;\t"))
@example([["a", "dose"], ["x", "2,5"]], ",")
@example([["a", "moa", "note"], ["x", "A inhibitor, B inhibitor", ""]], ",")
def test_a_table_joined_without_quotation_marks_is_read_as_it_was_meant_or_refused(rows, separator):
    data = "\n".join(separator.join(row) for row in rows).encode()
    meant = values(rows)
    # quotation marks in such a text mean something else for every reader, and so do lines in a value
    if any(mark in cell for row in rows for cell in row for mark in '"\n'):
        return
    assert seen(data) in (None, meant)


@given(tables(), st.sampled_from(",;\t|"))
def test_pandas_with_the_right_dialect_reads_the_same(rows, separator):
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    found = seen(buffer.getvalue().encode(), Dialect(separator=separator))
    if found is None:
        return
    told = pd.read_csv(io.StringIO(buffer.getvalue()), sep=separator, dtype=str, keep_default_na=False, quoting=1)
    assert found == values([list(told.columns), *told.to_numpy().tolist()])


PLAIN = "plate,well,dose\n0012345,B02,2.5\n1E5,B03,10.25\n"
MEANT = [["plate", "well", "dose"], ["0012345", "B02", "2.5"], ["1E5", "B03", "10.25"]]


@pytest.mark.parametrize(
    "text",
    [
        PLAIN, PLAIN.replace(",", ";"), PLAIN.replace(",", "\t"), PLAIN.replace(",", "|"), PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"), "sep=,\n" + PLAIN, "sep=;\r\n" + PLAIN.replace(",", ";"), '"sep=,",,\n' + PLAIN,
        PLAIN + ",,\n,,\n", PLAIN.replace("\n", ",\n"), PLAIN.replace("\n", ",,\n"), "\n\n" + PLAIN + "\n \n",
        "!terms\n#of use, and more\n" + PLAIN, PLAIN + "# a remark\n", PLAIN.replace(",", ', '),
        'plate,"well","dose"\n"0012345", "B02","2.5"\n1E5,B03 , 10.25\n', PLAIN.rstrip(),
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_every_way_of_saving_gives_the_same_table(text, encoding):
    assert seen(text.encode(encoding)) == MEANT


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b\n1,2\n1,2,5\n", "line 3 has 3 values ('1,2,5')"),
        ("a,b,c\n1,2\n", "line 2 has 2 values"),
        ("a;b\n1;2\n3;4;5\n", "parted by semicolon"),
        ("a,b,c\n1,x, y,\n2,x,\n", "line 2 has 4 values"),
        ("a,b,\n1,x,y\n", "line 2 has 'y' in a column without a name"),
        ('a,b\n1,"x\n2,y\n', "line 2: quotation marks"),
        ('a,b\n1,"x\n2,y"\n3,z\n', "line 2: a value in quotation marks goes over several lines"),
        ("a,b\n#1,2\n", "begins with '#'"),
        ("a\n1;2\n", "line 2 may have several values, parted by semicolon"),
        ("a;b, c\n1;2,5\n", "may be parted by comma (2 columns) or semicolon (2 columns)"),
        ("PK\x03\x04\n", "Excel workbook"),
    ],
)
def test_what_is_not_sure_is_refused_with_its_line(text, told):
    with pytest.raises(UnreadableTableError) as caught:
        read(text.encode())
    assert told in str(caught.value)
    assert caught.value.remedy


def test_lines_are_those_of_the_file():
    table = read(b'!terms\n\na,b\n1,"x\ny"\n,\n2,z\n')
    assert table.rows.index.tolist() == [4, 7]
    assert table.notes == ("1 remark line(s) passed over", "1 empty row(s) passed over")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("café", "mac_roman"), ("Größe", "mac_roman"), ("schön", "cp850"), ("β-estradiol", "cp1253"), ("ДМСО", "cp1251"),
     ("łosoś", "cp1250"), ("Parkinson’s", "cp1252"), ("Straße", "mac_roman"),
     ("Čapek", "cp1250"), ("Müller", "cp1252"), ("IFNβ", "cp1253")],
)  # fmt: skip
def test_a_code_page_that_is_not_sure_is_asked_for_and_then_taken(text, encoding):
    data = f"a,b\n1,{text}\n".encode(encoding)
    with pytest.raises(UnreadableTableError) as caught:
        read(data)
    assert "--table-encoding" in caught.value.remedy
    assert seen(data, Dialect(encoding=encoding)) == [["a", "b"], ["1", text]]


def test_a_code_page_that_is_sure_is_told_with_what_it_gives():
    table = read("a,b\n37 °C,2.5 µM\n".encode("cp1252"))
    assert table.rows.to_numpy().tolist() == [["37 °C", "2.5 µM"]]
    assert "Windows-1252, which gives '°C', 'µM'" in table.notes[0]


def test_options_name_the_dialect_of_all_tables_or_of_one():
    said = dialects_of([";", "a.csv=tab"], ["a.csv=cp1252"], ["comma"])
    assert said.of("x/b.csv") == Dialect(";", None, ",")
    assert said.of("x/a.csv") == Dialect("\t", "cp1252", ",")
    said.require_used(["x/a.csv", "b.csv"])
    with pytest.raises(ConfigError, match=r"a\.csv"):
        said.require_used(["x/b.csv"])
    for wrong in (([":::"], [], []), ([], ["no-such"], []), ([], [], ["dot"]), ([";", ","], [], [])):
        with pytest.raises(ConfigError):
            dialects_of(*wrong)


def test_an_option_about_a_table_that_nobody_reads_is_an_error(tmp_path):
    (tmp_path / "load_data.csv").write_text("a\n1\n")
    tree, given_map = LocalTree(tmp_path), Path("x/wells.csv")
    said = table_dialects(["wells.csv=;", "load_data.csv=tab"], None, None, [given_map, None], [tree])
    assert (said.of("x/wells.csv").separator, said.of("load_data.csv").separator) == (";", "\t")
    with pytest.raises(ConfigError, match=r"options for well\.csv; expected a table among load_data\.csv, wells\.csv"):
        table_dialects(["well.csv=;"], None, None, [given_map], [tree])


def test_the_reader_refuses_without_any_help_of_the_test_runner():
    """Another process, where warnings are only printed: a row too long must still be an error."""
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from coda.plates.tabular.table import read\n"
        "try:\n    print(read(b'a,b\\n1,2,5\\n').rows)\n"
        "except ValueError as error:\n    print('refused:', error)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("refused: does not have the 2 values of its header")
