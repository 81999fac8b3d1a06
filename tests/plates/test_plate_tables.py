"""load_data, plate maps and well names."""

import gzip
import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coda.plates.file_references import FileResolver
from coda.plates.layout import FORMATS, fits, format_of, parse_well, row_name, well_name
from coda.plates.load_data import read_fields, stains_of
from coda.plates.plate_map import fit_problems
from coda.plates.plate_map_reading import read_wells
from coda.plates.tabular.dialect import UnreadableTableError
from coda.plates.tabular.table import read, read_table


@given(st.sampled_from(sorted(FORMATS)), st.data())
def test_well_names_round_trip_on_every_format(wells, data):
    rows, columns = FORMATS[wells]
    place = (data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1)))
    assert parse_well(well_name(*place)) == place
    assert parse_well(well_name(*place).lower()) == place
    assert fits(place, wells)


def test_rows_beyond_z_have_two_letters_and_nonsense_is_no_well():
    assert [row_name(number) for number in (0, 25, 26, 31)] == ["A", "Z", "AA", "AF"]
    assert [parse_well(text) for text in ("", "3B", "A00", "A", "ABC01", "A1.5", "A-1")] == [None] * 7
    assert format_of([(0, 0)]) == 96
    assert format_of([(0, 23)]) == 384
    assert format_of([(0, 36)]) == 1536, "source 1 of JUMP has wells in column 37"


def csv(text):
    return read_table(text.encode())


def csv_map(text):
    return read(text.encode())


OLD = (
    "FileName_OrigDNA,PathName_OrigDNA,FileName_OrigER,PathName_OrigER,FileName_OrigBrightfield,Metadata_Well,Metadata_Site\n"
    "a.tif,/old/disk/images/p1,b.tif,/old/disk/images/p1/,c.tif,b2,1\n"
)
NEW = (
    "URL_OrigDNA,URL_OrigER,URL_OrigBrightfield,Metadata_Well,Metadata_Site\n"
    "s3://bucket/x/images/p1/a.tif,s3://bucket/x/images/p1/b.tif,s3://bucket/c.tif,B02,1\n"
)
FILES = ["images/p1/a.tif", "images/p1/b.tif", "images/p2/a.tif"]


@pytest.mark.parametrize("text", [OLD, NEW])
def test_both_generations_of_load_data_name_the_same_files(text):
    fields, problems = read_fields(
        csv(text), where="t", plate="p1", declared=("DNA", "ER"), wells=96, resolver=FileResolver(FILES)
    )
    assert problems == []
    assert [(field.well, field.site, field.files) for field in fields] == [
        ("B02", 1, {"DNA": "images/p1/a.tif", "ER": "images/p1/b.tif"})
    ]


def test_the_real_parquet_of_a_jump_plate_is_read(shared_data):
    path = shared_data / "jump/load_data/pycytominer_BR00126114_load_data_with_illum.parquet"
    table = read_table(path.read_bytes())
    assert set(stains_of(list(table.columns))) == {"DNA", "ER", "RNA", "AGP", "Mito"}
    key = "images/BR00126114__2021-09-01T15_39_48-Measurement1/Images/r01c01f01p01-ch5sk1fk1fl1.tiff"
    fields, problems = read_fields(
        table, where="t", plate="BR00126114", declared=("DNA", "ER", "RNA", "AGP", "Mito"), wells=384,
        resolver=FileResolver([key]),
    )  # fmt: skip
    assert problems == []
    assert fields[0].files == {"DNA": key}
    assert "not among the files" in fields[0].missing["ER"]


def test_csv_gzip_and_parquet_give_the_same_table():
    plain = csv(OLD)
    parquet = io.BytesIO()
    pd.read_csv(io.StringIO(OLD)).to_parquet(parquet)
    for data in (gzip.compress(OLD.encode()), parquet.getvalue(), b"\xef\xbb\xbf" + OLD.encode()):
        assert read_table(data).equals(plain)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"a,b\n", "no rows"),
        (b"a,b\n1,\xff\xfe", "UTF-8"),
        (b"a,a \n1,2\n", "more than once"),
        (gzip.compress(b"a,b\n1,2", mtime=0)[:-9], "gzip"),
        (b"PAR1 but not really PAR1", "parquet"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(data, reason):
    with pytest.raises(UnreadableTableError, match=reason):
        read_table(data)


def test_a_table_that_grows_beyond_all_bounds_is_not_unpacked():
    with pytest.raises(UnreadableTableError, match="MiB"):
        read_table(gzip.compress(b"a" * (257 * 2**20), 1))


@pytest.mark.parametrize(
    "reference", ["../../etc/passwd", "/etc/passwd", "s3://other/bucket/passwd", "images/p1/../../../x", ""]
)
def test_a_reference_can_only_mean_a_file_of_the_manifest(reference):
    with pytest.raises(LookupError):
        FileResolver(FILES).resolve(reference)


def test_a_name_in_two_folders_is_told_apart_by_its_path_or_not_at_all():
    resolver = FileResolver(FILES)
    assert resolver.resolve("file:///anything/p2/a.tif") == "images/p2/a.tif"
    assert resolver.resolve("Measurement%201/p1/a.tif") == "images/p1/a.tif"
    with pytest.raises(LookupError, match="2 files"):
        resolver.resolve("a.tif")


def problems_of_load_data(text, declared=("DNA",)):
    found = read_fields(csv(text), where="t.csv", plate="p1", declared=declared, wells=96, resolver=FileResolver([]))
    return " | ".join(map(str, found[1]))


def test_all_problems_of_load_data_come_together():
    text = (
        "FileName_OrigDNA,FileName_OrigActin,FileName_OrigER,Metadata_Plate,Metadata_Well,Metadata_Site\n"
        "a,b,c,p2,A01,1\na,b,c,p1,Z99,1\na,b,c,p1,A01,x\na,b,c,p1,A01,1\na,b,c,p1,a1,1\n"
    )
    told = problems_of_load_data(text, declared=("DNA", "RNA"))
    for part in ("unknown channel 'Actin'", "unknown channel 'ER'", "FileName_OrigRNA", "line 2: found plate 'p2'",
                 "line 3: found well 'Z99'",
                 "line 4: found well 'A01', site 'x'", "line 6: found well A01, site 1 a second"):  # fmt: skip
        assert part in told
    assert "no column Metadata_Well" in problems_of_load_data("FileName_OrigDNA\na\n")


HEAD = "Metadata_Plate,Metadata_Well,Metadata_Compound,Metadata_Treatment,Metadata_pert_type,Metadata_Dose_uM,moa\n"


def test_a_plate_map_is_read_without_any_label_column():
    wells, problems, _ = read_wells(
        csv_map(HEAD + "p1,B2,x,x@0.1,trt,0.1,secret\np1,A01,DMSO,DMSO,negcon,0,\np1,A02,,,empty,,"),
        where="m", plate="p1", wells=96,
    )  # fmt: skip
    assert problems == []
    assert [(row.well, row.dose_um, row.pert_type) for row in wells] == [
        ("A01", 0.0, "negcon"), ("A02", None, "empty"), ("B02", 0.1, "trt"),
    ]  # fmt: skip
    assert "secret" not in repr(wells)


def test_all_problems_of_a_plate_map_come_together():
    rows = "p2,A01,x,x,trt,1,\np1,I01,x,x,trt,1,\np1,A02,x,x,drug,1,\np1,A03,,,trt,1,\np1,A04,x,x,trt,-1,\n"
    rows += "p1,A04,x,x,trt,inf,\np1,A05,x,x,trt,1,\np1,A05,x,x,trt,2,\n"
    _, problems, _ = read_wells(csv_map(HEAD + rows), where="m", plate="p1", wells=96)
    told = " | ".join(map(str, problems))
    for part in ("plate 'p2'", "well 'I01'", "pert_type 'drug'", "empty Metadata_Compound", "empty Metadata_Treatment",
                 "dose '-1'", "dose 'inf'", "well A05 a second time"):  # fmt: skip
        assert part in told
    _, problems, _ = read_wells(csv_map("Metadata_Well\nA01\n"), where="m", plate="p1", wells=96)
    assert "Metadata_Treatment" in str(problems[0])


def test_load_data_and_plate_map_are_held_against_each_other():
    table = "FileName_OrigDNA,Metadata_Well,Metadata_Site\na,A01,1\na,A01,2\na,A01,3\na,C01,1\na,A02,1\n"
    fields, _ = read_fields(csv(table), where="t", plate="p", declared=("DNA",), wells=96, resolver=FileResolver([]))
    wells, _, _ = read_wells(
        csv_map(HEAD + "p,A01,x,x,trt,1,\np,A02,x,x,trt,1,\np,A03,x,x,trt,1,\np,A04,,,empty,,"),
        where="m", plate="p", wells=96,
    )  # fmt: skip
    problems, short = fit_problems(fields, wells, where="plate p", sites_per_well=2)
    told = " | ".join(map(str, problems))
    assert "C01" in told
    assert "up to 3 sites in 1 wells (A01)" in told
    assert short == [("A02", 1), ("A03", 2)]
