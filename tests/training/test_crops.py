"""Views: which image each comes from, what is done to it, and that both ways of cutting agree."""

import numpy as np
import pytest
import torch

from coda.errors import ConfigError
from coda.training.crops import Cropper
from coda.training.images import cut_crops


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def test_provenance_by_images_of_constant_colour(tiny, monkeypatch):
    """Crops 0, 2, 3, 4 come from image A and 1, 5, 6, 7 from image B (section 2.2)."""
    params = tiny("crops.intensity_probability=0.0")
    images = torch.arange(0, 60, 10, dtype=torch.uint8)[:, None, None, None].expand(6, 3, 32, 32).contiguous()
    monkeypatch.setattr(Cropper, "standardised", lambda _self, crops, _rows: crops * 255)
    views = Cropper(images, params.crops).views(torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5]), source())
    crops = [*views.globals_.view(2, 3, -1), *views.locals_.view(6, 3, -1)]
    values = [[crop.unique().round().tolist() for crop in pairs] for pairs in crops]
    a, b = [[0.0], [10.0], [20.0]], [[30.0], [40.0], [50.0]]
    assert values == [a, b, a, a, a, b, b, b]


@pytest.mark.parametrize("changes", [(), ("crops.flips=false",), ("crops.rotations=false",), ("crops.gamma_sd=0.2",)])
def test_every_crop_has_mean_0_and_deviation_1_in_every_channel(tiny, fields, changes):
    cropper = Cropper(torch.from_numpy(fields.images), tiny(*changes).crops)
    views = cropper.views(torch.arange(6), torch.arange(6, 12), source())
    for crops in (views.globals_, views.locals_):
        assert crops.mean(dim=(-2, -1)).abs().max() < 1e-5
        assert (crops.std(dim=(-2, -1)) - 1).abs().max() < 1e-3


def test_normalising_by_image_uses_the_whole_image(tiny, fields):
    cropper = Cropper(torch.from_numpy(fields.images), tiny("crops.normalise=image", "crops.eval_grid=2").crops)
    crops = cropper.grid_crops(torch.arange(4))  # four quarters of 16 px tile the image of 32 px
    assert crops.mean(dim=(1, 3, 4)).abs().max() < 1e-5
    assert crops[:, 0].mean(dim=(-2, -1)).abs().max() > 1e-3


def test_an_empty_crop_stays_finite(tiny):
    crops = Cropper(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), tiny("crops.brightness_sd=0.0").crops)
    views = crops.views(torch.tensor([0]), torch.tensor([1]), source())
    assert torch.equal(views.globals_, torch.zeros_like(views.globals_))


def test_slices_and_index_arithmetic_cut_the_same_pixels(fields):
    images = torch.from_numpy(fields.images)
    rows, tops, lefts = torch.tensor([3, 7, 3]), torch.tensor([0, 5, 16]), torch.tensor([16, 2, 0])
    span = torch.arange(16)
    gathered = images[
        rows[:, None, None, None], torch.arange(3)[None, :, None, None],
        (tops[:, None] + span)[:, None, :, None], (lefts[:, None] + span)[:, None, None, :],
    ]  # fmt: skip
    assert torch.equal(cut_crops(images, rows, tops, lefts, 16), gathered)


@pytest.mark.parametrize(
    ("flips", "rotations", "expected"),
    [("true", "true", 8), ("true", "false", 4), ("false", "true", 4), ("false", "false", 1)],
)
def test_symmetries_that_occur(tiny, flips, rotations, expected):
    params = tiny(f"crops.flips={flips}", f"crops.rotations={rotations}", "crops.centre=16")
    picture = torch.randint(0, 255, (1, 3, 16, 16), dtype=torch.uint8, generator=source())
    crops = Cropper(picture, params.crops).random_crops(torch.zeros(200, dtype=torch.long), 16, source(1), jitter=False)
    seen = {tuple(np.round(crop.flatten().tolist(), 3)) for crop in crops}
    assert len(seen) == expected
    if (flips, rotations) == ("false", "true"):
        turns = {tuple(np.round(torch.rot90(crops[0], k, (-2, -1)).flatten().tolist(), 3)) for k in range(4)}
        assert seen == turns  # turns only, no mirror image


def test_only_global_views_change_intensity(tiny, fields):
    still, moved = (tiny(f"crops.intensity_probability={p}", "crops.brightness_sd=0.3").crops for p in (0.0, 1.0))
    images = torch.from_numpy(fields.images)
    one, other = (
        Cropper(images, crops).views(torch.arange(4), torch.arange(4, 8), source()) for crops in (still, moved)
    )
    assert not torch.allclose(one.globals_, other.globals_)


def test_evaluation_grid_is_centred(tiny):
    ramp = torch.arange(32, dtype=torch.uint8)[None, None, :, None].expand(1, 3, 32, 32).contiguous()
    places = []
    for grid in (1, 2, 3):
        cropper = Cropper(ramp, tiny(f"crops.eval_grid={grid}").crops)
        cropper.standardised = lambda crops, _rows: crops * 255
        crops = cropper.grid_crops(torch.tensor([0]))
        places.append(sorted({round(float(crop[0, 0, 0])) for crop in crops[0]}))
    assert places == [[8], [0, 16], [0, 8, 16]]


def test_random_crops_stay_inside_the_centre(tiny):
    images = torch.zeros(1, 3, 48, 48, dtype=torch.uint8)
    images[:, :, 8:40, 8:40] = 200
    cropper = Cropper(images, tiny("crops.intensity_probability=0.0").crops)
    cropper.standardised = lambda crops, _rows: crops * 255
    crops = cropper.random_crops(torch.zeros(300, dtype=torch.long), 16, source(), jitter=False)
    assert crops.min() == 200


def test_views_larger_than_the_images_are_refused(tiny):
    with pytest.raises(ConfigError, match="12 x 40 px"):
        Cropper(torch.zeros(1, 3, 12, 40, dtype=torch.uint8), tiny().crops)
