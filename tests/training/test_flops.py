"""Work from shapes: the paper's table by hand, and torch's own counter on the real modules."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from coda.config import load_params
from coda.networks.dino_head import new_dino_head
from coda.networks.extractor import new_extractor, pool_tokens, set_attention, untrained_extractor
from coda.training import flops

SHAPES = {
    "demo": {"img_size": 48, "patch_size": 8, "embed_dim": 96, "depth": 3, "num_heads": 3},
    "narrow": {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
    "wide": {"img_size": 64, "patch_size": 16, "embed_dim": 192, "depth": 2, "num_heads": 3},
}


@pytest.fixture(scope="module")
def paper(root):
    params = load_params(root / "params.yaml", [], ["extractor.weights=random"])
    extractor = new_extractor(params, seed=0)
    return params, extractor, new_dino_head(params.dino, extractor.width, seed=1)


def build(root, name, *changes):
    sizes = {"demo": (48, 24), "narrow": (32, 16), "wide": (64, 32)}[name]
    overrides = f"extractor.overrides={SHAPES[name]}".replace("'", "")
    crops = [f"crops.global_size={sizes[0]}", f"crops.local_size={sizes[1]}", "head.num_heads=1"]
    params = load_params(root / "params.yaml", [root / "params" / "demo.yaml"], [overrides, *crops, *changes])
    extractor = new_extractor(params, seed=0)
    return params, extractor, new_dino_head(params.dino, extractor.width, seed=1)


def counted(work):
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def test_the_numbers_of_the_paper_s_network(paper):
    params, extractor, head = paper
    giga = {
        "224": flops.extractor_forward(extractor, 224),
        "96": flops.extractor_forward(extractor, 96),
        "head": flops.dino_head_forward(head),
        "student": flops.student_forward(extractor, head, params.crops),
        "teacher": flops.teacher_forward(extractor, head, params.crops),
        "backward": flops.BACKWARD * flops.student_forward(extractor, head, params.crops),
        "step": flops.dino_step(extractor, head, params.crops),
        "supervised": flops.supervised_step(extractor, 54, 224),
    }
    expected = {
        "224": (9.197, 1e-3), "96": (1.618, 1e-3), "head": (0.0131, 1e-4), "student": (28.21, 1e-2),
        "teacher": (18.42, 1e-2), "backward": (56.41, 1e-2), "step": (103.0, 0.1), "supervised": (27.6, 0.1),
    }  # fmt: skip
    for name, (value, tolerance) in expected.items():
        assert giga[name] / 1e9 == pytest.approx(value, abs=tolerance), name


def test_mae_of_the_paper_s_network(paper):
    _, extractor, _ = paper
    mae = {"mask_ratio": 0.75, "width": 512, "depth": 8, "hidden": 2048}
    assert flops.mae_forward(extractor, 224, **mae) / 1e9 == pytest.approx(2.3 + 10.7, abs=0.1)
    assert flops.mae_step(extractor, 224, **mae) / 1e9 == pytest.approx(39.0, abs=0.2)


@pytest.mark.parametrize("name", SHAPES)
def test_torch_counts_the_same_forward_work(root, name):
    params, extractor, head = build(root, name)
    set_attention(extractor, "explicit")  # torch does not count its fused kernel on a CPU
    for side in (params.crops.global_size, params.crops.local_size):
        images = torch.zeros(3, 3, side, side)
        with torch.no_grad():
            found = counted(lambda images=images: extractor(images))
        assert found / 3 == pytest.approx(flops.extractor_forward(extractor, side), rel=1e-6)
    with torch.no_grad():
        found = counted(lambda: head(torch.zeros(5, extractor.width)))
    assert found / 5 == pytest.approx(flops.dino_head_forward(head), rel=1e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_torch_counts_the_same_step_but_for_the_images_own_gradient(root, name):
    params, student, student_head = build(root, name, "crops.locals_per_image=2")
    teacher = untrained_extractor(student.config, seed=3)
    for network in (student, teacher):
        set_attention(network, "explicit")
    crops, batch = params.crops, 2
    large = torch.zeros(2 * batch, 3, crops.global_size, crops.global_size)
    small = torch.zeros(4 * batch, 3, crops.local_size, crops.local_size)

    def step():
        with torch.no_grad():
            student_head(pool_tokens(teacher(large), "cls"))
        features = torch.cat([pool_tokens(student(views), "cls") for views in (large, small)])
        student_head(features).square().sum().backward()

    # the closed form counts twice the forward work for every backward pass; the first layer needs no gradient of images
    patches = 2 * (crops.global_size // student.patch_size) ** 2 + 4 * (crops.local_size // student.patch_size) ** 2
    images = flops.linear(patches, 3 * student.patch_size**2, student.width)
    expected = flops.dino_step(student, student_head, crops) - images
    assert counted(step) / batch == pytest.approx(expected, rel=1e-2)
