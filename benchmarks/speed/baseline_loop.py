"""The customary way to train DINO, written for comparison and for nothing else.

One PNG file a field, decoded again for every sample by Pillow in the workers of a torch DataLoader; the partner looked
up in a pandas table; crops cut, turned and standardised one by one; float32; one forward pass for each crop; a loop
over the loss terms; a loop over the parameters for the teacher and for the optimizer. Networks, schedules and loss are
the same as the engine's, so that on the same views it takes the same step.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from coda.config.params import Crops, DinoOptimizerConfig, Params
from coda.networks.extractor import Extractor, pool_tokens, set_attention
from coda.plates.fieldset import FieldSet
from coda.training import schedules
from coda.training.methods.dino.loss import updated_centre
from coda.training.methods.dino.state import DinoState
from coda.training.optimizer import parameter_groups, set_rates
from coda.training.randomness import derived_seed
from coda.training.schedules import Length

WORKERS = 2
"""Processes of the DataLoader."""


def write_pngs(fields: FieldSet, folder: Path) -> list[Path]:
    """Write every field as one 8-bit grey PNG, its stains side by side, and return the files in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, image in enumerate(fields.images):
        paths.append(folder / f"{number:06d}.png")
        Image.fromarray(np.concatenate(list(image), axis=1)).save(paths[-1])
    return paths


class PairImages(Dataset[list[Tensor]]):
    """One sample a position: the views of an anchor and its partner, as a list of tensors."""

    def __init__(
        self, paths: Sequence[Path], table: pd.DataFrame, crops: Crops, *, by_batch: bool, samples: int, seed: int
    ) -> None:
        """Keep names and table; nothing is read yet.

        Args:
            paths: PNG of every field.
            table: Field index, in the order of the files.
            crops: Sizes and augmentation.
            by_batch: Pair with the same treatment in another batch; else with the image itself (plain DINO).
            samples: Length of the epoch.
            seed: Of everything that is drawn.
        """
        self.paths, self.table, self.crops = list(paths), table, crops
        self.by_batch, self.samples, self.seed = by_batch, samples, seed

    def __len__(self) -> int:
        """Return the samples of the epoch."""
        return self.samples

    def __getitem__(self, position: int) -> list[Tensor]:
        """Return one float32 tensor (channels, side, side) for each view, in the order of `coda.training.crops`."""
        rng = np.random.default_rng(derived_seed(self.seed, "customary", position))
        row = int(rng.integers(len(self.paths)))
        first = self._load(row)
        second = self._load(self._partner(row, rng)) if self.by_batch else first
        count, crops = self.crops.locals_per_image, self.crops
        views = [self._view(image, crops.global_size, rng, jitter=True) for image in (first, second)]
        for image in (first, second):
            views += [self._view(image, crops.local_size, rng, jitter=False) for _ in range(count)]
        return views

    def _partner(self, row: int, rng: np.random.Generator) -> int:
        own = self.table.iloc[row]
        same = self.table[
            (self.table["Metadata_Treatment"] == own["Metadata_Treatment"])
            & (self.table["Metadata_Batch"] != own["Metadata_Batch"])
        ]
        return int(same.sample(1, random_state=int(rng.integers(2**31))).index[0]) if len(same) else row

    def _load(self, row: int) -> NDArray[np.uint8]:
        with Image.open(self.paths[row]) as picture:
            pixels = np.asarray(picture)
        image = np.stack(np.split(pixels, pixels.shape[1] // pixels.shape[0], axis=1))
        side = self.crops.centre
        top, left = (max(0, (image.shape[axis] - side) // 2) for axis in (1, 2))
        centre: NDArray[np.uint8] = image[:, top : top + side, left : left + side]
        return centre

    def _view(self, image: NDArray[np.uint8], size: int, rng: np.random.Generator, *, jitter: bool) -> Tensor:
        crops = self.crops
        top, left = (int(rng.integers(image.shape[axis] - size + 1)) for axis in (1, 2))
        cut = image[:, top : top + size, left : left + size]
        if crops.rotations:
            cut = np.rot90(cut, int(rng.integers(4)), axes=(1, 2))
        if crops.flips and rng.random() < 0.5:
            cut = cut[:, ::-1]
        if crops.flips and rng.random() < 0.5:
            cut = cut[:, :, ::-1]
        view = torch.from_numpy(np.ascontiguousarray(cut)).float() / 255
        if jitter and rng.random() < crops.intensity_probability:
            noise = torch.from_numpy(rng.standard_normal((2, len(view), 1, 1)).astype(np.float32))
            view = (view + noise[0] * crops.brightness_sd).clamp(0, 1)
            view = view.pow(1 + noise[1].clamp(-1, 1) * crops.gamma_sd).clamp(0, 1)
        basis = view if crops.normalise == "crop" else torch.from_numpy(image.copy()).float() / 255
        mean, deviation = basis.mean(dim=(1, 2), keepdim=True), basis.std(dim=(1, 2), keepdim=True)
        return (view - mean) / (deviation + 1e-6)


def customary_batches(images: PairImages, batch_size: int, *, workers: int = WORKERS) -> Iterator[list[Tensor]]:
    """Yield batches of views: for each view one tensor (batch, channels, side, side)."""
    loader: DataLoader[list[Tensor]] = DataLoader(images, batch_size=batch_size, num_workers=workers, drop_last=True)
    yield from loader


def loop_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], centre: Tensor, temperatures: tuple[float, float]
) -> Tensor:
    """Return DINO's loss as a loop over its terms.

    Args:
        student: Logits of each view, shape (batch, prototypes); the first views are the teacher's.
        teacher: Logits of each global view.
        centre: Shape (prototypes,).
        temperatures: Of the student and of the teacher.
    """
    total, terms = torch.zeros(()), 0
    for place, target in enumerate(teacher):
        q = F.softmax((target - centre) / temperatures[1], dim=-1).detach()
        for number, view in enumerate(student):
            if number == place:
                continue
            total = total + torch.sum(-q * F.log_softmax(view / temperatures[0], dim=-1), dim=-1).mean()
            terms += 1
    return total / terms


class CustomaryTraining:
    """The customary step over a state of its own, in float32 on the CPU or on the device the state is on."""

    def __init__(self, state: DinoState, params: Params, budget: DinoOptimizerConfig, length: Length) -> None:
        """Build the optimizer; the state is changed in place.

        Args:
            state: Networks and centre.
            params: DINO's settings.
            budget: Rates.
            length: For the schedules.
        """
        self.state, self.params, self.budget, self.length = state, params, budget, length
        state.teacher.eval().requires_grad_(requires_grad=False)
        state.teacher_head.requires_grad_(requires_grad=False)
        state.student.train()
        for network in (state.student, state.teacher):
            set_attention(network, "explicit")
        groups = parameter_groups([state.student, state.student_head])
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, foreach=False, fused=False)

    def step(self, views: Sequence[Tensor], iteration: int) -> float:
        """Take one step on a batch of views and return its loss.

        Args:
            views: One tensor (batch, channels, side, side) for each view.
            iteration: For the schedules.
        """
        state, dino, device = self.state, self.params.dino, self.state.centre.device
        views = [view.to(device) for view in views]
        set_rates(
            self.optimizer,
            learning_rate=schedules.learning_rate(iteration, self.length, self.budget),
            weight_decay=schedules.weight_decay(iteration, self.length, self.budget),
        )
        with torch.no_grad():
            teacher = self._logits(state.teacher, state.teacher_head, views[:2])
        student = self._logits(state.student, state.student_head, views)
        warm = schedules.teacher_temperature(iteration, self.length, self.budget)
        loss = loop_loss(student, teacher, state.centre, (dino.student_temperature, warm))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if schedules.last_layer_is_frozen(iteration, self.length, self.budget):
            state.student_head.last_layer.weight.grad = None
        learned = [*state.student.parameters(), *state.student_head.parameters()]
        nn.utils.clip_grad_norm_(learned, self.budget.clip_norm, foreach=False)
        self.optimizer.step()
        self._update_teacher(schedules.teacher_momentum(iteration, self.length, self.budget))
        state.centre = updated_centre(state.centre, torch.cat(teacher), dino.centre_momentum)
        return float(loss.detach())

    def _logits(self, extractor: Extractor, head: nn.Module, views: Sequence[Tensor]) -> list[Tensor]:
        features = torch.empty(0, device=self.state.centre.device)
        for view in views:
            features = torch.cat([features, pool_tokens(extractor(view), extractor.pool)])
        return list(head(features).chunk(len(views)))

    @torch.no_grad()
    def _update_teacher(self, momentum: float) -> None:
        state = self.state
        for ours, theirs in ((state.teacher, state.student), (state.teacher_head, state.student_head)):
            for slow, fast in zip(ours.parameters(), theirs.parameters(), strict=True):
                slow.data.mul_(momentum).add_((1 - momentum) * fast.detach().data)
