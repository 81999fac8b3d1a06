"""Physical properties: optics, cameras, cells and phenotypes behave as their words say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from coda.contracts import STAINS
from coda.simulation import MECHANISMS, TRAITS, find_laboratory
from coda.simulation.anatomy import describe_pixels
from coda.simulation.cells import Canvas, divide, place_cells
from coda.simulation.laboratories import LABORATORIES, Camera, Optics
from coda.simulation.nuisance import Conditions
from coda.simulation.optics import blur, expose, illumination, mix_channels, photograph, spot_sigma_um
from coda.simulation.seeds import stream
from coda.simulation.stains import paint
from coda.simulation.textures import DOTS_MEAN_AT_1, TextureSource, dots, threads
from coda.simulation.traits import NAMES, effect_vector, values_of

CANVAS = Canvas(side_px=160, margin_px=16, pixel_size_um=1.1)
OPTICS = find_laboratory("lab_a").optics


def still(**changes) -> Conditions:
    return Conditions(biology=np.zeros(len(TRAITS)), log_staining=np.zeros(len(STAINS)), **changes)


def painted(effects: dict[str, float], seed: int = 1, section_um: float = 25.0) -> np.ndarray:
    """Five stains before optics, for a well with these effects."""
    cells = place_cells(CANVAS, 900.0, effect_vector(effects), 1.0, stream(seed, "cells"))
    return paint(CANVAS, cells, section_um, stream(seed, "textures"))


def mean_of(stain: str, effects: dict[str, float]) -> float:
    return float(np.mean([painted(effects, seed)[STAINS.index(stain)].mean() for seed in range(3)]))


@given(sigma=st.floats(0.5, 4.0), haze=st.floats(0.0, 0.6))
@settings(max_examples=20, deadline=None)
def test_the_spot_of_a_point_has_the_variance_asked_for_and_keeps_the_light(sigma, haze):
    point = np.zeros((128, 128), np.float32)
    point[64, 64] = 100
    seen = blur(point, 1.0, sigma, haze, 6.0).astype(np.float64)
    assert seen.sum() == pytest.approx(100, rel=1e-3)
    axis = np.arange(128) - 64
    variance = (seen.sum(axis=0) * axis**2).sum() / seen.sum()
    # below one pixel the sampled Gaussian is cut at the Nyquist frequency, hence the absolute tolerance
    assert variance == pytest.approx((1 - haze) * sigma**2 + haze * 36.0, rel=0.02, abs=0.1)


def test_defocus_and_wavelength_widen_the_spot():
    sharp = [spot_sigma_um(OPTICS, 0.0, channel, 1.1) for channel in range(5)]
    assert sharp[1:] == sorted(sharp[1:]), "longer wavelengths, wider spots (DNA's has its own focus)"
    assert spot_sigma_um(OPTICS, 4.0, 1, 1.1) > 1.5 * spot_sigma_um(OPTICS, 0.0, 1, 1.1)
    assert spot_sigma_um(find_laboratory("lab_c").optics, 4.0, 1, 1.1) < spot_sigma_um(OPTICS, 4.0, 1, 1.1), (
        "a small aperture has more depth of focus"
    )


@given(loss=st.floats(0.0, 0.6), x=st.floats(-0.3, 0.3), y=st.floats(-0.3, 0.3))
@settings(max_examples=30, deadline=None)
def test_vignetting_darkens_away_from_the_bright_point(loss, x, y):
    light = illumination(64, loss, (x, y))
    assert light.max() == 1
    assert light.min() > 0
    row, column = np.unravel_index(light.argmax(), light.shape)
    if loss > 0.05:
        assert abs((column + 0.5) / 64 - 0.5 - x) < 0.02
        assert abs((row + 0.5) / 64 - 0.5 - y) < 0.02
    centred = illumination(64, loss, (0.0, 0.0))
    assert centred[0, 0] == pytest.approx(1 - loss, abs=0.02)


def test_shot_noise_follows_the_light_and_the_gain():
    camera = Camera(photons=(1.0,) * 5, read_noise=3.0, gain=2.0, offset=100.0, gamma=1.0, bit_depth=16)
    counts = expose(np.full((300, 300), 1.0, np.float32), 400.0, camera, stream(0, "x")).astype(float)
    assert counts.mean() == pytest.approx(100 + 2 * 400, rel=0.005)
    assert counts.var() == pytest.approx(4 * (400 + 9), rel=0.03)


@pytest.mark.parametrize("name", LABORATORIES)
def test_counts_stay_within_the_bits_of_the_camera(name):
    laboratory = find_laboratory(name)
    density = np.full((5, CANVAS.side_px, CANVAS.side_px), 50.0, np.float32)
    field = photograph(density, CANVAS, laboratory.optics, laboratory.camera, still(), stream(0, name))
    assert field.shape == (5, 128, 128)
    assert field.dtype == np.uint16
    assert field.max() <= 2**laboratory.camera.bit_depth - 1
    if laboratory.camera.bit_depth == 12:
        assert field.max() == 4095, "fifty times a cell's light saturates"


def test_crosstalk_adds_one_stain_to_another_channel_only():
    density = np.zeros((5, 8, 8), np.float32)
    density[STAINS.index("RNA")] = 1.0
    mixed = mix_channels(density, OPTICS, still())
    shares = dict(zip(STAINS, mixed[:, 0, 0].tolist(), strict=True))
    assert shares == pytest.approx({"DNA": 0, "ER": 0.06, "RNA": 1, "AGP": 0.05, "Mito": 0})
    brighter = mix_channels(density, OPTICS, Conditions(np.zeros(len(TRAITS)), np.log([1, 1, 2, 1, 1])))
    assert brighter[STAINS.index("AGP")] == pytest.approx(2 * mixed[STAINS.index("AGP")])


def test_a_confocal_section_shows_less_cytoplasm_over_the_nucleus():
    cells = place_cells(CANVAS, 900.0, np.zeros(len(TRAITS)), 1.0, stream(3, "cells"))
    flat = np.zeros((CANVAS.side_px, CANVAS.side_px), np.float32)
    seen = {}
    for section in (2.0, 40.0):
        pixels = describe_pixels(CANVAS, cells, divide(CANVAS, cells, flat), flat, section)
        middle = pixels.nucleus_radial < 0.5
        around = (pixels.nucleus_radial > 1.3) & (pixels.radial < 0.8)
        seen[section] = pixels.cytoplasm_path[middle].mean() / pixels.cytoplasm_path[around].mean()
    assert seen[2.0] < 0.6 * seen[40.0]


def test_density_and_survival_decide_how_many_cells_there_are():
    area_mm2 = (CANVAS.side_um * 1e-3) ** 2

    def count(effects: dict[str, float]) -> float:
        vector = effect_vector(effects)
        found = []
        for seed in range(20):
            cells = place_cells(CANVAS, 900.0, vector, 1.0, stream(seed, "cells"))
            side = CANVAS.side_um
            inside = (cells.x_um > 0) & (cells.x_um < side) & (cells.y_um > 0) & (cells.y_um < side)
            found.append(inside.sum())
        return float(np.mean(found))

    assert count({}) == pytest.approx(0.9 * 900 * area_mm2, rel=0.08)
    assert count({"survival": -0.7}) / count({}) == pytest.approx(np.exp(-0.7), rel=0.12)


def test_textures_have_mean_0_deviation_1_and_the_scale_asked_for():
    source = TextureSource(256, 1.0, stream(0, "t"))
    fine, coarse = source.draw(2.0), source.draw(6.0)
    for texture in (*fine, *coarse):
        assert texture.mean() == pytest.approx(0, abs=0.05)
        assert texture.std() == pytest.approx(1, abs=0.08)
    assert abs(np.corrcoef(fine[0].ravel(), fine[1].ravel())[0, 1]) < 0.05
    assert abs(np.diff(fine[0], axis=0)).mean() > 2 * abs(np.diff(coarse[0], axis=0)).mean()
    assert threads(fine[0], 0.6).mean() == pytest.approx(1, rel=0.05)
    assert dots(fine[0], 1.0).mean() == pytest.approx(DOTS_MEAN_AT_1, rel=0.1)


@pytest.mark.parametrize(
    ("trait", "stain"),
    [("dna_amount", "DNA"), ("er_level", "ER"), ("rna_level", "RNA"), ("fibres", "AGP"), ("mito_level", "Mito")],
)
def test_a_stain_trait_brightens_its_own_stain_alone(trait, stain):
    for other in STAINS:
        change = mean_of(other, {trait: 0.6}) / mean_of(other, {})
        assert (change > 1.1) if other == stain else change == pytest.approx(1, abs=1e-5), other


def test_fragmented_mitochondria_are_more_contrasted_and_shrunken_cells_cover_less():
    def spread(effects: dict[str, float]) -> float:
        mito = painted(effects)[STAINS.index("Mito")]
        return float(mito.std() / mito.mean())

    assert spread({"mito_fragmentation": 3.0}) > 1.3 * spread({})
    covered = {shift: (painted({"cell_radius_um": shift})[1] > 0.05).mean() for shift in (-0.4, 0.0)}
    assert covered[-0.4] < 0.75 * covered[0.0]


@given(st.lists(st.floats(-40, 40), min_size=len(TRAITS), max_size=len(TRAITS)))
@settings(max_examples=50, deadline=None)
def test_trait_values_stay_in_range_whatever_the_effects(effects):
    values = dict(zip(NAMES, values_of(np.array(effects)), strict=True))
    assert all(np.isfinite(list(values.values())))
    for trait in TRAITS:
        assert values[trait.name] >= 0
        if trait.scale == "logit":
            assert values[trait.name] <= 1


def test_no_effect_means_the_typical_value():
    assert values_of(np.zeros(len(TRAITS))) == pytest.approx([trait.typical for trait in TRAITS])


@given(seed=st.integers(0, 2**32), mechanism=st.sampled_from(sorted(MECHANISMS)), strength=st.floats(0, 3))
@settings(max_examples=12, deadline=None)
def test_stains_are_finite_and_not_negative_for_any_mechanism(seed, mechanism, strength):
    canvas = Canvas(side_px=64, margin_px=8, pixel_size_um=1.1)
    effects = strength * effect_vector(MECHANISMS[mechanism])
    cells = place_cells(canvas, 900.0, effects, 1.0, stream(seed, "cells"))
    density = paint(canvas, cells, 3.0, stream(seed, "textures"))
    assert np.isfinite(density).all()
    assert density.min() >= 0


def test_an_empty_field_can_be_painted():
    canvas = Canvas(side_px=40, margin_px=4, pixel_size_um=0.6)
    cells = place_cells(canvas, 900.0, effect_vector({"survival": -20.0}), 1.0, stream(0, "cells"))
    assert len(cells) == 0
    assert paint(canvas, cells, 3.0, stream(0, "textures")).max() == 0


def test_laboratories_are_strict():
    with pytest.raises(ValidationError, match="haze"):
        Optics.model_validate(OPTICS.model_dump() | {"haze": 1.5})
    with pytest.raises(ValidationError, match="dust"):
        Optics.model_validate(OPTICS.model_dump() | {"dust": 1.0})
