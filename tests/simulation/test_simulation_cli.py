"""The command line and the contact sheet."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from typer.testing import CliRunner

from coda.cli.simulate import app
from coda.contracts import BatchManifest
from coda.errors import ConfigError
from coda.simulation import LABORATORIES
from coda.simulation.contact_sheet import contact_sheet
from coda.simulation.design import PLATE_SHAPES

RUNNER = CliRunner()


def test_a_batch_is_simulated_broken_and_drawn(tmp_path):
    arguments = ["batch", str(tmp_path), "--lab", "lab_c", "--plates", "1", "--field-px", "32", "--sites", "1"]
    result = RUNNER.invoke(app, [*arguments, "--workers", "1", "--labels", str(tmp_path / "labels.csv")])
    assert result.exit_code == 0, result.output
    folder = tmp_path / "lab_c" / "batch_01"
    assert len(list(folder.rglob("*.tif"))) == 34 * 5
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 25
    result = RUNNER.invoke(app, ["break", str(folder), "--kind", "zero_images"])
    assert "zero_images: 3 images" in result.output
    result = RUNNER.invoke(app, ["sheet", str(tmp_path), str(tmp_path / "sheet.png")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_a_batch_is_shifted_by_kind_and_its_layout_with_it(tmp_path):
    arguments = ["batch", str(tmp_path), "--lab", "lab_b", "--plates", "1", "--field-px", "32", "--sites", "1"]
    shift = ("--workers", "1", "--shift", "optical:1+missing:0.5")
    assert RUNNER.invoke(app, [*arguments, *shift]).exit_code == 0
    manifest = BatchManifest.read(tmp_path / "lab_b" / "batch_01" / "manifest.json")
    made = manifest.simulation["laboratory"]
    assert made["optics"]["section_um"] == LABORATORIES["lab_b"].optics.section_um
    assert made["camera"] == LABORATORIES["lab_a"].camera.model_dump(mode="json")
    assert len(manifest.simulation["layout"]) == 12
    # what no laboratory had when manifests were first written is there only where it is used
    assert "well_background" not in made["variation"]
    again = RUNNER.invoke(app, [*arguments, *shift])
    assert again.exit_code == 0
    other = RUNNER.invoke(app, [*arguments, *shift[:-1], "optical:1"])
    assert isinstance(other.exception, ConfigError)
    assert "other parameters" in str(other.exception)


def test_an_impossible_plate_is_refused(tmp_path):
    result = RUNNER.invoke(app, ["batch", str(tmp_path), "--plate-wells", "40"])
    assert isinstance(result.exception, ConfigError)
    assert "40" in str(result.exception)


@pytest.mark.parametrize("wells", PLATE_SHAPES)
def test_every_plate_that_is_offered_can_be_simulated(wells, tmp_path):
    arguments = ["batch", str(tmp_path), "--plates", "1", "--field-px", "32", "--sites", "1", "--workers", "1"]
    result = RUNNER.invoke(app, [*arguments, "--plate-wells", str(wells), "--labels", str(tmp_path / "labels.csv")])
    assert result.exit_code == 0, result.exception
    mechanisms = {line.partition(",")[2] for line in (tmp_path / "labels.csv").read_text().splitlines()[1:]}
    assert len(mechanisms) == 8


def test_the_sheet_has_a_row_for_each_source_and_treatment(deliveries, tmp_path):
    picture = matplotlib.image.imread(contact_sheet(deliveries, tmp_path / "s.png", treatments=["DMSO"]))
    assert picture.shape[0] == pytest.approx(3 * 190, abs=2)
    assert np.unique(picture[..., :3]).size > 100


def test_a_folder_without_batches_or_treatments_is_named(deliveries, tmp_path):
    with pytest.raises(ConfigError, match="no delivered batch"):
        contact_sheet(tmp_path, Path("x.png"))
    with pytest.raises(ConfigError, match="no field of these treatments"):
        contact_sheet(deliveries, Path("x.png"), treatments=["aspirin"])
