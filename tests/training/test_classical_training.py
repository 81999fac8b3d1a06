"""The classical head against scikit-learn, through its folder and the loader that verifies it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from coda.config.params import Params
from coda.errors import ConfigError, IntegrityError
from coda.networks import artifact
from coda.networks.classical_head import ClassicalHead
from coda.networks.extractor import Extractor, new_extractor
from coda.networks.head import LABELS, SOURCE_STATISTICS, load_head, save_head
from coda.networks.profile import VERSION, Profile, profile_of
from coda.plates.fieldset import FieldSet
from coda.training.classical_training import STRENGTH, train_classical
from coda.training.labels import LabelList
from coda.training.profiles import extract_profiles, measured, profiles
from tests.tiny_models import tiny

STAINS = 3


@pytest.fixture
def small(demo_params: Params) -> Params:
    return tiny(demo_params)


@pytest.fixture
def extractor(small: Params) -> Extractor:
    return new_extractor(small, seed=0)


def plates(small: Params, mechanisms: int = 3, batches: int = 2, seed: int = 0) -> tuple[FieldSet, LabelList]:
    """Return fields whose mechanism is written in one stain's brightness, under another gain in every batch."""
    random, images, rows = np.random.default_rng(seed), [], []
    for batch in range(batches):
        gain = 0.6 + 0.3 * batch
        for number in range(mechanisms * 6 + 4):
            compound, control = number % (mechanisms * 2), number >= mechanisms * 6
            mechanism = compound // 2
            image = random.integers(20, 60, (STAINS, 24, 24)).astype(float)
            if not control:
                image[mechanism % STAINS, 6:18, 6:18] += 60 + 60 * (mechanism // STAINS)
            images.append((image * gain).clip(0, 255))
            rows.append(
                {
                    "Metadata_Source": "lab_a", "Metadata_Batch": f"b{batch}", "Metadata_Plate": f"p{batch}",
                    "Metadata_Well": f"A{number:02d}", "Metadata_pert_type": "negcon" if control else "trt",
                    "Metadata_Compound": "DMSO" if control else f"c{compound}",
                    "image_id": f"{batch}-{number}",
                }
            )  # fmt: skip
    labels = LabelList({f"c{number}": f"moa {number // 2}" for number in range(mechanisms * 2)})
    return FieldSet(np.array(images).astype(np.uint8), pd.DataFrame(rows), small.extractor.channels), labels


def by_hand(fields: FieldSet, labels: LabelList, params: Params) -> NDArray[np.float64]:
    """Return the probabilities that scikit-learn gives every field, standardised by scikit-learn too."""
    raw = np.array([profile_of(image) for image in fields.images])
    parts = np.empty_like(raw)
    for batch in fields.table["Metadata_Batch"].unique():
        own = (fields.table["Metadata_Batch"] == batch).to_numpy()
        parts[own] = StandardScaler().fit_transform(raw[own])
    codes = labels.codes(fields.table)
    model = LogisticRegression(C=STRENGTH, max_iter=5000, class_weight="balanced", tol=1e-8)
    model.fit(parts[codes >= 0], codes[codes >= 0])
    return np.asarray(model.predict_proba(parts))


@pytest.mark.parametrize("mechanisms", [2, 3, 5])
def test_it_is_the_regression_of_scikit_learn(small: Params, extractor: Extractor, mechanisms: int) -> None:
    fields, labels = plates(small, mechanisms)
    result = train_classical(extractor, fields, fields, labels, small)
    raw = extract_profiles(Profile(extractor.config), fields)
    own = torch.empty_like(raw)
    for batch in ("b0", "b1"):
        rows = torch.from_numpy(np.flatnonzero(fields.table["Metadata_Batch"] == batch))
        part = raw[rows].double()
        own[rows] = ((part - part.mean(dim=0)) / part.std(dim=0, correction=0).clamp_min(1e-6)).float()
    found = result.head(own[:, 0]).softmax(dim=-1).numpy()
    assert np.allclose(found, by_hand(fields, labels, small), atol=5e-3)
    assert result.accuracy == 1.0
    assert result.source.count == len(fields)


def test_one_mechanism_is_all_there_is_to_say(small: Params, extractor: Extractor) -> None:
    fields, labels = plates(small, 1)
    result = train_classical(extractor, fields, fields, labels, small)
    assert result.head(torch.randn(4, 1, result.head.config["width"])).softmax(dim=-1).tolist() == [[1.0]] * 4


def test_two_trainings_leave_the_same_bits(small: Params, extractor: Extractor) -> None:
    fields, labels = plates(small)
    one, other = (train_classical(extractor, fields, fields, labels, small).head.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def saved(folder: Path, small: Params, extractor: Extractor) -> ClassicalHead:
    fields, labels = plates(small)
    result = train_classical(extractor, fields, fields, labels, small)
    extra = {LABELS: labels.to_bytes(), SOURCE_STATISTICS: result.source.to_bytes()}
    save_head(folder, result.head, extra, {"labels": labels.digest})
    return result.head


def test_a_folder_brings_it_back_frozen(tmp_path: Path, small: Params, extractor: Extractor) -> None:
    head = saved(tmp_path / "head", small, extractor)
    again = load_head(tmp_path / "head")
    assert isinstance(again, ClassicalHead)
    assert not any(parameter.requires_grad for parameter in again.parameters())
    tokens = torch.randn(5, 1, head.config["width"], generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(tokens), head(tokens))
    assert again.config["reads"] == VERSION


@pytest.mark.parametrize(
    ("key", "value"), [("reads", "profile-0"), ("width", 7), ("width", 10**9), ("channels", ["DNA"])]
)
def test_a_head_on_another_profile_is_refused(
    tmp_path: Path, small: Params, extractor: Extractor, key: str, value: object
) -> None:
    saved(tmp_path / "head", small, extractor)
    config = json.loads((tmp_path / "head" / "config.json").read_bytes()) | {key: value}
    tensors, _ = artifact.load(tmp_path / "head")
    artifact.save(tmp_path / "other", tensors, config)
    with pytest.raises(IntegrityError):
        load_head(tmp_path / "other")


def test_changed_weights_are_noticed(tmp_path: Path, small: Params, extractor: Extractor) -> None:
    saved(tmp_path / "head", small, extractor)
    path = tmp_path / "head" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError):
        load_head(tmp_path / "head")


def test_fields_with_other_stains_are_refused(small: Params, extractor: Extractor) -> None:
    fields, _ = plates(small)
    turned = FieldSet(fields.images[:, ::-1].copy(), fields.table, tuple(reversed(fields.channels)))
    with pytest.raises(ConfigError, match="measured"):
        extract_profiles(Profile(extractor.config), turned)


def test_a_pass_measures_everything_of_every_field_once(small: Params) -> None:
    fields, _ = plates(small)
    looked_at: list[int] = []

    def count(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        looked_at.append(len(images))
        return images.mean(axis=(1, 2, 3), dtype=np.float64).astype(np.float32)[:, None]

    means, found = measured(fields, [count, profiles])
    assert np.allclose(means[:, 0], [image.mean() for image in fields.images])
    assert np.allclose(found, [profile_of(image) for image in fields.images], rtol=1e-6)
    assert looked_at[0] == len(fields)
    assert sum(looked_at) == len(fields) + 1  # and one pixel, for the width
