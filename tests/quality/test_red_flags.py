"""The red-flag list: read with every fault told, applied by plate and batch, and kept in the report."""

import csv
import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import Moto
from typer.testing import CliRunner

from coda.cli.quality import app as quality_app
from coda.config import Params
from coda.contracts import QualityReport
from coda.errors import ConfigError
from coda.quality.red_flags import NO_REASON, RedFlag, read_red_flags
from coda.settings import Settings
from coda.steps.validate import validate

HEAD = "Metadata_Source,Metadata_Batch,Metadata_Plate,flag,reason\n"


def test_rows_are_about_a_plate_a_plate_of_any_batch_or_a_whole_batch() -> None:
    text = HEAD + "s1,b1,p1,red,Bubbles.\ns1,,p2,Grey,\ns2,b9,,red,wrong lamp\ns2,b9,p1,gray,dust\ns3,b1,p1,ok,fine\n"
    flags = read_red_flags(text.encode(), "list.csv")
    assert flags.of("s1", "b1", "p1") == RedFlag("red", "Bubbles")
    assert flags.of("s1", "b2", "p1") is None
    assert flags.of("s1", "any", "p2") == RedFlag("gray", NO_REASON)
    assert flags.of("s2", "b9", "p1") == RedFlag("red", "wrong lamp"), "the gravest counts"
    assert flags.of("s2", "b9", "p7") == RedFlag("red", "wrong lamp")
    assert flags.of("s3", "b1", "p1") is None
    assert flags.digest == hashlib.sha256(text.encode()).hexdigest()


def test_a_list_of_names_alone_is_red() -> None:
    flags = read_red_flags(b"Metadata_Source,Metadata_Plate\ns1,p1\n", "list.csv")
    assert flags.of("s1", "b", "p1") == RedFlag("red", NO_REASON)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Metadata_Plate\np1\n", "no column Metadata_Source"),
        (HEAD + "s1,,,red,x\ns1,b,p,purple,x\n", "line 2: found source 's1', batch '', plate ''"),
        (HEAD + "s1,,,red,x\ns1,b,p,purple,x\n", "line 3: found the flag 'purple'"),
        ("", "a table that is empty"),
        ("\0\xff", "a table that"),
    ],
)
def test_faults_of_a_list_are_the_operators_and_all_told(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_red_flags(text.encode("latin-1"), "list.csv")
    assert words in str(caught.value)


def test_jumps_public_list_is_read_as_it_is(shared_data: Path) -> None:
    path = shared_data / "jump/target2_plates_with_qc_flag.csv"
    flags = read_red_flags(path.read_bytes(), path.name)
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert len(rows) == 141
    found = [flags.of(row["Metadata_Source"], row["Metadata_Batch"], row["Metadata_Plate"]) for row in rows]
    assert [item is not None for item in found] == [row["qc_flag"] == "red" for row in rows]
    assert sum(item is not None for item in found) == 17


@pytest.fixture
def judge(
    make_batch: Callable, tmp_path: Path, demo_params: Params, settings: Settings
) -> Callable[..., QualityReport]:
    def go(place: str, settings: Settings = settings) -> QualityReport:
        make_batch(plates=("p1", "p2", "p3")).write(tmp_path / "ds")
        quality = demo_params.quality.model_copy(update={"suite": "cell-painting-v3", "red_flags": place})
        params = demo_params.model_copy(update={"quality": quality})
        return validate(tmp_path / "ds", params=params, settings=settings)[0]

    return go


def test_a_red_plate_is_refused_a_gray_one_used_with_the_lists_own_reason(judge: Callable, tmp_path: Path) -> None:
    place = tmp_path / "list.csv"
    place.write_text(HEAD + "lab_x,b1,p1,red,Bubbles in row C.\nlab_x,,p3,gray,late fixation\nlab_y,b1,p2,red,no\n")
    report = judge(str(place))
    assert report.plates_refused == ("p1",)
    assert "Plate p1: the red-flag list has this plate as red: Bubbles in row C." in report.sentence
    checks = {check.where: check for check in report.checks if not check.passed and "flag" in check.observed}
    assert checks["plate p1"].severity == "critical"
    assert (checks["plate p3"].severity, "late fixation" in checks["plate p3"].observed) == ("warning", True)
    assert report.red_flags == hashlib.sha256(place.read_bytes()).hexdigest()
    assert [plate.red_flag for plate in report.plates] == ["red", "", "gray"]


def test_a_list_in_object_storage_is_read_and_shown(judge: Callable, moto_server: Moto, tmp_path: Path) -> None:
    store = moto_server.bucket()
    store.put("lists/flags.csv", (HEAD + "lab_x,b1,p2,red,wrong cell line\n").encode())
    report = judge(f"{store.uri}/lists/flags.csv", settings=moto_server.settings(tmp_path / "m"))
    assert report.plates_refused == ("p2",)
    shown = CliRunner().invoke(quality_app, ["show", str(tmp_path / "ds/lab_x/b1"), "--width", "160"])
    assert shown.exit_code == 0
    assert "red: wrong cell line" in shown.output
    assert f"red-flag list: SHA-256 {report.red_flags[:12]}" in " ".join(shown.output.split())


def test_a_list_that_is_not_there_is_an_operators_error(judge: Callable, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"quality\.red_flags.*no such file"):
        judge(str(tmp_path / "nowhere.csv"))
