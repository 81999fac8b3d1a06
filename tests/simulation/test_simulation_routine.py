"""What goes wrong in a screen by routine: an old lamp, wells that got something else, plates that hold other things."""

import numpy as np
import pytest

from coda.contracts import BatchManifest
from coda.errors import ConfigError
from coda.simulation import find_laboratory, simulate_batch
from coda.simulation.design import holding
from coda.simulation.field import render_field
from coda.simulation.laboratories import LABORATORIES, with_lamp


def picture(experiment, laboratory, well, compound=None):
    held = compound or experiment.compound(well.compound)
    return render_field(experiment.seed, laboratory, ("b1", "p1"), well, held, 1, experiment.design).astype(np.float64)


def test_an_old_lamp_gives_so_much_of_the_light_and_leaves_the_camera_as_it_is(experiment):
    new = find_laboratory("lab_d")
    well = next(plan for plan in experiment.imaged_wells() if plan.pert_type == "negcon")
    offset = new.camera.offset
    bright, dim = (picture(experiment, with_lamp(new, output), well) - offset for output in (1.0, 0.6))
    assert dim.mean() / bright.mean() == pytest.approx(0.6, rel=0.02)
    assert np.array_equal(bright, picture(experiment, new, well) - offset)
    for output in (0.0, 1.2):
        with pytest.raises(ConfigError, match="lamp"):
            with_lamp(new, output)


def test_a_screen_by_routine_varies_less_from_batch_to_batch():
    steady, usual = LABORATORIES["lab_d"].variation, LABORATORIES["lab_c"].variation
    for name in ("batch_biology", "batch_staining", "batch_focus_um", "batch_density", "background"):
        assert getattr(steady, name) < 0.2 * getattr(usual, name)


def test_plates_hold_what_they_are_asked_to_and_say_so(experiment):
    first, second, *_ = [item for item in experiment.compounds if item.pert_type == "trt"]
    held = holding(experiment, {first.name: second.name})
    assert {well.compound for well in held.imaged_wells()} == {well.compound for well in experiment.imaged_wells()} - {
        first.name
    }
    moved = [(old, new) for old, new in zip(experiment.layout, held.layout, strict=True) if old != new]
    assert {old.compound for old, _ in moved} == {first.name}
    assert {(new.compound, new.treatment) for _, new in moved} == {(second.name, f"{second.name}_5uM")}
    gone = holding(experiment, {first.name: None})
    assert len(gone.layout) == len(experiment.layout)
    assert len(gone.imaged_wells()) == len(experiment.imaged_wells()) - len(moved)
    with pytest.raises(ConfigError, match="mechanism or compound"):
        holding(experiment, {"caffeine": None})


def test_wells_that_got_something_else_look_like_it_and_their_map_does_not_tell(experiment, tmp_path):
    control = next(item for item in experiment.compounds if item.pert_type == "poscon")
    well = next(plan for plan in experiment.imaged_wells() if plan.compound == control.name)
    plates = ("p1", "p2")
    right = simulate_batch(experiment, "lab_d", "b1", plates, tmp_path / "right", workers=1)
    wrong = simulate_batch(
        experiment, "lab_d", "b1", plates, tmp_path / "wrong", workers=1, dispensed={"p2": {control.name: "DMSO"}}
    )
    assert "dispensed" not in right.simulation
    assert wrong.simulation["dispensed"] == {"p2": {control.name: "DMSO"}}
    digests = [{file.path: file.sha256 for plate in told.plates for file in plate.files} for told in (right, wrong)]
    other = {path for path, digest in digests[0].items() if digests[1][path] != digest}
    assert other
    assert all("p2" in path and path.endswith(".tif") and f"_{well.well}_" in path for path in other), other


def test_images_may_stay_where_they_are(experiment, tmp_path):
    told = simulate_batch(experiment, "lab_d", "b1", ("p1",), tmp_path, workers=1, images_stay=True)
    assert told.images_at == str((tmp_path / "lab_d" / "b1").resolve())
    assert BatchManifest.read(tmp_path / "lab_d" / "b1" / "manifest.json") == told
