"""JUMP's own tables at their real size, its platemaps, and the join by position; golden numbers of the real files."""

import gzip
import time
from collections import Counter

import pandas as pd
import pytest

from coda.errors import ContractError
from coda.plates.jump.consortium_tables import Control, JumpTables, pert_type_of
from coda.plates.jump.plate_maps import maps_of_tables, maps_of_workspace
from coda.plates.jump.position import join_by_position
from coda.plates.layout import parse_well
from coda.plates.plate_map_reading import read_wells
from coda.plates.tabular.dialect import UnreadableTableError
from coda.plates.tabular.table import read
from coda.plates.tree import LocalTree

POSITIVE = {"AMG900", "dexamethasone", "FK-866", "LY2109761", "NVS-PAK1-1", "quinidine", "TC-S-7004", "aloxistatin"}


@pytest.fixture(scope="session")
def jump(shared_data):
    return shared_data / "jump"


@pytest.fixture(scope="session")
def tables(jump):
    return JumpTables(LocalTree(jump / "datasets"))


@pytest.fixture(scope="session")
def all_wells(jump):
    """The whole well table by another reader."""
    return pd.read_csv(jump / "datasets" / "well.csv.gz", dtype=str, keep_default_na=False)


def wells_of(text, plate, wells=384):
    rows, problems, _ = read_wells(read(text.encode()), where="map", plate=plate, wells=wells)
    assert problems == []
    return rows


def imaged(text="A01"):
    return {place for well in text.split() if (place := parse_well(well))}


def test_all_plates_of_the_release_are_there(tables):
    by_source = {name: tables.plates(name) for name in ("source_3", "source_4", "source_13")}
    kinds = Counter((name, plate.plate_type) for name, plates in by_source.items() for plate in plates.values())
    assert kinds == {
        ("source_3", "COMPOUND"): 237, ("source_3", "COMPOUND_EMPTY"): 3, ("source_3", "DMSO"): 38,
        ("source_3", "TARGET2"): 25, ("source_4", "ORF"): 251, ("source_4", "TARGET1"): 4,
        ("source_4", "TARGET2"): 22, ("source_13", "CRISPR"): 148, ("source_13", "TARGET2"): 6,
    }  # fmt: skip
    assert by_source["source_4"]["BR00121427"].batch == "2021_07_26_Batch9"
    assert {plate.modality for plate in by_source["source_13"].values()} == {"crispr", "compound"}


@pytest.mark.parametrize(
    ("source", "name", "modality", "pixel", "sites"),
    [
        ("source_2", "CV8000", "confocal", 0.65, 6), ("source_4", "Opera Phenix", "widefield", 0.597976, 9),
        ("source_8", "ImageXpress Micro Confocal", "confocal", 0.7032, 9),
        ("source_11", "Operetta", "widefield", 0.597976, 9),
    ],
)  # fmt: skip
def test_microscopes(tables, source, name, modality, pixel, sites):
    found = tables.microscope(source)
    assert (found.name, found.modality, found.pixel_size_um, found.sites_per_well) == (name, modality, pixel, sites)


def test_the_map_of_a_real_compound_plate(tables, all_wells):
    of_plate = all_wells[(all_wells["Metadata_Source"] == "source_4") & (all_wells["Metadata_Plate"] == "BR00121427")]
    full = {f"{row}{column:02d}" for row in "ABCDEFGHIJKLMNOP" for column in range(1, 25)}
    (lacking,) = full - set(of_plate["Metadata_Well"])  # the table lacks one well, that was imaged all the same
    maps, (remark,) = maps_of_tables(tables, "source_4", {"BR00121427": imaged(f"A01 {lacking}")})
    rows = {row.well: row for row in wells_of(maps["BR00121427"], "BR00121427")}
    assert rows.keys() == full
    assert rows.pop(lacking).compound == f"unknown:BR00121427:{lacking}"
    assert f"nobody knows what is in 1 wells ({lacking})" in remark
    assert Counter(row.pert_type for row in rows.values()) == {"trt": 308, "negcon": 64, "poscon": 11}
    assert {well: row.compound for well, row in rows.items()} == dict(
        zip(of_plate["Metadata_Well"], of_plate["Metadata_JCP2022"], strict=True)
    )
    assert {row.compound for row in rows.values() if row.pert_type == "negcon"} == {"JCP2022_033924"}
    assert all(row.treatment == row.compound and row.dose_um is None for row in rows.values())


def test_controls_of_a_gene_plate_are_those_for_genes(tables):
    plates = [plate.plate for plate in tables.plates("source_4").values() if plate.plate_type == "ORF"][:3]
    maps, _ = maps_of_tables(tables, "source_4", {plate: imaged() for plate in plates})
    controls = tables.controls()
    for plate, text in maps.items():
        rows = wells_of(text, plate)
        negative = {controls[row.compound].name for row in rows if row.pert_type == "negcon"}
        assert negative <= {"BFP", "HcRed", "LUCIFERASE", "LacZ"}
        assert negative
        assert all(row.compound == "" for row in rows if row.pert_type == "empty")


def test_a_negative_control_counts_on_its_own_kind_of_plate_only():
    controls = {"d": Control("negcon", "DMSO", "compound"), "p": Control("poscon", "AMG900", "compound"),
                "e": Control("empty", "Empty", "any"), "o": Control("other", "?", "any")}  # fmt: skip
    kinds = {(name, kind): pert_type_of(name, kind, controls) for name in "dpeox" for kind in ("compound", "orf")}
    assert [kinds[name, "compound"] for name in "dpeox"] == ["negcon", "poscon", "empty", "trt", "trt"]
    assert [kinds[name, "orf"] for name in "dpeox"] == ["trt", "poscon", "empty", "trt", "trt"]


def test_the_well_table_at_its_real_size(tables, all_wells):
    assert len(all_wells) == 742_825
    started = time.process_time()
    mine = all_wells[all_wells["Metadata_Source"] == "source_4"]
    found = tables.wells("source_4", set(mine["Metadata_Plate"]))
    assert time.process_time() - started < 20  # a second on one idle core
    assert sum(map(len, found.values())) == len(mine) == 107_888
    assert len(set(found) - set(tables.plates("source_4"))) == 4  # wells of plates that the plate table lacks
    triples = set(zip(mine["Metadata_Plate"], mine["Metadata_Well"], mine["Metadata_JCP2022"], strict=True))
    assert {(plate, well, jcp) for plate, wells in found.items() for well, jcp in wells.items()} == triples


def folder_of(tmp_path, **tables):
    for name, text in tables.items():
        data = text.encode() if isinstance(text, str) else text
        (tmp_path / f"{name}.csv").write_bytes(data)
    return JumpTables(LocalTree(tmp_path))


PLATES = "Metadata_Source,Metadata_Batch,Metadata_Plate,Metadata_PlateType\ns1,b,p1,COMPOUND\ns1,b,p2,COMPOUND\n"
WELLS = "Metadata_Source,Metadata_Plate,Metadata_Well,Metadata_JCP2022\n"
CONTROLS = "Metadata_JCP2022,Metadata_pert_type,Metadata_Name,Metadata_modality\nJCP2022_000001,negcon,DMSO,compound\n"


def test_wells_nobody_knows_are_treatments_of_their_own(tmp_path):
    text = WELLS + "s1,p1,A01,JCP2022_000001\ns1,p1,A02,JCP2022_UNKNOWN\ns1,p1,A03,JCP2022_999999\ns2,p1,A04,x\n"
    tables = folder_of(tmp_path, plate=PLATES, well=text, perturbation_control=CONTROLS)
    maps, (remark,) = maps_of_tables(tables, "s1", {"p1": imaged("A01 A02 B05")})
    rows = {row.well: (row.compound, row.pert_type) for row in wells_of(maps["p1"], "p1")}
    assert rows == {"A01": ("JCP2022_000001", "negcon"), "A02": ("unknown:p1:A02", "trt"),
                    "A03": ("", "empty"), "B05": ("unknown:p1:B05", "trt")}  # fmt: skip
    assert "2 wells (A02, B05)" in remark


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"well": WELLS + "s1,p1,A01,x\ns1,p1,A01,y\n"}, "found x and y"),
        ({"well": WELLS + "s1,p1,1A,x\n"}, "well '1A'"),
        ({"well": "a,b\n1,2\n"}, "cannot be read"),
        ({"well": b"\x1f\x8b\x08broken"}, "cannot be read"),
        ({"well": gzip.compress(WELLS.encode())[:-9]}, "cannot be read"),
        ({"well": WELLS + "s1,p2,A01,x\n"}, "plate p1: found no row of s1"),
        ({"plate": PLATES.replace("s1", "s9")}, "no source of these tables"),
        ({"plate": "x\n1\n"}, "has no column"),
    ],
)
def test_tables_that_cannot_be_used_are_refused_with_their_name(tmp_path, change, message):
    given = {"plate": PLATES, "well": WELLS + "s1,p1,A01,x\n", "perturbation_control": CONTROLS} | change
    with pytest.raises(ContractError, match=message):
        maps_of_tables(folder_of(tmp_path, **given), "s1", {"p1": imaged()})


def test_a_folder_without_the_tables_says_which(tmp_path):
    with pytest.raises(ContractError, match=r"no well\.csv or well\.csv\.gz"):
        maps_of_tables(folder_of(tmp_path, plate=PLATES, perturbation_control=CONTROLS), "s1", {"p1": imaged()})


def test_the_platemaps_of_a_real_batch(jump):
    tree = LocalTree(jump / "platemaps" / "2021_07_26_Batch9")
    metadata = (jump / "target2" / "JUMP-Target-2_compound_metadata.tsv").read_bytes()
    plates = {"BR00121427": imaged(), "BR00126057": imaged(), "BR00126061": imaged()}
    maps, remarks = maps_of_workspace(tree, plates, compounds=metadata, compound_column="InChIKey")
    target = wells_of(maps["BR00121427"], "BR00121427")
    assert Counter(row.pert_type for row in target) == {"trt": 260, "negcon": 64, "poscon": 60}
    assert {row.compound for row in target if row.pert_type == "negcon"} == {"DMSO"}
    assert len({row.compound for row in target}) == 302
    genes = wells_of(maps["BR00126057"], "BR00126057")
    kinds = Counter("unknown" if row.compound.startswith("unknown:") else row.pert_type for row in genes)
    assert kinds["unknown"] == 3  # 'BAD CONSTRUCT'
    assert kinds["empty"] == 12
    assert any("BR00126057: nobody knows what is in 3 wells" in remark for remark in remarks)
    assert {row.pert_type for row in wells_of(maps["BR00126061"], "BR00126061")} == {"empty"}


def test_platemaps_with_doses_and_without_metadata(tmp_path):
    (tmp_path / "platemap").mkdir()
    (tmp_path / "barcode_platemap.csv").write_text("Assay_Plate_Barcode,Plate_Map_Name\np1,m1\n")
    (tmp_path / "platemap" / "m1.txt").write_text(
        "well_position\tbroad_sample\tmmoles_per_liter\tsolvent\na01\tBRD-1\t0.005\tDMSO\nA02\t\t\tDMSO\nA03\tNA\tNA\tNA\n"
    )
    maps, _ = maps_of_workspace(LocalTree(tmp_path), {"p1": imaged("A01")})
    assert maps["p1"].splitlines()[1:] == ["p1,A01,BRD-1,BRD-1@5,trt,5", "p1,A02,DMSO,DMSO,negcon,", "p1,A03,,,empty,"]
    with pytest.raises(ContractError, match="no plate p9"):
        maps_of_workspace(LocalTree(tmp_path), {"p9": imaged()})
    with pytest.raises(ContractError, match="a column InChIKey"):
        maps_of_workspace(LocalTree(tmp_path), {"p1": imaged()}, compounds=b"broad_sample\tx\nBRD-1\t2\n",
                          compound_column="InChIKey")  # fmt: skip
    with pytest.raises(ContractError, match="contradicts itself"):
        maps_of_workspace(LocalTree(tmp_path), {"p1": imaged()}, compounds=b"broad_sample\tk\nBRD-1\t2\nBRD-1\t3\n",
                          compound_column="k")  # fmt: skip
    (tmp_path / "barcode_platemap.csv").write_text("Assay_Plate_Barcode,Plate_Map_Name\np1,../../secret\n")
    with pytest.raises(ContractError, match="no such file"):
        maps_of_workspace(LocalTree(tmp_path), {"p1": imaged()})


@pytest.fixture(scope="session")
def target2(jump):
    names = ("platemap", "metadata")
    tables = [
        read((jump / "target2" / f"JUMP-Target-2_compound_{name}.tsv").read_bytes()).without_nothing() for name in names
    ]
    return dict(zip(tables[0]["well_position"], tables[0]["broad_sample"], strict=True)), tables[1]


def joined(tables, target2, source):
    plates = [plate.plate for plate in tables.plates(source).values() if plate.plate_type == "TARGET2"]
    return join_by_position(tables.wells(source, plates).values(), *target2)


def test_the_302_ids_of_target2_are_joined_by_position_one_to_one(jump, tables, target2):
    found = joined(tables, target2, "source_4")
    assert (len(found.table), found.conflicts, found.unmatched, found.replaced) == (302, (), (), {})
    assert found.table["Metadata_Compound"].is_unique
    assert found.table["InChIKey"].is_unique
    truth = pd.read_csv(jump / "target2" / "target2_moa_joined.csv", dtype=str, keep_default_na=False)
    keys = dict(zip(truth["Metadata_JCP2022"], truth["InChIKey"], strict=True))
    assert dict(zip(found.table["Metadata_Compound"], found.table["InChIKey"], strict=True)) == keys
    names = dict(zip(found.table["Metadata_Compound"], found.table["pert_iname"], strict=True))
    controls = {name: item for name, item in tables.controls().items() if item.modality == "compound"}
    positive = {
        item.name
        for name, item in controls.items()
        if item.pert_type == "poscon" and item.name in names[name].split("|")
    }
    assert positive == POSITIVE
    assert names["JCP2022_033924"] == "DMSO"
    assert names["JCP2022_050797"] == "quinidine|quinine"  # one key, two names


@pytest.mark.parametrize(
    ("source", "ids", "replaced"), [("source_2", 301, 1), ("source_6", 302, 4), ("source_8", 302, 0)]
)
def test_other_sources_agree_and_solvent_in_the_place_of_a_compound_is_told(tables, target2, source, ids, replaced):
    found = joined(tables, target2, source)
    assert (len(found.table), found.conflicts, len(found.replaced)) == (ids, (), replaced)
    whole = joined(tables, target2, "source_4").table
    assert found.table.merge(whole, how="left", indicator=True)["_merge"].eq("both").all()


def test_a_shifted_plate_is_a_conflict_and_gives_no_row():
    metadata = pd.DataFrame({"broad_sample": ["x", "y", ""], "InChIKey": ["KX", "KY", "KD"],
                             "pert_iname": ["ex", "why", "DMSO"], "control_type": ["", "", "negcon"]})  # fmt: skip
    platemap = {"A01": "x", "A02": "y", "A03": "", "A04": ""}
    right = {"A01": "J1", "A02": "J2", "A03": "JD", "A04": "JD"}
    assert join_by_position([right], platemap, metadata).table.to_numpy().tolist() == [
        ["J1", "x", "KX", "ex"], ["J2", "y", "KY", "why"], ["JD", "", "KD", "DMSO"]
    ]  # fmt: skip
    shifted = {"A01": "J2", "A02": "J1", "A03": "JD", "A04": "JD"}
    both = join_by_position([right, shifted], platemap, metadata)
    assert both.table["Metadata_Compound"].tolist() == ["JD"]
    assert {problem.where for problem in both.conflicts} == {"J1", "J2", "KX", "KY"}
    strange = join_by_position([right | {"B07": "J9", "nowhere": "J8", "A01": "JCP2022_UNKNOWN"}], platemap, metadata)
    assert strange.unmatched == ("B07 (J9)", "nowhere (J8)")
    assert strange.conflicts == ()


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (b"!remark\n!more\na\tb\n1\tNA\n", [["1", ""]]),
        (b"\xef\xbb\xbfa\tb\n1\t 2 \n", [["1", "2"]]),
        (b"#x\na,b\n1,nan\n", [["1", ""]]),
        (gzip.compress(b"a,b\n1,2\n", mtime=0), [["1", "2"]]),
        (gzip.compress(b"!x\na\tb\n1\t2\n", mtime=0), [["1", "2"]]),
        (gzip.compress(b"a,b\n1,2\n", mtime=0x09090909), [["1", "2"]]),  # packed bytes that look like tabs
    ],
)
def test_tables_of_public_collections_are_read_as_they_are(data, rows):
    assert read(data).without_nothing().to_numpy().tolist() == rows


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"!only remarks",
        b"!x\n",
        b"a\ta\n1\t2\n",
        b"a\tb\n",
        b"\xff\xfe\t\n1\t2\n",
        gzip.compress(b"a\tb\n1\t2\n", mtime=0)[:-6],
    ],
)
def test_what_is_no_table_is_refused(data):
    with pytest.raises(UnreadableTableError):
        read(data)
