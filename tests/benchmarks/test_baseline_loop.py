"""The customary way must be right, or the comparison with it is worth nothing."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from benchmarks.speed.baseline_loop import CustomaryTraining, PairImages, customary_batches, loop_loss, write_pngs
from coda.config import load_params
from coda.plates.fieldset import FieldSet
from coda.training.crops import Views
from coda.training.images import MemoryImages
from coda.training.matrix_rate import measure_matrix_rate
from coda.training.methods.dino.loss import dino_loss
from coda.training.methods.dino.objective import DinoObjective
from coda.training.methods.dino.state import new_state
from coda.training.pairs import PairSampler
from coda.training.schedules import length_of

TINY = (
    "extractor.overrides={img_size: 16, patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}",
    "crops.centre=32", "crops.global_size=16", "crops.local_size=8", "dino.prototypes=12", "dino.hidden_dim=16",
    "dino.bottleneck_dim=8", "pretrain.iterations=4", "pretrain.batch_size=6", "head.depth=1", "head.num_heads=2",
    "compute.threads=1", "compute.precision=float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def params(root):
    return load_params(root / "params.yaml", [root / "params" / "demo.yaml"], TINY)


@pytest.fixture(scope="module")
def fields():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({
        "image_id": [f"field_{number}" for number in range(24)],
        "Metadata_Source": "lab", "Metadata_Plate": "plate", "Metadata_Well": "A01", "Metadata_Site": 0,
        "Metadata_Batch": [f"batch_{number % 3}" for number in range(24)],
        "Metadata_Treatment": [f"compound_{number // 6}" for number in range(24)],
        "Metadata_pert_type": "trt",
    })  # fmt: skip
    return FieldSet(rng.integers(0, 255, (24, 3, 32, 32)).astype(np.uint8), table, ("DNA", "AGP", "RNA"))


def images(fields, params, folder, **changes):
    options = {"by_batch": True, "samples": 12, "seed": 3, **changes}
    return PairImages(write_pngs(fields, folder), fields.table, params.crops, **options)


def test_a_png_holds_the_field_and_comes_back_as_it_was(fields, params, tmp_path):
    data = images(fields, params, tmp_path)
    with Image.open(tmp_path / "000004.png") as picture:
        assert picture.size == (3 * 32, 32)
    for row in (0, 4, 23):
        assert np.array_equal(data._load(row), fields.images[row])


def test_partners_have_the_treatment_and_another_batch(fields, params, tmp_path):
    data, table, rng = images(fields, params, tmp_path), fields.table, np.random.default_rng(1)
    drawn = {data._partner(7, rng) for _ in range(60)}
    allowed = table.index[
        (table["Metadata_Treatment"] == "compound_1") & (table["Metadata_Batch"] != table["Metadata_Batch"][7])
    ]
    assert drawn == set(allowed)


def test_a_sample_is_eight_standardised_views_and_the_same_whenever_it_is_drawn(fields, params, tmp_path):
    data = images(fields, params, tmp_path)
    views, again, other = data[2], data[2], data[3]
    assert [tuple(view.shape) for view in views] == [(3, 16, 16)] * 2 + [(3, 8, 8)] * 6
    for view in views:
        torch.testing.assert_close(view.mean(dim=(1, 2)), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(view.std(dim=(1, 2)), torch.ones(3), atol=1e-3, rtol=0)
    assert all(torch.equal(one, two) for one, two in zip(views, again, strict=True))
    assert not torch.equal(views[0], other[0])


def test_crops_come_from_the_image_they_should(fields, params, tmp_path):
    flat = np.broadcast_to(np.arange(24, dtype=np.uint8)[:, None, None, None] * 10, fields.images.shape)
    changed = params.model_copy(update={"crops": params.crops.model_copy(update={"intensity_probability": 0.0})})
    data = images(FieldSet(flat.copy(), fields.table, fields.channels), changed, tmp_path)
    seen = []
    data._view = lambda image, size, rng, *, jitter: seen.append((int(image[0, 0, 0]) // 10, size)) or torch.zeros(1)
    data[5]
    first, second = seen[0][0], seen[1][0]
    assert fields.table["Metadata_Treatment"][first] == fields.table["Metadata_Treatment"][second]
    assert fields.table["Metadata_Batch"][first] != fields.table["Metadata_Batch"][second]
    assert seen == [(first, 16), (second, 16)] + [(first, 8)] * 3 + [(second, 8)] * 3


def test_batches_are_the_samples_stacked(fields, params, tmp_path):
    data = images(fields, params, tmp_path)
    batches = list(customary_batches(data, 5, workers=0))
    assert len(batches) == 2  # twelve samples, the incomplete batch dropped
    for number in range(8):
        assert torch.equal(batches[1][number], torch.stack([data[position][number] for position in range(5, 10)]))


def test_the_loop_over_terms_is_the_engine_s_loss():
    source = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(views, 5, 12, generator=source) for views in (8, 2))
    centre = torch.randn(12, generator=source)
    expected = dino_loss(student, teacher, centre, student_temperature=0.1, teacher_temperature=0.04)
    torch.testing.assert_close(loop_loss(list(student), list(teacher), centre, (0.1, 0.04)), expected)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_on_the_same_views_it_takes_the_step_of_the_engine(fields, params, batch_norm):
    params = params.model_copy(update={"dino": params.dino.model_copy(update={"batch_norm": batch_norm})})
    sampler = PairSampler(fields.table, params.pairs)
    length = length_of(params.pretrain, sampler.fields_per_epoch)
    ours, theirs = new_state(params, seed=5), new_state(params, seed=5)
    before = deepcopy(theirs.student.state_dict())
    engine = DinoObjective(
        MemoryImages(torch.from_numpy(fields.images)), params, params.pretrain,
        state=ours, sampler=sampler, length=length, seed=5,
    )  # fmt: skip
    customary = CustomaryTraining(theirs, params, params.pretrain, length)
    taken: list[Views] = []
    cut = engine.cropper.views

    def remembered(*arguments):
        taken.append(cut(*arguments))
        return taken[-1]

    engine.cropper.views = remembered
    for iteration in range(2):
        entry = engine.step(iteration, measure=True)
        views = [*taken[-1].globals_.chunk(2), *taken[-1].locals_.chunk(6)]
        assert customary.step(views, iteration) == pytest.approx(entry.numbers["loss"], rel=1e-5)
    if batch_norm:
        return  # it takes away what several biases add: Adam blows up the rounding of their zero gradients
    for name in (name for name in theirs.state_dict() if not name.endswith("attn.qkv.bias")):  # a key's bias: the same
        torch.testing.assert_close(theirs.state_dict()[name], ours.state_dict()[name], atol=2e-5, rtol=1e-3)
    assert any(not torch.equal(before[name], tensor) for name, tensor in theirs.student.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_matrix_rate_is_a_rate_of_this_machine(dtype):
    rate = measure_matrix_rate(torch.device("cpu"), dtype, seconds=0.1)
    assert (rate.device, rate.dtype, rate.threads) == ("cpu", str(dtype)[6:], torch.get_num_threads())
    assert 1e7 < rate.flops < 1e15
    assert rate.side in (512, 1024, 2048)
