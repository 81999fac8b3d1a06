"""Test-time training: the masked autoencoder trains on one image, which is then predicted (paper section 4).

After Gandelsman et al. (2022): for every image on its own a few steps of MAE on copies of its evaluation crop, each
copy with its own mask; encoder and mask token learn, the decoder and the head are frozen, and everything is reset
before the next image. Nothing is learned from one image for another, so the order of the images does not matter.
"""

from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coda.config.params import Params
from coda.errors import ConfigError, Problem
from coda.networks.classical_head import ClassicalHead
from coda.networks.classifier import LinearHead
from coda.networks.extractor import require_channels, set_attention
from coda.networks.head import Head
from coda.networks.mae import mae_loss, random_keep
from coda.networks.runtime import resolve_runtime
from coda.plates.stored import Fields
from coda.training.crops import Cropper, turned_at_random
from coda.training.engine import Entry, Running, fields_digest, fingerprint, run, tensors_digest
from coda.training.images import image_source
from coda.training.losses import Losses
from coda.training.methods.mae.state import MaeState
from coda.training.randomness import generator
from coda.training.schedules import Length

Probabilities = NDArray[np.float32]


def predict_with_ttt(
    state: MaeState,
    head: Head | LinearHead | ClassicalHead,
    fields: Fields,
    params: Params,
    *,
    seed: int,
    **running: Unpack[Running],
) -> Probabilities:
    """Return every field's class probabilities after the last step of its own test-time training.

    Args:
        state: Of Dual-model-MAE; its weights are bit-identical afterwards.
        head: Trained on the encoder's raw tokens; it is read and never changed.
        fields: Images with the encoder's stains.
        params: `crops`, `mae`, `ttt` and `compute`.
        seed: Of masks and turns; a field's own depend on its ``image_id``, not on its place.
        **running: As every training takes them, see `coda.training.engine.Running`; an iteration is a field.

    Returns:
        Float32, shape (fields, classes); rows sum to 1.

    Raises:
        ConfigError: The head expects tokens standardised over a batch, of which one image has none; images do not fit
            the network; or the checkpoint is another experiment's.
        TransientError: The run was asked to stop; started again, it resumes from the checkpoint.
    """
    return _Taught(state, head, fields, params, seed).run(running)


class _Taught:
    """An objective of the engine whose iterations are fields: each is learned from, predicted, and forgotten."""

    def __init__(
        self,
        state: MaeState,
        head: Head | LinearHead | ClassicalHead,
        fields: Fields,
        params: Params,
        seed: int,
    ) -> None:
        require_channels(state.encoder, fields.channels, "fields")
        if head.alignment != "none":
            remedy = "Give the head that was trained on raw tokens."
            problem = Problem("head", f"alignment {head.alignment!r}", "alignment 'none'", remedy)
            raise ConfigError("Test-time training sees one image, which has no batch statistics.", [problem])
        self.params, self.fields, self.seed = params, fields, seed
        self.runtime = resolve_runtime(params.compute)
        self.state, self.head = state.to(self.runtime.device), head.to(self.runtime.device).eval()
        self.cropper = Cropper(image_source(fields, self.runtime.device, params.compute.images), params.crops)
        for network in (state.encoder, state.decoder, head):
            set_attention(network, self.runtime.attention)
        state.encoder.eval().requires_grad_(requires_grad=True)
        state.decoder.eval().requires_grad_(requires_grad=False)
        state.decoder.mask_token.requires_grad = True
        self.weights: list[Tensor] = [
            p for network in (state.encoder, state.decoder) for p in network.parameters() if p.requires_grad
        ]
        self.optimizer = torch.optim.SGD(
            self.weights, lr=params.ttt.learning_rate, momentum=params.ttt.momentum, foreach=True
        )
        self.start = [weight.detach().clone() for weight in self.weights]
        # a buffer of zeros does what a new optimizer's missing one does, and can be reset in place
        self.buffers = [torch.zeros_like(weight) for weight in self.weights]
        for weight, buffer in zip(self.weights, self.buffers, strict=True):
            self.optimizer.state[weight]["momentum_buffer"] = buffer
        self.losses = Losses(self.runtime.device)
        self.found = torch.zeros(len(fields), len(head.classes))

    def run(self, running: Running) -> Probabilities:
        params, count = self.params, len(self.fields)
        sections = params.model_dump(mode="json", include={"crops", "ttt"})
        mae = [params.mae.mask_ratio, params.mae.norm_pixels]
        networks = tensors_digest({**self.state.state_dict(), **self.head.state_dict(prefix="head.")})
        identity = fingerprint("ttt", fields_digest(self.fields), networks, sections, mae, self.seed)
        every = {"batch_size": 1, "checkpoint_every": params.ttt.checkpoint_every}
        try:
            run(
                self, length=Length(count, count), budget=params.mae.adaptation.model_copy(update=every),
                identity=identity, rate="ttt.learning_rate", **running,
            )  # fmt: skip
        finally:
            self._reset()
            self.state.decoder.requires_grad_(requires_grad=True)
        found: Probabilities = self.found.numpy()
        return found

    def step(self, iteration: int, *, measure: bool) -> Entry | None:
        """Learn from one field and predict it."""
        self._reset()
        crops = self.cropper.grid_crops(torch.tensor([iteration]))[0]
        name, steps = str(self.fields.table["image_id"].iloc[iteration]), range(self.params.ttt.steps)
        losses = [self._learn(crops, generator(self.seed, f"ttt {name}", number)) for number in steps]
        self.found[iteration] = self._predicted(crops)
        self.losses.note(iteration, *reversed(losses))
        if not measure:
            return None
        return Entry({"iteration": iteration, "first_loss": float(losses[0]), "loss": self.losses.mean()})

    def state_dict(self) -> dict[str, Tensor]:
        return {"found": self.found, **self.losses.state_dict()}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        self.found = tensors["found"]
        self.losses.load_state_dict(tensors)

    def get_extra_state(self) -> dict[str, Any]:
        return {}

    def set_extra_state(self, records: dict[str, Any]) -> None:
        pass

    def finished(self, iteration: int) -> bool:
        return iteration >= len(self.fields)

    def _learn(self, crops: Tensor, source: torch.Generator) -> Tensor:
        ttt, mae, size = self.params.ttt, self.params.mae, self.state.encoder.patch_size
        copies = crops[torch.arange(ttt.copies) % len(crops)]
        if ttt.flips:
            copies = turned_at_random(copies, self.params.crops, source)
        grid = (copies.shape[-2] // size, copies.shape[-1] // size)
        keep = random_keep(ttt.copies, grid[0] * grid[1], mae.mask_ratio, source).to(copies.device)
        with self.runtime.autocast():
            predicted = self.state.decoder(self.state.encoder(copies, keep), keep, grid)
        loss = mae_loss(predicted, copies, keep, size, norm_pixels=mae.norm_pixels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def _predicted(self, crops: Tensor) -> Tensor:
        with self.runtime.autocast():
            logits = self.head(self.state.encoder(crops))
        mean: Tensor = logits.float().softmax(dim=-1).mean(dim=0)
        return mean.cpu()

    @torch.no_grad()
    def _reset(self) -> None:
        """Go back to the start, in place: no memory is asked for, and nothing of the last image is left."""
        torch._foreach_copy_(self.weights, self.start)
        torch._foreach_zero_(self.buffers)
