"""Every instrument's folder through the command line and ingest; and indexes damaged at random."""

import re
import shutil

import pytest
from batches import SETTINGS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from instrument_trees import CV, WAVES, cv_plate, cv_setting, found, harmony_plate, imagexpress_plate, put
from jump_trees import PHENIX, source
from typer.testing import CliRunner

from coda.cli.plates import app
from coda.contracts import STAINS, BatchManifest
from coda.errors import ConfigError, ContractError, TransientError
from coda.plates import file_lists
from coda.plates.batch_files import LocalFiles
from coda.plates.dataset import BatchFolder
from coda.plates.file_lists import files_of_plate
from coda.plates.readers import assemble, deliver
from coda.plates.readers.layouts import LAYOUTS, SIGNS, ReadOptions, detect, find_plates
from coda.plates.tree import LocalTree
from coda.steps.ingest import ingest


def mapped(channels):
    return [part for name, stain in channels.items() for part in ("--channel", f"{name}={stain}")]


PLAIN = r"(?P<plate>[^/]+)/(?P<well>[A-P]\d\d)_s(?P<site>\d)_(?P<channel>[A-Za-z]+)\.tif"


def plain_plate(folder):
    """The same fields in a folder whose names say what they are."""
    made = imagexpress_plate(folder.parent / f"{folder.name}-made")
    for path in sorted(made.glob("TimePoint_1/*.tif")):
        parts = re.match(r"HTS_(A\d\d)_s(\d)_w(\d)[^_]+tif", path.name)
        if parts:
            well, site, wave = parts.groups()
            put(folder, {f"P1/{well}_s{site}_{STAINS[int(wave) - 1]}.tif": path.read_bytes()})
    return folder


CASES = {
    "phenix": (harmony_plate, []),
    "yokogawa": (cv_plate, [*mapped({f"C{n:02d}": s for s, n in CV.items()}), "--modality", "confocal"]),
    "imagexpress": (imagexpress_plate, [*mapped({name: stain for stain, name in WAVES.items()}),
                                        "--modality", "confocal", "--pixel-size", "0.65"]),
    "pattern": (plain_plate, ["--pattern", PLAIN, "--modality", "confocal", "--pixel-size", "0.65"]),
}  # fmt: skip


@pytest.mark.parametrize("layout", CASES)
def test_the_folder_of_an_instrument_becomes_a_stored_plate(layout, tmp_path, small_params):
    make, options = CASES[layout]
    folder = make(tmp_path / "P1")
    arguments = [
        "import",
        str(folder),
        str(tmp_path / "in"),
        "--source",
        "s",
        "--batch",
        "b",
        "--instrument",
        "x",
        *options,
    ]
    told = CliRunner().invoke(app, [*arguments, "--layout", layout if layout == "pattern" else "auto"])
    assert told.exit_code == 0, told.output
    assert layout == "pattern" or f"Layout: {layout}." in told.output
    assert "Channels found: DNA, ER, RNA, AGP, Mito." in told.output
    manifest = BatchManifest.read(tmp_path / "in/s/b/manifest.json")
    assert manifest.preparation == "raw"
    (report,) = ingest(
        [str(tmp_path / "in/s/b/manifest.json")], tmp_path / "out", params=small_params(), settings=SETTINGS
    )
    assert (report.fields_expected, report.fields_accepted) == (4, 4), report.problems
    index = BatchFolder(tmp_path / "out/s/b").index
    assert sorted(zip(index["Metadata_Well"], index["Metadata_Site"], strict=True)) == [
        (well, site) for well in ("A01", "A02") for site in (1, 2)
    ]
    assert (index["Metadata_PixelSize_um"] > 1.1).all()


def test_a_folder_in_object_storage_is_imported_likewise(moto_server, tmp_path, monkeypatch):
    folder = cv_plate(tmp_path / "P1", sites=(1,))
    store = moto_server.bucket()
    for file in LocalTree(folder).files():
        store.put(f"runs/P1/{file.path}", (folder / file.path).read_bytes())
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto_server.endpoint)
    options = ["--source", "s", "--batch", "b", "--instrument", "CV8000", *CASES["yokogawa"][1]]
    for name, place in (("near", str(folder)), ("far", f"{store.uri}/runs/P1")):
        told = CliRunner().invoke(app, ["import", place, str(tmp_path / name), *options])
        assert told.exit_code == 0, told.output
    near, far = (BatchManifest.read(tmp_path / name / "s/b/manifest.json") for name in ("near", "far"))
    assert near.plates == far.plates


class Failing:
    """A tree in object storage whose service goes away after some reads."""

    def __init__(self, folder, reads):
        self._tree = LocalTree(folder)
        self._left = reads
        self.where = self._tree.where

    def files(self, under=""):
        return self._tree.files(under)

    def read(self, path, *, at_most):
        self._left -= 1
        if self._left < 0:
            raise TransientError("The storage is away.")
        return self._tree.read(path, at_most=at_most)


@pytest.mark.parametrize("reads", [0, 1, 2, 9])
def test_a_storage_that_goes_away_leaves_no_manifest(reads, tmp_path):
    folder = cv_plate(tmp_path / "P1", sites=(1,))
    channels = {f"C{number:02d}": stain for stain, number in CV.items()}
    who = deliver.Identity("s", "b", "CV8000", modality="confocal")
    with pytest.raises(TransientError):
        deliver.import_plates("yokogawa", Failing(folder, reads), tmp_path / "out", who, ReadOptions(channels))
    assert not (tmp_path / "out/s/b/manifest.json").exists()
    manifest, _ = deliver.import_plates("yokogawa", Failing(folder, 99), tmp_path / "out", who, ReadOptions(channels))
    assert len(BatchManifest.read(manifest).plates[0].files) == 10 + 2


def test_only_the_asked_plates_are_delivered(tmp_path):
    for name in ("P1", "P2"):
        put(tmp_path / "in", {f"{name}/A01_s1_DNA.tif": b"x"})
    base = ["import", str(tmp_path / "in"), str(tmp_path / "out"), "--source", "s", "--batch", "b", "--instrument", "x",
            "--layout", "pattern", "--pattern", PLAIN, "--modality", "confocal", "--pixel-size", "0.65"]  # fmt: skip
    assert CliRunner().invoke(app, [*base, "--only-plate", "P2"]).exit_code == 0
    assert [plate.plate for plate in BatchManifest.read(tmp_path / "out/s/b/manifest.json").plates] == ["P2"]
    for wrong, error in (
        (["--only-plate", "P3"], ConfigError), (["--layout", "tiff"], ConfigError),
        (["--channel", "a=b"], ContractError), (["--batch", "a b"], ContractError),
        (["--layout", "auto"], ContractError),
    ):  # fmt: skip
        assert isinstance(CliRunner().invoke(app, [*base, *wrong]).exception, error), wrong
    assert isinstance(CliRunner().invoke(app, ["import", str(tmp_path / "no"), *base[2:]]).exception, ConfigError)


def test_given_illumination_is_carried_into_the_delivery(tmp_path):
    folder = source(tmp_path / "source_4", PHENIX)
    options = ["--source", "source_4", "--batch", "B1", "--instrument", "Phenix", "--modality", "widefield"]
    options += ["--pixel-size", "0.598", "--jump-batch", "B1"]
    told = CliRunner().invoke(app, ["import", str(folder), str(tmp_path / "out"), *options])
    assert told.exit_code == 0, told.output
    assert "Plate BR00117035: illumination functions given for DNA, ER, RNA, AGP, Mito." in told.output
    (plate,) = BatchManifest.read(tmp_path / "out/source_4/B1/manifest.json").plates
    assert plate.illumination == {stain: f"illum/BR00117035/BR00117035_Illum{stain}.npy" for stain in STAINS}
    for path in plate.illumination.values():
        given = folder / "images/B1" / path
        assert (tmp_path / "out/source_4/B1" / path).read_bytes() == given.read_bytes()


def test_a_large_batch_is_brought_with_file_lists_and_a_plate_of_too_many_files_not_at_all(tmp_path, monkeypatch):
    folder = cv_plate(tmp_path / "P1")
    options = ["--source", "s", "--batch", "b", "--instrument", "CV8000", *CASES["yokogawa"][1]]
    for name, most in (("inline", 10**6), ("lists", 3)):
        monkeypatch.setattr(file_lists, "MOST_INLINE", most)
        assert CliRunner().invoke(app, ["import", str(folder), str(tmp_path / name), *options]).exit_code == 0
    inline, apart = (
        BatchManifest.read(tmp_path / name / "s/b/manifest.json").plates[0] for name in ("inline", "lists")
    )
    assert {*files_of_plate(LocalFiles(tmp_path / "lists/s/b"), apart)} == {*inline.files}
    assert {file.path for file in apart.files} == inline.not_images
    monkeypatch.setattr(assemble, "MAX_FILES_OF_A_PLATE", 3)
    told = CliRunner().invoke(app, ["import", str(folder), str(tmp_path / "no"), *options])
    assert "expected at most 3" in str(told.exception)
    assert not (tmp_path / "no").exists()


def test_names_of_files_cannot_write_to_the_terminal(tmp_path):
    """A file name may hold what moves a terminal's cursor or rings its bell; it is shown without."""
    bell = "A01_s1_\x1b[2J\x07evil.tif"
    put(tmp_path / "in", {"P1/A01_s1_DNA.tif": b"x", f"P1/{bell}": b"x"})
    pattern = r"(?P<well>A01)_s(?P<site>1)_(?P<channel>.+)\.tif"
    base = ["import", str(tmp_path / "in"), str(tmp_path / "out"), "--source", "s", "--batch", "b", "--instrument", "x",
            "--layout", "pattern", "--modality", "confocal", "--pixel-size", "0.65"]  # fmt: skip
    told = CliRunner().invoke(app, [*base, "--pattern", pattern])
    assert "1 image of channel '[2J evil' left out" in told.output
    refused = CliRunner().invoke(app, [*base, "--pattern", r"(?P<well>[^_]+_s1)_(?P<channel>.+)\.tif"])
    assert isinstance(refused.exception, ContractError)
    assert not set("\x1b\x07") & set(told.output + str(refused.exception))


def test_every_layout_is_told_apart_or_must_be_named(tmp_path):
    with pytest.raises(ContractError) as caught:
        detect(LocalTree(tmp_path))
    assert all(name in str(caught.value) for name in SIGNS)
    assert set(LAYOUTS) - set(SIGNS) == {"pattern", "deepprofiler"}
    for layout in LAYOUTS:
        with pytest.raises((ContractError, ConfigError)) as refused:
            find_plates(layout, LocalTree(tmp_path), ReadOptions(pattern=PLAIN, channels={"1": "DNA"}))
        assert refused.value.problems[0].remedy


NASTY = ["", "-1", "0", "99999999999999999999", "1e309", "nan", "x" * 3000, "../../../etc/passwd", "/etc/passwd",
         "\u0660", "\\\\a\\b", "C:\\a", "a\tb", "%2e%2e/x", "'", "A01"]  # fmt: skip
INDEXES = {
    "phenix": ("Images/Index.xml", r">([^<>]+)<|'([^'<>]*)'"),
    "yokogawa": ("MeasurementData.mlf", r">([^<>]+)<|'([^'<>]*)'"),
    "yokogawa detail": ("MeasurementDetail.mrf", r"'([^'<>]*)'"),
    "yokogawa setting": ("S.mes", r">([^<>]+)<|'([^'<>]*)'"),
    "imagexpress": ("HTS.HTD", r"\"?([\w., ]+)\"?"),
    "jump": ("workspace/load_data_csv/B1/BR00117035/load_data_with_illum.csv", r"([^,\n]+)"),
}


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    base = tmp_path_factory.mktemp("trees")
    setting = cv_setting({number: (stain, "", "405nm", "ConfocalFluorescence") for stain, number in CV.items()})
    put(base / "yokogawa", {"S.mes": setting})
    return {
        "phenix": harmony_plate(base / "phenix", wells=((1, 1),), sites=(1,)),
        "yokogawa": cv_plate(base / "yokogawa", wells=(("A01", 1, 1),), sites=(1,)),
        "imagexpress": imagexpress_plate(base / "imagexpress", wells=("A01",), sites=(1,)),
        "jump": source(base / "jump", PHENIX, sites=(1,)),
    }


@pytest.mark.parametrize("case", INDEXES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_index_damaged_at_random_ends_in_a_refusal_or_a_plate_of_the_folder(case, data, trees, tmp_path_factory):
    """One value (or some bytes) of an index is replaced; only our own errors may come out, and only paths inside."""
    layout, (name, values) = case.split()[0], INDEXES[case]
    folder = tmp_path_factory.mktemp("damaged") / "p"
    shutil.copytree(trees[layout], folder)
    text = (folder / name).read_text(encoding="utf-8")
    spots = [found.span(group) for found in re.finditer(values, text) for group in range(1, len(found.groups()) + 1)]
    start, end = data.draw(st.sampled_from([spot for spot in spots if spot[0] >= 0]))
    if data.draw(st.integers(0, 4)) == 0:
        start, end = sorted(data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
    (folder / name).write_text(text[:start] + data.draw(st.sampled_from(NASTY)) + text[end:], encoding="utf-8")
    channels = {f"C{number:02d}": stain for stain, number in CV.items()} if layout == "yokogawa" else {}
    present = {file.path for file in LocalTree(folder).files()}
    try:
        plates = found(layout, folder, channels=channels)
    except (ContractError, ConfigError) as error:
        assert error.problems or error.message  # noqa: PT017 - many inputs, few of them refused
        return
    for plate in plates:
        assert re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,99}", plate.plate)
        for item in plate.fields:
            assert 0 <= item.place[0] < 32
            assert 0 <= item.place[1] < 48
            assert {image.path for image in item.files.values()} <= present
        assert set(plate.illumination.values()) <= present
