"""Masked-autoencoder training: Dual-model-MAE on the source and ODA-MAE on a target alike (paper section 4)."""

from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coda.config.params import OptimizerConfig, Params
from coda.networks.extractor import pool_tokens, require_channels, set_attention
from coda.networks.mae import mae_loss, random_keep
from coda.networks.runtime import resolve_runtime
from coda.plates.stored import Fields
from coda.training import schedules
from coda.training.blindness import require_blind
from coda.training.crops import Cropper
from coda.training.distributed import together, world
from coda.training.engine import Entry, Running, fields_digest, fingerprint, run, tensors_digest
from coda.training.flops import mae_step
from coda.training.health import spread_alarms, spread_of
from coda.training.images import image_source
from coda.training.losses import Losses
from coda.training.methods.base import SslResult
from coda.training.methods.mae.state import MaeState
from coda.training.optimizer import clip_global_norm, new_optimizer, optimizer_tensors, restore_optimizer, set_rates
from coda.training.pairs import PairSampler
from coda.training.randomness import generator
from coda.training.schedules import Length, length_of


def train_mae(
    fields: Fields,
    params: Params,
    budget: OptimizerConfig,
    *,
    state: MaeState,
    seed: int,
    anchors: NDArray[np.bool_] | None = None,
    **running: Unpack[Running],
) -> SslResult:
    """Train encoder and decoder to paint hidden patches of unlabelled fields; `state` is changed in place.

    The same for pretraining (``params.mae.pretrain``, a new state) and adaptation (``params.mae.adaptation``, the
    source's state): schedules and optimizer start anew. Crops are DINO's global ones, one of each field. A run that
    was stopped resumes from its newest checkpoint and is, on a CPU, bit-identical to one that was not.

    Args:
        fields: Images with the encoder's stains, in its order; in memory, or left in their plate stores.
        params: `crops`, `mae`, ``pairs.control_share`` and `compute` are read.
        budget: Length and rates.
        state: What to start from.
        seed: Of order, crops and masks.
        anchors: Fields that are learned from; all when not given.
        **running: As every training takes them, see `coda.training.engine.Running`.

    Raises:
        ConfigError: Images do not fit the network or the crops, the table holds more than the field index, the
            checkpoint is another experiment's, or the loss is no longer a number.
        TransientError: The run was asked to stop; started again, it resumes from the checkpoint.
    """
    require_channels(state.encoder, fields.channels, "fields")
    require_blind(fields.table)
    # anchors alone: the same fields an epoch as DINO has, negative controls capped in the same way
    sampler = PairSampler(fields.table, params.pairs.model_copy(update={"by": "none"}), anchors)
    length = length_of(budget, sampler.fields_per_epoch)
    settings = params.mae.model_dump(mode="json", exclude={"pretrain", "adaptation"})
    options = [settings, params.crops.model_dump(mode="json"), params.pairs.control_share, budget.model_dump(), seed]
    options += [anchors.tolist()] if anchors is not None else []
    identity = fingerprint("mae", fields_digest(fields), tensors_digest(state.state_dict()), options)
    objective = _MaeObjective(fields, params, budget, state=state, sampler=sampler, length=length, seed=seed)
    width, depth = params.mae.decoder_width, params.mae.decoder_depth
    work = mae_step(
        state.encoder, params.crops.global_size,
        mask_ratio=params.mae.mask_ratio, width=width, depth=depth, hidden=4 * width,
    )  # fmt: skip
    result = run(
        objective, length=length, budget=budget, identity=identity, flops_per_sample=work, **running,
        rate=f"mae.{'pretrain' if budget is params.mae.pretrain else 'adaptation'}.learning_rate",
    )  # fmt: skip
    state.encoder.eval()
    state.decoder.eval()
    return SslResult(**vars(result), state=state, pairs=sampler.report)


class _Painter(nn.Module):
    """Encoder and decoder in one forward pass, as several processes need it."""

    def __init__(self, state: MaeState) -> None:
        super().__init__()
        self.encoder, self.decoder = state.encoder, state.decoder

    def forward(self, images: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.encoder(images, keep)
        size = self.encoder.patch_size
        return tokens, self.decoder(tokens, keep, (images.shape[-2] // size, images.shape[-1] // size))


class _MaeObjective:
    """One iteration after another over a state; owns optimizer and images."""

    def __init__(
        self,
        fields: Fields,
        params: Params,
        budget: OptimizerConfig,
        *,
        state: MaeState,
        sampler: PairSampler,
        length: Length,
        seed: int,
    ) -> None:
        self.params, self.budget, self.sampler, self.length, self.seed = params, budget, sampler, length, seed
        self.runtime = resolve_runtime(params.compute)
        self.state, self.losses = state.to(self.runtime.device), Losses(self.runtime.device)
        self.cropper = Cropper(image_source(fields, self.runtime.device, params.compute.images), params.crops)
        for network in (state.encoder, state.decoder):
            set_attention(network.train().requires_grad_(requires_grad=True), self.runtime.attention)
        self.painter = together(_Painter(state))
        self.optimizer = new_optimizer([state.encoder, state.decoder], self.runtime.device)
        for group in self.optimizer.param_groups:
            group["betas"] = (0.9, params.mae.beta2)

    def step(self, iteration: int, *, measure: bool) -> Entry | None:
        images, keep = self._masked(iteration)
        rate = schedules.learning_rate(iteration, self.length, self.budget)
        decay = schedules.weight_decay(iteration, self.length, self.budget)
        set_rates(self.optimizer, learning_rate=rate, weight_decay=decay)
        with self.runtime.autocast():
            tokens, predicted = self.painter(images, keep)
        size, normed = self.state.encoder.patch_size, self.params.mae.norm_pixels
        loss = mae_loss(predicted, images, keep, size, norm_pixels=normed)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_global_norm(self.optimizer, self.budget.clip_norm)
        self.optimizer.step()
        self.losses.note(iteration, loss, norm)
        if not measure:
            return None
        mean = self.losses.mean()
        spread = spread_of(pool_tokens(tokens, self.state.encoder.pool))
        numbers = {"iteration": iteration, "loss": mean, "learning_rate": rate}
        return Entry(
            {**numbers, "gradient_norm": float(norm), "feature_spread": spread}, spread_alarms(spread, "encoder")
        )

    def state_dict(self) -> dict[str, Tensor]:
        moments = {f"optimizer.{name}": tensor for name, tensor in optimizer_tensors(self.optimizer).items()}
        state = {f"state.{name}": tensor for name, tensor in self.state.state_dict().items()}
        return {**state, **moments, **self.losses.state_dict()}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        parts = {
            prefix: {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            for prefix in ("state.", "optimizer.")
        }
        self.state.load_state_dict(parts["state."])
        restore_optimizer(self.optimizer, parts["optimizer."])
        self.losses.load_state_dict(tensors)

    def get_extra_state(self) -> dict[str, Any]:
        return {}

    def set_extra_state(self, records: dict[str, Any]) -> None:
        pass

    def finished(self, iteration: int) -> bool:
        return False

    def _masked(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Return this process's crops of the iteration, and the patches that stay visible."""
        size, share = self.params.crops.global_size, world().share(self.budget.batch_size)
        rows = torch.from_numpy(self.sampler.batch(self.seed, iteration, self.budget.batch_size)[0])
        own, source = torch.arange(len(rows))[share], generator(self.seed, "mae crops", iteration)
        images = self.cropper.random_crops(rows, size, source, jitter=True, keep=own)
        patches = (size // self.state.encoder.patch_size) ** 2
        keep = random_keep(len(rows), patches, self.params.mae.mask_ratio, generator(self.seed, "masks", iteration))
        return images, keep[own].to(images.device)
